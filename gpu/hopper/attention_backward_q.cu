// SPDX-License-Identifier: Apache-2.0
// dq: a block keeps 128 queries and their grad_o, keys and values pass by in blocks of 64. Two warpgroups of
// 64 rows; the product with the block before runs while this block's exponentials are taken.
#include "nvfp4/gpu/hopper/attention_backward.cuh"

namespace nvfp4::cuda::hopper {
namespace {

template <int Dim> constexpr uint32_t kKept = Dim / 64 * kWideChunk;
template <int Dim> constexpr uint32_t kPassing = Dim / 64 * kNarrowChunk;
template <int Dim> constexpr int kStages = Dim == 64 ? 4 : 3;
template <int Dim>
constexpr int kSharedBytes = int(2 * kKept<Dim> + 2 * kStages<Dim> * kPassing<Dim>) + 1024 + 256;

struct Work {
  int sequence, head, row, steps;
};

__device__ Work work_of(const Backward &p) {
  const BlockAt at = block_at(p.order, int(blockIdx.x));
  const int tile = p.order.tiles - 1 - at.tile, all = (p.length + 63) / 64;
  return {at.head / p.heads, at.head % p.heads, tile * kBackwardRows,
          p.causal ? min(2 * tile + 2, all) : all};
}

struct Stages {
  uint32_t q, grad, data, kept_full, full, empty;
};

template <int Dim>
__device__ __forceinline__ void feed(const CUtensorMap *map_q, const CUtensorMap *map_k,
                                     const CUtensorMap *map_v, const CUtensorMap *map_grad, const Backward &p,
                                     const Work &w, const Stages &st) {
  barrier_expect(st.kept_full, 2 * kKept<Dim>);
  bring<Dim, 128>(st.q, map_q, w.head, w.row, w.sequence, st.kept_full);
  bring<Dim, 128>(st.grad, map_grad, w.head, w.row, w.sequence, st.kept_full);
  for (int b = 0; b < w.steps; ++b) {
    const uint32_t stage = b % kStages<Dim>, to = st.data + 2 * stage * kPassing<Dim>,
                   full = st.full + 8 * stage;
    barrier_wait(st.empty + 8 * stage, (b / kStages<Dim> & 1) ^ 1);
    barrier_expect(full, 2 * kPassing<Dim>);
    bring<Dim, 64>(to, map_k, w.head / p.group, 64 * b, w.sequence, full);
    bring<Dim, 64>(to + kPassing<Dim>, map_v, w.head / p.group, 64 * b, w.sequence, full);
  }
}

template <int Dim>
__device__ __forceinline__ void multiply(const Backward &p, const Work &w, const Stages &st, int warpgroup,
                                         float *grad_q) {
  const uint32_t q = st.q + warpgroup * 64 * 128, grad = st.grad + warpgroup * 64 * 128;
  const int row0 = w.row + 64 * warpgroup, row = row0 + fragment_row();
  float lse2[2], d[2];
  int limit[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    const int r = row + 8 * h;
    const int64_t at = (int64_t(w.sequence) * p.heads + w.head) * p.padded + r;
    lse2[h] = r < p.padded ? p.lse2[at] : infinity();
    d[h] = r < p.padded ? p.d[at] : 0.0f;
    limit[h] = p.causal ? min(r, p.length - 1) : p.length - 1;
  }
  float sum[Dim / 2], s[32], dp[32];
  uint32_t ds[16];
#pragma unroll
  for (int i = 0; i < Dim / 2; ++i) sum[i] = 0.0f;
  const auto tile = [&](int b) { return st.data + 2 * (b % kStages<Dim>)*kPassing<Dim>; };
  const auto start = [&](int b) {
    barrier_wait(st.full + 8 * (b % kStages<Dim>), b / kStages<Dim> & 1);
    wgmma_fence();
    issue_over_dim<Dim>(s, q, tile(b));
    issue_over_dim<Dim>(dp, grad, tile(b) + kPassing<Dim>);
  };
  const auto weigh = [&](int b) { // s becomes weights
#pragma unroll
    for (int i = 0; i < 32; ++i) s[i] = exp2_negative(numerics::fma(s[i], p.factor, -lse2[i / 2 & 1]));
    // After the exponentials: behind this branch the assembler cannot move the next waits before them.
    if (64 * b + 63 > (p.causal ? min(row0, p.length - 1) : p.length - 1)) {
      const int first = 64 * b + fragment_col();
#pragma unroll
      for (int i = 0; i < 32; ++i)
        if (first + 8 * (i / 4) + (i & 1) > limit[i / 2 & 1]) s[i] = 0.0f;
    }
  };
  const auto differentiate = [&] { // weights become gradients of logits
#pragma unroll
    for (int i = 0; i < 32; ++i) s[i] = s[i] * (dp[i] - d[i / 2 & 1]);
  };
  barrier_wait(st.kept_full, 0);
  first_turn(warpgroup, kBackwardConsumers);
  take_turn(warpgroup);
  start(0);
  pass_turn(warpgroup, kBackwardConsumers);
  wgmma_wait<0>();
  settle(s);
  settle(dp);
  weigh(0);
  differentiate();
  pack(s, ds);
  for (int b = 1; b < w.steps; ++b) {
    take_turn(warpgroup);
    start(b);
    issue_over_rows<Dim>(sum, ds, tile(b - 1));
    pass_turn(warpgroup, kBackwardConsumers);
    wgmma_wait<2>();
    settle(s);
    weigh(b);
    wgmma_wait<1>();
    settle(dp);
    differentiate();
    wgmma_wait<0>();
    settle(sum);
    settle(ds);
    release(st.empty + 8 * ((b - 1) % kStages<Dim>));
    pack(s, ds);
  }
  last_turn(warpgroup);
  wgmma_fence();
  issue_over_rows<Dim>(sum, ds, tile(w.steps - 1));
  wgmma_wait<0>();
  settle(sum);
  write_rows<Dim>(grad_q, sum, p.scale, p.length, p.heads, w.sequence, w.head, row);
}

template <int Dim>
__global__ void __launch_bounds__(kBackwardThreads, 1)
    backward_q_kernel(const __grid_constant__ CUtensorMap map_q, const __grid_constant__ CUtensorMap map_k,
                      const __grid_constant__ CUtensorMap map_v, const __grid_constant__ CUtensorMap map_grad,
                      Backward p, float *grad_q) {
  extern __shared__ uint8_t shared[];
  Stages st;
  st.q = (shared_address(shared) + 1023) & ~1023u;
  st.grad = st.q + kKept<Dim>;
  st.data = st.grad + kKept<Dim>;
  st.kept_full = st.data + 2 * kStages<Dim> * kPassing<Dim>;
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
    multiply<Dim>(p, w, st, warpgroup, grad_q);
  }
}

template <int Dim>
void launch(const AttentionShape &s, const uint16_t *q, const uint16_t *k, const uint16_t *v,
            const uint16_t *grad_o, const Backward &p, float *grad_q, cudaStream_t stream) {
  check(cudaFuncSetAttribute(backward_q_kernel<Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             kSharedBytes<Dim>),
        "shared memory of attention's backward");
  backward_q_kernel<Dim><<<p.order.count(), kBackwardThreads, kSharedBytes<Dim>, stream>>>(
      head_map(q, s, s.heads, 128), head_map(k, s, s.kv_heads, 64), head_map(v, s, s.kv_heads, 64),
      head_map(grad_o, s, s.heads, 128), p, grad_q);
  check_launch("attention backward, dq");
}

} // namespace

void launch_backward_q(const AttentionShape &s, const uint16_t *q, const uint16_t *k, const uint16_t *v,
                       const uint16_t *grad_o, Backward p, float *grad_q, cudaStream_t stream) {
  p.order = block_order(s.batch * s.heads, (s.length + kBackwardRows - 1) / kBackwardRows,
                        4 * s.length * s.dim / s.group(), "attention_backward");
  if (s.dim == 64)
    launch<64>(s, q, k, v, grad_o, p, grad_q, stream);
  else
    launch<128>(s, q, k, v, grad_o, p, grad_q, stream);
}

} // namespace nvfp4::cuda::hopper
