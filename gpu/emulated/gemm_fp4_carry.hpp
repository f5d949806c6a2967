// SPDX-License-Identifier: Apache-2.0
// Steps whose accumulators are carried through the tensor core: a row's groups of 16 and the accumulator are parted at one
// grid for all of K, so that the tensor core adds either part to its products exactly. How the grid is chosen, what a step
// needs, and the parting of an accumulator. Proofs are in README.md; the text is the GPU's and its test's on the CPU.
#pragma once
#include "nvfp4/gpu/emulated/gemm_fp4_halves.hpp"

namespace nvfp4::cuda {

/// Least multiples 2^l of groups that a row may have: kCarryLeast < l < kCarryLeast + 63.
inline constexpr int kCarryLeast = -40;
/// A grid is about this many bits below the norm of the row, and at most that many above its least multiple: then what
/// keeps accumulators below 2^23 grids keeps mmasim from cutting any group, too.
inline constexpr int kCarryBelowNorm = 11, kCarrySpan = 13;
inline constexpr int kCarryGap = 5; ///< bits that make a gap wide
/// Eight times the bits that products of a step may reach above the grid, or above the least multiple: 23 bits.
inline constexpr int kCarriedWidth = 184;

/// A set of least multiples of groups as bits; its ends mean that one is out of range.
[[nodiscard]] NVFP4_INLINE uint64_t least_bit(int lsb) {
  const int at = lsb - kCarryLeast;
  return uint64_t{1} << (at < 0 ? 0 : at > 63 ? 63 : at);
}
[[nodiscard]] NVFP4_INLINE bool carries(uint64_t leasts) { return leasts != 0 && (leasts & (1 | uint64_t{1} << 63)) == 0; }
/// The least of a set, not empty.
[[nodiscard]] NVFP4_INLINE int least_of(uint64_t leasts) {
#if defined(__CUDA_ARCH__)
  return __ffsll(static_cast<long long>(leasts)) - 1 + kCarryLeast;
#else
  return __builtin_ctzll(leasts) + kCarryLeast;
#endif
}

/// The least of a set that is at least `from`, of kCarryLeast on; else `from`.
[[nodiscard]] NVFP4_INLINE int least_from(uint64_t leasts, int from) {
  const int shift = from - kCarryLeast;
  const uint64_t above = shift > 63 ? 0 : leasts >> shift;
  return above == 0 ? from : from + least_of(above) - kCarryLeast;
}

/// The grid 2^c of a row of norm at most 2^norm, of the least multiples of its groups: groups below it are the lower part. In a
/// gap between groups it is as high as the gap allows; a group just below a wide gap is left to the lower part.
[[nodiscard]] NVFP4_INLINE int carry_grid(uint64_t leasts, int norm) {
  const int least = least_of(leasts), most = least + kCarrySpan;
  const int from = norm - kCarryBelowNorm < least ? least : norm - kCarryBelowNorm;
  if (from >= most) return most;
  int grid = least_from(leasts, from);
  const int next = least_from(leasts, from + 1);
  if (next - grid >= kCarryGap) grid = next;
  return grid < most ? grid : most;
}

/// Eight times log2 of the root of x, rounded up; of 0 so little that no sum with it matters.
[[nodiscard]] NVFP4_INLINE int eighth_bits(double norm2) {
  if (norm2 == 0.0) return -8000;
  const uint64_t w = bit_cast<uint64_t>(norm2), fraction = w & 0xFFFFFFFFFFFFFull;
  // fractions of the FP64 below 2^(1/4), 2^(2/4) and 2^(3/4)
  constexpr uint64_t k1 = 0x306FE0A31B715ull, k2 = 0x6A09E667F3BCCull, k3 = 0xAE89F995AD3ADull;
  return 4 * (int(w >> 52) - 1023) + (fraction == 0 ? 0 : fraction <= k1 ? 1 : fraction <= k2 ? 2 : fraction <= k3 ? 3 : 4);
}

/// A step of a row whose accumulators are carried.
struct CarriedStep {
  uint32_t low; ///< a bit for each group of the lower part
  int width;    ///< eighths of bits: of the lower part above the row's least multiple, of the upper above its grid, the more
  int norm;     ///< eighths of bits of the whole step
};

/// `norm2` and `lsb` as GroupNorm has them; the row's least multiple and grid.
[[nodiscard]] NVFP4_INLINE CarriedStep carried_step_of(const double (&norm2)[4], const int (&lsb)[4], int least, int grid) {
  double high = 0, low = 0;
  uint32_t lower = 0;
  for (int i = 0; i < 4; ++i) {
    if (norm2[i] == 0) continue;
    if (lsb[i] < grid) {
      low = sum_up(low, norm2[i]);
      lower |= 1u << i;
    } else {
      high = sum_up(high, norm2[i]);
    }
  }
  const int a = eighth_bits(low) - 8 * least, b = eighth_bits(high) - 8 * grid;
  return {lower, a > b ? a : b, eighth_bits(sum_up(high, low))};
}

/// The magic number of a grid 2^g, and what accumulators have to be below: a little less than 2^23 grids, so that with 2^23
/// more, of products, they are below 2^24.
[[nodiscard]] NVFP4_INLINE float carry_magic(int g) { return 1.5f * power_of_two(g + 24); }
[[nodiscard]] NVFP4_INLINE float carry_limit(int g) { return (1.0f - 0x1p-7f) * power_of_two(g + 23); }

/// high + low = acc, high a multiple of two grids, low at most one.
NVFP4_INLINE void part_accumulator(float acc, float magic, float &high, float &low) {
  high = sub_rn(add_rn(acc, magic), magic);
  low = sub_rn(acc, high);
}

} // namespace nvfp4::cuda
