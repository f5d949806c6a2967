// SPDX-License-Identifier: Apache-2.0
// Small folders of random models with hard values: outlier channels, zeros, ragged widths.
#pragma once
#include "nvfp4/emulator/formats/bf16.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/reference_models/data/random.hpp"
#include "nvfp4/reference_models/pretrained/run.hpp"
#include "tests/temporary_folder.hpp"

#include <nlohmann/json.hpp>

#include <cstring>
#include <fstream>
#include <map>

namespace nvfp4::test {

using Json = nlohmann::ordered_json;

inline void write_text(const std::filesystem::path &path, const std::string &text) {
  std::ofstream(path, std::ios::binary) << text;
}

/// Values of mean 0 with the given spread: of every 61st column eight times as large, some exact zeros.
inline std::vector<float> hard_values(uint64_t seed, int64_t rows, int64_t cols, float spread) {
  const RandomKey key{seed, 77};
  std::vector<float> x(size_t(rows * cols));
  for (size_t i = 0; i < x.size(); ++i) {
    float sum = 0;
    for (uint64_t j = 0; j < 4; ++j) sum += float(int32_t(key.bits32(4 * i + j))) * 0x1p-31f;
    x[i] = sum * spread * (int64_t(i) % cols % 61 == 7 ? 8.0f : 1.0f);
    if (key.bits32(4 * i) % 97 == 0) x[i] = 0;
  }
  return x;
}

inline std::vector<int32_t> some_tokens(uint64_t seed, int64_t n, int32_t vocabulary) {
  const RandomKey key{seed, 5};
  std::vector<int32_t> t;
  for (int64_t i = 0; i < n; ++i) t.push_back(int32_t(key.bits32(uint64_t(i)) % uint32_t(vocabulary)));
  return t;
}

struct Sizes {
  int64_t vocabulary = 97, hidden = 48, layers = 3, heads = 4, kv_heads = 2, head_dim = 16, intermediate = 80;
  bool tie = false;
};

/// config.json of one of the architectures.
inline Json config_of(const std::string &architecture, const Sizes &s) {
  Json j = {{"architectures", {architecture}}, {"vocab_size", s.vocabulary},
            {"hidden_size", s.hidden},         {"num_hidden_layers", s.layers},
            {"num_attention_heads", s.heads},  {"num_key_value_heads", s.kv_heads},
            {"head_dim", s.head_dim},          {"intermediate_size", s.intermediate},
            {"max_position_embeddings", 512},  {"rms_norm_eps", 1e-6},
            {"tie_word_embeddings", s.tie},    {"rope_theta", 1e6}};
  if (architecture.starts_with("Gemma3")) {
    j["sliding_window"] = 7;
    j["sliding_window_pattern"] = 3;
    j["query_pre_attn_scalar"] = 24;
    j["rope_local_base_freq"] = 10000.0;
  }
  return j;
}

/// Every tensor that a configuration asks for.
inline io::TensorFile tensors_of(const Json &config, float spread = 0.08f) {
  const auto at = [&](const char *key) { return config.at(key).get<int64_t>(); };
  const std::string name = config["architectures"][0];
  const bool gemma = name.starts_with("Gemma3");
  const int64_t d = at("hidden_size"), q = at("num_attention_heads") * at("head_dim"),
                kv = at("num_key_value_heads") * at("head_dim"), inner = at("intermediate_size");
  io::TensorFile file;
  uint64_t seed = 1;
  const auto matrix = [&](const std::string &n, int64_t rows, int64_t cols) {
    file.tensors.push_back(io::Tensor::from(n, {rows, cols}, hard_values(++seed, rows, cols, spread)));
  };
  const auto vector = [&](const std::string &n, int64_t width, float centre) {
    std::vector<float> v = hard_values(++seed, 1, width, 0.1f);
    for (float &x : v) x += centre;
    file.tensors.push_back(io::Tensor::from(n, {width}, v));
  };
  const float one = gemma ? 0.0f : 1.0f;
  matrix("model.embed_tokens.weight", at("vocab_size"), d);
  vector("model.norm.weight", d, one);
  if (!config["tie_word_embeddings"].get<bool>()) matrix("lm_head.weight", at("vocab_size"), d);
  for (int64_t layer = 0; layer < at("num_hidden_layers"); ++layer) {
    const std::string b = "model.layers." + std::to_string(layer) + ".";
    vector(b + "input_layernorm.weight", d, one);
    vector(b + "post_attention_layernorm.weight", d, one);
    if (gemma) {
      vector(b + "pre_feedforward_layernorm.weight", d, one);
      vector(b + "post_feedforward_layernorm.weight", d, one);
    }
    matrix(b + "self_attn.q_proj.weight", q, d);
    matrix(b + "self_attn.k_proj.weight", kv, d);
    matrix(b + "self_attn.v_proj.weight", kv, d);
    matrix(b + "self_attn.o_proj.weight", d, q);
    if (name.starts_with("Qwen2")) {
      vector(b + "self_attn.q_proj.bias", q, 0);
      vector(b + "self_attn.k_proj.bias", kv, 0);
      vector(b + "self_attn.v_proj.bias", kv, 0);
    }
    if (name.starts_with("Qwen3") || gemma) {
      vector(b + "self_attn.q_norm.weight", at("head_dim"), one);
      vector(b + "self_attn.k_norm.weight", at("head_dim"), one);
    }
    matrix(b + "mlp.gate_proj.weight", inner, d);
    matrix(b + "mlp.up_proj.weight", inner, d);
    matrix(b + "mlp.down_proj.weight", d, inner);
  }
  return file;
}

/// The same tensors in BF16.
inline io::TensorFile in_bf16(const io::TensorFile &file) {
  io::TensorFile out;
  for (const io::Tensor &t : file.tensors) {
    std::vector<uint16_t> words;
    for (const float v : t.as<float>()) words.push_back(bf16_word(v));
    out.tensors.push_back(io::Tensor::from_bits(t.name, io::DType::bf16, t.shape, words));
  }
  return out;
}

inline void write_folder(const std::filesystem::path &folder, const Json &config,
                         const io::TensorFile &tensors) {
  std::filesystem::create_directories(folder);
  write_text(folder / "config.json", config.dump(1));
  io::write_tensors((folder / "model.safetensors").string(), tensors);
}

inline bool equal_words(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

/// Every tensor of a pass over 2 x 19 tokens of a vocabulary of 97.
using Seen = std::map<std::string, std::vector<float>>;
inline Seen seen_by(const models::pretrained::RunOptions &options,
                    std::vector<std::string> *products = nullptr) {
  models::pretrained::Session s = models::pretrained::open_session(options);
  Seen seen;
  s.decoder->show = [&](const std::string &module, std::vector<int64_t> shape, const float *data) {
    seen[module] = {data, data + shape[0] * shape[1] * shape[2]};
  };
  const std::vector<int32_t> tokens = some_tokens(6, 2 * 19, 97);
  (void)s.decoder->forward({.tokens = tokens, .batch = 2, .length = 19});
  if (products != nullptr) *products = s.decoder->products();
  return seen;
}

} // namespace nvfp4::test
