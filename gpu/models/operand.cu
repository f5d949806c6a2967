// SPDX-License-Identifier: Apache-2.0
// Rounding, BF16 operands, values of operands, and the epilogue of a product.
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
  const uint32_t low = c < cols ? bf16_word(x[r * cols + c]) : 0,
                 high = c + 1 < cols ? bf16_word(x[r * cols + c + 1]) : 0;
  *reinterpret_cast<uint32_t *>(words + i) = low | high << 16;
}

/// words (cols, padded) from x (rows, cols), through tiles of 64 x 32.
__global__ void pack_columns_kernel(const float *x, int64_t rows, int64_t cols, int64_t padded,
                                    uint16_t *words) {
  __shared__ uint16_t tile[64][34];
  const int64_t c0 = int64_t(blockIdx.x) * 32;
  for (int64_t r0 = int64_t(blockIdx.y) * 64; r0 < padded; r0 += int64_t(gridDim.y) * 64) {
    __syncthreads();
    for (int i = int(threadIdx.y); i < 64; i += 8) {
      const int64_t r = r0 + i, c = c0 + threadIdx.x;
      tile[i][threadIdx.x] = r < rows && c < cols ? bf16_word(x[r * cols + c]) : uint16_t(0);
    }
    __syncthreads();
    for (int j = int(threadIdx.y); j < 32; j += 8) {
      const int64_t c = c0 + j, r = r0 + 2 * threadIdx.x;
      if (c < cols && r < padded)
        *reinterpret_cast<uint32_t *>(words + c * padded + r) =
            tile[2 * threadIdx.x][j] | uint32_t(tile[2 * threadIdx.x + 1][j]) << 16;
    }
  }
}

__global__ void values_kernel(Rule rule, const uint8_t *codes, int64_t row_bytes, const uint8_t *scales,
                              int64_t scale_cols, const GlobalScale *global, int64_t rows, int64_t width,
                              float *values) {
  const int64_t i = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= rows * width) return;
  const int64_t r = i / width, c = i % width;
  const uint8_t code = uint8_t(codes[r * row_bytes + c / 2] >> (4 * (c % 2)) & 15);
  values[i] = decode_element(rule, code, scales[r * scale_cols + c / 16], *global);
}

template <int N>
__global__ void finish_kernel(Epilogue epilogue, const float *alpha, const float *accumulators,
                              float *out, const float *bias, int64_t n, int64_t total) {
  const int64_t i = (int64_t(blockIdx.x) * kThreads + threadIdx.x) * N;
  if (i >= total) return;
  const float factor = alpha == nullptr ? 1.0f : *alpha;
  const int64_t j = bias == nullptr ? 0 : i % n;
  float acc[N], y[N] = {};
  const bool reads = epilogue.into != Epilogue::Into::overwrite;
  if constexpr (N == 4) {
    *reinterpret_cast<float4 *>(acc) = *reinterpret_cast<const float4 *>(accumulators + i);
    if (reads) *reinterpret_cast<float4 *>(y) = *reinterpret_cast<const float4 *>(out + i);
  } else {
    acc[0] = accumulators[i];
    if (reads) y[0] = out[i];
  }
#pragma unroll
  for (int e = 0; e < N; ++e)
    y[e] = finish(epilogue, factor, acc[e], y[e], bias == nullptr ? nullptr : bias + j + e);
  if constexpr (N == 4)
    *reinterpret_cast<float4 *>(out + i) = *reinterpret_cast<const float4 *>(y);
  else
    out[i] = y[0];
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
    const dim3 grid(blocks_for(cols, 32), unsigned(std::min<int64_t>((padded + 63) / 64, 65535)));
    pack_columns_kernel<<<grid, dim3(32, 8), 0, stream>>>(x, rows, cols, padded, out.words.as<uint16_t>());
    check_launch("pack_columns_kernel");
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

void finish_outputs(const Epilogue &epilogue, const float *alpha, const float *accumulators,
                    float *out, const float *bias, int64_t m, int64_t n, cudaStream_t stream) {
  const int64_t total = m * n;
  if (total == 0) return;
  if (n % 4 == 0 && aligned16(accumulators) && aligned16(out))
    finish_kernel<4><<<blocks_for(total / 4, kThreads), kThreads, 0, stream>>>(epilogue, alpha, accumulators,
                                                                               out, bias, n, total);
  else
    finish_kernel<1><<<blocks_for(total, kThreads), kThreads, 0, stream>>>(epilogue, alpha, accumulators, out,
                                                                           bias, n, total);
  check_launch("finish_kernel");
}

} // namespace nvfp4::cuda
