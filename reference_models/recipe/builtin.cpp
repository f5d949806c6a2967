// SPDX-License-Identifier: Apache-2.0
// The built-in recipes, as the JSON that a user would write, put together from the parts that they share.
// Unnamed fields have the defaults of README.md.
#include "nvfp4/reference_models/recipe/recipe.hpp"

#include "nvfp4/emulator/nearest.hpp"
#include "nvfp4/reference_models/family/family.hpp"

#include <algorithm>
#include <array>

namespace nvfp4::models {
namespace {

constexpr std::string_view kFp32 = R"("fprop": {"a": "f32", "b": "f32", "output": "f32"},
      "dgrad": {"a": "f32", "b": "f32", "output": "f32"},
      "wgrad": {"a": "f32", "b": "f32", "output": "f32"})";
constexpr std::string_view kBf16 = R"("fprop": {"a": "bf16", "b": "bf16"},
      "dgrad": {"a": "bf16", "b": "bf16"},
      "wgrad": {"a": "bf16", "b": "bf16"})";
/// The head: logits stay FP32.
constexpr std::string_view kHead = R"("fprop": {"a": "bf16", "b": "bf16", "output": "f32"},
      "dgrad": {"a": "bf16", "b": "bf16"},
      "wgrad": {"a": "bf16", "b": "bf16"})";
constexpr std::string_view kNvfp4Plain = R"("fprop": {"a": "nvfp4", "b": "nvfp4"},
      "dgrad": {"a": "nvfp4", "b": "nvfp4"},
      "wgrad": {"a": "nvfp4", "b": "nvfp4"})";
/// 16x16 weights, stochastic rounding of gradients, Hadamard in wgrad.
constexpr std::string_view kNvfp4 = R"("fprop": {"a": "nvfp4", "b": {"format": "nvfp4", "block_rows": 16}},
      "dgrad": {"a": {"format": "nvfp4", "rounding": "sr-carry8"}, "b": {"format": "nvfp4", "block_rows": 16}},
      "wgrad": {"a": {"format": "nvfp4", "rounding": "sr-carry8", "hadamard": true},
                "b": {"format": "nvfp4", "hadamard": true}})";
constexpr std::string_view kMxfp4 = R"("fprop": {"a": {"format": "mxfp4", "convention": "mxfp4-ceil"},
                "b": {"format": "mxfp4", "convention": "mxfp4-ceil"}},
      "dgrad": {"a": {"format": "mxfp4", "convention": "mxfp4-ceil", "rounding": "sr-carry8"},
                "b": {"format": "mxfp4", "convention": "mxfp4-ceil"}},
      "wgrad": {"a": {"format": "mxfp4", "convention": "mxfp4-ceil", "rounding": "sr-carry8", "hadamard": true},
                "b": {"format": "mxfp4", "convention": "mxfp4-ceil", "hadamard": true}})";
constexpr std::string_view kMxfp8 = R"("fprop": {"a": "mxfp8", "b": "mxfp8"},
      "dgrad": {"a": "mxfp8", "b": "mxfp8"},
      "wgrad": {"a": "mxfp8", "b": "mxfp8"})";

constexpr std::string_view kLastBlocks = R"({"last": 0.15, "use": "bf16"})";
constexpr std::string_view kHeadRule = R"({"roles": ["lm_head"], "use": "head"})";

struct Builtin {
  std::string_view name, description;
  std::string_view linear, products; ///< of the blocks: its name, its three products
  bool head = true;                  ///< lm_head in BF16 with FP32 logits
  bool last_blocks = false;          ///< the last blocks in BF16
  bool hcp = false;                  ///< Hot-Channel Patch, with its defaults
  bool post_qk = false;              ///< operators after QK in BF16
};

constexpr std::array<Builtin, 9> kBuiltins = {{
    {.name = "fp32",
     .description = "FP32 everywhere: fused multiply-adds in order, no tensor core",
     .linear = "f32",
     .products = kFp32,
     .head = false},
    {.name = "bf16",
     .description =
         "BF16 operands in exact sm_90 accumulation (sm_100's is the same), outputs rounded to BF16; "
         "logits stay FP32",
     .linear = "bf16",
     .products = kBf16},
    {.name = "nvfp4-plain",
     .description =
         "NVFP4 1x16 with round to nearest everywhere, all blocks: the recipe that is known to diverge",
     .linear = "nvfp4",
     .products = kNvfp4Plain},
    {.name = "nvfp4",
     .description =
         "NVIDIA's recipe (arXiv 2509.25149): 16x16 weights, stochastic rounding of gradients, Hadamard "
         "in wgrad; the last blocks and the head in BF16",
     .linear = "nvfp4",
     .products = kNvfp4,
     .last_blocks = true},
    {.name = "hcp",
     .description = "nvfp4 with the Hot-Channel Patch in every NVFP4 forward product",
     .linear = "nvfp4",
     .products = kNvfp4,
     .last_blocks = true,
     .hcp = true},
    {.name = "post-qk",
     .description = "nvfp4 with the operators after QK in BF16",
     .linear = "nvfp4",
     .products = kNvfp4,
     .last_blocks = true,
     .post_qk = true},
    {.name = "chon",
     .description =
         "CHON (arXiv 2602.02047): nvfp4 with the Hot-Channel Patch and the operators after QK in BF16",
     .linear = "nvfp4",
     .products = kNvfp4,
     .last_blocks = true,
     .hcp = true,
     .post_qk = true},
    {.name = "mxfp4-sr-rht",
     .description =
         "MXFP4 (blocks of 32, powers of two, rounded up so that nothing saturates) with stochastic "
         "rounding of gradients and Hadamard in wgrad; the last blocks and the head in BF16",
     .linear = "mxfp4",
     .products = kMxfp4,
     .last_blocks = true},
    {.name = "mxfp8",
     .description = "MXFP8 E4M3 everywhere but the head",
     .linear = "mxfp8",
     .products = kMxfp8},
}};

/// "a", "b".
std::string quoted(std::span<const std::string_view> texts) {
  std::string list;
  for (const std::string_view t : texts) list.append(list.empty() ? "\"" : ", \"").append(t).append("\"");
  return list;
}

/// The operators after QK in BF16: a rule for each list of roles, with the neighbouring families that have
/// it.
std::vector<std::string> post_qk_rules() {
  std::vector<std::string> rules;
  std::vector<const ModelFamily *> all;
  for (const ModelFamily *f : families())
    if (f->like.empty() && f->post_qk_as.empty()) all.push_back(f);
  for (size_t begin = 0, end; begin < all.size(); begin = end) {
    std::vector<std::string_view> names;
    for (end = begin; end < all.size() && std::ranges::equal(all[end]->post_qk, all[begin]->post_qk); ++end)
      names.push_back(all[end]->name);
    rules.push_back("{\"families\": [" + quoted(names) + "], \"roles\": [" + quoted(all[begin]->post_qk) +
                    "], \"use\": \"bf16\"}");
  }
  return rules;
}

std::string json_of(const Builtin &b) {
  std::string linears, rules;
  const auto linear = [&](std::string_view name, std::string_view products, std::string_view more = "") {
    linears.append(linears.empty() ? "\n    \"" : ",\n    \"").append(name).append("\": {");
    linears.append(products).append(more).append("}");
  };
  const auto rule = [&](std::string_view text) {
    rules.append(rules.empty() ? "\n    " : ",\n    ").append(text);
  };
  linear(b.linear, b.products, b.hcp ? ",\n      \"hcp\": {}" : "");
  if (b.last_blocks) linear("bf16", kBf16);
  if (b.head) linear("head", kHead);
  if (b.post_qk)
    for (const std::string &text : post_qk_rules()) rule(text);
  if (b.last_blocks) rule(kLastBlocks);
  if (b.head) rule(kHeadRule);
  std::string json = "{\n  \"name\": \"" + std::string(b.name) + "\",\n  \"description\": \"";
  json.append(b.description).append("\",\n  \"linears\": {").append(linears);
  json.append("},\n  \"default\": \"").append(b.linear).append("\",\n  \"rules\": [");
  return json.append(rules).append("]\n}");
}

} // namespace

std::span<const std::string_view> builtin_recipes() {
  static constexpr auto names = [] {
    std::array<std::string_view, kBuiltins.size()> n;
    for (size_t i = 0; i < n.size(); ++i) n[i] = kBuiltins[i].name;
    return n;
  }();
  return names;
}

std::string_view builtin_recipe_json(std::string_view name) {
  static const auto texts = [] {
    std::array<std::string, kBuiltins.size()> all;
    for (size_t i = 0; i < all.size(); ++i) all[i] = json_of(kBuiltins[i]);
    return all;
  }();
  std::string names;
  for (size_t i = 0; i < kBuiltins.size(); ++i) {
    if (kBuiltins[i].name == name) return texts[i];
    names.append(names.empty() ? "" : ", ").append(kBuiltins[i].name);
  }
  std::vector<std::string_view> all(builtin_recipes().begin(), builtin_recipes().end());
  for (const RecipeVariation &v : recipe_variations()) {
    names.append(", ").append(v.name);
    all.push_back(v.name);
  }
  throw Error("unknown recipe '" + std::string(name) + "'" +
              suggestion_among(name, all, [](std::string_view n) { return n; }) + "; expected one of " + names +
              ", or a file (with / or .json)");
}

} // namespace nvfp4::models
