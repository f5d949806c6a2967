// SPDX-License-Identifier: Apache-2.0
// Folders that are no model: one line each, which says what was expected.
#include "tests/catch.hpp"
#include "tests/reference_models/pretrained/support.hpp"

using namespace nvfp4;
using namespace nvfp4::models;
using namespace nvfp4::test;

namespace {

std::string message(const std::filesystem::path &folder) {
  try {
    (void)pretrained::open_session({.folder = folder.string()});
  } catch (const Error &e) {
    return e.what();
  }
  return {};
}

/// The message for a folder whose configuration or tensors were changed.
std::string after(const std::function<void(Json &, io::TensorFile &)> &change,
                  const char *architecture = "LlamaForCausalLM") {
  const TemporaryFolder folder;
  Json config = config_of(architecture, {});
  io::TensorFile tensors = tensors_of(config);
  change(config, tensors);
  write_folder(folder.path, config, tensors);
  const std::string text = message(folder.path);
  CHECK(text.find('\n') == std::string::npos);
  return text;
}

std::string with(const char *key, const Json &value, const char *architecture = "LlamaForCausalLM") {
  return after([&](Json &c, io::TensorFile &) { c[key] = value; }, architecture);
}

bool has(const std::string &text, const std::string &part) {
  INFO(text);
  const bool found = text.find(part) != std::string::npos;
  CHECK(found);
  return found;
}

} // namespace

TEST_CASE("a folder that does not fit is refused in one line", "[pretrained]") {
  CHECK(after([](Json &, io::TensorFile &) {}).empty());
  for (const char *key : {"vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads",
                          "intermediate_size", "max_position_embeddings", "rms_norm_eps", "architectures"})
    has(after([&](Json &c, io::TensorFile &) { c.erase(key); }), key);
  has(with("architectures", {"MambaForCausalLM"}),
      "unknown architecture \"MambaForCausalLM\"; expected one of Llama");
  has(with("hidden_size", 64), "tensor model.embed_tokens.weight: expected [97, 64], got F32 [97, 48]");
  has(with("vocab_size", 1e30), "'vocab_size' takes a whole number");
  has(with("hidden_size", -4), "'hidden_size' takes a whole number from 1");
  has(with("hidden_size", int64_t{1} << 31), "expected [97, 2147483648]");
  has(with("num_hidden_layers", 1 << 20), "'num_hidden_layers' takes a whole number from 1 to 4096");
  has(with("num_hidden_layers", 4), "has no tensor model.layers.3.input_layernorm.weight of [48]");
  has(with("num_hidden_layers", 2), "has the tensor model.layers.2.");
  has(with("num_key_value_heads", 3), "to be a multiple of num_key_value_heads = 3");
  has(with("head_dim", 15), "expected an even head_dim, got 15");
  has(with("attention_bias", true), "has no tensor model.layers.0.self_attn.q_proj.bias of [64]");
  has(with("hidden_act", "gelu"), "'hidden_act' is \"gelu\"; expected silu");
  has(with("rope_scaling", {{"rope_type", "yarn"}, {"factor", 4.0}}),
      "rotary scaling 'yarn' is not done here");
  has(with("rope_scaling", {{"rope_type", "llama3"}, {"factor", 4.0}}), "'low_freq_factor'");
  has(with("rope_scaling", 7), "'rope_scaling' takes an object, got 7");
  has(with("final_logit_softcapping", 30.0, "Gemma3ForCausalLM"),
      "'final_logit_softcapping' is not done here");
  has(with("layer_types", {"full_attention"}, "Gemma3ForCausalLM"), "'layer_types' takes a list of 3 texts");
  has(with("sliding_window", nullptr, "Gemma3ForCausalLM"), "expected the key 'sliding_window'");
  has(after([](Json &, io::TensorFile &t) { t.tensors.erase(t.tensors.begin()); }),
      "has no tensor model.embed_tokens.weight of [97, 48]");
  has(after([](Json &, io::TensorFile &t) {
        t.tensors.push_back(
            io::Tensor::from("model.layers.0.self_attn.q_proj.bias", {64}, std::vector<float>(64)));
      }),
      "has the tensor model.layers.0.self_attn.q_proj.bias, which LlamaForCausalLM with these settings does "
      "not have");
  has(after([](Json &, io::TensorFile &t) {
        t.tensors[0] = io::Tensor::from("model.embed_tokens.weight", {97, 48}, std::vector<int32_t>(97 * 48));
      }),
      "expected numbers or a known container, got I32");
  const TemporaryFolder folder;
  has(message(folder.path), "got a folder without config.json");
  write_text(folder.path / "config.json", "{\"architectures\": [");
  has(message(folder.path), "config.json: ");
  write_text(folder.path / "config.json", config_of("LlamaForCausalLM", {}).dump());
  has(message(folder.path), "expected model.safetensors.index.json, .safetensors files");
}

TEST_CASE("tokens and lengths that do not fit are refused", "[pretrained]") {
  const TemporaryFolder folder;
  Json config = config_of("LlamaForCausalLM", {});
  config["max_position_embeddings"] = 8;
  write_folder(folder.path, config, tensors_of(config));
  pretrained::Session s = pretrained::open_session({.folder = folder.path.string()});
  const auto run = [&](std::vector<int32_t> tokens) {
    return s.decoder->forward({.tokens = tokens, .length = int64_t(tokens.size())}).size();
  };
  CHECK(run({0, 96, 3, 4, 5, 6, 7, 8}) == 8 * 97);
  CHECK_THROWS_WITH(run({0, 97}), "token 97 at [0, 1]: expected 0 to 96");
  CHECK_THROWS_WITH(run({-1}), "token -1 at [0, 0]: expected 0 to 96");
  CHECK_THROWS_WITH(run({0, 1, 2, 3, 4, 5, 6, 7, 8}),
                    "a sequence of 9 tokens: the model has max_position_embeddings 8");
  pretrained::KvCache cache(s.decoder->backend(), s.decoder->config(), 1, 2);
  const int32_t three[] = {1, 2, 3};
  CHECK_THROWS_AS(s.decoder->forward({.tokens = three, .length = 3, .cache = &cache}), Error);
}

TEST_CASE("numbers that are not finite are named", "[pretrained]") {
  const TemporaryFolder folder;
  const Json config = config_of("LlamaForCausalLM", {});
  io::TensorFile tensors = tensors_of(config);
  for (io::Tensor &t : tensors.tensors)
    if (t.name == "model.layers.1.mlp.up_proj.weight") {
      std::vector<float> v(t.as<float>().begin(), t.as<float>().end());
      v[48 * 3 + 5] = NAN;
      t = io::Tensor::from(t.name, t.shape, v);
    }
  write_folder(folder.path, config, tensors);
  pretrained::Session s = pretrained::open_session({.folder = folder.path.string(), .recipe = "nvfp4-plain"});
  const int32_t tokens[] = {1, 2, 3};
  (void)s.decoder->forward({.tokens = tokens, .length = 3});
  REQUIRE(s.decoder->not_finite());
  CHECK(s.decoder->not_finite()->text() ==
        "weight of model.layers.1.mlp.up_proj.weight: 1 NaN of 3840, first at [3, 5]");
}
