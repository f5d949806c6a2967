// SPDX-License-Identifier: Apache-2.0
// Pairs of BF16 words with the machine's conversion: bf16_word of emulator/formats/bf16.hpp twice. All 2^32
// words were compared on an H200 (golden/vectors, sm_90.cvt.rn.bf16x2.f32). Source: PTX ISA 9.1, "cvt".
#pragma once
#include "nvfp4/emulator/formats/bf16.hpp"

namespace nvfp4::cuda {

/// bf16_word of both, the first in the low half.
[[nodiscard]] __device__ __forceinline__ uint32_t bf16_pair(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
/// bf16_value of the halves.
[[nodiscard]] __device__ __forceinline__ float bf16_low(uint32_t pair) { return bit_cast<float>(pair << 16); }
[[nodiscard]] __device__ __forceinline__ float bf16_high(uint32_t pair) {
  return bit_cast<float>(pair & 0xFFFF0000u);
}

} // namespace nvfp4::cuda
