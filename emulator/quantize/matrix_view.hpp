// SPDX-License-Identifier: Apache-2.0
// A matrix in someone else's memory: pointer, shape, row stride. Owns nothing.
#pragma once
#include "nvfp4/emulator/config.hpp"

#include <cstdint>

namespace nvfp4 {

template <class T> struct MatrixView {
  T *data = nullptr;
  int64_t rows = 0;
  int64_t cols = 0;
  int64_t stride = 0; ///< elements from one row to the next, at least cols

  MatrixView() = default;
  NVFP4_HD MatrixView(T *p, int64_t r, int64_t c) : data(p), rows(r), cols(c), stride(c) {}
  NVFP4_HD MatrixView(T *p, int64_t r, int64_t c, int64_t s) : data(p), rows(r), cols(c), stride(s) {}

  [[nodiscard]] NVFP4_HD T &operator()(int64_t row, int64_t col) const { return data[row * stride + col]; }
  [[nodiscard]] NVFP4_HD T *row(int64_t r) const { return data + r * stride; }
};

} // namespace nvfp4
