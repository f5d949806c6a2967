// SPDX-License-Identifier: Apache-2.0
// Bias and factors of outputs, beside alpha, beta and C, by the text of emulator/gemm/epilogue.hpp; and FP32
// to BF16 as PyTorch's tensors have it. The GPU's text, tested on the CPU.
#pragma once
#include "nvfp4/emulator/gemm/epilogue.hpp"

namespace nvfp4::cuda {

/// Factors and bias of rows and columns. null: none; strides are in floats.
struct OutputVectors {
  const float *bias = nullptr, *row_factors = nullptr, *column_factors = nullptr;
  int64_t row_stride = 1, column_stride = 1;

  /// The word of output (i, j), whose alpha, beta and C are in `terms`.
  [[nodiscard]] NVFP4_HD uint64_t finish(OutputTerms terms, FormatId acc_format, uint64_t acc, int64_t i,
                                         int64_t j) const {
    float factor = 1.0f;
    if (row_factors != nullptr || column_factors != nullptr) {
      factor = joint_factor(row_factors == nullptr ? nullptr : row_factors + i * row_stride,
                            column_factors == nullptr ? nullptr : column_factors + j * column_stride);
      terms.factor = &factor;
    }
    if (bias != nullptr) terms.bias = bias + j;
    return finish_output(terms, acc_format, acc);
  }
};

/// Nearest even; every NaN becomes 0x7FC0.
[[nodiscard]] NVFP4_HD inline uint16_t narrow_word(float x) {
  return x != x ? uint16_t(0x7FC0) : bf16_word(x);
}

} // namespace nvfp4::cuda
