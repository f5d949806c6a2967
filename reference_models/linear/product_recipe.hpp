// SPDX-License-Identifier: Apache-2.0
// What a linear layer's recipe says of one of its products.
#pragma once
#include "nvfp4/emulator/quantize/hadamard.hpp"
#include "nvfp4/reference_models/linear/random_key.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"

namespace nvfp4::models {

[[nodiscard]] inline const GemmRecipe &gemm_of(const LinearRecipe &l, Product p) {
  return p == Product::fprop ? l.fprop : p == Product::dgrad ? l.dgrad : l.wgrad;
}

/// Whether its convention has one scale for the tensor, which an amax given decides.
[[nodiscard]] bool has_global_scale(const OperandRecipe &o);

/// Whether random words decide an operand of it: without, every draw is the same.
[[nodiscard]] inline bool is_stochastic(const GemmRecipe &g) {
  const auto draws = [](const OperandRecipe &o) {
    return o.rounding != ElementRounding::nearest || o.scale_correction != ScaleCorrection::none ||
           o.hadamard_signs == RotationSigns::step || (o.decoded && o.first_rounding != ElementRounding::nearest);
  };
  return draws(g.a) || draws(g.b);
}

/// Whether an operand is made in a way that only the CPU's engine has.
[[nodiscard]] bool needs_cpu(const OperandRecipe &o);
/// What that is, for messages.
inline constexpr const char *kNeedsCpu = "decoded, scale_correction, mean, simulated, 16-bit elements or hadamard_size";
[[nodiscard]] inline bool needs_cpu(const LinearRecipe &l) {
  for (const GemmRecipe *g : {&l.fprop, &l.dgrad, &l.wgrad})
    if (needs_cpu(g->a) || needs_cpu(g->b)) return true;
  return false;
}

} // namespace nvfp4::models
