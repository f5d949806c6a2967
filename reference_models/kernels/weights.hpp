// SPDX-License-Identifier: Apache-2.0
// Weights of 15 levels and soft clipping of weights (arXiv 2603.13931), elementwise.
#pragma once
#include "nvfp4/reference_models/kernels/elementwise.hpp"

namespace nvfp4::models {

/// x <- bound tanh(x / bound): after an optimizer step, so that no weight leaves [-bound, bound].
template <class T> struct SoftClip {
  int64_t n;
  T bound;
  T *x;

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    each_in_chunk(team, n, index, [=](int64_t i) { s.x[i] = s.bound * numerics::tanh(s.x[i] / s.bound); });
  }
};

/// partial[chunk] = largest |x| of a chunk; NaN counts as 0.
template <class T> struct LargestMagnitudes {
  int64_t n;
  const T *x;
  T *partial;

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    const int64_t first = index * kChunk, length = numerics::min(kChunk, n - first);
    team.rows(1, [=](int64_t, const auto &lane) {
      const T m = lane.max(length, [=](int64_t i) {
        const T value = s.x[first + i];
        return value == value ? numerics::abs(value) : T(0);
      });
      lane.one([=] { s.partial[index] = m; });
    });
  }
};

/// y = scale times the INT4 value, -7 to 7, nearest to x / scale, ties to even; NaN stays.
template <class T> struct FifteenLevels {
  int64_t n;
  T scale;
  const T *x;
  T *y;

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    each_in_chunk(team, n, index, [=](int64_t i) {
      const T value = s.x[i];
      const uint64_t code = encode(FormatId::int4, float(value / s.scale));
      s.y[i] = value == value ? T(value_f32(FormatId::int4, code)) * s.scale : value;
    });
  }
};

} // namespace nvfp4::models
