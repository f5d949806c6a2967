// SPDX-License-Identifier: Apache-2.0
// Every architecture written down once more, in FP64 loops from transformers' definitions, against a pass
// under the recipe fp32: rotary scalings, windows, sandwich norms, GELU, biases.
#include "tests/catch.hpp"
#include "tests/reference_models/pretrained/support.hpp"

#include <cmath>
#include <map>

using namespace nvfp4;
using namespace nvfp4::models;
using namespace nvfp4::test;

namespace {

using Row = std::vector<double>;
using Rows = std::vector<Row>;

struct Plain {
  Json c;
  std::map<std::string, std::span<const float>> w;
  bool gemma, qk_norm;

  [[nodiscard]] int64_t at(const char *key) const { return c.at(key).get<int64_t>(); }
  [[nodiscard]] Row linear(const std::string &name, const Row &x) const {
    const auto &m = w.at(name + ".weight");
    Row y(m.size() / x.size());
    for (size_t o = 0; o < y.size(); ++o) {
      for (size_t i = 0; i < x.size(); ++i) y[o] += double(m[o * x.size() + i]) * x[i];
      if (w.contains(name + ".bias")) y[o] += double(w.at(name + ".bias")[o]);
    }
    return y;
  }
  void norm(const std::string &name, double *x, size_t n) const {
    double squares = 0;
    for (size_t i = 0; i < n; ++i) squares += x[i] * x[i];
    const double factor = 1 / std::sqrt(squares / double(n) + 1e-6);
    for (size_t i = 0; i < n; ++i) x[i] *= factor * ((gemma ? 1.0 : 0.0) + double(w.at(name + ".weight")[i]));
  }
  [[nodiscard]] Row normed(const std::string &name, Row x) const {
    norm(name, x.data(), x.size());
    return x;
  }
  [[nodiscard]] double frequency(int64_t pair, bool local) const {
    const double dim = double(at("head_dim"));
    const double f = std::pow(local ? 10000.0 : c["rope_theta"].get<double>(), -2.0 * double(pair) / dim);
    if (local || !c.contains("rope_scaling")) return f;
    const Json &s = c["rope_scaling"];
    const double factor = s["factor"];
    if (s["rope_type"] == "linear") return f / factor;
    const double original = s["original_max_position_embeddings"], low = s["low_freq_factor"],
                 high = s["high_freq_factor"], length = 2 * M_PI / f;
    if (length < original / high) return f;
    if (length > original / low) return f / factor;
    const double share = (original / length - low) / (high - low);
    return (1 - share) * f / factor + share * f;
  }
  void rotate(double *x, int64_t position, bool local) const {
    const int64_t half = at("head_dim") / 2;
    for (int64_t i = 0; i < half; ++i) {
      const double a = double(position) * frequency(i, local), x0 = x[i], x1 = x[i + half];
      x[i] = x0 * std::cos(a) - x1 * std::sin(a);
      x[i + half] = x1 * std::cos(a) + x0 * std::sin(a);
    }
  }
  [[nodiscard]] Rows attention(const std::string &b, const Rows &x, bool local) const {
    const int64_t heads = at("num_attention_heads"), kv = at("num_key_value_heads"), dim = at("head_dim"),
                  window = local ? at("sliding_window") : int64_t(x.size());
    Rows q, k, v, out;
    for (size_t t = 0; t < x.size(); ++t) {
      q.push_back(linear(b + "q_proj", x[t]));
      k.push_back(linear(b + "k_proj", x[t]));
      v.push_back(linear(b + "v_proj", x[t]));
      for (const auto &[rows, count, name] : {std::tuple{&q, heads, "q_norm"}, std::tuple{&k, kv, "k_norm"}})
        for (int64_t h = 0; h < count; ++h) {
          if (qk_norm) norm(b + name, rows->back().data() + h * dim, size_t(dim));
          rotate(rows->back().data() + h * dim, int64_t(t), local);
        }
    }
    const double scale = 1 / std::sqrt(gemma ? c["query_pre_attn_scalar"].get<double>() : double(dim));
    for (int64_t t = 0; t < int64_t(x.size()); ++t) {
      Row o(size_t(heads * dim));
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t g = h / (heads / kv), first = std::max<int64_t>(0, t + 1 - window);
        Row p;
        double sum = 0;
        for (int64_t j = first; j <= t; ++j) {
          double dot = 0;
          for (int64_t d = 0; d < dim; ++d)
            dot += q[size_t(t)][size_t(h * dim + d)] * k[size_t(j)][size_t(g * dim + d)];
          p.push_back(std::exp(dot * scale));
          sum += p.back();
        }
        for (int64_t j = first; j <= t; ++j)
          for (int64_t d = 0; d < dim; ++d)
            o[size_t(h * dim + d)] += p[size_t(j - first)] / sum * v[size_t(j)][size_t(g * dim + d)];
      }
      out.push_back(linear(b + "o_proj", o));
    }
    return out;
  }
  [[nodiscard]] Row mlp(const std::string &b, const Row &x) const {
    Row gate = linear(b + "gate_proj", x);
    const Row up = linear(b + "up_proj", x);
    for (size_t i = 0; i < gate.size(); ++i) {
      const double g = gate[i];
      gate[i] = up[i] * (gemma ? 0.5 * g * (1 + std::tanh(std::sqrt(2 / M_PI) * (g + 0.044715 * g * g * g)))
                               : g / (1 + std::exp(-g)));
    }
    return linear(b + "down_proj", gate);
  }
  [[nodiscard]] Row logits(const std::vector<int32_t> &tokens) const {
    const auto d = size_t(at("hidden_size"));
    Rows x;
    for (const int32_t token : tokens) {
      const auto row = w.at("model.embed_tokens.weight").subspan(size_t(token) * d, d);
      x.emplace_back(row.begin(), row.end());
      for (double &v : x.back()) v *= gemma ? std::sqrt(double(d)) : 1.0;
    }
    const auto add = [&](size_t t, const Row &y) {
      for (size_t i = 0; i < d; ++i) x[t][i] += y[i];
    };
    for (int64_t layer = 0; layer < at("num_hidden_layers"); ++layer) {
      const std::string b = "model.layers." + std::to_string(layer) + ".";
      Rows in;
      for (const Row &row : x) in.push_back(normed(b + "input_layernorm", row));
      const Rows mixed =
          attention(b + "self_attn.", in, gemma && (layer + 1) % at("sliding_window_pattern") != 0);
      for (size_t t = 0; t < x.size(); ++t) {
        add(t, gemma ? normed(b + "post_attention_layernorm", mixed[t]) : mixed[t]);
        const Row inner =
            normed(b + (gemma ? "pre_feedforward_layernorm" : "post_attention_layernorm"), x[t]);
        const Row y = mlp(b + "mlp.", inner);
        add(t, gemma ? normed(b + "post_feedforward_layernorm", y) : y);
      }
    }
    Row out;
    for (const Row &row : x) {
      const Row y = linear(c["tie_word_embeddings"].get<bool>() ? "model.embed_tokens" : "lm_head",
                           normed("model.norm", row));
      out.insert(out.end(), y.begin(), y.end());
    }
    return out;
  }
};

} // namespace

TEST_CASE("every architecture is what a plain model of it computes", "[pretrained][plain]") {
  const Json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8.0},
                       {"low_freq_factor", 1.0},
                       {"high_freq_factor", 4.0},
                       {"original_max_position_embeddings", 64}},
             linear = {{"rope_type", "linear"}, {"factor", 4.0}};
  for (const auto &[name, scaling] :
       {std::pair{"LlamaForCausalLM", llama3}, std::pair{"LlamaForCausalLM", linear},
        std::pair{"Qwen2ForCausalLM", Json()}, std::pair{"Qwen3ForCausalLM", Json()},
        std::pair{"Gemma3ForCausalLM", Json()}, std::pair{"Gemma3ForCausalLM", linear}}) {
    INFO(name);
    const TemporaryFolder folder;
    Json config = config_of(name, {.vocabulary = 61,
                                   .hidden = 32,
                                   .layers = 3,
                                   .heads = 4,
                                   .kv_heads = 2,
                                   .head_dim = 12,
                                   .intermediate = 40});
    if (!scaling.is_null()) config["rope_scaling"] = scaling;
    const io::TensorFile tensors = tensors_of(config, 0.15f);
    write_folder(folder.path, config, tensors);
    Plain plain{config,
                {},
                std::string_view(name).starts_with("Gemma3"),
                !std::string_view(name).starts_with("Llama") && !std::string_view(name).starts_with("Qwen2")};
    for (const io::Tensor &t : tensors.tensors) plain.w[t.name] = t.as<float>();
    const std::vector<int32_t> tokens = some_tokens(2, 23, 61);
    const Row want = plain.logits(tokens);
    pretrained::Session s = pretrained::open_session({.folder = folder.path.string(), .recipe = "fp32"});
    const auto got = s.decoder->forward({.tokens = tokens, .length = 23});
    REQUIRE(got.size() == want.size());
    double worst = 0, largest = 0;
    for (size_t i = 0; i < want.size(); ++i) {
      worst = std::max(worst, std::abs(want[i] - double(got[i])));
      largest = std::max(largest, std::abs(want[i]));
    }
    CHECK(largest > 0.5);
    CHECK(worst < 2e-5 * largest);
  }
}
