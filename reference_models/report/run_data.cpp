// SPDX-License-Identifier: Apache-2.0
// JSON and safetensors into plain structs. Fields that a file lacks stay at their defaults.
#include "reference_models/report/run_data.hpp"

#include "golden/io/file.hpp"
#include "golden/io/message.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>

namespace nvfp4::models {
namespace {

using Json = nlohmann::json;
namespace fs = std::filesystem;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

std::string read_text(const std::string &path) {
  const auto bytes = io::read_file(path);
  return {reinterpret_cast<const char *>(bytes.data()), bytes.size()};
}

/// null and absent are NaN.
double real(const Json &j, const char *key) {
  const auto at = j.find(key);
  return at == j.end() || at->is_null() ? kNan : at->get<double>();
}
template <class T> T value(const Json &j, const char *key, T otherwise) {
  const auto at = j.find(key);
  return at == j.end() || at->is_null() ? otherwise : at->get<T>();
}

Json read_json(const std::string &path) {
  Json json = Json::parse(read_text(path), nullptr, false);
  if (json.is_discarded()) throw Error(io::printable(path) + ": expected JSON");
  return json;
}

/// Calls take(object) for each line; wrong types inside are reported with the line.
void each_line(const std::string &path, const std::function<void(const Json &)> &take) {
  if (!fs::exists(path)) return;
  const std::string text = read_text(path);
  int64_t number = 1;
  for (size_t at = 0; at < text.size(); ++number) {
    const size_t end = text.find('\n', at);
    if (end == std::string::npos) break; // half a line
    const std::string line = text.substr(at, end - at);
    at = end + 1;
    const Json json = Json::parse(line, nullptr, false);
    try {
      if (!json.is_object()) throw Error("");
      take(json);
    } catch (const std::exception &) {
      throw Error(io::printable(path) + " line " + std::to_string(number) +
                  ": expected a record of this program, got " + io::in_quotes(line));
    }
  }
}

void take_diagnostics(RunData &run, const Json &j) {
  const auto step = j.at("step").get<int64_t>();
  const auto layer = value<int>(j, "layer", -1);
  const auto type = j.at("type").get<std::string>();
  if (type == "tensor") {
    TensorRecord t;
    t.step = step;
    t.layer = layer;
    t.op = j.at("op").get<std::string>();
    const auto kind = j.at("kind").get<std::string>();
    t.kind = kind == "weight"     ? TensorKind::weight
             : kind == "gradient" ? TensorKind::gradient
                                  : TensorKind::activation;
    t.channels = value<int64_t>(j, "channels", 0);
    t.kurtosis = real(j, "kurtosis");
    const Json blocks = value<Json>(j, "block_kurtosis", Json::object());
    t.block_max = real(blocks, "max");
    t.block_p99 = real(blocks, "p99");
    t.top = value<std::vector<int64_t>>(j, "top", {});
    t.hot = std::clamp<int64_t>(value<int64_t>(j, "hot", 1), 0, int64_t(t.top.size()));
    const Json magnitudes = value<Json>(j, "top_max", Json::array());
    t.top1 = magnitudes.empty() || magnitudes[0].is_null() ? kNan : magnitudes[0].get<double>();
    t.quantized = value<bool>(j, "quantized", false);
    t.ftz = real(j, "ftz");
    t.snr_db = real(j, "snr_db");
    run.tensors.push_back(std::move(t));
  } else if (type == "output") {
    run.outputs.push_back({step, layer, j.at("op").get<std::string>(), real(j, "top1")});
  } else if (type == "attention") {
    run.attention.push_back(
        {step, layer, real(j, "entropy"), real(j, "logit_max"), real(j, "logit_kurtosis")});
  } else if (type == "gate") {
    run.gates.push_back({step, layer, real(j, "min"), real(j, "max"), real(j, "top1")});
  } else if (type == "swiglu") {
    run.swiglu.push_back({step, layer, real(j, "mean_abs"), real(j, "p99_abs"), real(j, "weighted")});
  }
}

void read_channels(RunData &run, const std::string &path) {
  if (!fs::exists(path)) return;
  const io::TensorFile file = io::read_tensors(path);
  const auto steps = file.elements<int64_t>("steps");
  run.channel_steps.assign(steps.begin(), steps.end());
  constexpr std::string_view prefix = "channel_max/";
  for (const io::Tensor &t : file.tensors) {
    if (!t.name.starts_with(prefix)) continue;
    const std::string name = t.name.substr(prefix.size());
    const size_t dot = name.find('.');
    if (dot == std::string::npos || t.shape.size() != 2 || t.shape[0] != int64_t(steps.size()))
      throw Error(io::message_prefix(path, t.name) +
                  "expected LAYER.OPERATOR and a row for each recorded step");
    ChannelHistory h{std::atoi(name.c_str()), name.substr(dot + 1), t.shape[1], {}};
    const auto values = t.as<float>(path);
    h.max.assign(values.begin(), values.end());
    run.channels.push_back(std::move(h));
  }
  std::sort(run.channels.begin(), run.channels.end(), [](const ChannelHistory &a, const ChannelHistory &b) {
    return a.layer != b.layer ? a.layer < b.layer : a.op < b.op;
  });
}

void take_description(RunData &run, const Json &json) {
  const Json model = value<Json>(json, "model", Json::object()),
             recipe = value<Json>(json, "recipe", Json::object());
  const Json options = value<Json>(json, "options", Json::object());
  run.family = value<std::string>(model, "family", value<std::string>(options, "model", "model"));
  const std::string size = value<std::string>(model, "name", value<std::string>(options, "size", ""));
  run.model = size.empty() || size.starts_with(run.family) ? (size.empty() ? run.family : size)
                                                           : run.family + "-" + size;
  run.recipe = value<std::string>(recipe, "name", value<std::string>(options, "recipe", "recipe"));
  run.seed = value<uint64_t>(options, "seed", 0);
  run.planned_steps = value<int64_t>(options, "steps", 0);
  run.parameters = value<int64_t>(json, "parameters", 0);
  const auto data = value<std::string>(options, "data", "");
  run.data = data.starts_with("task:") ? data : fs::path(data).filename().string();
  run.device = value<std::string>(options, "device", "cpu");
  for (const char *key :
       {"batch", "sequence", "accumulation", "learning_rate", "schedule", "clip", "weight_decay"})
    if (options.contains(key)) {
      std::string text = options[key].is_string() ? options[key].get<std::string>() : options[key].dump();
      std::string name = key;
      std::replace(name.begin(), name.end(), '_', ' ');
      run.settings += (run.settings.empty() ? "" : ", ") + name + " " + text;
    }
}

} // namespace

RunData read_run(const std::string &folder) {
  RunData run;
  run.folder = folder;
  const std::string description = folder + "/run.json", sensitivity = folder + "/sensitivity.json";
  if (!fs::exists(description))
    throw Error(io::printable(folder) + ": expected the folder of a run, with run.json, or of an experiment");
  const Json json = read_json(description);
  try {
    take_description(run, json);
  } catch (const Json::exception &) {
    throw Error(io::printable(description) + ": expected the description of a run: model, recipe, options");
  }
  each_line(folder + "/log.jsonl", [&](const Json &j) {
    LogLine line{j.at("step").get<int64_t>(), value<int64_t>(j, "tokens", 0), real(j, "loss"),
                 real(j, "grad_norm"),        real(j, "tokens_per_s"),        {}};
    if (j.contains("val_loss")) line.validation_loss = real(j, "val_loss");
    run.log.push_back(line);
  });
  each_line(folder + "/diagnostics.jsonl", [&](const Json &j) { take_diagnostics(run, j); });
  read_channels(run, folder + "/diagnostics.safetensors");
  if (fs::exists(sensitivity)) {
    const Json list = read_json(sensitivity);
    try {
      for (const Json &s : list)
        run.sensitivity.push_back({s.at("op").get<std::string>(), real(s, "score"), real(s, "loss"),
                                   real(s, "baseline"), value<int64_t>(s, "parameters", 0)});
    } catch (const Json::exception &) {
      throw Error(io::printable(sensitivity) +
                  ": expected a list of objects with op, score, loss, baseline, parameters");
    }
  }
  return run;
}

std::vector<std::string> find_runs(const std::vector<std::string> &paths) {
  std::vector<std::string> runs;
  std::set<std::string> seen;
  const auto add = [&](const fs::path &p) {
    if (seen.insert(fs::weakly_canonical(p).string()).second) runs.push_back(p.string());
  };
  for (const std::string &path : paths) {
    if (!fs::is_directory(path))
      throw Error(io::printable(path) + ": expected the folder of a run or of an experiment");
    if (fs::exists(path + "/run.json")) {
      add(path);
      continue;
    }
    std::vector<fs::path> inside;
    for (const auto &entry : fs::directory_iterator(path))
      if (fs::exists(entry.path() / "run.json")) inside.push_back(entry.path());
    if (inside.empty())
      throw Error(io::printable(path) +
                  ": no run.json in it or in its folders: give the folder of a run or of an experiment");
    std::sort(inside.begin(), inside.end());
    for (const fs::path &p : inside) add(p);
  }
  return runs;
}

} // namespace nvfp4::models
