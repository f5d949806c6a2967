// SPDX-License-Identifier: Apache-2.0
// A few training steps without a folder: what golden training slices record, and what is compared between
// devices.
#pragma once
#include "nvfp4/reference_models/train/session.hpp"

namespace nvfp4::models {

struct StepsOptions {
  std::string model = "gla", size = "tiny", recipe = "nvfp4";
  std::string data = "task:copy,vocab=200";
  int64_t steps = 20, batch = 4, sequence = 64;
  uint64_t seed = 1;
  double learning_rate = 2e-3; ///< constant
  std::string device = "cpu";
  int threads = 0;
};

struct StepRecord {
  uint32_t loss = 0;  ///< FP32 word
  std::string digest; ///< of parameters, moments and counter after the step
  bool operator==(const StepRecord &) const = default;
};

/// The same numbers on every machine and device.
[[nodiscard]] std::vector<StepRecord> run_steps(const StepsOptions &options,
                                                const std::function<void(int64_t)> &on_step = {});

} // namespace nvfp4::models
