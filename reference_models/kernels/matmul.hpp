// SPDX-License-Identifier: Apache-2.0
// The FP32 matrix product as a kernel of its own: what the `fp32` recipe multiplies with.
#pragma once
#include "nvfp4/reference_models/kernels/team.hpp"

namespace nvfp4::models {

/// c (m, n) = a (m, k) b (k, n), or c + a b: one chain of fused multiply-adds an output. c.col must be 1.
template <class T> struct Matmul {
  int64_t m, n, k;
  View<const T> a, b;
  View<T> c;
  bool add = false;

  static constexpr int64_t kRows = 128, kCols = 64;

  [[nodiscard]] int64_t teams() const { return ((m + kRows - 1) / kRows) * ((n + kCols - 1) / kCols); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const int64_t across = (n + kCols - 1) / kCols;
    const int64_t i = index / across * kRows, j = index % across * kCols;
    team.matmul(numerics::min(kRows, m - i), numerics::min(kCols, n - j), k, a.at(i, 0), b.at(0, j),
                c.at(i, j), add);
  }
};

} // namespace nvfp4::models
