// SPDX-License-Identifier: Apache-2.0
// GLA, first kernel: decays, decayed q and k, and the scores of a chunk. A warp owns a sub-chunk of 16 rows
// and 64 channels, a lane two of them; then a thread owns a column of scores and 32 channels of the sums
// inside sub-chunks, and warps share the six blocks across sub-chunks.
#include "nvfp4/gpu/device/device.hpp"
#include "nvfp4/gpu/hopper/gla_fragments.cuh"
#include "nvfp4/gpu/hopper/gla_kernels.hpp"

namespace nvfp4::cuda::gla {
namespace {

/// Shared memory for a key padded to `width` (a multiple of 64) channels. Gates, q and k come first; partial
/// sums and the operands of the blocks across sub-chunks take their place when they have been used.
struct PrepareLayout {
  int width;

  __host__ __device__ int gate_stride() const { return width + 4; }
  __host__ __device__ int stride() const { return width + kPad; }
  __host__ __device__ int q_at() const { return int(kChunk) * gate_stride() * 4; }
  __host__ __device__ int k_at() const { return q_at() + int(kChunk) * stride() * 2; }
  __host__ __device__ int decay_at() const { return k_at() + int(kChunk) * stride() * 2; }
  __host__ __device__ int bytes() const { return decay_at() + int(kSubs) * width * 4; }
  // later
  __host__ __device__ int q_operand_at() const { return width / int(kPart) * int(kChunk) * 17 * 4; }
  __host__ __device__ int k_operand_at() const { return q_operand_at() + int(kChunk) * stride() * 2; }
  // 136 w + 128 (w + 8) + 192 (w + 8) = 456 w + 2560 bytes <= decay_at() = 512 w + 3072
};

/// Sums of column `j` over channels [d, d_end) for the 16 rows of its sub-chunk; rows before j stay 0.
__device__ void inside(const float *gates, const uint16_t *q, const uint16_t *k, const PrepareLayout &layout,
                       int j, int d, int d_end, float (&sum)[kSub]) {
  const int first = j / int(kSub) * int(kSub), own = j % int(kSub);
#pragma unroll
  for (int i = 0; i < kSub; ++i) sum[i] = 0.0f;
  for (; d < d_end; d += 4) {
    const uint2 kw = *reinterpret_cast<const uint2 *>(k + j * layout.stride() + d);
    const float kx[4] = {bf16_low(kw.x), bf16_high(kw.x), bf16_low(kw.y), bf16_high(kw.y)};
    float decayed[4] = {};
#pragma unroll
    for (int i = 0; i < kSub; ++i) {
      const float4 e = *reinterpret_cast<const float4 *>(gates + (first + i) * layout.gate_stride() + d);
      const uint2 qw = *reinterpret_cast<const uint2 *>(q + (first + i) * layout.stride() + d);
      const float ex[4] = {e.x, e.y, e.z, e.w};
      const float qx[4] = {bf16_low(qw.x), bf16_high(qw.x), bf16_low(qw.y), bf16_high(qw.y)};
#pragma unroll
      for (int x = 0; x < 4; ++x) {
        decayed[x] = i == own ? kx[x] : decayed[x] * ex[x];
        sum[i] = numerics::fma(qx[x], decayed[x], sum[i]);
      }
    }
  }
}

__global__ void __launch_bounds__(512, 1) prepare_kernel(Prepare p) {
  extern __shared__ __align__(16) uint8_t shared[];
  const int key = int(p.shape.key);
  const PrepareLayout layout{int(blockDim.x) / 2};
  float *const gates = reinterpret_cast<float *>(shared);
  uint16_t *const q_rows = reinterpret_cast<uint16_t *>(shared + layout.q_at());
  uint16_t *const k_rows = reinterpret_cast<uint16_t *>(shared + layout.k_at());
  float *const decays = reinterpret_cast<float *>(shared + layout.decay_at()); // (4, width)
  float *const partial = reinterpret_cast<float *>(shared);                    // (parts, 64, 17)
  uint16_t *const q_operand = reinterpret_cast<uint16_t *>(shared + layout.q_operand_at());
  uint16_t *const k_operand = reinterpret_cast<uint16_t *>(shared + layout.k_operand_at());

  const int lane = int(threadIdx.x) & 31, warp = int(threadIdx.x) >> 5, sub = warp & 3;
  const int d = 64 * (warp >> 2) + 2 * lane;
  const bool active = d < key;
  const int64_t index = blockIdx.x;
  const Where where(p.shape, index);
  const int64_t from = where.offset(p.shape, key) + d, row_stride = p.shape.heads * key;

  float e[kSub][2];
  uint32_t q[kSub], k[kSub];
#pragma unroll
  for (int i = 0; i < kSub; ++i) {
    const int row = int(kSub) * sub + i;
    const bool inside_length = active && row < where.rows;
    const int64_t at = inside_length ? from + row * row_stride : 0;
    const float2 g = inside_length ? *reinterpret_cast<const float2 *>(p.g + at) : make_float2(0.0f, 0.0f);
    q[i] = inside_length ? *reinterpret_cast<const uint32_t *>(p.q + at) : 0u;
    k[i] = inside_length ? *reinterpret_cast<const uint32_t *>(p.k + at) : 0u;
    e[i][0] = g.x, e[i][1] = g.y;
  }
  float total[2] = {1.0f, 1.0f};
#pragma unroll
  for (int i = 0; i < kSub; ++i) {
    const int row = int(kSub) * sub + i;
#pragma unroll
    for (int x = 0; x < 2; ++x) {
      e[i][x] = numerics::exp(e[i][x]);
      total[x] = total[x] * e[i][x];
    }
    *reinterpret_cast<float2 *>(gates + row * layout.gate_stride() + d) = make_float2(e[i][0], e[i][1]);
    *reinterpret_cast<uint32_t *>(q_rows + row * layout.stride() + d) = q[i];
    *reinterpret_cast<uint32_t *>(k_rows + row * layout.stride() + d) = k[i];
  }
  *reinterpret_cast<float2 *>(decays + sub * layout.width + d) = make_float2(total[0], total[1]);
  __syncthreads();

  const int column = int(threadIdx.x) % int(kChunk), part = int(threadIdx.x) / int(kChunk);
  const int parts = (key + int(kPart) - 1) / int(kPart);
  float sum[kSub];
  if (part < parts)
    inside(gates, q_rows, k_rows, layout, column, part * int(kPart), min(key, (part + 1) * int(kPart)), sum);
  __syncthreads();

  if (part < parts)
#pragma unroll
    for (int i = 0; i < kSub; ++i) partial[(part * int(kChunk) + column) * 17 + i] = sum[i];
  float of_sub[kSubs][2], before[2] = {1.0f, 1.0f}, after[2] = {1.0f, 1.0f};
#pragma unroll
  for (int t = 0; t < kSubs; ++t) {
    const float2 w = *reinterpret_cast<const float2 *>(decays + t * layout.width + d);
    of_sub[t][0] = w.x, of_sub[t][1] = w.y;
  }
#pragma unroll
  for (int x = 0; x < 2; ++x) {
#pragma unroll
    for (int t = 0; t < kSubs; ++t)
      if (t < sub) before[x] = before[x] * of_sub[t][x];
#pragma unroll
    for (int t = int(kSubs) - 1; t >= 0; --t)
      if (t > sub) after[x] = after[x] * of_sub[t][x];
  }
  if (sub == int(kSubs) - 1 && active)
    *reinterpret_cast<float2 *>(p.decay + index * key + d) =
        make_float2(before[0] * total[0], before[1] * total[1]);
  // k of this sub-chunk r to the starts of sub-chunks r + 1, r + 2, r + 3
  float between[3][2] = {{1.0f, 1.0f}, {1.0f, 1.0f}, {1.0f, 1.0f}};
#pragma unroll
  for (int x = 0; x < 2; ++x) {
#pragma unroll
    for (int t = 1; t < kSubs; ++t)
      if (t == sub + 1) {
        between[1][x] = of_sub[t][x];
        if (t + 1 < kSubs) between[2][x] = of_sub[t][x] * of_sub[t + 1 < kSubs ? t + 1 : t][x];
      }
  }
  const int64_t to = (index * kChunk + int(kSub) * sub) * key + d;
  float c[2] = {1.0f, 1.0f};
#pragma unroll
  for (int i = 0; i < kSub; ++i) {
    c[0] = c[0] * e[i][0], c[1] = c[1] * e[i][1];
    const float x = bf16_low(q[i]) * c[0], y = bf16_high(q[i]) * c[1];
    *reinterpret_cast<uint32_t *>(q_operand + (int(kSub) * sub + i) * layout.stride() + d) = bf16_pair(x, y);
    if (active)
      *reinterpret_cast<uint32_t *>(p.q_decayed + to + i * key) = bf16_pair(x * before[0], y * before[1]);
  }
  c[0] = c[1] = 1.0f;
#pragma unroll
  for (int i = int(kSub) - 1; i >= 0; --i) {
    const float x = bf16_low(k[i]) * c[0], y = bf16_high(k[i]) * c[1];
    if (active) *reinterpret_cast<uint32_t *>(p.k_decayed + to + i * key) = bf16_pair(x * after[0], y * after[1]);
#pragma unroll
    for (int b = 0; b < 3; ++b) {
      const int t = sub + 1 + b;
      if (t < kSubs)
        *reinterpret_cast<uint32_t *>(k_operand + (pair_index(t, sub) * int(kSub) + i) * layout.stride() +
                                      d) = bf16_pair(x * between[b][0], y * between[b][1]);
    }
    c[0] = c[0] * e[i][0], c[1] = c[1] * e[i][1];
  }
  __syncthreads();

  uint16_t *const scores = p.scores + index * kChunk * kChunk;
  const Tile q_tile{shared_address(q_operand), 2 * layout.stride()},
      k_tile{shared_address(k_operand), 2 * layout.stride()};
  for (int pair = warp; pair < 6; pair += int(blockDim.x) / 32) {
    const int t = pair >= 3 ? 3 : pair >= 1 ? 2 : 1, r = pair - pair_index(t, 0);
    float acc[2][4] = {};
    for (int step = 0; step < key; step += 16) {
      uint32_t a[4], b[4];
      load_a(a, q_tile, int(kSub) * t, step);
      load_b(b, k_tile, int(kSub) * pair, step);
      mma_pair(acc[0], acc[1], a, b);
    }
#pragma unroll
    for (int n = 0; n < 2; ++n)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = int(kSub) * t + (lane >> 2) + 8 * half, col = int(kSub) * r + 8 * n + 2 * (lane & 3);
        *reinterpret_cast<uint32_t *>(scores + row * kChunk + col) =
            bf16_pair(acc[n][2 * half], acc[n][2 * half + 1]);
      }
  }
  for (int i = int(threadIdx.x); i < kChunk * kSub / 2; i += int(blockDim.x)) {
    const int row = i / 8, col = row / int(kSub) * int(kSub) + 2 * (i % 8);
    float value[2];
#pragma unroll
    for (int x = 0; x < 2; ++x) {
      const float *const from_part = partial + (col + x) * 17 + row % int(kSub);
      value[x] = from_part[0];
      for (int n = 1; n < parts; ++n) value[x] = value[x] + from_part[n * int(kChunk) * 17];
      if (col + x > row) value[x] = 0.0f;
    }
    *reinterpret_cast<uint32_t *>(scores + row * kChunk + col) = bf16_pair(value[0], value[1]);
  }
}

} // namespace

void launch(const Prepare &p, cudaStream_t stream) {
  const PrepareLayout layout{int((p.shape.key + 63) / 64 * 64)};
  check(cudaFuncSetAttribute(prepare_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, layout.bytes()),
        "shared memory of GLA's prepare_kernel");
  prepare_kernel<<<unsigned(p.shape.all_chunks()), unsigned(2 * layout.width), size_t(layout.bytes()),
                   stream>>>(p);
  check_launch("GLA's prepare_kernel");
}

} // namespace nvfp4::cuda::gla
