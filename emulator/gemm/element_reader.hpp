// SPDX-License-Identifier: Apache-2.0
// Elements of any narrow format as FP32 values and exponent fields, the form that the FDPA kernels read.
// Internal.
#pragma once
#include "nvfp4/emulator/formats/code_view.hpp"
#include "nvfp4/emulator/formats/format.hpp"

namespace nvfp4::gemm {

/// Exponent of a zero: below every other by more than a scale can add.
inline constexpr int16_t kZeroExponent = -0x2000;

/// Reads n elements from k on. values: exact FP32; exponents: the decoded exponent (subnormals have the
/// format's minimum). Zeros, NaN and Inf become value 0 with kZeroExponent.
void read_elements(FormatId id, CodeView codes, int64_t k, int64_t n, float *values, int16_t *exponents);

} // namespace nvfp4::gemm
