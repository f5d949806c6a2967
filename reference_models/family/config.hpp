// SPDX-License-Identifier: Apache-2.0
// The shape of a model: family, sizes, presets, JSON. The list of its parameters follows from it alone.
#pragma once
#include "nvfp4/reference_models/family/family.hpp"
#include "nvfp4/reference_models/fields/field.hpp"

namespace nvfp4::models {

struct ModelConfig {
  const ModelFamily *family = families().front(); ///< never null
  std::string name = "tiny";
  int64_t vocabulary = 256;
  int64_t hidden = 128;
  int64_t layers = 4;
  int64_t heads = 4;
  int64_t kv_heads = 4;
  int64_t key_dim = 64;
  int64_t value_dim = 128;
  int64_t intermediate = 384;
  bool tie = true;
  double norm_epsilon = 1e-6;
  int64_t gate_rank = 16;
  double gate_normalizer = 16.0;
  double rope_base = 1e6;
  bool qk_norm = true;
  bool qkv_bias = false;
  int64_t convolution = 4;
  int64_t slots = 64;
  int64_t state = 128;
  double init_std = 0.02;

  [[nodiscard]] int64_t key_head() const { return key_dim / heads; }
  [[nodiscard]] int64_t value_head() const { return value_dim / heads; }
  bool operator==(const ModelConfig &) const = default;
};

inline constexpr Bounds kSizes = from_to(1, 2147483648.0);
inline constexpr auto kModelFields = std::tuple{
    field("vocabulary", &ModelConfig::vocabulary, "Tokens", from_to(2, 2147483648.0)),
    field("hidden", &ModelConfig::hidden, "Width of the residual stream", kSizes),
    field("layers", &ModelConfig::layers, "Blocks", from_to(1, 4096)),
    field("heads", &ModelConfig::heads, "Heads of the mixer", kSizes),
    field("kv_heads", &ModelConfig::kv_heads, "Heads of keys and values in softmax attention; divides heads",
          kSizes),
    field("key_dim", &ModelConfig::key_dim, "Queries of all heads; in linear attention also keys", kSizes),
    field("value_dim", &ModelConfig::value_dim, "Values of all heads; as key_dim in softmax attention",
          kSizes),
    field("intermediate", &ModelConfig::intermediate, "Inner width of SwiGLU; Mamba-2 has none", kSizes),
    field("tie", &ModelConfig::tie, "lm_head is the embedding"),
    field("norm_epsilon", &ModelConfig::norm_epsilon, "Of every RMSNorm", between(0, 1)),
    field("gate_rank", &ModelConfig::gate_rank, "Rank of GLA's gk_proj", kSizes),
    field("gate_normalizer", &ModelConfig::gate_normalizer, "GLA's and GSA's gates are logsigmoid over this",
          above(0)),
    field("rope_base", &ModelConfig::rope_base, "Base of rotary embeddings in softmax attention", above(1)),
    field("qk_norm", &ModelConfig::qk_norm, "RMSNorm of q and k per head in softmax attention"),
    field("qkv_bias", &ModelConfig::qkv_bias, "Biases of q, k and v in softmax attention"),
    field("convolution", &ModelConfig::convolution, "Taps of the short convolutions of Gated DeltaNet and Mamba-2", kSizes),
    field("slots", &ModelConfig::slots, "Slots of a head in gated slot attention", kSizes),
    field("state", &ModelConfig::state, "Width of B, C and the states in Mamba-2", kSizes),
    field("init_std", &ModelConfig::init_std, "Standard deviation of initial matrices", between(0, 10))};

/// Of the family's presets; Error listing them for another size.
[[nodiscard]] ModelConfig preset(const ModelFamily &family, std::string_view size);
/// `model` is a family's name with `size` a preset, or a path of a JSON file, which has the fields of
/// ModelConfig or is the run.json of a run. `changes` sets fields: "hidden=256,layers=6".
[[nodiscard]] ModelConfig find_model(const std::string &model, const std::string &size,
                                     const std::string &changes = {});
/// Throws Error unless the sizes make a model: in bounds, divisible by heads and so on.
void check(const ModelConfig &config);

[[nodiscard]] std::string to_json(const ModelConfig &config);
/// Unknown keys, missing family, wrong types and impossible sizes are Errors that name `source`. Fields that
/// are not there are the preset "tiny"'s.
[[nodiscard]] ModelConfig config_from_json(std::string_view json, std::string_view source);

struct ParameterSpec {
  std::string name; ///< as Hugging Face transformers and flash-linear-attention name it
  std::vector<int64_t> shape;
  Init init = Init::normal;
  bool decay = false; ///< weight decay applies: of linear layers and the embedding

  [[nodiscard]] int64_t count() const;
};

/// Every parameter once, in the order of the model.
[[nodiscard]] std::vector<ParameterSpec> parameter_list(const ModelConfig &config);
[[nodiscard]] int64_t parameter_count(const ModelConfig &config);
/// More than a model may have.
inline constexpr double kMostParameters = 0x1p40;

/// "model.layers.3.".
[[nodiscard]] std::string block_path(const ModelConfig &config, int64_t layer);
/// The same as messages have it where they do not know the model: "model.layers.3.".
[[nodiscard]] std::string block_path(int64_t layer);
/// "model.layers.3.attn." or, where the family calls it so, "model.layers.3.self_attn.".
[[nodiscard]] std::string mixer_path(const ModelConfig &config, int64_t layer);
/// The module of a linear layer by its role: "model.layers.3.self_attn.q_proj"; "lm_head" for any layer.
[[nodiscard]] std::string linear_path(const ModelConfig &config, int64_t layer, std::string_view role);
/// "model.layers.3.attn_norm.weight", that before the MLP, where there is one, and the last of all.
[[nodiscard]] std::string mixer_norm(const ModelConfig &config, int64_t layer);
[[nodiscard]] std::string mlp_norm(const ModelConfig &config, int64_t layer);
[[nodiscard]] std::string final_norm(const ModelConfig &config);
/// "model.embeddings.weight".
[[nodiscard]] std::string embedding(const ModelConfig &config);

} // namespace nvfp4::models
