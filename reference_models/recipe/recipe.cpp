// SPDX-License-Identifier: Apache-2.0
// Which linear recipe a layer takes.
#include "nvfp4/reference_models/recipe/recipe.hpp"

#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/reference_models/family/mixer_operators.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::models {
namespace {

/// The number of blocks that `first` or `last` means.
int64_t blocks(double amount, int64_t layers) {
  if (amount <= 0) return 0;
  return amount < 1 ? std::max<int64_t>(1, int64_t(std::floor(amount * double(layers) + 0.5)))
                    : int64_t(amount);
}

/// Whether the rule is for the roles behind QK of the family whose analogue this one is: then it is also for
/// those of this one.
bool protects_by_analogy(const RecipeRule &rule, const ModelFamily &family) {
  if (family.post_qk_as.empty()) return false;
  const auto named = std::find(rule.families.begin(), rule.families.end(), family.post_qk_as);
  return named != rule.families.end() &&
         std::ranges::equal(rule.roles, find_family(family.post_qk_as).post_qk);
}

bool is_part_of_run(const RecipeRule &rule) { return rule.from > 0 && rule.from < 1; }

bool applies(const RecipeRule &rule, std::string_view role, int64_t layer, int64_t layers, int64_t step,
             const ModelFamily *family) {
  if (double(step) < rule.from) return false;
  const auto is = [](std::string_view wanted) {
    return [wanted](std::string_view x) { return matches_role(x, wanted); };
  };
  const auto counts = [&](const std::string &name) { return name == family->name || name == family->like; };
  if (!rule.families.empty() && std::none_of(rule.families.begin(), rule.families.end(), counts)) {
    if (!protects_by_analogy(rule, *family) ||
        std::none_of(family->post_qk.begin(), family->post_qk.end(), is(role)))
      return false;
  } else if (std::none_of(rule.roles.begin(), rule.roles.end(), is(role))) {
    return false;
  }
  if (rule.first <= 0 && rule.last <= 0) return true;
  return layer < layers &&
         (layer < blocks(rule.first, layers) || layer >= layers - blocks(rule.last, layers));
}

/// The last of `rules` that speaks of the role; null: none.
const RecipeRule *last_rule(const Recipe &recipe, const std::vector<RecipeRule> &rules,
                            const std::string &role, int64_t layer, int64_t layers, int64_t step = 0) {
  const ModelFamily *const bound = family_or_null(recipe.family);
  const RecipeRule *last = nullptr;
  for (const RecipeRule &rule : rules) {
    if (!rule.families.empty() && bound == nullptr)
      throw Error("recipe '" + recipe.name +
                  "' has rules for model families; bind it with for_family() first");
    if (step > 0 && is_part_of_run(rule))
      throw Error("recipe '" + recipe.name + "' has a rule from " + std::to_string(rule.from) +
                  " of a run's steps, whose number is not known here; write the step into the rule: a JSON file ('nvfp4 "
                  "recipe show NAME' prints one) with \"from\" as a whole number");
    if (applies(rule, role, layer, layers, step, bound)) last = &rule;
  }
  return last;
}

/// All three products with operands of a format and FP32 results.
LinearRecipe uniform(OperandFormat format) {
  LinearRecipe l;
  for (GemmRecipe *g : {&l.fprop, &l.dgrad, &l.wgrad})
    *g = {.a = {.format = format}, .b = {.format = format}, .output = FormatId::f32};
  return l;
}

void replace(std::string &text, std::string_view what, std::string_view with) {
  for (size_t at = text.find(what); at != std::string::npos; at = text.find(what))
    text.replace(at, what.size(), with);
}

/// The unit of a product: its own, or the recipe's for the format.
std::string unit_of(const Recipe &recipe, const GemmRecipe &gemm) {
  if (gemm.a.format == OperandFormat::f32 || !gemm.unit.empty()) return gemm.unit;
  if (gemm.a.format == OperandFormat::simulated) return unit_of(recipe, {});
  if (gemm.a.format == OperandFormat::block_scaled) {
    const Rule &r = find_convention(gemm.a.convention).rule;
    const Format element = format(r.element), scale = format(r.scale);
    const int k = std::max(element.storage_bits == 4 ? 64 : 32, int(r.block));
    return "exact:dot.k" + std::to_string(k) + ".f32." + std::string(element.name) + "." + std::string(scale.name) + ".block" +
           std::to_string(r.block);
  }
  const auto at = recipe.units.find(std::string(to_string(gemm.a.format)));
  if (at == recipe.units.end()) return {};
  std::string unit = at->second;
  for (const auto &[hole, operand] : {std::pair("{a}", &gemm.a), std::pair("{b}", &gemm.b)}) {
    if (operand->convention.empty()) continue;
    const Format element = format(find_convention(operand->convention).rule.element);
    replace(unit, hole, element.name);
  }
  return unit;
}

} // namespace

bool matches_role(std::string_view pattern, std::string_view role) {
  // on a mismatch the last * takes one more character: linear in the product of the lengths
  size_t p = 0, r = 0, star = std::string_view::npos, retry = 0;
  while (r < role.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      retry = r;
    } else if (p < pattern.size() && pattern[p] == role[r]) {
      ++p;
      ++r;
    } else if (star != std::string_view::npos) {
      p = star + 1;
      r = ++retry;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

int64_t HcpRecipe::channels(int64_t contraction) const {
  if (!enabled) return 0;
  const int64_t wanted = k >= 0 ? k : int64_t(std::ceil(fraction * double(contraction) / 16.0)) * 16;
  return std::min(wanted, contraction);
}

bool LinearRecipe::all_f32() const {
  const auto f32 = [](const GemmRecipe &g) { return g.a.format == OperandFormat::f32; };
  return f32(fprop) && f32(dgrad) && f32(wgrad);
}

bool LinearRecipe::splits_mean() const {
  const auto splits = [](const GemmRecipe &g) {
    return g.a.mean == MeanSplit::quantized || g.b.mean == MeanSplit::quantized;
  };
  return splits(fprop) || splits(dgrad) || splits(wgrad);
}

bool Recipe::has_weight_rules() const {
  return soft_clip != 0 || std::any_of(linears.begin(), linears.end(), [](const auto &linear) {
           return linear.second.weights != WeightLevels::none;
         });
}

Recipe Recipe::for_family(const std::string &model_family) const {
  if (has_weight_rules())
    throw Error("recipe '" + name + "' changes weights (soft_clip, weights), which language models do not follow: use "
                "nvfp4 cnn, or drop both");
  Recipe bound = *this;
  bound.family = find_family(model_family).name;
  return bound;
}

void keep_in_bf16(Recipe &recipe, int64_t first, int64_t last) {
  if (!recipe.linears.contains("bf16"))
    throw Error("recipe '" + recipe.name + "' has no linear named \"bf16\", which blocks in BF16 would use");
  const auto is_ours = [](const RecipeRule &r) { return r.use == "bf16" && r.from == 0 && (r.first > 0 || r.last > 0); };
  RecipeRule rule;
  rule.use = "bf16";
  for (const RecipeRule &r : recipe.rules)
    if (is_ours(r)) {
      rule.first = std::max(rule.first, r.first);
      rule.last = std::max(rule.last, r.last);
    }
  std::erase_if(recipe.rules, is_ours);
  if (first >= 0) rule.first = double(first);
  if (last >= 0) rule.last = double(last);
  if (rule.first > 0 || rule.last > 0) recipe.rules.push_back(rule);
}

Recipe Recipe::for_run(int64_t steps) const {
  Recipe bound = *this;
  for (RecipeRule &rule : bound.rules)
    if (is_part_of_run(rule)) rule.from = std::floor(rule.from * double(steps) + 0.5);
  return bound;
}

bool Recipe::changes() const {
  return std::ranges::any_of(rules, [](const RecipeRule &rule) { return rule.from > 0; });
}

Recipe Recipe::at_start() const {
  Recipe first = *this;
  std::erase_if(first.rules, [](const RecipeRule &rule) { return rule.from > 0; });
  return first;
}

std::vector<int64_t> Recipe::phases() const {
  std::vector<int64_t> steps{0};
  for (const RecipeRule &rule : rules)
    if (rule.from >= 1) steps.push_back(int64_t(rule.from));
  std::ranges::sort(steps);
  steps.erase(std::unique(steps.begin(), steps.end()), steps.end());
  return steps;
}

LinearRecipe Recipe::resolve(const std::string &role, int64_t layer, int64_t layers, int64_t step) const {
  const bool in_mixer = mixer_operator_or_null(role) != nullptr;
  const RecipeRule *const rule = last_rule(*this, in_mixer ? mixer_rules : rules, role, layer, layers, step);
  LinearRecipe linear = rule != nullptr ? linears.at(rule->use)
                        : !in_mixer
                            ? linears.at(default_linear)
                            : uniform(mixers == FormatId::bf16 ? OperandFormat::bf16 : OperandFormat::f32);
  for (GemmRecipe *g : {&linear.fprop, &linear.dgrad, &linear.wgrad}) g->unit = unit_of(*this, *g);
  for (const auto &[again, first] :
       {std::pair(&linear.dgrad.b, &linear.fprop.b), {&linear.wgrad.b, &linear.fprop.a}, {&linear.wgrad.a, &linear.dgrad.a}}) {
    if (!again->decoded) continue;
    again->first_convention = first->convention;
    again->first_block_rows = first->block_rows;
    again->first_rounding = first->rounding;
    again->first_mean = first->mean;
  }
  linear.source = source;
  linear.accumulation = accumulation;
  linear.amax = amax;
  linear.amax_period = amax_period;
  linear.bf16_unit = unit_of(*this, {});
  return linear;
}

bool Recipe::has_mixer_rule(const std::string &role, int64_t layer, int64_t layers) const {
  return last_rule(*this, mixer_rules, role, layer, layers) != nullptr;
}

} // namespace nvfp4::models
