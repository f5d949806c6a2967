// SPDX-License-Identifier: Apache-2.0
// How fast a model trains under each recipe, and where the time of a step goes. The yardstick is OpenBLAS
// SGEMM doing the same matrix products and nothing else, measured between the steps.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace nvfp4::bench {

struct TrainShape {
  std::string model = "gla", size = "tiny";
  int64_t batch = 4, sequence = 64;
};

struct TrainTiming {
  std::string recipe;
  int threads = 0;
  double tokens_per_second = 0; ///< median over steps, the whole step: data, forward, backward, AdamW, digest
  double low = 0, high = 0;     ///< quartiles
  double sgemm_ratio = 0;       ///< time of SGEMM alone / time of the step; 0 without OpenBLAS
  std::vector<std::pair<std::string, double>> profile; ///< milliseconds a step by operation, largest first
};

/// `recipes` are run by turns, `repeats` rounds of one step each, after two that do not count; `progress` gets the
/// fraction done.
[[nodiscard]] std::vector<TrainTiming>
time_training(const TrainShape &shape, const std::vector<std::string> &recipes, int threads, int repeats,
              const std::function<void(double)> &progress);

} // namespace nvfp4::bench
