// SPDX-License-Identifier: Apache-2.0
// Outputs from accumulators where more than alpha, beta and C meets them, in a pass of its own; FP32 outputs
// as BF16.
#include "nvfp4/gpu/emulated/gemm_detail.cuh"

#include <algorithm>

namespace nvfp4::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void finish_kernel(FormatId acc_format, const void *accumulators, int64_t n, int64_t outputs,
                              GemmOutput out, OutputVectors v) {
  const bool wide = acc_format == FormatId::f64;
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t o = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; o < outputs; o += step) {
    const int64_t i = o / n, j = o % n;
    OutputTerms t{.out = out.out,
                  .alpha = out.device_alpha != nullptr ? *out.device_alpha : out.alpha,
                  .beta = out.beta};
    if (out.beta != 0.0f)
      t.c = wide ? static_cast<const uint64_t *>(out.c)[o] : static_cast<const uint32_t *>(out.c)[o];
    float factor = 1.0f;
    if (v.row_factors != nullptr || v.column_factors != nullptr) {
      factor = joint_factor(v.row_factors == nullptr ? nullptr : v.row_factors + i * v.row_stride,
                            v.column_factors == nullptr ? nullptr : v.column_factors + j * v.column_stride);
      t.factor = &factor;
    }
    if (v.bias != nullptr) t.bias = v.bias + j;
    const uint64_t word = finish_output(t, acc_format,
                                        wide ? static_cast<const uint64_t *>(accumulators)[o]
                                             : static_cast<const uint32_t *>(accumulators)[o]);
    if (wide)
      static_cast<uint64_t *>(out.d)[o] = word;
    else if (out.out == FormatId::f32)
      static_cast<uint32_t *>(out.d)[o] = uint32_t(word);
    else
      static_cast<uint16_t *>(out.d)[o] = uint16_t(word);
  }
}

/// Four values a thread.
__global__ void narrow_kernel(const float *x, int64_t n, uint16_t *y) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t t = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; 4 * t < n; t += step) {
    const int count = int(min(int64_t(4), n - 4 * t));
    float v[4] = {};
    if (count == 4)
      *reinterpret_cast<float4 *>(v) = reinterpret_cast<const float4 *>(x)[t];
    else
      for (int i = 0; i < count; ++i) v[i] = x[4 * t + i];
    ushort4 words;
    uint16_t *const w = &words.x;
    for (int i = 0; i < 4; ++i) w[i] = v[i] != v[i] ? uint16_t(0x7FC0) : uint16_t(bf16_word(v[i]));
    if (count == 4)
      reinterpret_cast<ushort4 *>(y)[t] = words;
    else
      for (int i = 0; i < count; ++i) y[4 * t + i] = w[i];
  }
}

} // namespace

void narrow_to_bf16(const float *x, int64_t n, uint16_t *y, cudaStream_t stream) {
  if (n == 0) return;
  const auto grid = unsigned(std::min<int64_t>(1 << 20, ((n + 3) / 4 + kThreads - 1) / kThreads));
  narrow_kernel<<<grid, kThreads, 0, stream>>>(x, n, y);
  check_launch("narrow_kernel");
}

void finish_accumulators(FormatId acc_format, const void *accumulators, int64_t m, int64_t n,
                         const GemmOutput &output, const OutputVectors &vectors, cudaStream_t stream) {
  const int64_t outputs = m * n;
  if (outputs == 0) return;
  const auto grid = unsigned(std::min<int64_t>(1 << 20, (outputs + kThreads - 1) / kThreads));
  finish_kernel<<<grid, kThreads, 0, stream>>>(acc_format, accumulators, n, outputs, output, vectors);
  check_launch("finish_kernel");
}

} // namespace nvfp4::cuda
