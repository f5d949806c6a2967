// SPDX-License-Identifier: Apache-2.0
// One fused step of a unit with 32 products and 25 fraction bits (FP8, FP6, FP4 and MXFP8 of Blackwell) from
// two exact sums of products: what must hold for it, the step where nothing is cut, and the terms of a step
// where something is. Proofs are in README.md; the text is the GPU's and its test's on the CPU.
#pragma once
#include "nvfp4/gpu/emulated/rounded.hpp"

namespace nvfp4::cuda {

inline constexpr int kPartsLink = 32, kPartsFraction = 25;

/// Elements of a step whose value is 2^-kPartDepth of `largest` or more are its high part, the others its low
/// part. largest: 2^(largest exponent field of a non-zero element), 0 where all are zero.
inline constexpr int kPartDepth = 6;
[[nodiscard]] NVFP4_INLINE bool in_high_part(float value, float largest) {
  return fabsf(value) * float(1 << kPartDepth) >= largest;
}

/// 1 / 2^l, l the exponent of the lowest bit of a number; 0 for 0.
[[nodiscard]] NVFP4_INLINE float inverse_of_lowest(float x) {
  if (x == 0.0f) return 0.0f;
  const uint32_t word = bit_cast<uint32_t>(x), significand = (word & 0x7FFFFFu) | 0x800000u;
  return power_of_two(23 + 127 - int(word >> 23 & 255) - msb(significand & (0u - significand)));
}

/// 2^(exponent field) of an element: subnormals have the field of the least normal number, 2^least.
[[nodiscard]] NVFP4_INLINE float field_power(float value, float least) {
  return value == 0.0f ? 0.0f : fmaxf(leading_power(value), least);
}

/// Sums of squares of a step's elements and of its low part's, over largest^2, rounded up; or maxima over
/// rows.
struct PartNorms {
  float whole, low;
};

/// The greatest product of two `whole` for which the sum over both high parts is exact: a high part is
/// multiples of 2^(-kPartDepth - mantissa bits) of `largest`.
[[nodiscard]] NVFP4_HD constexpr float high_limit(int mantissa_bits_a, int mantissa_bits_b) {
  float limit = 1.0f;
  for (int i = 24 - 2 * kPartDepth - mantissa_bits_a - mantissa_bits_b; i > 0; --i) limit *= 4.0f;
  return limit;
}

/// Whether the sum over both high parts is exact in FP32, and that of all other products where nothing is
/// cut.
[[nodiscard]] NVFP4_INLINE bool sums_are_exact(const PartNorms &a, const PartNorms &b, float limit) {
  const int whole = mul_rn(a.whole, b.whole) <= limit, low_b = mul_rn(a.whole, b.low) <= 0x1p-4f,
            low_a = mul_rn(a.low, b.whole) <= 0x1p-4f; // no branches
  return (whole & low_b & low_a) != 0;
}

/// high + low + acc truncated, and whether that is the step: nothing is cut below 2^-25 of the greatest
/// exponent that the step can have. bound: the product of both `largest`; inverse: the sum of 1 / 2^l over
/// all products, truncated.
[[nodiscard]] NVFP4_INLINE bool fused_step(float bound, float high, float low, float inverse, float acc,
                                           float &result) {
  constexpr float kMagic = 1.5f * 0x1p9f, kLastPlace = 1.5f * 0x1p-2f; // grids of 2^-14 and 2^-25
  const float top = fmaxf(leading_power(acc), bound);
  const float s0 = fma_rn(top, kMagic, high), s1 = add_rn(s0, low), s2 = add_rn(s1, acc);
  const float l0 = sub_rn(high, fma_rn(-top, kMagic, s0)), l1 = sub_rn(low, sub_rn(s1, s0)),
              l2 = sub_rn(acc, sub_rn(s2, s1)), rest = add_rn(add_rn(l0, l1), l2);
  result = add_rz(fma_rn(-top, kMagic, s2), rest);
  const float kept = fma_rn(-top, kLastPlace, fma_rn(top, kLastPlace, rest));
  return (mul_rn(inverse, top) < 0x1p26f) & (kept == rest);
}

/// 2^(25 - e) for a power of two 2^e, -101 < e < 101.
[[nodiscard]] NVFP4_INLINE float lift_of(float top) {
  return bit_cast<float>((uint32_t(254 + kPartsFraction) << 23) - bit_cast<uint32_t>(top));
}
/// A product or an accumulator in units of 2^-25 of the top, cut toward zero.
[[nodiscard]] NVFP4_INLINE int cut_term(float x, float lift) { return int(mul_rn(x, lift)); }
/// The sum of all such terms as the next accumulator.
[[nodiscard]] NVFP4_INLINE float sum_of_terms(int64_t terms, float top) {
  return mul_rn(whole_rz(terms), mul_rn(top, 0x1p-25f));
}

} // namespace nvfp4::cuda
