// SPDX-License-Identifier: Apache-2.0
// One step of one output of the exact FP4 product from its four groups, in FP32 pairs: sums in a frame, steps
// with cuts, and the guard that bounds what cuts may do. Proofs are in README.md; the text is the GPU's and
// its test's on the CPU.
#pragma once
#include "nvfp4/gpu/emulated/rounded.hpp"

namespace nvfp4::cuda {

/// A step's four groups, their exact values.
struct StepGroups {
  float g0, g1, g2, g3;
};

/// What the step of an output needs to know of its row of A or of its row of B; numbers of outputs are
/// products of both. A frame's grid is G = 2^(norm of A's row + norm of B's row - 22).
struct FrameFactors {
  float magic; ///< the product, 1.5 * 2^23 G; A's has the 1.5
  float guard; ///< at least twice 2^E for any sum E of scale exponents, and 2^13 G
  float scale; ///< at least 2^E
};

/// Of a row of elements times their scales whose norm is at most 2^norm and whose largest scale exponent is
/// `max`; rows of zeros (`empty`) have no guard. `max` and `norm` within -60 .. 60.
[[nodiscard]] NVFP4_INLINE FrameFactors frame_factors(bool of_a, bool empty, int max, int norm) {
  const int grid = norm - 11, guard = max > grid + 6 ? max : grid + 6;
  return {of_a ? 1.5f * power_of_two(grid + 23) : power_of_two(grid),
          empty  ? 0.0f
          : of_a ? 2.0f * power_of_two(guard)
                 : power_of_two(guard),
          empty ? 0.0f : power_of_two(max)};
}

/// high + low = acc + g0 + g1 + g2 + g3; high on the frame's grid, low exact if all terms are multiples of
/// 2^-22 of it, and else within 6.5 * 2^-24 grids. magic_a * magic_b is exact.
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

/// mmasim's step with every cut, if `scale`, the product of factors, shows that the accumulator has the
/// largest exponent, or that nothing is cut whatever has. False if it does not.
[[nodiscard]] NVFP4_INLINE bool cut_step(float scale, float acc, const StepGroups &g, float &result) {
  const float top = leading_power(acc), most = fmaxf(top, scale);
  const float power = mul_rn(most, 0x1p-12f), widest = mul_rn(most, 0x1p6f);
  const StepGroups c{cut_below(g.g0, power), cut_below(g.g1, power), cut_below(g.g2, power),
                     cut_below(g.g3, power)};
  // a frame of the accumulator: its grid is 2^22 times what is cut below, so that the lower part is exact
  result = framed_step(most, 1.5f * 0x1p10f, acc, c);
  const bool whole = (c.g0 == g.g0) & (c.g1 == g.g1) & (c.g2 == g.g2) & (c.g3 == g.g3) &
                     ((mul_rn(top, 0x1p12f) >= most) | (top == 0.0f));
  const float peak = fmaxf(fmaxf(fabsf(g.g0), fabsf(g.g1)), fmaxf(fabsf(g.g2), fabsf(g.g3)));
  return ((top >= scale) | whole) & (peak <= widest);
}

/// mmasim's step lies between the truncations of high + low less and more what cuts may take and what low
/// lacks: five terms, each cut by less than 2^-35 of the top. Of sum_in_frame's results; guard is a.guard *
/// b.guard plus the accumulator's leading power, rounded up.
constexpr float kCut = 5.0f / 0x1p35f;
[[nodiscard]] NVFP4_INLINE float guard_of(float guard_a, float guard_b, float acc) {
  return fma_up(guard_a, guard_b, leading_power(acc));
}
[[nodiscard]] NVFP4_INLINE float least_end(float high, float low, float guard) {
  return add_rz(high, fma_down(guard, -kCut, low));
}
[[nodiscard]] NVFP4_INLINE float most_end(float high, float low, float guard) {
  return add_rz(high, fma_up(guard, kCut, low));
}

} // namespace nvfp4::cuda
