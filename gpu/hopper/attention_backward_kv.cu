// SPDX-License-Identifier: Apache-2.0
// dk and dv: a block keeps 128 keys and values of one key head; the queries of its query heads and their
// grad_o pass by in blocks of 64. Scores are formed transposed, keys as rows, so that weights and their
// gradients go from accumulators into the next products as A operands, in registers. Where
// registers suffice (dim 64), dk of the block before runs while this block's exponentials are taken.
#include "nvfp4/gpu/hopper/attention_backward.cuh"

namespace nvfp4::cuda::hopper {
namespace {

template <int Dim> constexpr uint32_t kKept = Dim / 64 * kWideChunk;
template <int Dim> constexpr uint32_t kPassing = Dim / 64 * kNarrowChunk;
template <int Dim>
constexpr uint32_t kStageBytes = 2 * kPassing<Dim> + 1024; ///< and 64 words each of lse2 and d
template <int Dim> constexpr int kStages = Dim == 64 ? 6 : 4;
template <int Dim>
constexpr int kSharedBytes = int(2 * kKept<Dim> + kStages<Dim> * kStageBytes<Dim>) + 1024 + 256;

struct Work {
  int sequence, kv_head, row;
  int first, blocks; ///< first query block, and query blocks of a head

  [[nodiscard]] __device__ int steps(int group) const { return group * (blocks - first); }
};

__device__ Work work_of(const Backward &p) {
  const BlockAt at = block_at(p.order, int(blockIdx.x));
  return {at.head / p.kv_heads, at.head % p.kv_heads, at.tile * kBackwardRows, p.causal ? 2 * at.tile : 0,
          (p.length + 63) / 64};
}

struct Stages {
  uint32_t k, v, data, kept_full, full, empty;
};

template <int Dim>
__device__ __forceinline__ void feed(const CUtensorMap *map_q, const CUtensorMap *map_k,
                                     const CUtensorMap *map_v, const CUtensorMap *map_grad, const Backward &p,
                                     const Work &w, const Stages &st) {
  barrier_expect(st.kept_full, 2 * kKept<Dim>);
  bring<Dim, 128>(st.k, map_k, w.kv_head, w.row, w.sequence, st.kept_full);
  bring<Dim, 128>(st.v, map_v, w.kv_head, w.row, w.sequence, st.kept_full);
  uint32_t stage = 0, parity = 0;
  for (int member = 0; member < p.group; ++member) {
    const int head = w.kv_head * p.group + member;
    const int64_t rows = (int64_t(w.sequence) * p.heads + head) * p.padded;
    for (int b = w.first; b < w.blocks; ++b) {
      const uint32_t to = st.data + stage * kStageBytes<Dim>, full = st.full + 8 * stage;
      barrier_wait(st.empty + 8 * stage, parity ^ 1);
      barrier_expect(full, 2 * kPassing<Dim> + 512);
      bring<Dim, 64>(to, map_q, head, 64 * b, w.sequence, full);
      bring<Dim, 64>(to + kPassing<Dim>, map_grad, head, 64 * b, w.sequence, full);
      copy_bytes(to + 2 * kPassing<Dim>, p.lse2 + rows + 64 * b, 256, full);
      copy_bytes(to + 2 * kPassing<Dim> + 256, p.d + rows + 64 * b, 256, full);
      if (++stage == kStages<Dim>) stage = 0, parity ^= 1;
    }
  }
}

template <int Dim>
__device__ __forceinline__ void multiply(const Backward &p, const Work &w, const Stages &st,
                                         const uint8_t *shared, int warpgroup, float *grad_k, float *grad_v) {
  const uint32_t k = st.k + warpgroup * 64 * 128, v = st.v + warpgroup * 64 * 128;
  const int row0 = w.row + 64 * warpgroup, row = row0 + fragment_row(), steps = w.steps(p.group);
  float sum_k[Dim / 2], sum_v[Dim / 2], s[32], dp[32];
  uint32_t weights[16], ds[16];
#pragma unroll
  for (int i = 0; i < Dim / 2; ++i) sum_k[i] = sum_v[i] = 0.0f;
  uint32_t stage = 0, parity = 0;
  int block = w.first;
  const auto start = [&] {
    const uint32_t at = st.data + stage * kStageBytes<Dim>;
    barrier_wait(st.full + 8 * stage, parity);
    wgmma_fence();
    issue_over_dim<Dim>(s, k, at);
    issue_over_dim<Dim>(dp, v, at + kPassing<Dim>);
  };
  /// Two words of lse2 for column pair j; those of d are 32 pairs on.
  const auto pairs = [&] {
    return reinterpret_cast<const float2 *>(shared + (st.data - st.k) + stage * kStageBytes<Dim> +
                                            2 * kPassing<Dim>) +
           fragment_col() / 2;
  };
  const auto weigh = [&] { // s becomes weights
    const float2 *const lse2 = pairs();
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float2 l = lse2[4 * j];
#pragma unroll
      for (int e = 0; e < 4; ++e)
        s[4 * j + e] = exp2_negative(numerics::fma(s[4 * j + e], p.factor, e & 1 ? -l.y : -l.x));
    }
    if (p.causal && 64 * block < row0 + 63) {
      const int query = 64 * block + fragment_col();
#pragma unroll
      for (int j = 0; j < 32; ++j)
        if (query + 8 * (j / 4) + (j & 1) < row + 8 * (j / 2 & 1)) s[j] = 0.0f;
    }
  };
  const auto differentiate = [&] { // dp becomes gradients of logits
    const float2 *const d = pairs() + 32;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const float2 y = d[4 * j];
#pragma unroll
      for (int e = 0; e < 4; ++e) dp[4 * j + e] = s[4 * j + e] * (dp[4 * j + e] - (e & 1 ? y.y : y.x));
    }
  };
  const auto advance = [&] {
    if (++stage == kStages<Dim>) stage = 0, parity ^= 1;
    if (++block == w.blocks) block = w.first;
  };
  const auto issue_values = [&] {
    pack(s, weights);
    wgmma_fence();
    issue_over_rows<Dim>(sum_v, weights, st.data + stage * kStageBytes<Dim> + kPassing<Dim>);
  };
  barrier_wait(st.kept_full, 0);
  first_turn(warpgroup, kBackwardConsumers);
  if constexpr (Dim == 64) {
    const auto finish_values = [&] {
      differentiate();
      wgmma_wait<0>();
      settle(sum_v);
      settle(weights);
      pack(dp, ds);
    };
    take_turn(warpgroup);
    start();
    pass_turn(warpgroup, kBackwardConsumers);
    wgmma_wait<0>();
    settle(s);
    settle(dp);
    weigh();
    issue_values();
    finish_values();
    for (int i = 1; i < steps; ++i) {
      const uint32_t before = stage;
      advance();
      take_turn(warpgroup);
      start();
      issue_over_rows<Dim>(sum_k, ds, st.data + before * kStageBytes<Dim>);
      pass_turn(warpgroup, kBackwardConsumers);
      wgmma_wait<2>();
      settle(s);
      weigh();
      wgmma_wait<0>();
      settle(dp);
      settle(sum_k);
      settle(ds);
      release(st.empty + 8 * before);
      issue_values();
      finish_values();
    }
    wgmma_fence();
    issue_over_rows<Dim>(sum_k, ds, st.data + stage * kStageBytes<Dim>);
    wgmma_wait<0>();
    settle(sum_k);
  } else {
    for (int i = 0; i < steps; ++i) {
      take_turn(warpgroup);
      start();
      pass_turn(warpgroup, kBackwardConsumers);
      wgmma_wait<1>();
      settle(s);
      weigh();
      issue_values();
      wgmma_wait<1>();
      settle(dp);
      differentiate();
      pack(dp, ds);
      wgmma_fence();
      issue_over_rows<Dim>(sum_k, ds, st.data + stage * kStageBytes<Dim>);
      wgmma_wait<0>();
      settle(sum_k);
      settle(sum_v);
      settle(weights);
      settle(ds);
      release(st.empty + 8 * stage);
      advance();
    }
  }
  last_turn(warpgroup);
  write_rows<Dim>(grad_k, sum_k, p.scale, p.length, p.kv_heads, w.sequence, w.kv_head, row);
  write_rows<Dim>(grad_v, sum_v, 1.0f, p.length, p.kv_heads, w.sequence, w.kv_head, row);
}

template <int Dim>
__global__ void __launch_bounds__(kBackwardThreads, 1)
    backward_kv_kernel(const __grid_constant__ CUtensorMap map_q, const __grid_constant__ CUtensorMap map_k,
                       const __grid_constant__ CUtensorMap map_v,
                       const __grid_constant__ CUtensorMap map_grad, Backward p, float *grad_k,
                       float *grad_v) {
  extern __shared__ uint8_t shared[];
  Stages st;
  st.k = (shared_address(shared) + 1023) & ~1023u;
  st.v = st.k + kKept<Dim>;
  st.data = st.v + kKept<Dim>;
  st.kept_full = st.data + kStages<Dim> * kStageBytes<Dim>;
  st.full = st.kept_full + 8;
  st.empty = st.full + 8 * kStages<Dim>;
  if (threadIdx.x == 0) init_barriers<kStages<Dim>>(st.kept_full, st.full, st.empty);
  __syncthreads();
  const Work w = work_of(p);
  const int warpgroup = int(threadIdx.x / 128);
  if (warpgroup == kBackwardConsumers) {
    fewer_registers<24>();
    if (threadIdx.x == 128 * kBackwardConsumers) feed<Dim>(&map_q, &map_k, &map_v, &map_grad, p, w, st);
  } else {
    more_registers<240>();
    multiply<Dim>(p, w, st, shared + (st.k - shared_address(shared)), warpgroup, grad_k, grad_v);
  }
}

template <int Dim>
void launch(const AttentionShape &s, const uint16_t *q, const uint16_t *k, const uint16_t *v,
            const uint16_t *grad_o, const Backward &p, float *grad_k, float *grad_v, cudaStream_t stream) {
  check(cudaFuncSetAttribute(backward_kv_kernel<Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             kSharedBytes<Dim>),
        "shared memory of attention's backward");
  backward_kv_kernel<Dim><<<p.order.count(), kBackwardThreads, kSharedBytes<Dim>, stream>>>(
      head_map(q, s, s.heads, 64), head_map(k, s, s.kv_heads, 128), head_map(v, s, s.kv_heads, 128),
      head_map(grad_o, s, s.heads, 64), p, grad_k, grad_v);
  check_launch("attention backward, dk and dv");
}

} // namespace

void launch_backward_kv(const AttentionShape &s, const uint16_t *q, const uint16_t *k, const uint16_t *v,
                        const uint16_t *grad_o, Backward p, float *grad_k, float *grad_v,
                        cudaStream_t stream) {
  p.order = block_order(s.batch * s.kv_heads, (s.length + kBackwardRows - 1) / kBackwardRows,
                        4 * s.length * s.dim * s.group(), "attention_backward");
  if (s.dim == 64)
    launch<64>(s, q, k, v, grad_o, p, grad_k, grad_v, stream);
  else
    launch<128>(s, q, k, v, grad_o, p, grad_k, grad_v, stream);
}

} // namespace nvfp4::cuda::hopper
