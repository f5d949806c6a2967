// SPDX-License-Identifier: Apache-2.0
// What an operand's convention says.
#include "nvfp4/reference_models/linear/product_recipe.hpp"

#include "nvfp4/emulator/quantize/convention.hpp"

namespace nvfp4::models {

bool has_global_scale(const OperandRecipe &o) {
  return !o.convention.empty() && has_tensor_level(find_convention(o.convention).rule);
}

} // namespace nvfp4::models
