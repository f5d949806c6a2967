// SPDX-License-Identifier: Apache-2.0
// Golden training slices: the loss words and state digests of the first steps of each model under each
// recipe, as golden/training has them. Reading, writing, repeating. Evidence: model (this library's CPU
// reference) or the hardware that a folder names.
#pragma once
#include "nvfp4/reference_models/train/steps.hpp"

namespace nvfp4::models {

struct TrainingSlice {
  StepsOptions options; ///< steps: how many are recorded
  std::vector<StepRecord> steps;

  [[nodiscard]] std::string name() const; ///< "gla tiny chon"
};

/// The runs whose steps show the products inside a family's mixer, in nvfp4 and in mxfp8, on sequences of a
/// chunk and a part of one: in golden/mixers/training and in comparisons of devices.
[[nodiscard]] std::vector<StepsOptions> mixer_product_runs(std::string_view family, int64_t steps);

/// The slices of one file's JSON. Throws Error, which names `source`, for another format or version, unknown
/// or missing options, and words that are none.
[[nodiscard]] std::vector<TrainingSlice> parse_training_slices(std::string_view json,
                                                               const std::string &source);
/// The slices of folder/*.json, by file name, whose names contain `match`. Error where there is none.
[[nodiscard]] std::vector<TrainingSlice> read_training_slices(const std::string &folder,
                                                              std::string_view match = {});
/// One file of slices that share all options but recipe, steps, device and threads; what
/// parse_training_slices() reads.
[[nodiscard]] std::string training_slices_json(const std::vector<TrainingSlice> &slices);

struct SliceRepetition {
  std::vector<StepRecord> steps;
  size_t equal = 0; ///< steps before the first whose loss word or digest is another

  [[nodiscard]] bool identical() const { return equal == steps.size(); }
};
/// Runs the steps of a slice again.
[[nodiscard]] SliceRepetition repeat(const TrainingSlice &slice, const std::string &device = "cpu",
                                     int threads = 0);

/// "loss 4057dbf4 and digest 00ff...", for messages.
[[nodiscard]] std::string step_text(const StepRecord &step);

} // namespace nvfp4::models
