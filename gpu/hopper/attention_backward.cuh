// SPDX-License-Identifier: Apache-2.0
// What the two kernels of attention's backward share: parameters, and products whose operands lie in shared
// memory in tiles of 64 elements of dim.
#pragma once
#include "nvfp4/gpu/hopper/attention_launch.hpp"
#include "nvfp4/gpu/hopper/attention_ptx.cuh"
#include "nvfp4/reference_models/bf16_mixers/attention_math.hpp"

namespace nvfp4::cuda::hopper {

using namespace models::tensorcore;

constexpr int kBackwardRows = 128; ///< of the operand that stays: two warpgroups of 64
constexpr int kBackwardConsumers = 2, kBackwardThreads = 128 * (kBackwardConsumers + 1);
constexpr uint32_t kWideChunk = 128 * 128, kNarrowChunk = 64 * 128; ///< 128 or 64 rows of 64 elements

struct Backward {
  BlockOrder order;
  int length, padded, heads, kv_heads, group;
  bool causal;
  float factor, scale;   ///< scale log2 e, scale
  const float *lse2, *d; ///< (batch, heads, padded): +Inf and 0 behind the length
};

/// Copies `Rows` rows of a head.
template <int Dim, int Rows>
__device__ __forceinline__ void bring(uint32_t to, const CUtensorMap *map, int head, int row, int sequence,
                                      uint32_t barrier) {
  for (int c = 0; c < Dim / 64; ++c)
    copy_head_box(to + c * Rows * 128, map, 64 * c, head, row, sequence, barrier);
}

/// s (64, 64) = A B^T over dim: A 64 of 128 rows, B 64 rows.
template <int Dim> __device__ __forceinline__ void issue_over_dim(float (&s)[32], uint32_t a, uint32_t b) {
  Bf16::run<0>(s, descriptor(a), descriptor(b));
#pragma unroll
  for (int i = 1; i < Dim / 16; ++i)
    Bf16::run<1>(s, descriptor(a + i / 4 * kWideChunk + i % 4 * 32),
                 descriptor(b + i / 4 * kNarrowChunk + i % 4 * 32));
  wgmma_commit();
}

/// sum (64, dim) += A B over 64 rows of B; A in registers.
template <int Dim>
__device__ __forceinline__ void issue_over_rows(float (&sum)[Dim / 2], const uint32_t (&a)[16], uint32_t b) {
#pragma unroll
  for (int i = 0; i < 4; ++i) product(sum, a + 4 * i, descriptor_n_major(b + i * 2048, kNarrowChunk));
  wgmma_commit();
}

/// Rows of (batch, length, heads, dim) from a warpgroup's accumulator.
template <int Dim>
__device__ __forceinline__ void write_rows(float *to, const float (&x)[Dim / 2], float scale, int length,
                                           int heads, int sequence, int head, int row) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = row + 8 * h;
    if (r >= length) continue;
    float *const out = to + ((int64_t(sequence) * length + r) * heads + head) * Dim + fragment_col();
#pragma unroll
    for (int j = 0; j < Dim / 8; ++j)
      *reinterpret_cast<float2 *>(out + 8 * j) = {finished(x[4 * j + 2 * h] * scale),
                                                  finished(x[4 * j + 2 * h + 1] * scale)};
  }
}

/// By one thread: what a block keeps arrives once; each stage is filled by one arrival and emptied by one a
/// warp.
template <int Stages>
__device__ __forceinline__ void init_barriers(uint32_t kept_full, uint32_t full, uint32_t empty) {
  barrier_init(kept_full, 1);
  for (int s = 0; s < Stages; ++s) {
    barrier_init(full + 8 * s, 1);
    barrier_init(empty + 8 * s, 4 * kBackwardConsumers);
  }
  barrier_init_fence();
}

/// dq; `order` counts tiles of 128 queries.
void launch_backward_q(const AttentionShape &shape, const uint16_t *q, const uint16_t *k, const uint16_t *v,
                       const uint16_t *grad_o, Backward b, float *grad_q, cudaStream_t stream);
/// dk, dv; `order` counts tiles of 128 keys.
void launch_backward_kv(const AttentionShape &shape, const uint16_t *q, const uint16_t *k, const uint16_t *v,
                        const uint16_t *grad_o, Backward b, float *grad_k, float *grad_v,
                        cudaStream_t stream);

} // namespace nvfp4::cuda::hopper
