// SPDX-License-Identifier: Apache-2.0
// What the families with softmax attention share: parameters, limits and the paper's figures.
#pragma once
#include "nvfp4/reference_models/family/config.hpp"

namespace nvfp4::models {

inline constexpr MixerParameter kAttentionParameters[] = {
    linear_weight(0, "q_proj", Dim::key, Dim::hidden),
    bias("q_proj", Dim::key, &ModelConfig::qkv_bias),
    linear_weight(1, "k_proj", Dim::kv, Dim::hidden),
    bias("k_proj", Dim::kv, &ModelConfig::qkv_bias),
    linear_weight(2, "v_proj", Dim::kv, Dim::hidden),
    bias("v_proj", Dim::kv, &ModelConfig::qkv_bias),
    linear_weight(6, "o_proj", Dim::hidden, Dim::key),
    norm_weight("q_norm", Dim::key_head, &ModelConfig::qk_norm),
    norm_weight("k_norm", Dim::key_head, &ModelConfig::qk_norm),
};

inline constexpr std::string_view kAttentionPostQk[] = {"attn.v_proj"};

inline std::string attention_expects(const ModelConfig &c) {
  if (c.heads % c.kv_heads != 0)
    return "heads = " + std::to_string(c.heads) +
           " to be a multiple of kv_heads = " + std::to_string(c.kv_heads);
  if (c.key_dim != c.value_dim) return "key_dim and value_dim to be equal in softmax attention";
  if (c.key_head() % 2 != 0) return "an even head size, which rotary embeddings need";
  return {};
}

inline constexpr PaperFigures kAttentionFigures = {.weight_kurtosis = "plateau above 2",
                                                   .most_sensitive = "attn.v_proj",
                                                   .most_score = "0.143",
                                                   .least_sensitive = "mlp.down_proj",
                                                   .least_score = "0.020"};

} // namespace nvfp4::models
