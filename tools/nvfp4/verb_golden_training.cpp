// SPDX-License-Identifier: Apache-2.0
// nvfp4 golden training: repeats the recorded first steps of each model and recipe and compares loss words
// and digests, or records them.
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/manifest.hpp"
#include "nvfp4/reference_models/golden_training/training_slices.hpp"
#include "tools/environment.hpp"
#include "tools/nvfp4/numbers.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <memory>

namespace nvfp4::tool {
namespace {

using namespace nvfp4::models;

struct Options {
  std::string dir, match, device = "cpu";
  int64_t steps = 20;
  int threads = 0;
  bool write = false, mixers = false, json = false;
};

std::string folder_of(const Options &o) {
  return (o.dir.empty() ? golden::find_golden_folder(asked_golden_folder()) : o.dir) + "/training";
}

std::vector<StepsOptions> runs_of(const std::string &family, const Options &o) {
  if (o.mixers) return mixer_product_runs(family, o.steps);
  std::vector<StepsOptions> runs;
  for (const std::string_view recipe : builtin_recipes()) {
    runs.emplace_back();
    runs.back().model = family;
    runs.back().recipe = recipe;
    runs.back().steps = o.steps;
  }
  return runs;
}

void record(const Options &o) {
  const std::string folder = folder_of(o);
  std::filesystem::create_directories(folder);
  double done = 0;
  Progress progress("golden training --record");
  for (const ModelFamily *family : families()) {
    const std::string name(family->name);
    if (name.find(o.match) == std::string::npos) continue;
    const std::vector<StepsOptions> runs = runs_of(name, o);
    std::vector<TrainingSlice> slices;
    for (const StepsOptions &run : runs) {
      TrainingSlice slice{run, {}};
      slice.options.threads = o.threads;
      slice.steps = run_steps(slice.options);
      slices.push_back(std::move(slice));
      progress.show(++done / double(families().size() * runs.size()));
    }
    const std::string text = training_slices_json(slices);
    io::write_file_atomically(folder + "/" + name + ".json", std::as_bytes(std::span(text)));
  }
}

int verify(const Options &o) {
  const std::vector<TrainingSlice> slices = read_training_slices(folder_of(o), o.match);
  int64_t wrong = 0, steps = 0;
  double done = 0;
  size_t width = 28;
  for (const TrainingSlice &slice : slices) width = std::max(width, slice.name().size());
  Progress progress("golden training");
  for (const TrainingSlice &slice : slices) {
    progress.show(done++ / double(slices.size()));
    const SliceRepetition got = repeat(slice, o.device, o.threads);
    progress.clear();
    // only now: without the device there is no table
    if (!o.json && &slice == &slices.front())
      fmt::print("{:<{}} {:>6}  {}\n", "training slice", width, "steps", "equal");
    steps += int64_t(got.steps.size());
    if (!got.identical()) ++wrong;
    if (o.json) continue;
    if (got.identical())
      fmt::print("{:<{}} {:>6}  yes\n", slice.name(), width, got.steps.size());
    else
      fmt::print("{:<{}} {:>6}  NO: step {}: {}, recorded {}\n", slice.name(), width, got.steps.size(),
                 got.equal + 1, step_text(got.steps[got.equal]), step_text(slice.steps[got.equal]));
  }
  if (o.json) {
    const nlohmann::ordered_json j = {
        {"slices", slices.size()}, {"steps", steps}, {"mismatches", wrong}, {"device", o.device}};
    fmt::print("{}\n", j.dump());
  }
  return wrong == 0 ? kEqual : kMismatch;
}

} // namespace

void register_golden_training(Command &golden, int &exit_code) {
  auto *verb = golden.add_subcommand(
      "training", "Repeat the recorded first steps of each model and recipe; exit code 1 when a bit differs");
  auto o = std::make_shared<Options>();
  verb->add_option("--dir", o->dir, "Golden folder (default: the one of this project)");
  verb->add_option("--match", o->match,
                   "Only slices whose name has this, e.g. \"gla tiny chon\"; with --record, families");
  verb->add_option("--device", o->device, "cpu or cuda")->capture_default_str();
  add_threads(*verb, o->threads);
  verb->add_flag("--record", o->write, "Write the slices instead");
  verb->add_flag("--mixers", o->mixers,
                 "With --record: runs with products inside mixers instead, as golden/mixers has them");
  verb->add_option("--steps", o->steps, "With --record")->capture_default_str()->check(Range{1, 100000});
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
