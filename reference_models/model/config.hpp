// SPDX-License-Identifier: Apache-2.0
// The shape of a model: family, sizes, presets, JSON. The list of its parameters follows from it alone.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace nvfp4::models {

enum class Family : uint8_t {
  gla,     ///< gated linear attention, as flash-linear-attention defines it
  qwen3,   ///< softmax attention, grouped queries, RMSNorm on q and k per head, RoPE
  qwen2_5, ///< the same with QKV bias and without the norms on q and k
  gdn,     ///< Gated DeltaNet, as flash-linear-attention defines it
};
[[nodiscard]] std::string_view to_string(Family family);
/// gla, qwen3, qwen2.5 or gdn; Error listing them otherwise.
[[nodiscard]] Family parse_family(std::string_view name);

struct ModelConfig {
  Family family = Family::gla;
  std::string name = "tiny";
  int64_t vocabulary = 256;
  int64_t hidden = 128;
  int64_t layers = 4;
  int64_t heads = 4;
  int64_t kv_heads = 4;       ///< softmax attention only; divides heads
  int64_t key_dim = 64;       ///< of all heads: heads * head size of q (and of k in linear attention)
  int64_t value_dim = 128;    ///< of all heads; softmax attention: heads * head size, as key_dim
  int64_t intermediate = 384; ///< SwiGLU's inner width
  bool tie = true;            ///< lm_head is the embedding
  double norm_epsilon = 1e-6;
  int64_t gate_rank = 16;        ///< GLA's gk_proj.0
  double gate_normalizer = 16.0; ///< GLA: g = logsigmoid(gk) / this
  double rope_base = 1e6;        ///< softmax attention
  bool qk_norm = true;           ///< softmax attention
  bool qkv_bias = false;         ///< softmax attention
  int64_t convolution = 4;       ///< Gated DeltaNet's short convolutions
  double init_std = 0.02;

  [[nodiscard]] int64_t key_head() const { return key_dim / heads; }
  [[nodiscard]] int64_t value_head() const { return value_dim / heads; }
  [[nodiscard]] bool softmax() const { return family == Family::qwen3 || family == Family::qwen2_5; }
  bool operator==(const ModelConfig &) const = default;
};

/// A preset: gla tiny, small, gla-340m, gla-1.3b; qwen3 tiny, small, qwen3-0.6b, qwen3-1.7b; qwen2.5 tiny,
/// small; gdn tiny, small, gdn-340m. Error listing the family's sizes otherwise.
[[nodiscard]] ModelConfig preset(Family family, std::string_view size);
/// `model` is a family's name with `size` a preset, or a path of a JSON file, which has the fields of
/// ModelConfig.
/// `changes` sets fields: "hidden=256,layers=6".
[[nodiscard]] ModelConfig find_model(const std::string &model, const std::string &size,
                                     const std::string &changes = {});
/// Throws Error unless the sizes make a model: positive, divisible by heads and so on.
void check(const ModelConfig &config);

[[nodiscard]] std::string to_json(const ModelConfig &config);
/// Unknown keys, missing family and wrong types are Errors that name `source`.
[[nodiscard]] ModelConfig config_from_json(std::string_view json, std::string_view source);

enum class Init : uint8_t { normal, zeros, ones, decay, time_step };

struct ParameterSpec {
  std::string name; ///< as Hugging Face transformers and flash-linear-attention name it
  std::vector<int64_t> shape;
  Init init = Init::normal;
  bool decay = false; ///< weight decay applies: matrices

  [[nodiscard]] int64_t count() const;
};

/// Every parameter once, in the order of the model.
[[nodiscard]] std::vector<ParameterSpec> parameter_list(const ModelConfig &config);
[[nodiscard]] int64_t parameter_count(const ModelConfig &config);

/// "model.layers.3.attn." or, for softmax attention, "model.layers.3.self_attn.".
[[nodiscard]] std::string mixer_path(const ModelConfig &config, int64_t layer);

} // namespace nvfp4::models
