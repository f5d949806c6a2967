// SPDX-License-Identifier: Apache-2.0
// A training step from a slice's inputs, with what a slice keeps of it.
#pragma once
#include "nvfp4/reference_models/slice/slice.hpp"
#include "nvfp4/reference_models/model/taps.hpp"

namespace nvfp4::models {

/// Runs step `s` of a model that holds the state before it, and leaves the state after it. gradients: also
/// every parameter's gradient, summed over the step, before clipping. `progress` gets the fraction done, a
/// few times.
[[nodiscard]] StepResult run_step(Model<float> &model, Optimizer<float> &optimizer, const SliceStep &s,
                                  std::span<const Tap> taps, bool gradients,
                                  const std::function<void(double)> &progress = {});

/// HCP's channels for layers under a recipe for which `state` has none that fit: chosen on the step's first
/// micro-batch. Those of `state` that fit are set.
void complete_hot_channels(Model<float> &model, const Recipe &recipe, const SliceStep &s,
                           const std::map<std::string, HotChannels> &state);

} // namespace nvfp4::models
