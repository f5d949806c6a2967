// SPDX-License-Identifier: Apache-2.0
// Attention forward: persistent blocks take tiles of 128 or 192 queries of one head from a counter. One
// thread of the last warpgroup brings blocks of 128 keys and values by the tensor copy engine; the other
// warpgroups own 64 rows each and issue their products in turns, so that one takes exponentials while the
// tensor cores work for another. Weights go from the accumulator of the first product into the second as its
// A operand, in registers.
#include "gpu/hopper/attention.hpp"

#include "gpu/hopper/attention_launch.hpp"
#include "gpu/hopper/attention_ptx.cuh"
#include "reference_models/tensorcore/attention_math.hpp"

#include <algorithm>
#include <optional>

namespace nvfp4::cuda {
namespace {

using namespace hopper;
using namespace models::tensorcore;

constexpr int kKeys = kForwardKeys;
template <int Dim> constexpr int kConsumers = 2; ///< warpgroups of 64 rows
template <int Dim> constexpr int kRows = 64 * kConsumers<Dim>;
template <int Dim> constexpr int kThreads = 128 * (kConsumers<Dim> + 1);
template <int Dim> constexpr int kStages = Dim == 64 ? 4 : 2; ///< a power of two
constexpr uint32_t kChunkBytes = 128 * 128;                   ///< 128 rows of 64 elements
template <int Dim> constexpr uint32_t kTileBytes = Dim / 64 * kChunkBytes;
template <int Dim> constexpr uint32_t kQueryChunk = kRows<Dim> * 128;
template <int Dim> constexpr uint32_t kQueryBytes = Dim / 64 * kQueryChunk<Dim>;
template <int Dim>
constexpr int kSharedBytes = int(kQueryBytes<Dim> + 2 * kStages<Dim> * kTileBytes<Dim>) + 1024 + 256;

struct Forward {
  BlockOrder order;
  int tiles;    ///< of all heads
  int *counter; ///< tiles taken beyond the first of each block; null: one tile a block
  int length, heads, group;
  bool causal;
  float factor; ///< scale log2 e
  uint16_t *o;
  float *o32, *lse2;
};

/// A tile: `steps` blocks of keys, of which the first `own(r)` count for the 64 rows from r.
struct Work {
  int sequence, head, row, steps;
  bool causal;

  [[nodiscard]] __device__ int own(int first) const { return causal ? min(first / kKeys + 1, steps) : steps; }
};

template <int Dim> __device__ Work work_of(const Forward &f, int index) {
  const BlockAt at = block_at(f.order, index);
  const int row = (f.order.tiles - 1 - at.tile) * kRows<Dim>;
  const int seen = f.causal ? min(row + kRows<Dim>, f.length) : f.length;
  return {at.head / f.heads, at.head % f.heads, row, (seen + kKeys - 1) / kKeys, f.causal};
}

/// Shared memory, from the queries on; barriers of 8 bytes. `tile`: the one whose queries are there.
template <int Dim> struct Stages {
  uint32_t q;
  volatile int *tile;

  __device__ uint32_t keys(uint32_t stage) const {
    return q + kQueryBytes<Dim> + 2 * stage * kTileBytes<Dim>;
  }
  __device__ uint32_t values(uint32_t stage) const { return keys(stage) + kTileBytes<Dim>; }
  __device__ uint32_t q_full() const { return keys(kStages<Dim>); }
  __device__ uint32_t q_empty() const { return q_full() + 8; }
  __device__ uint32_t full_k(uint32_t stage) const { return q_full() + 16 + 8 * stage; }
  __device__ uint32_t full_v(uint32_t stage) const { return full_k(stage) + 8 * kStages<Dim>; }
  __device__ uint32_t empty_k(uint32_t stage) const { return full_k(stage) + 16 * kStages<Dim>; }
  __device__ uint32_t empty_v(uint32_t stage) const { return full_k(stage) + 24 * kStages<Dim>; }
};

/// A block of keys in the order in which a thread block visits them, over all its tiles.
template <int Dim> struct Visit {
  uint32_t stage, parity;

  __device__ explicit Visit(int count) : stage(count % kStages<Dim>), parity(count / kStages<Dim> & 1) {}
};

template <int Dim>
__device__ __forceinline__ void feed(const CUtensorMap *map_q, const CUtensorMap *map_k,
                                     const CUtensorMap *map_v, const Forward &f, const Stages<Dim> &s) {
  int visits = 0, index = int(blockIdx.x);
  for (uint32_t tile = 0;; ++tile) {
    barrier_wait(s.q_empty(), (tile & 1) ^ 1);
    *s.tile = index;
    if (index >= f.tiles) {
      barrier_arrive(s.q_full());
      return;
    }
    const Work w = work_of<Dim>(f, index);
    barrier_expect(s.q_full(), kQueryBytes<Dim>);
    for (int c = 0; c < Dim / 64; ++c)
      copy_head_box(s.q + c * kQueryChunk<Dim>, map_q, 64 * c, w.head, w.row, w.sequence, s.q_full());
    const auto bring = [&](const CUtensorMap *map, uint32_t to, int row, uint32_t full) {
      barrier_expect(full, kTileBytes<Dim>);
      for (int c = 0; c < Dim / 64; ++c)
        copy_head_box(to + c * kChunkBytes, map, 64 * c, w.head / f.group, row, w.sequence, full);
    };
#pragma unroll 1
    for (int b = 0; b < w.steps; ++b) {
      const Visit<Dim> at(visits++);
      barrier_wait(s.empty_k(at.stage), at.parity ^ 1);
      bring(map_k, s.keys(at.stage), b * kKeys, s.full_k(at.stage));
      barrier_wait(s.empty_v(at.stage), at.parity ^ 1);
      bring(map_v, s.values(at.stage), b * kKeys, s.full_v(at.stage));
    }
    index = f.counter == nullptr ? f.tiles : int(gridDim.x) + atomicAdd(f.counter, 1);
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
    const uint32_t from_q = q + i / 4 * kQueryChunk<Dim> + i % 4 * 32,
                   from_k = k + i / 4 * kChunkBytes + i % 4 * 32;
    if (i == 0)
      Bf16::run<0>(s, descriptor(from_q), descriptor(from_k));
    else
      Bf16::run<1>(s, descriptor(from_q), descriptor(from_k));
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

/// Divides and writes a thread's two rows.
template <int Dim>
__device__ __forceinline__ void write(const Forward &f, const Work &w, int row, const Rows &rows,
                                      const float (&o)[Dim / 2]) {
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
      if (f.o != nullptr) *reinterpret_cast<uint32_t *>(f.o + at + 8 * j) = pack_bf16(x, y);
    }
  }
}

/// One tile for one warpgroup. `visits`: blocks of keys before this tile.
template <int Dim>
__device__ __forceinline__ void attend(const Forward &f, const Work &w, const Stages<Dim> &st, int warpgroup,
                                       int visits) {
  const uint32_t q = st.q + warpgroup * 64 * 128;
  const int row0 = w.row + 64 * warpgroup, row = row0 + fragment_row(), own = w.own(row0);
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
  const auto issue_weighted = [&](const Visit<Dim> &at) { issue_values<Dim>(o, p, st.values(at.stage)); };
  const auto weigh = [&](int b) { // products of block b become weights
    settle(s);
    release(st.empty_k(Visit<Dim>(visits + b).stage));
    if (b == own - 1) {
      release(st.q_empty());
      const int first = b * kKeys, end = f.length - 1;
      const int limit[] = {(f.causal ? min(row, end) : end) - first,
                           (f.causal ? min(row + 8, end) : end) - first};
      mask(s, limit);
    }
    softmax(s, rows, f.factor);
    const Visit<Dim> at(visits + b);
    // Not only needed soon: behind this loop the assembler cannot move the wait for o before the
    // exponentials.
    barrier_wait(st.full_v(at.stage), at.parity);
  };
  barrier_wait(st.full_k(Visit<Dim>(visits).stage), Visit<Dim>(visits).parity);
  take_turn(warpgroup);
  issue_scores<Dim>(s, q, st.keys(Visit<Dim>(visits).stage));
  pass_turn(warpgroup, kConsumers<Dim>);
  wgmma_wait<0>();
  weigh(0);
  pack(s, p);
  for (int b = 1; b < own; ++b) {
    const Visit<Dim> at(visits + b), before(visits + b - 1);
    barrier_wait(st.full_k(at.stage), at.parity);
    take_turn(warpgroup);
    issue_scores<Dim>(s, q, st.keys(at.stage));
    issue_weighted(before);
    pass_turn(warpgroup, kConsumers<Dim>);
    wgmma_wait<1>();
    weigh(b);
    wgmma_wait<0>();
    settle(o);
    settle(p);
    release(st.empty_v(before.stage));
#pragma unroll
    for (int i = 0; i < Dim / 2; ++i) o[i] *= rows.rescale[i / 2 & 1];
    pack(s, p);
  }
  const Visit<Dim> last(visits + own - 1);
  issue_weighted(last);
  wgmma_wait<0>();
  settle(o);
  release(st.empty_v(last.stage));
#pragma unroll 1
  for (int b = own; b < w.steps; ++b) { // other rows' blocks
    const Visit<Dim> at(visits + b);
    take_turn(warpgroup);
    pass_turn(warpgroup, kConsumers<Dim>);
    barrier_wait(st.full_k(at.stage), at.parity);
    release(st.empty_k(at.stage));
    barrier_wait(st.full_v(at.stage), at.parity);
    release(st.empty_v(at.stage));
  }
  write<Dim>(f, w, row, rows, o);
}

template <int Dim>
__global__ void __launch_bounds__(kThreads<Dim>, 1)
    forward_kernel(const __grid_constant__ CUtensorMap map_q, const __grid_constant__ CUtensorMap map_k,
                   const __grid_constant__ CUtensorMap map_v, Forward f) {
  extern __shared__ uint8_t shared[];
  __shared__ int tile;
  const Stages<Dim> st{(shared_address(shared) + 1023) & ~1023u, &tile};
  if (threadIdx.x == 0) {
    barrier_init(st.q_full(), 1);
    barrier_init(st.q_empty(), 4 * kConsumers<Dim>);
    for (int s = 0; s < kStages<Dim>; ++s) {
      barrier_init(st.full_k(s), 1);
      barrier_init(st.full_v(s), 1);
      barrier_init(st.empty_k(s), 4 * kConsumers<Dim>);
      barrier_init(st.empty_v(s), 4 * kConsumers<Dim>);
    }
    barrier_init_fence();
  }
  __syncthreads();
  const int warpgroup = int(threadIdx.x / 128);
  if (warpgroup == kConsumers<Dim>) {
    fewer_registers<24>();
    if (threadIdx.x == 128 * kConsumers<Dim>) feed<Dim>(&map_q, &map_k, &map_v, f, st);
    return;
  }
  more_registers<240>();
  first_turn(warpgroup, kConsumers<Dim>);
  int visits = 0;
  for (uint32_t count = 0;; ++count) {
    barrier_wait(st.q_full(), count & 1);
    const int index = *st.tile;
    if (index >= f.tiles) break;
    const Work w = work_of<Dim>(f, index);
    attend<Dim>(f, w, st, warpgroup, visits);
    visits += w.steps;
  }
  last_turn(warpgroup);
}

template <int Dim>
void launch(const AttentionShape &s, const uint16_t *q, const uint16_t *k, const uint16_t *v, Forward f,
            cudaStream_t stream) {
  f.order = block_order(s.batch * s.heads, (s.length + kRows<Dim> - 1) / kRows<Dim>,
                        4 * s.length * s.dim / s.group(), "attention_forward");
  f.tiles = int(f.order.count());
  check(cudaFuncSetAttribute(forward_kernel<Dim>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             kSharedBytes<Dim>),
        "shared memory of the attention kernel");
  const int blocks = std::min(f.tiles, multiprocessors());
  std::optional<StreamBuffer> counter;
  if (blocks < f.tiles) {
    counter.emplace(sizeof(int), stream);
    check(cudaMemsetAsync(counter->as<int>(), 0, sizeof(int), stream), "cudaMemsetAsync");
    f.counter = counter->as<int>();
  }
  forward_kernel<Dim><<<blocks, kThreads<Dim>, kSharedBytes<Dim>, stream>>>(
      head_map(q, s, s.heads, kRows<Dim>), head_map(k, s, s.kv_heads, kKeys),
      head_map(v, s, s.kv_heads, kKeys), f);
  check_launch("attention forward");
}

} // namespace

void attention_forward(const AttentionShape &s, const uint16_t *q, const uint16_t *k, const uint16_t *v,
                       uint16_t *o, float *o32, float *lse2, cudaStream_t stream) {
  check_attention("attention_forward", s, {q, k, v});
  const Forward f{
      {}, 0,   nullptr, int(s.length), int(s.heads), int(s.group()), s.causal, s.logit_scale() * kLog2E,
      o,  o32, lse2};
  if (s.dim == 64)
    launch<64>(s, q, k, v, f, stream);
  else
    launch<128>(s, q, k, v, f, stream);
}

} // namespace nvfp4::cuda
