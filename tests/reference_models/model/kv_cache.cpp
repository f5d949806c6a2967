// SPDX-License-Identifier: Apache-2.0
// Keys and values as a cache gives them back: head by head quantize and dequantize, read by every form of
// attention, and refused where they have no meaning.
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/reference_models/model/stored_values.hpp"
#include "tests/reference_models/model/products_support.hpp"

namespace nvfp4::test {
namespace {

/// A forward pass without gradients, with its activations.
struct Pass {
  std::unique_ptr<Backend<float>> backend;
  std::unique_ptr<OperandEngine> engine;
  Model<float> model;
  std::map<std::string, Floats> seen;

  Pass(const ModelConfig &c, const Recipe &recipe, int64_t batch, int64_t length, int32_t last = 7,
       int threads = 1)
      : backend(make_cpu_backend(threads)), engine(make_cpu_operand_engine(threads)),
        model(*backend, engine.get(), c, recipe, batch, length, false) {
    initialise(model.parameters(), c, 5);
    std::vector<int32_t> tokens;
    for (int64_t i = 0; i < batch * (length + 1); ++i)
      tokens.push_back(int32_t((i * i * 5 + i) % c.vocabulary));
    tokens[size_t(length - 1)] = last; // the last input of the first sequence
    model.set_tokens(tokens);
    model.parameters_changed();
    model.forward(kStep);
    for (const Activation<float> &a : model.activations()) {
      int64_t n = 1;
      for (const int64_t s : a.shape) n *= s;
      seen[a.name].assign(a.data, a.data + n);
    }
    seen["logits"].assign(model.logits(), model.logits() + batch * length * c.vocabulary);
  }
};

Recipe with_cache(const std::string &name, OperandRecipe operand) {
  Recipe r = load_recipe(name);
  r.kv_cache = std::move(operand);
  check_recipe(r, "test");
  return r;
}

/// To the nearest E4M3 number, ties to even; x in [0, 448].
float to_e4m3(float x) {
  const int exponent = x > 0 ? std::max(std::ilogb(x), -6) : -6;
  return std::ldexp(std::nearbyint(std::ldexp(x, 3 - exponent)), exponent - 3);
}

/// E4M3 with one scale, written out.
Floats fp8_by_hand(Floats x) {
  float amax = 0;
  for (const float v : x) amax = std::max(amax, std::fabs(v));
  const float scale = amax / 448 == 0 ? 1.0f : amax / 448;
  for (float &v : x) v = std::copysign(std::min(to_e4m3(std::fabs(v / scale)), 448.0f), v) * scale;
  return x;
}

/// E2M1 codes times E4M3 scale times the te convention's global factor, amax / (6 * 448), written out.
Floats te_by_hand(const Floats &x, int64_t rows, int64_t cols) {
  float amax = 0;
  for (const float v : x) amax = std::max(amax, std::fabs(v));
  Floats out;
  const float levels[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t block = 0; block < cols; block += 16) {
      float largest = 0;
      for (int64_t c = block; c < std::min(cols, block + 16); ++c)
        largest = std::max(largest, std::fabs(x[size_t(r * cols + c)]));
      const float encode = std::min(2688.0f / amax, 3.40282347e38f),
                  scale = to_e4m3(std::min(largest / 6.0f * encode, 448.0f));
      for (int64_t c = block; c < std::min(cols, block + 16); ++c) {
        const float wanted = x[size_t(r * cols + c)] / (scale / encode);
        size_t best = 0; // of two as near the even code
        const auto distance = [&](size_t code) { return std::fabs(std::fabs(wanted) - levels[code]); };
        for (size_t code = 1; code < 8; ++code)
          if (distance(code) < distance(best) || (distance(code) == distance(best) && code % 2 == 0))
            best = code;
        out.push_back(std::copysign(levels[best] * (scale / encode), wanted));
      }
    }
  return out;
}

} // namespace

TEST_CASE("a KV cache gives each head's quantized keys and values", "[model]") {
  for (const char *family : {"qwen3", "llama"})
    for (const OperandRecipe &operand :
         {OperandRecipe{OperandFormat::nvfp4, "te"}, OperandRecipe{OperandFormat::nvfp4, "row-scaled"},
          OperandRecipe{OperandFormat::mxfp4, "mxfp4"}, OperandRecipe{OperandFormat::mxfp8, "mxfp8-e4m3"},
          OperandRecipe{OperandFormat::bf16}, OperandRecipe{OperandFormat::fp8}}) {
      CAPTURE(family, operand.convention);
      const ModelConfig c = small_model(family, 160); // 40 a head: a block is not whole
      const int64_t batch = 2, length = 21, dim = c.key_head();
      const Recipe recipe = with_cache("nvfp4", operand);
      const Pass pass(c, recipe, batch, length), plain(c, load_recipe("nvfp4"), batch, length);
      for (const char *layer : {"0", "1"}) {
        const std::string path = std::string("model.layers.") + layer + ".self_attn.";
        for (const auto &[from, to] : {std::pair{"k_rotated", "k_cache"}, std::pair{"v_proj", "v_cache"}})
          for (int64_t s = 0; s < batch; ++s)
            for (int64_t h = 0; h < c.kv_heads; ++h) {
              Floats x = in_bf16(head_of(pass.seen.at(path + from), s, length, c.kv_heads, h, dim));
              if (operand.format == OperandFormat::fp8)
                x = fp8_by_hand(x);
              else if (!operand.convention.empty())
                x = dequantize(quantize({x.data(), length, dim}, find_convention(operand.convention),
                                        {.source = FormatId::bf16}));
              CHECK(same_bits(head_of(pass.seen.at(path + to), s, length, c.kv_heads, h, dim), x));
            }
        // attention is that of the cached keys and values
        const AttentionShape<float> shape{batch,      length, c.heads,
                                          c.kv_heads, dim,    1.0f / numerics::sqrt(float(dim))};
        Floats o(pass.seen.at(path + "attention").size()), saved(size_t(shape.saved())),
            work(size_t(shape.work()));
        AttentionForward<float>{shape,
                                pass.seen.at(path + "q_rotated").data(),
                                pass.seen.at(path + "k_cache").data(),
                                pass.seen.at(path + "v_cache").data(),
                                o.data(),
                                saved.data(),
                                work.data()}
            .run_on(*pass.backend);
        CHECK(same_bits(pass.seen.at(path + "attention"), o));
      }
      CHECK_FALSE(plain.seen.contains("model.layers.0.self_attn.k_cache"));
      CHECK_FALSE(same_bits(plain.seen.at("logits"), pass.seen.at("logits")));
      CHECK(same_bits(Pass(c, recipe, batch, length, 7, 3).seen.at("logits"), pass.seen.at("logits")));
    }
}

TEST_CASE("a cached head in NVFP4 is what the format's definition says", "[model]") {
  const ModelConfig c = small_model("llama", 128);
  const Pass pass(c, with_cache("bf16", {OperandFormat::nvfp4, "te"}), 1, 20);
  const std::string path = "model.layers.1.self_attn.";
  for (int64_t h = 0; h < c.kv_heads; ++h) {
    const Floats x = in_bf16(head_of(pass.seen.at(path + "v_proj"), 0, 20, c.kv_heads, h, 32)),
                 got = head_of(pass.seen.at(path + "v_cache"), 0, 20, c.kv_heads, h, 32),
                 wanted = te_by_hand(x, 20, 32);
    for (size_t i = 0; i < x.size(); ++i) CHECK(got[i] == Approx(wanted[i]).epsilon(1e-5).margin(1e-7));
  }
}

TEST_CASE("what is stored in FP8 with one scale keeps zeros, signs and the largest value", "[model]") {
  const auto backend = make_cpu_backend(1);
  const float largest = 3e38f, tiny = 1e-45f, nan = std::numeric_limits<float>::quiet_NaN();
  const auto stored = [&](const Floats &x) {
    Floats y(x.size());
    read_stored(*backend, {OperandFormat::fp8}, FormatId::f32, 1, 1, 1, int64_t(x.size()), x.data(),
                y.data());
    return y;
  };
  for (const Floats &x : {Floats{0, -0.0f}, Floats{largest, -largest, 1e30f, 1}, Floats{tiny, -tiny, 0},
                          Floats{1000, 1000.0f / 28, 1000.0f / 448 / 1024, -1e-3f, 37.25f},
                          Floats{-7, 7.0f / 448 * 20.5f, 7.0f / 448 * 21.5f, 0.3f}}) {
    const Floats y = stored(x);
    CHECK(same_bits(y, fp8_by_hand(x)));
    CHECK(std::signbit(y[1]) == std::signbit(x[1]));
  }
  CHECK(stored({largest, 1})[0] == largest / 448 * 448);
  const Floats some = stored({2, nan, -1});
  CHECK((some[0] == 2 && std::isnan(some[1]) && some[2] == -1));
}

TEST_CASE("what a cache gives of a token depends on later ones only through a global scale", "[model]") {
  const ModelConfig c = small_model("qwen3");
  const auto first_tokens = [&](const OperandRecipe &operand, int32_t last) {
    const Pass pass(c, with_cache("bf16", operand), 1, 4, last);
    const Floats &v = pass.seen.at("model.layers.0.self_attn.v_cache");
    return Floats(v.begin(), v.begin() + 3 * c.kv_heads * c.key_head());
  };
  const OperandRecipe by_row{OperandFormat::nvfp4, "row-scaled"}, by_head{OperandFormat::nvfp4, "te"};
  int moved = 0;
  for (int32_t last = 8; last < 20; ++last) {
    CHECK(same_bits(first_tokens(by_row, last), first_tokens(by_row, 7)));
    moved += same_bits(first_tokens(by_head, last), first_tokens(by_head, 7)) ? 0 : 1;
  }
  CHECK(moved > 0);
}

TEST_CASE("every form of attention reads the cache", "[model]") {
  const ModelConfig c = small_model("qwen3", 256); // 64 a head
  const auto attention = [&](Recipe recipe, bool cached) {
    if (cached) recipe.kv_cache = {OperandFormat::nvfp4, "te"};
    return Pass(c, recipe, 1, 33).seen.at("model.layers.0.self_attn.attention");
  };
  Recipe by_product = load_recipe("bf16");
  by_product.linears["f32"] = load_recipe("fp32").linears.at("f32");
  by_product.mixer_rules.push_back({.roles = {"attn.qk"}, .use = "f32"});
  const Recipe whole = load_recipe("bf16"), bf16 = load_recipe("bf16+mixers=bf16");
  CHECK(same_bits(attention(by_product, true), attention(whole, true)));
  CHECK_FALSE(same_bits(attention(whole, true), attention(whole, false)));
  CHECK_FALSE(same_bits(attention(bf16, true), attention(bf16, false)));
  CHECK_FALSE(same_bits(attention(bf16, true), attention(whole, true)));
}

TEST_CASE("a KV cache is refused where it has no meaning", "[model]") {
  const Recipe recipe = load_recipe("nvfp4+kv_cache=nvfp4");
  const auto refusal = [&](const char *family, bool training) {
    try {
      const auto backend = make_cpu_backend(1);
      const auto engine = make_cpu_operand_engine(1);
      const Model<float> model(*backend, engine.get(), preset(find_family(family), "tiny"), recipe, 1, 8,
                               training);
    } catch (const Error &e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  CHECK(refusal("qwen3", false) == "accepted");
  CHECK(refusal("qwen3", true).find("not for training") != std::string::npos);
  CHECK(refusal("gla", false).find("got gla") != std::string::npos);
}

} // namespace nvfp4::test
