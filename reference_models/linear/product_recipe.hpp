// SPDX-License-Identifier: Apache-2.0
// What a linear layer's recipe says of one of its products.
#pragma once
#include "nvfp4/reference_models/linear/random_key.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"

namespace nvfp4::models {

[[nodiscard]] inline const GemmRecipe &gemm_of(const LinearRecipe &l, Product p) {
  return p == Product::fprop ? l.fprop : p == Product::dgrad ? l.dgrad : l.wgrad;
}

/// Whether an operand of it is rounded stochastically: without, every draw is the same.
[[nodiscard]] inline bool is_stochastic(const GemmRecipe &g) {
  return g.a.rounding != ElementRounding::nearest || g.b.rounding != ElementRounding::nearest;
}

} // namespace nvfp4::models
