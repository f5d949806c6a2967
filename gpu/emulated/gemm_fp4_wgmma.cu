// SPDX-License-Identifier: Apache-2.0
// The fast tiles of the exact FP4 product on Hopper: wgmma sums a step of K = 64 from zero, exactly, while
// the sum before it is added to the accumulators toward zero. Operands by the tensor copy engine.
#include "nvfp4/gpu/emulated/gemm_fp4_tiles.cuh"

namespace nvfp4::cuda {
namespace {

using namespace hopper;

/// One warpgroup's 64 rows of every fast tile; the other warpgroup's instructions fill what its own two sets of sums leave.
template <int TileN>
__device__ void multiply_tiles(const Fp4Job &job, int64_t tiles, int warpgroup, Ring<TileN> ring,
                               float *staging) {
  for (int64_t i = next_tile<TileN, TileWay::fast>(job, blockIdx.x, tiles); i < tiles;
       i = next_tile<TileN, TileWay::fast>(job, i + gridDim.x, tiles)) {
    float acc[TileN / 2] = {};
    whole_steps<TileN>(ring, warpgroup, job.steps, acc);
    const TileAt at = tile_of<TileN>(job, i);
    write_tile<TileN>(job, acc, staging, at.row + threadIdx.x / 32 * 16, at.col);
    if (job.paths != nullptr && threadIdx.x == 0 && at.col % 128 == 0)
      atomicAdd(&job.paths->tiles_fast, 1ull);
  }
}

template <int TileN>
__global__ void __launch_bounds__(kThreads, 1)
    fast_tiles_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
                      const __grid_constant__ Fp4Job job, int64_t tiles) {
  extern __shared__ uint8_t shared[];
  Ring<TileN> ring((shared_address(shared) + 1023) & ~1023u);
  ring.start(4 * kConsumers);
  const int warpgroup = int(threadIdx.x / 128);
  if (warpgroup == kConsumers) {
    fewer_registers<40>();
    if (threadIdx.x / 32 == 4 * kConsumers) feed_steps<TileWay::fast>(&map_a, &map_b, job, tiles, ring);
  } else {
    more_registers<232>();
    float *staging =
        reinterpret_cast<float *>(shared + (ring.empty + 8 * kStages<TileN> - shared_address(shared)));
    multiply_tiles(job, tiles, warpgroup, ring, staging + threadIdx.x / 32 * 16 * kPitch);
  }
}

template <int TileN> void launch(const Fp4Job &job, int processors, cudaStream_t stream) {
  launch_tiles<TileN>(fast_tiles_kernel<TileN>, "fast_tiles_kernel", kThreads, kSharedBytes<TileN>, job,
                      processors, stream);
}

} // namespace

void gemm_fp4_wgmma(const Fp4Job &job, int processors, cudaStream_t stream) {
  narrow_tiles(job, processors) ? launch<64>(job, processors, stream) : launch<128>(job, processors, stream);
}

} // namespace nvfp4::cuda
