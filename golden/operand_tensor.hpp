// SPDX-License-Identifier: Apache-2.0
// What a GEMM takes, from the tensors of a file or of a caller: operands, C, accumulators, vectors. Errors
// name the source and the tensor.
#pragma once
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/golden/io/tensor.hpp"

#include <optional>

namespace nvfp4::golden {

struct FileOperand {
  GemmOperand packed;
  std::optional<BlockScaled> scaled; ///< set when the file holds a quantized tensor
};

/// Makes one operand the unit's (make_operand): a quantized tensor, or the dense matrix `tensor` of the file
/// (the only one where that is empty), F32, F64, F16, BF16, F8 or F4.
[[nodiscard]] FileOperand read_operand(const io::TensorFile &file, const std::string &tensor,
                                       const Unit &unit, Side side);

/// A matrix (m, n) as words of the epilogue's type: FP32, or FP64 where the unit accumulates in FP64. `what`
/// is its name in messages.
[[nodiscard]] std::vector<uint8_t> read_c(const io::TensorFile &file, const std::string &tensor,
                                          const char *what, FormatId acc, int64_t m, int64_t n);
/// A matrix (m, n) of accumulators: raw words of the unit's accumulator format.
[[nodiscard]] std::vector<uint8_t> read_accumulators(const io::TensorFile &file, FormatId acc, int64_t m,
                                                     int64_t n);
/// n FP32 values: a vector, a row or a column.
[[nodiscard]] std::vector<float> read_vector(const io::TensorFile &file, const char *what, int64_t n);

} // namespace nvfp4::golden
