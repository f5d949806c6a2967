// SPDX-License-Identifier: Apache-2.0
// One group at a time.
#include "nvfp4/reference_models/linear/rotation.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::models {
namespace {

float bf16(float v) { return value_f32(FormatId::bf16, bf16_word(v)); }

void rotate(double *group, int size) {
  for (int step = 1; step < size; step *= 2)
    for (int i = 0; i < size; ++i)
      if ((i & step) == 0) {
        const double a = group[i], b = group[i + step];
        group[i] = a + b;
        group[i + step] = a - b;
      }
}

} // namespace

Rotated rotated(const float *x, int64_t rows, int64_t cols, Axis axis, int size, const SignWords &signs) {
  const auto filled = [size](int64_t n) { return (n + size - 1) / size * size; };
  const bool along_rows = axis == Axis::row;
  Rotated out{along_rows ? rows : filled(rows), along_rows ? filled(cols) : cols};
  out.values.resize(size_t(out.rows * out.cols), 0.0f);
  for (int64_t r = 0; r < rows; ++r) std::copy_n(x + r * cols, cols, out.values.begin() + r * out.cols);
  const int64_t lines = along_rows ? out.rows : out.cols, length = along_rows ? out.cols : out.rows;
  const int64_t line_step = along_rows ? out.cols : 1, step = along_rows ? 1 : out.cols;
  const double scale = 1.0 / std::sqrt(double(size));
  for (int64_t line = 0; line < lines; ++line)
    for (int64_t first = 0; first < length; first += size) {
      float *const at = out.values.data() + line * line_step + first * step;
      double group[128];
      for (int i = 0; i < size; ++i) {
        const double v = double(bf16(at[i * step]));
        group[i] = ((signs[size_t(i / 32)] >> (i % 32)) & 1) != 0 ? -v : v;
      }
      rotate(group, size);
      for (int i = 0; i < size; ++i) at[i * step] = group[i] == 0.0 ? 0.0f : bf16(float(group[i] * scale));
    }
  return out;
}

} // namespace nvfp4::models
