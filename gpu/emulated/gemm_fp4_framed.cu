// SPDX-License-Identifier: Apache-2.0
// Tiles of the exact FP4 product on Hopper in which some steps span more bits than an FP32 sum: the tensor
// core gives the four groups of a step apart, and FP32 pairs in a frame fixed per output add them and the
// accumulator without error, or plain sums where those are exact. Where alignment may cut, a guard finds the
// few outputs that a cut could change. README.md has the proofs.
#include "nvfp4/gpu/emulated/gemm_fp4_tiles.cuh"

namespace nvfp4::cuda {
namespace {

using namespace hopper;

/// A block has a tile of 128 x 64; four warpgroups have 64 x 32 of it each, and their warps feed all of them
/// by turns. Four warps to a scheduler hide the latency of dependent additions; wider pieces would leave two.
constexpr int kTileN = 64, kPieceN = 32, kWarps = 16, kBlock = 32 * kWarps;
constexpr int kFragments = kPieceN / 8, kOutputs = kPieceN / 2; // of a thread
constexpr int kFramedStages = 7, kAhead = kFramedStages - 3;    // steps in flight; slower warps have the rest
using FramedRing = Ring<kTileN, kFramedStages>;

/// What frames and guards of outputs are products of: a factor of the row and one of the column.
struct RowFactors {
  float magic, guard, scale;
  float limit; ///< accumulators below it are not cut by anything
};
struct ColumnFactors {
  float magic[2], guard[2], scale[2]; ///< of two neighbouring columns
};
struct WarpFactors { ///< of a warp's 16 rows and 32 columns, in shared memory: registers are short
  RowFactors row[16];
  ColumnFactors columns[kPieceN / 2];
};

constexpr int kSharedFramed = int(FramedRing::kAllBytes) +
                              kWarps * (16 * kPitch * int(sizeof(float)) + int(sizeof(WarpFactors))) + 1024;

__device__ inline float power_of_two(int e) { return bit_cast<float>(uint32_t(e + 127) << 23); }
/// The power of two of a number's exponent; 0 for 0.
__device__ inline float leading_power(float x) {
  return bit_cast<float>(bit_cast<uint32_t>(x) & 0x7F800000u);
}

/// A frame's grid is G = 2^(norm of the row + norm of the column - 22); its magic number 1.5 * 2^23 G.
__device__ inline int grid_part(const RowInfo &x) { return x.norm - 11; }
/// Scale is at least the power of two of every sum of scale exponents, guard at least twice that and 2^13 G;
/// empty rows, whose sums are zero, have none.
__device__ inline float scale_part(const RowInfo &x) { return x.empty() ? 0.0f : power_of_two(x.max); }
__device__ inline float guard_part(const RowInfo &x) {
  return x.empty() ? 0.0f : power_of_two(max(int(x.max), grid_part(x) + 6));
}

/// Fills in a warp's factors. `limited`: accumulators of the tile can be cut.
__device__ inline void set_factors(const Fp4Job &job, int row, int col, bool limited, WarpFactors &f) {
  const int lane = int(threadIdx.x & 31);
  int least_lsb = 0x3FFF;
  __syncwarp();
  if (lane < kPieceN / 2) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const RowInfo x = job.b.rows[col + 2 * lane + i];
      f.columns[lane].magic[i] = power_of_two(grid_part(x));
      f.columns[lane].guard[i] = guard_part(x);
      f.columns[lane].scale[i] = scale_part(x);
      if (!x.empty()) least_lsb = min(least_lsb, int(x.lsb));
    }
  }
  least_lsb = __reduce_min_sync(0xFFFFFFFF, least_lsb);
  if (lane < 16) {
    const RowInfo x = job.a.rows[row + lane];
    limited = limited && !x.empty() && least_lsb != 0x3FFF;
    f.row[lane] = {1.5f * power_of_two(grid_part(x) + 23), 2.0f * guard_part(x), scale_part(x),
                   limited ? power_of_two(x.lsb + least_lsb + 36) : __int_as_float(0x7F800000)};
  }
  __syncwarp();
}

/// high + low = acc + g0 + g1 + g2 + g3; high on the frame's grid, low exact if all terms are multiples of
/// 2^-22 of it, and else within 6.5 * 2^-24 grids.
__device__ inline void sum_in_frame(float magic_row, float magic_col, float acc, float g0, float g1, float g2,
                                    float g3, float &high, float &low) {
  const float s0 = __fmaf_rn(magic_row, magic_col, g0), s1 = __fadd_rn(s0, g1), s2 = __fadd_rn(s1, g2),
              s3 = __fadd_rn(s2, g3), s4 = __fadd_rn(s3, acc);
  const float l0 = __fsub_rn(g0, __fmaf_rn(-magic_row, magic_col, s0)), l1 = __fsub_rn(g1, __fsub_rn(s1, s0)),
              l2 = __fsub_rn(g2, __fsub_rn(s2, s1)), l3 = __fsub_rn(g3, __fsub_rn(s3, s2)),
              l4 = __fsub_rn(acc, __fsub_rn(s4, s3));
  high = __fmaf_rn(-magic_row, magic_col, s4);
  low = __fadd_rn(__fadd_rn(__fadd_rn(l0, l1), __fadd_rn(l2, l3)), l4);
}

/// x cut below 2^c for |x| below 2^(46 + c), a multiple of 2^(its exponent - 18); power = 2^(23 + c). From
/// 2^(19 + c) on x has no such bits, and then the sum has none below its own last place.
__device__ inline float cut_below(float x, float power) {
  const float magic = bit_cast<float>((bit_cast<uint32_t>(x) & 0x80000000u) | bit_cast<uint32_t>(power));
  return __fsub_rn(__fadd_rz(x, magic), magic);
}

/// The ranges of a warp's 16 rows (lanes 0 and 1) and 32 columns (lanes 2 to 5) by steps, eight rows a lane.
struct StepRanges {
  const uint32_t *at;
  int stride;

  __device__ StepRanges(const Fp4Job &job, int64_t row, int64_t col) {
    const int lane = min(int(threadIdx.x) % 32, 1 + kFragments);
    at = lane < 2 ? job.a.ranges8 + row / 8 + lane : job.b.ranges8 + col / 8 + lane - 2;
    stride = int((lane < 2 ? job.a.padded_rows : job.b.padded_rows) / 8);
  }
  [[nodiscard]] __device__ uint32_t next() {
    const uint32_t range = *at;
    at += stride;
    return range;
  }
};

/// A bit, from bit 2 on, for each fragment of 16 x 8 in which the tensor core's own sum would be exact; then
/// so are FP32 sums of the groups.
__device__ inline uint32_t summed_fragments(uint32_t range) {
  const int width = int(range & 255);
  const int rows = max(__shfl_sync(0xFFFFFFFF, width, 0), __shfl_sync(0xFFFFFFFF, width, 1));
  return __ballot_sync(0xFFFFFFFF, rows + width <= kSumWidth) & (((1u << kFragments) - 1) << 2);
}

/// A step in which nothing is cut. Whether an accumulator has passed its limit.
__device__ inline bool framed_step(const RowFactors *rows, const ColumnFactors *columns, uint32_t summed,
                                   const float (&g)[4][kOutputs], float (&acc)[kOutputs]) {
  bool beyond = false;
#pragma unroll
  for (int j = 0; j < kFragments; ++j) {
    if ((summed >> (j + 2) & 1) != 0) {
#pragma unroll
      for (int i = 4 * j; i < 4 * j + 4; ++i)
        acc[i] = __fadd_rz(acc[i], __fadd_rn(__fadd_rn(g[0][i], g[1][i]), __fadd_rn(g[2][i], g[3][i])));
    } else {
      const ColumnFactors c = columns[4 * j];
#pragma unroll
      for (int i = 4 * j; i < 4 * j + 4; ++i) {
        float high, low;
        sum_in_frame(rows[i / 2 % 2 * 8].magic, c.magic[i % 2], acc[i], g[0][i], g[1][i], g[2][i], g[3][i],
                     high, low);
        acc[i] = __fadd_rz(high, low);
      }
    }
#pragma unroll
    for (int i = 4 * j; i < 4 * j + 4; ++i) beyond |= fabsf(acc[i]) >= rows[i / 2 % 2 * 8].limit;
  }
  return beyond;
}

/// A step of one output whose cuts may change it, in FP64.
__device__ __noinline__ float repaired_step(const Fp4Job &job, int64_t row, int64_t col, int64_t t, float acc,
                                            float g0, float g1, float g2, float g3) {
  return aligned_sum(job.rule.fraction_bits, alignment_top(job, row, col, t, acc), acc, g0, g1, g2, g3);
}

/// A step of one output with every cut, if `scale` shows that the accumulator has the largest exponent, or
/// that nothing is cut whatever has. False if it does not.
__device__ inline bool cut_step(float scale, float acc, float g0, float g1, float g2, float g3,
                                float &result) {
  const float top = leading_power(acc), most = fmaxf(top, scale);
  const float power = __fmul_rn(most, 0x1p-12f), widest = __fmul_rn(most, 0x1p6f);
  const float c0 = cut_below(g0, power), c1 = cut_below(g1, power), c2 = cut_below(g2, power),
              c3 = cut_below(g3, power);
  // a frame of the accumulator: its grid is 2^22 times what is cut below, so that the lower part is exact
  float high, low;
  sum_in_frame(most, 1.5f * 0x1p10f, acc, c0, c1, c2, c3, high, low);
  result = __fadd_rz(high, low);
  const bool whole =
      (c0 == g0) & (c1 == g1) & (c2 == g2) & (c3 == g3) & ((__fmul_rn(top, 0x1p12f) >= most) | (top == 0.0f));
  const float peak = fmaxf(fmaxf(fabsf(g0), fabsf(g1)), fmaxf(fabsf(g2), fabsf(g3)));
  return ((top >= scale) | whole) & (peak <= widest);
}

/// A step whose terms may be cut: in FP32 where the exponents show what is; else, if both ends of what cuts
/// may leave truncate to one word, that word; else in FP64. The number of those.
__device__ inline uint32_t guarded_step(const Fp4Job &job, int row, int col, int t, const RowFactors *rows,
                                        const ColumnFactors *columns, const float (&g)[4][kOutputs],
                                        float (&acc)[kOutputs]) {
  constexpr float kCut = 5.0f / 0x1p35f; // five terms, each cut by less than 2^-35 of the top
  uint32_t repaired = 0;
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    const RowFactors &r = rows[i / 2 % 2 * 8];
    const ColumnFactors &c = columns[i / 4 * 4];
    float result;
    if (!cut_step(__fmul_rn(r.scale, c.scale[i % 2]), acc[i], g[0][i], g[1][i], g[2][i], g[3][i], result)) {
      float high, low;
      sum_in_frame(r.magic, c.magic[i % 2], acc[i], g[0][i], g[1][i], g[2][i], g[3][i], high, low);
      const float guard = __fmaf_ru(r.guard, c.guard[i % 2], leading_power(acc[i]));
      result = __fadd_rz(high, __fmaf_rd(guard, -kCut, low));
      if (result != __fadd_rz(high, __fmaf_ru(guard, kCut, low))) {
        result = repaired_step(job, row + i / 2 % 2 * 8, col + i / 4 * 8 + i % 2, t, acc[i], g[0][i], g[1][i],
                               g[2][i], g[3][i]);
        ++repaired;
      }
    }
    acc[i] = result;
  }
  return repaired;
}

/// A warp's step in the counts.
__device__ __noinline__ void count_guarded(const Fp4Job &job, uint32_t repaired) {
  atomicAdd(&job.paths->repaired, repaired);
  if (threadIdx.x % 32 == 0) atomicAdd(&job.paths->guarded, 128ull * kFragments);
}
__device__ __noinline__ void count_framed(const Fp4Job &job, uint32_t fragments) {
  if (threadIdx.x % 32 != 0) return;
  const uint64_t summed = uint64_t(__popc(fragments));
  atomicAdd(&job.paths->summed, 128 * summed);
  atomicAdd(&job.paths->framed, 128 * (kFragments - summed));
}

/// The ring this many steps on.
__device__ inline FramedRing ahead_of(FramedRing ring, int count) {
  ring.stage += uint32_t(count);
  if (ring.stage >= uint32_t(kFramedStages)) ring.stage -= kFramedStages, ring.parity ^= 1;
  return ring;
}

/// One thread brings a step of a tile into a stage.
__device__ inline void feed_step(const CUtensorMap *map_a, const CUtensorMap *map_b, const FramedRing &ring,
                                 int row, int col, int step) {
  const uint32_t full = ring.full + 8 * ring.stage, to = ring.data + ring.stage * ring.kBytes;
  barrier_wait(ring.empty + 8 * ring.stage, ring.parity ^ 1);
  barrier_expect(full, ring.kBytes);
  copy_box(to, map_a, step * 64, row, full);
  copy_box(to + ring.kBytesA, map_b, step * 64, col, full);
}

/// One warpgroup's 64 x 32 of every framed or guarded tile.
__device__ void multiply_tiles(const CUtensorMap *map_a, const CUtensorMap *map_b, const Fp4Job &job,
                               int tiles, FramedRing ring, float *staging, WarpFactors &factors) {
  const int lane = int(threadIdx.x & 31);
  const int warp = __shfl_sync(0xFFFFFFFF, int(threadIdx.x >> 5), 0); // known to be uniform
  const int piece_row = warp / 4 % 2 * 64, piece_col = warp / 8 * kPieceN, steps = int(job.steps);
  const bool counts = job.paths != nullptr;
  const RowFactors *const rows = factors.row + lane / 4;
  const ColumnFactors *const columns = factors.columns + lane % 4;
  const auto next = [&](int i) {
    return int(next_tile<kTileN, TileWay::framed, TileWay::guarded>(job, i, tiles));
  };
  const auto feed_first = [&](int index) { // the steps that the loop does not feed ahead
    if (lane != 0 || warp >= min(kAhead, steps) || index >= tiles) return;
    const TileAt at = tile_of<kTileN>(job, index);
    feed_step(map_a, map_b, ahead_of(ring, warp), int(at.row), int(at.col), warp);
  };
  int index = next(int(blockIdx.x));
  feed_first(index);
  while (index < tiles) {
    const TileAt at = tile_of<kTileN>(job, index);
    const int tile_row = int(at.row), tile_col = int(at.col);
    const int row = tile_row + piece_row + warp % 4 * 16, col = tile_col + piece_col;
    bool guarded = job.way(at.row, at.col) == TileWay::guarded;
    // accumulators of framed tiles can be cut under mmasim only
    set_factors(job, row, col, job.accumulation == Accumulation::mmasim, factors);
    float acc[kOutputs] = {}, g[4][kOutputs];
    StepRanges ranges(job, row, col);
    uint32_t ahead = ranges.next();
    for (int t = 0; t < steps; ++t) {
      const uint32_t range = ahead;
      if (t + 1 < steps) ahead = ranges.next();
      if (lane == 0 && t % kWarps == warp && t + kAhead < steps)
        feed_step(map_a, map_b, ahead_of(ring, kAhead), tile_row, tile_col, t + kAhead);
      __syncwarp();
      barrier_wait(ring.full + 8 * ring.stage, ring.parity);
      const uint64_t a = descriptor(ring.data + ring.stage * ring.kBytes + piece_row * kStepBytes),
                     b = descriptor(ring.data + ring.stage * ring.kBytes + ring.kBytesA +
                                    piece_col * kStepBytes);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) Bf16::run<0>(g[k], a + 2 * k, b + 2 * k); // 32 bytes on
      wgmma_commit();
      wgmma_wait<0>();
#pragma unroll
      for (int k = 0; k < 4; ++k)
#pragma unroll
        for (float &x : g[k]) asm volatile("" : "+f"(x)::"memory"); // complete only from here on
      if (lane == 0) barrier_arrive(ring.empty + 8 * ring.stage);
      ring.advance();
      if (guarded) {
        const uint32_t repaired =
            guarded_step(job, row + lane / 4, col + lane % 4 * 2, t, rows, columns, g, acc);
        if (counts) count_guarded(job, repaired);
      } else {
        const uint32_t fragments = summed_fragments(range);
        guarded = __any_sync(0xFFFFFFFF, framed_step(rows, columns, fragments, g, acc)) != 0;
        if (counts) count_framed(job, fragments);
      }
    }
    index = next(index + int(gridDim.x));
    feed_first(index);
    __syncwarp();
    write_tile<kPieceN>(job, acc, staging, row, col);
    if (counts && threadIdx.x == 0 && tile_col % 128 == 0) atomicAdd(&job.paths->tiles_framed, 1ull);
  }
}

__global__ void __launch_bounds__(kBlock, 1)
    framed_tiles_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
                        const __grid_constant__ Fp4Job job, int tiles) {
  extern __shared__ uint8_t shared[];
  const FramedRing ring((shared_address(shared) + 1023) & ~1023u);
  ring.start(kWarps);
  const int warp = int(threadIdx.x / 32);
  uint8_t *const behind = shared + (ring.data - shared_address(shared)) + FramedRing::kAllBytes;
  WarpFactors *const factors = reinterpret_cast<WarpFactors *>(behind);
  float *const staging = reinterpret_cast<float *>(factors + kWarps);
  multiply_tiles(&map_a, &map_b, job, tiles, ring, staging + warp * 16 * kPitch, factors[warp]);
}

} // namespace

void gemm_fp4_framed(const Fp4Job &job, int processors, cudaStream_t stream) {
  const int64_t k = job.steps * 64, tiles = job.tiles_m * job.tiles_n * (128 / kTileN);
  const CUtensorMap map_a = tensor_map({job.a.values, job.a.padded_rows, k, k, 2}, kTileM),
                    map_b = tensor_map({job.b.values, job.b.padded_rows, k, k, 2}, kTileN);
  check(cudaFuncSetAttribute(framed_tiles_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedFramed),
        "shared memory of the FP4 product");
  framed_tiles_kernel<<<unsigned(std::min<int64_t>(tiles, processors)), kBlock, kSharedFramed, stream>>>(
      map_a, map_b, job, int(tiles));
  check_launch("framed_tiles_kernel");
}

} // namespace nvfp4::cuda
