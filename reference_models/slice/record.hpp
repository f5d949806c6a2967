// SPDX-License-Identifier: Apache-2.0
// Makes a training slice: runs from a checkpoint to a step and records that one.
#pragma once
#include "nvfp4/reference_models/slice/slice.hpp"
#include "nvfp4/reference_models/train/trainer.hpp"

#include <optional>

namespace nvfp4::models {

struct RecordRequest {
  std::string checkpoint, output;
  int64_t step = 1; ///< to record; after the checkpoint's
  /// data, steps, seed, batch, sequence, accumulation, learning rates, schedule, AdamW, validation, threads
  /// and device count; model and size where the checkpoint does not say.
  TrainOptions options;
  std::string recipe; ///< built-in name or file; empty: the checkpoint's own, else options.recipe
  std::vector<std::string> taps;
  bool gradients = false;
};

struct RecordReport {
  StepResult result;
  std::string recipe;   ///< its name
  int64_t from = 0;     ///< step of the checkpoint
  bool moments = false; ///< whether the checkpoint had the optimizer's
  /// Of the steps before the recorded one, the first that held NaN or Inf; result.not_finite is the recorded
  /// one's.
  std::optional<NotFinite> not_finite_before;
  std::vector<std::string> waiting; ///< layers whose Hot-Channel Patch had no channels at this step
};

/// The options of the run that a checkpoint belongs to: run.json beside it, if the checkpoint has optimizer
/// state.
[[nodiscard]] std::optional<TrainOptions> options_beside(const std::string &checkpoint);

/// The recorded step has the bits that `train` has there. on_step is called after each step on the way.
RecordReport record_slice(const RecordRequest &request,
                          const std::function<void(int64_t step)> &on_step = {});

} // namespace nvfp4::models
