// SPDX-License-Identifier: Apache-2.0
// Rounding, BF16 operands, values of operands.
#include "nvfp4/gpu/device/bf16.cuh"
#include "nvfp4/gpu/models/operand.hpp"

#include <algorithm>

namespace nvfp4::cuda {
namespace {

constexpr int kThreads = 256;

[[nodiscard]] bool aligned16(const void *p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

/// N elements a thread; n is a multiple of N.
template <int N> __global__ void round_kernel(const float *x, int64_t n, float *y) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (i >= n) return;
  if constexpr (N == 4) {
    const float4 v = *reinterpret_cast<const float4 *>(x + i);
    *reinterpret_cast<float4 *>(y + i) =
        make_float4(round_to_bf16(v.x), round_to_bf16(v.y), round_to_bf16(v.z), round_to_bf16(v.w));
  } else {
    y[i] = round_to_bf16(x[i]);
  }
}

__global__ void pack_rows_kernel(const float *x, int64_t rows, int64_t cols, int64_t padded,
                                 uint16_t *words) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * 2;
  if (i >= rows * padded) return;
  const int64_t r = i / padded, c = i % padded;
  *reinterpret_cast<uint32_t *>(words + i) =
      bf16_pair(c < cols ? x[r * cols + c] : 0.0f, c + 1 < cols ? x[r * cols + c + 1] : 0.0f);
}

/// Rows without padding, eight elements a thread; n is a multiple of 8.
__global__ void pack_kernel(const float *x, int64_t n, uint16_t *words) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (8 * i >= n) return;
  const float4 v = reinterpret_cast<const float4 *>(x)[2 * i],
               w = reinterpret_cast<const float4 *>(x)[2 * i + 1];
  reinterpret_cast<uint4 *>(words)[i] =
      make_uint4(bf16_pair(v.x, v.y), bf16_pair(v.z, v.w), bf16_pair(w.x, w.y), bf16_pair(w.z, w.w));
}

/// Four elements of row r from column c on, zeros outside. vectors: cols is a multiple of 4 and x is aligned.
__device__ inline float4 read_four(const float *x, int64_t rows, int64_t cols, int64_t r, int64_t c,
                                   bool vectors) {
  if (r >= rows || c >= cols) return make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  const float *const at = x + r * cols + c;
  if (vectors) return *reinterpret_cast<const float4 *>(at);
  return make_float4(at[0], c + 1 < cols ? at[1] : 0.0f, c + 2 < cols ? at[2] : 0.0f,
                     c + 3 < cols ? at[3] : 0.0f);
}

/// words (cols, padded) from x (rows, cols), through tiles of 64 x 64; a thread reads four columns of two
/// pairs of rows.
__global__ void __launch_bounds__(kThreads)
    pack_columns_kernel(const float *x, int64_t rows, int64_t cols, int64_t padded, bool vectors,
                        uint16_t *words) {
  __shared__ uint32_t tile[64][33]; // [column][pair of rows]
  const int64_t c0 = int64_t(blockIdx.x) * 64;
  const int four = int(threadIdx.x) % 16 * 4, pair = int(threadIdx.x) / 16, lane = int(threadIdx.x) % 32;
  for (int64_t r0 = int64_t(blockIdx.y) * 64; r0 < padded; r0 += int64_t(gridDim.y) * 64) {
    float4 v[2][2];
#pragma unroll
    for (int half = 0; half < 2; ++half)
#pragma unroll
      for (int i = 0; i < 2; ++i)
        v[half][i] = read_four(x, rows, cols, r0 + 32 * half + 2 * pair + i, c0 + four, vectors);
    __syncthreads();
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float4 &low = v[half][0], &high = v[half][1];
      tile[four][16 * half + pair] = bf16_pair(low.x, high.x);
      tile[four + 1][16 * half + pair] = bf16_pair(low.y, high.y);
      tile[four + 2][16 * half + pair] = bf16_pair(low.z, high.z);
      tile[four + 3][16 * half + pair] = bf16_pair(low.w, high.w);
    }
    __syncthreads();
    const int64_t r = r0 + 2 * lane;
#pragma unroll
    for (int j = int(threadIdx.x) / 32; j < 64; j += kThreads / 32)
      if (c0 + j < cols && r < padded)
        *reinterpret_cast<uint32_t *>(words + (c0 + j) * padded + r) = tile[j][lane];
  }
}

__global__ void values_kernel(Rule rule, const uint8_t *codes, int64_t row_bytes, const uint8_t *scales,
                              int64_t scale_cols, const GlobalScale *global, int64_t rows, int64_t width,
                              float *values) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rows * width) return;
  const int64_t r = i / width, c = i % width;
  const uint8_t code = uint8_t(codes[r * row_bytes + c / 2] >> (4 * (c % 2)) & 15);
  values[i] = decode_element(rule, code, scales[r * scale_cols + c / 16], int(c % 16), *global);
}

} // namespace

DeviceOperand CudaOperand::view() const {
  if (!scaled) return {FormatId::bf16, bf16_rows, bf16_padded_k, bf16_padded_k, words.as<uint8_t>(), nullptr};
  DeviceOperand o = q.operand();
  o.k = o.padded_k; // a product runs over whole blocks
  return o;
}

void round_array_to_bf16(const float *x, int64_t n, float *y, cudaStream_t stream) {
  if (n == 0) return;
  if (n % 4 == 0 && aligned16(x) && aligned16(y))
    round_kernel<4><<<blocks_for(n / 4, kThreads), kThreads, 0, stream>>>(x, n, y);
  else
    round_kernel<1><<<blocks_for(n, kThreads), kThreads, 0, stream>>>(x, n, y);
  check_launch("round_kernel");
}

void pack_bf16(const UnitRule &unit, const float *x, int64_t rows, int64_t cols, Axis axis, CudaOperand &out,
               cudaStream_t stream) {
  const bool turned = axis == Axis::col;
  out.scaled = false;
  out.fp4_ready = false;
  out.bf16_rows = turned ? cols : rows;
  out.bf16_k = turned ? rows : cols;
  const int64_t padded = out.bf16_padded_k = (out.bf16_k + unit.k - 1) / unit.k * unit.k;
  out.words.reserve(out.bf16_rows * padded * 2);
  if (out.bf16_rows * padded == 0) return;
  if (turned) {
    const dim3 grid(blocks_for(cols, 64), unsigned(std::min<int64_t>((padded + 63) / 64, 65535)));
    pack_columns_kernel<<<grid, kThreads, 0, stream>>>(x, rows, cols, padded, cols % 4 == 0 && aligned16(x),
                                                       out.words.as<uint16_t>());
    check_launch("pack_columns_kernel");
  } else if (cols == padded && cols % 8 == 0 && aligned16(x)) {
    pack_kernel<<<blocks_for(rows * cols / 8, kThreads), kThreads, 0, stream>>>(x, rows * cols,
                                                                                out.words.as<uint16_t>());
    check_launch("pack_kernel");
  } else {
    pack_rows_kernel<<<blocks_for(rows * padded / 2, kThreads), kThreads, 0, stream>>>(
        x, rows, cols, padded, out.words.as<uint16_t>());
    check_launch("pack_rows_kernel");
  }
}

void read_values(const CudaOperand &operand, int64_t width, float *values, cudaStream_t stream) {
  const BlockScaled &info = operand.q.info;
  const int64_t n = info.rows * width;
  if (n == 0) return;
  values_kernel<<<blocks_for(n, kThreads), kThreads, 0, stream>>>(
      find_convention(info.convention).rule, operand.q.codes.as<uint8_t>(), info.row_bytes(),
      operand.q.scales.as<uint8_t>(), info.scale_cols(), operand.q.global(), info.rows, width, values);
  check_launch("values_kernel");
}

} // namespace nvfp4::cuda
