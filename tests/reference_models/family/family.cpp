// SPDX-License-Identifier: Apache-2.0
// The rows of the model families: laws that each must keep, the rules and lists that follow from them, and
// the tables of the documentation.
#include "nvfp4/reference_models/family/config.hpp"
#include "nvfp4/reference_models/family/mixer_operators.hpp"
#include "nvfp4/reference_models/fields/table.hpp"
#include "nvfp4/reference_models/recipe/fields.hpp"
#include "nvfp4/reference_models/train/options.hpp"
#include "tests/catch.hpp"

#include "nvfp4/golden/manifest.hpp"
#include "nvfp4/reference_models/train/fields.hpp"

#include <algorithm>
#include <set>

using namespace nvfp4;
using namespace nvfp4::models;

namespace {

/// A README of the source tree, which golden/ stands in.
std::string readme(const std::string &path) {
  return read_text(golden::find_golden_folder() + "/../" + path);
}

void check_has(const std::string &text, const std::string &table) {
  INFO("expected this table:\n" << table);
  CHECK(text.find(table) != std::string::npos);
}

} // namespace

TEST_CASE("every family's row is whole", "[family]") {
  std::set<std::string_view> names;
  for (const ModelFamily *f : families()) {
    CAPTURE(f->name);
    CHECK(names.insert(f->name).second);
    CHECK(&find_family(f->name) == f);
    REQUIRE_FALSE(f->presets.empty());
    CHECK(f->presets.front().size == "tiny");
    CHECK(f->find_linear(f->output) != nullptr);
    CHECK(f->find_linear("p_proj") == nullptr);
    std::set<int> numbers; // they key stochastic rounding
    for (const MixerParameter &p : f->parameters)
      if (p.linear >= 0) {
        CHECK(numbers.insert(p.linear).second);
        CHECK(p.linear < kSharedLinears.front().number);
      }
    const std::vector<std::string> roles = linear_roles(*f);
    CHECK(roles[roles.size() - (f->has_mlp() ? 5 : 2)] == f->output_role());
    for (const std::string_view pattern : f->post_qk)
      CHECK(std::any_of(roles.begin(), roles.end(),
                        [&](const std::string &role) { return matches_role(pattern, role); }));
    for (const std::string &role : roles)
      CHECK(std::find(linear_roles().begin(), linear_roles().end(), role) != linear_roles().end());
    for (const Preset &p : f->presets) CHECK_NOTHROW(check(preset(*f, p.size)));
  }
  CHECK(family_or_null("mamba") == nullptr);
  CHECK_THROWS_WITH(find_family("mamba"), Catch::Contains("expected one of gla, qwen3, qwen2.5, gdn, llama, gsa, mamba2"));
}

TEST_CASE("linear layers keep the numbers that key their random words", "[family]") {
  const auto numbers = [](const char *family) {
    std::string text;
    for (const MixerParameter &p : find_family(family).parameters)
      if (p.linear >= 0) text += std::string(p.module) + " " + std::to_string(p.linear) + " ";
    return text;
  };
  CHECK(numbers("gla") == "q_proj 0 k_proj 1 v_proj 2 g_proj 3 gk_proj.0 4 gk_proj.1 5 o_proj 6 ");
  CHECK(numbers("qwen3") == "q_proj 0 k_proj 1 v_proj 2 o_proj 6 ");
  CHECK(numbers("qwen2.5") == numbers("qwen3"));
  CHECK(numbers("llama") == numbers("qwen3"));
  CHECK(numbers("gdn") == "q_proj 0 k_proj 1 v_proj 2 a_proj 4 b_proj 5 g_proj 3 o_proj 6 ");
  CHECK(numbers("mamba2") == "in_proj 0 out_proj 6 ");
  CHECK(numbers("gsa") == "q_proj 0 k_proj 1 v_proj 2 f_proj 4 o_proj 6 ");
}

TEST_CASE("no linear layer has the role of an operator inside a mixer", "[family]") {
  for (const MixerOperator &o : kMixerOperators) {
    CHECK(std::find(linear_roles().begin(), linear_roles().end(), o.role) == linear_roles().end());
    CHECK(mixer_operator_or_null(o.role) != nullptr);
    CHECK(&mixer_operator(o.mixer, o.role) == &o);
  }
  CHECK(mixer_operator_or_null("attn.q_proj") == nullptr);
  CHECK(mixer_operator_roles(find_family("llama")) == std::vector<std::string>{"attn.qk", "attn.pv"});
  CHECK(mixer_operator_roles(find_family("gdn")) ==
        std::vector<std::string>{"attn.qk", "attn.av", "attn.state_read", "attn.state_update", "attn.kk",
                                 "attn.state_recall"});
  for (const MixerOperator &a : kMixerOperators) // within a block, of any mixer: one number a role
    for (const MixerOperator &b : kMixerOperators) CHECK((a.role == b.role) == (a.number == b.number));
}

TEST_CASE("the rules behind QK are those that stored runs have", "[family]") {
  const std::string rules =
      R"({"families": ["gla"], "roles": ["attn.o_proj", "attn.gk_proj.*"], "use": "bf16"},
    {"families": ["qwen3", "qwen2.5"], "roles": ["attn.v_proj"], "use": "bf16"},
    {"families": ["gdn"], "roles": ["attn.o_proj", "attn.a_proj", "attn.b_proj"], "use": "bf16"})";
  for (const char *recipe : {"post-qk", "chon"})
    CHECK(builtin_recipe_json(recipe).find(rules) != std::string_view::npos);
}

TEST_CASE("recorded operators tell their family by roles that others lack", "[family]") {
  using Roles = std::vector<std::string>;
  const auto guess = [](const Roles &roles) { return guess_family(roles).name; };
  CHECK(guess(Roles{"attn.q_proj", "mlp.up_proj", "lm_head"}) == "qwen3");
  CHECK(guess(Roles{"attn.gk_proj.0"}) == "gla");
  CHECK(guess(Roles{"mlp.up_proj", "attn.b_proj"}) == "gdn");
  CHECK(guess(Roles{"attn.f_proj"}) == "gsa");
  CHECK(guess(Roles{"attn.out_proj", "lm_head"}) == "mamba2");
  CHECK(guess(Roles{"attn.g_proj", "attn.a_proj", "attn.q_proj"}) == "gdn");
  CHECK(guess(Roles{"attn.qkv_proj"}) == "qwen3");
  CHECK(guess(Roles{}) == "qwen3");
}

TEST_CASE("the READMEs have the tables of families and fields", "[family]") {
  const std::string text = readme("reference_models/README.md");
  check_has(text, family_table());
  check_has(text, field_table(kTrainFields, TrainOptions(), true));
  const std::string recipes = readme("reference_models/recipe/README.md");
  check_has(recipes, mixer_operator_table());
  check_has(recipes, field_table(kRecipeFields, Recipe(), false));
  check_has(recipes, field_table(kRuleFields, RecipeRule(), false));
  check_has(recipes, field_table(kOptimizerFields, OptimizerRecipe(), false));
  check_has(recipes, field_table(kGemmFields, GemmRecipe(), false));
  check_has(recipes, field_table(kOperandFields, OperandRecipe(), false));
  check_has(recipes, field_table(kHcpFields, HcpRecipe{.enabled = true}, false));
  check_has(text, field_table(kModelFields, preset(find_family("gla"), "tiny"), false));
}
