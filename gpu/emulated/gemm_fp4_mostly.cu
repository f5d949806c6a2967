// SPDX-License-Identifier: Apache-2.0
// Tiles of the exact FP4 product on Hopper in which the tensor core may sum a good part of the steps, as
// products of trained models have them: a warpgroup sums a step of 64 rows whole where that is exact for all
// of them, as gemm_fp4_wgmma.cu does, and in two halves, by the scales of A's groups, where it is not. What
// neither holds exactly is done over by fragments of 16 x 8. README.md has the proofs. Carried tiles
// (gemm_fp4_carried.cuh) come behind, in the same launch.
#include "nvfp4/gpu/emulated/gemm_fp4_carried.cuh"
#include "nvfp4/gpu/emulated/gemm_fp4_tiles.cuh"

namespace nvfp4::cuda {
namespace {

using namespace hopper;

constexpr int kHalvedN = 32; ///< columns of one sum of halves
constexpr int kPairedWidth = 85; ///< twice the bits above the least multiple that a group may have in split_step()

/// What a warp reads of a step that is not whole.
struct HalvedStep {
  uint32_t low[2]; ///< StepHalves::low of this thread's two rows
  /// By lanes: ranges8 of columns, eight a lane, from lane 0 on; of the warp's rows, lanes 28 and 29; their
  /// halves8, lanes 30 and 31.
  uint32_t ranges;

  HalvedStep() = default;
  __device__ HalvedStep(const Fp4Job &job, int row, int col, int columns, int64_t t) {
    const int lane = int(threadIdx.x) % 32;
    const uint32_t a = uint32_t(t) * uint32_t(job.a.padded_rows) + uint32_t(row), // operands fit the memory
        b = uint32_t(t) * uint32_t(job.b.padded_rows) + uint32_t(col);
    low[0] = job.a.halves[a + lane / 4];
    low[1] = job.a.halves[a + lane / 4 + 8];
    ranges = lane < 28   ? job.b.ranges8[b / 8 + min(lane, columns / 8 - 1)]
             : lane < 30 ? job.a.ranges8[a / 8 + lane - 28]
                         : job.a.halves8[a / 8 + lane - 30];
  }
  /// Leaves whole each eight rows that fit an FP32 sum with all columns. A bit for each fragment of 16 x 8
  /// that halves do not hold.
  __device__ uint32_t choose(bool (&halved)[2]) {
    const int lane = int(threadIdx.x) % 32, width = int(ranges & 255);
    const int widest = __reduce_max_sync(0xFFFFFFFF, lane < 28 ? width : 0);
    int rows = 0;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int whole = __shfl_sync(0xFFFFFFFF, width, 28 + h), half = __shfl_sync(0xFFFFFFFF, width, 30 + h);
      halved[h] = whole + widest > kSumWidth;
      if (!halved[h]) low[h] = 0;
      rows = max(rows, halved[h] ? half : whole);
    }
    return __ballot_sync(0xFFFFFFFF, width + rows > kSumWidth);
  }
  [[nodiscard]] __device__ uint32_t rows() const {
    return __vmaxu4(__shfl_sync(0xFFFFFFFF, ranges, 28), __shfl_sync(0xFFFFFFFF, ranges, 29));
  }
};

/// A step of 16 x 8 outputs of a warp from its fragments of A and B where pairs of FP32 do not do; rare.
__device__ __noinline__ float4 rare_fragment(const Fp4Job &job, int row, int col, int t, uint32_t rows,
                                             uint32_t columns, const uint32_t (&fa)[4][4],
                                             const uint32_t (&fb)[4][2], float4 from) {
  const int lane = int(threadIdx.x) % 32;
  float acc[4] = {from.x, from.y, from.z, from.w};
  Counts counts;
  mixed_step(job, StepRange::sum(rows, columns), Limits(job.accumulation), row + lane / 4,
             col + lane % 4 * 2, t, fa, fb, acc, counts);
  if (job.paths != nullptr) add_counts(job.paths, counts);
  return make_float4(acc[0], acc[1], acc[2], acc[3]);
}

/// A step of 16 x 8 outputs of a warp with its groups apart; `a` and `b` are where its rows and columns stand
/// in shared memory, `rows` and `columns` their ranges.
__device__ __noinline__ float4 fragment_step(const Fp4Job &job, int row, int col, int t, uint32_t a,
                                             uint32_t b, uint32_t rows, uint32_t columns, float4 from) {
  const int lane = int(threadIdx.x) % 32;
  uint32_t fa[4][4], fb[4][2];
#pragma unroll
  for (int g = 0; g < 4; ++g) load_matrices(fa[g], a + place(lane & 15, g * 2 + (lane >> 4)));
#pragma unroll
  for (int g = 0; g < 4; g += 2) {
    uint32_t r[4];
    load_matrices(r, b + place(lane & 7, g * 2 + (lane >> 3)));
    fb[g][0] = r[0];
    fb[g][1] = r[1];
    fb[g + 1][0] = r[2];
    fb[g + 1][1] = r[3];
  }
  if (job.paths != nullptr && lane == 0) atomicAdd(&job.paths->apart, 128ull);
  const StepRange range = StepRange::sum(rows, columns);
  const int lsb = 254 - range.place; // of both, at least -92 in tiles that frames could hold
  const float limit = job.accumulation == Accumulation::mmasim ? uncut_below(lsb) : __int_as_float(0x7F800000);
  const float largest = fmaxf(fmaxf(fabsf(from.x), fabsf(from.y)), fmaxf(fabsf(from.z), fabsf(from.w)));
  if (range.width > kPairedWidth || lsb > 60 || __any_sync(0xFFFFFFFF, largest >= limit) != 0)
    return rare_fragment(job, row, col, t, rows, columns, fa, fb, from);
  float g[4][4] = {};
#pragma unroll
  for (int k = 0; k < 4; ++k) add_group(g[k], fa[k], fb[k][0], fb[k][1]);
  const float magic = 1.5f * power_of_two(lsb + 46);
  float4 r;
  r.x = split_step(from.x, magic, g[0][0], g[1][0], g[2][0], g[3][0]);
  r.y = split_step(from.y, magic, g[0][1], g[1][1], g[2][1], g[3][1]);
  r.z = split_step(from.z, magic, g[0][2], g[1][2], g[2][2], g[3][2]);
  r.w = split_step(from.w, magic, g[0][3], g[1][3], g[2][3], g[3][3]);
  if (job.paths != nullptr) atomicAdd(&job.paths->split, 4ull);
  return r;
}

/// One warpgroup's piece of every mostly fast tile.
template <class G>
__device__ void multiply_tiles(const Fp4Job &job, int64_t tiles, int warpgroup, Ring<G> &ring, float *staging) {
  constexpr int kPieceN = G::kPieceN;
  const Limits limits(job.accumulation);
  const int steps = int(job.steps), lane = int(threadIdx.x) % 32, warp_rows = int(threadIdx.x) / 32 % 4 * 16;
  const bool leader = lane == 0;
  for (int64_t i = next_tile<G, TileWay::mostly>(job, blockIdx.x, tiles); i < tiles;
       i = next_tile<G, TileWay::mostly>(job, i + gridDim.x, tiles)) {
    const TileAt at = tile_of<G>(job, i);
    const int group_row = int(at.row) + G::row_of(warpgroup), row = group_row + warp_rows,
              col = int(at.col) + G::column_of(warpgroup);
    // accumulators of this thread's two rows below these are not cut by anything
    float limit[2];
    {
      int lsb = 0x3FFF;
      for (int c = lane; c < kPieceN; c += 32) {
        const RowInfo y = job.b.rows[col + c];
        if (!y.empty()) lsb = min(lsb, int(y.lsb));
      }
      lsb = __reduce_min_sync(0xFFFFFFFF, lsb);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const RowInfo x = job.a.rows[row + lane / 4 + 8 * h];
        limit[h] = job.accumulation == Accumulation::mmasim && !x.empty() && lsb != 0x3FFF
                       ? uncut_below(x.lsb + lsb)
                       : __int_as_float(0x7F800000);
      }
    }
    float acc[G::kRegisters] = {};
    for (int first = 0; first < steps; first += 32) {
      const StepBits bits = classify_steps<kPieceN>(job, limits, group_row, col, first);
      const int end = min(32, steps - first);
      uint32_t rest = ~bits.whole & (0xFFFFFFFFu >> (32 - end)); // steps that are not whole
      HalvedStep next;
      if (rest != 0) next = HalvedStep(job, row, col, kPieceN, first + __ffs(int(rest)) - 1);
      for (int t = 0; t < end;) {
        const uint32_t others = ~(bits.whole >> t);
        const int run = others == 0 ? end - t : min(__ffs(int(others)) - 1, end - t);
        if (run != 0) {
          whole_steps<G>(ring, warpgroup, run, acc);
          t += run;
          if (job.paths != nullptr && leader) atomicAdd(&job.paths->summed, uint64_t(run) * 16 * kPieceN);
          continue;
        }
        // a step in halves
        const int64_t step = first + t;
        HalvedStep here = next;
        rest &= rest - 1;
        if (rest != 0) next = HalvedStep(job, row, col, kPieceN, first + __ffs(int(rest)) - 1);
        bool halved[2];
        uint32_t apart = here.choose(halved);
        if ((bits.grown >> t & 1) != 0) {
#pragma unroll
          for (int j = 0; j < kPieceN / 8; ++j) {
            bool beyond = false;
#pragma unroll
            for (int o = 0; o < 4; ++o) beyond |= fabsf(acc[4 * j + o]) >= limit[o / 2];
            if (__any_sync(0xFFFFFFFF, beyond) != 0) apart |= 1u << j;
          }
        }
        barrier_wait(ring.full + 8 * ring.stage, ring.parity);
        const uint32_t a = ring.data + ring.stage * ring.kBytes + (G::row_of(warpgroup) + warp_rows) * kStepBytes,
                       b = ring.data + ring.stage * ring.kBytes + ring.kBytesA + G::column_of(warpgroup) * kStepBytes;
        uint32_t high[4][4], low[4][4];
#pragma unroll
        for (int g = 0; g < 4; ++g) {
          uint32_t r[4];
          load_matrices(r, a + place(lane & 15, g * 2 + (lane >> 4)));
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            const bool is_low = (here.low[k % 2] >> g & 1) != 0;
            high[g][k] = is_low ? 0u : r[k];
            low[g][k] = is_low ? r[k] : 0u;
          }
        }
        constexpr int kSlices = kPieceN / kHalvedN, kOutputs = kHalvedN / 2, kFragments = kHalvedN / 8;
        float h[2][kOutputs], l[2][kOutputs];
        const auto multiply_slice = [&](int s) {
          const uint32_t columns = b + s * kHalvedN * kStepBytes;
          wgmma_fence();
          multiply_registers<0>(h[s % 2], high[0], descriptor(columns));
#pragma unroll
          for (int g = 1; g < 4; ++g) multiply_registers(h[s % 2], high[g], descriptor(columns + 32 * g));
          multiply_registers<0>(l[s % 2], low[0], descriptor(columns));
#pragma unroll
          for (int g = 1; g < 4; ++g) multiply_registers(l[s % 2], low[g], descriptor(columns + 32 * g));
          wgmma_commit();
        };
        multiply_slice(0);
#pragma unroll
        for (int s = 0; s < kSlices; ++s) { // one is multiplied while the one before is added
          if (s + 1 < kSlices) {
            multiply_slice(s + 1);
            wgmma_wait<1>();
          } else {
            wgmma_wait<0>();
          }
#pragma unroll
          for (float &x : h[s % 2]) asm volatile("" : "+f"(x)::"memory"); // complete only from here on
#pragma unroll
          for (float &x : l[s % 2]) asm volatile("" : "+f"(x)::"memory");
          float *const d = acc + s * kOutputs, *const hs = h[s % 2], *const ls = l[s % 2];
          if ((apart >> (s * kFragments) & ((1u << kFragments) - 1)) != 0) { // zeros leave those as they are
#pragma unroll
            for (int r = 0; r < kOutputs; ++r)
              if ((apart >> (s * kFragments + r / 4) & 1) != 0) hs[r] = ls[r] = 0.0f;
          }
#pragma unroll
          for (int rows = 0; rows < 2; ++rows) {
            if (halved[rows]) {
#pragma unroll
              for (int j = 0; j < kFragments; ++j)
#pragma unroll
                for (int o = 4 * j + 2 * rows; o < 4 * j + 2 * rows + 2; ++o) d[o] = halved_step(d[o], hs[o], ls[o]);
            } else {
#pragma unroll
              for (int j = 0; j < kFragments; ++j)
#pragma unroll
                for (int o = 4 * j + 2 * rows; o < 4 * j + 2 * rows + 2; ++o) d[o] = add_rz(d[o], hs[o]);
            }
          }
        }
        if ((apart & ((1u << kPieceN / 8) - 1)) != 0) {
#pragma unroll
          for (int j = 0; j < kPieceN / 8; ++j) {
            if ((apart >> j & 1) == 0) continue;
            float *const d = acc + 4 * j;
            const float4 r = fragment_step(job, row, col + 8 * j, int(step), a, b + 8 * j * kStepBytes,
                                           here.rows(), __shfl_sync(0xFFFFFFFF, here.ranges, j),
                                           make_float4(d[0], d[1], d[2], d[3]));
            d[0] = r.x, d[1] = r.y, d[2] = r.z, d[3] = r.w;
          }
        }
        if (leader) barrier_arrive(ring.empty + 8 * ring.stage);
        ring.advance();
        ++t;
        if (job.paths != nullptr && leader)
          atomicAdd(&job.paths->halved,
                    128ull * uint64_t(kPieceN / 8 - __popc(apart & ((1u << (kPieceN / 8)) - 1))));
      }
    }
    write_tile<kPieceN>(job, acc, staging, row, col);
    if (job.paths != nullptr && threadIdx.x == 0 && counts_tile(at))
      atomicAdd(&job.paths->tiles_mostly, 1ull);
  }
}

template <class G>
__global__ void __launch_bounds__(G::kThreads, G::kBlocks)
    mostly_fast_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
                       const __grid_constant__ Fp4Job job, int64_t tiles) {
  if (!job.has(TileWay::mostly) && !job.has(TileWay::carried)) return;
  extern __shared__ uint8_t shared[];
  Ring<G> ring((shared_address(shared) + 1023) & ~1023u);
  ring.start(4 * G::kWarpgroups);
  const int warpgroup = int(uniform(threadIdx.x / 128)), warp = int(threadIdx.x / 32);
  if (warpgroup == G::kWarpgroups) {
    if constexpr (G::kTakes) fewer_registers<G::kKept>();
    if (warp != G::kFeeder) return;
    feed_steps<TileWay::mostly>(&map_a, &map_b, job, tiles, ring);
    feed_steps<TileWay::carried>(&map_a, &map_b, job, tiles, ring);
  } else {
    if constexpr (G::kTakes) more_registers<G::kTaken>();
    float *const staging = ring.staging(shared) + warp * 16 * kPitch;
    multiply_tiles(job, tiles, warpgroup, ring, staging);
    multiply_carried(job, tiles, warpgroup, ring, staging);
  }
}

template <class G> void launch(const Fp4Job &job, int processors, cudaStream_t stream) {
  launch_tiles<G>(mostly_fast_kernel<G>, "mostly_fast_kernel", G::kThreads, G::kSharedBytes, job, processors, stream);
}

} // namespace

void gemm_fp4_mostly(const Fp4Job &job, int processors, cudaStream_t stream) {
  switch (tile_size(job, processors)) {
  case TileSize::wide: return launch<WideTile>(job, processors, stream);
  case TileSize::narrow: return launch<PiecedTile>(job, processors, stream);
  case TileSize::small: return launch<SmallTile>(job, processors, stream);
  }
}

} // namespace nvfp4::cuda
