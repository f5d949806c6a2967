// SPDX-License-Identifier: Apache-2.0
// Loss on held-out data, and how much each operator's quantization alone costs.
#pragma once
#include "nvfp4/reference_models/data/source.hpp"
#include "nvfp4/reference_models/diagnostics/recorder.hpp"
#include "nvfp4/reference_models/train/session.hpp"

namespace nvfp4::models {

struct Evaluation {
  double loss = 0;
  /// The first parameter or tensor with NaN or Inf; the loss may be finite all the same.
  std::optional<NotFinite> not_finite;
};

/// Mean loss in nats per target that counts, over validation micro-batches 0 to batches - 1. HCP uses the
/// channels that the model has; choose_hot_channels: the first micro-batch chooses them (for a checkpoint
/// without any).
[[nodiscard]] Evaluation evaluate(Model<float> &model, const DataSource &data, int64_t batches,
                                  const std::function<void(double)> &progress = {},
                                  bool choose_hot_channels = false);

/// Throws Error where the data has tokens that the model has not.
void check_vocabulary(const DataSource &data, const ModelConfig &config);

/// For each role of linear layer, each operator inside the mixer and the inputs of its gates: validation loss
/// with that one in NVFP4 (as recipe `nvfp4` has it, in every block) and everything else in BF16, from the
/// same parameters. One-shot: nothing is trained.
[[nodiscard]] std::vector<SensitivityRecord> sensitivity(Model<float> &model, const std::string &device,
                                                         int threads, const DataSource &data, int64_t batches,
                                                         const std::function<void(double)> &progress = {});

} // namespace nvfp4::models
