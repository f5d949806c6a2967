// SPDX-License-Identifier: Apache-2.0
// Element encoders in FP32 arithmetic, equal to the codec for every word that is not NaN. README.md has the
// reasons, nvfp4-crosscheck-gpu compares all 2^32 words.
#pragma once
#include "emulator/quantize/block_rule.hpp"

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

/// encode_carry8 for E2M1: 8 random bits added to the top 8 discarded bits. y is not NaN.
__device__ inline uint32_t carry8_code(float y, uint32_t r8) {
  const float t = fminf(fabsf(y), 6.0f);
  const float m = t < 2.0f ? 16384.0f : t < 4.0f ? 32770.0f : 65544.0f; // ulps of step / 256
  return ((bit_cast<uint32_t>(__fadd_rz(t, m)) + r8) >> 8 & 7) | bit_cast<uint32_t>(y) >> 31 << 3;
}

/// encode_te_sr: its arithmetic with the last, exact conversion replaced. y is not NaN.
__device__ inline uint32_t te_code(float y, uint32_t r8) {
  const float magnitude = fabsf(y);
  const float step = magnitude >= 4.0f ? 2.0f : magnitude >= 2.0f ? 1.0f : 0.5f;
  const float t = __fmaf_rn(float(r8) * 0.00390625f, step, magnitude);
  // floor to the step: toward zero with an ulp of one step
  const float capped = fminf(t, 6.0f);
  const float m = capped < 2.0f ? 4194304.0f : capped < 4.0f ? 8388610.0f : 16777224.0f;
  return (bit_cast<uint32_t>(__fadd_rz(capped, m)) & 7) | bit_cast<uint32_t>(y) >> 31 << 3;
}

/// encode_exact_sr for E2M1: what is cut off, as a 32-bit fraction of the step, carries or does not. y is not
/// NaN.
__device__ inline uint32_t exact_code(float y, uint32_t r32) {
  const float t = fminf(fabsf(y), 6.0f);
  const bool two = t >= 2.0f, four = t >= 4.0f;
  const float m = four ? 16777224.0f : two ? 8388610.0f : 4194304.0f;
  const float kept = __fadd_rz(t, m);
  const float rest = __fadd_rn(t, -__fadd_rn(kept, -m)); // both exact
  const uint32_t fraction = __float2uint_rz(rest * (four ? 0x1p31f : two ? 0x1p32f : 0x1p33f));
  const uint32_t carry = fraction + r32 < r32 ? 1 : 0;
  return ((bit_cast<uint32_t>(kept) & 7) + carry) | bit_cast<uint32_t>(y) >> 31 << 3;
}

/// The binade of an element of E4M3 or E5M2: t, at most the largest value, is n steps of 2^(field - 127 -
/// mantissa), and its code n more than `base`.
template <FormatId element> struct Binade {
  static constexpr int mantissa = element == FormatId::e4m3 ? 3 : 2,
                       least = element == FormatId::e4m3 ? 121 : 113;
  float t;
  uint32_t field, base;

  __device__ explicit Binade(float y) {
    t = fminf(fabsf(y), element == FormatId::e4m3 ? 448.0f : 57344.0f);
    field = max(bit_cast<uint32_t>(t) >> 23, uint32_t(least));
    base = (field - least) << mantissa;
  }
  /// A power of two whose ulp is the step divided by 2^bits.
  [[nodiscard]] __device__ float magic(int bits) const {
    return bit_cast<float>((field + uint32_t(23 - mantissa - bits)) << 23);
  }
};

/// encode_carry8 for E4M3 and E5M2. y is not NaN.
template <FormatId element> __device__ inline uint32_t wide_carry8_code(float y, uint32_t r8) {
  const Binade<element> b(y);
  const float m = b.magic(8);
  const uint32_t parts = bit_cast<uint32_t>(__fadd_rz(b.t, m)) - bit_cast<uint32_t>(m);
  return (b.base + ((parts + r8) >> 8)) | bit_cast<uint32_t>(y) >> 31 << 7;
}

/// encode_exact_sr for E4M3 and E5M2. y is not NaN.
template <FormatId element> __device__ inline uint32_t wide_exact_code(float y, uint32_t r32) {
  const Binade<element> b(y);
  const float m = b.magic(0), kept = __fadd_rz(b.t, m);
  const float rest = __fadd_rn(b.t, -__fadd_rn(kept, -m));                               // both exact
  const float per_step = bit_cast<float>((286u + uint32_t(b.mantissa) - b.field) << 23); // 2^32 / step
  const uint32_t carry = __float2uint_rz(rest * per_step) + r32 < r32 ? 1 : 0;
  const uint32_t steps = bit_cast<uint32_t>(kept) - bit_cast<uint32_t>(m);
  return (b.base + steps + carry) | bit_cast<uint32_t>(y) >> 31 << 7;
}

/// Any rounding of an element that is not NaN.
template <FormatId element, ElementRounding rounding>
__device__ inline uint32_t element_code(float y, uint32_t random) {
  if constexpr (rounding == ElementRounding::nearest) return nearest_code<element>(y);
  if constexpr (rounding == ElementRounding::sr_te) return te_code(y, random);
  if constexpr (rounding == ElementRounding::sr_exact) {
    if constexpr (element == FormatId::e2m1)
      return exact_code(y, random);
    else
      return wide_exact_code<element>(y, random);
  } else if constexpr (rounding == ElementRounding::sr_carry8) {
    if constexpr (element == FormatId::e2m1)
      return carry8_code(y, random);
    else
      return wide_carry8_code<element>(y, random);
  }
}

} // namespace nvfp4::cuda
