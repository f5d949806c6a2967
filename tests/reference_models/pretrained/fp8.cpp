// SPDX-License-Identifier: Apache-2.0
// E4M3 weights with dense scales: what a folder says of their inputs, the codes of inputs, and layers against
// a product put together by hand.
#include "tests/catch.hpp"
#include "tests/reference_models/pretrained/support.hpp"

#include "nvfp4/reference_models/pretrained/fp8_product.hpp"

#include <bit>
#include <cmath>

using namespace nvfp4;
using namespace nvfp4::models;
using namespace nvfp4::test;

namespace {

Sizes sizes() { // K of 192, 128 and 288: ragged groups of 128
  return {.vocabulary = 97,
          .hidden = 192,
          .layers = 1,
          .heads = 8,
          .kv_heads = 2,
          .head_dim = 16,
          .intermediate = 288};
}

uint8_t e4m3(float x) {
  return uint8_t(encode(FormatId::e4m3, x, Rounding::nearest_even, Overflow::satfinite));
}

enum class Scales { tensor, row, tile };

/// The folder with its projections in E4M3, scales of 1/448 of the largest magnitude that one covers.
void write_fp8(const std::filesystem::path &folder, const Json &config, Scales scales, float input_scale) {
  io::TensorFile out;
  for (const io::Tensor &t : tensors_of(config).tensors) {
    if (!t.name.ends_with("_proj.weight")) {
      out.tensors.push_back(t);
      continue;
    }
    const std::span<const float> x = t.as<float>();
    const int64_t rows = t.shape[0], k = t.shape[1];
    const int64_t high = scales == Scales::tensor ? rows
                         : scales == Scales::row  ? 1
                                                  : 128,
                  wide = scales == Scales::tile ? 128 : k;
    const int64_t down = (rows + high - 1) / high, across = (k + wide - 1) / wide;
    std::vector<float> s(size_t(down * across), 0x1p-20f);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < k; ++i) {
        float &one = s[size_t(r / high * across + i / wide)];
        one = std::max(one, std::fabs(x[size_t(r * k + i)]) / 448.0f);
      }
    std::vector<uint8_t> codes;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < k; ++i)
        codes.push_back(e4m3(x[size_t(r * k + i)] / s[size_t(r / high * across + i / wide)]));
    out.tensors.push_back(io::Tensor::from_bits(t.name, io::DType::f8_e4m3, t.shape, codes));
    const std::string base = t.name.substr(0, t.name.size() - 7);
    const std::vector<int64_t> shape = scales == Scales::tensor ? std::vector<int64_t>{}
                                       : scales == Scales::row  ? std::vector<int64_t>{rows, 1}
                                                                : std::vector<int64_t>{down, across};
    out.tensors.push_back(
        io::Tensor::from(base + (scales == Scales::tile ? ".weight_scale_inv" : ".weight_scale"), shape, s));
    if (input_scale != 0)
      out.tensors.push_back(io::Tensor::from(base + ".input_scale", {}, std::vector<float>{input_scale}));
  }
  write_folder(folder, config, out);
}

Json with(Json config, Json quantization) {
  config["quantization_config"] = std::move(quantization);
  return config;
}

Json groups(const Json &inputs) {
  return {{"quant_method", "compressed-tensors"},
          {"format", "float-quantized"},
          {"config_groups", {{"group_0", {{"targets", {"Linear"}}, {"input_activations", inputs}}}}}};
}

Json scheme(const char *strategy, bool dynamic) {
  return {{"num_bits", 8}, {"type", "float"}, {"strategy", strategy}, {"dynamic", dynamic}};
}

/// y by the rules of fp8_product.hpp, written out; products by the multiprecision oracle.
std::vector<float> by_hand(const checkpoint::Weight &w, const std::string &way, std::span<const float> input,
                           int64_t rows, std::span<const float> bias, float word) {
  const int64_t k = w.k, width = way == "fp8-group128" ? 128 : k;
  const Unit &unit = find_unit("sm_90:wgmma.k32.f32.e4m3");
  const std::vector<float> decoded = checkpoint::values(w, 0, 0, w.rows);
  std::vector<float> sums(size_t(rows * w.rows));
  float all = 0;
  for (const float v : input) all = std::max(all, std::fabs(round_to_bf16(v)));
  for (int64_t first = 0; first < k; first += width) {
    const int64_t n = std::min(width, k - first);
    std::vector<uint8_t> a, b;
    std::vector<float> scales;
    for (int64_t r = 0; r < rows; ++r) {
      float amax = way == "fp8-group128" ? 1e-10f : 0.0f;
      const auto x = [&](int64_t i) { return round_to_bf16(input[size_t(r * k + first + i)]); };
      for (int64_t i = 0; i < n; ++i) amax = std::max(amax, std::fabs(x(i)));
      float s = amax / 448.0f;
      if (way == "fp8-static") s = word;
      if (way == "fp8-tensor") s = all / 448.0f;
      if (way == "fp8-token") s = std::max(s, 1.0f / (448.0f * 512.0f));
      scales.push_back(s);
      const bool divides = way == "fp8-token" || way == "fp8-group128";
      for (int64_t i = 0; i < n; ++i) a.push_back(e4m3(divides ? x(i) / s : x(i) * (1.0f / s)));
    }
    const auto *codes = reinterpret_cast<const uint8_t *>(w.codes->bytes.data());
    for (int64_t r = 0; r < w.rows; ++r)
      for (int64_t i = 0; i < n; ++i) b.push_back(codes[r * k + first + i]);
    const GemmResult acc =
        multiply(unit, make_operand(unit, nvfp4::Side::a, RawCodes{rows, n, a}),
                 make_operand(unit, nvfp4::Side::b, RawCodes{w.rows, n, b}), {.oracle = true});
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = 0; j < w.rows; ++j) {
        const float s_w = checkpoint::dense_scale(w, 0, j, first);
        float &y = sums[size_t(r * w.rows + j)];
        if (way == "fp8-group128")
          y = std::fma(scales[size_t(r)] * s_w, acc.f32(r, j), y);
        else if (bias.empty())
          y = scales[size_t(r)] * (s_w * acc.f32(r, j));
        else
          y = std::fma(scales[size_t(r)], s_w * acc.f32(r, j), bias[size_t(j)]);
      }
  }
  for (size_t i = 0; i < sums.size(); ++i) {
    if (way == "fp8-group128" && !bias.empty()) sums[i] += bias[i % size_t(w.rows)];
    sums[i] = round_to_bf16(sums[i]);
  }
  return sums;
}

struct Case {
  const char *way;
  Scales scales;
  Json quantization;
  float input_scale = 0;
};

} // namespace

TEST_CASE("dense FP8 layers are the products that the folder describes", "[pretrained][fp8]") {
  const Json blocks = {
      {"quant_method", "fp8"}, {"activation_scheme", "dynamic"}, {"weight_block_size", {128, 128}}};
  const std::vector<Case> cases = {
      {"fp8-static", Scales::tensor, {{"quant_method", "modelopt"}, {"quant_algo", "FP8"}}, 0.0123f},
      {"fp8-static", Scales::tensor, groups(scheme("tensor", false)), 0.0123f},
      {"fp8-tensor", Scales::tensor, {{"quant_method", "fp8"}, {"activation_scheme", "dynamic"}}},
      {"fp8-token", Scales::row, groups(scheme("token", true))},
      {"fp8-token", Scales::row, {{"quant_method", "modelopt"}, {"quant_algo", "FP8_PER_CHANNEL_PER_TOKEN"}}},
      {"fp8-group128", Scales::tile, blocks}};
  const TemporaryFolder folder;
  for (const Case &one : cases) {
    INFO(one.way << " " << one.quantization.dump());
    const Json config = with(config_of("Qwen2ForCausalLM", sizes()), one.quantization);
    write_fp8(folder.path, config, one.scales, one.input_scale);
    std::vector<std::string> products;
    const Seen seen = seen_by({.folder = folder.path.string()}, &products);
    REQUIRE(products.size() == 2);
    CHECK(products[0] == "7 layers: " + std::string(one.scales == Scales::tile ? "deepseek-fp8" : "fp8") +
                             " weights, inputs " + one.way + ", on sm_90:wgmma.k32.f32.e4m3");
    const checkpoint::Checkpoint c = checkpoint::open_checkpoint(folder.path.string());
    const checkpoint::Weights weights = checkpoint::find_weights(c);
    int64_t layers = 0;
    for (const checkpoint::Weight &w : weights.all) {
      if (!w.container) continue;
      ++layers;
      const std::string base = w.name.substr(0, w.name.size() - 7), block = "model.layers.0.";
      const std::string leaf = base.substr(block.size());
      const std::string input = leaf == "self_attn.o_proj" ? "self_attn.attention"
                                : leaf == "mlp.down_proj"  ? "mlp.swiglu"
                                : leaf.starts_with("mlp")  ? "post_attention_layernorm"
                                                           : "input_layernorm";
      std::vector<float> bias;
      for (const checkpoint::Weight &b : weights.all)
        if (b.name == base + ".bias") bias = checkpoint::values(b, 0, 0, 1);
      INFO(base);
      CHECK(
          equal_words(seen.at(base), by_hand(w, one.way, seen.at(block + input), 38, bias, one.input_scale)));
    }
    CHECK(layers == 7);
    CHECK_FALSE(equal_words(seen.at("lm_head"),
                            seen_by({.folder = folder.path.string(), .activations = "none"}).at("lm_head")));
    std::filesystem::remove_all(folder.path);
  }
}

TEST_CASE("generation with a cache has the words of generation without under scales a token",
          "[pretrained][fp8]") {
  const TemporaryFolder folder;
  write_fp8(folder.path, with(config_of("LlamaForCausalLM", sizes()), groups(scheme("token", true))),
            Scales::row, 0);
  const auto last = [&](std::span<const int32_t> ids, int64_t prefix) {
    pretrained::Session s = pretrained::open_session({.folder = folder.path.string()}, true);
    pretrained::KvCache cache(s.decoder->backend(), s.decoder->config(), 1, 24);
    if (prefix > 0)
      (void)s.decoder->forward({.tokens = ids.first(size_t(prefix)), .length = prefix, .cache = &cache});
    const auto rest = ids.subspan(size_t(prefix));
    const auto l = s.decoder->forward(
        {.tokens = rest, .length = int64_t(rest.size()), .cache = &cache, .last_only = true});
    return std::vector<float>(l.begin(), l.end());
  };
  const std::vector<int32_t> ids = some_tokens(3, 20, 97);
  CHECK(equal_words(last(ids, 0), last(ids, 19)));
  CHECK(equal_words(last(ids, 0), last(ids, 7)));
}

TEST_CASE("FP8 codes of inputs at their edges", "[pretrained][fp8]") {
  const auto &rows = *pretrained::find_fp8_inputs("fp8-token");
  const std::vector<float> x = {0, -0.0f, 0, 0, 448, -448, 224, 1e-9f, 1e30f, -1e30f, 3e29f, NAN};
  const pretrained::Fp8Quantized q = pretrained::quantize_fp8(rows, x, 3, 4, 1);
  CHECK(q.scales == std::vector<float>{1.0f / (448.0f * 512.0f), 1.0f, 1e30f / 448.0f});
  CHECK(q.codes[1] == 0x80);
  CHECK(q.codes[4] == 0x7E);
  CHECK(q.codes[5] == 0xFE);
  CHECK(q.codes[9] == 0xFE);
  CHECK((q.codes[11] & 0x7F) == 0x7F); // NaN stays
  const auto &tensor = *pretrained::find_fp8_inputs("fp8-tensor");
  const pretrained::Fp8Quantized zero =
      pretrained::quantize_fp8(tensor, std::vector<float>(8, 0.0f), 2, 4, 1);
  CHECK(zero.scales == std::vector<float>{0, 0});
  CHECK(zero.codes == std::vector<uint8_t>(8, 0));
  const auto &fixed = *pretrained::find_fp8_inputs("fp8-static");
  CHECK(pretrained::quantize_fp8(fixed, std::vector<float>{1000, 1}, 1, 2, 0.5f).codes ==
        std::vector<uint8_t>{0x7E, e4m3(2.0f)}); // saturates
  const pretrained::Fp8Quantized g = pretrained::quantize_fp8(*pretrained::find_fp8_inputs("fp8-group128"),
                                                              std::vector<float>(130, 2.0f), 1, 130, 1);
  CHECK(g.groups == 2);
  CHECK(g.scales == std::vector<float>{2.0f / 448, 2.0f / 448});
}

TEST_CASE("FP8 scales and inputs that make no product are refused", "[pretrained][fp8]") {
  const TemporaryFolder folder;
  const Json config = config_of("LlamaForCausalLM", sizes());
  const auto run = [&](const std::string &activations) {
    return seen_by({.folder = folder.path.string(), .activations = activations});
  };
  write_fp8(folder.path, config, Scales::row, 0);
  CHECK_THROWS_WITH(run(""), Catch::Contains("give --activations none or one of fp8-static, fp8-tensor"));
  CHECK_THROWS_WITH(run("te"), Catch::Contains("expected none or one of fp8-static"));
  CHECK_THROWS_WITH(run("fp8-group128"), Catch::Contains("give --activations fp8-token or none"));
  CHECK_THROWS_WITH(run("fp8-static"), Catch::Contains("has no input scale"));
  CHECK(run("fp8-tensor").contains("lm_head"));
  std::filesystem::remove_all(folder.path);
  write_fp8(folder.path, config, Scales::tile, 0);
  CHECK_THROWS_WITH(run("fp8-token"), Catch::Contains("give --activations fp8-group128 or none"));
  std::filesystem::remove_all(folder.path);
  write_fp8(folder.path, config, Scales::tensor, -1.0f);
  CHECK_THROWS_WITH(run("fp8-static"), Catch::Contains("its input scale is -1"));
}
