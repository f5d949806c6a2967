// SPDX-License-Identifier: Apache-2.0
// The built-in recipes, as the JSON that a user would write. Unnamed fields have the defaults of README.md.
#include "reference_models/recipe/recipe.hpp"

#include <array>

namespace nvfp4::models {
namespace {

struct Builtin {
  std::string_view name, json;
};

constexpr std::string_view kFp32 = R"({
  "name": "fp32",
  "description": "FP32 everywhere: fused multiply-adds in order, no tensor core",
  "linears": {"f32": {"fprop": {"a": "f32", "b": "f32", "output": "f32"},
                      "dgrad": {"a": "f32", "b": "f32", "output": "f32"},
                      "wgrad": {"a": "f32", "b": "f32", "output": "f32"}}},
  "default": "f32"
})";

constexpr std::string_view kBf16 = R"({
  "name": "bf16",
  "description": "BF16 operands in exact sm_90 accumulation (sm_100's is the same), outputs rounded to BF16; logits stay FP32",
  "linears": {
    "bf16": {"fprop": {"a": "bf16", "b": "bf16"}, "dgrad": {"a": "bf16", "b": "bf16"}, "wgrad": {"a": "bf16", "b": "bf16"}},
    "head": {"fprop": {"a": "bf16", "b": "bf16", "output": "f32"}, "dgrad": {"a": "bf16", "b": "bf16"}, "wgrad": {"a": "bf16", "b": "bf16"}}
  },
  "default": "bf16",
  "rules": [{"roles": ["lm_head"], "use": "head"}]
})";

constexpr std::string_view kNvfp4Plain = R"({
  "name": "nvfp4-plain",
  "description": "NVFP4 1x16 with round to nearest everywhere, all blocks: the recipe that is known to diverge",
  "linears": {
    "nvfp4": {"fprop": {"a": "nvfp4", "b": "nvfp4"}, "dgrad": {"a": "nvfp4", "b": "nvfp4"}, "wgrad": {"a": "nvfp4", "b": "nvfp4"}},
    "head": {"fprop": {"a": "bf16", "b": "bf16", "output": "f32"}, "dgrad": {"a": "bf16", "b": "bf16"}, "wgrad": {"a": "bf16", "b": "bf16"}}
  },
  "default": "nvfp4",
  "rules": [{"roles": ["lm_head"], "use": "head"}]
})";

constexpr std::string_view kNvfp4 = R"({
  "name": "nvfp4",
  "description": "NVIDIA's recipe (arXiv 2509.25149): 16x16 weights, stochastic rounding of gradients, Hadamard in wgrad; the last blocks and the head in BF16",
  "linears": {
    "nvfp4": {"fprop": {"a": "nvfp4", "b": {"format": "nvfp4", "block_rows": 16}},
              "dgrad": {"a": {"format": "nvfp4", "rounding": "sr-carry8"}, "b": {"format": "nvfp4", "block_rows": 16}},
              "wgrad": {"a": {"format": "nvfp4", "rounding": "sr-carry8", "hadamard": true},
                        "b": {"format": "nvfp4", "hadamard": true}}},
    "bf16": {"fprop": {"a": "bf16", "b": "bf16"}, "dgrad": {"a": "bf16", "b": "bf16"}, "wgrad": {"a": "bf16", "b": "bf16"}},
    "head": {"fprop": {"a": "bf16", "b": "bf16", "output": "f32"}, "dgrad": {"a": "bf16", "b": "bf16"}, "wgrad": {"a": "bf16", "b": "bf16"}}
  },
  "default": "nvfp4",
  "rules": [{"last": 0.15, "use": "bf16"}, {"roles": ["lm_head"], "use": "head"}]
})";

constexpr std::string_view kHcp = R"({
  "name": "hcp",
  "description": "nvfp4 with the Hot-Channel Patch in every NVFP4 forward product",
  "linears": {
    "nvfp4": {"fprop": {"a": "nvfp4", "b": {"format": "nvfp4", "block_rows": 16}},
              "dgrad": {"a": {"format": "nvfp4", "rounding": "sr-carry8"}, "b": {"format": "nvfp4", "block_rows": 16}},
              "wgrad": {"a": {"format": "nvfp4", "rounding": "sr-carry8", "hadamard": true},
                        "b": {"format": "nvfp4", "hadamard": true}},
              "hcp": {}},
    "bf16": {"fprop": {"a": "bf16", "b": "bf16"}, "dgrad": {"a": "bf16", "b": "bf16"}, "wgrad": {"a": "bf16", "b": "bf16"}},
    "head": {"fprop": {"a": "bf16", "b": "bf16", "output": "f32"}, "dgrad": {"a": "bf16", "b": "bf16"}, "wgrad": {"a": "bf16", "b": "bf16"}}
  },
  "default": "nvfp4",
  "rules": [{"last": 0.15, "use": "bf16"}, {"roles": ["lm_head"], "use": "head"}]
})";

constexpr std::string_view kPostQk = R"({
  "name": "post-qk",
  "description": "nvfp4 with the operators after QK in BF16",
  "linears": {
    "nvfp4": {"fprop": {"a": "nvfp4", "b": {"format": "nvfp4", "block_rows": 16}},
              "dgrad": {"a": {"format": "nvfp4", "rounding": "sr-carry8"}, "b": {"format": "nvfp4", "block_rows": 16}},
              "wgrad": {"a": {"format": "nvfp4", "rounding": "sr-carry8", "hadamard": true},
                        "b": {"format": "nvfp4", "hadamard": true}}},
    "bf16": {"fprop": {"a": "bf16", "b": "bf16"}, "dgrad": {"a": "bf16", "b": "bf16"}, "wgrad": {"a": "bf16", "b": "bf16"}},
    "head": {"fprop": {"a": "bf16", "b": "bf16", "output": "f32"}, "dgrad": {"a": "bf16", "b": "bf16"}, "wgrad": {"a": "bf16", "b": "bf16"}}
  },
  "default": "nvfp4",
  "rules": [{"families": ["gla"], "roles": ["attn.o_proj", "attn.gk_proj.*"], "use": "bf16"},
            {"families": ["qwen3", "qwen2.5"], "roles": ["attn.v_proj"], "use": "bf16"},
            {"families": ["gdn"], "roles": ["attn.o_proj", "attn.a_proj", "attn.b_proj"], "use": "bf16"},
            {"last": 0.15, "use": "bf16"}, {"roles": ["lm_head"], "use": "head"}]
})";

constexpr std::string_view kChon = R"({
  "name": "chon",
  "description": "CHON (arXiv 2602.02047): nvfp4 with the Hot-Channel Patch and the operators after QK in BF16",
  "linears": {
    "nvfp4": {"fprop": {"a": "nvfp4", "b": {"format": "nvfp4", "block_rows": 16}},
              "dgrad": {"a": {"format": "nvfp4", "rounding": "sr-carry8"}, "b": {"format": "nvfp4", "block_rows": 16}},
              "wgrad": {"a": {"format": "nvfp4", "rounding": "sr-carry8", "hadamard": true},
                        "b": {"format": "nvfp4", "hadamard": true}},
              "hcp": {}},
    "bf16": {"fprop": {"a": "bf16", "b": "bf16"}, "dgrad": {"a": "bf16", "b": "bf16"}, "wgrad": {"a": "bf16", "b": "bf16"}},
    "head": {"fprop": {"a": "bf16", "b": "bf16", "output": "f32"}, "dgrad": {"a": "bf16", "b": "bf16"}, "wgrad": {"a": "bf16", "b": "bf16"}}
  },
  "default": "nvfp4",
  "rules": [{"families": ["gla"], "roles": ["attn.o_proj", "attn.gk_proj.*"], "use": "bf16"},
            {"families": ["qwen3", "qwen2.5"], "roles": ["attn.v_proj"], "use": "bf16"},
            {"families": ["gdn"], "roles": ["attn.o_proj", "attn.a_proj", "attn.b_proj"], "use": "bf16"},
            {"last": 0.15, "use": "bf16"}, {"roles": ["lm_head"], "use": "head"}]
})";

constexpr std::string_view kMxfp4 = R"({
  "name": "mxfp4-sr-rht",
  "description": "MXFP4 (blocks of 32, powers of two, rounded up so that nothing saturates) with stochastic rounding of gradients and Hadamard in wgrad; the last blocks and the head in BF16",
  "linears": {
    "mxfp4": {"fprop": {"a": {"format": "mxfp4", "convention": "mxfp4-ceil"}, "b": {"format": "mxfp4", "convention": "mxfp4-ceil"}},
              "dgrad": {"a": {"format": "mxfp4", "convention": "mxfp4-ceil", "rounding": "sr-carry8"}, "b": {"format": "mxfp4", "convention": "mxfp4-ceil"}},
              "wgrad": {"a": {"format": "mxfp4", "convention": "mxfp4-ceil", "rounding": "sr-carry8", "hadamard": true},
                        "b": {"format": "mxfp4", "convention": "mxfp4-ceil", "hadamard": true}}},
    "bf16": {"fprop": {"a": "bf16", "b": "bf16"}, "dgrad": {"a": "bf16", "b": "bf16"}, "wgrad": {"a": "bf16", "b": "bf16"}},
    "head": {"fprop": {"a": "bf16", "b": "bf16", "output": "f32"}, "dgrad": {"a": "bf16", "b": "bf16"}, "wgrad": {"a": "bf16", "b": "bf16"}}
  },
  "default": "mxfp4",
  "rules": [{"last": 0.15, "use": "bf16"}, {"roles": ["lm_head"], "use": "head"}]
})";

constexpr std::string_view kMxfp8 = R"({
  "name": "mxfp8",
  "description": "MXFP8 E4M3 everywhere but the head",
  "linears": {
    "mxfp8": {"fprop": {"a": "mxfp8", "b": "mxfp8"}, "dgrad": {"a": "mxfp8", "b": "mxfp8"}, "wgrad": {"a": "mxfp8", "b": "mxfp8"}},
    "head": {"fprop": {"a": "bf16", "b": "bf16", "output": "f32"}, "dgrad": {"a": "bf16", "b": "bf16"}, "wgrad": {"a": "bf16", "b": "bf16"}}
  },
  "default": "mxfp8",
  "rules": [{"roles": ["lm_head"], "use": "head"}]
})";

constexpr std::array<Builtin, 9> kBuiltins = {{{"fp32", kFp32},
                                               {"bf16", kBf16},
                                               {"nvfp4-plain", kNvfp4Plain},
                                               {"nvfp4", kNvfp4},
                                               {"hcp", kHcp},
                                               {"post-qk", kPostQk},
                                               {"chon", kChon},
                                               {"mxfp4-sr-rht", kMxfp4},
                                               {"mxfp8", kMxfp8}}};

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
  std::string names;
  for (const Builtin &b : kBuiltins) {
    if (b.name == name) return b.json;
    names.append(names.empty() ? "" : ", ").append(b.name);
  }
  throw Error("unknown recipe '" + std::string(name) + "'; expected one of " + names + ", or a file (with / or .json)");
}

} // namespace nvfp4::models
