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

/// Convolutional networks of 2 blocks for `steps` steps of 8 images, under fp32, bf16, nvfp4, hcp, mxfp8 and the recipes that
/// only they have, on both devices; the CPU's on `cpu_threads` threads.
[[nodiscard]] Tally check_image_training(int64_t steps, int cpu_threads);

/// MODEL,SIZE,RECIPE,STEPS,BATCH,LENGTH as a run; without STEPS where `timed`. Throws Error that says so.
[[nodiscard]] models::StepsOptions parse_run(const std::string &text, bool timed);
/// The runs that are compared by default: GLA for `steps` steps, qwen3, gdn, qwen2.5, gsa and mamba2 for
/// `others`, under fp32, bf16, nvfp4, hcp and chon; all of them for `others` with the products inside mixers
/// in nvfp4 and in mxfp8.
[[nodiscard]] std::vector<models::StepsOptions> default_runs(int steps, int others);
/// Writes a file of training slices, as golden/h200/training has them, for every run of at least 200 steps
/// that was equal on both devices.
void write_slices(const std::string &folder, const std::vector<TrainingRun> &runs);

/// On the GPU, `after` so many steps: seconds a step and tokens a second; time by operation, which costs the host
/// an event each and is not in the seconds; and, where CUPTI is there, launches, the kernels' time, and the
/// `kernels` kernels that take longest, by operation and name.
void profile_training(const models::StepsOptions &options, int timed_steps, int kernels = 0, int64_t after = 0);

} // namespace nvfp4::crosscheck
