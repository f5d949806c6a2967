// SPDX-License-Identifier: Apache-2.0
// Scales a line, turns its exponents into bytes and its signs into bits, and lays them out.
#include "nvfp4/emulator/gemm/fdpa_panel.hpp"

#include "nvfp4/emulator/cpu/multiversion.hpp"
#include "nvfp4/emulator/formats/codec.hpp"

#include <algorithm>
#include <cstring>

namespace nvfp4::gemm {
namespace {

/// 2^e, e cut to the exponents of normal numbers: beyond them are lines that the definition computes.
double power(int e) { return bit_cast<double>(uint64_t(std::clamp(e, -1022, 1023) + 1023) << 52); }

/// What a line without elements has as its largest exponent: so low that its products with any other line are
/// no phantoms for an accumulator.
constexpr int kEmptyMax = -140;
constexpr int64_t kPiece = 256; ///< elements of a line that are prepared at a time

/// A piece of a line as the kernels want it, in order along K.
struct Piece {
  double values[kPiece];
  uint8_t exponents[kPiece];
  uint8_t signs[kPiece];
};

/// A product of an element and a factor is exact, and so far above kTiny that the sum is the product or
/// kTiny.
[[gnu::always_inline]] inline void scale(const float *values, int64_t n, double factor, double *to) {
  for (int64_t i = 0; i < n; ++i) to[i] = double(values[i]) * factor + kTiny;
}
[[gnu::always_inline]] inline void shift(const int16_t *exponents, int64_t n, int by, uint8_t *to) {
  for (int64_t i = 0; i < n; ++i) {
    const int16_t e = int16_t(exponents[i] + by);
    to[i] = uint8_t(e > kZeroByte ? e : kZeroByte);
  }
}
[[gnu::always_inline]] inline void take_signs(const float *values, int64_t n, uint8_t *to) {
  for (int64_t i = 0; i < n; ++i) to[i] = uint8_t(bit_cast<uint32_t>(values[i]) >> 31);
}

NVFP4_MULTIVERSION void prepare(const FdpaLine &line, int64_t from, int64_t n, int link, int exponent, int up,
                                double past, Piece &piece) {
  if (line.scales == nullptr) {
    scale(line.values + from, n, power(exponent) * past, piece.values);
    shift(line.exponents + from, n, up, piece.exponents);
  } else {
    for (int64_t i = 0; i < n; i += link) {
      const int s = line.scales[(from + i) / link];
      scale(line.values + from + i, link, power(exponent + s) * past, piece.values + i);
      shift(line.exponents + from + i, link, up + s, piece.exponents + i);
    }
  }
  take_signs(line.values + from, n, piece.signs);
}

/// Eight bytes of 0 and 1 as bits, the first lowest.
uint32_t bits_of(const uint8_t *bytes) {
  uint64_t all;
  std::memcpy(&all, bytes, 8);
  return uint32_t(all * 0x0102040810204080 >> 56);
}

uint32_t sign_word(const uint8_t *signs, int link) {
  if (link == 4) {
    uint32_t four;
    std::memcpy(&four, signs, 4);
    return four * 0x01020408u >> 24 & 0xF;
  }
  uint32_t word = 0;
  for (int k = 0; k < link; k += 8) word |= bits_of(signs + k) << k;
  return word;
}

template <int link>
[[gnu::always_inline]] inline void lay_row(const Piece &piece, int64_t n, int lines, double *values,
                                           uint8_t *exponents) {
  uint32_t words[kPiece];
  for (int64_t i = 0; i < n; ++i) words[i] = piece.exponents[i] * 0x01010101u;
  for (int64_t i = 0; i < n; i += link) {
    std::memcpy(values + i * lines, piece.values + i, sizeof(double) * link);
    std::memcpy(exponents + 4 * i * lines, words + i, sizeof(uint32_t) * link);
  }
}
NVFP4_MULTIVERSION void lay_row(const Piece &piece, int64_t n, int link, int lines, double *values,
                                uint8_t *exponents) {
  switch (link) {
  case 4: return lay_row<4>(piece, n, lines, values, exponents);
  case 8: return lay_row<8>(piece, n, lines, values, exponents);
  case 16: return lay_row<16>(piece, n, lines, values, exponents);
  default: return lay_row<32>(piece, n, lines, values, exponents);
  }
}

} // namespace

void FdpaPacker::shape(int lines, int vector, int link, int64_t steps) {
  lines_ = lines;
  vector_ = vector;
  link_ = link;
  steps_ = steps;
  const size_t n = size_t(link * steps), all = size_t(lines) * n;
  values_.resize(all);
  scales_.resize(size_t(2 * lines));
  signs_.resize(size_t(lines * steps));
  exponents_.resize(vector == 0 ? 4 * all : all);
}

void FdpaPacker::shape_rows(const FdpaKernels &kernels, const FdpaStep &step, int64_t steps) {
  shape(kernels.mr, 0, step.link, steps);
}

void FdpaPacker::shape_columns(const FdpaKernels &kernels, const FdpaStep &step, int64_t steps) {
  shape(kernels.nr, kernels.vector, step.link, steps);
}

void FdpaPacker::pack(int index, const FdpaLine &line) {
  const bool row = vector_ == 0;
  const int max = line.max < -0x1000 ? kEmptyMax : line.max;
  const int power_of_line = kScaledMax - max;
  // of each four columns the first two stand in the first half of a vector
  const int within = row ? 0 : index % vector_, first = index - within;
  const int place = first + within % 4 / 2 * (vector_ / 2) + within / 4 * 2 + within % 2;
  scales_[size_t(place)] = power(power_of_line);
  scales_[size_t(lines_ + place)] = power(-power_of_line);
  Piece piece;
  uint32_t *sign = signs_.data() + index;
  for (int64_t k = 0; k < line.n; k += kPiece) {
    const int64_t n = std::min(kPiece, line.n - k);
    prepare(line, k, n, link_, power_of_line, (row ? kTopA : kTopB) - max, row ? kPast : 1, piece);
    for (int64_t i = 0; i < n; i += link_, sign += lines_) *sign = sign_word(piece.signs + i, link_);
    if (row) {
      const int64_t at = k * lines_ + index * link_;
      lay_row(piece, n, link_, lines_, values_.data() + at, exponents_.data() + 4 * at);
      continue;
    }
    uint8_t *const exponents = exponents_.data() + k * lines_ + within * (lines_ / vector_) + first / vector_;
    for (int64_t i = 0; i < n; ++i) exponents[i * lines_] = piece.exponents[i];
    double *const values = values_.data() + int64_t{first} * link_ * steps_ + k * vector_ + place - first;
    for (int64_t i = 0; i < n; ++i) values[i * vector_] = piece.values[i];
  }
}

} // namespace nvfp4::gemm
