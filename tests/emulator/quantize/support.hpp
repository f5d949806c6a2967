// SPDX-License-Identifier: Apache-2.0
// What the quantization tests share: inputs that any language can reproduce, and short spellings.
#pragma once
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"

#include <cmath>
#include <random>
#include <string>
#include <vector>

namespace nvfp4::test {

struct Matrix {
  int64_t rows = 0, cols = 0;
  std::vector<float> x;

  Matrix(int64_t r, int64_t c) : rows(r), cols(c), x(size_t(r * c)) {}
  [[nodiscard]] MatrixView<const float> view() const { return {x.data(), rows, cols}; }
  float &operator()(int64_t r, int64_t c) { return x[size_t(r * cols + c)]; }
  float operator()(int64_t r, int64_t c) const { return x[size_t(r * cols + c)]; }
  [[nodiscard]] Matrix transposed() const {
    Matrix t(cols, rows);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) t(c, r) = (*this)(r, c);
    return t;
  }
};

inline float bf16(float v) { return round_to(FormatId::bf16, v); }

/// Gaussian from sums of a fixed generator's words: the same numbers with every standard library.
inline Matrix gaussian(int64_t rows, int64_t cols, uint32_t seed, FormatId type = FormatId::bf16,
                       float scale = 1.0f) {
  Matrix m(rows, cols);
  std::mt19937 words(seed);
  for (float &v : m.x) {
    double sum = -6.0;
    for (int i = 0; i < 12; ++i) sum += double(words()) * 0x1p-32;
    v = round_to(type, float(sum) * scale);
  }
  return m;
}

/// One row of values as a matrix.
inline Matrix row_of(std::initializer_list<float> values) {
  Matrix m(1, int64_t(values.size()));
  m.x.assign(values);
  return m;
}

inline BlockScaled quantize_as(const Matrix &m, std::string_view name, const QuantizeOptions &options = {}) {
  return quantize(m.view(), find_convention(name), options);
}

/// Bytes as upper-case hex, in memory order.
inline std::string hex(std::span<const uint8_t> bytes) {
  constexpr char digits[] = "0123456789ABCDEF";
  std::string s;
  for (const uint8_t b : bytes) s += {digits[b >> 4], digits[b & 15]};
  return s;
}
inline std::string hex(const std::vector<uint8_t> &bytes) { return hex(std::span(bytes)); }

/// The codes of one row in order of k, one hex digit each.
inline std::string nibbles(const BlockScaled &q, int64_t row = 0) {
  std::string s;
  for (int64_t i = 0; i < q.padded_k; ++i) s += "0123456789ABCDEF"[q.code(row, i)];
  return s;
}

/// Log-normal rows, outliers, exact ties, zeros of both signs, tiny and huge rows; ragged where the shape is. Tiny ones lie some `tiny` binades
/// below Gaussian ones, huge ones from `huge` to `huge` + `spread` - 1 above.
inline Matrix hard(int64_t rows, int64_t cols, uint32_t seed, int tiny, int huge, int spread) {
  Matrix m = gaussian(rows, cols, seed);
  std::mt19937 words(seed + 1);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      float &v = m(r, c);
      switch (r % 8) {
      case 1: v = std::ldexp(v, int(words() % 24) - 12); break;
      case 2: v = words() % 40 == 0 ? 100.0f * v : v; break;
      case 3: v = 0.125f * float(int(words() % 57) - 28); break;
      case 4: v = words() % 3 == 0 ? v : words() % 2 == 0 ? 0.0f : -0.0f; break;
      case 5: v = std::ldexp(v, -tiny - int(words() % 8)); break;
      case 6: v = std::ldexp(v, huge + int(words() % uint32_t(spread))); break;
      case 7: v = c / 64 % 2 == 0 ? 0.0f : 1e-3f * v; break;
      default: break;
      }
      v = bf16(v);
    }
  return m;
}

} // namespace nvfp4::test
