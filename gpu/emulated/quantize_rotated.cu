// SPDX-License-Identifier: Apache-2.0
// The maximum of a rotated matrix, without exact rotations: FP32 sums whose error is bounded settle its BF16
// word unless it lies where two words meet. There the definition runs.
#include "nvfp4/gpu/emulated/quantize_level.cuh"
#include "nvfp4/gpu/emulated/quantize_tile.cuh"

#include <algorithm>

namespace nvfp4::cuda {
namespace {

constexpr int kThreads = 256;

/// The larger, NaN above all.
__device__ inline void raise(float &largest, float v) {
  asm("max.NaN.f32 %0, %0, %1;" : "+f"(largest) : "f"(v));
}

__device__ inline void report_estimate(float largest, uint32_t *out) {
  const uint32_t word = __reduce_max_sync(kAllLanes, bit_cast<uint32_t>(largest) & 0x7FFFFFFFu);
  if (threadIdx.x % 32 == 0 && word > *static_cast<volatile uint32_t *>(out)) atomicMax(out, word);
}

/// max |x H| of all groups. A thread takes groups down a column.
__global__ void __launch_bounds__(kThreads)
    column_estimate_kernel(const __grid_constant__ TileJob t, uint32_t *out) {
  const int64_t column = int64_t(blockIdx.x) * kThreads + threadIdx.x, columns = t.job.rows;
  float largest = 0.0f;
  for (int64_t first = int64_t(blockIdx.y) * 16; column < columns && first < t.present;
       first += int64_t(gridDim.y) * 16) {
    const float *const from = t.job.x + first * t.job.stride + column;
    const int64_t rows = t.present - first;
    float x[16];
    if (rows >= 16) {
#pragma unroll
      for (int i = 0; i < 16; ++i) x[i] = from[i * t.job.stride];
    } else {
#pragma unroll
      for (int i = 0; i < 16; ++i) x[i] = i < rows ? from[i * t.job.stride] : 0.0f;
    }
#pragma unroll
    for (int i = 0; i < 16; i += 2) {
      const uint32_t pair = bf16_pair(x[i], x[i + 1]);
      x[i] = bf16_low(pair ^ uint32_t(t.signs >> i & 1) << 15);
      x[i + 1] = bf16_high(pair ^ uint32_t(t.signs >> (i + 1) & 1) << 31);
    }
#pragma unroll
    for (int step = 1; step < 8; step *= 2)
#pragma unroll
      for (int i = 0; i < 16; ++i)
        if ((i & step) == 0) {
          const float a = x[i], b = x[i + step];
          x[i] = a + b;
          x[i + step] = a - b;
        }
#pragma unroll
    for (int i = 0; i < 8; ++i) raise(largest, fabsf(x[i]) + fabsf(x[i + 8])); // of a + b and a - b
  }
  report_estimate(largest, out);
}

/// The same along rows: four lanes hold a group. Rows are whole groups and begin on 16-byte boundaries.
__global__ void __launch_bounds__(kThreads)
    row_estimate_kernel(const __grid_constant__ TileJob t, int64_t rows, int64_t k, uint32_t *out) {
  const int lane = int(threadIdx.x) % 32;
  const uint32_t signs = uint32_t(t.signs) >> (4 * (lane % 4));
  const uint32_t flips[2] = {(signs & 1) << 15 | (signs & 2) << 30, (signs & 4) << 13 | (signs & 8) << 28};
  const float side = (lane & 1) != 0 ? -1.0f : 1.0f;
  constexpr int in_flight = 4;
  const int64_t quads = k / 4, step = int64_t(gridDim.x) * kThreads;
  float largest = 0.0f;
  for (int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    const float4 *const row = reinterpret_cast<const float4 *>(t.job.x + r * t.job.stride);
    // whole warps stay together for the exchange
    for (int64_t first = int64_t(blockIdx.x) * kThreads + threadIdx.x; first - lane < quads;
         first += in_flight * step) {
      float4 q[in_flight];
#pragma unroll
      for (int j = 0; j < in_flight; ++j)
        q[j] = first + j * step < quads ? row[first + j * step] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll
      for (int j = 0; j < in_flight; ++j) {
        const uint32_t low = bf16_pair(q[j].x, q[j].y) ^ flips[0],
                       high = bf16_pair(q[j].z, q[j].w) ^ flips[1];
        const float a = bf16_low(low) + bf16_high(low), b = bf16_low(low) - bf16_high(low),
                    c = bf16_low(high) + bf16_high(high), d = bf16_low(high) - bf16_high(high);
        const float own[4] = {a + c, b + d, a - c, b - d};
#pragma unroll
        for (const float v : own) {
          const float sum = __fmaf_rn(v, side, __shfl_xor_sync(kAllLanes, v, 1));
          raise(largest, fabsf(sum) + fabsf(__shfl_xor_sync(kAllLanes, sum, 2)));
        }
      }
    }
  }
  report_estimate(largest, out);
}

/// The BF16 maximum from an estimate of 4 times it. Four additions of at most 16 X, X the largest |x| of a
/// group, err by 2^-18 X in all; the rotation keeps norms, so X is at most the group's largest sum. NaN where
/// the estimate leaves a choice.
[[nodiscard]] __device__ inline float settled(uint32_t estimate) {
  const float quarter = 0.25f * bit_cast<float>(estimate);
  if (estimate == 0) return 0.0f;
  const uint32_t pair = bf16_pair(quarter * (1.0f - 0x1p-17f), quarter * (1.0f + 0x1p-17f));
  const bool one = pair >> 16 == (pair & 0xFFFF) && quarter >= 0x1p-100f && quarter <= 0x1p100f;
  return one ? bf16_low(pair) : bit_cast<float>(0x7FFFFFFFu);
}

/// Takes what the estimate settles, or rotates every group by the definition.
__global__ void settle_kernel(const __grid_constant__ TileJob t, const uint32_t *estimate,
                              const __grid_constant__ LevelEnd end) {
  const float known = estimate == nullptr ? bit_cast<float>(0x7FFFFFFFu) : settled(*estimate);
  const int64_t thread = int64_t(blockIdx.x) * blockDim.x + threadIdx.x, columns = t.job.k / kHadamardSize;
  AmaxWords *const out = end.maxima;
  if (known == known) {
    if (thread == 0) *out = {bit_cast<uint32_t>(known), 0, 1};
    return end_level(end);
  }
  Amax a;
  for (int64_t i = thread; i < t.job.rows * columns; i += int64_t(gridDim.x) * blockDim.x) {
    float x[kHadamardSize];
    rotated_group(t, i, x);
    for (const float v : x) a.add(v);
  }
  a = warp_merged(a);
  if (threadIdx.x % 32 == 0) merge_into(out, a);
  end_level(end);
}

/// The maximum of every row of the rotated matrix, exact rotations. A warp whose groups are of one row goes to memory once.
__global__ void rotated_rows_kernel(const __grid_constant__ TileJob t, AmaxWords *out) {
  const int64_t groups = t.job.rows * (t.job.k / kHadamardSize), step = int64_t(gridDim.x) * blockDim.x;
  const int lane = int(threadIdx.x) % 32;
  // whole warps stay together
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i - lane < groups; i += step) {
    Amax a;
    int64_t row = -1;
    if (i < groups) {
      float x[kHadamardSize];
      row = rotated_group(t, i, x);
      for (const float v : x) a.add(v);
    }
    const bool together = __all_sync(kAllLanes, row == __shfl_sync(kAllLanes, row, 0));
    if (together) a = warp_merged(a);
    if (row >= 0 && (!together || lane == 0)) merge_into(&out[row], a);
  }
}

} // namespace

void rotated_row_maxima(const TileJob &t, AmaxWords *maxima, cudaStream_t stream) {
  const int64_t groups = t.job.rows * (t.job.k / kHadamardSize);
  if (groups == 0) return;
  rotated_rows_kernel<<<unsigned(std::min<int64_t>(8192, (groups + 127) / 128)), 128, 0, stream>>>(t, maxima);
  check_launch("rotated_rows_kernel");
}

void rotated_maximum(const TileJob &t, const LevelEnd &end, cudaStream_t stream) {
  int64_t rows = t.job.rows, k = t.job.k;
  if (rows * k == 0) return;
  const bool estimates = t.turned || t.aligned;
  uint32_t *const estimate = &end.maxima[1].word;
  if (t.turned) {
    const unsigned across = blocks_for(rows, kThreads);
    const unsigned down = unsigned(std::clamp<int64_t>(4096 / across, 1, std::min<int64_t>(k / 16, 65535)));
    column_estimate_kernel<<<dim3(across, down), kThreads, 0, stream>>>(t, estimate);
    check_launch("column_estimate_kernel");
  } else if (estimates) {
    if (t.job.stride == k) k *= rows, rows = 1;
    const unsigned across = unsigned(std::clamp<int64_t>(k / (16 * kThreads), 1, 2048));
    const unsigned down = unsigned(std::clamp<int64_t>(4096 / across, 1, std::min<int64_t>(rows, 32768)));
    row_estimate_kernel<<<dim3(across, down), kThreads, 0, stream>>>(t, rows, k, estimate);
    check_launch("row_estimate_kernel");
  }
  settle_kernel<<<std::min<unsigned>(1024, blocks_for(t.job.rows * (t.job.k / 16), 128)), 128, 0, stream>>>(
      t, estimates ? estimate : nullptr, end);
  check_launch("settle_kernel");
}

} // namespace nvfp4::cuda
