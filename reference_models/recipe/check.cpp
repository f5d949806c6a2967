// SPDX-License-Identifier: Apache-2.0
// What a recipe may not ask for, with one line that says where it stands.
#include "nvfp4/reference_models/recipe/recipe.hpp"

#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/family/mixer_operators.hpp"

#include <algorithm>

namespace nvfp4::models {
namespace {

/// What a convention must be for a format.
bool fits(OperandFormat format, const Rule &rule) {
  switch (format) {
  case OperandFormat::nvfp4:
    return rule.element == FormatId::e2m1 && rule.scale == FormatId::ue4m3 && rule.block == 16;
  case OperandFormat::mxfp4:
    return rule.element == FormatId::e2m1 && rule.scale == FormatId::ue8m0 && rule.block == 32;
  case OperandFormat::mxfp8:
    return (rule.element == FormatId::e4m3 || rule.element == FormatId::e5m2) &&
           rule.scale == FormatId::ue8m0;
  case OperandFormat::block_scaled:
    return rule.decoding != Decoding::bf16_reciprocal; // which has no product
  case OperandFormat::simulated: return true;
  case OperandFormat::f32:
  case OperandFormat::bf16:
  case OperandFormat::fp8: break;
  }
  return false;
}

/// multiplied: by a tensor core.
void check_operand(const OperandRecipe &o, const std::string &path, bool multiplied = true) {
  if (o.format == OperandFormat::fp8 && multiplied)
    throw Error(path +
                ".format: fp8 has one scale a tensor and is for kv_cache and gate_inputs; a product of FP8 "
                "is mxfp8");
  if (o.convention.empty()) return;
  const auto fail = [&](const std::string &what) { throw Error(path + ": " + what); };
  const Convention *c = nullptr;
  try {
    c = &find_convention(o.convention);
  } catch (const Error &e) {
    fail(e.what());
  }
  const std::string name = "convention '" + o.convention + "' ";
  if (!fits(o.format, c->rule)) fail(name + "does not give " + std::string(to_string(o.format)));
  if (c->rule.per_row && multiplied && o.format != OperandFormat::simulated)
    fail(name + "has a scale per row, which a product of the tensor core cannot undo");
  if (o.block_rows != 1 && o.block_rows != 16)
    fail("expected block_rows 1 or 16, got " + std::to_string(o.block_rows));
  if (o.block_rows == 16 && !c->can.tiles) fail(name + "has no 16x16 tiles; use block_rows 1");
  if (o.block_rows == 16 && o.hadamard)
    fail("16x16 tiles serve both orientations, a Hadamard rotation one; drop one of them");
  if (o.hadamard && !c->can.hadamard) fail(name + "has no Hadamard rotation");
  if (o.hadamard_size != 16 && o.hadamard_size != 32 && o.hadamard_size != 64 && o.hadamard_size != 128)
    fail("expected hadamard_size 16, 32, 64 or 128, got " + std::to_string(o.hadamard_size));
  if (!o.hadamard && (o.hadamard_size != 16 || o.hadamard_signs != RotationSigns::fixed))
    fail("hadamard_size and hadamard_signs speak of a rotation; set hadamard");
  if (o.mean == MeanSplit::kept && (o.format != OperandFormat::simulated || o.hadamard))
    fail("mean is for simulated operands without a rotation, and quantized for nvfp4");
  if (o.mean == MeanSplit::quantized && (o.format != OperandFormat::nvfp4 || o.block_rows != 1 || o.hadamard || o.decoded ||
                                         o.scale_correction != ScaleCorrection::none))
    fail("mean quantized needs nvfp4 in blocks of one row, without rotation, decoded and scale_correction");
  if (o.rounding != ElementRounding::nearest &&
      (!c->can.stochastic || (is_of_e2m1(o.rounding) && c->rule.element != FormatId::e2m1)))
    fail(name + "does not round that way; use rne");
  if (o.scale_correction != ScaleCorrection::none &&
      (o.format != OperandFormat::nvfp4 || o.block_rows != 1 || o.rounding != ElementRounding::nearest || !c->can.stochastic))
    fail("a scale correction needs nvfp4 in blocks of one row, rounded to nearest, by a convention with stochastic rounding");
}

/// What is quantized again was quantized first, in a way that a copy can be read back from.
void check_decoded(const LinearRecipe &l, const std::string &path) {
  const auto simulated = [](const OperandRecipe &o) { return o.format == OperandFormat::simulated; };
  for (const auto &[operand, name] : {std::pair(&l.fprop.a, ".fprop.a"), {&l.fprop.b, ".fprop.b"}, {&l.dgrad.a, ".dgrad.a"},
                                      {&l.wgrad.a, ".wgrad.a"}})
    if (operand->decoded && (operand != &l.wgrad.a || !simulated(*operand)))
      throw Error(path + name + ": decoded is for W of dgrad (b) and x of wgrad (b)");
  for (const auto &[operand, name] : {std::pair(&l.fprop.b, ".fprop.b"), {&l.dgrad.b, ".dgrad.b"}})
    if (operand->mean != MeanSplit::none) throw Error(path + name + ": mean is over tokens, which a weight has none of");
  for (const auto &[again, first, name] : {std::tuple(&l.dgrad.b, &l.fprop.b, ".dgrad.b"),
                                           {&l.wgrad.b, &l.fprop.a, ".wgrad.b"},
                                           {&l.wgrad.a, &l.dgrad.a, ".wgrad.a"}}) {
    if (!again->decoded) continue;
    if (simulated(*again) != simulated(*first))
      throw Error(path + name + ": decoded takes a simulated copy where the operand is simulated, and another where it is not");
    if (simulated(*again) && (again->mean != MeanSplit::none || again->rounding != ElementRounding::nearest || again->hadamard ||
                              first->hadamard || again->block_rows != 1 || again->convention != first->convention))
      throw Error(path + name +
                  ": a simulated operand that is decoded is another product's copy as it is; give that copy's convention and "
                  "drop mean, rounding, block_rows and rotations");
    if (simulated(*again) && again != &l.wgrad.a && first->rounding != ElementRounding::nearest)
      throw Error(path + name + ": a simulated operand of fprop that is decoded is rounded to nearest there: another product "
                                "would draw other random words");
    if (simulated(*again)) continue;
    if (again->convention.empty() || first->convention.empty() || first->hadamard || first->rounding != ElementRounding::nearest ||
        first->scale_correction != ScaleCorrection::none || first->mean != MeanSplit::none)
      throw Error(path + name + ": decoded needs a block-scaled format here and in fprop, there to nearest, without rotation, "
                                "correction and mean");
    if (l.hcp.enabled && l.hcp.dgrad) throw Error(path + name + ": decoded does not go with the Hot-Channel Patch in dgrad");
  }
}

void check_gemm(const GemmRecipe &g, const std::string &path) {
  if (g.a.format != g.b.format)
    throw Error(path + ": expected operands of one format, got " + std::string(to_string(g.a.format)) +
                " and " + std::string(to_string(g.b.format)));
  if (g.a.hadamard != g.b.hadamard)
    throw Error(path + ": both operands are rotated or none; hadamard differs");
  if (g.a.hadamard_size != g.b.hadamard_size || g.a.hadamard_signs != g.b.hadamard_signs)
    throw Error(path + ": both operands are rotated alike; hadamard_size or hadamard_signs differs");
  if (g.a.format == OperandFormat::f32) {
    if (g.output != FormatId::f32) throw Error(path + ".output: f32 operands give f32");
    if (!g.unit.empty()) throw Error(path + ".unit: f32 operands use no tensor core");
    return;
  }
  const Unit *unit = nullptr;
  try {
    unit = &find_unit(g.unit);
  } catch (const Error &e) {
    throw Error(path + ".unit: " + e.what());
  }
  const UnitRule &u = unit->rule;
  const auto takes = [&](const OperandRecipe &o, FormatId element) {
    if (o.convention.empty() || o.format == OperandFormat::simulated) return element == FormatId::bf16 && u.scale_block == 0;
    const Rule &r = find_convention(o.convention).rule;
    return element == r.element && u.scale_block == r.block && u.scale == r.scale;
  };
  if (!takes(g.a, u.a) || !takes(g.b, u.b) || u.acc != FormatId::f32)
    throw Error(path + ".unit: " + unit->name() +
                " does not take these operands, or does not accumulate in FP32");
}

void check_hcp(const LinearRecipe &l, const std::string &path) {
  const HcpRecipe &h = l.hcp;
  if (!h.enabled) return;
  const auto fail = [&](const std::string &what) { throw Error(path + ": " + what); };
  const auto patchable = [](const GemmRecipe &g) {
    const auto plain = [](const OperandRecipe &o) { return o.scale_correction == ScaleCorrection::none; };
    return g.a.format == OperandFormat::nvfp4 && !g.a.hadamard && plain(g.a) && plain(g.b);
  };
  if (!patchable(l.fprop) || (h.dgrad && !patchable(l.dgrad)))
    fail("the Hot-Channel Patch needs nvfp4 operands without a rotation in fprop, and in dgrad with 'dgrad'");
  if (h.k > 0 && h.k % 16 != 0) fail("k is a multiple of 16, got " + std::to_string(h.k));
  if (h.residual == HcpRecipe::Residual::bf16 && h.kernel == HcpRecipe::Kernel::single)
    fail("bf16 residuals need kernel 'dual': a single product has one format");
  if (h.reblock == HcpRecipe::Reblock::whole_blocks && h.choice != HcpRecipe::Choice::blocks)
    fail("reblock 'whole-blocks' needs choice 'blocks'");
}

/// A mean that is quantized by itself brings products of its own, which are added up in FP32.
void check_mean(const LinearRecipe &l, int64_t amax_period, const std::string &path) {
  if (!l.splits_mean()) return;
  const auto fail = [&](const std::string &what) { throw Error(path + what); };
  if (l.wgrad.output != FormatId::f32 && (l.wgrad.a.mean == MeanSplit::quantized || l.wgrad.b.mean == MeanSplit::quantized))
    fail(".wgrad.output: products of a quantized mean are added to the gradient in FP32; use f32");
  if (l.hcp.enabled) fail(".hcp: the Hot-Channel Patch does not go with a quantized mean");
  if (amax_period > 1) fail(": a quantized mean has an amax of its own, which none is held for; use amax_period 1");
}

void check_stored(const OperandRecipe &o, const std::string &path) {
  check_operand(o, path, false);
  if (o.format == OperandFormat::simulated)
    throw Error(path + ".format: what is stored has the format itself; simulated is for operands of products");
  if (o.block_rows != 1 || o.rounding != ElementRounding::nearest || o.hadamard || o.decoded ||
      o.scale_correction != ScaleCorrection::none || o.mean != MeanSplit::none)
    throw Error(path +
                ": what is stored is rounded to nearest in blocks of one row, without a rotation; drop "
                "block_rows, rounding, hadamard, decoded, scale_correction and mean");
}

void check_rule(const Recipe &recipe, const RecipeRule &rule, const std::string &path, bool in_mixer) {
  if (!recipe.linears.contains(rule.use))
    throw Error(path + ".use: " + io::in_quotes(rule.use) + " is not among this recipe's linears");
  if (in_mixer && rule.from != 0)
    throw Error(path + ".from: operators inside mixers keep one linear for all steps; drop it");
  if (in_mixer && recipe.linears.at(rule.use).hcp.enabled)
    throw Error(path + ".use: " + io::in_quotes(rule.use) +
                " has the Hot-Channel Patch, which is for linear layers; name a linear without hcp");
  if (in_mixer && recipe.linears.at(rule.use).splits_mean())
    throw Error(path + ".use: " + io::in_quotes(rule.use) +
                " quantizes a mean by itself, which is for linear layers; name a linear without it");
  for (const std::string &family : rule.families)
    if (family_or_null(family) == nullptr)
      throw Error(path + ".families: unknown family " + io::in_quotes(family) + "; expected one of " +
                  family_names());
  for (const std::string &pattern : rule.roles) {
    const auto same = [&](std::string_view role) { return matches_role(pattern, role); };
    if (in_mixer) {
      if (std::none_of(std::begin(kMixerOperators), std::end(kMixerOperators),
                       [&](const MixerOperator &o) { return same(o.role); }))
        throw Error(path + ".roles: " + io::in_quotes(pattern) +
                    " matches no operator inside a mixer (attn.qk, attn.pv, attn.av, ...)");
      continue;
    }
    if (std::none_of(linear_roles().begin(), linear_roles().end(), same))
      throw Error(path + ".roles: " + io::in_quotes(pattern) +
                  " matches no linear layer (attn.q_proj, mlp.down_proj, lm_head, ...)");
  }
}

} // namespace

void check_recipe(const Recipe &recipe, const std::string &where) {
  if (!recipe.linears.contains(recipe.default_linear))
    throw Error(where + ".default: " + io::in_quotes(recipe.default_linear) + " is not among its linears");
  if (recipe.mixers == FormatId::bf16) {
    Recipe plain = recipe;
    plain.rules.clear();
    check_gemm({.unit = plain.resolve("lm_head", 0, 0).bf16_unit}, where + ".mixers");
  }
  check_stored(recipe.kv_cache, where + ".kv_cache");
  check_stored(recipe.gate_inputs, where + ".gate_inputs");
  for (size_t i = 0; i < recipe.rules.size(); ++i)
    check_rule(recipe, recipe.rules[i], where + ".rules[" + std::to_string(i) + "]", false);
  for (size_t i = 0; i < recipe.mixer_rules.size(); ++i)
    check_rule(recipe, recipe.mixer_rules[i], where + ".mixer_rules[" + std::to_string(i) + "]", true);
  for (const auto &[name, linear] : recipe.linears) {
    const std::string path = where + ".linears." + io::printable(name, 60);
    for (const auto &[product, gemm] :
         {std::pair(".fprop", &linear.fprop), std::pair(".dgrad", &linear.dgrad),
          std::pair(".wgrad", &linear.wgrad)}) {
      check_operand(gemm->a, path + product + ".a");
      check_operand(gemm->b, path + product + ".b");
    }
    Recipe one = recipe;
    one.rules.clear();
    one.default_linear = name;
    const LinearRecipe l = one.resolve("lm_head", 0, 0); // with the names of the units
    check_gemm(l.fprop, path + ".fprop");
    check_gemm(l.dgrad, path + ".dgrad");
    check_gemm(l.wgrad, path + ".wgrad");
    check_hcp(l, path + ".hcp");
    check_decoded(l, path);
    check_mean(l, recipe.amax_period, path);
    const auto of_tensor = [](const OperandRecipe &o) { return o.decoded && o.format != OperandFormat::simulated; };
    if (recipe.amax_period > 1 && (of_tensor(l.dgrad.b) || of_tensor(l.wgrad.b)))
      throw Error(path + ": decoded makes fprop's copy anew, which does not know a held amax; use amax_period 1");
  }
}

} // namespace nvfp4::models
