// SPDX-License-Identifier: Apache-2.0
// One training run in a process of its own, so that several run side by side, on a device each or on one.
#pragma once
#include "nvfp4/reference_models/train/trainer.hpp"

namespace nvfp4::tool {

/// As models::train(), by this program's verb train: results come from what it prints, steps from the run's
/// log. Device "cuda:2" is the third GPU, which the process alone sees. When stop() becomes true, or this
/// process ends, the other saves a checkpoint and ends too. May be called on several threads.
models::TrainResult train_in_process(const models::TrainOptions &options,
                                     const std::function<void(const models::StepReport &)> &on_step,
                                     const std::function<bool()> &stop);

} // namespace nvfp4::tool
