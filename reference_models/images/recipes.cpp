// SPDX-License-Identifier: Apache-2.0
// The recipes that language models do not have, put together from the parts that they share.
#include "nvfp4/reference_models/images/recipes.hpp"

#include "nvfp4/emulator/config.hpp"
#include "nvfp4/emulator/nearest.hpp"

#include <algorithm>
#include <array>
#include <vector>

namespace nvfp4::models {
namespace {

constexpr std::string_view kF32 = R"("fprop": {"a": "f32", "b": "f32", "output": "f32"},
      "dgrad": {"a": "f32", "b": "f32", "output": "f32"},
      "wgrad": {"a": "f32", "b": "f32", "output": "f32"},
      "weights": "int4-tensor")";
constexpr std::string_view kInt4 = R"("fprop": {"a": "block-scaled", "b": "block-scaled"},
      "dgrad": {"a": {"format": "block-scaled", "convention": "nvint4", "rounding": "sr-exact"}, "b": "block-scaled"},
      "wgrad": {"a": {"format": "block-scaled", "convention": "nvint4", "rounding": "sr-exact"}, "b": "block-scaled"})";
constexpr std::string_view kHead = R"(,
    "head": {"fprop": {"a": "bf16", "b": "bf16", "output": "f32"},
      "dgrad": {"a": "bf16", "b": "bf16"},
      "wgrad": {"a": "bf16", "b": "bf16"}})";

struct Named {
  std::string_view name, description;
  std::string_view linear, products; ///< of every layer, but for a head in BF16
  bool clip = false, head = false;
};

constexpr std::array<Named, 3> kRecipes = {{
    {.name = "tanh-int4",
     .description = "For nvfp4 cnn: weights of 15 levels, one scale a layer, softly clipped after each step; products in "
                    "FP32 (arXiv 2603.13931)",
     .linear = "int4",
     .products = kF32,
     .clip = true},
    {.name = "tanh-nvint4",
     .description = "For nvfp4 cnn: the soft clipping of tanh-int4, INT4 in blocks of 16 for all six operands, gradients rounded "
                    "stochastically, on the exact unit; the head in BF16",
     .linear = "nvint4",
     .products = kInt4,
     .clip = true,
     .head = true},
    {.name = "nvint4",
     .description = "For nvfp4 cnn: INT4 in blocks of 16 for all six operands, gradients rounded stochastically, on the exact "
                    "unit; the head in BF16",
     .linear = "nvint4",
     .products = kInt4,
     .head = true},
}};

std::string json_of(const Named &n) {
  std::string json = "{\n  \"name\": \"" + std::string(n.name) + "\",\n  \"description\": \"";
  json.append(n.description).append("\",\n");
  if (n.clip) json.append("  \"soft_clip\": 3,\n");
  json.append("  \"linears\": {\n    \"").append(n.linear).append("\": {").append(n.products).append("}");
  if (n.head) json.append(kHead);
  json.append("\n  },\n  \"default\": \"").append(n.linear).append("\",\n  \"rules\": [");
  if (n.head) json.append("{\"roles\": [\"lm_head\"], \"use\": \"head\"}");
  return json.append("]\n}");
}

Recipe for_images(Recipe recipe) {
  if (!recipe.mixer_rules.empty() || recipe.mixers != FormatId::f32 || recipe.kv_cache.format != OperandFormat::f32 ||
      recipe.gate_inputs.format != OperandFormat::f32)
    throw Error("recipe '" + recipe.name + "' speaks of mixers, which a convolutional network has none of: drop mixers, "
                "mixer_rules, kv_cache and gate_inputs");
  if (recipe.optimizer != OptimizerRecipe{})
    throw Error("recipe '" + recipe.name + "' says what an optimizer keeps, which a convolutional network keeps in FP32: drop "
                "optimizer");
  if (recipe.amax_period > 1 || recipe.changes())
    throw Error("recipe '" + recipe.name + "' changes or holds something from step to step, which a convolutional network does not: "
                "drop amax_period and rules with 'from'");
  for (const auto &[name, l] : recipe.linears)
    for (const GemmRecipe *g : {&l.fprop, &l.dgrad, &l.wgrad})
      for (const OperandRecipe *o : {&g->a, &g->b})
        if (o->format == OperandFormat::simulated || o->mean != MeanSplit::none || o->hadamard_size != 16 ||
            o->hadamard_signs != RotationSigns::fixed)
          throw Error("recipe '" + recipe.name + "' has simulated operands or other rotations than those of 16 under the fixed signs, "
                      "or a mean that is quantized by itself, which a convolution's parts have no form of");
  std::erase_if(recipe.rules, [](const RecipeRule &rule) { return !rule.families.empty(); });
  return recipe;
}

} // namespace

std::string image_recipe_names() {
  std::string names;
  const auto add = [&](std::string_view name) { names.append(names.empty() ? "" : ", ").append(name); };
  for (const std::string_view name : builtin_recipes()) add(name);
  for (const Named &n : kRecipes) add(n.name);
  return names;
}

std::span<const std::string_view> image_recipes() {
  static constexpr auto names = [] {
    std::array<std::string_view, kRecipes.size()> n;
    for (size_t i = 0; i < n.size(); ++i) n[i] = kRecipes[i].name;
    return n;
  }();
  return names;
}

Recipe load_image_recipe(const std::string &name_or_path) {
  for (const Named &n : kRecipes)
    if (n.name == name_or_path) return for_images(parse_recipe(json_of(n), "recipe " + name_or_path));
  const bool names_no_file = name_or_path.find_first_of("/{+") == std::string::npos && !name_or_path.ends_with(".json");
  if (names_no_file && std::ranges::find(builtin_recipes(), name_or_path) == builtin_recipes().end())
    throw Error("unknown recipe '" + name_or_path + "'" +
                suggestion_among(name_or_path, kRecipes, [](const Named &n) { return n.name; }) + "; expected one of " +
                image_recipe_names() + ", or a file (with / or .json)");
  return for_images(load_recipe(name_or_path));
}

Recipe parse_image_recipe(std::string_view json, const std::string &where) { return for_images(parse_recipe(json, where)); }

} // namespace nvfp4::models
