// SPDX-License-Identifier: Apache-2.0
// One step of one output of the exact FP4 product from its four groups, in FP32 pairs: sums in a frame, and steps
// with cuts. Proofs are in README.md; the text is the GPU's and its test's on the CPU.
#pragma once
#include "nvfp4/gpu/emulated/rounded.hpp"

namespace nvfp4::cuda {

/// A step's four groups, their exact values.
struct StepGroups {
  float g0, g1, g2, g3;
};

/// A row's part in the frame of an output: magic, 1.5 * 2^23 G, is the product of both rows' parts, of which A's has the 1.5.
/// The frame's grid is G = 2^(norm of A's row + norm of B's row - 22). The row's norm, its elements times their scales, is at
/// most 2^norm, `norm` within -60 .. 60.
[[nodiscard]] NVFP4_INLINE float frame_magic(bool of_a, int norm) {
  return of_a ? 1.5f * power_of_two(norm + 12) : power_of_two(norm - 11);
}

/// high + low = acc + g0 + g1 + g2 + g3 if all terms are multiples of 2^-22 of the frame's grid; high is on the grid.
/// magic_a * magic_b is exact.
NVFP4_INLINE void sum_in_frame(float magic_a, float magic_b, float acc, const StepGroups &g, float &high,
                               float &low) {
  const float s0 = fma_rn(magic_a, magic_b, g.g0), s1 = add_rn(s0, g.g1), s2 = add_rn(s1, g.g2),
              s3 = add_rn(s2, g.g3), s4 = add_rn(s3, acc);
  const float l0 = sub_rn(g.g0, fma_rn(-magic_a, magic_b, s0)), l1 = sub_rn(g.g1, sub_rn(s1, s0)),
              l2 = sub_rn(g.g2, sub_rn(s2, s1)), l3 = sub_rn(g.g3, sub_rn(s3, s2)),
              l4 = sub_rn(acc, sub_rn(s4, s3));
  high = fma_rn(-magic_a, magic_b, s4);
  low = add_rn(add_rn(add_rn(l0, l1), add_rn(l2, l3)), l4);
}

/// The truncated sum where nothing is cut and the frame holds every bit.
[[nodiscard]] NVFP4_INLINE float framed_step(float magic_a, float magic_b, float acc, const StepGroups &g) {
  float high, low;
  sum_in_frame(magic_a, magic_b, acc, g, high, low);
  return add_rz(high, low);
}

/// x cut below 2^c for |x| below 2^(46 + c), a multiple of 2^(its exponent - 18); power = 2^(23 + c). From
/// 2^(19 + c) on x has no such bits, and then the sum has none below its own last place.
[[nodiscard]] NVFP4_INLINE float cut_below(float x, float power) {
  const float magic = bit_cast<float>((bit_cast<uint32_t>(x) & 0x80000000u) | bit_cast<uint32_t>(power));
  return sub_rn(add_rz(x, magic), magic);
}

/// mmasim's step with every cut, if `scale`, at least 2^E for every sum E of scale exponents of a group with a non-zero
/// product (0: there is none), shows that the accumulator has the largest exponent, or that nothing is cut whatever has. False
/// if it does not.
[[nodiscard]] NVFP4_INLINE bool cut_step(float scale, float acc, const StepGroups &g, float &result) {
  const float top = leading_power(acc), most = fmaxf(top, scale);
  const float power = mul_rn(most, 0x1p-12f), widest = mul_rn(most, 0x1p8f);
  const StepGroups c{cut_below(g.g0, power), cut_below(g.g1, power), cut_below(g.g2, power),
                     cut_below(g.g3, power)};
  // a frame of the accumulator: its grid is 2^22 times what is cut below, so that the lower part is exact
  result = framed_step(most, 1.5f * 0x1p10f, acc, c);
  const bool whole = (c.g0 == g.g0) & (c.g1 == g.g1) & (c.g2 == g.g2) & (c.g3 == g.g3) &
                     ((mul_rn(top, 0x1p12f) >= most) | (top == 0.0f));
  const float sum = add_rn(add_rn(fabsf(g.g0), fabsf(g.g1)), add_rn(fabsf(g.g2), fabsf(g.g3)));
  return ((top >= scale) | whole) & (sum <= widest);
}

} // namespace nvfp4::cuda
