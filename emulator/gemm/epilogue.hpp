// SPDX-License-Identifier: Apache-2.0
// The epilogue over a run of outputs. Internal; the definition of one output is epilogue() in gemm.hpp.
#pragma once
#include "nvfp4/emulator/gemm/gemm.hpp"

namespace nvfp4::gemm {

/// n FP32 accumulator words of one row become n output words at `out`. c: n FP32 source words, read when beta
/// != 0.
void epilogue_row(const uint32_t *acc, int64_t n, const GemmOptions &options, const uint8_t *c, uint8_t *out);

} // namespace nvfp4::gemm
