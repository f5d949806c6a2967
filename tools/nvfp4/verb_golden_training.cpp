// SPDX-License-Identifier: Apache-2.0
// nvfp4 golden training: repeats the recorded first steps of each model and recipe and compares loss words
// and digests, or records them. Evidence: model (this library's CPU reference); no hardware is claimed.
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/golden/manifest.hpp"
#include "nvfp4/reference_models/train/steps.hpp"
#include "tools/environment.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <filesystem>
#include <memory>

namespace nvfp4::tool {
namespace {

using Json = nlohmann::ordered_json;
using models::StepRecord;
using models::StepsOptions;

struct Options {
  std::string dir, match, device = "cpu";
  int64_t steps = 20;
  int threads = 0;
  bool write = false, json = false;
};

std::string folder_of(const Options &o) { return o.dir.empty() ? golden::find_golden_folder(asked_golden_folder()) : o.dir; }

std::string hex(uint32_t word) { return fmt::format("{:08x}", word); }

Json describe(const StepsOptions &o) {
  return {{"model", o.model},
          {"size", o.size},
          {"data", o.data},
          {"batch", o.batch},
          {"sequence", o.sequence},
          {"seed", o.seed},
          {"learning_rate", o.learning_rate}};
}

void record(const Options &o) {
  const std::string folder = folder_of(o) + "/training";
  std::filesystem::create_directories(folder);
  const std::vector<std::string> families = {"gla", "qwen3", "qwen2.5", "gdn"};
  double done = 0;
  for (const std::string &family : families) {
    StepsOptions s;
    s.model = family;
    s.steps = o.steps;
    s.threads = o.threads;
    Json file = {
        {"format", "nvfp4-training-slices"}, {"version", 1}, {"evidence", "model"}, {"options", describe(s)}};
    for (const std::string_view recipe : models::builtin_recipes()) {
      s.recipe = recipe;
      Json losses = Json::array(), digests = Json::array();
      for (const StepRecord &step : models::run_steps(s)) {
        losses.push_back(hex(step.loss));
        digests.push_back(step.digest);
      }
      file["slices"].push_back({{"recipe", recipe}, {"loss_hex", losses}, {"digest", digests}});
      show_progress("recording", ++done / double(families.size() * models::builtin_recipes().size()));
    }
    const std::string text = file.dump(1) + "\n";
    io::write_file_atomically(folder + "/" + family + ".json", std::as_bytes(std::span(text)));
  }
}

struct Slice {
  std::string name;
  StepsOptions options;
  Json losses, digests;
};

std::vector<Slice> read_slices(const Options &o) {
  const std::string folder = folder_of(o) + "/training";
  if (!std::filesystem::is_directory(folder))
    throw Error(io::printable(folder) +
                ": expected a folder of training slices; give --dir with the golden folder");
  std::vector<std::string> paths;
  for (const auto &entry : std::filesystem::directory_iterator(folder))
    if (entry.path().extension() == ".json") paths.push_back(entry.path().string());
  std::sort(paths.begin(), paths.end());
  std::vector<Slice> out;
  for (const std::string &path : paths) {
    const auto bytes = io::read_file(path);
    try {
      const Json file =
          Json::parse(std::string_view(reinterpret_cast<const char *>(bytes.data()), bytes.size()));
      if (file.at("format") != "nvfp4-training-slices" || file.at("version") != 1)
        throw Error("another format or version");
      for (const Json &slice : file.at("slices")) {
        Slice s;
        const Json &options = file.at("options");
        s.options.model = options.at("model");
        s.options.size = options.at("size");
        s.options.data = options.at("data");
        s.options.batch = options.at("batch");
        s.options.sequence = options.at("sequence");
        s.options.seed = options.at("seed");
        s.options.learning_rate = options.at("learning_rate");
        s.options.recipe = slice.at("recipe");
        s.losses = slice.at("loss_hex");
        s.digests = slice.at("digest");
        s.options.steps = int64_t(s.losses.size());
        s.options.threads = o.threads;
        s.options.device = o.device;
        s.name = s.options.model + " " + s.options.size + " " + s.options.recipe;
        if (s.name.find(o.match) != std::string::npos) out.push_back(std::move(s));
      }
    } catch (const std::exception &error) {
      throw Error(io::printable(path) +
                  ": not a file of training slices: " + io::printable(error.what(), 200));
    }
  }
  if (out.empty()) throw Error("no training slice matches " + io::in_quotes(o.match));
  return out;
}

int verify(const Options &o) {
  const std::vector<Slice> slices = read_slices(o);
  int64_t wrong = 0, steps = 0;
  double done = 0;
  for (const Slice &s : slices) {
    const std::vector<StepRecord> got = models::run_steps(s.options);
    // only now: without the device there is no table
    if (!o.json && &s == &slices.front())
      fmt::print("{:<28} {:>6}  {}\n", "training slice", "steps", "equal");
    size_t first = 0;
    while (first < got.size() && hex(got[first].loss) == s.losses.at(first) &&
           got[first].digest == s.digests.at(first))
      ++first;
    steps += int64_t(got.size());
    const bool equal = first == got.size();
    if (!equal) ++wrong;
    show_progress("repeating", ++done / double(slices.size()));
    if (o.json) continue;
    if (equal)
      fmt::print("{:<28} {:>6}  yes\n", s.name, got.size());
    else
      fmt::print("{:<28} {:>6}  NO: step {}: loss {} and digest {}, recorded {} and {}\n", s.name, got.size(),
                 first + 1, hex(got[first].loss), got[first].digest, s.losses.at(first).get<std::string>(),
                 s.digests.at(first).get<std::string>());
  }
  if (o.json)
    fmt::print("{}\n",
               Json{{"slices", slices.size()}, {"steps", steps}, {"mismatches", wrong}, {"device", o.device}}
                   .dump());
  return wrong == 0 ? kEqual : kMismatch;
}

} // namespace

void register_golden_training(CLI::App &golden, int &exit_code) {
  auto *verb = golden.add_subcommand(
      "training", "Repeat the recorded first steps of each model and recipe; exit code 1 when a bit differs");
  auto o = std::make_shared<Options>();
  verb->add_option("--dir", o->dir, "Golden folder (default: the one of this project)");
  verb->add_option("--match", o->match, "Only slices whose name has this, e.g. \"gla tiny chon\"");
  verb->add_option("--device", o->device, "cpu or cuda")->capture_default_str();
  verb->add_option("--threads", o->threads, "0: all")->capture_default_str();
  verb->add_flag("--record", o->write, "Write the slices instead");
  verb->add_option("--steps", o->steps, "With --record")->capture_default_str()->check(CLI::Range(1, 100000));
  verb->add_flag("--json", o->json, "One line of JSON");
  verb->footer("Example: nvfp4 golden training --match chon");
  verb->callback([o, &exit_code] {
    if (o->write)
      record(*o);
    else
      exit_code = verify(*o);
  });
}

} // namespace nvfp4::tool
