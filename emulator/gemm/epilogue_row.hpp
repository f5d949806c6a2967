// SPDX-License-Identifier: Apache-2.0
// The epilogue over a run of outputs, in loops that a compiler vectorizes. Internal; the definition of one
// output is finish_output().
#pragma once
#include "nvfp4/emulator/gemm/epilogue.hpp"

namespace nvfp4::gemm {

/// What n neighbouring outputs of one row share, and the arrays of what they do not. Null: without.
struct RowTerms {
  FormatId out = FormatId::f32;
  float alpha = 1.0f, beta = 0.0f;
  const uint8_t *c = nullptr; ///< (n) FP32 words, read with beta
  const float *row_factor = nullptr;
  const float *column_factors = nullptr; ///< (n)
  const float *bias = nullptr;           ///< (n)
};

/// n FP32 accumulator words of one row become n output words at `out`.
void epilogue_row(const uint32_t *acc, int64_t n, const RowTerms &terms, uint8_t *out);

} // namespace nvfp4::gemm
