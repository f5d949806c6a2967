// SPDX-License-Identifier: Apache-2.0
// Training compared and timed.
#pragma once
#include "nvfp4/gpu/check/check.hpp"
#include "nvfp4/reference_models/train/steps.hpp"

namespace nvfp4::crosscheck {

struct TrainingRun {
  models::StepsOptions options;
  std::vector<models::StepRecord> cpu, gpu;
  double cpu_seconds = 0, gpu_seconds = 0;
};

/// Each run on both devices, the CPU's on `cpu_threads` threads each and several at a time.
[[nodiscard]] Tally check_training(const std::vector<models::StepsOptions> &runs, int cpu_threads,
                                   std::vector<TrainingRun> *records = nullptr);

/// Seconds a step, tokens a second and time by operation, on the GPU.
void profile_training(const models::StepsOptions &options, int timed_steps);

} // namespace nvfp4::crosscheck
