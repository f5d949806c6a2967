// SPDX-License-Identifier: Apache-2.0
// A GEMM operand as a user gives it: a quantized file, raw codes, or dense values to be rounded to a unit's format.
#pragma once
#include "emulator/gemm/gemm.hpp"
#include "emulator/quantize/block_scaled.hpp"

#include <optional>
#include <string>

namespace nvfp4::tool {

struct Operand {
  PackedOperand packed;
  std::optional<BlockScaled> scaled; ///< set when the file was written by nvfp4 quantize
};

/// Reads and packs one operand. A quantized tensor needs a unit of its element, scale and block; a dense one a unit
/// without scales, to whose format its values are rounded (nearest even; FP8 and narrower saturate) unless the dtype
/// is that format already.
[[nodiscard]] Operand read_operand(const std::string &path, const std::string &tensor, const Unit &unit, Side side);

} // namespace nvfp4::tool
