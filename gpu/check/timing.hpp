// SPDX-License-Identifier: Apache-2.0
// How long work on the default stream takes: a median over rounds, by events.
#pragma once
#include "nvfp4/gpu/device/device.hpp"

#include <algorithm>

namespace nvfp4::crosscheck {

struct Rounds {
  int warm_up = 2, rounds = 15, each = 1; ///< `each`: calls between two events
};

/// Median seconds of one call of `work`, which leaves its work on the default stream.
template <class Work> [[nodiscard]] double median_seconds(Work &&work, const Rounds &r = {}) {
  cudaEvent_t from, to;
  cuda::check(cudaEventCreate(&from), "cudaEventCreate");
  cuda::check(cudaEventCreate(&to), "cudaEventCreate");
  for (int i = 0; i < r.warm_up; ++i) work();
  std::vector<float> ms(size_t(r.rounds), 0.0f);
  for (float &time : ms) {
    cuda::check(cudaEventRecord(from), "cudaEventRecord");
    for (int i = 0; i < r.each; ++i) work();
    cuda::check(cudaEventRecord(to), "cudaEventRecord");
    cuda::check(cudaEventSynchronize(to), "cudaEventSynchronize");
    cuda::check(cudaEventElapsedTime(&time, from, to), "cudaEventElapsedTime");
  }
  cudaEventDestroy(from);
  cudaEventDestroy(to);
  const auto middle = ms.begin() + r.rounds / 2;
  std::nth_element(ms.begin(), middle, ms.end());
  return double(*middle) * 1e-3 / r.each;
}

} // namespace nvfp4::crosscheck
