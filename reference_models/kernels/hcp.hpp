// SPDX-License-Identifier: Apache-2.0
// Statistics of channels that choose the hot ones: the mean error of quantization and the largest magnitude
// of each column. A team takes 16 columns.
#pragma once
#include "nvfp4/reference_models/kernels/team.hpp"

namespace nvfp4::models {

/// means[j] = (sum over rows of |x - q|) / rows, for x and q (rows, cols) with strides.
template <class T> struct ColumnErrors {
  int64_t rows, cols;
  View<const T> x, q;
  T *means;

  [[nodiscard]] int64_t teams() const { return (cols + 15) / 16; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    const int64_t first = index * 16;
    team.column_sums(
        rows, numerics::min<int64_t>(16, cols - first),
        [=](int64_t r, int64_t j) {
          const T d = s.x(r, first + j) - s.q(r, first + j);
          return d < T(0) ? -d : d;
        },
        [=](int64_t j, T sum) { s.means[first + j] = sum / T(s.rows); });
  }
};

/// maxima[j] = max over rows of |x|; a NaN never wins.
template <class T> struct ColumnMaxima {
  int64_t rows, cols;
  View<const T> x;
  T *maxima;

  [[nodiscard]] int64_t teams() const { return (cols + 15) / 16; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    const int64_t first = index * 16;
    team.each(numerics::min<int64_t>(16, cols - first), [=](int64_t j) {
      T largest = T(0);
      for (int64_t r = 0; r < s.rows; ++r) {
        const T v = s.x(r, first + j);
        const T magnitude = v < T(0) ? -v : v;
        largest = magnitude > largest ? magnitude : largest;
      }
      s.maxima[first + j] = largest;
    });
  }
};

} // namespace nvfp4::models
