// SPDX-License-Identifier: Apache-2.0
// A group of 16 E2M1 codes times its scale as BF16, eight codes a word: tables of eight bytes that four codes
// index at once. Internal to gemm_fp4_prepare.cu.
#pragma once
#include "nvfp4/gpu/emulated/gemm_detail.cuh"
#include "nvfp4/gpu/emulated/rounded.hpp"

namespace nvfp4::cuda {

/// What a group's codes say of its elements, whatever the scale.
struct GroupCodes {
  uint32_t squares = 0; ///< the sum of squares of twice the elements
  uint32_t bits = 0;    ///< twice their magnitudes or-ed, a byte each of four
  uint32_t nonzero = 0; ///< a bit for each
  /// All twice the elements are multiples of 2^twos(); not of a group of zeros.
  [[nodiscard]] __device__ int twos() const {
    const uint32_t half = bits | bits >> 16;
    return __ffs(int((half | half >> 8) & 255)) - 1;
  }
};

/// A scale as two equal BF16 words: significand * 2^(exponent - 3).
__device__ inline uint32_t scale_pair(uint32_t significand, int exponent) {
  const uint32_t word = bit_cast<uint32_t>(float(significand) * power_of_two(exponent - 3)) >> 16;
  return word * 0x10001u;
}

/// Exact products of BF16, two at a time.
__device__ inline uint32_t times(uint32_t x, uint32_t y) {
  uint32_t product;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(product) : "r"(x), "r"(y), "r"(0x80008000u)); // adds -0
  return product;
}

/// Eight codes under a scale, as BF16 pairs; zeros become +0.
__device__ inline void expand_eight(uint32_t codes, uint32_t scale, uint32_t (&values)[4], GroupCodes &g) {
  const uint32_t magnitudes = codes & 0x77777777u;
  const uint32_t nonzero = (magnitudes + 0x77777777u) & 0x88888888u, signs = codes & nonzero;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t four = magnitudes >> (16 * i), sign = signs >> (16 * i);
    const uint32_t twice = __byte_perm(0x03020100, 0x0C080604, four);
    g.squares = __dp4a(twice, twice, g.squares);
    g.bits |= twice;
    // 0 0.5 1 1.5 2 3 4 6 in BF16
    const uint32_t low = __byte_perm(0xC0800000, 0xC0804000, four),
                   high = __byte_perm(0x3F3F3F00, 0x40404040, four);
    const uint32_t first = (sign & 0x88u) * 0x01001000u & 0x80008000u, // bits 3 and 7 to 15 and 31
        second = (sign >> 8 & 0x88u) * 0x01001000u & 0x80008000u;
    values[2 * i] = times(__byte_perm(low, high, 0x5140) | first, scale);
    values[2 * i + 1] = times(__byte_perm(low, high, 0x7362) | second, scale);
  }
  uint32_t x = nonzero >> 3; // every fourth bit; to the lowest eight
  x = (x | x >> 3) & 0x03030303u;
  x = (x | x >> 6) & 0x000F000Fu;
  g.nonzero = g.nonzero >> 8 | ((x | x >> 12) & 255) << 8;
}

} // namespace nvfp4::cuda
