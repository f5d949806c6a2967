// SPDX-License-Identifier: Apache-2.0
// A row's step in two halves: its groups of 16 under large scales and under small ones, so that the tensor
// core sums either exactly where it could not sum the whole step. How groups are told apart, and the addition
// of both sums. Proofs are in README.md; the text is the GPU's and its test's on the CPU.
#pragma once
#include "nvfp4/gpu/emulated/rounded.hpp"

namespace nvfp4::cuda {

/// log2 of x rounded up, x >= 0; a large negative number for 0.
[[nodiscard]] NVFP4_INLINE int ceil_log2(double x) {
  if (x == 0.0) return -10000;
  const uint64_t w = bit_cast<uint64_t>(x);
  return int(w >> 52) - 1023 + ((w & 0xFFFFFFFFFFFFFull) != 0 ? 1 : 0);
}

/// 2^e for a normal FP64.
[[nodiscard]] NVFP4_INLINE double power_f64(int e) {
  return bit_cast<double>(static_cast<uint64_t>(e + 1023) << 52);
}

/// At least a + b, both >= 0.
[[nodiscard]] NVFP4_INLINE double sum_up(double a, double b) {
#if defined(__CUDA_ARCH__)
  return __dadd_ru(a, b);
#else
  const double s = a + b, bb = s - a;
  return (a - (s - bb)) + (b - bb) > 0 ? std::nextafter(s, INFINITY) : s;
#endif
}

/// One group of 16 of a row: elements times their scale.
struct GroupNorm {
  double norm2; ///< the sum of their squares, at least; 0: all are zero, and the rest means nothing
  int exponent; ///< of the scale
  int lsb;      ///< all are multiples of 2^lsb
};

/// The halves of a row's step of four groups.
struct StepHalves {
  uint32_t low; ///< a bit for each group of the lower half; 0: the row is not halved
  int width;    ///< twice the bits that the wider half needs, see README.md; of rows not halved the step's own
};

/// Steps of this width or more are halved: two such rows are within what the tensor core sums.
inline constexpr int kHalvedWidth = 20;

/// The halves of a step of width `width`: groups whose scale exponent is above that of one of the groups are the upper half;
/// of these ways to part them the one that needs the fewest bits, of equal ones the first.
[[nodiscard]] NVFP4_INLINE StepHalves halves_of(const GroupNorm (&g)[4], int width) {
  StepHalves best{0, width};
  if (width < kHalvedWidth) return best;
  for (int at = 0; at < 4; ++at) {
    if (g[at].norm2 == 0) continue;
    double high2 = 0, low2 = 0;
    int high_lsb = 1000, low_lsb = 1000;
    uint32_t low = 0;
    for (int i = 0; i < 4; ++i) {
      if (g[i].norm2 == 0) continue;
      if (g[i].exponent > g[at].exponent) {
        high2 = sum_up(high2, g[i].norm2);
        high_lsb = g[i].lsb < high_lsb ? g[i].lsb : high_lsb;
      } else {
        low2 = sum_up(low2, g[i].norm2);
        low_lsb = g[i].lsb < low_lsb ? g[i].lsb : low_lsb;
        low |= 1u << i;
      }
    }
    if (high2 == 0) continue;
    // the lower half's bits as well above the upper's least, so that the order of the sums is known
    const int a = ceil_log2(high2) - 2 * high_lsb, b = ceil_log2(low2) - 2 * low_lsb,
              c = ceil_log2(low2) - 2 * high_lsb + 1;
    const int most = a > b ? (a > c ? a : c) : (b > c ? b : c);
    if (most < best.width) best = {low, most};
  }
  return best;
}

/// acc + high + low truncated, from the exact sums of a step's halves: high a multiple of some u with
/// |high| <= 2^24 u and |low| < 2^24 u. What both additions leave, each a multiple of what all three are
/// multiples of and at most 2^23 of that, is added exactly.
[[nodiscard]] NVFP4_INLINE float halved_step(float acc, float high, float low) {
  const float step = add_rn(high, low), left = sub_rn(low, sub_rn(step, high));
  const float sum = add_rn(acc, step), back = sub_rn(sum, acc);
  const float over = add_rn(sub_rn(acc, sub_rn(sum, back)), sub_rn(step, back));
  return add_rz(sum, add_rn(left, over));
}

} // namespace nvfp4::cuda
