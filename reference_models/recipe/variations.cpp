// SPDX-License-Identifier: Apache-2.0
// Recipes that differ from a built-in one in a switch or two: what systems do differently, one thing at a time. A system's
// name is given to none of them, since none has all of its arithmetic; README.md says what is from where.
#include "nvfp4/reference_models/recipe/recipe.hpp"

#include <array>

namespace nvfp4::models {
namespace {

constexpr std::array kVariations{
    RecipeVariation{"nvfp4-w1x16", "nvfp4", "nvfp4 with weights of dgrad in blocks of 1x16, quantized for themselves",
                    R"({"linears": {"nvfp4": {"dgrad": {"b": {"block_rows": 1}}}}})"},
    RecipeVariation{"nvfp4-decoded", "nvfp4",
                    "nvfp4 with 1x16 weights, where W of dgrad and x of wgrad are quantized from what fprop's copies decode to",
                    R"({"linears": {"nvfp4": {"fprop": {"b": {"block_rows": 1}},
                        "dgrad": {"b": {"block_rows": 1, "decoded": true}}, "wgrad": {"b": {"decoded": true}}}}})"},
    RecipeVariation{"nvfp4-decoded-sr", "nvfp4",
                    "nvfp4-decoded with stochastic rounding of W in dgrad and of x in wgrad too, and both rotated",
                    R"({"linears": {"nvfp4": {"fprop": {"b": {"block_rows": 1}},
                        "dgrad": {"a": {"hadamard": true},
                                  "b": {"block_rows": 1, "decoded": true, "rounding": "sr-carry8", "hadamard": true}},
                        "wgrad": {"b": {"decoded": true, "rounding": "sr-carry8"}}}}})"},
    RecipeVariation{"nvfp4-sr-x", "nvfp4-plain", "nvfp4-plain with stochastic rounding of dy in dgrad and wgrad and of x in wgrad",
                    R"({"linears": {"nvfp4": {"dgrad": {"a": {"rounding": "sr-carry8"}},
                        "wgrad": {"a": {"rounding": "sr-carry8"}, "b": {"rounding": "sr-carry8"}}}}})"},
    RecipeVariation{"nvfp4-eden", "nvfp4",
                    "nvfp4 with dgrad rotated and dy rounded to nearest under scales that are corrected and rounded stochastically",
                    R"({"linears": {"nvfp4": {
                        "dgrad": {"a": {"rounding": "rne", "hadamard": true, "scale_correction": "eden"},
                                  "b": {"block_rows": 1, "hadamard": true, "scale_correction": "eden"}},
                        "wgrad": {"a": {"rounding": "rne", "scale_correction": "eden"}, "b": {"scale_correction": "eden"}}}}})"},
    RecipeVariation{"nvfp4-4over6", "nvfp4", "nvfp4 with four over six for x in fprop and for weights",
                    R"({"linears": {"nvfp4": {"fprop": {"a": {"convention": "te-4over6"}, "b": {"convention": "te-4over6"}},
                        "dgrad": {"b": {"convention": "te-4over6"}}}}})"},
    RecipeVariation{"nvint4-hadamard", "nvfp4-plain", "NVINT4 to nearest, every product rotated, exact sums", R"({"linears": {"nvfp4": {
                        "fprop": {"a": {"format": "block-scaled", "convention": "nvint4", "hadamard": true},
                                  "b": {"format": "block-scaled", "convention": "nvint4", "hadamard": true}},
                        "dgrad": {"a": {"format": "block-scaled", "convention": "nvint4", "hadamard": true},
                                  "b": {"format": "block-scaled", "convention": "nvint4", "hadamard": true}},
                        "wgrad": {"a": {"format": "block-scaled", "convention": "nvint4", "hadamard": true},
                                  "b": {"format": "block-scaled", "convention": "nvint4", "hadamard": true}}}}})",
                    false},
    RecipeVariation{"mxint8", "mxfp8", "MXINT8 clipped symmetrically, to nearest in every product, exact sums", R"({"linears": {"mxfp8": {
                        "fprop": {"a": {"format": "block-scaled", "convention": "mxint8-ceil"},
                                  "b": {"format": "block-scaled", "convention": "mxint8-ceil"}},
                        "dgrad": {"a": {"format": "block-scaled", "convention": "mxint8-ceil"},
                                  "b": {"format": "block-scaled", "convention": "mxint8-ceil"}},
                        "wgrad": {"a": {"format": "block-scaled", "convention": "mxint8-ceil"},
                                  "b": {"format": "block-scaled", "convention": "mxint8-ceil"}}}}})",
                    false},
    RecipeVariation{"ue5m3", "nvfp4-plain", "E2M1 under UE5M3 scales of 1x16 without a global one, dy stochastic, exact sums",
                    R"({"linears": {"nvfp4": {
                        "fprop": {"a": {"format": "block-scaled", "convention": "amd-fp4"},
                                  "b": {"format": "block-scaled", "convention": "amd-fp4"}},
                        "dgrad": {"a": {"format": "block-scaled", "convention": "amd-fp4", "rounding": "sr-carry8"},
                                  "b": {"format": "block-scaled", "convention": "amd-fp4"}},
                        "wgrad": {"a": {"format": "block-scaled", "convention": "amd-fp4", "rounding": "sr-carry8"},
                                  "b": {"format": "block-scaled", "convention": "amd-fp4"}}}}})",
                    false}};

} // namespace

std::span<const RecipeVariation> recipe_variations() { return kVariations; }

} // namespace nvfp4::models
