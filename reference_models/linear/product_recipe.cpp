// SPDX-License-Identifier: Apache-2.0
// What an operand's convention says.
#include "nvfp4/reference_models/linear/product_recipe.hpp"

#include "nvfp4/emulator/quantize/convention.hpp"

namespace nvfp4::models {

bool has_global_scale(const OperandRecipe &o) {
  return !o.convention.empty() && has_tensor_level(find_convention(o.convention).rule);
}

bool needs_cpu(const OperandRecipe &o) {
  return o.decoded || o.scale_correction != ScaleCorrection::none || o.mean != MeanSplit::none ||
         o.format == OperandFormat::simulated || o.hadamard_size != kHadamardSize ||
         (!o.convention.empty() && format(find_convention(o.convention).rule.element).storage_bits > 8);
}

} // namespace nvfp4::models
