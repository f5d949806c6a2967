// SPDX-License-Identifier: Apache-2.0
// GLA, the serial kernel: a block carries 64 x 64 elements of a head's state (or of its gradient) in
// registers through all chunks, in FP32, and leaves its rounded value before each. Operands arrive four
// stages ahead.
#include "nvfp4/gpu/device/device.hpp"
#include "nvfp4/gpu/hopper/gla_fragments.cuh"
#include "nvfp4/gpu/hopper/gla_kernels.hpp"

namespace nvfp4::cuda::gla {
namespace {

constexpr int kTile = 64, kStages = 4, kThreads = 128;
constexpr int kRowBytes = 2 * (kTile + kPad), kTileBytes = int(kChunk) * kRowBytes;
constexpr int kStageBytes = 2 * kTileBytes + 4 * kTile; ///< x, y, decay

__global__ void __launch_bounds__(kThreads) states_kernel(States p) {
  extern __shared__ __align__(16) uint8_t shared[];
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5;
  const int key = int(p.shape.key), value = int(p.shape.value);
  const int d0 = int(blockIdx.y) * kTile, e0 = int(blockIdx.z) * kTile;
  const int64_t chunks = p.shape.chunks(), first = int64_t(blockIdx.x) * chunks;
  const auto chunk_of = [&](int64_t step) { return first + (p.backward ? chunks - 1 - step : step); };
  const auto stage_of = [&](int64_t step) { return shared + step % kStages * kStageBytes; };
  const auto fetch = [&](int64_t step) {
    if (step < chunks) {
      const int64_t index = chunk_of(step);
      const Where where(p.shape, index);
      const uint32_t to = shared_address(stage_of(step));
      copy_tile({to, kRowBytes}, p.x + index * kChunk * key + d0, key, int(kChunk), kTile, int(kChunk),
                key - d0);
      copy_tile({to + kTileBytes, kRowBytes}, p.y + where.offset(p.shape, value) + e0, p.shape.heads * value,
                int(kChunk), kTile, where.rows, value - e0);
      if (threadIdx.x < kTile / 4) {
        const int d = d0 + 4 * int(threadIdx.x);
        const float *const decay = p.decay + index * key;
        copy16(to + 2 * kTileBytes + 16 * threadIdx.x, d < key ? decay + d : decay, d < key);
      }
    }
    commit_copies();
  };
  // a warp: 32 x 32 of the state, two fragments of 16 rows, four of 8 columns
  const int row = 32 * (warp & 1), col = 32 * (warp >> 1);
  float state[2][4][4] = {};
  for (int s = 0; s < kStages - 1; ++s) fetch(s);
  for (int64_t step = 0; step < chunks; ++step) {
    wait_copies<kStages - 2>();
    __syncthreads(); // this stage has arrived for all, and all have left the one that is filled next
    fetch(step + kStages - 1);
    uint16_t *const out = p.states + chunk_of(step) * key * value;
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int d = d0 + row + 16 * m + 8 * half + (lane >> 2);
#pragma unroll
        for (int n = 0; n < 4; ++n) {
          const int e = e0 + col + 8 * n + 2 * (lane & 3);
          if (d < key && e < value)
            *reinterpret_cast<uint32_t *>(out + int64_t(d) * value + e) =
                bf16_pair(state[m][n][2 * half], state[m][n][2 * half + 1]);
        }
      }
    if (step + 1 == chunks) break;
    const uint32_t stage = shared_address(stage_of(step));
    const Tile x{stage, kRowBytes}, y{stage + kTileBytes, kRowBytes};
    float update[2][4][4] = {};
#pragma unroll
    for (int k = 0; k < kChunk; k += 16) {
      uint32_t a[2][4], b[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) load_a_transposed(a[m], x, row + 16 * m, k);
#pragma unroll
      for (int n = 0; n < 2; ++n) load_b_transposed(b[n], y, col + 16 * n, k);
#pragma unroll
      for (int m = 0; m < 2; ++m)
#pragma unroll
        for (int n = 0; n < 2; ++n) mma_pair(update[m][2 * n], update[m][2 * n + 1], a[m], b[n]);
    }
    const float *const decay = reinterpret_cast<const float *>(stage_of(step) + 2 * kTileBytes);
#pragma unroll
    for (int m = 0; m < 2; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float w = decay[row + 16 * m + 8 * (i >> 1) + (lane >> 2)];
#pragma unroll
        for (int n = 0; n < 4; ++n) state[m][n][i] = numerics::fma(w, state[m][n][i], update[m][n][i]);
      }
  }
  wait_copies<0>();
}

} // namespace

void launch(const States &p, cudaStream_t stream) {
  constexpr int bytes = kStages * kStageBytes;
  check(cudaFuncSetAttribute(states_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "shared memory of GLA's states_kernel");
  const dim3 grid(unsigned(p.shape.teams()), blocks_for(p.shape.key, kTile),
                  blocks_for(p.shape.value, kTile));
  states_kernel<<<grid, kThreads, bytes, stream>>>(p);
  check_launch("GLA's states_kernel");
}

} // namespace nvfp4::cuda::gla
