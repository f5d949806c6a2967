// SPDX-License-Identifier: Apache-2.0
// The linear layers of a checkpoint by their names, and how a recipe's forward product has each one's weight.
#pragma once
#include "nvfp4/golden/checkpoint/export.hpp"
#include "nvfp4/reference_models/diagnostics/finite.hpp"
#include "nvfp4/reference_models/family/family.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"

namespace nvfp4::models::pretrained {

/// A layer of a model whose weights have these names; nothing for norms, embeddings and the like.
[[nodiscard]] std::optional<ModulePlace> linear_place(const std::string &name);

/// Error for a recipe with rules that count from a later step: weights that are served or exported have no step.
void check_constant(const Recipe &recipe);

/// A recipe, bound to the family that a checkpoint's layers are of.
class TrainedLayers {
public:
  /// Error also like check_constant()'s.
  TrainedLayers(const checkpoint::Weights &weights, const Recipe &recipe);

  [[nodiscard]] LinearRecipe resolve(const ModulePlace &place) const;
  [[nodiscard]] const Recipe &recipe() const { return recipe_; }

private:
  Recipe recipe_;
  int64_t layers_ = 0;
};

/// The weights as the recipe's forward products quantize them: layers that the recipe keeps in BF16 or FP32
/// stay numbers. What it asks for and a container cannot say is an Error that names the layer when the export
/// comes to it: rotation, the Hot-Channel Patch, rounding that is not to nearest.
[[nodiscard]] checkpoint::WeightQuantizers recipe_quantizers(const checkpoint::Checkpoint &source,
                                                             const Recipe &recipe);

} // namespace nvfp4::models::pretrained
