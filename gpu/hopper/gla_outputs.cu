// SPDX-License-Identifier: Apache-2.0
// GLA, outputs: 64 rows of a chunk times up to 128 columns of o (forward) or dv (backward), one chain over
// the key through the state and then over the chunk's rows through the scores.
#include "nvfp4/gpu/device/device.hpp"
#include "nvfp4/gpu/hopper/gla_fragments.cuh"
#include "nvfp4/gpu/hopper/gla_kernels.hpp"

#include <algorithm>

namespace nvfp4::cuda::gla {
namespace {

constexpr int kWarpColumns = 32, kMostWarps = 4;
constexpr int kScoresRow = 2 * (int(kChunk) + kPad);

/// Shared memory for `key` channels and `width` columns: x (64, key), states (key, width), scores (64, 64),
/// y (64, width), rows padded.
struct OutputsLayout {
  int key, width;

  __host__ __device__ int x_row() const { return 2 * (key + kPad); }
  __host__ __device__ int row() const { return 2 * (width + kPad); }
  __host__ __device__ int states_at() const { return int(kChunk) * x_row(); }
  __host__ __device__ int scores_at() const { return states_at() + key * row(); }
  __host__ __device__ int y_at() const { return scores_at() + int(kChunk) * kScoresRow; }
  __host__ __device__ int bytes() const { return y_at() + int(kChunk) * row(); }
};

template <bool kBackward> __global__ void __launch_bounds__(32 * kMostWarps) outputs_kernel(Outputs p) {
  extern __shared__ __align__(16) uint8_t shared[];
  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5;
  const int key = int(p.shape.key), value = int(p.shape.value);
  const OutputsLayout layout{key, kWarpColumns * int(blockDim.x) / 32};
  const int64_t index = blockIdx.x;
  const int e0 = int(blockIdx.y) * layout.width;
  const Where where(p.shape, index);
  const int64_t offset = where.offset(p.shape, value) + e0, stride = p.shape.heads * value;
  const uint32_t base = shared_address(shared);
  const Tile x{base, layout.x_row()}, states{base + uint32_t(layout.states_at()), layout.row()},
      scores{base + uint32_t(layout.scores_at()), kScoresRow},
      y{base + uint32_t(layout.y_at()), layout.row()};
  copy_tile(x, p.x + index * kChunk * key, key, int(kChunk), key, int(kChunk), key);
  copy_tile(states, p.states + index * key * value + e0, value, key, layout.width, key, value - e0);
  commit_copies();
  copy_tile(scores, p.scores + index * kChunk * kChunk, kChunk, int(kChunk), int(kChunk), int(kChunk),
            int(kChunk));
  copy_tile(y, p.y + offset, stride, int(kChunk), layout.width, where.rows, value - e0);
  commit_copies();

  const int col = kWarpColumns * warp;
  float acc[kSubs][4][4] = {};
  wait_copies<1>();
  __syncthreads();
  for (int k = 0; k < key; k += 16) {
    uint32_t b[2][4];
#pragma unroll
    for (int n = 0; n < 2; ++n) load_b_transposed(b[n], states, col + 16 * n, k);
#pragma unroll
    for (int m = 0; m < kSubs; ++m) {
      uint32_t a[4];
      load_a(a, x, int(kSub) * m, k);
#pragma unroll
      for (int n = 0; n < 2; ++n) mma_pair(acc[m][2 * n], acc[m][2 * n + 1], a, b[n]);
    }
  }
  wait_copies<0>();
  __syncthreads();
  // blocks of scores beyond the diagonal are zeros: they would leave the accumulators as they are
#pragma unroll
  for (int t = 0; t < kSubs; ++t) {
    uint32_t b[2][4];
#pragma unroll
    for (int n = 0; n < 2; ++n) load_b_transposed(b[n], y, col + 16 * n, int(kSub) * t);
#pragma unroll
    for (int m = 0; m < kSubs; ++m) {
      if (kBackward ? m > t : m < t) continue;
      uint32_t a[4];
      if constexpr (kBackward)
        load_a_transposed(a, scores, int(kSub) * m, int(kSub) * t);
      else
        load_a(a, scores, int(kSub) * m, int(kSub) * t);
#pragma unroll
      for (int n = 0; n < 2; ++n) mma_pair(acc[m][2 * n], acc[m][2 * n + 1], a, b[n]);
    }
  }
  const float scale = p.shape.scale;
#pragma unroll
  for (int m = 0; m < kSubs; ++m)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = int(kSub) * m + 8 * half + (lane >> 2);
      if (row >= where.rows) continue;
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int e = col + 8 * n + 2 * (lane & 3);
        if (e0 + e >= value) continue;
        const float low = scale * acc[m][n][2 * half], high = scale * acc[m][n][2 * half + 1];
        const int64_t at = offset + row * stride + e;
        if (p.out != nullptr)
          *reinterpret_cast<float2 *>(p.out + at) = make_float2(low, high);
        else
          *reinterpret_cast<uint32_t *>(p.out_bf16 + at) = bf16_pair(low, high);
      }
    }
}

} // namespace

void launch(const Outputs &p, cudaStream_t stream) {
  const int warps = int(std::min<int64_t>(kMostWarps, (p.shape.value + kWarpColumns - 1) / kWarpColumns));
  const OutputsLayout layout{int(p.shape.key), kWarpColumns * warps};
  const auto kernel = p.backward ? outputs_kernel<true> : outputs_kernel<false>;
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, layout.bytes()),
        "shared memory of GLA's outputs_kernel");
  const dim3 grid(unsigned(p.shape.all_chunks()), blocks_for(p.shape.value, layout.width));
  kernel<<<grid, unsigned(32 * warps), size_t(layout.bytes()), stream>>>(p);
  check_launch("GLA's outputs_kernel");
}

} // namespace nvfp4::cuda::gla
