// SPDX-License-Identifier: Apache-2.0
// Element encoders in FP32 arithmetic, equal to the codec for every word that is not NaN. README.md has the
// reasons, nvfp4-gpu elements compares all 2^32 words.
#pragma once
#include "nvfp4/emulator/quantize/block_rule.hpp"

namespace nvfp4::cuda {

/// Nearest even, saturating. y is not NaN.
template <FormatId element> __device__ inline uint32_t nearest_code(float y) {
  const uint32_t sign = bit_cast<uint32_t>(y) >> 31;
  const float magnitude = fabsf(y);
  if constexpr (element == FormatId::e2m1) {
    const float t = fminf(magnitude, 6.0f);
    // steps 1/2, 1, 2: a number with that ulp whose low bits are the code where the binade starts
    const float m = t < 2.0f ? 4194304.0f : t < 4.0f ? 8388610.0f : 16777224.0f;
    return (bit_cast<uint32_t>(__fadd_rn(t, m)) & 7) | sign << 3;
  } else {
    constexpr int mantissa = element == FormatId::e4m3 ? 3 : 2, least = element == FormatId::e4m3 ? -6 : -14;
    constexpr float top = element == FormatId::e4m3 ? 448.0f : 57344.0f;
    const float t = fminf(magnitude, top);
    const uint32_t field = max(bit_cast<uint32_t>(t) >> 23, uint32_t(least + 127));
    const float m = bit_cast<float>((field + 23 - mantissa) << 23); // its ulp is the binade's step
    const float r = __fadd_rn(__fadd_rn(t, m), -m);                 // exact; t rounded
    const uint32_t normal =
        (bit_cast<uint32_t>(r) >> (23 - mantissa)) - (uint32_t(least - 1 + 127) << mantissa);
    const uint32_t steps =
        uint32_t(__float2int_rz(r * bit_cast<float>(uint32_t(mantissa - least + 127) << 23)));
    return (r < bit_cast<float>(uint32_t(least + 127) << 23) ? steps : normal) | sign << 7;
  }
}

/// What the stochastic encoders cut a word at: FP32 numbers times `shrink` have the element's exponents, so
/// that the word of a product, cut toward zero, is the code and below it `below` bits of what the code
/// leaves.
template <FormatId element> struct Cut {
  static constexpr int below = element == FormatId::e2m1 ? 22 : element == FormatId::e4m3 ? 20 : 21;
  static constexpr float shrink = element == FormatId::e2m1   ? 0x1p-126f
                                  : element == FormatId::e4m3 ? 0x1p-120f
                                                              : 0x1p-112f,
                         top = element == FormatId::e2m1   ? 6.0f
                               : element == FormatId::e4m3 ? 448.0f
                                                           : 57344.0f;
};

/// encode_carry8: 8 random bits added to the top 8 discarded bits. y is not NaN.
template <FormatId element> __device__ inline uint32_t carry8_code(float y, uint32_t r8) {
  using C = Cut<element>;
  const uint32_t word = bit_cast<uint32_t>(__fmul_rz(fminf(fabsf(y), C::top), C::shrink));
  const uint32_t sign_bit = element == FormatId::e2m1 ? 3 : 7;
  return ((word + (r8 << (C::below - 8))) >> C::below) | bit_cast<uint32_t>(y) >> 31 << sign_bit;
}

/// encode_exact_sr: what is cut off, as a 32-bit fraction of the step, carries or does not. y is not NaN.
template <FormatId element> __device__ inline uint32_t exact_code(float y, uint32_t r32) {
  using C = Cut<element>;
  constexpr int more = 32 - C::below; // bits that subnormal products lose
  const float t = fminf(fabsf(y), C::top), cut = __fmul_rz(t, C::shrink);
  const float rest = __fmaf_rn(cut, -1.0f / C::shrink, t); // exact
  constexpr float unit = C::shrink * 0x1p126f * 0x1p23f * float(1 << more);
  const uint32_t tail = bit_cast<uint32_t>(__fmaf_rz(rest, unit, 0x1p23f)) & ((1u << more) - 1);
  const uint64_t fixed = uint64_t(bit_cast<uint32_t>(cut)) << more | tail;
  return uint32_t((fixed + r32) >> 32) | bit_cast<uint32_t>(y) >> 31 << (element == FormatId::e2m1 ? 3 : 7);
}

/// Two numbers as FP16 times 2^-14, cut toward zero: E2M1's codes at bits 9 to 11 of each half, saturated,
/// signs at bit 15.
struct CutPair {
  uint32_t magnitudes, signs; ///< `signs` has other bits too
  __device__ CutPair(float low, float high) {
    asm("cvt.rz.f16x2.f32 %0, %1, %2;" : "=r"(signs) : "f"(high), "f"(low));
    magnitudes = __vminu2(signs & 0x7FFF7FFFu, 0x0E000E00u);
  }
};
/// Codes with their signs at bits 12 to 15 of each half, anything below.
[[nodiscard]] __device__ inline uint32_t with_signs(uint32_t magnitudes, uint32_t signs) {
  return (magnitudes << 3 & 0x7FFF7FFFu) | (signs & 0x80008000u);
}

/// The argument that encode_te_sr takes the floor of, times 2^-14 and with the sign of y. `random` has the 8
/// bits in byte `byte`.
[[nodiscard]] __device__ inline float te_sum(float y, uint32_t random, uint32_t byte) {
  const float v = y * 0x1p-14f; // exact, or far below every step
  // twice the step: 1, 2 or 4, whatever saturates aside
  const float p = fminf(fmaxf(fabsf(v), 0x1p-14f), 0x1p-12f);
  const float twice =
      bit_cast<float>((bit_cast<uint32_t>(p) & 0x7F800000u) | (bit_cast<uint32_t>(v) & 0x80000000u));
  // 2^14 and the byte times 2^-9
  const float r = bit_cast<float>(__byte_perm(random, 0x46800000u, 0x7650u | byte)) - 0x1p14f;
  return __fmaf_rn(r, twice, v);
}

/// Codes of four E2M1 elements in bytes 1 and 3, the first two in byte 1: by FP16 pairs of elements 0 and 2,
/// 1 and 3.
template <ElementRounding rounding>
[[nodiscard]] __device__ inline uint32_t four_codes(const float *y, uint32_t random) {
  uint32_t pair[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    if constexpr (rounding == ElementRounding::sr_te) {
      const CutPair p(te_sum(y[i], random, i), te_sum(y[i + 2], random, i + 2));
      pair[i] = with_signs(p.magnitudes, p.signs);
    } else {
      const uint32_t bytes = i == 0 ? random & 0x00FF00FFu : __byte_perm(random, 0, 0x4341);
      const CutPair p(y[i] * 0x1p-14f, y[i + 2] * 0x1p-14f);
      pair[i] = with_signs(p.magnitudes + 2 * bytes, p.signs);
    }
  }
  return (pair[1] & 0xF000F000u) | (pair[0] >> 4 & 0x0FFF0FFFu);
}

/// encode_carry8 or encode_te_sr of eight elements of E2M1, none of them NaN; the first in the low bits, a
/// random byte each.
template <ElementRounding rounding>
[[nodiscard]] __device__ inline uint32_t eight_codes(const float *y, const uint32_t *random) {
  return __byte_perm(four_codes<rounding>(y, random[0]), four_codes<rounding>(y + 4, random[1]), 0x7531);
}

/// a / 1536, correctly rounded for 2^-70 <= |a| <= 2^80: by the rounded reciprocal, mended once. 0 becomes +0
/// or -0.
[[nodiscard]] __device__ inline float divide_by_1536(float a) {
  const float inverse = 1.0f / 1536.0f, q = a * inverse;
  return __fmaf_rn(__fmaf_rn(-q, 1536.0f, a), inverse, q);
}

/// Any rounding of an element that is not NaN; sr_te is in eight_codes only.
template <FormatId element, ElementRounding rounding>
__device__ inline uint32_t element_code(float y, [[maybe_unused]] uint32_t random) {
  static_assert(rounding != ElementRounding::sr_te);
  if constexpr (rounding == ElementRounding::nearest) return nearest_code<element>(y);
  if constexpr (rounding == ElementRounding::sr_exact) return exact_code<element>(y, random);
  if constexpr (rounding == ElementRounding::sr_carry8) return carry8_code<element>(y, random);
}

} // namespace nvfp4::cuda
