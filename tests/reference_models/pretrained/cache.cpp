// SPDX-License-Identifier: Apache-2.0
// Attention behind a cache: the training kernel's words, windows against a plain loop, and prefill followed
// by single tokens against one pass over all of them.
#include "tests/catch.hpp"
#include "tests/reference_models/pretrained/support.hpp"

#include "nvfp4/reference_models/pretrained/generate.hpp"

#include <bit>
#include <cmath>

using namespace nvfp4;
using namespace nvfp4::models;
using namespace nvfp4::test;

namespace {

bool same_words(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * 4) == 0;
}

struct Tensors {
  std::vector<float> q, k, v;
};
Tensors random_tensors(const AttentionShape<float> &s) {
  const int64_t rows = s.batch * s.length;
  return {hard_values(1, rows, s.heads * s.dim, 1.5f), hard_values(2, rows, s.kv_heads * s.dim, 1.5f),
          hard_values(3, rows, s.kv_heads * s.dim, 1.0f)};
}

/// New tokens in pieces of these lengths behind each other (batch 1).
std::vector<float> in_pieces(Backend<float> &backend, const AttentionShape<float> &whole, const Tensors &t,
                             std::span<const int64_t> pieces, int64_t window, int64_t capacity,
                             KvRounding rounding = KvRounding::none) {
  const int64_t kv = whole.kv_heads * whole.dim, qw = whole.heads * whole.dim;
  std::vector<float> keys(size_t(whole.batch * capacity * kv)), values(keys.size()), o(t.q.size());
  int64_t past = 0;
  for (const int64_t n : pieces) {
    AttentionShape<float> part = whole;
    part.length = n;
    const CachedAttentionShape<float> shape{part, past, capacity, window};
    backend.run(KvStore<float>{shape, t.k.data() + past * kv, t.v.data() + past * kv, keys.data(),
                               values.data(), rounding, 1.0f, 1.0f});
    backend.run(CachedAttention<float>{shape, t.q.data() + past * qw, keys.data(), values.data(),
                                       o.data() + past * qw});
    past += n;
  }
  return o;
}

} // namespace

TEST_CASE("cached attention without a window has the training kernel's words", "[pretrained][attention]") {
  const auto backend = make_cpu_backend(2);
  for (const int64_t length : {1, 63, 64, 65, 150}) {
    const AttentionShape<float> s{2, length, 6, 2, 24, 0.2f};
    const Tensors t = random_tensors(s);
    std::vector<float> o(t.q.size()), saved(size_t(s.saved())), work(size_t(s.work()));
    AttentionForward<float>{s, t.q.data(), t.k.data(), t.v.data(), o.data(), saved.data(), work.data()}
        .run_on(*backend);
    const int64_t all[] = {length};
    CHECK(same_words(o, in_pieces(*backend, s, t, all, 0, length)));
    CHECK(same_words(o, in_pieces(*backend, s, t, all, 0, length + 9)));
    CHECK(same_words(o, in_pieces(*backend, s, t, all, length, length)));
  }
}

TEST_CASE("pieces behind a cache have the words of one pass", "[pretrained][attention]") {
  const auto backend = make_cpu_backend(1);
  const AttentionShape<float> s{1, 140, 4, 2, 16, 0.25f};
  const Tensors t = random_tensors(s);
  const int64_t all[] = {140}, pieces[] = {70, 1, 1, 5, 62, 1};
  for (const int64_t window : {0, 1, 7, 64, 100})
    for (const KvRounding rounding : {KvRounding::none, KvRounding::bf16, KvRounding::e4m3}) {
      INFO("window " << window);
      CHECK(same_words(in_pieces(*backend, s, t, all, window, 140, rounding),
                       in_pieces(*backend, s, t, pieces, window, 160, rounding)));
    }
}

TEST_CASE("a window shows a query its last keys alone", "[pretrained][attention]") {
  const auto backend = make_cpu_backend(1);
  const AttentionShape<float> s{1, 100, 2, 1, 8, 0.3f};
  const Tensors t = random_tensors(s);
  const int64_t all[] = {100};
  for (const int64_t window : {1, 3, 50, 99}) {
    const std::vector<float> o = in_pieces(*backend, s, t, all, window, 100);
    double worst = 0;
    for (int64_t h = 0; h < 2; ++h)
      for (int64_t i = 0; i < 100; ++i) {
        std::vector<double> p;
        double sum = 0;
        const int64_t first = std::max<int64_t>(0, i + 1 - window);
        for (int64_t j = first; j <= i; ++j) {
          double dot = 0;
          for (int64_t d = 0; d < 8; ++d)
            dot += double(t.q[size_t(i * 16 + h * 8 + d)]) * double(t.k[size_t(j * 8 + d)]);
          p.push_back(std::exp(0.3 * dot));
          sum += p.back();
        }
        for (int64_t d = 0; d < 8; ++d) {
          double want = 0;
          for (int64_t j = first; j <= i; ++j)
            want += p[size_t(j - first)] / sum * double(t.v[size_t(j * 8 + d)]);
          worst = std::max(worst, std::abs(want - double(o[size_t(i * 16 + h * 8 + d)])));
        }
      }
    CHECK(worst < 1e-4); // of values up to 8
  }
}

TEST_CASE("keys and values are rounded where they are kept", "[pretrained][attention]") {
  const auto backend = make_cpu_backend(1);
  const AttentionShape<float> s{1, 20, 2, 1, 8, 0.3f};
  Tensors t = random_tensors(s);
  const int64_t all[] = {20};
  for (const KvRounding rounding : {KvRounding::bf16, KvRounding::e4m3}) {
    Tensors rounded = t;
    for (std::vector<float> *x : {&rounded.k, &rounded.v})
      for (float &v : *x) v = round_kv(rounding, v);
    CHECK(same_words(in_pieces(*backend, s, t, all, 0, 20, rounding),
                     in_pieces(*backend, s, rounded, all, 0, 20)));
    CHECK_FALSE(
        same_words(in_pieces(*backend, s, t, all, 0, 20, rounding), in_pieces(*backend, s, t, all, 0, 20)));
  }
  CHECK(round_kv(KvRounding::e4m3, 1000.0f) == 448.0f);
  CHECK(round_kv(KvRounding::bf16, 1.00390625f) == 1.0f);
}

TEST_CASE("a decoder with a cache has the words of one without", "[pretrained]") {
  for (const char *architecture : {"LlamaForCausalLM", "Qwen3ForCausalLM", "Gemma3ForCausalLM"}) {
    const TemporaryFolder folder;
    const Json config = config_of(architecture, {});
    write_folder(folder.path, config, tensors_of(config));
    const std::vector<int32_t> tokens = some_tokens(4, 24, 97);
    for (const char *recipe : {"bf16", "fp32"})
      for (const char *kv : {"f32", "bf16", "e4m3", "nvfp4"}) {
        INFO(architecture << " " << recipe << " " << kv);
        const pretrained::RunOptions options{.folder = folder.path.string(), .recipe = recipe, .kv = kv};
        pretrained::Session cached = pretrained::open_session(options, true),
                            plain = pretrained::open_session(options);
        pretrained::KvCache cache(cached.decoder->backend(), cached.decoder->config(), 1, 24);
        for (int64_t n = 13; n <= 24; ++n) {
          const int64_t first = n == 13 ? 0 : n - 1;
          const auto some = std::span(tokens).subspan(size_t(first), size_t(n - first));
          const std::vector<float> with = [&] {
            const auto l = cached.decoder->forward(
                {.tokens = some, .length = n - first, .cache = &cache, .last_only = true});
            return std::vector<float>(l.begin(), l.end());
          }();
          const auto without =
              plain.decoder->forward({.tokens = std::span(tokens).first(size_t(n)), .length = n});
          CHECK(same_words(with, without.last(with.size())));
        }
      }
  }
}

TEST_CASE("a cache in NVFP4 holds blocks of a head's vector under the given scale", "[pretrained][kv]") {
  const auto backend = make_cpu_backend(1);
  const int64_t rows = 37, dim = 40; // the last block of a row is half full
  std::vector<float> x = hard_values(21, rows, dim, 3.0f), got(x.size());
  x[5] = 1e30f, x[6] = -1e30f;
  std::fill_n(x.begin() + 3 * dim, dim, 0.0f);
  for (const float p : {1.0f, 0.0371f, 2.5f}) {
    pretrained::keep_in_blocks(*backend, pretrained::find_kv_format("nvfp4"), p, FormatId::bf16, rows, dim,
                               x.data(), got.data());
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t first = 0; first < dim; first += 16) {
        float amax = 0;
        const int64_t end = std::min(dim, first + 16);
        for (int64_t i = first; i < end; ++i)
          amax = std::max(amax, std::fabs(round_to_bf16(x[size_t(r * dim + i)])));
        const float wanted = std::clamp(amax / (6.0f * p), 0x1p-9f, 448.0f),
                    sf = value_f32(FormatId::e4m3, encode(FormatId::e4m3, wanted, Rounding::nearest_even,
                                                          Overflow::satfinite));
        for (int64_t i = first; i < end; ++i) {
          const float v = round_to_bf16(x[size_t(r * dim + i)]) / (sf * p);
          const float q = value_f32(FormatId::e2m1,
                                    encode(FormatId::e2m1, v, Rounding::nearest_even, Overflow::satfinite));
          INFO("row " << r << " element " << i << " scale " << p);
          CHECK(got[size_t(r * dim + i)] == q * (sf * p));
        }
      }
  }
}

TEST_CASE("a cache takes the folder's scales, and generation has the words of forward", "[pretrained][kv]") {
  const TemporaryFolder folder;
  const Json config = config_of("Qwen3ForCausalLM", {.head_dim = 24});
  const io::TensorFile plain = tensors_of(config);
  const auto write = [&](const std::string &name, const std::string &suffix_k, const std::string &suffix_v,
                         float k, float v) {
    io::TensorFile file = plain;
    for (int64_t layer = 0; layer < 3; ++layer) {
      const std::string b = "model.layers." + std::to_string(layer) + ".self_attn.";
      file.tensors.push_back(io::Tensor::from(b + suffix_k, {}, std::vector<float>{k}));
      file.tensors.push_back(io::Tensor::from(b + suffix_v, {}, std::vector<float>{v}));
    }
    write_folder(folder.path / name, config, file);
    return (folder.path / name).string();
  };
  write_folder(folder.path / "plain", config, plain);
  const std::string none = (folder.path / "plain").string(),
                    modelopt = write("a", "k_proj.k_scale", "v_proj.v_scale", 0.013f, 0.0021f),
                    compressed = write("b", "k_scale", "v_scale", 0.013f, 0.0021f),
                    ones = write("c", "k_scale", "v_scale", 1, 1),
                    nothing = write("d", "k_scale", "v_scale", 0, 1),
                    keys = write("e", "k_scale", "v_scale", 0.013f, 1);
  const auto logits = [&](const std::string &path, const std::string &kv, bool cache) {
    pretrained::Session s = pretrained::open_session({.folder = path, .kv = kv}, true);
    return pretrained::generate(s, {.prompt = some_tokens(8, 9, 97), .tokens = 6, .cache = cache}, true)
        .logits;
  };
  for (const char *kv : {"e4m3", "nvfp4"}) {
    INFO(kv);
    const auto own = logits(modelopt, kv, true);
    CHECK(own == logits(modelopt, kv, false));
    CHECK(own == logits(compressed, kv, true));
    CHECK(own != logits(none, kv, true));
    CHECK(own != logits(keys, kv, true)); // v has a scale of its own
    CHECK(logits(ones, kv, true) == logits(none, kv, true));
    CHECK(logits(none, kv, true) != logits(none, "bf16", true));
    CHECK_THROWS_WITH(logits(nothing, kv, true),
                      Catch::Contains("model.layers.0.self_attn.k_scale: expected a scale above 0"));
    // the last prompt position of `forward` is what the first token was chosen from
    io::TensorFile tokens;
    std::vector<int32_t> ids = some_tokens(8, 9, 97);
    ids.push_back(0);
    tokens.tensors.push_back(io::Tensor::from("tokens", {1, 10}, ids));
    const pretrained::Forward pass = pretrained::run_forward({.folder = modelopt, .kv = kv}, tokens);
    const io::Tensor &all = *std::find_if(pass.tensors.tensors.begin(), pass.tensors.tensors.end(),
                                          [](const io::Tensor &t) { return t.name == "logits"; });
    CHECK(same_words(all.as<float>().last(97), own.front()));
  }
  CHECK(logits(modelopt, "bf16", true) == logits(none, "bf16", true)); // not scaled
}

TEST_CASE("a recipe's kv_cache goes behind a cache where its scales are a token's own", "[pretrained][kv]") {
  const TemporaryFolder folder;
  const Json config = config_of("LlamaForCausalLM", {.head_dim = 32});
  write_folder(folder.path, config, tensors_of(config));
  const auto logits = [&](const std::string &recipe, const std::string &kv, bool cache) {
    pretrained::Session s =
        pretrained::open_session({.folder = folder.path.string(), .recipe = recipe, .kv = kv}, true);
    return pretrained::generate(s, {.prompt = some_tokens(8, 9, 97), .tokens = 6, .cache = cache}, true)
        .logits;
  };
  for (const char *recipe : {"bf16+kv_cache=mxfp8", "bf16+kv_cache=mxfp4", "bf16+kv_cache=bf16"}) {
    INFO(recipe);
    CHECK(logits(recipe, "f32", true) == logits(recipe, "f32", false));
    CHECK(logits(recipe, "f32", true) != logits("bf16", "f32", true));
  }
  CHECK_THROWS_WITH(logits("bf16+kv_cache=nvfp4", "f32", true),
                    Catch::Contains("taken over a whole sequence"));
  CHECK_THROWS_WITH(logits("bf16+kv_cache=fp8", "f32", true), Catch::Contains("taken over a whole sequence"));
  CHECK(logits("bf16+kv_cache=fp8", "f32", false) != logits("bf16", "f32", false));
  CHECK_THROWS_WITH(logits("bf16+gate_inputs=nvfp4", "f32", false),
                    Catch::Contains("has gate_inputs in nvfp4"));
  CHECK_THROWS_WITH(logits("bf16+kv_cache=mxfp8", "nvfp4", false), Catch::Contains("leave out --kv nvfp4"));
}
