// SPDX-License-Identifier: Apache-2.0
// A grid of training runs, models x recipes x seeds, and what came out of it. Runs that are done are kept,
// runs that were stopped continue.
#pragma once
#include "nvfp4/reference_models/report/statistics.hpp"
#include "nvfp4/reference_models/train/run_folder.hpp"

#include <string_view>

namespace nvfp4::models {

struct ExperimentModel {
  std::string model, size;
};

struct Experiment {
  TrainOptions base; ///< what all runs share
  std::vector<ExperimentModel> models;
  std::vector<std::string> recipes;
  std::vector<uint64_t> seeds;
  std::string out;
};

/// From JSON: the names of TrainOptions' fields, and "models": [{"model": "gla", "size": "tiny"}], "recipes":
/// [...], "seeds": [...], "out": DIR. What the grid decides (model, size, recipe, seed, resume) cannot be
/// given as a field. Throws Error, which names `source` and the key, for unknown keys, wrong types, empty or
/// repeated lists.
[[nodiscard]] Experiment parse_experiment(std::string_view json, const std::string &source);

struct ExperimentRun {
  TrainOptions options;
  TrainResult result;
  bool kept = false;   ///< finished before
  std::string failure; ///< the Error of train(), or empty
};

/// One model under one recipe, over its seeds.
struct ExperimentGroup {
  ExperimentModel model;
  std::string recipe;
  std::vector<uint64_t> seeds;    ///< that finished
  std::vector<uint64_t> diverged; ///< seeds whose runs did; they count nowhere below
  Estimate final_loss, smoothed_loss, validation_loss;
  /// Relative to the bf16 run of the same seed, percent; n counts the pairs, 0 without a bf16 recipe.
  Estimate smoothed_gap, validation_gap;
};

struct ExperimentSummary {
  std::vector<ExperimentRun> runs;
  std::vector<ExperimentGroup> groups;
  bool interrupted = false; ///< a run was: the grid ends there, and nothing is written
};

/// What a run is about: its model, recipe and data, read and checked. Throws Error where something is wrong.
[[nodiscard]] RunDescription describe_run(const TrainOptions &options);

/// Train function of a grid: models::train, or a stand-in.
using TrainFunction =
    std::function<TrainResult(const TrainOptions &, const std::function<void(const StepReport &)> &)>;
/// Called after each step, with the run's number from 0 and how many there are.
/// Called when all is checked, before the first run, with all of them.
using ExperimentPlan = std::function<void(const std::vector<ExperimentRun> &)>;
using DescribeFunction = std::function<RunDescription(const TrainOptions &)>;
using ExperimentProgress =
    std::function<void(size_t run, size_t runs, const TrainOptions &, const StepReport &)>;

/// OUT/MODEL-SIZE-RECIPE-SEED; of a model or recipe that is a file, its name without folder and extension.
[[nodiscard]] std::string run_folder(const Experiment &experiment, const ExperimentModel &model,
                                     const std::string &recipe, uint64_t seed);

/// Runs the grid, seed by seed so that pairs are complete early. A run is kept if its folder has a
/// result.json whose options are the same but for those that do not decide bits, and, where `describe` is
/// given, a run.json with the same contents of model, recipe and data; with others it is refused. One that
/// had fewer steps under the same schedule goes on. A folder with a run.json is resumed. All of this is
/// looked at before the first run. A run that fails with an Error is noted and the grid goes on. Writes
/// OUT/summary.json. Error where another process runs a grid there.
ExperimentSummary run_experiment(const Experiment &experiment, const TrainFunction &train,
                                 const ExperimentProgress &progress = {},
                                 const DescribeFunction &describe = {}, const ExperimentPlan &plan = {});

/// The groups from the runs.
[[nodiscard]] std::vector<ExperimentGroup> summarize(const Experiment &experiment,
                                                     const std::vector<ExperimentRun> &runs);

/// A table for a terminal, one group a line; not a number where a loss is none.
[[nodiscard]] std::string summary_table(const ExperimentSummary &summary);
/// summary.json's text.
[[nodiscard]] std::string summary_json(const ExperimentSummary &summary);

} // namespace nvfp4::models
