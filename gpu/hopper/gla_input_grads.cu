// SPDX-License-Identifier: Apache-2.0
// GLA, gradients of q, k and the gates: one block a chunk and 64 channels of the key. A warp owns a sub-chunk
// of 16 rows; its products come from tensor cores (through the states; across sub-chunks), then a lane owns
// two channels and adds, in FP32, what happens inside the sub-chunk.
#include "nvfp4/gpu/device/device.hpp"
#include "nvfp4/gpu/hopper/gla_fragments.cuh"
#include "nvfp4/gpu/hopper/gla_kernels.hpp"

namespace nvfp4::cuda::gla {
namespace {

constexpr int kThreads = 128, kTile = 64, kStages = 2, kPairs = 6;
constexpr int kRowBytes = 2 * (kTile + kPad), kTileBytes = int(kChunk) * kRowBytes;
constexpr int kStageBytes =
    4 * kTileBytes; ///< grad_o, v (64, 64 of the value); states, state_grads (64 of the key)
constexpr int kBlockBytes = int(kSub) * kRowBytes; ///< an operand of the products across sub-chunks
constexpr int kSumStride = 72; ///< floats: a quarter warp's fragment rows lie in different banks
constexpr int kSumFloats = int(kSub) * kSumStride;
constexpr int kGradStride = 68; ///< floats of a row of score_grads

// shared memory; sums take the stages' place, FP32 score gradients that of the operands across sub-chunks
constexpr int kAcrossAt = kStages * kStageBytes, kGradAt = kAcrossAt + 2 * kPairs * kBlockBytes;
constexpr int kFloatsAt = kGradAt + int(kChunk) * kRowBytes;
constexpr int kBytes =
    kFloatsAt + 4 * (3 * int(kSubs) + 1) * kTile; ///< decays, suffixes, through (4, 64); products
static_assert(4 * 4 * kSumFloats * 4 <= kAcrossAt && int(kChunk) * kGradStride * 4 <= kGradAt - kAcrossAt);

/// Two channels of a sub-chunk's rows.
struct Channels {
  float e[kSub][2];
  uint32_t q[kSub], k[kSub];
};

__device__ void load_channels(const InputGrads &p, const Where &where, int sub, int d, Channels &x) {
  const int key = int(p.shape.key);
  const int64_t from = where.offset(p.shape, key) + d, stride = p.shape.heads * key;
#pragma unroll
  for (int i = 0; i < kSub; ++i) {
    const int row = int(kSub) * sub + i;
    const bool inside = d < key && row < where.rows;
    const int64_t at = inside ? from + row * stride : 0;
    const float2 g = inside ? *reinterpret_cast<const float2 *>(p.g + at) : make_float2(0.0f, 0.0f);
    x.q[i] = inside ? *reinterpret_cast<const uint32_t *>(p.q + at) : 0u;
    x.k[i] = inside ? *reinterpret_cast<const uint32_t *>(p.k + at) : 0u;
    x.e[i][0] = g.x, x.e[i][1] = g.y;
  }
#pragma unroll
  for (int i = 0; i < kSub; ++i) x.e[i][0] = numerics::exp(x.e[i][0]), x.e[i][1] = numerics::exp(x.e[i][1]);
}

/// k decayed to the starts of later sub-chunks, q decayed since the ends of earlier ones.
__device__ void write_across(const Channels &x, const float (&of_sub)[kSubs][2], int sub, uint8_t *shared) {
  const int lane = int(threadIdx.x) & 31;
  const auto at = [&](int first, int pair, int i) {
    return reinterpret_cast<uint32_t *>(shared + kAcrossAt + (first + pair) * kBlockBytes + i * kRowBytes +
                                        4 * lane);
  };
  float c[2] = {1.0f, 1.0f};
#pragma unroll
  for (int i = 0; i < kSub; ++i) {
    c[0] = c[0] * x.e[i][0], c[1] = c[1] * x.e[i][1];
    const float low = bf16_low(x.q[i]) * c[0], high = bf16_high(x.q[i]) * c[1];
#pragma unroll
    for (int r = 0; r < int(kSubs) - 1; ++r) {
      if (r >= sub) continue;
      float between[2] = {1.0f, 1.0f};
#pragma unroll
      for (int t = 1; t < int(kSubs) - 1; ++t)
        if (t > r && t < sub) between[0] = between[0] * of_sub[t][0], between[1] = between[1] * of_sub[t][1];
      *at(kPairs, pair_index(sub, r), i) = bf16_pair(low * between[0], high * between[1]);
    }
  }
  c[0] = c[1] = 1.0f;
#pragma unroll
  for (int i = int(kSub) - 1; i >= 0; --i) {
    const float low = bf16_low(x.k[i]) * c[0], high = bf16_high(x.k[i]) * c[1];
    c[0] = c[0] * x.e[i][0], c[1] = c[1] * x.e[i][1];
#pragma unroll
    for (int t = 1; t < kSubs; ++t) {
      if (t <= sub) continue;
      float between[2] = {1.0f, 1.0f};
#pragma unroll
      for (int m = 1; m < int(kSubs) - 1; ++m)
        if (m > sub && m < t) between[0] = between[0] * of_sub[m][0], between[1] = between[1] * of_sub[m][1];
      *at(0, pair_index(t, sub), i) = bf16_pair(low * between[0], high * between[1]);
    }
  }
}

/// Fragments of (16, 64) to rows of kSumStride floats.
__device__ void spill(const float (&acc)[8][4], float *to) {
  const int lane = int(threadIdx.x) & 31;
#pragma unroll
  for (int n = 0; n < 8; ++n)
#pragma unroll
    for (int half = 0; half < 2; ++half)
      *reinterpret_cast<float2 *>(to + ((lane >> 2) + 8 * half) * kSumStride + 8 * n + 2 * (lane & 3)) =
          make_float2(acc[n][2 * half], acc[n][2 * half + 1]);
}

__global__ void __launch_bounds__(kThreads) input_grads_kernel(InputGrads p) {
  extern __shared__ __align__(16) uint8_t shared[];
  const int lane = int(threadIdx.x) & 31, sub = int(threadIdx.x) >> 5;
  const int key = int(p.shape.key), value = int(p.shape.value);
  const int d0 = int(blockIdx.y) * kTile, d = d0 + 2 * lane;
  const int64_t index = blockIdx.x;
  const Where where(p.shape, index);
  const int64_t value_offset = where.offset(p.shape, value), value_stride = p.shape.heads * value;
  const uint32_t base = shared_address(shared);
  float *const decays = reinterpret_cast<float *>(shared + kFloatsAt); // (4, 64), as the next two
  float *const suffixes = decays + kSubs * kTile, *const throughs = suffixes + kSubs * kTile;
  float *const products = throughs + kSubs * kTile; // (64)

  const int steps = (value + kTile - 1) / kTile;
  const auto fetch = [&](int step) {
    if (step < steps) {
      const uint32_t to = base + uint32_t(step % kStages * kStageBytes);
      const int e0 = step * kTile, left = value - e0;
      copy_tile({to, kRowBytes}, p.grad_o + value_offset + e0, value_stride, int(kChunk), kTile, where.rows,
                left);
      copy_tile({to + kTileBytes, kRowBytes}, p.v + value_offset + e0, value_stride, int(kChunk), kTile,
                where.rows, left);
      const int64_t at = (index * key + d0) * value + e0;
      copy_tile({to + 2 * kTileBytes, kRowBytes}, p.states + at, value, kTile, kTile, key - d0, left);
      copy_tile({to + 3 * kTileBytes, kRowBytes}, p.state_grads + at, value, kTile, kTile, key - d0, left);
    }
    commit_copies();
  };
  fetch(0);
  fetch(1);

  const float *const grads = p.score_grads + index * kChunk * kChunk;
  for (int i = int(threadIdx.x); i < kChunk * kChunk / 4; i += kThreads) {
    const int row = i / 16, col = 4 * (i % 16);
    if (col / int(kSub) > row / int(kSub)) continue;
    const float4 w = *reinterpret_cast<const float4 *>(grads + row * kChunk + col);
    *reinterpret_cast<uint2 *>(shared + kGradAt + row * kRowBytes + 2 * col) =
        make_uint2(bf16_pair(w.x, w.y), bf16_pair(w.z, w.w));
  }
  Channels x;
  load_channels(p, where, sub, d, x);
  float of_sub[kSubs][2];
  {
    float total[2] = {1.0f, 1.0f};
#pragma unroll
    for (int i = 0; i < kSub; ++i) total[0] = total[0] * x.e[i][0], total[1] = total[1] * x.e[i][1];
    *reinterpret_cast<float2 *>(decays + sub * kTile + 2 * lane) = make_float2(total[0], total[1]);
  }
  __syncthreads();
#pragma unroll
  for (int t = 0; t < kSubs; ++t) {
    const float2 w = *reinterpret_cast<const float2 *>(decays + t * kTile + 2 * lane);
    of_sub[t][0] = w.x, of_sub[t][1] = w.y;
  }
  write_across(x, of_sub, sub, shared);

  // through the states: q from grad_o and the state before, k from v and the gradient of the state after
  float q_state[8][4] = {}, k_state[8][4] = {}, product[kSub] = {};
  for (int step = 0; step < steps; ++step) {
    wait_copies<1>();
    __syncthreads();
    const uint32_t stage = base + uint32_t(step % kStages * kStageBytes);
    const Tile go{stage, kRowBytes}, v{stage + kTileBytes, kRowBytes}, s{stage + 2 * kTileBytes, kRowBytes},
        h{stage + 3 * kTileBytes, kRowBytes};
#pragma unroll
    for (int k = 0; k < kTile; k += 16) {
      uint32_t a[4], c[4];
      load_a(a, go, int(kSub) * sub, k);
      load_a(c, v, int(kSub) * sub, k);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        uint32_t b[4];
        load_b(b, s, 16 * n, k);
        mma_pair(q_state[2 * n], q_state[2 * n + 1], a, b);
        load_b(b, h, 16 * n, k);
        mma_pair(k_state[2 * n], k_state[2 * n + 1], c, b);
      }
    }
    // the product of state and gradient for the 16 channels 16 sub ...: lane l takes elements 2 l, 2 l + 1
    const uint8_t *const rows = shared + step % kStages * kStageBytes + 2 * kTileBytes + 4 * lane;
#pragma unroll
    for (int i = 0; i < kSub; ++i) {
      const uint32_t sw = *reinterpret_cast<const uint32_t *>(rows + (int(kSub) * sub + i) * kRowBytes);
      const uint32_t hw =
          *reinterpret_cast<const uint32_t *>(rows + kTileBytes + (int(kSub) * sub + i) * kRowBytes);
      product[i] = numerics::fma(bf16_low(sw), bf16_low(hw), product[i]);
      product[i] = numerics::fma(bf16_high(sw), bf16_high(hw), product[i]);
    }
    __syncthreads();
    fetch(step + kStages);
  }
#pragma unroll
  for (int i = 0; i < kSub; ++i) {
#pragma unroll
    for (int far = 16; far > 0; far /= 2)
      product[i] = product[i] + __shfl_xor_sync(0xFFFFFFFFu, product[i], far);
    if (lane == 0) products[int(kSub) * sub + i] = product[i];
  }
  wait_copies<0>();
  __syncthreads(); // the stages are free

  float *const sums = reinterpret_cast<float *>(shared) + 4 * sub * kSumFloats; // of this warp
  spill(q_state, sums);
  spill(k_state, sums + kSumFloats);
  const Tile da{base + kGradAt, kRowBytes};
  {
    float q_across[8][4] = {}, k_across[8][4] = {};
    for (int other = 0; other < kSubs; ++other) {
      if (other == sub) continue;
      const bool earlier = other < sub; // k of an earlier sub-chunk for q, or q of a later one for k
      uint32_t a[4];
      if (earlier)
        load_a(a, da, int(kSub) * sub, int(kSub) * other);
      else
        load_a_transposed(a, da, int(kSub) * sub, int(kSub) * other);
      const int block = earlier ? pair_index(sub, other) : kPairs + pair_index(other, sub);
      const Tile operand{base + uint32_t(kAcrossAt + block * kBlockBytes), kRowBytes};
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        uint32_t b[4];
        load_b_transposed(b, operand, 16 * n, 0);
        if (earlier)
          mma_pair(q_across[2 * n], q_across[2 * n + 1], a, b);
        else
          mma_pair(k_across[2 * n], k_across[2 * n + 1], a, b);
      }
    }
    spill(q_across, sums + 2 * kSumFloats);
    spill(k_across, sums + 3 * kSumFloats);
  }
  __syncthreads(); // the operands across sub-chunks are free
  float *const da32 = reinterpret_cast<float *>(shared + kAcrossAt);
  for (int i = int(threadIdx.x); i < kChunk * kSub / 4; i += kThreads) {
    const int row = i / 4, col = row / int(kSub) * int(kSub) + 4 * (i % 4);
    *reinterpret_cast<float4 *>(da32 + row * kGradStride + col) =
        *reinterpret_cast<const float4 *>(grads + row * kChunk + col);
  }
  __syncthreads();

  const float scale = p.shape.scale;
  const float *const own = da32 + int(kSub) * sub * (kGradStride + 1); // the block on the diagonal
  float *const mine = sums + 2 * lane;
  float before[2] = {1.0f, 1.0f}, after[2] = {1.0f, 1.0f}, c[2] = {1.0f, 1.0f};
#pragma unroll
  for (int y = 0; y < 2; ++y) {
#pragma unroll
    for (int t = 0; t < kSubs; ++t)
      if (t < sub) before[y] = before[y] * of_sub[t][y];
#pragma unroll
    for (int t = int(kSubs) - 1; t >= 0; --t)
      if (t > sub) after[y] = after[y] * of_sub[t][y];
  }
  const int64_t out = where.offset(p.shape, key) + d, stride = p.shape.heads * key;
  float decayed[kSub][2];
#pragma unroll
  for (int i = 0; i < kSub; ++i) {
    float sum[2] = {0.0f, 0.0f}, dq[2];
#pragma unroll
    for (int y = 0; y < 2; ++y) {
#pragma unroll
      for (int j = 0; j < i; ++j) decayed[j][y] = decayed[j][y] * x.e[i][y];
      decayed[i][y] = y == 0 ? bf16_low(x.k[i]) : bf16_high(x.k[i]);
    }
#pragma unroll
    for (int j = 0; j <= i; ++j) {
      const float a = own[i * kGradStride + j];
      sum[0] = numerics::fma(a, decayed[j][0], sum[0]);
      sum[1] = numerics::fma(a, decayed[j][1], sum[1]);
    }
    float *const at = mine + i * kSumStride;
#pragma unroll
    for (int y = 0; y < 2; ++y) {
      c[y] = c[y] * x.e[i][y];
      const float h = before[y] * at[y];
      dq[y] = scale * numerics::fma(c[y], h + at[2 * kSumFloats + y], sum[y]);
      at[y] = (y == 0 ? bf16_low(x.q[i]) : bf16_high(x.q[i])) * dq[y];
    }
    const int row = int(kSub) * sub + i;
    if (row < where.rows && d < key)
      *reinterpret_cast<float2 *>(p.dq + out + row * stride) = make_float2(dq[0], dq[1]);
  }
  float suffix[2] = {0.0f, 0.0f}, through[2] = {0.0f, 0.0f};
  c[0] = c[1] = 1.0f;
#pragma unroll
  for (int j = int(kSub) - 1; j >= 0; --j) {
    float sum[2] = {0.0f, 0.0f}, dk[2];
#pragma unroll
    for (int y = 0; y < 2; ++y) {
#pragma unroll
      for (int i = j + 1; i < kSub; ++i) decayed[i][y] = decayed[i][y] * x.e[j + 1 < kSub ? j + 1 : j][y];
      decayed[j][y] = y == 0 ? bf16_low(x.q[j]) : bf16_high(x.q[j]);
      if (j + 1 < kSub) c[y] = c[y] * x.e[j + 1 < kSub ? j + 1 : j][y];
    }
#pragma unroll
    for (int i = j; i < kSub; ++i) {
      const float a = own[i * kGradStride + j];
      sum[0] = numerics::fma(a, decayed[i][0], sum[0]);
      sum[1] = numerics::fma(a, decayed[i][1], sum[1]);
    }
    float *const at = mine + j * kSumStride;
#pragma unroll
    for (int y = 0; y < 2; ++y) {
      const float k = y == 0 ? bf16_low(x.k[j]) : bf16_high(x.k[j]), u = after[y] * at[kSumFloats + y];
      dk[y] = scale * numerics::fma(c[y], u + at[3 * kSumFloats + y], sum[y]);
      through[y] = numerics::fma(k, c[y] * u, through[y]);
      suffix[y] = suffix[y] + (at[y] - k * dk[y]);
      at[y] = suffix[y];
    }
    const int row = int(kSub) * sub + j;
    if (row < where.rows && d < key)
      *reinterpret_cast<float2 *>(p.dk + out + row * stride) = make_float2(dk[0], dk[1]);
  }
  *reinterpret_cast<float2 *>(suffixes + sub * kTile + 2 * lane) = make_float2(suffix[0], suffix[1]);
  *reinterpret_cast<float2 *>(throughs + sub * kTile + 2 * lane) = make_float2(through[0], through[1]);
  __syncthreads();
  float carry[2];
#pragma unroll
  for (int y = 0; y < 2; ++y) {
    const int channel = 2 * lane + y;
    float sum = throughs[channel], whole = 1.0f;
#pragma unroll
    for (int t = 1; t < kSubs; ++t) sum = sum + throughs[t * kTile + channel];
#pragma unroll
    for (int t = 0; t < kSubs; ++t) whole = whole * of_sub[t][y];
    carry[y] = scale * numerics::fma(whole, products[channel], sum);
#pragma unroll
    for (int t = int(kSubs) - 1; t > 0; --t)
      if (t > sub) carry[y] = carry[y] + suffixes[t * kTile + channel];
  }
#pragma unroll
  for (int i = 0; i < kSub; ++i) {
    const int row = int(kSub) * sub + i;
    const float2 local = *reinterpret_cast<const float2 *>(mine + i * kSumStride);
    if (row < where.rows && d < key)
      *reinterpret_cast<float2 *>(p.dg + out + row * stride) =
          make_float2(carry[0] + local.x, carry[1] + local.y);
  }
}

} // namespace

void launch(const InputGrads &p, cudaStream_t stream) {
  check(cudaFuncSetAttribute(input_grads_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
        "shared memory of GLA's input_grads_kernel");
  const dim3 grid(unsigned(p.shape.all_chunks()), blocks_for(p.shape.key, kTile));
  input_grads_kernel<<<grid, kThreads, kBytes, stream>>>(p);
  check_launch("GLA's input_grads_kernel");
}

} // namespace nvfp4::cuda::gla
