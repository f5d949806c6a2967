// SPDX-License-Identifier: Apache-2.0
// FP32 to BF16 and back: codec.hpp's rounding of this one pair of formats in three integer steps, since BF16
// is the upper half of an FP32 word. Vector forms (emulator/quantize/*_avx*.cpp, gpu/device/bf16.cuh) equal
// these.
#pragma once
#include "nvfp4/emulator/formats/codec.hpp"

namespace nvfp4 {

/// The BF16 word of x: nearest even, overflow to Inf; every NaN becomes 0x7FFF (cvt.rn.bf16.f32). Equal to
/// encode(FormatId::bf16, x, Rounding::nearest_even, Overflow::ieee). A carry out of the significand moves
/// the exponent, up to Inf: as IEEE has it.
[[nodiscard]] NVFP4_INLINE constexpr uint16_t bf16_word(float x) {
  const uint32_t w = bit_cast<uint32_t>(x);
  return x != x ? uint16_t(0x7FFF) : uint16_t((w + 0x7FFFu + ((w >> 16) & 1u)) >> 16);
}

/// The value of a BF16 word; a NaN keeps its bits.
[[nodiscard]] NVFP4_INLINE constexpr float bf16_value(uint16_t word) {
  return bit_cast<float>(uint32_t(word) << 16);
}

/// x rounded to a BF16 value; every NaN becomes 0x7FFF0000.
[[nodiscard]] NVFP4_INLINE constexpr float round_to_bf16(float x) { return bf16_value(bf16_word(x)); }

} // namespace nvfp4
