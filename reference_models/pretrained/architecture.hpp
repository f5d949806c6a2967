// SPDX-License-Identifier: Apache-2.0
// Decoder architectures of Hugging Face transformers as rows of data: what differs among those that
// `nvfp4 forward`, `eval` and `generate` run from a folder of config.json and safetensors.
#pragma once
#include "nvfp4/emulator/names.hpp"

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace nvfp4::models::pretrained {

/// What the gate of an MLP goes through before it multiplies `up`.
enum class GateActivation : uint8_t { silu, gelu_tanh };
[[nodiscard]] constexpr auto names_of(GateActivation) {
  return enum_names("activation", "silu", "gelu_tanh");
}
static_assert(names_of(GateActivation{}).end_with(GateActivation::gelu_tanh));

struct Architecture {
  std::string_view name;         ///< in config.json's "architectures"
  std::string_view model_type;   ///< of the text model
  std::string_view family;       ///< whose rules in recipes count (reference_models/family)
  bool nested = false;           ///< the text model's keys stand in "text_config"
  bool qkv_bias = false;         ///< biases of q, k and v, whatever config.json says
  bool qk_norm = false;          ///< RMSNorm of q and k per head
  bool one_plus_norm = false;    ///< norms multiply by 1 + weight
  bool sandwich = false;         ///< norms behind attention and MLP, too, before the residual is added
  bool scaled_embedding = false; ///< by sqrt(hidden), rounded to the type in which the table is stored
  bool query_scalar = false;     ///< scores are divided by sqrt(query_pre_attn_scalar), not of head_dim
  bool local_layers = false;     ///< sliding windows in most layers, with a rotary base of their own
  GateActivation activation = GateActivation::silu;
  bool tied = false; ///< where tie_word_embeddings is not there
};

[[nodiscard]] std::span<const Architecture> architectures();
/// Null for an unknown name.
[[nodiscard]] const Architecture *find_architecture(std::string_view name);
/// "LlamaForCausalLM, ...", for messages.
[[nodiscard]] std::string architecture_names();

} // namespace nvfp4::models::pretrained
