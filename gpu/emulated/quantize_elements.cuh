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

/// Any rounding of an element that is not NaN.
template <FormatId element, ElementRounding rounding>
__device__ inline uint32_t element_code(float y, uint32_t random) {
  if constexpr (rounding == ElementRounding::nearest) return nearest_code<element>(y);
  if constexpr (rounding == ElementRounding::sr_te) return te_code(y, random);
  if constexpr (rounding == ElementRounding::sr_exact) return uint32_t(encode_exact_sr(element, y, random));
  if constexpr (rounding == ElementRounding::sr_carry8 && element == FormatId::e2m1)
    return carry8_code(y, random);
  return uint32_t(encode_carry8(element, y, random));
}

} // namespace nvfp4::cuda
