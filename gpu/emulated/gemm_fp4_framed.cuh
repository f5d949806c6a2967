// SPDX-License-Identifier: Apache-2.0
// Steps of 16 x 32 outputs of a warp from the four groups that the tensor core gives apart, in frames or
// cut as alignment does. Internal to gemm_fp4_framed.cu; README.md has the proofs.
#pragma once
#include "nvfp4/gpu/emulated/gemm_fp4_frame.hpp"
#include "nvfp4/gpu/emulated/gemm_fp4_tiles.cuh"

namespace nvfp4::cuda::hopper {

constexpr int kPieceN = 32;
constexpr int kFragments = kPieceN / 8, kOutputs = kPieceN / 2; // of a thread
/// What a warp reads of a step, a word a lane: ranges8 of its rows (lanes 0 and 1) and columns, eight a lane, then `tops` of
/// its rows and of its columns, four a lane.
constexpr int kTopsOfRows = 2 + kFragments, kTopsOfColumns = kTopsOfRows + 4, kStepWords = kTopsOfColumns + kPieceN / 4;

struct RowFactors {
  float magic; ///< frame_magic()
  float limit; ///< accumulators below it are not cut by anything
};
struct ColumnFactors { ///< of two neighbouring columns
  float magic[2];
};
struct WarpFactors { ///< of a warp's 16 rows and 32 columns, in shared memory: registers are short
  RowFactors row[16];
  ColumnFactors columns[kPieceN / 2];
};

/// Fills in a warp's factors. `limited`: accumulators of the tile can be cut.
__device__ inline void set_factors(const Fp4Job &job, int row, int col, bool limited, WarpFactors &f) {
  const int lane = int(threadIdx.x & 31);
  int least_lsb = 0x3FFF;
  __syncwarp();
  if (lane < kPieceN / 2) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const RowInfo x = job.b.rows[col + 2 * lane + i];
      f.columns[lane].magic[i] = frame_magic(false, x.norm);
      if (!x.empty()) least_lsb = min(least_lsb, int(x.lsb));
    }
  }
  least_lsb = __reduce_min_sync(0xFFFFFFFF, least_lsb);
  if (lane < 16) {
    const RowInfo x = job.a.rows[row + lane];
    limited = limited && !x.empty() && least_lsb != 0x3FFF;
    f.row[lane] = {frame_magic(true, x.norm),
                   limited ? uncut_below(x.lsb + least_lsb) : __int_as_float(0x7F800000)};
  }
  __syncwarp();
}

/// A bit, from bit 2 on, for each fragment of 16 x 8 in which the tensor core's own sum would be exact; then
/// so are FP32 sums of the groups.
__device__ inline uint32_t summed_fragments(uint32_t range) {
  const int width = int(range & 255);
  const int rows = max(__shfl_sync(0xFFFFFFFF, width, 0), __shfl_sync(0xFFFFFFFF, width, 1));
  return __ballot_sync(0xFFFFFFFF, rows + width <= kSumWidth) & (((1u << kFragments) - 1) << 2);
}

/// The groups of a thread's output i.
__device__ inline StepGroups groups_of(const float (&g)[4][kOutputs], int i) {
  return {g[0][i], g[1][i], g[2][i], g[3][i]};
}

/// A step in which nothing is cut. Whether an accumulator has passed its limit.
__device__ inline bool framed_steps(const RowFactors *rows, const ColumnFactors *columns, uint32_t summed,
                                    const float (&g)[4][kOutputs], float (&acc)[kOutputs]) {
  bool beyond = false;
  if (summed == 0) { // without branches between them
#pragma unroll
    for (int i = 0; i < kOutputs; ++i)
      acc[i] = framed_step(rows[i / 2 % 2 * 8].magic, columns[i / 4 * 4].magic[i % 2], acc[i], groups_of(g, i));
#pragma unroll
    for (int i = 0; i < kOutputs; ++i) beyond |= fabsf(acc[i]) >= rows[i / 2 % 2 * 8].limit;
    return beyond;
  }
#pragma unroll
  for (int j = 0; j < kFragments; ++j) {
    if ((summed >> (j + 2) & 1) != 0) {
#pragma unroll
      for (int i = 4 * j; i < 4 * j + 4; ++i)
        acc[i] = add_rz(acc[i], add_rn(add_rn(g[0][i], g[1][i]), add_rn(g[2][i], g[3][i])));
    } else {
      const ColumnFactors c = columns[4 * j];
#pragma unroll
      for (int i = 4 * j; i < 4 * j + 4; ++i)
        acc[i] = framed_step(rows[i / 2 % 2 * 8].magic, c.magic[i % 2], acc[i], groups_of(g, i));
    }
#pragma unroll
    for (int i = 4 * j; i < 4 * j + 4; ++i) beyond |= fabsf(acc[i]) >= rows[i / 2 % 2 * 8].limit;
  }
  return beyond;
}

/// A step of one output whose cuts may change it, in FP64.
[[maybe_unused]] static __device__ __noinline__ float repaired_step(const Fp4Job &job, int64_t row,
                                                                    int64_t col, int64_t t, float acc,
                                                                    float g0, float g1, float g2, float g3) {
  return aligned_sum(job.rule.fraction_bits, alignment_top(job, row, col, t, acc), acc, g0, g1, g2, g3);
}

/// Byte `i` of a word as an exponent field; 0 is 0.
__device__ inline float power_of_byte(uint32_t word, int i) {
  return bit_cast<float>((word >> (8 * i) & 255) << 23);
}

/// A step whose terms may be cut. `words`: StepWords. The number of outputs for which FP64 had to do it.
__device__ inline uint32_t guarded_steps(const Fp4Job &job, int row, int col, int t, uint32_t words,
                                         const float (&g)[4][kOutputs], float (&acc)[kOutputs]) {
  const int lane = int(threadIdx.x & 31);
  float of_row[2]; // powers of two of their largest scale exponents
#pragma unroll
  for (int h = 0; h < 2; ++h)
    of_row[h] = power_of_byte(__shfl_sync(0xFFFFFFFF, words, kTopsOfRows + 2 * h + lane / 16), lane / 4 % 4);
  uint32_t repaired = 0;
#pragma unroll
  for (int j = 0; j < kFragments; ++j) {
    const uint32_t two = __shfl_sync(0xFFFFFFFF, words, kTopsOfColumns + 2 * j + lane % 4 / 2) >> (lane % 2 * 16);
    const float of_column[2] = {power_of_byte(two, 0), power_of_byte(two, 1)};
    float result[4];
    bool known[4]; // without branches between them
#pragma unroll
    for (int o = 0; o < 4; ++o)
      known[o] = cut_step(mul_rn(of_row[o / 2], of_column[o % 2]), acc[4 * j + o], groups_of(g, 4 * j + o), result[o]);
    if (!(known[0] & known[1] & known[2] & known[3])) {
#pragma unroll
      for (int o = 0; o < 4; ++o) {
        const int i = 4 * j + o;
        if (known[o]) continue;
        result[o] = repaired_step(job, row + o / 2 * 8, col + 8 * j + o % 2, t, acc[i], g[0][i], g[1][i], g[2][i], g[3][i]);
        ++repaired;
      }
    }
#pragma unroll
    for (int o = 0; o < 4; ++o) acc[4 * j + o] = result[o];
  }
  return repaired;
}

/// A warp's step in the counts.
[[maybe_unused]] static __device__ __noinline__ void count_guarded(const Fp4Job &job, uint32_t repaired) {
  atomicAdd(&job.paths->repaired, repaired);
  if (threadIdx.x % 32 == 0) atomicAdd(&job.paths->guarded, 128ull * kFragments);
}
[[maybe_unused]] static __device__ __noinline__ void count_framed(const Fp4Job &job, uint32_t fragments) {
  if (threadIdx.x % 32 != 0) return;
  const uint64_t summed = uint64_t(__popc(fragments));
  atomicAdd(&job.paths->summed, 128 * summed);
  atomicAdd(&job.paths->framed, 128 * (kFragments - summed));
}

} // namespace nvfp4::cuda::hopper
