// SPDX-License-Identifier: Apache-2.0
// Recipes' mixer rules in softmax attention: product by product as composed by hand from quantize and gemm,
// FP32 products as the whole kernels, and the same bits on any thread and instruction set.
#include "nvfp4/reference_models/model/rope_table.hpp"
#include "tests/reference_models/model/products_support.hpp"

namespace nvfp4::test {
namespace {

Floats softmax_by_hand(const Floats &scores, int64_t length, float scale) {
  Floats p(scores.size(), 0.0f);
  for (int64_t i = 0; i < length; ++i) {
    const float *const row = scores.data() + i * length;
    float top = row[0] * scale;
    for (int64_t j = 0; j <= i; ++j) top = std::max(top, row[j] * scale);
    Floats e;
    for (int64_t j = 0; j <= i; ++j) e.push_back(numerics::exp(row[j] * scale - top));
    const float factor = 1.0f / warp_sum(e);
    for (int64_t j = 0; j <= i; ++j) p[size_t(i * length + j)] = e[size_t(j)] * factor;
  }
  return p;
}

/// Attention of block 0 by hand, against the model's o and the gradients that its projections got.
void compare(const Recipe &recipe, int64_t key_dim, int64_t batch, int64_t length) {
  const ModelConfig c = small_model("llama", key_dim);
  Step step(c, recipe, batch, length);
  step.run();
  const Recipe bound = recipe.for_family("llama");
  const LinearRecipe qk = bound.resolve("attn.qk", 0, c.layers), pv = bound.resolve("attn.pv", 0, c.layers);
  const int64_t dim = c.key_head(), group = c.heads / c.kv_heads;
  const float scale = 1.0f / numerics::sqrt(float(dim));
  const std::string path = "model.layers.0.self_attn.";
  Floats o(step.seen.at(path + "attention").size()), dq(o.size()),
      dk(size_t(batch * length * c.kv_heads * dim)), dv(dk.size());
  const auto put = [&](Floats &to, const Floats &from, int64_t sequence, int64_t heads, int64_t head) {
    for (int64_t t = 0; t < length; ++t)
      for (int64_t d = 0; d < dim; ++d)
        to[size_t(((sequence * length + t) * heads + head) * dim + d)] = from[size_t(t * dim + d)];
  };
  for (int64_t s = 0; s < batch; ++s)
    for (int64_t kv = 0; kv < c.kv_heads; ++kv) {
      Floats dk_head(size_t(length * dim)), dvt(dk_head.size());
      const Floats k = head_of(step.seen.at(path + "k_rotated"), s, length, c.kv_heads, kv, dim),
                   vt = transposed(head_of(step.seen.at(path + "v_proj"), s, length, c.kv_heads, kv, dim),
                                   length);
      for (int64_t member = 0; member < group; ++member) {
        const int64_t h = kv * group + member;
        const Floats q = head_of(step.seen.at(path + "q_rotated"), s, length, c.heads, h, dim),
                     grad = head_of(step.seen.at("0.attn.o_proj.input_grad"), s, length, c.heads, h, dim);
        // the rule of the keys, written from its description
        const auto key = [&](int number, int product, int use, bool of_w) {
          const auto stream = uint64_t(of_w ? s * c.kv_heads + kv : s * c.heads + h);
          return RandomKey{splitmix64(kStep.seed) + ((1 + stream) << 40) + 16 * uint64_t(number) +
                               4 * uint64_t(product) + uint64_t(use),
                           (uint64_t(kStep.step) << 24) + uint64_t(kStep.micro_batch)};
        };
        using enum Axis;
        const Floats scores =
            product(qk.fprop, q, length, row, key(0, 0, 0, false), k, length, row, key(0, 0, 1, true));
        const Floats p = softmax_by_hand(scores, length, scale);
        CHECK(*std::max_element(p.begin(), p.end()) == 1.0f); // P's global amax, whatever the scores
        const Floats oh =
            product(pv.fprop, p, length, row, key(1, 0, 0, false), vt, dim, row, key(1, 0, 1, true));
        put(o, oh, s, c.heads, h);
        const Floats dp =
            product(pv.dgrad, grad, length, row, key(1, 1, 0, false), vt, dim, col, key(1, 1, 1, true));
        dvt = product(pv.wgrad, grad, length, col, key(1, 2, 0, false), p, length, col, key(1, 2, 1, false),
                      dvt);
        Floats ds(p.size(), 0.0f);
        for (int64_t i = 0; i < length; ++i) {
          Floats terms;
          for (int64_t j = 0; j <= i; ++j)
            terms.push_back(p[size_t(i * length + j)] * dp[size_t(i * length + j)]);
          const float mean = warp_sum(terms);
          for (int64_t j = 0; j <= i; ++j)
            ds[size_t(i * length + j)] =
                p[size_t(i * length + j)] * (dp[size_t(i * length + j)] - mean) * scale;
        }
        const Floats dqh =
            product(qk.dgrad, ds, length, row, key(0, 1, 0, false), k, length, col, key(0, 1, 1, true));
        put(dq, dqh, s, c.heads, h);
        dk_head = product(qk.wgrad, ds, length, col, key(0, 2, 0, false), q, length, col, key(0, 2, 1, false),
                          dk_head);
      }
      put(dk, dk_head, s, c.kv_heads, kv);
      put(dv, transposed(dvt, dim), s, c.kv_heads, kv);
    }
  CHECK(same_bits(step.seen.at(path + "attention"), o));
  CHECK(same_bits(step.seen.at("0.attn.v_proj.output_grad"), dv));
  const RopeTable<float> table = rope_table<float>(length, dim, c.rope_base);
  for (const auto &[grad, heads, name] : {std::tuple(&dq, c.heads, "0.attn.q_proj.output_grad"),
                                          std::tuple(&dk, c.kv_heads, "0.attn.k_proj.output_grad")}) {
    const RopeShape<float> rope{batch * length, length, heads, dim, table.cosine.data(), table.sine.data()};
    step.backend->run(RopeBackward<float>{rope, grad->data(), grad->data()});
    INFO(name);
    CHECK(same_bits(step.seen.at(name), *grad));
  }
}

} // namespace

TEST_CASE("products inside attention are quantize and gemm composed by hand", "[model]") {
  struct Case {
    const char *recipe, *linear;
    std::vector<std::string> roles;
  };
  for (const Case &c : {Case{"nvfp4", "nvfp4", {"attn.qk", "attn.pv"}}, Case{"nvfp4", "nvfp4", {"attn.pv"}},
                        Case{"nvfp4-plain", "nvfp4", {"attn.qk"}}, Case{"mxfp4-sr-rht", "mxfp4", {"*"}},
                        Case{"mxfp8", "mxfp8", {"*"}}, Case{"bf16", "bf16", {"attn.*"}}}) {
    CAPTURE(c.recipe, c.roles);
    const Recipe recipe = with_mixer_rules(c.recipe, c.linear, c.roles);
    compare(recipe, 64, 2, 48);
    compare(recipe, 128, 1, 37); // keys and queries that fill no block
  }
  Recipe rest = with_mixer_rules("nvfp4", "nvfp4", {"attn.pv"});
  rest.mixers = FormatId::bf16; // the other operator in BF16
  compare(rest, 256, 1, 40);
}

TEST_CASE("FP32 products inside attention have the bits of its kernels", "[model]") {
  for (const char *family : {"qwen3", "qwen2.5", "llama"})
    for (const char *role : {"attn.qk", "*"}) {
      CAPTURE(family, role);
      Recipe by_product = load_recipe("nvfp4");
      by_product.linears["f32"] = load_recipe("fp32").linears.at("f32");
      by_product.mixer_rules.push_back({.roles = {role}, .use = "f32"});
      Step whole(small_model(family), load_recipe("nvfp4"), 2, 70),
          parts(small_model(family), by_product, 2, 70);
      int shown = 0;
      parts.model.observe_operators([&](const LinearObservation<float> &o) {
        shown += o.role == "attn.qk" ? 1 : 100;
        CHECK(o.rows == 70);
      });
      whole.run();
      parts.run();
      CHECK(parts.loss == whole.loss);
      CHECK(parts.digest() == whole.digest());
      CHECK(shown == 2 * 2 * 4 * 101); // layers, sequences, heads
    }
}

TEST_CASE("who looks at the operators changes no bit", "[model]") {
  Step plain(small_model("qwen3"), load_recipe("bf16"), 1, 40),
      watched(small_model("qwen3"), load_recipe("bf16"), 1, 40);
  int64_t shown = 0;
  watched.model.observe_operators([&](const LinearObservation<float> &) { ++shown; });
  plain.run();
  watched.run();
  CHECK(shown == 2 * 4 * 2);
  CHECK(watched.digest() == plain.digest());
}

TEST_CASE("products inside attention do not depend on threads or instruction set", "[model]") {
  for (const char *name : {"nvfp4", "mxfp8"}) {
    const Recipe recipe = with_mixer_rules(name, name, {"*"});
    uint64_t expected = 0;
    const auto digest = [&](int threads, std::optional<Isa> isa = {}) {
      Step step(small_model("qwen3"), recipe, 2, 33, threads, isa);
      step.run();
      return step.digest();
    };
    expected = digest(1);
    CHECK(digest(3) == expected);
    for (const Isa isa : kIsas)
      if (supported(isa)) CHECK(digest(2, isa) == expected);
  }
}

TEST_CASE("mixer rules choose blocks, and reach the loss", "[model]") {
  const auto loss = [](double first, double last, std::vector<std::string> roles) {
    Recipe r = load_recipe("bf16");
    r.linears["nvfp4"] = load_recipe("nvfp4-plain").linears.at("nvfp4");
    if (!roles.empty())
      r.mixer_rules.push_back({.roles = roles, .first = first, .last = last, .use = "nvfp4"});
    check_recipe(r, "test");
    Step step(small_model("llama"), r, 1, 32);
    step.run();
    return step.loss;
  };
  const float none = loss(0, 0, {}), qk = loss(0, 0, {"attn.qk"}), pv = loss(0, 0, {"attn.pv"}),
              first = loss(1, 0, {"attn.qk"}), last = loss(0, 1, {"attn.qk"});
  for (const float x : {qk, pv, first, last}) CHECK(x != none);
  CHECK(first != last);
  CHECK(qk != first);
  CHECK(qk != pv);
}

TEST_CASE("what is not finite between quantized products is noticed and named", "[model]") {
  // q k^T beyond FP32: the quantized P would make numbers of its NaN
  const ModelConfig c = small_model("llama");
  Step step(c, with_mixer_rules("bf16", "bf16", {"*"}), 1, 32);
  for (const char *name : {"q_proj", "k_proj"}) {
    const std::string weight = std::string("model.layers.1.self_attn.") + name + ".weight";
    for (int64_t i = 0; i < 64 * 48; ++i) step.model.parameters().value(weight)[i] *= 1e20f;
  }
  step.model.parameters_changed();
  std::string first;
  step.model.tracer = [&](const std::string &module, StepTensor what, const std::vector<int64_t> &shape,
                          const float *data) {
    int64_t n = 1;
    for (const int64_t s : shape) n *= s;
    if (first.empty() && !scan_finite({data, size_t(n)}).finite())
      first = module + " " + std::string(to_string(what));
  };
  step.model.forward(kStep);
  CHECK_FALSE(step.model.finite());
  CHECK(first == "model.layers.1.self_attn.qk output");
}

} // namespace nvfp4::test
