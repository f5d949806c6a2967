// SPDX-License-Identifier: Apache-2.0
// The factor by which a GEMM undoes the second levels of its operands, as scalar semantics: the same text on
// CPU and GPU. global_alpha.hpp applies it to tensors.
#pragma once
#include "nvfp4/emulator/quantize/rule.hpp"

namespace nvfp4 {

/// Three public forms, which differ in the last bit. f = 6 M_a * 6 M_b with M = 448 or 256 of each operand.
enum class AlphaRule : uint8_t {
  by_convention, ///< mul_const when both operands' scale is TransformerEngine's 6M / amax, else sdec_product
  mul_const,     ///< ((alpha * amax_a) * amax_b) * f32(1 / f): TransformerEngine common/recipe/nvfp4.cu
  div,           ///< ((alpha * amax_a) * amax_b) / f: its Python reference, custom_recipes/reference_nvfp4.py
  sdec_product,  ///< alpha * (p_a * p_b): torchao, ModelOpt, vLLM, FlashInfer callers
};
[[nodiscard]] constexpr auto names_of(AlphaRule) {
  return enum_names("alpha rule", "by_convention", "mul_const", "div", "sdec_product");
}
static_assert(names_of(AlphaRule{}).end_with(AlphaRule::sdec_product));

/// An operand's part in alpha.
struct AlphaShare {
  float amax = 1.0f;
  float range = 1.0f;        ///< 6 M
  float decode = 1.0f;       ///< p
  bool follows_amax = false; ///< the amax says all: a scale that the caller gave, or that is computed in
                             ///< another type, is not 6M / amax
};

/// The share of an operand with that amax (NaN where unknown) and decode scale. One without a second level
/// counts with 1; one with a level per row counts with amax 1, as in TransformerEngine: its rows are
/// multiplied by their amax after the GEMM.
[[nodiscard]] NVFP4_HD inline AlphaShare alpha_share(const Rule &r, float amax, float decode) {
  if (!has_level(r)) return {};
  const float range = largest_element(r) * r.e4m3_max;
  const bool follows = r.global == GlobalRule::te && r.decoding != Decoding::value_decode && amax == amax;
  if (r.per_row) return {1.0f, range, 1.0f / range, follows};
  return {amax, range, decode, follows};
}

[[nodiscard]] NVFP4_HD inline float combined_alpha(AlphaRule rule, const AlphaShare &a, const AlphaShare &b,
                                                   float alpha) {
  if (rule == AlphaRule::by_convention)
    rule = a.follows_amax && b.follows_amax ? AlphaRule::mul_const : AlphaRule::sdec_product;
  if (rule == AlphaRule::sdec_product) return alpha * (a.decode * b.decode);
  const float factor = a.range * b.range; // exact: at most 2688 * 2688
  const float product = alpha * a.amax * b.amax;
  return rule == AlphaRule::mul_const ? product * (1.0f / factor) : product / factor;
}

} // namespace nvfp4
