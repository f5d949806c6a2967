// SPDX-License-Identifier: Apache-2.0
// Source: ggml-org/llama.cpp convert_hf_to_gguf.py, gguf-py/gguf/{constants,tensor_mapping}.py (gguf 0.19),
// src/models/gemma3.cpp (scale of scores, window pattern, rotary base of local layers).
#include "nvfp4/reference_models/pretrained/gguf_model.hpp"

#include "nvfp4/golden/io/message.hpp"

#include <nlohmann/json.hpp>

#include <array>
#include <cmath>

namespace nvfp4::models::pretrained {
namespace {

using Json = nlohmann::ordered_json;

struct Row {
  std::string_view name, architecture; ///< general.architecture, and config.json's
  bool turned_heads = false;
  bool sandwich = false;
};
constexpr std::array kRows{
    Row{.name = "llama", .architecture = "LlamaForCausalLM", .turned_heads = true},
    Row{"qwen2", "Qwen2ForCausalLM"},
    Row{"qwen3", "Qwen3ForCausalLM"},
    Row{.name = "gemma3", .architecture = "Gemma3ForCausalLM", .sandwich = true},
};

struct Name {
  std::string_view gguf, hugging_face;
};
constexpr std::array kWhole{
    Name{"token_embd.weight", "model.embed_tokens.weight"},
    Name{"output_norm.weight", "model.norm.weight"},
    Name{"output.weight", "lm_head.weight"},
};
constexpr std::array kOfBlocks{
    Name{"attn_norm", "input_layernorm"},
    Name{"attn_q", "self_attn.q_proj"},
    Name{"attn_k", "self_attn.k_proj"},
    Name{"attn_v", "self_attn.v_proj"},
    Name{"attn_output", "self_attn.o_proj"},
    Name{"attn_q_norm", "self_attn.q_norm"},
    Name{"attn_k_norm", "self_attn.k_norm"},
    Name{"ffn_gate", "mlp.gate_proj"},
    Name{"ffn_up", "mlp.up_proj"},
    Name{"ffn_down", "mlp.down_proj"},
    Name{"post_attention_norm", "post_attention_layernorm"},
    Name{"post_ffw_norm", "post_feedforward_layernorm"},
};

std::string text_of(const checkpoint::Checkpoint &file, const std::string &key) {
  const auto at = file.gguf->strings.find(key);
  return at == file.gguf->strings.end() ? "" : at->second;
}

const Row *row_of(const checkpoint::Checkpoint &file) {
  const std::string name = text_of(file, "general.architecture");
  const auto at = std::find_if(kRows.begin(), kRows.end(), [&](const Row &r) { return r.name == name; });
  return at == kRows.end() ? nullptr : &*at;
}

/// A number of metadata as JSON has it: whole ones without a point.
Json number(double v) {
  if (std::abs(v) < 0x1p53 && v == std::floor(v)) return int64_t(v);
  return v;
}

} // namespace

std::string gguf_config(const checkpoint::Checkpoint &file, const std::string &where) {
  const Row *const row = row_of(file);
  if (row == nullptr) {
    std::string names;
    for (const Row &r : kRows) names.append(names.empty() ? "" : ", ").append(r.name);
    throw Error(where + "general.architecture is " + io::in_quotes(text_of(file, "general.architecture")) +
                "; expected one of " + names);
  }
  const std::string start = std::string(row->name) + ".";
  const auto find = [&](const std::string &key) -> std::optional<double> {
    const auto at = file.gguf->numbers.find(start + key);
    return at == file.gguf->numbers.end() ? std::nullopt : std::optional(at->second);
  };
  const auto need = [&](const std::string &key) {
    const std::optional<double> v = find(key);
    if (!v) throw Error(where + "expected the number " + start + key + " in the metadata");
    return number(*v);
  };
  const checkpoint::StoredTensor *const table = file.find("token_embd.weight");
  if (table == nullptr || table->shape.size() != 2)
    throw Error(where + "expected a matrix token_embd.weight, whose rows are the vocabulary");
  if (file.find("rope_freqs.weight") != nullptr)
    throw Error(where + "has rotary factors in rope_freqs.weight, which are not done here");
  if (find("expert_count").value_or(0) != 0)
    throw Error(where + "has stacked experts, which are not run here; expected a dense model");
  Json j = {{"architectures", {row->architecture}},
            {"vocab_size", table->shape[0]},
            {"hidden_size", need("embedding_length")},
            {"num_hidden_layers", need("block_count")},
            {"num_attention_heads", need("attention.head_count")},
            {"intermediate_size", need("feed_forward_length")},
            {"max_position_embeddings", need("context_length")},
            {"rms_norm_eps", need("attention.layer_norm_rms_epsilon")},
            {"tie_word_embeddings", file.find("output.weight") == nullptr}};
  for (const auto &[key, to] :
       {std::pair{"attention.head_count_kv", "num_key_value_heads"},
        std::pair{"attention.key_length", "head_dim"}, std::pair{"rope.freq_base", "rope_theta"}})
    if (const std::optional<double> v = find(key)) j[to] = number(*v);
  const double heads = j["num_attention_heads"].get<double>(), hidden = j["hidden_size"].get<double>();
  const double dim = find("attention.key_length").value_or(hidden / std::max(heads, 1.0));
  for (const char *key : {"attention.value_length", "rope.dimension_count"})
    if (const std::optional<double> v = find(key); v && *v != dim)
      throw Error(where + start + key + " is " + number(*v).dump() + "; expected the " + number(dim).dump() +
                  " of a head's keys");
  const std::string scaling = text_of(file, start + "rope.scaling.type");
  if (!scaling.empty() && scaling != "none")
    j["rope_scaling"] = {{"rope_type", scaling}, {"factor", need("rope.scaling.factor")}};
  if (const auto id = file.gguf->numbers.find("tokenizer.ggml.eos_token_id"); id != file.gguf->numbers.end())
    j["eos_token_id"] = number(id->second);
  if (row->sandwich) {
    constexpr double kLayersOf27B = 62;
    j["sliding_window"] = need("attention.sliding_window");
    j["sliding_window_pattern"] = 6;
    j["query_pre_attn_scalar"] = number(find("block_count") == kLayersOf27B ? hidden / heads : dim);
    j["final_logit_softcapping"] = find("final_logit_softcapping") ? need("final_logit_softcapping") : Json();
  }
  return j.dump();
}

std::string gguf_parameter(const checkpoint::Checkpoint &file, const std::string &name) {
  for (const Name &n : kWhole)
    if (name == n.gguf) return std::string(n.hugging_face);
  const Row *const row = row_of(file);
  const size_t layer = name.find('.'), module = name.find('.', layer + 1), part = name.rfind('.');
  if (row == nullptr || !name.starts_with("blk.") || module == std::string::npos || part <= module)
    return name;
  const std::string_view inner = std::string_view(name).substr(module + 1, part - module - 1);
  const std::string block = "model.layers" + name.substr(layer, module - layer) + ".";
  const auto whole = [&](std::string_view to) { return block + std::string(to) + name.substr(part); };
  if (inner == "ffn_norm")
    return whole(row->sandwich ? "pre_feedforward_layernorm" : "post_attention_layernorm");
  for (const Name &n : kOfBlocks)
    if (inner == n.gguf) return whole(n.hugging_face);
  return name;
}

bool has_turned_heads(const checkpoint::Checkpoint &file) {
  const Row *const row = file.gguf ? row_of(file) : nullptr;
  return row != nullptr && row->turned_heads;
}

} // namespace nvfp4::models::pretrained
