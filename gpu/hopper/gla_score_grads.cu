// SPDX-License-Identifier: Apache-2.0
// GLA, gradients of the scores: 64 x 64 products of grad_o and v per chunk, a chain over the value. A warp
// owns 16 rows and the blocks up to the diagonal.
#include "nvfp4/gpu/device/device.hpp"
#include "nvfp4/gpu/hopper/gla_fragments.cuh"
#include "nvfp4/gpu/hopper/gla_kernels.hpp"

namespace nvfp4::cuda::gla {
namespace {

constexpr int kThreads = 128;

__host__ __device__ int row_bytes(int value) { return 2 * (value + kPad); }

__global__ void __launch_bounds__(kThreads) score_grads_kernel(ScoreGrads p) {
  extern __shared__ __align__(16) uint8_t shared[];
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5, value = int(p.shape.value);
  const int64_t index = blockIdx.x;
  const Where where(p.shape, index);
  const int64_t offset = where.offset(p.shape, value), stride = p.shape.heads * value;
  const uint32_t base = shared_address(shared);
  const Tile left{base, row_bytes(value)},
      right{base + uint32_t(kChunk * row_bytes(value)), row_bytes(value)};
  copy_tile(left, p.grad_o + offset, stride, int(kChunk), value, where.rows, value);
  copy_tile(right, p.v + offset, stride, int(kChunk), value, where.rows, value);
  commit_copies();
  wait_copies<0>();
  __syncthreads();
  float acc[kSubs][2][4] = {};
  for (int k = 0; k < value; k += 16) {
    uint32_t a[4];
    load_a(a, left, int(kSub) * warp, k);
#pragma unroll
    for (int n = 0; n < kSubs; ++n) {
      if (n > warp) continue;
      uint32_t b[4];
      load_b(b, right, int(kSub) * n, k);
      mma_pair(acc[n][0], acc[n][1], a, b);
    }
  }
  float *const out = p.score_grads + index * kChunk * kChunk;
#pragma unroll
  for (int n = 0; n < kSubs; ++n) {
    if (n > warp) continue;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = int(kSub) * warp + (lane >> 2) + 8 * (i & 1),
                col = int(kSub) * n + 8 * (i >> 1) + 2 * (lane & 3);
      const float low = acc[n][i >> 1][2 * (i & 1)], high = acc[n][i >> 1][2 * (i & 1) + 1];
      *reinterpret_cast<float2 *>(out + row * kChunk + col) =
          make_float2(col <= row ? low : 0.0f, col + 1 <= row ? high : 0.0f);
    }
  }
}

} // namespace

void launch(const ScoreGrads &p, cudaStream_t stream) {
  const int bytes = 2 * int(kChunk) * row_bytes(int(p.shape.value));
  check(cudaFuncSetAttribute(score_grads_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "shared memory of GLA's score_grads_kernel");
  score_grads_kernel<<<unsigned(p.shape.all_chunks()), kThreads, size_t(bytes), stream>>>(p);
  check_launch("GLA's score_grads_kernel");
}

} // namespace nvfp4::cuda::gla
