// SPDX-License-Identifier: Apache-2.0
// The 16-point random Hadamard transform: x' = x R, R = diag(s) H / 4, with exact sums rounded once. Tensor
// cores sum with 25 fraction bits instead, which gives the same BF16 results except in groups of very wide
// range. Source: NVIDIA/TransformerEngine pytorch/tensor/nvfp4_tensor.py and common/hadamard_transform/.
#pragma once
#include "nvfp4/emulator/formats/bf16.hpp"

namespace nvfp4 {

inline constexpr int kHadamardSize = 16;
/// TransformerEngine's sign vector: bit i set where s_i = -1.
inline constexpr uint16_t kHadamardSigns = 0xD7E8;

/// 4 R[i][j] < 0, where H is Sylvester's: H[i][j] = (-1)^popcount(i & j).
[[nodiscard]] NVFP4_HD constexpr bool hadamard_negative(uint16_t signs, int i, int j) {
  int bits = i & j;
  bits ^= bits >> 2;
  bits ^= bits >> 1;
  return ((bits ^ (signs >> i)) & 1) != 0;
}

namespace detail {
/// The 16 terms as integers on one grid of 2^-149, in digits of 32 bits: a sum that cannot round. The highest
/// bit of 16 FP32 terms is below 2^132, bit 281 of the grid.
struct ExactSum {
  int64_t digit[10] = {};

  NVFP4_HD void add(bool negative, uint32_t significand, int position) {
    const uint64_t shifted = uint64_t(significand) << (position % 32);
    const int64_t low = int64_t(shifted & 0xFFFFFFFFu);
    const int64_t high = int64_t(shifted >> 32);
    digit[position / 32] += negative ? -low : low;
    digit[position / 32 + 1] += negative ? -high : high;
  }
  NVFP4_HD void carry() {
    for (int i = 0; i < 9; ++i) {
      const int64_t up = digit[i] >> 32;
      digit[i + 1] += up;
      digit[i] -= up * (int64_t{1} << 32);
    }
  }
  /// The sum times 2^exponent in FP32, rounded to nearest even; +0 for zero.
  [[nodiscard]] NVFP4_HD float round(int exponent) {
    carry();
    const bool negative = digit[9] < 0;
    if (negative) {
      for (int64_t &d : digit) d = -d;
      carry();
    }
    int top = 9;
    while (top > 0 && digit[top] == 0) --top;
    const int next = top > 0 ? top - 1 : 0;
    uint64_t sig = uint64_t(digit[top]);
    if (top > 0)
      sig = sig << 32 | uint64_t(digit[next]); // at least 33 bits: the last can stand for what is below
    for (int i = 0; i < next; ++i)
      if (digit[i] != 0) sig |= 1;
    if (sig == 0) return 0.0f;
    return bit_cast<float>(uint32_t(encode(format(FormatId::f32), negative, sig, next * 32 - 149 + exponent,
                                           Rounding::nearest_even, Overflow::ieee)));
  }
};

/// True where double precision adds these values without rounding: from the lowest set bit to the highest,
/// plus four for the sum of 16, fits 53 bits. Also true with an Inf or NaN among them, since no rounding can
/// change that.
[[nodiscard]] NVFP4_HD inline bool sums_exactly_in_double(const float (&x)[16]) {
  int low = 1000, high = -1000;
  for (const float v : x) {
    const Decoded d = decode(format(FormatId::f32), bit_cast<uint32_t>(v));
    if (d.cls == Class::infinity || d.cls == Class::nan) return true;
    if (d.cls == Class::zero) continue;
    const int lowest = d.exponent + msb(d.significand & (~d.significand + 1));
    const int highest = d.exponent + msb(d.significand);
    low = lowest < low ? lowest : low;
    high = highest > high ? highest : high;
  }
  return high - low + 1 + 4 <= 53;
}

/// x <- x H / 4, each output one FP32 rounding of the exact sum.
NVFP4_HD inline void hadamard16(float (&x)[16]) {
  if (sums_exactly_in_double(x)) {
    double y[16];
    for (int i = 0; i < 16; ++i) y[i] = double(x[i]);
    for (int step = 1; step < 16; step *= 2)
      for (int i = 0; i < 16; ++i)
        if ((i & step) == 0) {
          const double a = y[i], b = y[i + step];
          y[i] = a + b;
          y[i + step] = a - b;
        }
    for (int i = 0; i < 16; ++i) x[i] = y[i] == 0.0 ? 0.0f : float(y[i] * 0.25);
    return;
  }
  float out[16];
  for (int j = 0; j < 16; ++j) {
    ExactSum sum;
    for (int i = 0; i < 16; ++i) {
      const Decoded d = decode(format(FormatId::f32), bit_cast<uint32_t>(x[i]));
      if (d.cls == Class::zero) continue;
      sum.add(d.negative != hadamard_negative(0, i, j), uint32_t(d.significand), d.exponent - 23 + 149);
    }
    out[j] = sum.round(-2);
  }
  for (int j = 0; j < 16; ++j) x[j] = out[j];
}
} // namespace detail

/// Rotates one group in place and rounds it to BF16: x_j = bf16(f32(sum_i x_i R_ij)). The input is rounded to
/// BF16 first, which is the only type that TransformerEngine rotates.
NVFP4_HD inline void rotate16(float (&x)[16], uint16_t signs = kHadamardSigns) {
  // read back by the codec, whose FP32 NaN is 0x7FFFFFFF
  const auto bf16 = [](float v) { return value_f32(FormatId::bf16, bf16_word(v)); };
  for (int i = 0; i < 16; ++i) x[i] = ((signs >> i) & 1) != 0 ? -bf16(x[i]) : bf16(x[i]);
  detail::hadamard16(x);
  for (float &v : x) v = bf16(v);
}

/// Undoes the rotation, in FP32: x_i = f32(sum_j x'_j R_ij). Inputs are taken as they are.
NVFP4_HD inline void rotate16_back(float (&x)[16], uint16_t signs = kHadamardSigns) {
  detail::hadamard16(x);
  for (int i = 0; i < 16; ++i)
    if (((signs >> i) & 1) != 0) x[i] = -x[i];
}

} // namespace nvfp4
