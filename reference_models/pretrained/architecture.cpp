// SPDX-License-Identifier: Apache-2.0
// The rows. Sources: Hugging Face transformers 5.24, models/{llama,qwen2,qwen3,gemma3}/modeling_*.py and
// configuration_*.py.
#include "nvfp4/reference_models/pretrained/architecture.hpp"

#include <algorithm>
#include <array>

namespace nvfp4::models::pretrained {
namespace {

constexpr Architecture kGemma3 = {.name = "Gemma3ForCausalLM",
                                  .model_type = "gemma3_text",
                                  .family = "qwen3",
                                  .qk_norm = true,
                                  .one_plus_norm = true,
                                  .sandwich = true,
                                  .scaled_embedding = true,
                                  .query_scalar = true,
                                  .local_layers = true,
                                  .activation = GateActivation::gelu_tanh,
                                  .tied = true};

constexpr Architecture gemma3_of_images() {
  Architecture a = kGemma3;
  a.name = "Gemma3ForConditionalGeneration";
  a.nested = true;
  return a;
}

constexpr std::array kTable{
    Architecture{.name = "LlamaForCausalLM", .model_type = "llama", .family = "llama"},
    Architecture{.name = "Qwen2ForCausalLM", .model_type = "qwen2", .family = "qwen2.5", .qkv_bias = true},
    Architecture{.name = "Qwen3ForCausalLM", .model_type = "qwen3", .family = "qwen3", .qk_norm = true},
    kGemma3,
    gemma3_of_images(),
};

} // namespace

std::span<const Architecture> architectures() { return kTable; }

const Architecture *find_architecture(std::string_view name) {
  const auto at =
      std::find_if(kTable.begin(), kTable.end(), [&](const Architecture &a) { return a.name == name; });
  return at == kTable.end() ? nullptr : &*at;
}

std::string architecture_names() {
  std::string names;
  for (const Architecture &a : kTable) names.append(names.empty() ? "" : ", ").append(a.name);
  return names;
}

} // namespace nvfp4::models::pretrained
