// SPDX-License-Identifier: Apache-2.0
// Whether arrays are finite: asked of every tensor that a product takes or makes, so it must cost little.
// Where something went wrong is looked for on the host (diagnostics/finite.hpp).
#pragma once
#include "nvfp4/reference_models/kernels/elementwise.hpp"

namespace nvfp4::models {

/// The chunks of all arrays in a row: partial[chunk] += 1 if an element of it is NaN or infinite; the host
/// adds the chunks. 0 times an element is NaN for those alone, and so is the sum.
template <class T> struct NotFiniteChunks {
  static constexpr int kArrays = 8;
  struct Array {
    const T *x;
    int64_t n;
  };
  int count; ///< of arrays
  Array arrays[kArrays];
  uint64_t *partial;

  [[nodiscard]] int64_t teams() const {
    int64_t all = 0;
    for (int i = 0; i < count; ++i) all += chunks(arrays[i].n);
    return all;
  }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    int i = 0;
    int64_t chunk = index;
    for (; chunk >= chunks(arrays[i].n); ++i) chunk -= chunks(arrays[i].n);
    const T *const x = arrays[i].x + chunk * kChunk;
    const int64_t length = numerics::min(kChunk, arrays[i].n - chunk * kChunk);
    uint64_t *const result = partial + index;
    team.rows(1, [=](int64_t, const auto &lane) {
      const T zero = lane.sum(length, [=](int64_t j) { return T(0) * x[j]; });
      lane.one([=] { *result = *result + uint64_t(zero != T(0)); });
    });
  }
};

} // namespace nvfp4::models
