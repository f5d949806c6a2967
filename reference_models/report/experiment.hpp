// SPDX-License-Identifier: Apache-2.0
// A grid of training runs, models x recipes x seeds, and what came out of it. Runs that are done are kept,
// runs that were stopped continue; several may run side by side, and several processes may share a grid.
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
  /// As TrainOptions::recipe takes them; one that the grid makes from another is there as its JSON.
  std::vector<std::string> recipes;
  std::vector<uint64_t> seeds;
  std::string out;
  std::string reference; ///< the recipe that differences are taken to; empty: none of the recipes is one
};

/// From JSON: the names of TrainOptions' fields, and "models": [{"model": "gla", "size": "tiny"}], "recipes":
/// [...], "seeds": [...], "out": DIR, and "reference", a recipe's name, which is else bf16 or
/// bf16+mixers=bf16. A recipe is a name or file, or {"name", "base", "change", "bf16_first", "bf16_last"}:
/// the recipe `base` with the JSON merge patch `change` (RFC 7386) applied to what `nvfp4 recipe show`
/// prints, and blocks kept in BF16 as the options of these names do. What the grid decides (model, size,
/// recipe, seed, resume) cannot be given as a field. Throws Error, which names `source` and the key, for
/// unknown keys, wrong types, empty or repeated lists.
[[nodiscard]] Experiment parse_experiment(std::string_view json, const std::string &source);

/// A recipe by its name, without the folder and extension of a file.
[[nodiscard]] std::string recipe_label(const std::string &recipe);

/// A part of a grid's runs: those whose number, from 0, is `index` modulo `count`.
struct Shard {
  int64_t index = 0, count = 1;
};
/// "2/4" is the second of four parts. "env" is the part that a launcher gave this process: by
/// SLURM_ARRAY_TASK_ID, _COUNT, _MIN and _STEP, else by RANK and WORLD_SIZE (torchrun, mpirun wrappers), as
/// `variable` has them. Error for anything else.
[[nodiscard]] Shard parse_shard(const std::string &text,
                                const std::function<const char *(const char *)> &variable);

struct ExperimentRun {
  TrainOptions options;
  TrainResult result;
  bool kept = false;    ///< finished before
  std::string failure;  ///< the Error of train(), or empty
  bool missing = false; ///< of another part, and not finished
};

/// Two recipes of a model, by the validation losses of equal seeds.
struct ExperimentPair {
  ExperimentModel model;
  std::string recipe, other;
  Estimate difference; ///< recipe's minus other's, nats per token
  /// Pairs at which a 95 % interval would leave out 0 if the differences went on with this mean and scatter;
  /// nothing where the pairs are fewer than 2, or more than a million would be needed.
  std::optional<int64_t> needed;
};

/// One model under one recipe, over its seeds.
struct ExperimentGroup {
  ExperimentModel model;
  std::string recipe;
  std::vector<uint64_t> seeds;    ///< that finished
  std::vector<uint64_t> diverged; ///< seeds whose runs did; they count nowhere below
  Estimate final_loss, smoothed_loss, validation_loss;
  /// Relative to the reference's run of the same seed, percent; n counts the pairs, 0 without a reference.
  Estimate smoothed_gap, validation_gap;
};

struct ExperimentSummary {
  std::vector<ExperimentRun> runs;
  std::vector<ExperimentGroup> groups;
  std::vector<ExperimentPair> pairs; ///< each recipe with each one before it
  bool interrupted = false;          ///< a run was: the grid ends there, and nothing is written
};

/// What a run is about: its model, recipe and data, read and checked. Throws Error where something is wrong.
[[nodiscard]] RunDescription describe_run(const TrainOptions &options);

/// Train function of a grid: models::train, or a stand-in. Called on several threads with jobs above 1.
using TrainFunction =
    std::function<TrainResult(const TrainOptions &, const std::function<void(const StepReport &)> &)>;
/// Called when all is checked, before the first run, with all of them. False: nothing is run.
using ExperimentPlan = std::function<bool(const std::vector<ExperimentRun> &)>;
using DescribeFunction = std::function<RunDescription(const TrainOptions &)>;
/// Called after each step, with the run's number from 0 and how many there are; one call at a time.
using ExperimentProgress =
    std::function<void(size_t run, size_t runs, const TrainOptions &, const StepReport &)>;

/// Seconds of steps 2 to `steps` of a run that is not kept, of as many as finished. It is made in `folder`, which the caller
/// removes. Throws what `train` throws.
[[nodiscard]] std::vector<double> time_steps(TrainOptions options, int64_t steps, const std::string &folder,
                                             const TrainFunction &train);

struct ExperimentSettings {
  Shard shard = {};
  int jobs = 1;                          ///< runs side by side
  std::vector<std::string> devices = {}; ///< of the jobs in turn, instead of the grid's
};

/// OUT/MODEL-SIZE-RECIPE-SEED; of a model or recipe that is a file, its name without folder and extension.
[[nodiscard]] std::string run_folder(const Experiment &experiment, const ExperimentModel &model,
                                     const std::string &recipe, uint64_t seed);

/// Runs the grid, seed by seed so that pairs are complete early. A run is kept if its folder has a
/// result.json whose options are the same but for those that do not decide bits, and, where `describe` is
/// given, a run.json with the same contents of model, recipe and data; with others it is refused. One that
/// had fewer steps under the same schedule goes on. A folder with a run.json is resumed. All of this is
/// looked at before the first run. A run that fails with an Error is noted and the grid goes on. Writes
/// OUT/summary.json, of a part of a grid with what other parts have finished by then. Error where another
/// process runs the whole grid there, or, for the whole, any part of it.
ExperimentSummary run_experiment(const Experiment &experiment, const TrainFunction &train,
                                 const ExperimentProgress &progress = {},
                                 const DescribeFunction &describe = {}, const ExperimentPlan &plan = {},
                                 const ExperimentSettings &settings = {});

/// Groups and pairs from the runs.
void summarize(const Experiment &experiment, ExperimentSummary &summary);

/// A table for a terminal, one group a line and one pair a line; not a number where a loss is none.
[[nodiscard]] std::string summary_table(const ExperimentSummary &summary);
/// summary.json's text.
[[nodiscard]] std::string summary_json(const ExperimentSummary &summary);

} // namespace nvfp4::models
