// SPDX-License-Identifier: Apache-2.0
// The fields of a recipe's parts as lists: what JSON has, what is checked, and the tables of README.md.
#pragma once
#include "nvfp4/reference_models/family/family.hpp"
#include "nvfp4/reference_models/fields/json.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"

namespace nvfp4::models {

/// Mark of a field that is left out of JSON where it has its default.
inline constexpr unsigned kOptional = 1;

inline constexpr auto kOperandFields = std::tuple{
    field("format", &OperandRecipe::format, ": what the elements are"),
    field("convention", &OperandRecipe::convention,
          "Quantization convention (`nvfp4 info --conventions`); default `te`, `mxfp4`, `mxfp8-e4m3` or `nvint4` by "
          "format"),
    field("block_rows", &OperandRecipe::block_rows, "Rows of a block: 1, or 16 for tiles"),
    field("rounding", &OperandRecipe::rounding, ": of elements"),
    field("hadamard", &OperandRecipe::hadamard,
          "Rotate groups along the contraction; both operands or none"),
    field("hadamard_size", &OperandRecipe::hadamard_size, "Elements of a group: 16, 32, 64 or 128").marked(kOptional),
    field("hadamard_signs", &OperandRecipe::hadamard_signs,
          ": TransformerEngine's signs, none, or new ones for each product and step")
        .marked(kOptional),
    field("decoded", &OperandRecipe::decoded,
          "W of dgrad and x of wgrad: quantized from what fprop's copy decodes to, not from the tensor; of simulated operands "
          "that copy itself, and dy of wgrad dgrad's")
        .marked(kOptional),
    field("scale_correction", &OperandRecipe::scale_correction,
          ": of nvfp4 in blocks of one row to nearest: groups of 128 get their length along the tensor back, by a factor on their "
          "scales that is rounded stochastically")
        .marked(kOptional),
    field("mean", &OperandRecipe::mean,
          ": each channel's mean over tokens is subtracted from x or dy before quantization and, of simulated operands, added "
          "after it (kept), or, of nvfp4, quantized by itself, with products of its own (quantized)")
        .marked(kOptional)};

/// Besides the operands `a` and `b`.
inline constexpr auto kGemmFields = std::tuple{
    field("unit", &GemmRecipe::unit, "Tensor-core unit instead of the recipe's for the format")
        .marked(kOptional),
    field("output", &GemmRecipe::output,
          ": what the result is rounded to; of wgrad before it is added to the FP32 gradient, default f32")};

/// Besides the products and `hcp`.
inline constexpr auto kLinearFields = std::tuple{
    field("weights", &LinearRecipe::weights,
          ": what weights are made before all three products: int4-tensor is 15 levels with one scale a tensor, in "
          "convolutional networks (`nvfp4 cnn`)")
        .marked(kOptional)};

inline constexpr auto kHcpFields = std::tuple{
    field("enabled", &HcpRecipe::enabled, "True where `hcp` stands"),
    field("k", &HcpRecipe::k, "Hot channels; instead of `fraction`", at_least(0)).marked(kOptional),
    field("fraction", &HcpRecipe::fraction, "Hot channels as a part of K, rounded up to a multiple of 16",
          from_to(0, 1)),
    field("period", &HcpRecipe::period, "Steps between choices; the first micro-batch chooses", at_least(1)),
    field("start", &HcpRecipe::start, "Step of the first choice", at_least(0)),
    field("kernel", &HcpRecipe::kernel,
          ": one product over K + 2k under the main operands' global scales, or the main product and one "
          "small product "
          "a side, added in FP32"),
    field("side", &HcpRecipe::side, ": whose residuals are put back, x's, W's or both"),
    field("residual", &HcpRecipe::residual, ": format of the residuals; bf16 with kernel `dual` only"),
    field("choice", &HcpRecipe::choice,
          ": mean error of x plus mean error of W, largest value of x, blocks of 16 by sums of scores, or "
          "random"),
    field("reblock", &HcpRecipe::reblock,
          ": gathered channels are quantized anew, 1x16, or codes and scales are copied (with choice "
          "`blocks`)"),
    field("dgrad", &HcpRecipe::dgrad, "Patch dgrad too, where channels are outputs")};

inline constexpr auto kRuleFields = std::tuple{
    field("roles", &RecipeRule::roles, "Patterns such as `attn.gk_proj.*`"),
    field("families", &RecipeRule::families, "; empty: all").of(family_names).marked(kOptional),
    field("first", &RecipeRule::first,
          "First blocks of the model, or below 1 a fraction of them, to the nearest, at least one; never the "
          "head",
          from_to(0, 1e6))
        .marked(kOptional),
    field("last", &RecipeRule::last, "Last blocks, likewise; with both, either is enough", from_to(0, 1e6))
        .marked(kOptional),
    field("from", &RecipeRule::from,
          "Step from which on the rule counts, the first being 0, or below 1 that part of the run's steps, to the nearest",
          from_to(0, 1e12))
        .marked(kOptional),
    field("use", &RecipeRule::use, "One of the recipe's linears")};

/// Of `optimizer`.
inline constexpr auto kOptimizerFields = std::tuple{
    field("gradient", &OptimizerRecipe::gradient, ": gradients of linear layers and the embedding, once a step, before their norm"),
    field("first_moment", &OptimizerRecipe::first_moment, ": AdamW's first moment, of all parameters"),
    field("second_moment", &OptimizerRecipe::second_moment, ": and its second"),
    field("weight", &OptimizerRecipe::weight, ": what a step leaves of linear layers and the embedding")};

/// Besides `units`, `linears` and `rules`.
inline constexpr auto kRecipeFields = std::tuple{
    field("name", &Recipe::name, "For people and files"),
    field("description", &Recipe::description, "For people"),
    field("source", &Recipe::source, ": what inputs, weights and gradients are rounded to first"),
    field("accumulation", &Recipe::accumulation, ": model of FP4 units' accumulation"),
    field("mixers", &Recipe::mixers, ": operands of GLA's recurrence and of softmax attention (see the end)"),
    field("amax", &Recipe::amax,
          ": over whose x and dy a global amax is taken where ranks share the data (`nvfp4.torch`)")
        .marked(kOptional),
    field("amax_period", &Recipe::amax_period,
          "Steps between which global amaxes are held: they are taken in the first micro-batch of steps 0, D, 2 D, ...; 1: with "
          "every quantization",
          at_least(1))
        .marked(kOptional),
    field("soft_clip", &Recipe::soft_clip,
          "b: after a step every weight is b tanh(weight / b), in convolutional networks; 0: as it is", from_to(0, 1e6))
        .marked(kOptional),
    field("default", &Recipe::default_linear, "The linear of layers that no rule matches")};

} // namespace nvfp4::models
