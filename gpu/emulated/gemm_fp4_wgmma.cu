// SPDX-License-Identifier: Apache-2.0
// The fast tiles of the exact FP4 product on Hopper: wgmma sums a step of K = 64 from zero, exactly, while
// the sum before it is added to the accumulators toward zero. Operands by the tensor copy engine.
#include "nvfp4/gpu/emulated/gemm_fp4_tiles.cuh"

namespace nvfp4::cuda {
namespace {

using namespace hopper;

/// One warpgroup's 64 rows of every fast tile. Two sets of sums: one is multiplied into while the other is
/// added, and the other warpgroup's instructions fill what is left.
template <int TileN>
__device__ void multiply_tiles(const Fp4Job &job, int64_t tiles, int warpgroup, Ring<TileN> ring,
                               float *staging) {
  constexpr int kRegisters = TileN / 2;
  const bool leader = (threadIdx.x & 31) == 0;
  for (int64_t i = next_tile<TileN, TileWay::fast>(job, blockIdx.x, tiles); i < tiles;
       i = next_tile<TileN, TileWay::fast>(job, i + gridDim.x, tiles)) {
    float acc[kRegisters] = {}, even[kRegisters], odd[kRegisters];
    uint32_t oldest = ring.stage; // the first stage not yet given back
    const auto multiply_step = [&](float(&sum)[kRegisters]) {
      barrier_wait(ring.full + 8 * ring.stage, ring.parity);
      const uint32_t a = ring.data + ring.stage * ring.kBytes + warpgroup * 64 * kStepBytes,
                     b = ring.data + ring.stage * ring.kBytes + ring.kBytesA;
      wgmma_fence();
      Bf16::run<0>(sum, descriptor(a), descriptor(b));
#pragma unroll
      for (int k = 1; k < 4; ++k) Bf16::run(sum, descriptor(a + 32 * k), descriptor(b + 32 * k));
      wgmma_commit();
      ring.advance();
    };
    const auto add = [&](float(&sum)[kRegisters]) {
#pragma unroll
      for (float &x : sum) asm volatile("" : "+f"(x)::"memory"); // complete only from here on
      if (leader) barrier_arrive(ring.empty + 8 * oldest);
      if (++oldest == kStages<TileN>) oldest = 0;
#pragma unroll
      for (int r = 0; r < kRegisters; ++r) acc[r] = __fadd_rz(acc[r], sum[r]);
    };
    multiply_step(even);
    int64_t step = 1;
    for (; step + 1 < job.steps; step += 2) {
      multiply_step(odd);
      wgmma_wait<1>();
      add(even);
      multiply_step(even);
      wgmma_wait<1>();
      add(odd);
    }
    if (step < job.steps) {
      multiply_step(odd);
      wgmma_wait<1>();
      add(even);
      wgmma_wait<0>();
      add(odd);
    } else {
      wgmma_wait<0>();
      add(even);
    }
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
  const Ring<TileN> ring((shared_address(shared) + 1023) & ~1023u);
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
