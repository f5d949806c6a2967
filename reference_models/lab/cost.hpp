// SPDX-License-Identifier: Apache-2.0
// What a recipe costs: bits that are stored, tensor-core time and quantization work, counted from the recipe
// and the shapes of a model's linear layers. Counts, no timings.
#pragma once
#include "nvfp4/reference_models/lab/operators.hpp"

namespace nvfp4::models {

struct RecipeCost {
  /// Bits an element of all copies that the three products read. A BF16 or FP32 tensor has one copy.
  /// Block-scaled operands are contracted along their blocks, so a tensor that two products read has two
  /// copies, with scales as hardware reads them: one a row and block, tiles too.
  double x = 0, weight = 0, dy = 0;
  /// Tensor-core time over that of BF16, by the K of one instruction: instructions of one family take equal
  /// time, so K = 64 against K = 16 is a quarter. With the Hot-Channel Patch's products. NaN where a product
  /// uses no tensor core.
  double tensor_time = 0;
  double multiply_adds = 0; ///< over those without a patch and a quantized mean
  double rotations =
      0; ///< additions and multiplications of rotations, an element of a copy that is quantized
  double random_bits = 0; ///< an element of such a copy
};

/// Over the multiply-adds of all products of `operators`, which are those of one step.
[[nodiscard]] RecipeCost recipe_cost(const Recipe &recipe, const std::vector<LabOperator> &operators);
/// Appends cost/LABEL/{bits.x,bits.w,bits.dy,tensor_time,multiply_adds,rotations,random_bits}.
void write_cost(Measures &to, const std::string &label, const RecipeCost &cost);

} // namespace nvfp4::models
