// SPDX-License-Identifier: Apache-2.0
// What a GEMM takes from a user: operands, which are quantized files, raw codes or dense values to be rounded
// to a unit's format; C; alpha and beta; and what must fit together.
#pragma once
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/emulator/quantize/block_scaled.hpp"
#include "nvfp4/emulator/quantize/global_alpha.hpp"

#include <map>
#include <optional>
#include <string>

namespace nvfp4::tool {

struct Operand {
  PackedOperand packed;
  std::optional<BlockScaled> scaled; ///< set when the file was written by nvfp4 quantize
};

/// Reads and packs one operand. A quantized tensor needs a unit of its element, scale and block; a dense one
/// a unit without scales, to whose format its values are rounded (nearest even; FP8 and narrower saturate)
/// unless the dtype is that format already.
[[nodiscard]] Operand read_operand(const std::string &path, const std::string &tensor, const Unit &unit,
                                   Side side);

/// The fields that the verbs which multiply have in common.
struct GemmFlags {
  std::string a, b, c, unit, a_tensor, b_tensor, c_tensor, accumulation = "mmasim",
                                                           alpha_rule = "by_convention";
  float alpha = 1.0f, beta = 0.0f;
};

/// by_convention, mul_const, div or sdec_product; the names for a CLI check.
[[nodiscard]] const std::map<std::string, AlphaRule> &alpha_rules();

/// Throws Error for an alpha or beta that is not finite, C without beta and beta without C.
void check_epilogue(const GemmFlags &flags);
/// Throws Error unless two quantized operands belong together: equal K, rotated alike, no beta with row
/// scales.
void check_operands(const GemmFlags &flags, const std::optional<BlockScaled> &a,
                    const std::optional<BlockScaled> &b);

/// C (m, n) as words of the epilogue's type: FP32, or FP64 where the unit accumulates in FP64.
[[nodiscard]] std::vector<uint8_t> read_c(const GemmFlags &flags, FormatId acc, int64_t m, int64_t n);

} // namespace nvfp4::tool
