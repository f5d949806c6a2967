// SPDX-License-Identifier: Apache-2.0
// Tiles of the exact FP4 product on Hopper in which some steps span more bits than an FP32 sum: the tensor
// core gives the four groups of a step apart, and FP32 pairs in a frame fixed per output add them and the
// accumulator without error, or plain sums where those are exact. Where alignment may cut, they are cut as it
// would, and FP64 does the few outputs whose alignment is not known. README.md has the proofs.
#include "nvfp4/gpu/emulated/gemm_fp4_framed.cuh"

namespace nvfp4::cuda {
namespace {

using namespace hopper;

/// The warps of a block's pieces feed all of them by turns.
constexpr int kFramedStages = 7, kAhead = kFramedStages - 3; // steps in flight; slower warps have the rest
template <class G> using FramedRing = Ring<G, kFramedStages>;

template <class G> constexpr int kWarps = 4 * G::kWarpgroups;
template <class G>
constexpr int kSharedFramed = int(FramedRing<G>::kAllBytes) +
                              kWarps<G> * (16 * kPitch * int(sizeof(float)) + int(sizeof(WarpFactors))) + 1024;

/// What kStepWords says, by steps, read three steps before it is asked for.
struct StepWords {
  const uint32_t *at;
  int stride, left;
  uint32_t read[3];

  __device__ StepWords(const Fp4Job &job, int64_t row, int64_t col) : left(int(job.steps)) {
    const int lane = min(int(threadIdx.x) % 32, kStepWords - 1);
    const bool ranges = lane < kTopsOfRows, of_a = ranges ? lane < 2 : lane < kTopsOfColumns;
    const Fp4View &side = of_a ? job.a : job.b;
    const int64_t first = of_a ? row : col;
    at = ranges ? side.ranges8 + first / 8 + (of_a ? lane : lane - 2)
                : reinterpret_cast<const uint32_t *>(side.tops + first) + lane - (of_a ? kTopsOfRows : kTopsOfColumns);
    stride = int(side.padded_rows / (ranges ? 8 : 4));
#pragma unroll
    for (uint32_t &word : read) word = read_one();
  }
  [[nodiscard]] __device__ uint32_t next() {
    const uint32_t word = read[0];
    read[0] = read[1];
    read[1] = read[2];
    read[2] = read_one();
    return word;
  }

private:
  __device__ uint32_t read_one() {
    if (left-- <= 0) return 0;
    const uint32_t word = *at;
    at += stride;
    return word;
  }
};

/// The ring this many steps on.
template <class G> __device__ inline FramedRing<G> ahead_of(FramedRing<G> ring, int count) {
  ring.stage += uint32_t(count);
  if (ring.stage >= uint32_t(kFramedStages)) ring.stage -= kFramedStages, ring.parity ^= 1;
  return ring;
}

/// One thread brings a step of a tile into a stage.
template <class G>
__device__ inline void feed_step(const CUtensorMap *map_a, const CUtensorMap *map_b, const FramedRing<G> &ring, int row,
                                 int col, int step) {
  const uint32_t full = ring.full + 8 * ring.stage, to = ring.data + ring.stage * ring.kBytes;
  barrier_wait(ring.empty + 8 * ring.stage, ring.parity ^ 1);
  barrier_expect(full, ring.kBytes);
  copy_box(to, map_a, step * 64, row, full);
  copy_box(to + ring.kBytesA, map_b, step * 64, col, full);
}

/// One warpgroup's piece of every framed or guarded tile.
template <class G>
__device__ void multiply_tiles(const CUtensorMap *map_a, const CUtensorMap *map_b, const Fp4Job &job,
                               int tiles, FramedRing<G> ring, float *staging, WarpFactors &factors) {
  static_assert(G::kPieceN == kPieceN && kWarps<G> >= kAhead);
  const int lane = int(threadIdx.x & 31);
  const int warp = __shfl_sync(0xFFFFFFFF, int(threadIdx.x >> 5), 0); // known to be uniform
  const int piece_row = G::row_of(warp / 4), piece_col = G::column_of(warp / 4), steps = int(job.steps);
  const bool counts = job.paths != nullptr;
  const RowFactors *const rows = factors.row + lane / 4;
  const ColumnFactors *const columns = factors.columns + lane % 4;
  const auto next = [&](int i) {
    return int(next_tile<G, TileWay::framed, TileWay::guarded>(job, i, tiles));
  };
  const auto feed_first = [&](int index) { // the steps that the loop does not feed ahead
    if (lane != 0 || warp >= min(kAhead, steps) || index >= tiles) return;
    const TileAt at = tile_of<G>(job, index);
    feed_step<G>(map_a, map_b, ahead_of<G>(ring, warp), int(at.row), int(at.col), warp);
  };
  int index = next(int(blockIdx.x));
  feed_first(index);
  while (index < tiles) {
    const TileAt at = tile_of<G>(job, index);
    const int tile_row = int(at.row), tile_col = int(at.col);
    const int row = tile_row + piece_row + warp % 4 * 16, col = tile_col + piece_col;
    bool guarded = job.way(at.row, at.col) == TileWay::guarded;
    // accumulators of framed tiles can be cut under mmasim only
    set_factors(job, row, col, job.accumulation == Accumulation::mmasim, factors);
    float acc[kOutputs] = {}, g[4][kOutputs];
    StepWords words(job, row, col);
    for (int t = 0; t < steps; ++t) {
      const uint32_t here = words.next();
      if (lane == 0 && t % kWarps<G> == warp && t + kAhead < steps)
        feed_step<G>(map_a, map_b, ahead_of<G>(ring, kAhead), tile_row, tile_col, t + kAhead);
      __syncwarp();
      const uint32_t stage = uniform(ring.stage), data = ring.data + stage * ring.kBytes,
                     a = uint32_t(descriptor(data + piece_row * kStepBytes)),
                     b = uint32_t(descriptor(data + ring.kBytesA + piece_col * kStepBytes));
      barrier_wait(ring.full + 8 * stage, ring.parity);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) Bf16::run<0>(g[k], descriptor_behind(a, k), descriptor_behind(b, k));
      wgmma_commit();
      wgmma_wait<0>();
#pragma unroll
      for (int k = 0; k < 4; ++k)
#pragma unroll
        for (float &x : g[k]) asm volatile("" : "+f"(x)::"memory"); // complete only from here on
      if (lane == 0) barrier_arrive(ring.empty + 8 * stage);
      ring.advance();
      if (guarded) {
        const uint32_t repaired =
            guarded_steps(job, row + lane / 4, col + lane % 4 * 2, t, here, g, acc);
        if (counts) count_guarded(job, repaired);
      } else {
        const uint32_t fragments = summed_fragments(here);
        guarded = __any_sync(0xFFFFFFFF, framed_steps(rows, columns, fragments, g, acc)) != 0;
        if (counts) count_framed(job, fragments);
      }
    }
    index = next(index + int(gridDim.x));
    feed_first(index);
    __syncwarp();
    write_tile<kPieceN>(job, acc, staging, row, col);
    if (counts && threadIdx.x == 0 && counts_tile(at)) atomicAdd(&job.paths->tiles_framed, 1ull);
  }
}

template <class G>
__global__ void __launch_bounds__(32 * kWarps<G>, G::kBlocks)
    framed_tiles_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
                        const __grid_constant__ Fp4Job job, int tiles) {
  if (!job.has(TileWay::framed) && !job.has(TileWay::guarded) && !job.has(TileWay::carried)) return;
  extern __shared__ uint8_t shared[];
  const FramedRing<G> ring((shared_address(shared) + 1023) & ~1023u);
  ring.start(kWarps<G>);
  const int warp = int(threadIdx.x / 32);
  uint8_t *const behind = shared + (ring.data - shared_address(shared)) + FramedRing<G>::kAllBytes;
  WarpFactors *const factors = reinterpret_cast<WarpFactors *>(behind);
  float *const staging = reinterpret_cast<float *>(factors + kWarps<G>);
  multiply_tiles<G>(&map_a, &map_b, job, tiles, ring, staging + warp * 16 * kPitch, factors[warp]);
}

template <class G> void launch(const Fp4Job &job, int processors, cudaStream_t stream) {
  launch_tiles<G>(framed_tiles_kernel<G>, "framed_tiles_kernel", 32 * kWarps<G>, kSharedFramed<G>, job, processors, stream);
}

} // namespace

void gemm_fp4_framed(const Fp4Job &job, int processors, cudaStream_t stream) {
  tile_size(job, processors) == TileSize::small ? launch<SmallTile>(job, processors, stream)
                                                : launch<PiecedTile>(job, processors, stream);
}

} // namespace nvfp4::cuda
