// SPDX-License-Identifier: Apache-2.0
// Recipes that differ from a built-in one in a switch or two: what systems do differently, one thing at a
// time. README.md says what is from where, and of the few that have a system's name what of its arithmetic is not theirs.
#include "nvfp4/reference_models/recipe/recipe.hpp"

#include <array>

namespace nvfp4::models {
namespace {

constexpr std::array kVariations{
    RecipeVariation{"nvfp4-w1x16", "nvfp4",
                    "nvfp4 with weights of dgrad in blocks of 1x16, quantized for themselves",
                    R"({"linears": {"nvfp4": {"dgrad": {"b": {"block_rows": 1}}}}})"},
    RecipeVariation{"nvfp4-decoded", "nvfp4",
                    "nvfp4 with 1x16 weights, where W of dgrad and x of wgrad are quantized from what "
                    "fprop's copies decode to",
                    R"({"linears": {"nvfp4": {"fprop": {"b": {"block_rows": 1}},
                        "dgrad": {"b": {"block_rows": 1, "decoded": true}}, "wgrad": {"b": {"decoded": true}}}}})"},
    RecipeVariation{
        "nvfp4-decoded-sr", "nvfp4",
        "nvfp4-decoded with stochastic rounding of W in dgrad and of x in wgrad too, and both rotated",
        R"({"linears": {"nvfp4": {"fprop": {"b": {"block_rows": 1}},
                        "dgrad": {"a": {"hadamard": true},
                                  "b": {"block_rows": 1, "decoded": true, "rounding": "sr-carry8", "hadamard": true}},
                        "wgrad": {"b": {"decoded": true, "rounding": "sr-carry8"}}}}})"},
    RecipeVariation{"nvfp4-sr-x", "nvfp4-plain",
                    "nvfp4-plain with stochastic rounding of dy in dgrad and wgrad and of x in wgrad",
                    R"({"linears": {"nvfp4": {"dgrad": {"a": {"rounding": "sr-carry8"}},
                        "wgrad": {"a": {"rounding": "sr-carry8"}, "b": {"rounding": "sr-carry8"}}}}})"},
    RecipeVariation{"nvfp4-eden", "nvfp4",
                    "nvfp4 with dgrad rotated and dy rounded to nearest under scales that are corrected and "
                    "rounded stochastically",
                    R"({"linears": {"nvfp4": {
                        "dgrad": {"a": {"rounding": "rne", "hadamard": true, "scale_correction": "eden"},
                                  "b": {"block_rows": 1, "hadamard": true, "scale_correction": "eden"}},
                        "wgrad": {"a": {"rounding": "rne", "scale_correction": "eden"}, "b": {"scale_correction": "eden"}}}}})"},
    RecipeVariation{
        "nvfp4-4over6", "nvfp4", "nvfp4 with four over six for x in fprop and for weights",
        R"({"linears": {"nvfp4": {"fprop": {"a": {"convention": "te-4over6"}, "b": {"convention": "te-4over6"}},
                        "dgrad": {"b": {"convention": "te-4over6"}}}}})"},
    RecipeVariation{"nvint4-hadamard", "nvfp4-plain", "NVINT4 to nearest, every product rotated, exact sums",
                    R"({"linears": {"nvfp4": {
                        "fprop": {"a": {"format": "block-scaled", "convention": "nvint4", "hadamard": true},
                                  "b": {"format": "block-scaled", "convention": "nvint4", "hadamard": true}},
                        "dgrad": {"a": {"format": "block-scaled", "convention": "nvint4", "hadamard": true},
                                  "b": {"format": "block-scaled", "convention": "nvint4", "hadamard": true}},
                        "wgrad": {"a": {"format": "block-scaled", "convention": "nvint4", "hadamard": true},
                                  "b": {"format": "block-scaled", "convention": "nvint4", "hadamard": true}}}}})",
                    false},
    RecipeVariation{"dfp16", "mxfp8", "INT16 under one power of two a tensor, to nearest in every product, exact sums",
                    R"({"linears": {"mxfp8": {
                        "fprop": {"a": {"format": "block-scaled", "convention": "dfp16"},
                                  "b": {"format": "block-scaled", "convention": "dfp16"}},
                        "dgrad": {"a": {"format": "block-scaled", "convention": "dfp16"},
                                  "b": {"format": "block-scaled", "convention": "dfp16"}},
                        "wgrad": {"a": {"format": "block-scaled", "convention": "dfp16"},
                                  "b": {"format": "block-scaled", "convention": "dfp16"}}}}})",
                    false},
    RecipeVariation{"fp8-gradients", "bf16", "bf16 whose gradients of matrices are kept in E4M3, by FP8-LM's first level",
                    R"({"optimizer": {"gradient": "e4m3"}})"},
    RecipeVariation{"fp8-optimizer", "fp8-gradients",
                    "fp8-gradients whose first moment is kept in E4M3, and second moment and weights in FP16, by FP8-LM's second level",
                    R"({"optimizer": {"first_moment": "e4m3", "second_moment": "f16", "weight": "f16"}})"},
    RecipeVariation{"bf16-optimizer", "bf16", "bf16 whose weights and moments are kept in BF16, without a copy in FP32",
                    R"({"optimizer": {"first_moment": "bf16", "second_moment": "bf16", "weight": "bf16"}})"},
    RecipeVariation{"mxint8", "mxfp8",
                    "MXINT8 clipped symmetrically, to nearest in every product, exact sums",
                    R"({"linears": {"mxfp8": {
                        "fprop": {"a": {"format": "block-scaled", "convention": "mxint8-ceil"},
                                  "b": {"format": "block-scaled", "convention": "mxint8-ceil"}},
                        "dgrad": {"a": {"format": "block-scaled", "convention": "mxint8-ceil"},
                                  "b": {"format": "block-scaled", "convention": "mxint8-ceil"}},
                        "wgrad": {"a": {"format": "block-scaled", "convention": "mxint8-ceil"},
                                  "b": {"format": "block-scaled", "convention": "mxint8-ceil"}}}}})",
                    false},
    RecipeVariation{"ue5m3", "nvfp4-plain",
                    "E2M1 under UE5M3 scales of 1x16 without a global one, dy stochastic, exact sums",
                    R"({"linears": {"nvfp4": {
                        "fprop": {"a": {"format": "block-scaled", "convention": "amd-fp4"},
                                  "b": {"format": "block-scaled", "convention": "amd-fp4"}},
                        "dgrad": {"a": {"format": "block-scaled", "convention": "amd-fp4", "rounding": "sr-carry8"},
                                  "b": {"format": "block-scaled", "convention": "amd-fp4"}},
                        "wgrad": {"a": {"format": "block-scaled", "convention": "amd-fp4", "rounding": "sr-carry8"},
                                  "b": {"format": "block-scaled", "convention": "amd-fp4"}}}}})",
                    false},
    RecipeVariation{"nvfp4-bf16-end", "nvfp4", "nvfp4 whose forward products are BF16 in the last 18 % of the steps",
                    R"({"linears": {"bf16-forward": {"fprop": {"a": "bf16", "b": "bf16"},
                          "dgrad": {"a": {"format": "nvfp4", "rounding": "sr-carry8"}, "b": {"format": "nvfp4", "block_rows": 16}},
                          "wgrad": {"a": {"format": "nvfp4", "rounding": "sr-carry8", "hadamard": true},
                                    "b": {"format": "nvfp4", "hadamard": true}}}},
                        "rules": [{"from": 0.82, "use": "bf16-forward"}, {"last": 0.15, "use": "bf16"},
                                  {"roles": ["lm_head"], "use": "head"}]})"},
    RecipeVariation{"fp4-all-the-way", "nvfp4-sr-x",
                    "FP4 All the Way: stochastic rounding of dy, and of x in wgrad; backward products are BF16 in the last 10 % of "
                    "the steps",
                    R"({"linears": {"bf16-backward": {"fprop": {"a": "nvfp4", "b": "nvfp4"}, "dgrad": {"a": "bf16", "b": "bf16"},
                                                      "wgrad": {"a": "bf16", "b": "bf16"}}},
                        "rules": [{"from": 0.9, "use": "bf16-backward"}, {"roles": ["lm_head"], "use": "head"}]})"},
    RecipeVariation{"nvfp4-nemotron3", "nvfp4",
                    "nvfp4 with Nemotron 3's layers in BF16: the last 15 % of the blocks, projections of attention, Mamba-2's output",
                    R"({"rules": [{"last": 0.15, "use": "bf16"},
                                  {"families": ["qwen3", "qwen2.5"], "use": "bf16",
                                   "roles": ["attn.q_proj", "attn.k_proj", "attn.v_proj", "attn.o_proj"]},
                                  {"families": ["mamba2"], "roles": ["attn.out_proj"], "use": "bf16"},
                                  {"roles": ["lm_head"], "use": "head"}]})"},
    RecipeVariation{"nvfp4-rht128", "nvfp4", "nvfp4 with wgrad rotated in groups of 128",
                    R"({"linears": {"nvfp4": {"wgrad": {"a": {"hadamard_size": 128}, "b": {"hadamard_size": 128}}}}})"},
    RecipeVariation{"nvfp4-new-signs", "nvfp4", "nvfp4 whose rotation of wgrad has new signs at each step",
                    R"({"linears": {"nvfp4": {"wgrad": {"a": {"hadamard_signs": "step"}, "b": {"hadamard_signs": "step"}}}}})"},
    RecipeVariation{"nvfp4-held-amax", "nvfp4", "nvfp4 whose global amaxes are taken every 50 steps and held in between",
                    R"({"amax_period": 50})"},
    RecipeVariation{"nvfp4-ms-eden", "nvfp4",
                    "four over six in fprop; backward from fprop's decoded copies, rotated in groups of 128 with new signs at each "
                    "step, to nearest under scales that are corrected and rounded stochastically",
                    R"({"linears": {"nvfp4": {
                        "fprop": {"a": {"convention": "te-4over6-mse"}, "b": {"convention": "te-4over6-mse", "block_rows": 1}},
                        "dgrad": {"a": {"convention": "quartet2-eden", "rounding": "rne", "hadamard": true, "hadamard_size": 128, "hadamard_signs": "step",
                                        "scale_correction": "eden"},
                                  "b": {"convention": "quartet2-eden", "block_rows": 1, "decoded": true, "hadamard": true, "hadamard_size": 128,
                                        "hadamard_signs": "step", "scale_correction": "eden"}},
                        "wgrad": {"a": {"convention": "quartet2-eden", "rounding": "rne", "hadamard_size": 128, "hadamard_signs": "step",
                                        "scale_correction": "eden"},
                                  "b": {"convention": "quartet2-eden", "decoded": true, "hadamard_size": 128, "hadamard_signs": "step",
                                        "scale_correction": "eden"}}}}})"},
    RecipeVariation{"nvfp4-mean", "nvfp4-plain",
                    "x and dy less their means over tokens in NVFP4, the means in high precision; values of fprop's and dgrad's "
                    "copies serve all products, in BF16",
                    R"({"linears": {"nvfp4": {
                        "fprop": {"a": {"format": "simulated", "mean": "kept"}, "b": {"format": "simulated"}},
                        "dgrad": {"a": {"format": "simulated", "mean": "kept", "rounding": "sr-exact"},
                                  "b": {"format": "simulated", "decoded": true}},
                        "wgrad": {"a": {"format": "simulated", "decoded": true},
                                  "b": {"format": "simulated", "decoded": true}}}}})",
                    false},
    RecipeVariation{"averis", "nvfp4-plain",
                    "Averis: x and dy less their means over tokens, the means quantized by themselves, all products of the parts in "
                    "NVFP4; dy stochastic",
                    R"({"linears": {"nvfp4": {
                        "fprop": {"a": {"mean": "quantized"}},
                        "dgrad": {"a": {"mean": "quantized", "rounding": "sr-carry8"}},
                        "wgrad": {"a": {"mean": "quantized", "rounding": "sr-carry8"}, "b": {"mean": "quantized"}}}}})"},
    RecipeVariation{"nvfp4-wgrad-nvint4", "nvfp4", "nvfp4 with both operands of wgrad in NVINT4, exact sums",
                    R"({"linears": {"nvfp4": {"wgrad": {
                        "a": {"format": "block-scaled", "convention": "nvint4", "rounding": "sr-carry8"},
                        "b": {"format": "block-scaled", "convention": "nvint4"}}}}})",
                    false},
    RecipeVariation{"mxfp4-rht", "mxfp4-sr-rht", "mxfp4-sr-rht to nearest under ALTO's scales: wgrad rotated, no stochastic rounding",
                    R"({"linears": {"mxfp4": {
                        "fprop": {"a": {"convention": "mxfp4-alto"}, "b": {"convention": "mxfp4-alto"}},
                        "dgrad": {"a": {"convention": "mxfp4-alto", "rounding": "rne"}, "b": {"convention": "mxfp4-alto"}},
                        "wgrad": {"a": {"convention": "mxfp4-alto", "rounding": "rne"}, "b": {"convention": "mxfp4-alto"}}}}})"},
    RecipeVariation{"hif4", "nvfp4-plain", "HiFloat4 to nearest, wgrad rotated, exact sums",
                    R"({"linears": {"nvfp4": {
                        "fprop": {"a": {"format": "block-scaled", "convention": "hif4"},
                                  "b": {"format": "block-scaled", "convention": "hif4"}},
                        "dgrad": {"a": {"format": "block-scaled", "convention": "hif4"},
                                  "b": {"format": "block-scaled", "convention": "hif4"}},
                        "wgrad": {"a": {"format": "block-scaled", "convention": "hif4", "hadamard": true},
                                  "b": {"format": "block-scaled", "convention": "hif4", "hadamard": true}}}}})",
                    false},
    RecipeVariation{"ue5m3-graphcore", "nvfp4-plain",
                    "Graphcore's: UE5M3 up to 61440 under global amaxes held for 50 steps, weights in tiles, dy by its stochastic "
                    "rounding; the head in FP32; exact sums",
                    R"({"amax_period": 50, "linears": {"nvfp4": {
                        "fprop": {"a": {"format": "block-scaled", "convention": "ue5m3-graphcore"},
                                  "b": {"format": "block-scaled", "convention": "ue5m3-graphcore", "block_rows": 16}},
                        "dgrad": {"a": {"format": "block-scaled", "convention": "ue5m3-graphcore", "rounding": "sr-mid8"},
                                  "b": {"format": "block-scaled", "convention": "ue5m3-graphcore", "block_rows": 16}},
                        "wgrad": {"a": {"format": "block-scaled", "convention": "ue5m3-graphcore", "rounding": "sr-mid8"},
                                  "b": {"format": "block-scaled", "convention": "ue5m3-graphcore"}}},
                        "head": {"fprop": {"a": {"format": "f32"}, "b": {"format": "f32"}, "output": "f32"},
                                 "dgrad": {"a": {"format": "f32"}, "b": {"format": "f32"}, "output": "f32"},
                                 "wgrad": {"a": {"format": "f32"}, "b": {"format": "f32"}, "output": "f32"}}}})",
                    false},
    RecipeVariation{"fouroversix", "nvfp4",
                    "Four Over Six: four over six for x and W, static scales for dy; wgrad rotated, dy stochastic; the last sixth of "
                    "the blocks in BF16",
                    R"({"linears": {"nvfp4": {
                        "fprop": {"a": {"convention": "fouroversix"}, "b": {"convention": "fouroversix", "block_rows": 1}},
                        "dgrad": {"a": {"convention": "fouroversix-static", "rounding": "sr-exact"},
                                  "b": {"convention": "fouroversix", "block_rows": 1}},
                        "wgrad": {"a": {"convention": "fouroversix-static", "rounding": "sr-exact"},
                                  "b": {"convention": "fouroversix"}}}},
                        "rules": [{"last": 0.1667, "use": "bf16"}, {"roles": ["lm_head"], "use": "head"}]})"},
    RecipeVariation{"metis-mean", "nvfp4-mean", "nvfp4-mean under the scales of Metis' code, whose elements do not see their rounding",
                    R"({"linears": {"nvfp4": {
                        "fprop": {"a": {"convention": "metis-nvfp4"}, "b": {"convention": "metis-nvfp4"}},
                        "dgrad": {"a": {"convention": "metis-nvfp4"}, "b": {"convention": "metis-nvfp4"}},
                        "wgrad": {"a": {"convention": "metis-nvfp4"}, "b": {"convention": "metis-nvfp4"}}}}})",
                    false},
    RecipeVariation{"ufp4", "nvfp4-plain", "UFP4: E1M2 under FP32 scales, every product rotated, dy stochastic, exact sums",
                    R"({"linears": {"nvfp4": {
                        "fprop": {"a": {"format": "block-scaled", "convention": "ufp4", "hadamard": true},
                                  "b": {"format": "block-scaled", "convention": "ufp4", "hadamard": true}},
                        "dgrad": {"a": {"format": "block-scaled", "convention": "ufp4", "hadamard": true, "rounding": "sr-exact"},
                                  "b": {"format": "block-scaled", "convention": "ufp4", "hadamard": true}},
                        "wgrad": {"a": {"format": "block-scaled", "convention": "ufp4", "hadamard": true, "rounding": "sr-exact"},
                                  "b": {"format": "block-scaled", "convention": "ufp4", "hadamard": true}}}}})",
                    false},
    RecipeVariation{"mxfp4-macro", "nvfp4-plain",
                    "MXFP4 whose blocks of 32 share 8 more bits of scale over 128, to nearest, wgrad rotated, exact sums",
                    R"({"linears": {"nvfp4": {
                        "fprop": {"a": {"format": "block-scaled", "convention": "mxfp4-macro"},
                                  "b": {"format": "block-scaled", "convention": "mxfp4-macro"}},
                        "dgrad": {"a": {"format": "block-scaled", "convention": "mxfp4-macro"},
                                  "b": {"format": "block-scaled", "convention": "mxfp4-macro"}},
                        "wgrad": {"a": {"format": "block-scaled", "convention": "mxfp4-macro", "hadamard": true},
                                  "b": {"format": "block-scaled", "convention": "mxfp4-macro", "hadamard": true}}}}})",
                    false}};

} // namespace

std::span<const RecipeVariation> recipe_variations() { return kVariations; }

} // namespace nvfp4::models
