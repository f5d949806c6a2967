// SPDX-License-Identifier: Apache-2.0
// Outputs from accumulators where more than alpha, beta and C meets them, in a pass of its own.
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

} // namespace

void finish_accumulators(FormatId acc_format, const void *accumulators, int64_t m, int64_t n,
                         const GemmOutput &output, const OutputVectors &vectors, cudaStream_t stream) {
  const int64_t outputs = m * n;
  if (outputs == 0) return;
  const auto grid = unsigned(std::min<int64_t>(1 << 20, (outputs + kThreads - 1) / kThreads));
  finish_kernel<<<grid, kThreads, 0, stream>>>(acc_format, accumulators, n, outputs, output, vectors);
  check_launch("finish_kernel");
}

} // namespace nvfp4::cuda
