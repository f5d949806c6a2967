// SPDX-License-Identifier: Apache-2.0
// From names to roles, and from a recipe's weight operand to a quantizer of the export.
#include "nvfp4/reference_models/pretrained/trained_layers.hpp"

#include "nvfp4/golden/io/message.hpp"

#include <algorithm>

namespace nvfp4::models::pretrained {

std::optional<ModulePlace> linear_place(const std::string &name) {
  if (!name.ends_with(".weight")) return std::nullopt;
  const ModulePlace place = module_place(name);
  const auto &roles = linear_roles();
  if (std::find(roles.begin(), roles.end(), place.role) == roles.end()) return std::nullopt;
  return place;
}

void check_constant(const Recipe &recipe) {
  if (recipe.changes())
    throw Error("recipe '" + recipe.name + "' has rules with 'from', and weights that are served or exported have no step: "
                "give the recipe that the last steps ran, without 'from'");
}

TrainedLayers::TrainedLayers(const checkpoint::Weights &weights, const Recipe &recipe) {
  check_constant(recipe);
  std::vector<std::string> roles;
  for (const checkpoint::Weight &w : weights.all)
    if (const auto place = linear_place(w.name)) {
      roles.push_back(place->role);
      layers_ = std::max(layers_, place->layer + 1);
    }
  if (roles.empty())
    throw Error("no linear layer: expected names such as model.layers.0.self_attn.q_proj.weight");
  recipe_ = recipe.for_family(std::string(guess_family(roles).name));
}

LinearRecipe TrainedLayers::resolve(const ModulePlace &place) const {
  return recipe_.resolve(place.role, place.layer < 0 ? layers_ : place.layer, layers_);
}

checkpoint::WeightQuantizers recipe_quantizers(const checkpoint::Checkpoint &source, const Recipe &recipe) {
  const TrainedLayers layers(checkpoint::find_weights(source), recipe);
  return [layers](const std::string &name) -> std::optional<checkpoint::WeightQuantizer> {
    const auto place = linear_place(name);
    if (!place) return std::nullopt;
    const LinearRecipe linear = layers.resolve(*place);
    const OperandRecipe &weight = linear.fprop.b;
    if (weight.convention.empty()) return std::nullopt;
    const auto refuse = [&](const std::string &what) {
      throw Error("weight " + io::printable(name) + ": recipe '" + layers.recipe().name + "' " + what);
    };
    if (weight.hadamard)
      refuse(
          "rotates it before it is quantized, which no container says: a server would not rotate its inputs");
    if (linear.hcp.enabled)
      refuse("has the Hot-Channel Patch, whose residuals no container holds: take a recipe without it");
    if (weight.rounding != ElementRounding::nearest)
      refuse("rounds it " + std::string(to_string(weight.rounding)) +
             ", whose bytes depend on the step; expected rounding to nearest");
    return checkpoint::WeightQuantizer{.convention = weight.convention,
                                       .block_rows = weight.block_rows,
                                       .fused_amax = false,
                                       .source = linear.source};
  };
}

} // namespace nvfp4::models::pretrained
