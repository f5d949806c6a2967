// SPDX-License-Identifier: Apache-2.0
// Presets, JSON and the list of parameters. Names: flash-linear-attention (fla/models/gla, gated_deltanet)
// and Hugging Face transformers (Qwen2, Qwen3); sizes: their published configurations.
#include "nvfp4/reference_models/model/config.hpp"
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <nlohmann/json.hpp>

#include <array>
#include <cmath>
#include <functional>
#include <sstream>

namespace nvfp4::models {
namespace {

struct FamilyName {
  Family family;
  std::string_view name;
};
constexpr std::array<FamilyName, 4> kFamilies = {
    {{Family::gla, "gla"}, {Family::qwen3, "qwen3"}, {Family::qwen2_5, "qwen2.5"}, {Family::gdn, "gdn"}}};

struct Preset {
  Family family;
  std::string_view size;
  int64_t vocabulary, hidden, layers, heads, kv_heads, key_dim, value_dim, intermediate;
  bool tie;
};
constexpr Preset kPresets[] = {
    {Family::gla, "tiny", 256, 128, 4, 4, 4, 64, 128, 384, true},
    {Family::gla, "small", 256, 256, 6, 4, 4, 128, 256, 768, true},
    {Family::gla, "gla-340m", 32000, 1024, 24, 4, 4, 512, 1024, 2816, true},
    {Family::gla, "gla-1.3b", 32000, 2048, 24, 4, 4, 1024, 2048, 5632, false},
    {Family::qwen3, "tiny", 256, 128, 4, 4, 2, 128, 128, 384, true},
    {Family::qwen3, "small", 256, 256, 6, 8, 4, 256, 256, 768, true},
    {Family::qwen3, "qwen3-0.6b", 151936, 1024, 28, 16, 8, 2048, 2048, 3072, true},
    {Family::qwen3, "qwen3-1.7b", 151936, 2048, 28, 16, 8, 2048, 2048, 6144, true},
    {Family::qwen2_5, "tiny", 256, 128, 4, 4, 2, 128, 128, 384, true},
    {Family::qwen2_5, "small", 256, 256, 6, 8, 4, 256, 256, 768, true},
    {Family::gdn, "tiny", 256, 128, 4, 2, 2, 64, 128, 384, true},
    {Family::gdn, "small", 256, 256, 6, 4, 4, 128, 256, 768, true},
    {Family::gdn, "gdn-340m", 32000, 1024, 21, 6, 6, 1536, 3072, 2816, false},
};

/// Calls f(name, field) for every field but family and name.
template <class Config, class F> void each_field(Config &c, F f) {
  f("vocabulary", c.vocabulary);
  f("hidden", c.hidden);
  f("layers", c.layers);
  f("heads", c.heads);
  f("kv_heads", c.kv_heads);
  f("key_dim", c.key_dim);
  f("value_dim", c.value_dim);
  f("intermediate", c.intermediate);
  f("tie", c.tie);
  f("norm_epsilon", c.norm_epsilon);
  f("gate_rank", c.gate_rank);
  f("gate_normalizer", c.gate_normalizer);
  f("rope_base", c.rope_base);
  f("qk_norm", c.qk_norm);
  f("qkv_bias", c.qkv_bias);
  f("convolution", c.convolution);
  f("init_std", c.init_std);
}

void mixer_parameters(const ModelConfig &c, const std::string &p, std::vector<ParameterSpec> &out) {
  const auto linear = [&](const char *name, int64_t to, int64_t from) {
    out.push_back({p + name + ".weight", {to, from}, Init::normal, true});
  };
  const auto bias = [&](const char *name, int64_t n) {
    out.push_back({p + name + ".bias", {n}, Init::zeros, false});
  };
  const int64_t d = c.hidden;
  if (c.softmax()) {
    const int64_t kv = c.key_head() * c.kv_heads;
    linear("q_proj", c.key_dim, d);
    if (c.qkv_bias) bias("q_proj", c.key_dim);
    linear("k_proj", kv, d);
    if (c.qkv_bias) bias("k_proj", kv);
    linear("v_proj", kv, d);
    if (c.qkv_bias) bias("v_proj", kv);
    linear("o_proj", d, c.key_dim);
    if (c.qk_norm) {
      out.push_back({p + "q_norm.weight", {c.key_head()}, Init::ones, false});
      out.push_back({p + "k_norm.weight", {c.key_head()}, Init::ones, false});
    }
    return;
  }
  linear("q_proj", c.key_dim, d);
  linear("k_proj", c.key_dim, d);
  linear("v_proj", c.value_dim, d);
  if (c.family == Family::gla) {
    linear("g_proj", c.value_dim, d);
    linear("gk_proj.0", c.gate_rank, d);
    linear("gk_proj.1", c.key_dim, c.gate_rank);
    bias("gk_proj.1", c.key_dim);
    out.push_back({p + "g_norm_swish_gate.weight", {c.value_head()}, Init::ones, false});
  } else {
    linear("a_proj", c.heads, d);
    linear("b_proj", c.heads, d);
    out.push_back({p + "A_log", {c.heads}, Init::decay, false});
    out.push_back({p + "dt_bias", {c.heads}, Init::time_step, false});
    const auto convolution = [&](const char *name, int64_t channels) {
      out.push_back({p + name + ".weight", {channels, 1, c.convolution}, Init::normal, false});
    };
    convolution("q_conv1d", c.key_dim);
    convolution("k_conv1d", c.key_dim);
    convolution("v_conv1d", c.value_dim);
    linear("g_proj", c.value_dim, d);
    out.push_back({p + "o_norm.weight", {c.value_head()}, Init::ones, false});
  }
  linear("o_proj", d, c.value_dim);
}

} // namespace

std::string_view to_string(Family family) {
  for (const FamilyName &f : kFamilies)
    if (f.family == family) return f.name;
  return "?";
}

Family parse_family(std::string_view name) {
  for (const FamilyName &f : kFamilies)
    if (f.name == name) return f.family;
  throw Error("model family " + io::in_quotes(name) + " is unknown: expected gla, qwen3, qwen2.5 or gdn");
}

ModelConfig preset(Family family, std::string_view size) {
  std::string known;
  for (const Preset &p : kPresets) {
    if (p.family != family) continue;
    known += (known.empty() ? "" : ", ") + std::string(p.size);
    if (p.size != size) continue;
    ModelConfig c;
    c.family = family;
    c.name = size;
    c.vocabulary = p.vocabulary;
    c.hidden = p.hidden;
    c.layers = p.layers;
    c.heads = p.heads;
    c.kv_heads = p.kv_heads;
    c.key_dim = p.key_dim;
    c.value_dim = p.value_dim;
    c.intermediate = p.intermediate;
    c.tie = p.tie;
    c.qk_norm = family == Family::qwen3;
    c.qkv_bias = family == Family::qwen2_5;
    return c;
  }
  throw Error("size " + io::in_quotes(size) + " of " + std::string(to_string(family)) +
              " is unknown: expected " + known + ", or a JSON file as --model");
}

ModelConfig find_model(const std::string &model, const std::string &size, const std::string &changes) {
  ModelConfig config;
  if (model.size() > 5 && model.ends_with(".json")) {
    const std::vector<std::byte> bytes = io::read_file(model);
    config = config_from_json({reinterpret_cast<const char *>(bytes.data()), bytes.size()}, model);
  } else {
    config = preset(parse_family(model), size);
  }
  if (changes.empty()) return config;
  auto json = nlohmann::ordered_json::parse(to_json(config));
  std::stringstream list(changes);
  for (std::string item; std::getline(list, item, ',');) {
    const size_t equal = item.find('=');
    const std::string key = item.substr(0, equal);
    const auto value = equal == std::string::npos
                           ? nlohmann::ordered_json(nlohmann::json::value_t::discarded)
                           : nlohmann::ordered_json::parse(item.substr(equal + 1), nullptr, false);
    if (value.is_discarded() || key == "family" || key == "name" || !json.contains(key))
      throw Error("--set " + io::in_quotes(item) +
                  ": expected FIELD=NUMBER with a field of the model: hidden, layers, heads, "
                  "kv_heads, key_dim, value_dim, intermediate, vocabulary, tie, ...");
    json[key] = value;
  }
  json["name"] = config.name + "," + changes;
  return config_from_json(json.dump(), "--set");
}

void check(const ModelConfig &c) {
  const auto want = [&](bool holds, const std::string &what) {
    if (!holds) throw Error("model '" + c.name + "': expected " + what);
  };
  const int64_t sizes[] = {c.vocabulary, c.hidden,    c.layers,       c.heads,     c.kv_heads,
                           c.key_dim,    c.value_dim, c.intermediate, c.gate_rank, c.convolution};
  for (const int64_t n : sizes)
    want(n >= 1 && n <= (int64_t{1} << 31), "sizes from 1 to 2^31, got " + std::to_string(n));
  want(c.vocabulary >= 2, "a vocabulary of at least 2");
  want(c.key_dim % c.heads == 0,
       "key_dim = " + std::to_string(c.key_dim) + " to be a multiple of heads = " + std::to_string(c.heads));
  want(c.value_dim % c.heads == 0, "value_dim = " + std::to_string(c.value_dim) +
                                       " to be a multiple of heads = " + std::to_string(c.heads));
  if (c.softmax()) {
    want(c.heads % c.kv_heads == 0, "heads = " + std::to_string(c.heads) +
                                        " to be a multiple of kv_heads = " + std::to_string(c.kv_heads));
    want(c.key_dim == c.value_dim, "key_dim and value_dim to be equal in softmax attention");
    want(c.key_head() % 2 == 0, "an even head size, which rotary embeddings need");
  }
  want(c.norm_epsilon > 0 && c.norm_epsilon < 1, "norm_epsilon between 0 and 1");
  want(c.gate_normalizer > 0, "a positive gate_normalizer");
  want(c.rope_base > 1, "rope_base above 1");
  want(c.init_std > 0 && c.init_std < 10, "init_std between 0 and 10");
}

std::string to_json(const ModelConfig &config) {
  nlohmann::ordered_json j;
  j["family"] = to_string(config.family);
  j["name"] = config.name;
  each_field(config, [&](const char *name, const auto &value) { j[name] = value; });
  return j.dump();
}

ModelConfig config_from_json(std::string_view json, std::string_view source) {
  const std::string where = io::printable(source) + ": ";
  const auto j = nlohmann::json::parse(json, nullptr, false);
  if (j.is_discarded() || !j.is_object()) throw Error(where + "expected a JSON object with a model's sizes");
  if (!j.contains("family") || !j["family"].is_string())
    throw Error(where + "expected \"family\": gla, qwen3, qwen2.5 or gdn");
  ModelConfig c = preset(parse_family(j["family"].get<std::string>()), "tiny");
  c.name = "custom";
  size_t used = 1;
  if (j.contains("name")) {
    if (!j["name"].is_string()) throw Error(where + "expected \"name\" to be text");
    c.name = j["name"].get<std::string>();
    ++used;
  }
  std::vector<std::string> known = {"family", "name"};
  each_field(c, [&](const char *name, auto &value) {
    using V = std::remove_reference_t<decltype(value)>;
    known.emplace_back(name);
    const auto at = j.find(name);
    if (at == j.end()) return;
    const bool fits = std::is_same_v<V, bool>      ? at->is_boolean()
                      : std::is_same_v<V, int64_t> ? at->is_number_integer()
                                                   : at->is_number();
    if (!fits) throw Error(where + "\"" + name + "\" has the wrong type");
    value = at->template get<V>();
    ++used;
  });
  if (used != j.size())
    for (const auto &[key, value] : j.items())
      if (std::find(known.begin(), known.end(), key) == known.end())
        throw Error(where + "unknown key " + io::in_quotes(key));
  check(c);
  return c;
}

int64_t ParameterSpec::count() const {
  int64_t n = 1;
  for (const int64_t length : shape) n *= length;
  return n;
}

std::string mixer_path(const ModelConfig &config, int64_t layer) {
  return "model.layers." + std::to_string(layer) + (config.softmax() ? ".self_attn." : ".attn.");
}

std::vector<ParameterSpec> parameter_list(const ModelConfig &c) {
  std::vector<ParameterSpec> out;
  const bool qwen = c.softmax();
  out.push_back({qwen ? "model.embed_tokens.weight" : "model.embeddings.weight",
                 {c.vocabulary, c.hidden},
                 Init::normal,
                 true});
  for (int64_t layer = 0; layer < c.layers; ++layer) {
    const std::string p = "model.layers." + std::to_string(layer) + ".";
    out.push_back({p + (qwen ? "input_layernorm" : "attn_norm") + ".weight", {c.hidden}, Init::ones, false});
    mixer_parameters(c, mixer_path(c, layer), out);
    out.push_back(
        {p + (qwen ? "post_attention_layernorm" : "mlp_norm") + ".weight", {c.hidden}, Init::ones, false});
    out.push_back({p + "mlp.gate_proj.weight", {c.intermediate, c.hidden}, Init::normal, true});
    out.push_back({p + "mlp.up_proj.weight", {c.intermediate, c.hidden}, Init::normal, true});
    out.push_back({p + "mlp.down_proj.weight", {c.hidden, c.intermediate}, Init::normal, true});
  }
  out.push_back({"model.norm.weight", {c.hidden}, Init::ones, false});
  if (!c.tie) out.push_back({"lm_head.weight", {c.vocabulary, c.hidden}, Init::normal, true});
  return out;
}

int64_t parameter_count(const ModelConfig &config) {
  int64_t n = 0;
  for (const ParameterSpec &p : parameter_list(config)) n += p.count();
  return n;
}

} // namespace nvfp4::models
