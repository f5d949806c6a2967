// SPDX-License-Identifier: Apache-2.0
// Stochastic rounding as four named models. All saturate to the largest finite value, keep the sign of zero and turn
// NaN into the canonical NaN (+max for formats without one), like cvt.rs.satfinite.
#pragma once
#include "nvfp4/emulator/formats/codec.hpp"

#include <cmath>

namespace nvfp4 {

enum class Stochastic : uint8_t {
  carry8, ///< 8 random bits added to the top 8 discarded bits, away from zero iff they carry: cvt.rs on Blackwell as
          ///< probed by Dao-AILab/quack; what lies below those 8 bits never matters
  te,     ///< TransformerEngine's software fallback for E2M1 (common/util/ptx.cuh, PR #3281): one fmaf, then floor
  mid8,   ///< Graphcore's StochasticFast for E2M1 (MrHuff/ue5m3-fp4 backends/triton/_rounding.py @9bae397): away iff the discarded
          ///< part of a step plus (2 r8 + 1) / 512, one FP32 addition, is at least 1
  exact,  ///< 32 random bits against the whole discarded part: away iff fraction * 2^32 + r32 >= 2^32
};

namespace detail {
[[nodiscard]] NVFP4_HD constexpr uint64_t encode_carry(const Format &f, float x, uint64_t random, int bits) {
  const Decoded d = decode(format(FormatId::f32), bit_cast<uint32_t>(x));
  if (d.cls == Class::nan) return canonical_nan(f);
  if (d.cls == Class::infinity) return infinity_code(f, d.negative, Overflow::satfinite);
  if (d.cls == Class::zero) return with_sign(f, d.negative, 0);
  const GridPoint p = place_on_grid(f, d.significand, d.exponent - 23);
  const uint64_t carry = ((p.rest >> (64 - bits)) + random) >> bits;
  return finish_encode(f, d.negative, p.base + p.kept + carry, false, Overflow::satfinite);
}
} // namespace detail

/// cvt.rs.satfinite with 8 random bits, for E2M1, E3M2, E2M3, E4M3, E5M2. r8 in 0..255.
[[nodiscard]] NVFP4_HD constexpr uint64_t encode_carry8(FormatId to, float x, uint32_t r8) {
  return detail::encode_carry(format(to), x, r8, 8);
}

/// Full-width stochastic rounding with 32 random bits: P(away) is the discarded fraction to 2^-32.
[[nodiscard]] NVFP4_HD constexpr uint64_t encode_exact_sr(FormatId to, float x, uint32_t r32) {
  return detail::encode_carry(format(to), x, r32, 32);
}

/// TransformerEngine's software stochastic rounding to E2M1. r8 in 0..255. Differs from carry8 only where the fmaf
/// rounds up across a multiple of step / 256, about one FP32 ulp below it.
[[nodiscard]] NVFP4_HD inline uint64_t encode_te_sr(float x, uint32_t r8) {
  const auto step_of = [](float magnitude) { return magnitude >= 4.0f ? 2.0f : magnitude >= 2.0f ? 1.0f : 0.5f; };
  if (x != x) return canonical_nan(format(FormatId::e2m1));
  const uint32_t word = bit_cast<uint32_t>(x);
  const float magnitude = bit_cast<float>(word & 0x7FFFFFFFu);
  const float t = fmaf(float(r8) * (1.0f / 256.0f), step_of(magnitude), magnitude);
  const float step = step_of(t);
  const float q = t >= 6.0f ? 6.0f : floorf(t * (1.0f / step)) * step;
  return encode(FormatId::e2m1, (word >> 31) != 0 ? -q : q);
}

/// Graphcore's 8-bit rounding to E2M1: the middles of 256 intervals. r8 in 0..255.
[[nodiscard]] NVFP4_HD inline uint64_t encode_mid8_sr(float x, uint32_t r8) {
  if (x != x) return canonical_nan(format(FormatId::e2m1));
  const uint32_t word = bit_cast<uint32_t>(x);
  const float magnitude = bit_cast<float>(word & 0x7FFFFFFFu);
  if (magnitude >= 6.0f) return encode(FormatId::e2m1, x);
  const float step = magnitude >= 4.0f ? 2.0f : magnitude >= 2.0f ? 1.0f : 0.5f;
  const float steps = magnitude * (1.0f / step), whole = floorf(steps);
  const bool away = (steps - whole) + float(2 * r8 + 1) * (1.0f / 512.0f) >= 1.0f;
  const float q = (away ? whole + 1.0f : whole) * step;
  return encode(FormatId::e2m1, (word >> 31) != 0 ? -q : q);
}

} // namespace nvfp4
