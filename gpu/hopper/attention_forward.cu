// SPDX-License-Identifier: Apache-2.0
// Attention forward: a block owns 128 queries of one head. One thread of a third warpgroup brings blocks of
// 128 keys and values by the tensor copy engine; two warpgroups of 64 rows multiply, and take one block's
// exponentials while the tensor cores multiply the block before by its values. Weights go from the
// accumulator of the first product into the second as its A operand, in registers.
#include "nvfp4/gpu/hopper/attention.hpp"

#include "nvfp4/gpu/hopper/attention_launch.hpp"
#include "nvfp4/gpu/hopper/attention_ptx.cuh"
#include "nvfp4/reference_models/bf16_mixers/attention_math.hpp"

namespace nvfp4::cuda {
namespace {

using namespace hopper;
using namespace models::tensorcore;

constexpr int kRows = 128, kKeys = kForwardKeys, kConsumers = 2, kThreads = 128 * (kConsumers + 1);
constexpr uint32_t kChunkBytes = 128 * 128; ///< 128 rows of 64 elements
template <int Dim> constexpr int kStages = Dim == 64 ? 4 : 2;
template <int Dim> constexpr uint32_t kTileBytes = Dim / 64 * kChunkBytes;
template <int Dim> constexpr int kSharedBytes = int(kTileBytes<Dim>) * (1 + 2 * kStages<Dim>)+1024 + 256;

struct Forward {
  BlockOrder order;
  int length, heads, group;
  bool causal;
  float factor; ///< scale log2 e
  uint16_t *o;
  float *o32, *lse2;
};

/// What a block works on.
struct Work {
  int sequence, head, row, steps;
};

__device__ Work work_of(const Forward &f) {
  const BlockAt at = block_at(f.order, int(blockIdx.x));
  const int tile = f.order.tiles - 1 - at.tile, all = (f.length + kKeys - 1) / kKeys;
  return {at.head / f.heads, at.head % f.heads, tile * kRows, f.causal ? tile + 1 : all};
}

struct Stages {
  uint32_t q, data, q_full, full_k, full_v, empty_k, empty_v; ///< shared addresses; barriers of 8 bytes
};

template <int Dim>
__device__ __forceinline__ void feed(const CUtensorMap *map_q, const CUtensorMap *map_k,
                                     const CUtensorMap *map_v, const Forward &f, const Work &w,
                                     const Stages &s) {
  barrier_expect(s.q_full, kTileBytes<Dim>);
  for (int c = 0; c < Dim / 64; ++c)
    copy_head_box(s.q + c * kChunkBytes, map_q, 64 * c, w.head, w.row, w.sequence, s.q_full);
  const auto bring = [&](const CUtensorMap *map, uint32_t to, int row, uint32_t full) {
    barrier_expect(full, kTileBytes<Dim>);
    for (int c = 0; c < Dim / 64; ++c)
      copy_head_box(to + c * kChunkBytes, map, 64 * c, w.head / f.group, row, w.sequence, full);
  };
  for (int b = 0; b < w.steps; ++b) {
    const uint32_t stage = b % kStages<Dim>, parity = b / kStages<Dim> & 1;
    const uint32_t to = s.data + 2 * stage * kTileBytes<Dim>;
    barrier_wait(s.empty_k + 8 * stage, parity ^ 1);
    bring(map_k, to, b * kKeys, s.full_k + 8 * stage);
    barrier_wait(s.empty_v + 8 * stage, parity ^ 1);
    bring(map_v, to + kTileBytes<Dim>, b * kKeys, s.full_v + 8 * stage);
  }
}

/// The running state of a thread's two rows.
struct Rows {
  float largest[2], scaled_max[2], sums[2][2], rescale[2];
};

/// Columns behind `limit` do not count.
__device__ __forceinline__ void mask(float (&s)[64], const int (&limit)[2]) {
#pragma unroll
  for (int i = 0; i < 64; ++i)
    if (8 * (i / 4) + fragment_col() + (i & 1) > limit[i / 2 & 1]) s[i] = -infinity();
}

/// The definition's SoftmaxRow::step on a fragment: s becomes weights.
__device__ __forceinline__ void softmax(float (&s)[64], Rows &rows, float factor) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float even = max_or_nan(rows.largest[h], s[2 * h]), odd = s[2 * h + 1];
#pragma unroll
    for (int j = 1; j < 16; ++j) {
      even = max_or_nan(even, s[4 * j + 2 * h]);
      odd = max_or_nan(odd, s[4 * j + 2 * h + 1]);
    }
    float largest = max_or_nan(even, odd);
    largest = max_or_nan(largest, __shfl_xor_sync(~0u, largest, 1));
    largest = max_or_nan(largest, __shfl_xor_sync(~0u, largest, 2));
    rows.largest[h] = largest;
    const float scaled = largest * factor;
    rows.rescale[h] = exp2_negative(rows.scaled_max[h] - scaled);
    rows.scaled_max[h] = scaled;
  }
#pragma unroll
  for (int h = 0; h < 2; ++h)
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      float sum = rows.sums[h][e];
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        const float x = exp2_negative(numerics::fma(s[4 * j + 2 * h + e], factor, -rows.scaled_max[h]));
        sum = j == 0 ? numerics::fma(sum, rows.rescale[h], x) : sum + x;
        s[4 * j + 2 * h + e] = x;
      }
      rows.sums[h][e] = sum;
    }
}

template <int Dim> __device__ __forceinline__ void issue_scores(float (&s)[64], uint32_t q, uint32_t k) {
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < Dim / 16; ++i) {
    const uint32_t at = i / 4 * kChunkBytes + i % 4 * 32;
    if (i == 0)
      Bf16::run<0>(s, descriptor(q + at), descriptor(k + at));
    else
      Bf16::run<1>(s, descriptor(q + at), descriptor(k + at));
  }
  wgmma_commit();
}

template <int Dim>
__device__ __forceinline__ void issue_values(float (&o)[Dim / 2], const uint32_t (&p)[32], uint32_t v) {
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < kKeys / 16; ++i) product(o, p + 4 * i, descriptor_n_major(v + i * 2048, kChunkBytes));
  wgmma_commit();
}

template <int Dim>
__device__ __forceinline__ void attend(const Forward &f, const Work &w, const Stages &st, int warpgroup) {
  const uint32_t q = st.q + warpgroup * 64 * 128;
  const int row = w.row + 64 * warpgroup + fragment_row(), last = (w.steps - 1) * kKeys;
  int limit[2];
#pragma unroll
  for (int h = 0; h < 2; ++h) limit[h] = (f.causal ? min(row + 8 * h, f.length - 1) : f.length - 1) - last;
  Rows rows;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    rows.largest[h] = rows.scaled_max[h] = -infinity();
    rows.sums[h][0] = rows.sums[h][1] = 0.0f;
  }
  float o[Dim / 2], s[64];
  uint32_t p[32];
#pragma unroll
  for (float &x : o) x = 0.0f;
  const auto stage = [&](int b) { return uint32_t(b % kStages<Dim>); };
  const auto parity = [&](int b) { return uint32_t(b / kStages<Dim> & 1); };
  const auto key_tile = [&](int b) { return st.data + 2 * stage(b) * kTileBytes<Dim>; };

  barrier_wait(st.q_full, 0);
  barrier_wait(st.full_k, 0);
  issue_scores<Dim>(s, q, key_tile(0));
  wgmma_wait<0>();
  settle(s);
  release(st.empty_k);
  if (w.steps == 1) mask(s, limit);
  softmax(s, rows, f.factor);
  pack(s, p);
  for (int b = 1; b < w.steps; ++b) {
    barrier_wait(st.full_k + 8 * stage(b), parity(b));
    issue_scores<Dim>(s, q, key_tile(b));
    barrier_wait(st.full_v + 8 * stage(b - 1), parity(b - 1));
    issue_values<Dim>(o, p, key_tile(b - 1) + kTileBytes<Dim>);
    wgmma_wait<1>();
    settle(s);
    release(st.empty_k + 8 * stage(b));
    if (b == w.steps - 1) mask(s, limit);
    softmax(s, rows, f.factor);
    wgmma_wait<0>();
    settle(o);
    settle(p);
    release(st.empty_v + 8 * stage(b - 1));
#pragma unroll
    for (int i = 0; i < Dim / 2; ++i) o[i] *= rows.rescale[i / 2 & 1];
    pack(s, p);
  }
  const int b = w.steps - 1;
  barrier_wait(st.full_v + 8 * stage(b), parity(b));
  issue_values<Dim>(o, p, key_tile(b) + kTileBytes<Dim>);
  wgmma_wait<0>();
  settle(o);
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    float sum = rows.sums[h][0] + rows.sums[h][1];
    sum = sum + __shfl_xor_sync(~0u, sum, 1);
    sum = sum + __shfl_xor_sync(~0u, sum, 2);
    const int r = row + 8 * h;
    if (r >= f.length) continue;
    if (f.lse2 != nullptr && (threadIdx.x & 3) == 0)
      f.lse2[(int64_t(w.sequence) * f.heads + w.head) * f.length + r] =
          finished(numerics::fma(numerics::log(sum), kLog2E, rows.scaled_max[h]));
    const float inverse = 1.0f / sum;
    const int64_t at = ((int64_t(w.sequence) * f.length + r) * f.heads + w.head) * Dim + fragment_col();
#pragma unroll
    for (int j = 0; j < Dim / 8; ++j) {
      const float x = finished(o[4 * j + 2 * h] * inverse), y = finished(o[4 * j + 2 * h + 1] * inverse);
      if (f.o32 != nullptr) *reinterpret_cast<float2 *>(f.o32 + at + 8 * j) = {x, y};
      if (f.o != nullptr) *reinterpret_cast<uint32_t *>(f.o + at + 8 * j) = bf16_pair(x, y);
    }
  }
}

template <int Dim>
__global__ void __launch_bounds__(kThreads, 1)
    forward_kernel(const __grid_constant__ CUtensorMap map_q, const __grid_constant__ CUtensorMap map_k,
                   const __grid_constant__ CUtensorMap map_v, Forward f) {
  extern __shared__ uint8_t shared[];
  Stages st;
  st.q = (shared_address(shared) + 1023) & ~1023u;
  st.data = st.q + kTileBytes<Dim>;
  st.q_full = st.data + 2 * kStages<Dim> * kTileBytes<Dim>;
  st.full_k = st.q_full + 8;
  st.full_v = st.full_k + 8 * kStages<Dim>;
  st.empty_k = st.full_v + 8 * kStages<Dim>;
  st.empty_v = st.empty_k + 8 * kStages<Dim>;
  if (threadIdx.x == 0) {
    barrier_init(st.q_full, 1);
    for (int s = 0; s < kStages<Dim>; ++s) {
      barrier_init(st.full_k + 8 * s, 1);
      barrier_init(st.full_v + 8 * s, 1);
      barrier_init(st.empty_k + 8 * s, 4 * kConsumers);
      barrier_init(st.empty_v + 8 * s, 4 * kConsumers);
    }
    barrier_init_fence();
  }
  __syncthreads();
  const Work w = work_of(f);
  const int warpgroup = int(threadIdx.x / 128);
  if (warpgroup == kConsumers) {
    fewer_registers<24>();
    if (threadIdx.x == 128 * kConsumers) feed<Dim>(&map_q, &map_k, &map_v, f, w, st);
  } else {
    more_registers<240>();
    attend<Dim>(f, w, st, warpgroup);
  }
}

template <int Dim>
void launch(const AttentionShape &s, const uint16_t *q, const uint16_t *k, const uint16_t *v,
            const Forward &f, cudaStream_t stream) {
  check(cudaFuncSetAttribute(forward_kernel<Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             kSharedBytes<Dim>),
        "shared memory of the attention kernel");
  forward_kernel<Dim><<<f.order.count(), kThreads, kSharedBytes<Dim>, stream>>>(
      head_map(q, s, s.heads, kRows), head_map(k, s, s.kv_heads, kKeys), head_map(v, s, s.kv_heads, kKeys),
      f);
  check_launch("attention forward");
}

} // namespace

void attention_forward(const AttentionShape &s, const uint16_t *q, const uint16_t *k, const uint16_t *v,
                       uint16_t *o, float *o32, float *lse2, cudaStream_t stream) {
  check_attention("attention_forward", s, {q, k, v}, {o, o32, lse2});
  if (o == nullptr && o32 == nullptr)
    throw Error("attention_forward: needs o or o32 to write to, both are null");
  const Forward f{block_order(s.batch * s.heads, (s.length + kRows - 1) / kRows,
                              4 * s.length * s.dim / s.group(), "attention_forward"),
                  int(s.length),
                  int(s.heads),
                  int(s.group()),
                  s.causal,
                  s.logit_scale() * kLog2E,
                  o,
                  o32,
                  lse2};
  if (s.dim == 64)
    launch<64>(s, q, k, v, f, stream);
  else
    launch<128>(s, q, k, v, f, stream);
}

} // namespace nvfp4::cuda
