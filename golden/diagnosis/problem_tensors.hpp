// SPDX-License-Identifier: Apache-2.0
// A problem's operands and output from the tensors of files or of a caller. Errors name the source and the
// tensor.
#pragma once
#include "nvfp4/golden/diagnosis/problem.hpp"
#include "nvfp4/golden/io/tensor.hpp"

namespace nvfp4::diagnosis {

/// An operand as golden::read_operand() takes it. `source`, if any, holds the one tensor that it was
/// quantized from: other quantizers are tried too.
[[nodiscard]] ProblemOperand read_problem_operand(const io::TensorFile &file, const std::string &tensor,
                                                  const io::TensorFile *source, const Unit &unit, Side side);

/// D's words, F32, BF16 or F16, F64 for FP64 units; sets p.word and p.round. `rounded_to` is f32, bf16 or f16
/// where D is F32 and holds rounded results, else empty. Unit and operands must be set.
[[nodiscard]] std::vector<uint8_t> read_output(const io::TensorFile &file, const std::string &tensor,
                                               const std::string &rounded_to, Problem &p);

} // namespace nvfp4::diagnosis
