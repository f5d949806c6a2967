// SPDX-License-Identifier: Apache-2.0
// Recipes for convolutional networks: the built-in ones, files, and some of their own.
#pragma once
#include "nvfp4/reference_models/recipe/recipe.hpp"

namespace nvfp4::models {

/// Names that load_image_recipe() takes besides those of builtin_recipes().
[[nodiscard]] std::span<const std::string_view> image_recipes();
/// All that it takes: "fp32, bf16, ..., nvint4".
[[nodiscard]] std::string image_recipe_names();

/// As load_recipe(), and by the names of image_recipes(). Rules for families of language models go, for they speak of
/// none here: chon is hcp. Error, too, for a recipe with anything about mixers.
[[nodiscard]] Recipe load_image_recipe(const std::string &name_or_path);
/// The same of a recipe's JSON.
[[nodiscard]] Recipe parse_image_recipe(std::string_view json, const std::string &where);

} // namespace nvfp4::models
