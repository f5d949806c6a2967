// SPDX-License-Identifier: Apache-2.0
// Reads config.json as transformers 4 and 5 write it: rotary parameters stand at the top (rope_theta,
// rope_scaling, rope_local_base_freq) or in rope_parameters, of Gemma by the kind of layer.
#include "nvfp4/reference_models/pretrained/decoder_config.hpp"

#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/fields/json.hpp"

#include <filesystem>

namespace nvfp4::models::pretrained {
namespace {

using Json = nlohmann::ordered_json;

constexpr double kMostSize = 0x1p31;

class Reader {
public:
  Reader(const Json &json, std::string where) : json_(json), where_(std::move(where)) {}

  [[noreturn]] void fail(const std::string &what) const { throw Error(where_ + what); }
  [[nodiscard]] const Json *find(const char *key) const {
    const auto at = json_.find(key);
    return at == json_.end() || at->is_null() ? nullptr : &*at;
  }
  /// The value of a key, or `fallback`; without one the key must be there.
  template <class T>
  [[nodiscard]] T get(const char *key, const Bounds &bounds, std::optional<T> fallback = {}) const {
    const Json *value = find(key);
    if (value == nullptr) {
      if (fallback) return *fallback;
      fail(std::string("expected the key '") + key + "'");
    }
    T out{};
    if (!take_value(out, *value, bounds))
      fail(std::string("'") + key + "' takes " + type_text<T>(bounds) + ", got " + shown(*value));
    return out;
  }
  [[nodiscard]] int64_t size(const char *key, std::optional<int64_t> fallback = {}) const {
    return get<int64_t>(key, from_to(1, kMostSize), fallback);
  }
  [[nodiscard]] bool flag(const char *key, bool fallback) const { return get<bool>(key, {}, fallback); }
  [[nodiscard]] const std::string &where() const { return where_; }

private:
  const Json &json_;
  std::string where_;
};

RopeScaling read_scaling(const Json &json, const std::string &where) {
  const Reader r(json, where);
  RopeScaling s;
  std::string kind = "default";
  for (const char *key : {"type", "rope_type"}) kind = r.get<std::string>(key, {}, kind);
  if (kind == "default") return s;
  s.factor = r.get<double>("factor", from_to(1, 1e6));
  if (kind == "linear") {
    s.kind = RopeScaling::Kind::linear;
  } else if (kind == "llama3") {
    s.kind = RopeScaling::Kind::llama3;
    s.low_frequency_factor = r.get<double>("low_freq_factor", above(0));
    s.high_frequency_factor = r.get<double>("high_freq_factor", above(0));
    s.original_positions = r.size("original_max_position_embeddings");
    if (!(s.high_frequency_factor > s.low_frequency_factor))
      r.fail("expected high_freq_factor to be above low_freq_factor");
  } else {
    r.fail("rotary scaling " + io::in_quotes(kind) + " is not done here; expected default, linear or llama3");
  }
  return s;
}

void read_rotary(DecoderConfig &c, const Reader &r) {
  const Bounds bases = from_to(1, 1e15);
  const bool two = c.architecture->local_layers;
  c.rotary.base = r.get<double>("rope_theta", bases, two ? 1e6 : 10000.0);
  c.local_rotary = two ? Rotary{r.get<double>("rope_local_base_freq", bases, 10000.0)} : c.rotary;
  const auto object = [&](const Json &json, const std::string &key) {
    if (!json.is_object()) r.fail("'" + key + "' takes an object, got " + shown(json));
  };
  if (const Json *scaling = r.find("rope_scaling")) {
    object(*scaling, "rope_scaling");
    if (scaling->contains("factor") || scaling->contains("type") || scaling->contains("rope_type"))
      c.rotary.scaling = read_scaling(*scaling, r.where() + "rope_scaling: ");
    if (!two) c.local_rotary = c.rotary;
  }
  const Json *parameters = r.find("rope_parameters");
  if (parameters == nullptr) return;
  object(*parameters, "rope_parameters");
  const auto read = [&](const Json &json, Rotary &rotary, const std::string &key) {
    object(json, key);
    const Reader own(json, r.where() + key + ": ");
    rotary.base = own.get<double>("rope_theta", bases, rotary.base);
    if (own.get<double>("partial_rotary_factor", from_to(0, 1), 1.0) != 1.0)
      own.fail("partial_rotary_factor is not done here");
    rotary.scaling = read_scaling(json, own.where());
  };
  if (!two) {
    read(*parameters, c.rotary, "rope_parameters");
    c.local_rotary = c.rotary;
    return;
  }
  for (const auto &[key, rotary] :
       {std::pair{"full_attention", &c.rotary}, std::pair{"sliding_attention", &c.local_rotary}})
    if (parameters->contains(key)) read((*parameters)[key], *rotary, std::string("rope_parameters.") + key);
}

void read_layers(DecoderConfig &c, const Reader &r) {
  c.local.assign(size_t(c.layers), false);
  const bool local = c.architecture->local_layers, some = local || r.flag("use_sliding_window", false);
  if (const Json *types = r.find("layer_types")) {
    if (!types->is_array() || int64_t(types->size()) != c.layers)
      r.fail("'layer_types' takes a list of " + std::to_string(c.layers) + " texts, got " + shown(*types));
    for (size_t i = 0; i < c.local.size(); ++i) {
      const bool sliding = (*types)[i] == "sliding_attention";
      if (!sliding && (*types)[i] != "full_attention")
        r.fail("'layer_types' takes full_attention and sliding_attention, got " + shown((*types)[i]));
      c.local[i] = sliding;
    }
  } else if (local) {
    const int64_t pattern = r.size("sliding_window_pattern", 6);
    for (int64_t i = 0; i < c.layers; ++i) c.local[size_t(i)] = (i + 1) % pattern != 0;
  } else if (some) {
    const int64_t first = r.get<int64_t>("max_window_layers", from_to(0, kMostSize));
    for (int64_t i = first; i < c.layers; ++i) c.local[size_t(i)] = true;
  }
  if (std::find(c.local.begin(), c.local.end(), true) != c.local.end()) c.window = r.size("sliding_window");
}

void read_stop(DecoderConfig &c, const Reader &r) {
  const Json *ids = r.find("eos_token_id");
  if (ids == nullptr) return;
  const Json list = ids->is_array() ? *ids : Json::array({*ids});
  if (!take_value(c.stop, list))
    r.fail("'eos_token_id' takes a whole number or a list of them, got " + shown(*ids));
}

void refuse_the_rest(const DecoderConfig &c, const Reader &r) {
  for (const char *key : {"attn_logit_softcapping", "final_logit_softcapping"})
    if (r.find(key) != nullptr) r.fail(std::string("'") + key + "' is not done here; expected null");
  for (const char *key : {"use_bidirectional_attention"})
    if (const Json *value = r.find(key); value != nullptr && *value != false)
      r.fail(std::string("'") + key + "' is not done here; expected false");
  const char *key = c.architecture->activation == GateActivation::silu ? "hidden_act" : "hidden_activation";
  const std::string_view name =
      c.architecture->activation == GateActivation::silu ? "silu" : "gelu_pytorch_tanh";
  if (const Json *value = r.find(key); value != nullptr && *value != name)
    r.fail(std::string("'") + key + "' is " + shown(*value) + "; expected " + std::string(name));
}

} // namespace

bool is_pretrained(const std::string &path) {
  std::error_code ignored;
  return std::filesystem::is_directory(path, ignored) || path.ends_with(".index.json") ||
         path.ends_with(".gguf");
}

DecoderConfig parse_decoder_config(std::string_view json, const std::string &where) {
  const Json all = io::parse_json(json, where);
  if (!all.is_object()) throw Error(where + "expected an object, got " + shown(all));
  const auto names = all.find("architectures");
  if (names == all.end() || !names->is_array() || names->size() != 1 || !(*names)[0].is_string())
    throw Error(where + "expected 'architectures' to name one of " + architecture_names());
  DecoderConfig c;
  c.architecture = find_architecture((*names)[0].get<std::string>());
  if (c.architecture == nullptr)
    throw Error(where + "unknown architecture " + shown((*names)[0]) + "; expected one of " +
                architecture_names());
  const Architecture &a = *c.architecture;
  if (a.nested && (!all.contains("text_config") || !all["text_config"].is_object()))
    throw Error(where + "expected the key 'text_config' with the language model's sizes");
  const Reader r(a.nested ? all["text_config"] : all, where + (a.nested ? "text_config: " : ""));
  c.vocabulary = r.size("vocab_size");
  c.hidden = r.size("hidden_size");
  c.layers = r.get<int64_t>("num_hidden_layers", from_to(1, 4096));
  c.heads = r.size("num_attention_heads");
  c.kv_heads = r.size("num_key_value_heads", c.heads);
  c.intermediate = r.size("intermediate_size");
  c.positions = r.get<int64_t>("max_position_embeddings", from_to(1, 0x1p40));
  c.epsilon = r.get<double>("rms_norm_eps", between(0, 1));
  if (c.heads % c.kv_heads != 0)
    r.fail("expected num_attention_heads = " + std::to_string(c.heads) +
           " to be a multiple of num_key_value_heads = " + std::to_string(c.kv_heads));
  if (r.find("head_dim") == nullptr && c.hidden % c.heads != 0)
    r.fail("expected 'head_dim', or hidden_size to be a multiple of num_attention_heads");
  c.head_dim = r.size("head_dim", std::max<int64_t>(1, c.hidden / c.heads));
  if (c.head_dim % 2 != 0) r.fail("expected an even head_dim, got " + std::to_string(c.head_dim));
  if (double(c.heads) * double(c.head_dim) > kMostSize)
    r.fail("heads of " + std::to_string(c.head_dim) + " times " + std::to_string(c.heads) + " are too wide");
  c.query_scalar =
      a.query_scalar ? r.get<double>("query_pre_attn_scalar", above(0), 256.0) : double(c.head_dim);
  c.tied = (a.nested ? Reader(all, where).flag("tie_word_embeddings", r.flag("tie_word_embeddings", a.tied))
                     : r.flag("tie_word_embeddings", a.tied));
  const bool bias = r.flag("attention_bias", false);
  c.qkv_bias = a.qkv_bias || bias;
  c.o_bias = !a.qkv_bias && bias;
  c.mlp_bias = r.flag("mlp_bias", false);
  read_rotary(c, r);
  read_layers(c, r);
  read_stop(c, r);
  refuse_the_rest(c, r);
  return c;
}

} // namespace nvfp4::models::pretrained
