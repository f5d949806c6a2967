// SPDX-License-Identifier: Apache-2.0
// A model family as a row of data: names, presets, the mixer's parameters with its linear layers, and what is
// known of it. Configurations, parameters, checks of recipes, help and messages follow from the rows. To add
// a family, write its row (as gla.cpp), name it in families.cpp, and give model/mixers.cpp its mixer if it is
// new.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nvfp4::models {

struct ModelConfig;

/// Token mixers (model/mixers.cpp makes them); families may share one.
enum class MixerKind : uint8_t {
  gla,       ///< gated linear attention
  attention, ///< causal softmax attention over grouped queries
  delta,     ///< the gated delta rule behind short convolutions
  slots,     ///< gated slot attention
  scan,      ///< Mamba-2's scan of a state space behind a short convolution
};

/// How a parameter begins (model/parameters.hpp has the definitions).
enum class Init : uint8_t { normal, zeros, ones, decay, scan_decay, time_step };

/// A length in a parameter's shape, as a function of the configuration.
enum class Dim : uint8_t {
  none, ///< no such dimension
  one,
  hidden,
  key,        ///< queries of all heads
  kv,         ///< keys, and values in softmax attention, of all key-value heads
  value,      ///< values of all heads
  heads,      ///< one value a head
  key_head,   ///< a head of a query
  value_head, ///< a head of a value
  gate_rank,
  taps,      ///< of a short convolution
  slots,     ///< of all heads
  convolved, ///< Mamba-2's x of all heads, B and C
  scanned,   ///< what Mamba-2 projects to: z, those, and a step a head
};

struct MixerParameter {
  std::string_view module, part; ///< "q_proj" and ".weight"; the part is empty where a module is a parameter
  std::array<Dim, 3> shape;
  Init init = Init::normal;
  bool weight_decay = false;
  /// Of the weight of a linear layer: its number within the block, which keys stochastic rounding; else -1.
  /// 12 to 15 are the MLP's and the head's.
  int linear = -1;
  bool ModelConfig::*when = nullptr; ///< there only if this field is set
};

/// The parameters of a row, in its author's words.
constexpr MixerParameter linear_weight(int number, std::string_view module, Dim out, Dim in) {
  return {module, ".weight", {out, in}, Init::normal, true, number, nullptr};
}
constexpr MixerParameter bias(std::string_view module, Dim out, bool ModelConfig::*when = nullptr) {
  return {module, ".bias", {out}, Init::zeros, false, -1, when};
}
constexpr MixerParameter norm_weight(std::string_view module, Dim width, bool ModelConfig::*when = nullptr) {
  return {module, ".weight", {width}, Init::ones, false, -1, when};
}
constexpr MixerParameter convolution_weight(std::string_view module, Dim channels) {
  return {module, ".weight", {channels, Dim::one, Dim::taps}, Init::normal, false, -1, nullptr};
}
constexpr MixerParameter per_head(std::string_view name, Init init) {
  return {name, "", {Dim::heads}, init, false, -1, nullptr};
}

struct Preset {
  std::string_view size;
  int64_t vocabulary, hidden, layers, heads, kv_heads, key_dim, value_dim, intermediate;
  bool tie; ///< lm_head is the embedding
  double gate_normalizer = 16, norm_epsilon = 1e-6;
  int64_t slots = 64, state = 128;
};

/// What the library that a family comes from calls the modules around the mixer.
struct ModuleNames {
  std::string_view embedding;                   ///< "model.embeddings"
  std::string_view mixer_norm, mixer, mlp_norm; ///< within "model.layers.N."; mlp_norm empty: there is no MLP
  std::string_view blocks = "model.layers", final_norm = "model.norm";
};
inline constexpr ModuleNames kFlaNames = {"model.embeddings", "attn_norm", "attn", "mlp_norm"};
inline constexpr ModuleNames kTransformersNames = {"model.embed_tokens", "input_layernorm", "self_attn",
                                                   "post_attention_layernorm"};
inline constexpr ModuleNames kMambaNames = {
    "backbone.embeddings", "norm", "mixer", "", "backbone.layers", "backbone.norm_f"};

/// What published notes on "Dissecting Outlier Dynamics in LLM NVFP4 Pretraining" (arXiv 2602.02047) say of
/// models of this kind, for the report; empty: nothing.
struct PaperFigures {
  std::string_view nvfp4_gap = {}, chon_gap = {};        ///< of the loss to BF16's
  std::string_view weight_kurtosis = {};                 ///< late excess kurtosis of weights
  std::string_view most_sensitive = {}, most_score = {}; ///< a role, and its sensitivity score
  std::string_view least_sensitive = {}, least_score = {};
};

struct ModelFamily {
  std::string_view name; ///< in JSON, options and files
  std::string_view summary;
  MixerKind mixer;
  ModuleNames modules;
  std::span<const MixerParameter> parameters; ///< of the mixer, in the order of the model
  std::span<const Preset> presets;            ///< "tiny" first
  bool qk_norm = false, qkv_bias = false;     ///< what its presets have
  /// Patterns of the roles behind QK, whose errors nothing after them averages out: BF16 in CHON.
  std::span<const std::string_view> post_qk;
  /// The family whose rules in recipes count for this one too, so that recipes need not name it; empty: none.
  std::string_view like = {};
  /// What the sizes must be besides ModelConfig's ranges: "heads = 3 to be a multiple of ..."; empty if they
  /// are.
  std::string (*expected)(const ModelConfig &) = nullptr;
  PaperFigures paper = {};
  /// The family whose rules for its roles behind QK, named as its row names them, count for this one's: the
  /// built-in recipes have the text of stored runs, which knows fewer families. Empty: none.
  std::string_view post_qk_as = {};
  std::string_view output = "o_proj"; ///< the linear layer in which the mixer ends

  /// The linear layer of the mixer with this module name; null if there is none.
  [[nodiscard]] const MixerParameter *find_linear(std::string_view module) const;
  [[nodiscard]] bool has_mlp() const { return !modules.mlp_norm.empty(); }
  [[nodiscard]] std::string output_role() const { return "attn." + std::string(output); }
  /// That of the linear layer in which a block ends.
  [[nodiscard]] std::string last_role() const { return has_mlp() ? "mlp.down_proj" : output_role(); }
};

/// All families, in the order in which they are listed.
[[nodiscard]] std::span<const ModelFamily *const> families();
/// Null for an unknown name.
[[nodiscard]] const ModelFamily *family_or_null(std::string_view name);
/// Error listing the families for an unknown name.
[[nodiscard]] const ModelFamily &find_family(std::string_view name);
/// "gla, qwen3, ...", for messages and help.
[[nodiscard]] std::string family_names();

/// A linear layer of every block outside the mixer, where it has an MLP, or the head. "attn." stands for the
/// mixer's module in every role.
struct SharedLinear {
  std::string_view role;
  int number;
};
inline constexpr std::array<SharedLinear, 4> kSharedLinears = {
    {{"mlp.gate_proj", 12}, {"mlp.up_proj", 13}, {"mlp.down_proj", 14}, {"lm_head", 15}}};
/// Numbers of linear layers that a block may have.
inline constexpr int kLinearsPerBlock = 16;

/// Roles of a family's linear layers, in the order of its parameters: "attn.q_proj", ..., "lm_head".
[[nodiscard]] std::vector<std::string> linear_roles(const ModelFamily &family);
/// Roles of all families, each once: what rules of recipes may name.
[[nodiscard]] std::span<const std::string> linear_roles();
/// The family with most of these roles, of equals one with an MLP, and then the one with the fewest others.
[[nodiscard]] const ModelFamily &guess_family(std::span<const std::string> roles);

/// The table of families that README.md has, in Markdown.
[[nodiscard]] std::string family_table();

} // namespace nvfp4::models
