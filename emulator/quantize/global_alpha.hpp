// SPDX-License-Identifier: Apache-2.0
// The one factor by which a GEMM of two block-scaled operands undoes their global scales.
#pragma once
#include "nvfp4/emulator/quantize/block_scaled.hpp"
#include "nvfp4/emulator/quantize/convention.hpp"

namespace nvfp4 {

/// Three public forms, which differ in the last bit. f = 6 M_a * 6 M_b with M = 448 or 256 of each operand.
enum class AlphaRule : uint8_t {
  by_convention, ///< mul_const when both operands' scale is TransformerEngine's 6M / amax, else sdec_product
  mul_const,     ///< ((alpha * amax_a) * amax_b) * f32(1 / f): TransformerEngine common/recipe/nvfp4.cu
  div,           ///< ((alpha * amax_a) * amax_b) / f: its Python reference, custom_recipes/reference_nvfp4.py
  sdec_product,  ///< alpha * (p_a * p_b): torchao, ModelOpt, vLLM, FlashInfer callers
};

/// An operand's second level of scaling, as alpha reads it.
struct GlobalFactor {
  const Convention *convention = nullptr; ///< row of conventions(); null: `decode` is all that is known
  float amax = 1.0f;                      ///< read only with a convention
  float decode = 1.0f;
};

/// The second level of a tensor; of one without the name of a convention, its decode scale. Throws Error for
/// an unknown name.
[[nodiscard]] GlobalFactor global_factor(const BlockScaled &q);

/// An operand with a global scale per row counts with amax 1, as in TransformerEngine: its rows are
/// multiplied by row_amax after the GEMM. An operand without a second level counts with 1. Throws Error where
/// the rule reads an amax that the operand was never given.
[[nodiscard]] float global_alpha(const GlobalFactor &a, const GlobalFactor &b, float alpha, AlphaRule rule);
[[nodiscard]] float global_alpha(const BlockScaled &a, const BlockScaled &b, float alpha, AlphaRule rule);

} // namespace nvfp4
