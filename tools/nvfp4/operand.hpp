// SPDX-License-Identifier: Apache-2.0
// What a GEMM takes from files and flags: operands (quantized or dense), C and other inputs, alpha and beta.
// What must fit together is the library's to say.
#pragma once
#include "nvfp4/golden/operand_tensor.hpp"
#include "tools/nvfp4/command.hpp"

#include <map>
#include <optional>
#include <string>

namespace nvfp4::tool {

using Operand = golden::FileOperand;

/// Reads one operand and makes it the unit's (make_operand); errors name the file.
[[nodiscard]] Operand read_operand(const std::string &path, const std::string &tensor, const Unit &unit,
                                   Side side);

/// The fields that the verbs which multiply have in common.
struct GemmFlags {
  std::string a, b, c, unit, a_tensor, b_tensor, c_tensor, accumulation = "mmasim",
                                                           alpha_rule = "by_convention";
  float alpha = 1.0f, beta = 0.0f;
};

/// by_convention, mul_const, div or sdec_product; their names, for a check.
[[nodiscard]] const std::map<std::string, AlphaRule> &alpha_rules();
[[nodiscard]] OneOf alpha_rule_names();

/// Throws Error for C without beta and beta without C.
void check_epilogue(const GemmFlags &flags);

/// A matrix (m, n) as words of the epilogue's type: FP32, or FP64 where the unit accumulates in FP64. `what`
/// is its name in messages.
[[nodiscard]] std::vector<uint8_t> read_c(const std::string &path, const std::string &tensor,
                                          const char *what, FormatId acc, int64_t m, int64_t n);
/// A matrix (m, n) of accumulators: raw words of the unit's accumulator format.
[[nodiscard]] std::vector<uint8_t> read_accumulators(const std::string &path, FormatId acc, int64_t m,
                                                     int64_t n);
/// n FP32 values: a vector, a row or a column.
[[nodiscard]] std::vector<float> read_vector(const std::string &path, const char *what, int64_t n);

/// "0:1024=0.5,1024:1536=0.25": rows first to before last, and their global decode scale.
[[nodiscard]] std::vector<RowsFactor> parse_ranges(const std::string &text, const char *flag);

} // namespace nvfp4::tool
