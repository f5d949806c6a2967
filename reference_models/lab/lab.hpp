// SPDX-License-Identifier: Apache-2.0
// The lab: recipes side by side on the same model, tokens and exact arithmetic. Short training runs with paired seeds, then
// what each recipe does to real operands, products and gradients, what it costs, every format on made-up data, and published
// claims beside it. Work is kept in parts: a lab that was stopped or killed goes on where it was.
#pragma once
#include "nvfp4/reference_models/fields/field.hpp"
#include "nvfp4/reference_models/lab/claims.hpp"
#include "nvfp4/reference_models/report/experiment.hpp"

#include <array>
#include <functional>
#include <string>
#include <vector>

namespace nvfp4::models {

struct LabOptions {
  std::string model = "gla,tiny", data, recipes = "all", out = "lab";
  int64_t seeds = 3, steps = 150, draws = 8, batch = 4, sequence = 64;
  std::vector<double> rates = {1};
  double learning_rate = 1e-3;
  std::string device = "cpu";
  int threads = 0;
};

inline constexpr unsigned kLabDecides = 1; ///< mark: changes what is measured

inline constexpr auto kLabFields = std::tuple{
    field("model", &LabOptions::model,
          "FAMILY,SIZE, a JSON file with the sizes, or the folder of a run, whose model and checkpoint are taken")
        .marked(kLabDecides),
    field("data", &LabOptions::data,
          "Text, token files or task; default: build/corpus/kjv.txt, or what the run was trained on")
        .marked(kLabDecides),
    field("recipes", &LabOptions::recipes, "all (the built-in ones and their variations on tensor cores), builtin, or names and JSON files with commas between")
        .marked(kLabDecides),
    field("seeds", &LabOptions::seeds, "Runs of each recipe, and batches that are measured", from_to(1, 1000)).marked(kLabDecides),
    field("steps", &LabOptions::steps, "Steps of a run", from_to(4, 0x1p40)).marked(kLabDecides),
    field("draws", &LabOptions::draws, "Draws of what is stochastic", from_to(2, 1e6)).marked(kLabDecides),
    field("batch", &LabOptions::batch, "Sequences a step", from_to(1, 0x1p20)).marked(kLabDecides),
    field("sequence", &LabOptions::sequence, "Tokens a sequence", from_to(1, 0x1p20)).marked(kLabDecides),
    field("learning_rate", &LabOptions::learning_rate, "Peak learning rate", above(0)).as("--lr,--learning-rate").marked(kLabDecides),
    field("out", &LabOptions::out, "Folder of the lab: runs, parts, lab.json, lab.html"),
    field("device", &LabOptions::device, "cpu or cuda, for runs and products"),
    field("threads", &LabOptions::threads, "0: all; changes no number", from_to(0, 1024))};

/// What came out for one recipe.
struct LabRow {
  std::string recipe;
  Estimate loss, gap; ///< validation loss, nats per token; its gap to the reference in percent, paired by seed
  std::vector<uint64_t> diverged = {}; ///< seeds
  std::string broke = {};              ///< of the first such run: step and first tensor; empty: none diverged
  /// The first step from which the mean smoothed loss stays more than kApart percent above the reference's; 0: it does not.
  int64_t apart = 0;
  /// By product, the operator with the largest error among those that are not BF16 or FP32; empty: there is none.
  std::array<std::string, 3> weakest = {};
};
inline constexpr double kApart = 0.5;

struct LabResult {
  LabOptions options;
  std::string model = {}, data = {}, reference = {}; ///< for people; the recipe that gaps are taken to
  Measures measures = {};
  std::vector<LabRow> rows = {}; ///< by gap, the diverged last
  std::vector<JudgedClaim> claims = {};
  bool interrupted = false; ///< the rest is empty then: the same call goes on
};

struct LabCallbacks {
  std::function<void(const std::string &)> say;                      ///< a line before work starts: how long it will take
  std::function<void(const std::string &stage, double fraction)> progress; ///< of a stage
  std::function<bool()> stop;                                        ///< true: ends after the part it is in, or the step of a run
};

/// Runs what is not there yet and writes OUT/lab.json and OUT/lab.html. `train`: models::train, or a stand-in. Throws Error
/// for bad options, for a folder that holds another lab, and where another process works there.
[[nodiscard]] LabResult run_lab(const LabOptions &options, const TrainFunction &train, const LabCallbacks &callbacks,
                                const std::string &version);

/// The recipes that the option names.
[[nodiscard]] std::vector<std::string> lab_recipes(const std::string &option);

[[nodiscard]] std::string lab_table(const LabResult &result); ///< for a terminal
[[nodiscard]] std::string lab_json(const LabResult &result);  ///< lab.json's text
/// One page that stands alone. `runs`: of the first learning rate.
[[nodiscard]] std::string lab_page(const LabResult &result, const std::vector<RunData> &runs, const std::string &version);

} // namespace nvfp4::models
