// SPDX-License-Identifier: Apache-2.0
// Recipes as data: for every linear layer and each of its three products, what the operands become before
// they reach a tensor core, which unit multiplies them, and whether the Hot-Channel Patch is on. README.md
// lists the JSON fields.
#pragma once
#include "nvfp4/emulator/names.hpp"
#include "nvfp4/emulator/quantize/block_rule.hpp"
#include "nvfp4/emulator/tensorcore/unit.hpp"

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nvfp4::models {

/// Over whose tensors the global amax of what a rank quantizes is taken, where data are spread over ranks:
/// its own, or all ranks' (TransformerEngine without and with an amax reduction group).
enum class AmaxScope : uint8_t { rank, all_ranks };
[[nodiscard]] constexpr auto names_of(AmaxScope) { return enum_names("amax", "rank", "all-ranks"); }
static_assert(names_of(AmaxScope{}).end_with(AmaxScope::all_ranks));

/// What an operand's elements are. f32 operands are multiplied by the backend's own kernel, both or none;
/// fp8, E4M3 with one scale a tensor, is for what is stored only (model/stored_values.hpp). block_scaled: of any convention
/// with one scale a block, multiplied by the exact unit of its elements and scales, which is ours and no hardware's.
/// simulated: what a copy of any convention decodes to, in BF16, as programs do that quantize and compute in 16 bits.
enum class OperandFormat : uint8_t { f32, bf16, nvfp4, mxfp4, mxfp8, fp8, block_scaled, simulated };
[[nodiscard]] constexpr auto names_of(OperandFormat) {
  return enum_names("operand format", "f32", "bf16", "nvfp4", "mxfp4", "mxfp8", "fp8", "block-scaled", "simulated");
}
static_assert(names_of(OperandFormat{}).end_with(OperandFormat::simulated));

/// The signs of a rotation (rotate.hpp): of TransformerEngine, none, or new ones for each product at each step.
enum class RotationSigns : uint8_t { fixed, none, step };
[[nodiscard]] constexpr auto names_of(RotationSigns) { return enum_names("hadamard signs", "fixed", "none", "step"); }
static_assert(names_of(RotationSigns{}).end_with(RotationSigns::step));

/// What happens to the mean over tokens of each channel of x or dy.
enum class MeanSplit : uint8_t {
  none,
  kept, ///< subtracted before quantization and added to the values after it, in FP32
  /// Subtracted before quantization and quantized by itself, a row whose blocks lie along the channels. The operand is the sum
  /// of both, and its products are those of each with each: of the paper Averis (2603.10444).
  quantized,
};
[[nodiscard]] constexpr auto names_of(MeanSplit) { return enum_names("mean", "none", "kept", "quantized"); }
static_assert(names_of(MeanSplit{}).end_with(MeanSplit::quantized));

/// What happens to block scales once the elements have their codes.
enum class ScaleCorrection : uint8_t {
  none,
  /// With x the operand and y what it decodes to, each scale of a group of 8 blocks along the contraction is multiplied by
  /// c = sum x^2 / sum x y, so that the group is as long along x as x, and rounded stochastically. c is 1 where it is no
  /// positive number. As MS-EDEN (Quartet II), which is unbiased over random rotations; here their signs are fixed.
  eden,
};
[[nodiscard]] constexpr auto names_of(ScaleCorrection) { return enum_names("scale correction", "none", "eden"); }
static_assert(names_of(ScaleCorrection{}).end_with(ScaleCorrection::eden));

/// What a layer's weight is made before its products (images/weight_levels.hpp): itself, or 15 levels with one scale a
/// tensor. Convolutional networks only.
enum class WeightLevels : uint8_t { none, int4_tensor };
[[nodiscard]] constexpr auto names_of(WeightLevels) { return enum_names("weights", "none", "int4-tensor"); }
static_assert(names_of(WeightLevels{}).end_with(WeightLevels::int4_tensor));

/// One operand of one product. The fields after `format` have a meaning for block-scaled formats only.
struct OperandRecipe {
  OperandFormat format = OperandFormat::bf16;
  std::string convention = {}; ///< of quantize/convention.hpp; empty for f32 and bf16
  int block_rows = 1;          ///< 16: tiles, so that both orientations have the same values
  ElementRounding rounding = ElementRounding::nearest;
  bool hadamard = false; ///< rotate groups along the contraction; both operands or none
  int hadamard_size = 16; ///< of the groups: 16, 32, 64 or 128
  RotationSigns hadamard_signs = RotationSigns::fixed;
  /// Quantized from what fprop's copy of the tensor decodes to, rounded to the source type, not from the tensor: W of dgrad
  /// and x of wgrad, as a system does that keeps the quantized copy alone. Of simulated operands that copy itself, and
  /// dy of wgrad dgrad's.
  bool decoded = false;
  ScaleCorrection scale_correction = ScaleCorrection::none;
  MeanSplit mean = MeanSplit::none; ///< kept: of simulated operands; quantized: of nvfp4
  // Of the first copy where `decoded`; resolve() fills them in.
  std::string first_convention = {};
  int first_block_rows = 1;
  ElementRounding first_rounding = ElementRounding::nearest;
  MeanSplit first_mean = MeanSplit::none;

  bool operator==(const OperandRecipe &) const = default;
};

/// One product a b^T. fprop: x, weight over `in`; dgrad: dy, weight^T over `out`; wgrad: dy^T, x^T over
/// tokens.
struct GemmRecipe {
  OperandRecipe a = {}, b = {};
  std::string unit =
      {}; ///< catalogue name; empty in a Recipe: its unit for the format. Always set by resolve()
  /// bf16: the result is rounded once, after alpha and bias. A weight gradient is added to in FP32 either
  /// way.
  FormatId output = FormatId::bf16;

  bool operator==(const GemmRecipe &) const = default;
};

/// The Hot-Channel Patch: the k channels of the contraction where quantization hurts most get their
/// first-order errors back. With Xh, Wh the quantized operands, R their residuals and I the channels,
///   y = Xh Wh^T + R_X[:,I] Wh[:,I]^T + Xh[:,I] R_W[:,I]^T.
struct HcpRecipe {
  enum class Kernel : uint8_t {
    single, ///< one product over K + 2k (+ k for one side): the segments share the main operands' global
            ///< scales
    dual,   ///< the main product, then one small product a side, added in FP32 before the one rounding
  };
  friend constexpr auto names_of(Kernel) { return enum_names("kernel", "single", "dual"); }
  enum class Side : uint8_t { activation, weight, both };
  friend constexpr auto names_of(Side) { return enum_names("side", "activation", "weight", "both"); }
  enum class Residual : uint8_t { nvfp4, bf16 }; ///< format of the segments; bf16 needs Kernel::dual
  friend constexpr auto names_of(Residual) { return enum_names("residual", "nvfp4", "bf16"); }
  enum class Choice : uint8_t {
    score,     ///< mean |R_X| over tokens + mean |R_W| over outputs
    magnitude, ///< max |X| over tokens
    blocks,    ///< whole blocks of 16 by the sum of their channels' scores
    random,    ///< for ablations
  };
  friend constexpr auto names_of(Choice) {
    return enum_names("choice", "score", "magnitude", "blocks", "random");
  }
  enum class Reblock : uint8_t {
    requantize,  ///< gathered values are quantized anew in blocks of their own
    whole_blocks ///< codes and scales are copied; needs Choice::blocks
  };
  friend constexpr auto names_of(Reblock) { return enum_names("reblock", "requantize", "whole-blocks"); }

  bool enabled = false;
  int64_t k = -1;           ///< channels; -1: from `fraction`
  double fraction = 0.0625; ///< of K, rounded up to a multiple of 16
  int64_t period = 50;      ///< steps between choices
  int64_t start = 0;        ///< step of the first choice; no patch before it
  Kernel kernel = Kernel::single;
  Side side = Side::both;
  Residual residual = Residual::nvfp4;
  Choice choice = Choice::score;
  Reblock reblock = Reblock::requantize;
  bool dgrad = false; ///< also in dgrad, where channels are outputs

  /// Channels to keep of K.
  [[nodiscard]] int64_t channels(int64_t contraction) const;
  bool operator==(const HcpRecipe &) const = default;
};
static_assert(names_of(HcpRecipe::Kernel{}).end_with(HcpRecipe::Kernel::dual));
static_assert(names_of(HcpRecipe::Side{}).end_with(HcpRecipe::Side::both));
static_assert(names_of(HcpRecipe::Residual{}).end_with(HcpRecipe::Residual::bf16));
static_assert(names_of(HcpRecipe::Choice{}).end_with(HcpRecipe::Choice::random));
static_assert(names_of(HcpRecipe::Reblock{}).end_with(HcpRecipe::Reblock::whole_blocks));

struct LinearRecipe {
  GemmRecipe fprop = {}, dgrad = {}, wgrad = {.output = FormatId::f32};
  HcpRecipe hcp = {};
  WeightLevels weights = WeightLevels::none;
  // The rest is the same for all layers of a recipe; resolve() fills it in.
  FormatId source =
      FormatId::bf16; ///< x, weight and dy are rounded to it first, as TransformerEngine's tensors are
  Accumulation accumulation = Accumulation::mmasim;
  AmaxScope amax = AmaxScope::rank; ///< of x and dy; weights are the same on all ranks
  int64_t amax_period = 1;          ///< see Recipe
  std::string bf16_unit = {};       ///< multiplies BF16 residuals

  [[nodiscard]] bool all_f32() const;
  /// Whether an operand has a mean that is quantized by itself.
  [[nodiscard]] bool splits_mean() const;
  bool operator==(const LinearRecipe &) const = default;
};

/// Which layers take another of the recipe's linears. Of the rules that match, the last one counts.
struct RecipeRule {
  std::vector<std::string> roles = {"*"}; ///< patterns; * stands for any characters
  std::vector<std::string> families = {}; ///< model families; empty: all
  /// The first or last n blocks, or, below 1, that fraction of them, to the nearest and at least one; 0: no
  /// condition. Such a rule never matches lm_head. With both, either is enough.
  double first = 0, last = 0;
  /// Step from which on the rule counts, from 0, or, below 1, that part of a run's steps (for_run()); 0: always.
  double from = 0;
  std::string use = {};

  bool operator==(const RecipeRule &) const = default;
};

/// What an optimizer keeps of its tensors between steps: FP32, BF16, or FP16, E4M3 or E5M2 under a power of two of the tensor,
/// 2^floor(log2(largest value of the format / amax)), 1 for an amax of 0 (MS-AMP's scaling tensors). To nearest even; what is
/// not finite stays as it is, and so does every element of a tensor that has one.
enum class StateFormat : uint8_t { f32, bf16, f16, e4m3, e5m2 };
[[nodiscard]] constexpr auto names_of(StateFormat) { return enum_names("state format", "f32", "bf16", "f16", "e4m3", "e5m2"); }
static_assert(names_of(StateFormat{}).end_with(StateFormat::e5m2));

/// In which formats (train/optimizer.hpp). What is computed with is FP32 either way.
struct OptimizerRecipe {
  /// Once a step, all micro-batches added up, before its norm is taken: of linear layers and the embedding.
  StateFormat gradient = StateFormat::f32;
  StateFormat first_moment = StateFormat::f32, second_moment = StateFormat::f32; ///< of all parameters
  StateFormat weight = StateFormat::f32; ///< what a step starts from and products read: of linear layers and the embedding

  bool operator==(const OptimizerRecipe &) const = default;
};

struct Recipe {
  std::string name = {}, description = {};
  FormatId source = FormatId::bf16;
  Accumulation accumulation = Accumulation::mmasim; ///< of FP4 units
  /// GLA's recurrence and softmax attention: FP32 throughout, or on tensor cores with BF16 operands and the
  /// unit of BF16 products (backend/bf16_mixers.hpp).
  FormatId mixers = FormatId::f32;
  AmaxScope amax = AmaxScope::rank;
  /// D: global amaxes are taken in the first micro-batch of steps 0, D, 2 D, ... and held in between, each operand of each
  /// product its own, as Graphcore's sample and hold (arXiv 2609.02846); 1: with every quantization.
  int64_t amax_period = 1;
  double soft_clip = 0; ///< b: after a step every weight is b tanh(weight / b); 0: as it is. Convolutional networks only
  OptimizerRecipe optimizer = {};
  /// Unit by operand format (bf16, nvfp4, mxfp4, mxfp8); {a} and {b} stand for the element formats.
  std::map<std::string, std::string> units = {};
  std::map<std::string, LinearRecipe> linears = {}; ///< by name; what rules speak of
  std::string default_linear = {};
  std::vector<RecipeRule> rules = {};
  /// Which operators inside mixers (family/mixer_operators.hpp) take one of the recipe's linears, likewise. A
  /// mixer with at least one runs product by product; its others are f32, or BF16 with FP32 results where
  /// `mixers` says bf16.
  std::vector<RecipeRule> mixer_rules = {};
  /// What softmax attention reads of its keys and values in eval and forward (model/kv_cache.hpp); f32: what
  /// it has computed. Models that train refuse any other.
  OperandRecipe kv_cache = {.format = OperandFormat::f32};
  /// What the functions that make decays (and write strengths) read of what their projections made, with
  /// gradients as if it were that (model/stored_values.hpp); f32: that itself.
  OperandRecipe gate_inputs = {.format = OperandFormat::f32};
  std::string family = {}; ///< set by for_family(); not part of the JSON

  /// The same recipe for models of one family; Error when it is unknown.
  [[nodiscard]] Recipe for_family(const std::string &model_family) const;
  /// The same recipe for a run of so many steps: rules say `from` which step they count, to the nearest.
  [[nodiscard]] Recipe for_run(int64_t steps) const;
  /// Whether it has rules that count from a later step than 0.
  [[nodiscard]] bool changes() const;
  /// The same without the rules that count from a later step than 0.
  [[nodiscard]] Recipe at_start() const;
  /// The steps at which other rules begin to count, 0 first. Error like resolve()'s.
  [[nodiscard]] std::vector<int64_t> phases() const;
  /// What `role` of block `layer` of `layers` uses at a step, counted from 0; lm_head has layer = layers. Error
  /// when the recipe has rules for families and was not bound to one, and for a step behind 0 when it has rules from a part of
  /// a run and was not bound to a run.
  [[nodiscard]] LinearRecipe resolve(const std::string &role, int64_t layer, int64_t layers, int64_t step = 0) const;
  /// Whether it says anything that only a convolutional network follows.
  [[nodiscard]] bool has_weight_rules() const;
  /// Whether a mixer rule speaks of this operator. Error likewise.
  [[nodiscard]] bool has_mixer_rule(const std::string &role, int64_t layer, int64_t layers) const;
  bool operator==(const Recipe &) const = default;
};

/// Variations of built-in recipes by name (variations.cpp), which load_recipe knows too.
struct RecipeVariation {
  std::string_view name, base, description;
  std::string_view change;  ///< JSON merge patch (RFC 7386) on the base's to_json()
  bool on_hardware = true;  ///< all its products are those of tensor cores
};
[[nodiscard]] std::span<const RecipeVariation> recipe_variations();

/// Names of the built-in recipes, and the JSON of one.
[[nodiscard]] std::span<const std::string_view> builtin_recipes();
[[nodiscard]] std::string_view builtin_recipe_json(std::string_view name);

/// Roles in convolutional networks (images/) besides lm_head, as which their last layer counts.
inline constexpr std::string_view kImageRoles[] = {"conv", "fc"};

/// Whether a rule's pattern, in which * stands for any characters, speaks of a role.
[[nodiscard]] bool matches_role(std::string_view pattern, std::string_view role);

/// A built-in recipe, or a file's where the name has a '/' or ends in ".json"; a run.json gives its run's.
/// What starts with { is a recipe's JSON itself. "+mixers=bf16" or "+mixers=f32" behind it sets that field,
/// "+kv_cache=nvfp4" and "+gate_inputs=nvfp4" those in the format's default convention, "+mixer_rules=LINEAR"
/// adds the rule that all products inside mixers use that one of its linears; all stay in the recipe's name.
/// Error with one line otherwise.
[[nodiscard]] Recipe load_recipe(const std::string &name_or_path);
/// Makes the recipe keep the first and last so many blocks in its linear "bf16", instead of those its rules
/// say; below 0: as they say. Error where it has no such linear.
void keep_in_bf16(Recipe &recipe, int64_t first, int64_t last);
/// From JSON text; `where` opens error messages. Unknown keys and combinations without a meaning are refused.
[[nodiscard]] Recipe parse_recipe(std::string_view json, const std::string &where);
/// JSON with every field written out; parse_recipe() gives the same recipe back.
[[nodiscard]] std::string to_json(const Recipe &recipe);

/// Throws Error where the recipe asks for what does not exist or has no meaning.
void check_recipe(const Recipe &recipe, const std::string &where);

} // namespace nvfp4::models
