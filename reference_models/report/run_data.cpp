// SPDX-License-Identifier: Apache-2.0
// JSON and safetensors into plain structs, each field with its type.
#include "nvfp4/reference_models/report/run_data.hpp"

#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/family/config.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"
#include "nvfp4/reference_models/train/fields.hpp"
#include "nvfp4/reference_models/train/options.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <functional>
#include <limits>
#include <set>

namespace nvfp4::models {
namespace {

using Json = Fields::Json;
namespace fs = std::filesystem;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

/// Calls take(fields) for each whole line; half a line at the end is one that is being written.
void each_line(const std::string &path, const std::string &advice,
               const std::function<void(const Fields &)> &take) {
  if (!fs::exists(path)) return;
  const std::string text = read_text(path);
  int64_t number = 1;
  for (size_t at = 0; at < text.size(); ++number) {
    const size_t end = text.find('\n', at);
    if (end == std::string::npos) break;
    const std::string where = io::printable(path) + " line " + std::to_string(number) + ": ";
    take(Fields(parse_json(std::string_view(text).substr(at, end - at), where, advice), where, advice));
    at = end + 1;
  }
}

void take_log(RunData &run, const Fields &f) {
  LogLine line;
  line.step = f.count("step", run.last_step() + 1);
  line.tokens = f.has("tokens") ? f.count("tokens", 0) : 0;
  line.loss = f.real("loss");
  line.learning_rate = f.optional_real("lr");
  line.gradient_norm = f.optional_real("grad_norm");
  line.tokens_per_second = f.optional_real("tokens_per_s");
  if (f.has("val_loss")) line.validation_loss = f.real("val_loss");
  const bool norm_lost = f.json().contains("grad_norm") && !std::isfinite(line.gradient_norm);
  const bool diverged = (f.has("diverged") && f.flag("diverged")) || !std::isfinite(line.loss) || norm_lost;
  if (diverged && !run.diverged) {
    run.diverged = Divergence{line.step, 0, kNan, {}};
    if (f.has("not_finite")) run.diverged->first = not_finite_of(f.object("not_finite"));
    for (const LogLine &l : run.log)
      run.diverged->last_finite_step = l.step, run.diverged->last_finite_loss = l.loss;
    if (std::isfinite(line.loss)) // the gradient was not
      run.diverged->last_finite_step = line.step, run.diverged->last_finite_loss = line.loss;
  }
  run.log.push_back(line);
}

/// What a line says of a tensor that was not finite.
void take_not_finite(RunData &run, const Fields &f, int64_t step, int layer, StepTensor what) {
  if (!f.has("not_finite")) return;
  const Fields facts = f.object("not_finite");
  NotFinite n;
  n.op = f.text("op");
  n.tensor = (layer < 0 ? "" : block_path(layer)) + n.op;
  n.what = what;
  n.layer = layer;
  n.step = step;
  n.nan = facts.count("nan", 0);
  n.inf = facts.count("inf", 0);
  n.first = facts.counts("first");
  n.shape = facts.counts("shape");
  run.not_finite.push_back(std::move(n));
}

void take_tensor(RunData &run, const Fields &f, int64_t step, int layer) {
  TensorRecord t;
  t.step = step;
  t.layer = layer;
  t.op = f.text("op");
  t.kind = find_enum<TensorKind>(f.text("kind")).value_or(TensorKind::activation);
  t.channels = f.count("channels", 0);
  t.kurtosis = f.real("kurtosis");
  const Fields blocks = f.object("block_kurtosis");
  t.block_max = blocks.real("max");
  t.block_p99 = blocks.real("p99");
  t.top = f.counts("top");
  constexpr std::array<StepTensor, 3> kWhat = {StepTensor::input, StepTensor::weight,
                                               StepTensor::output_grad};
  take_not_finite(run, f, step, layer, kWhat[size_t(t.kind)]);
  t.hot = std::min<int64_t>(f.count("hot", 0), int64_t(t.top.size()));
  const std::vector<double> magnitudes = f.reals("top_max");
  t.top1 = magnitudes.empty() ? kNan : magnitudes[0];
  t.quantized = f.flag("quantized");
  t.ftz = f.real("ftz");
  t.snr_db = f.real("snr_db");
  const auto share = [&](const char *part, double whole) {
    return f.has(part) && whole > 0 ? double(f.count(part, 0)) / whole : kNan;
  };
  const double blocks_of = f.has("blocks") ? double(f.count("blocks", 0)) : 0,
               elements = f.has("rows") ? double(f.count("rows", 0)) * double(t.channels) : 0;
  t.scale_underflows = share("scale_underflows", blocks_of);
  t.largest_scales = share("largest_scales", blocks_of);
  t.saturated = share("saturated", elements);
  run.tensors.push_back(std::move(t));
}

void take_output(RunData &run, const Fields &f, int64_t step, int layer) {
  run.outputs.push_back({step, layer, f.text("op"), f.real("top1")});
  take_not_finite(run, f, step, layer, StepTensor::output);
}

void take_diagnostics(RunData &run, const Fields &f) {
  const int64_t step = f.count("step", 1);
  const auto layer = int(f.count("layer", -1, std::numeric_limits<int>::max()));
  const std::string type = f.text("type");
  if (type == "tensor")
    take_tensor(run, f, step, layer);
  else if (type == "output")
    take_output(run, f, step, layer);
  else if (type == "attention")
    run.attention.push_back({step, layer, f.real("entropy"), f.real("logit_max"), f.real("logit_kurtosis"),
                             f.optional_real("sink"), f.optional_real("sink_heads")});
  else if (type == "residual")
    run.residual.push_back({step, layer, f.real("largest"), f.real("median"), double(f.count("massive", 0)),
                            f.optional_real("growth")});
  else if (type == "gate")
    run.gates.push_back({step, layer, f.real("min"), f.real("max"), f.real("top1")});
  else if (type == "swiglu")
    run.swiglu.push_back({step, layer, f.real("mean_abs"), f.real("p99_abs"), f.real("weighted")});
}

void read_channels(RunData &run, const std::string &path) {
  if (!fs::exists(path)) return;
  const io::TensorFile file = read_channel_file(path);
  const auto steps = file.elements<int64_t>("steps");
  run.channel_steps.assign(steps.begin(), steps.end());
  constexpr std::string_view prefix = "channel_max/";
  for (const io::Tensor &t : file.tensors) {
    if (!t.name.starts_with(prefix)) continue;
    const std::string name = t.name.substr(prefix.size());
    const size_t dot = name.find('.');
    if (dot == std::string::npos || t.shape.size() != 2 || t.shape[0] != int64_t(steps.size()))
      throw Error(io::message_prefix(path, t.name) +
                  "expected LAYER.OPERATOR and a row for each recorded step; remove the file");
    ChannelHistory h{std::atoi(name.c_str()), name.substr(dot + 1), t.shape[1], {}};
    const auto values = t.as<float>(path);
    h.max.assign(values.begin(), values.end());
    run.channels.push_back(std::move(h));
  }
  std::sort(run.channels.begin(), run.channels.end(), [](const ChannelHistory &a, const ChannelHistory &b) {
    return a.layer != b.layer ? a.layer < b.layer : a.op < b.op;
  });
}

/// Every value of a tree with its place, "linears x fprop a format" -> "nvfp4".
void flatten(RunContent &out, const Json &tree, const std::string &place) {
  if (!tree.is_structured() || tree.empty()) {
    out[place] = tree.is_string() ? tree.get<std::string>() : tree.dump();
    return;
  }
  size_t number = 0;
  for (const auto &item : tree.items())
    flatten(out, item.value(),
            (place.empty() ? "" : place + " ") + (tree.is_array() ? std::to_string(number++) : item.key()));
}

/// A model or recipe as this release writes it, so that fields which an older one did not know count as their
/// defaults; as it stands if it is none.
Json whole_model(const Json &model) {
  try {
    return Json::parse(to_json(config_from_json(model.dump(), "model")));
  } catch (const Error &) {
    return model;
  }
}
Json whole_recipe(const Json &recipe) {
  try {
    return Json::parse(to_json(parse_recipe(recipe.dump(), "recipe")));
  } catch (const Error &) {
    return recipe;
  }
}

void take_contents(RunData &run, const Fields &f, const std::string &advice) {
  TrainOptions options;
  const Fields stored = f.object("options");
  for (const auto &[key, value] : stored.json().items())
    set_option(options, key, value, stored.where(), advice);
  const Json all = options_to_json(options);
  each_field(kTrainFields, [&](const auto &field) {
    const std::string_view name = field.name;
    if ((field.marks & kDecides) == 0 || (field.marks & kNames) != 0 || name == "seed") return;
    flatten(run.setting, all[field.name], std::string(name));
  });
  if (schedule_steps(options) == options.steps) run.setting["schedule_steps"] = "all";
  Json model = whole_model(f.object("model").json()), recipe = whole_recipe(f.object("recipe").json());
  model.erase("name");
  recipe.erase("name");
  flatten(run.setting, model, "model");
  flatten(run.recipe_content, recipe, "");
  const std::string sha = f.has("data") ? f.object("data").text("sha256") : run.data;
  run.setting["data"] = run.data + (sha == run.data ? "" : " " + sha.substr(0, 8));
}

void take_description(RunData &run, const Fields &f, const std::string &advice) {
  if (f.count("version", 1) != 1)
    throw Error(io::printable(run.folder) + "/run.json: expected version 1; use the release that wrote it");
  const Fields model = f.object("model"), options = f.object("options");
  run.family = model.text("family");
  const std::string size = model.text("name");
  run.model = size.empty() || size.starts_with(run.family) ? (size.empty() ? run.family : size)
                                                           : run.family + "-" + size;
  run.recipe = f.object("recipe").text("name");
  run.seed = options.seed("seed");
  run.planned_steps = options.count("steps", 1);
  run.parameters = f.count("parameters", 0);
  const std::string data = options.text("data");
  run.data = data.starts_with("task:") ? data : fs::path(data).filename().string();
  run.device = options.text("device");
  take_contents(run, f, advice);
  for (const char *key :
       {"batch", "sequence", "accumulation", "learning_rate", "schedule", "clip", "weight_decay"})
    if (options.has(key)) {
      const Json &value = options.json()[key];
      std::string name = key;
      std::replace(name.begin(), name.end(), '_', ' ');
      run.settings += (run.settings.empty() ? "" : ", ") + name + " " +
                      (value.is_string() ? value.get<std::string>() : value.dump());
    }
}

void read_sensitivity(RunData &run, const std::string &path) {
  if (!fs::exists(path)) return;
  const std::string advice = "; remove the file";
  const Json list = parse_json(read_text(path), io::printable(path) + ": ", advice);
  if (!list.is_array()) throw Error(io::printable(path) + ": expected a list of scores" + advice);
  for (size_t i = 0; i < list.size(); ++i) {
    const Fields f(list[i], io::printable(path) + ": score " + std::to_string(i + 1) + ": ", advice);
    run.sensitivity.push_back(
        {f.text("op"), f.real("score"), f.real("loss"), f.real("baseline"), f.count("parameters", 0)});
  }
}

} // namespace

RunData read_run(const std::string &folder) {
  RunData run;
  run.folder = folder;
  const std::string description = folder + "/run.json";
  if (!fs::exists(description))
    throw Error(io::printable(folder) + ": expected the folder of a run, with run.json, or of an experiment");
  const std::string where = io::printable(description) + ": ",
                    advice = "; leave this folder out or run it again";
  take_description(run, Fields(parse_json(read_text(description), where, advice), where, advice), advice);
  each_line(folder + "/log.jsonl", "; cut the file before this line to report what comes before it",
            [&](const Fields &f) { take_log(run, f); });
  each_line(folder + "/diagnostics.jsonl", "; remove this line or the file",
            [&](const Fields &f) { take_diagnostics(run, f); });
  read_channels(run, folder + "/diagnostics.safetensors");
  read_sensitivity(run, folder + "/sensitivity.json");
  return run;
}

std::vector<std::string> find_runs(const std::vector<std::string> &paths) {
  std::vector<std::string> runs;
  std::set<std::string> seen;
  const auto add = [&](const fs::path &p) {
    if (!io::is_utf8(p.string()))
      throw Error(io::printable(p.string()) + ": expected a name in UTF-8: rename the folder");
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
