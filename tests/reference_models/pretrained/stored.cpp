// SPDX-License-Identifier: Apache-2.0
// Folders with quantized weights: the words of a recipe that quantizes the same numbers, of a layer put
// together by hand, and of the values in BF16.
#include "tests/catch.hpp"
#include "tests/reference_models/pretrained/support.hpp"

#include "nvfp4/golden/checkpoint/export.hpp"

#include <bit>
#include <cstring>
#include <map>

using namespace nvfp4;
using namespace nvfp4::models;
using namespace nvfp4::test;

namespace {

using checkpoint::Target;

Sizes sizes() { // whole blocks of 32
  return {.vocabulary = 97,
          .hidden = 64,
          .layers = 2,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 16,
          .intermediate = 96};
}

void export_folder(const std::string &from, const std::string &to, Target target,
                   const std::string &convention, const std::string &tensors = {}) {
  checkpoint::ExportOptions o;
  o.target = target;
  o.convention = convention;
  o.tensors = tensors;
  (void)checkpoint::export_checkpoint(checkpoint::open_checkpoint(from), to, o);
}

/// Layers that are fused with no other, whose own amax is the exported one, by a convention, the rest in
/// BF16.
std::string recipe_of(const std::string &format, const std::string &convention) {
  const Json operand = {{"format", format}, {"convention", convention}},
             bf16 = {{"a", "bf16"}, {"b", "bf16"}};
  const Json head = {
      {"fprop", {{"a", "bf16"}, {"b", "bf16"}, {"output", "f32"}}}, {"dgrad", bf16}, {"wgrad", bf16}};
  return Json{{"name", "own"},
              {"linears",
               {{"one", {{"fprop", {{"a", operand}, {"b", operand}}}, {"dgrad", bf16}, {"wgrad", bf16}}},
                {"bf16", {{"fprop", bf16}, {"dgrad", bf16}, {"wgrad", bf16}}},
                {"head", head}}},
              {"default", "bf16"},
              {"rules",
               {{{"roles", {"attn.o_proj", "mlp.down_proj"}}, {"use", "one"}},
                {{"roles", {"lm_head"}}, {"use", "head"}}}}}
      .dump();
}

struct Kind {
  const char *convention, *format;
  Target target;
};

} // namespace

TEST_CASE("stored codes give the words of the recipe that made them", "[pretrained][stored]") {
  const TemporaryFolder folder;
  const Json config = config_of("Qwen3ForCausalLM", sizes());
  write_folder(folder.path / "dense", config, in_bf16(tensors_of(config)));
  const std::string dense = (folder.path / "dense").string();
  for (const Kind &k : {Kind{"modelopt", "nvfp4", Target::modelopt},
                        Kind{"compressed-tensors", "nvfp4", Target::compressed_tensors},
                        Kind{"mxfp4", "mxfp4", Target::compressed_tensors}}) {
    INFO(k.convention);
    const std::string out = (folder.path / k.convention).string();
    export_folder(dense, out, k.target, k.convention, "*[on]_proj.weight");
    std::vector<std::string> products;
    const Seen stored = seen_by({.folder = out, .activations = k.convention}, &products);
    const Seen recipe = seen_by({.folder = dense, .recipe = recipe_of(k.format, k.convention)});
    for (const auto &[name, words] : recipe) {
      INFO(name);
      CHECK(equal_words(stored.at(name), words));
    }
    CHECK_FALSE(equal_words(stored.at("lm_head"), seen_by({.folder = dense}).at("lm_head")));
    REQUIRE(products.size() == 2); // the head's are those of the other layers
    CHECK(products[1].starts_with("4 layers: "));
  }
}

TEST_CASE("a layer of stored codes is the product put together by hand", "[pretrained][stored]") {
  const TemporaryFolder folder;
  const Json config = config_of("Qwen2ForCausalLM", sizes());
  write_folder(folder.path / "dense", config, in_bf16(tensors_of(config)));
  const std::string out = (folder.path / "stored").string();
  export_folder((folder.path / "dense").string(), out, Target::modelopt, "modelopt");
  // input scales, as calibration writes them
  io::TensorFile file = io::read_tensors(out + "/model.safetensors");
  const float word = 0.0009765f; // p: 448 * 6 * p = 2.62
  std::vector<io::Tensor> scales;
  for (const io::Tensor &t : file.tensors)
    if (t.name.ends_with(".weight_scale_2"))
      scales.push_back(io::Tensor::from(t.name.substr(0, t.name.size() - 14) + "input_scale", {},
                                        std::vector<float>{word}));
  REQUIRE(scales.size() == 14);
  for (io::Tensor &t : scales) file.tensors.push_back(std::move(t));
  io::write_tensors(out + "/model.safetensors", file);
  std::filesystem::remove(out + "/hf_quant_config.json");
  Json written = config;
  written["quantization_config"] = {{"quant_method", "modelopt"}, {"quant_algo", "NVFP4"}};
  write_text(out + "/config.json", written.dump());

  const checkpoint::Checkpoint c = checkpoint::open_checkpoint(out);
  const checkpoint::Weights weights = checkpoint::find_weights(c);
  const Unit &unit = find_unit(load_recipe("nvfp4-plain").resolve("mlp.up_proj", 0, 2).fprop.unit);
  for (const char *activations : {"", "vllm"}) {
    INFO("activations '" << activations << "'");
    const Seen seen = seen_by({.folder = out, .activations = activations});
    for (const checkpoint::Weight &w : weights.all) {
      if (!w.container) continue;
      const std::string base = w.name.substr(0, w.name.size() - 7);
      const std::string block = base.substr(0, base.find('.', 13) + 1), leaf = base.substr(block.size());
      const std::string input = leaf == "self_attn.o_proj" ? "self_attn.attention"
                                : leaf == "mlp.down_proj"  ? "mlp.swiglu"
                                : leaf.starts_with("mlp")  ? "post_attention_layernorm"
                                                           : "input_layernorm";
      std::vector<float> x = seen.at(block + input);
      for (float &v : x) v = round_to_bf16(v);
      QuantizeOptions q{.source = FormatId::bf16};
      const bool vllm = activations[0] != 0;
      q.global_scale = vllm ? 1.0f / word : word;
      const BlockScaled a = quantize({x.data(), 38, w.k}, find_convention(vllm ? "vllm" : "modelopt"), q);
      GemmInputs in;
      std::vector<float> bias;
      if (const auto *stored_bias = c.find(base + ".bias"); stored_bias != nullptr)
        for (const checkpoint::Weight &b : weights.all)
          if (b.codes == stored_bias) bias = checkpoint::values(b, 0, 0, 1);
      in.bias = bias;
      const GemmResult y =
          multiply(unit, make_operand(unit, nvfp4::Side::a, a),
                   make_operand(unit, nvfp4::Side::b, checkpoint::block_scaled(w, 0, 0, w.rows)),
                   {.out = FormatId::bf16}, in);
      const std::vector<float> &got = seen.at(base);
      int64_t differing = 0;
      for (int64_t r = 0; r < 38; ++r)
        for (int64_t j = 0; j < w.rows; ++j)
          differing +=
              std::bit_cast<uint32_t>(y.f32(r, j)) != std::bit_cast<uint32_t>(got[size_t(r * w.rows + j)]);
      INFO(base);
      CHECK(differing == 0);
    }
  }
}

TEST_CASE("weights that are quantized alone run as their values in BF16", "[pretrained][stored]") {
  const TemporaryFolder folder;
  const Json config = config_of("LlamaForCausalLM", sizes());
  write_folder(folder.path / "dense", config, in_bf16(tensors_of(config)));
  const std::string dense = (folder.path / "dense").string(), alone = (folder.path / "alone").string(),
                    back = (folder.path / "back").string();
  export_folder(dense, alone, Target::modelopt, "te"); // without input scales: W4A16
  export_folder(alone, back, Target::hf_bf16, "");
  CHECK(equal_words(seen_by({.folder = alone}).at("lm_head"), seen_by({.folder = back}).at("lm_head")));
  CHECK_FALSE(
      equal_words(seen_by({.folder = alone}).at("lm_head"), seen_by({.folder = dense}).at("lm_head")));
  CHECK(equal_words(seen_by({.folder = alone, .activations = "none"}).at("lm_head"),
                    seen_by({.folder = back}).at("lm_head")));
}

TEST_CASE("a folder that does not say how inputs are quantized is asked", "[pretrained][stored]") {
  const TemporaryFolder folder;
  const Json config = config_of("LlamaForCausalLM", sizes());
  write_folder(folder.path / "dense", config, in_bf16(tensors_of(config)));
  const std::string out = (folder.path / "stored").string();
  export_folder((folder.path / "dense").string(), out, Target::modelopt, "modelopt");
  std::filesystem::remove(out + "/hf_quant_config.json");
  write_text(out + "/config.json", config.dump());
  CHECK_THROWS_WITH(seen_by({.folder = out}),
                    Catch::Contains("does not say whether inputs are quantized: give --activations"));
  CHECK_THROWS_WITH(seen_by({.folder = out, .activations = "mxfp4"}),
                    Catch::Contains("does not give inputs that a product takes"));
  CHECK_THROWS_WITH(seen_by({.folder = out, .activations = "row-scaled"}),
                    Catch::Contains("does not give inputs"));
  CHECK(seen_by({.folder = out, .activations = "modelopt"}).contains("lm_head"));
}

TEST_CASE("FP8 weights with a dense scale run as their values", "[pretrained][stored]") {
  const TemporaryFolder folder;
  const Json config = config_of("LlamaForCausalLM", sizes());
  io::TensorFile fp8 = in_bf16(tensors_of(config)), dense = in_bf16(tensors_of(config));
  const std::string name = "model.layers.0.mlp.up_proj.weight";
  for (size_t i = 0; i < fp8.tensors.size(); ++i) {
    if (fp8.tensors[i].name != name) continue;
    std::vector<uint8_t> codes;
    std::vector<uint16_t> words;
    for (int64_t j = 0; j < 96 * 64; ++j) {
      codes.push_back(uint8_t(j * 37 % 127 + (j % 3 == 0 ? 128 : 0))); // no NaN
      words.push_back(bf16_word(value_f32(FormatId::e4m3, codes.back()) * 0.0007f));
    }
    fp8.tensors[i] = io::Tensor::from_bits(name, io::DType::f8_e4m3, {96, 64}, codes);
    dense.tensors[i] = io::Tensor::from_bits(name, io::DType::bf16, {96, 64}, words);
  }
  fp8.tensors.push_back(
      io::Tensor::from("model.layers.0.mlp.up_proj.weight_scale", {}, std::vector<float>{0.0007f}));
  write_folder(folder.path / "fp8", config, fp8);
  write_folder(folder.path / "dense", config, dense);
  const std::string path = (folder.path / "fp8").string();
  CHECK(equal_words(seen_by({.folder = path, .activations = "none"}).at("lm_head"),
                    seen_by({.folder = (folder.path / "dense").string()}).at("lm_head")));
  CHECK_THROWS_WITH(
      seen_by({.folder = path, .activations = "te"}),
      Catch::Contains("expected none or one of fp8-static, fp8-tensor, fp8-token, fp8-group128"));
}

TEST_CASE("the text of a model of images is the model of text", "[pretrained]") {
  const TemporaryFolder folder;
  const Json config = config_of("Gemma3ForCausalLM", sizes());
  const io::TensorFile text = tensors_of(config);
  write_folder(folder.path / "text", config, text);
  for (const std::string prefix : {"language_model.", "model.language_model."}) {
    io::TensorFile both = text;
    for (io::Tensor &t : both.tensors) {
      const bool head = t.name.starts_with("lm_head");
      const std::string old = t.name;
      t.name = prefix == "language_model." ? prefix + old : head ? old : prefix + old.substr(6);
    }
    both.tensors.push_back(io::Tensor::from("vision_tower.weight", {3}, std::vector<float>{1, 2, 3}));
    Json inside = config;
    inside.erase("architectures");
    const Json outside = {{"architectures", {"Gemma3ForConditionalGeneration"}},
                          {"tie_word_embeddings", false},
                          {"text_config", inside}};
    const std::filesystem::path to = folder.path / prefix;
    write_folder(to, outside, both);
    CHECK(equal_words(seen_by({.folder = to.string()}).at("lm_head"),
                      seen_by({.folder = (folder.path / "text").string()}).at("lm_head")));
  }
}
