// SPDX-License-Identifier: Apache-2.0
// Tiles of the exact FP4 product on Hopper in which some steps span more bits than an FP32 sum: the tensor
// core gives the four groups of a step apart, and FP32 pairs in a frame fixed per output add them and the
// accumulator without error, or plain sums where those are exact. Where alignment may cut, a guard finds the
// few outputs that a cut could change. README.md has the proofs.
#include "nvfp4/gpu/emulated/gemm_fp4_tiles.cuh"

namespace nvfp4::cuda {
namespace {

using namespace hopper;

/// A block has a tile of 128 x 64; four warpgroups have 64 x 32 of it each, and one thread of them feeds all.
/// Narrow pieces keep a step's code within what the instruction caches hold.
constexpr int kTileN = 64, kPieceN = 32, kWarps = 16, kBlock = 32 * kWarps;
constexpr int kFragments = kPieceN / 8, kOutputs = kPieceN / 2; // of a thread
constexpr int kFramedStages = 6, kAhead = kFramedStages - 2; // steps in flight: two stages for slower warps
using FramedRing = Ring<kTileN, kFramedStages>;

/// What frames and guards of outputs are products of: a factor of the row and one of the column.
struct RowFactors {
  float magic, guard;
  float limit; ///< accumulators below it are not cut by anything
};
struct ColumnFactors {
  float magic[2], guard[2]; ///< of two neighbouring columns
};
using WarpColumns = ColumnFactors[kPieceN / 2];

constexpr int kSharedFramed = int(FramedRing::kAllBytes) +
                              kWarps * (16 * kPitch * int(sizeof(float)) + int(sizeof(WarpColumns))) + 1024;

__device__ inline float power_of_two(int e) { return bit_cast<float>(uint32_t(e + 127) << 23); }

/// A frame's grid is G = 2^(norm of the row + norm of the column - 22).
__device__ inline int grid_part(const RowInfo &x) { return x.norm - 11; }
/// Half a guard is at least the power of two of every sum of scale exponents, and 2^12 G; empty rows, whose
/// sums are zero, have none.
__device__ inline float guard_part(const RowInfo &x) {
  return x.empty() ? 0.0f : power_of_two(max(int(x.max), grid_part(x) + 6));
}

__device__ inline RowFactors row_factors(const RowInfo &x, int least_lsb_b, bool limited) {
  return {1.5f * power_of_two(grid_part(x) + 23), 2.0f * guard_part(x),
          limited && !x.empty() ? power_of_two(x.lsb + least_lsb_b + 36) : __int_as_float(0x7F800000)};
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

/// Whether x, a multiple of 2^(its exponent - 18), is a multiple of 2^c, for magic = 1.5 * 2^(23 + c) and |x|
/// below 2^(46 + c).
__device__ inline bool is_multiple(float x, float magic) {
  return __fsub_rn(__fadd_rn(x, magic), magic) == x;
}

/// The widths of a step of a warp's 16 rows (lanes 0 and 1) and 32 columns (lanes 2 to 5), eight a lane.
struct StepWidths {
  int of_lane;

  [[nodiscard]] __device__ static StepWidths load(const Fp4Job &job, int64_t row, int64_t col, int64_t t) {
    const int lane = int(threadIdx.x) % 32;
    if (lane >= 2 + kFragments || t >= job.steps) return {0};
    const uint32_t range = lane < 2 ? job.a.ranges8[(t * job.a.padded_rows + row) / 8 + lane]
                                    : job.b.ranges8[(t * job.b.padded_rows + col) / 8 + lane - 2];
    return {int(range & 255)};
  }
  /// A bit for each fragment of 16 x 8 in which the tensor core's own sum would be exact; then so are FP32
  /// sums of the groups.
  [[nodiscard]] __device__ uint32_t summed_fragments() const {
    const int rows = max(__shfl_sync(0xFFFFFFFF, of_lane, 0), __shfl_sync(0xFFFFFFFF, of_lane, 1));
    return __ballot_sync(0xFFFFFFFF, rows + of_lane <= kSumWidth) >> 2;
  }
};

/// A step in which nothing is cut. Whether an accumulator has passed its limit.
__device__ inline bool framed_step(const RowFactors (&rows)[2], const ColumnFactors *columns, uint32_t summed,
                                   const float (&g)[4][kOutputs], float (&acc)[kOutputs]) {
  bool beyond = false;
#pragma unroll
  for (int j = 0; j < kFragments; ++j) {
    if ((summed >> j & 1) != 0) {
#pragma unroll
      for (int i = 4 * j; i < 4 * j + 4; ++i)
        acc[i] = __fadd_rz(acc[i], __fadd_rn(__fadd_rn(g[0][i], g[1][i]), __fadd_rn(g[2][i], g[3][i])));
    } else {
      const ColumnFactors c = columns[4 * j];
#pragma unroll
      for (int i = 4 * j; i < 4 * j + 4; ++i) {
        float high, low;
        sum_in_frame(rows[i / 2 % 2].magic, c.magic[i % 2], acc[i], g[0][i], g[1][i], g[2][i], g[3][i], high,
                     low);
        acc[i] = __fadd_rz(high, low);
      }
    }
#pragma unroll
    for (int i = 4 * j; i < 4 * j + 4; ++i) beyond |= fabsf(acc[i]) >= rows[i / 2 % 2].limit;
  }
  return beyond;
}

/// A step of one output whose cuts may change it. `guard` is above the power of two of every scale exponent.
__device__ __noinline__ float repaired_step(const Fp4Job &job, int64_t row, int64_t col, int64_t t,
                                            float guard, float acc, float g0, float g1, float g2, float g3) {
  int top = exponent_of(acc);
  if (top < exponent_of(guard)) top = alignment_top(job, row, col, t, acc);
  return aligned_sum(job.rule.fraction_bits, top, acc, g0, g1, g2, g3);
}

/// A step under guard: both ends of what cuts may leave truncate to one word; or no term has bits that could
/// be cut; or the step is done over. The number of those.
__device__ inline uint32_t guarded_step(const Fp4Job &job, int64_t row, int64_t col, int64_t t,
                                        const RowFactors (&rows)[2], const ColumnFactors *columns,
                                        const float (&g)[4][kOutputs], float (&acc)[kOutputs]) {
  constexpr float kCut = 5.0f / 0x1p35f; // five terms, each cut by less than 2^-35 of the top
  uint32_t repaired = 0;
#pragma unroll
  for (int j = 0; j < kFragments; ++j) {
    const ColumnFactors c = columns[4 * j];
    float high[4], low[4], least[4];
    bool differ[4];
#pragma unroll
    for (int o = 0; o < 4; ++o) {
      const int i = 4 * j + o;
      sum_in_frame(rows[o / 2].magic, c.magic[o % 2], acc[i], g[0][i], g[1][i], g[2][i], g[3][i], high[o],
                   low[o]);
      const float top = bit_cast<float>(bit_cast<uint32_t>(acc[i]) & 0x7F800000u);
      const float guard = __fmaf_ru(rows[o / 2].guard, c.guard[o % 2], top);
      least[o] = __fadd_rz(high[o], __fmaf_rd(guard, -kCut, low[o]));
      differ[o] = least[o] != __fadd_rz(high[o], __fmaf_ru(guard, kCut, low[o]));
    }
    if (differ[0] | differ[1] | differ[2] | differ[3]) {
#pragma unroll
      for (int o = 0; o < 4; ++o) {
        if (!differ[o]) continue;
        const int i = 4 * j + o;
        const float top = bit_cast<float>(bit_cast<uint32_t>(acc[i]) & 0x7F800000u),
                    guard = __fmul_rn(rows[o / 2].guard, c.guard[o % 2]), most = fmaxf(top, guard),
                    magic = __fmul_rn(most, 1.5f / 0x1p12f);
        if (is_multiple(g[0][i], magic) & is_multiple(g[1][i], magic) & is_multiple(g[2][i], magic) &
            is_multiple(g[3][i], magic) & (__fmul_rn(top, 0x1p12f) >= most)) {
          least[o] = __fadd_rz(high[o], low[o]);
        } else {
          least[o] = repaired_step(job, row + o / 2 * 8, col + 8 * j + o % 2, t, guard, acc[i], g[0][i],
                                   g[1][i], g[2][i], g[3][i]);
          ++repaired;
        }
      }
    }
#pragma unroll
    for (int o = 0; o < 4; ++o) acc[4 * j + o] = least[o];
  }
  return repaired;
}

/// The one thread that keeps the stages full, for the tile in hand.
struct Feeder {
  const CUtensorMap *map_a, *map_b;
  FramedRing ring;
  TileAt at{};
  int64_t fed = 0; ///< steps of the tile

  __device__ void feed_until(int64_t step, int64_t steps) {
    for (; fed < min(step, steps); ++fed) {
      const uint32_t full = ring.full + 8 * ring.stage, to = ring.data + ring.stage * ring.kBytes;
      barrier_wait(ring.empty + 8 * ring.stage, ring.parity ^ 1);
      barrier_expect(full, ring.kBytes);
      copy_box(to, map_a, int(fed * 64), int(at.row), full);
      copy_box(to + ring.kBytesA, map_b, int(fed * 64), int(at.col), full);
      ring.advance();
    }
  }
  __device__ void start(TileAt tile, int64_t steps) {
    at = tile;
    fed = 0;
    feed_until(kAhead, steps);
  }
};

/// One warpgroup's 64 x 32 of every framed or guarded tile.
__device__ void multiply_tiles(const Fp4Job &job, int64_t tiles, FramedRing ring, Feeder feeder,
                               float *staging, ColumnFactors *columns) {
  const int lane = int(threadIdx.x) % 32, warpgroup = int(threadIdx.x) / 128;
  const int piece_row = warpgroup % 2 * 64, piece_col = warpgroup / 2 * kPieceN;
  const bool mmasim = job.accumulation == Accumulation::mmasim, feeds = threadIdx.x == 0;
  uint32_t summed = 0, framed_steps = 0, guarded_steps = 0, repaired = 0;
  const auto next = [&](int64_t i) {
    return next_tile<kTileN, TileWay::framed, TileWay::guarded>(job, i, tiles);
  };
  int64_t index = next(blockIdx.x);
  if (feeds && index < tiles) feeder.start(tile_of<kTileN>(job, index), job.steps);
  while (index < tiles) {
    const TileAt at = tile_of<kTileN>(job, index);
    const int64_t row = at.row + piece_row + threadIdx.x / 32 % 4 * 16, col = at.col + piece_col;
    bool guarded = job.way(at.row, at.col) == TileWay::guarded;
    int least_lsb = 0x3FFF;
    __syncwarp();
    if (lane < kPieceN / 2) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const RowInfo x = job.b.rows[col + 2 * lane + i];
        columns[lane].magic[i] = power_of_two(grid_part(x));
        columns[lane].guard[i] = guard_part(x);
        if (!x.empty()) least_lsb = min(least_lsb, int(x.lsb));
      }
    }
    __syncwarp();
    least_lsb = __reduce_min_sync(0xFFFFFFFF, least_lsb);
    // accumulators of framed tiles can be cut under mmasim only
    const bool limited = mmasim && least_lsb != 0x3FFF;
    const RowFactors rows[2] = {row_factors(job.a.rows[row + lane / 4], least_lsb, limited),
                                row_factors(job.a.rows[row + lane / 4 + 8], least_lsb, limited)};

    float acc[kOutputs] = {}, g[4][kOutputs];
    StepWidths ahead = StepWidths::load(job, row, col, 0);
    for (int t = 0; t < int(job.steps); ++t) {
      const StepWidths widths = ahead;
      ahead = StepWidths::load(job, row, col, t + 1);
      if (feeds) feeder.feed_until(t + kAhead, job.steps);
      __syncwarp();
      barrier_wait(ring.full + 8 * ring.stage, ring.parity);
      const uint32_t a = ring.data + ring.stage * ring.kBytes + piece_row * kStepBytes,
                     b = ring.data + ring.stage * ring.kBytes + ring.kBytesA + piece_col * kStepBytes;
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) Bf16::run<0>(g[k], descriptor(a + 32 * k), descriptor(b + 32 * k));
      wgmma_commit();
      wgmma_wait<0>();
#pragma unroll
      for (int k = 0; k < 4; ++k)
#pragma unroll
        for (float &x : g[k]) asm volatile("" : "+f"(x)::"memory"); // complete only from here on
      if (lane == 0) barrier_arrive(ring.empty + 8 * ring.stage);
      ring.advance();
      if (guarded) {
        repaired +=
            guarded_step(job, row + lane / 4, col + lane % 4 * 2, t, rows, columns + lane % 4, g, acc);
        ++guarded_steps;
      } else {
        const uint32_t fragments = widths.summed_fragments();
        guarded = __any_sync(0xFFFFFFFF, framed_step(rows, columns + lane % 4, fragments, g, acc)) != 0;
        ++framed_steps;
        summed += uint32_t(__popc(fragments & ((1u << kFragments) - 1)));
      }
    }
    index = next(index + gridDim.x);
    if (feeds && index < tiles) feeder.start(tile_of<kTileN>(job, index), job.steps);
    __syncwarp();
    write_tile<kPieceN>(job, acc, staging, row, col);
    if (job.paths != nullptr && threadIdx.x == 0 && at.col % 128 == 0)
      atomicAdd(&job.paths->tiles_framed, 1ull);
  }
  if (job.paths == nullptr) return;
  atomicAdd(&job.paths->repaired, repaired);
  if (lane != 0) return;
  atomicAdd(&job.paths->summed, 128ull * summed);
  atomicAdd(&job.paths->framed, 128ull * (uint64_t{kFragments} * framed_steps - summed));
  atomicAdd(&job.paths->guarded, 128ull * kFragments * guarded_steps);
}

__global__ void __launch_bounds__(kBlock, 1)
    framed_tiles_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
                        const __grid_constant__ Fp4Job job, int64_t tiles) {
  extern __shared__ uint8_t shared[];
  const FramedRing ring((shared_address(shared) + 1023) & ~1023u);
  ring.start(kWarps);
  const int warp = int(threadIdx.x / 32);
  uint8_t *const behind = shared + (ring.data - shared_address(shared)) + FramedRing::kAllBytes;
  WarpColumns *const columns = reinterpret_cast<WarpColumns *>(behind);
  float *const staging = reinterpret_cast<float *>(columns + kWarps);
  multiply_tiles(job, tiles, ring, {&map_a, &map_b, ring}, staging + warp * 16 * kPitch, columns[warp]);
}

} // namespace

void gemm_fp4_framed(const Fp4Job &job, int processors, cudaStream_t stream) {
  const int64_t k = job.steps * 64, tiles = job.tiles_m * job.tiles_n * (128 / kTileN);
  const CUtensorMap map_a = tensor_map({job.a.values, job.a.padded_rows, k, k, 2}, kTileM),
                    map_b = tensor_map({job.b.values, job.b.padded_rows, k, k, 2}, kTileN);
  check(cudaFuncSetAttribute(framed_tiles_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedFramed),
        "shared memory of the FP4 product");
  framed_tiles_kernel<<<unsigned(std::min<int64_t>(tiles, processors)), kBlock, kSharedFramed, stream>>>(
      map_a, map_b, job, tiles);
  check_launch("framed_tiles_kernel");
}

} // namespace nvfp4::cuda
