// SPDX-License-Identifier: Apache-2.0
// The order of every sum in a model: 32 strided partial sums, lane l taking the terms l, l + 32, ..., then a
// butterfly. That is what one warp does, and what two AVX-512 registers do.
#pragma once
#include "nvfp4/emulator/numerics/elementary.hpp"

namespace nvfp4::numerics {

inline constexpr int kLanes = 32;

/// Adds the 32 lanes: p[l] += p[l ^ 16], then 8, 4, 2, 1. Every lane ends with the same bits.
template <class T> NVFP4_INLINE T butterfly_sum(T (&p)[kLanes]) {
  for (int step = kLanes / 2; step > 0; step /= 2)
    for (int l = 0; l < step; ++l) p[l] = p[l] + p[l + step]; // the lower half; the upper is its mirror image
  return p[0];
}

} // namespace nvfp4::numerics
