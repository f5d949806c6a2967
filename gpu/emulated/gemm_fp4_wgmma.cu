// SPDX-License-Identifier: Apache-2.0
// The fast tiles of the exact FP4 product on Hopper: wgmma sums a step of K = 64 from zero, exactly, while
// the sum before it is added to the accumulators toward zero. Operands by the tensor copy engine.
#include "nvfp4/gpu/emulated/gemm_fp4_tiles.cuh"

namespace nvfp4::cuda {
namespace {

using namespace hopper;

/// One warpgroup's piece of every fast tile; the other warpgroups' instructions fill what its own two sets of sums leave.
template <class G>
__device__ void multiply_tiles(const Fp4Job &job, int64_t tiles, int warpgroup, Ring<G> ring, float *staging) {
  for (int64_t i = next_tile<G, TileWay::fast>(job, blockIdx.x, tiles); i < tiles;
       i = next_tile<G, TileWay::fast>(job, i + gridDim.x, tiles)) {
    float acc[G::kRegisters] = {};
    whole_steps<G>(ring, warpgroup, job.steps, acc);
    const TileAt at = tile_of<G>(job, i);
    write_tile<G::kPieceN>(job, acc, staging, at.row + G::row_of(warpgroup) + threadIdx.x / 32 % 4 * 16,
                           at.col + G::column_of(warpgroup));
    if (job.paths != nullptr && threadIdx.x == 0 && counts_tile(at)) atomicAdd(&job.paths->tiles_fast, 1ull);
  }
}

template <class G>
__global__ void __launch_bounds__(G::kThreads, G::kBlocks)
    fast_tiles_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
                      const __grid_constant__ Fp4Job job, int64_t tiles) {
  if (!job.has(TileWay::fast)) return;
  extern __shared__ uint8_t shared[];
  Ring<G> ring((shared_address(shared) + 1023) & ~1023u);
  ring.start(4 * G::kWarpgroups);
  const int warpgroup = int(uniform(threadIdx.x / 128));
  if (warpgroup == G::kWarpgroups) {
    if constexpr (G::kTakes) fewer_registers<G::kKept>();
    if (threadIdx.x / 32 == G::kFeeder) feed_steps<TileWay::fast>(&map_a, &map_b, job, tiles, ring);
  } else {
    if constexpr (G::kTakes) more_registers<G::kTaken>();
    multiply_tiles(job, tiles, warpgroup, ring, ring.staging(shared) + threadIdx.x / 32 * 16 * kPitch);
  }
}

template <class G> void launch(const Fp4Job &job, int processors, cudaStream_t stream) {
  launch_tiles<G>(fast_tiles_kernel<G>, "fast_tiles_kernel", G::kThreads, G::kSharedBytes, job, processors, stream);
}

} // namespace

void gemm_fp4_wgmma(const Fp4Job &job, int processors, cudaStream_t stream) {
  switch (tile_size(job, processors)) {
  case TileSize::wide: return launch<WideTile>(job, processors, stream);
  case TileSize::narrow: return launch<NarrowTile>(job, processors, stream);
  case TileSize::small: return launch<SmallTile>(job, processors, stream);
  }
}

} // namespace nvfp4::cuda
