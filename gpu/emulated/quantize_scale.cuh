// SPDX-License-Identifier: Apache-2.0
// block_scale of block_rule.hpp in FP32 arithmetic, for maxima and second levels that are finite. What it
// cannot prove it leaves to the definition. emulator/quantize/README.md has the reasons.
#pragma once
#include "nvfp4/emulator/quantize/block_rule.hpp"
#include "nvfp4/gpu/device/bf16.cuh"

#include <cuda_fp16.h>

namespace nvfp4::cuda {

/// Positive and finite: what the steps below need of S and p.
[[nodiscard]] __device__ inline bool level_usable(const GlobalScale &g) {
  return g.encode > 0.0f && g.encode <= kFltMax && g.decode > 0.0f && g.decode <= kFltMax;
}

/// unrounded_scale with the conversions of the machine.
[[nodiscard]] __device__ inline float unrounded_value(const Rule &r, float bmax, const GlobalScale &g,
                                                      FormatId source) {
  if (r.order != ScaleOrder::source_sixth) return detail::unrounded_scale(r, bmax, g, source);
  float sixth = detail::divide(r.flush, bmax, largest_element(r));
  if (source == FormatId::bf16) sixth = bf16_low(bf16_pair(sixth, 0.0f));
  if (source == FormatId::f16) sixth = __half2float(__float2half_rn(sixth));
  return detail::multiply(r.flush, g.encode, sixth);
}

/// The scale of a block with a finite maximum under a usable level; true where the definition must decide.
[[nodiscard]] __device__ inline bool fast_scale(const Rule &r, float bmax, const GlobalScale &g,
                                                FormatId source, bool to_four, BlockScale &out) {
  using enum ScaleRounding;
  const uint32_t word = bit_cast<uint32_t>(bmax);
  bool redo = false;
  uint32_t code = 0;
  float value = 0.0f;
  if (r.scale_rounding == power_exact) {
    code = uint32_t(max(int((word + detail::exponent_carry(r)) >> 23) - detail::max_exponent(r.element), 0));
  } else if (r.scale_rounding == power_up) {
    // the power of two not below: exponent field, plus one where fraction bits are left
    const uint32_t s = bit_cast<uint32_t>(unrounded_value(r, bmax, g, source));
    code = s <= 0x400000u ? 0 : (s + 0x7FFFFFu) >> 23;
  } else if (r.scale_rounding == ggml) {
    code = detail::encode_ggml_scale(unrounded_value(r, bmax, g, source));
    const float steps = float(code & 7);
    value = code < 8 ? steps * 0x1p-9f : bit_cast<float>((code << 20) + (120u << 23));
  } else {
    float s = unrounded_value(r, bmax, g, source);
    if (to_four) s = detail::multiply(r.flush, s, 1.5f);
    redo = s != s || r.scale != FormatId::ue4m3; // E4M3's constants follow
    if (r.scale_rounding == clamp_normal) s = fmaxf(s, 0x1p-6f);
    if (r.scale_rounding == clamp_tiny) s = fmaxf(s == 0.0f ? 1.0f : s, 0x1p-9f);
    // m = 2^(e+20) has the step of the binade of t as its ulp
    const float t = fminf(s, 448.0f);
    const uint32_t binade = bit_cast<uint32_t>(fmaxf(t, 0x1p-6f)) & 0x7F800000u;
    const float m = bit_cast<float>(binade + (20u << 23)), rounded = __fadd_rn(t, m);
    value = __fadd_rn(rounded, -m); // exact
    code = bit_cast<uint32_t>(rounded) - bit_cast<uint32_t>(m) + (binade >> 20) - (121u << 3);
    if (r.scale_rounding == eighth_if_zero && code == 0) {
      code = 0x20;
      value = 0.125f;
    }
  }
  const bool powers = r.scale_rounding == power_exact || r.scale_rounding == power_up;
  if (powers) value = power_of_two(int(code) - 127);
  const bool zero = (r.zero_multiplier == ZeroMultiplier::zero_amax && bmax == 0.0f) ||
                    (r.zero_multiplier == ZeroMultiplier::zero_scale && value == 0.0f);
  const float factor = zero ? 0.0f : detail::scale_factor(r, uint8_t(code), value, g);
  out = {uint8_t(code), value, factor, false};
  return redo || !(fabsf(factor) <= kFltMax) || (divides(r.scaling) && factor == 0.0f);
}

} // namespace nvfp4::cuda
