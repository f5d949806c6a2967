// SPDX-License-Identifier: Apache-2.0
// Recipes' mixer rules in gated linear attention: chunks and sub-chunks as composed by hand from quantize and
// gemm, FP32 products as the whole kernels, and the same bits on any thread and instruction set.
#include "tests/reference_models/model/products_support.hpp"

namespace nvfp4::test {
namespace {

ModelConfig gla_model() {
  ModelConfig c = small_model("gla");
  c.kv_heads = c.heads;
  c.key_dim = 80; // 20 a head
  c.value_dim = 96;
  return c;
}

/// GLA of block 0 by hand, against the model's o and the gradients that q_proj, k_proj and v_proj got.
void compare(const Recipe &recipe, int64_t batch, int64_t length) {
  using enum Axis;
  const ModelConfig c = gla_model();
  Step step(c, recipe, batch, length);
  step.run();
  const Recipe bound = recipe.for_family("gla");
  const auto linear = [&](const char *role) { return bound.resolve(role, 0, c.layers); };
  const LinearRecipe qk = linear("attn.qk"), av = linear("attn.av"), read = linear("attn.state_read"),
                     update = linear("attn.state_update");
  const int64_t dk = c.key_head(), dv = c.value_head(), chunks = (length + 63) / 64;
  const float scale = 1.0f / numerics::sqrt(float(dk));
  const std::string path = "model.layers.0.attn.";
  const auto exp = [](float x) { return numerics::exp(x); };
  Floats o(step.seen.at(path + "gla").size()), dq(size_t(batch * length * c.key_dim)), dkey(dq.size()),
      dvalue(o.size());
  for (int64_t s = 0; s < batch; ++s)
    for (int64_t h = 0; h < c.heads; ++h) {
      const auto of_head = [&](const std::string &name, int64_t width) {
        return head_of(step.seen.at(name), s, length, c.heads, h, width);
      };
      const Floats qs = of_head(path + "q_proj", dk), ks = of_head(path + "k_proj", dk),
                   gs = of_head(path + "gate", dk), vs = of_head(path + "v_proj", dv),
                   dos = of_head(path + "gla.output_grad", dv);
      struct Chunk {
        int64_t first, n;
        Floats q, k, v, grad, b, reads, leaves, state, a; // leaves (dk, n)
        std::vector<Floats> decayed_keys;                 // by sub-chunk
      };
      const auto key = [&](int number, int product, int use, int64_t chunk, int64_t sub) {
        const auto stream = uint64_t(((s * c.heads + h) * chunks + chunk) * 4 + sub);
        return RandomKey{splitmix64(kStep.seed) + ((1 + stream) << 40) + 16 * uint64_t(number) +
                             4 * uint64_t(product) + uint64_t(use),
                         (uint64_t(kStep.step) << 24) + uint64_t(kStep.micro_batch)};
      };
      const auto rows_of = [](const Floats &x, int64_t first, int64_t n, int64_t width) {
        return Floats(x.begin() + first * width, x.begin() + (first + n) * width);
      };
      std::vector<Chunk> all;
      Floats state(size_t(dk * dv), 0.0f);
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        Chunk x{chunk * 64, std::min<int64_t>(64, length - chunk * 64), {}, {}, {}, {}, {}, {}, {}, {}, {},
                {}};
        const int64_t n = x.n;
        x.q = rows_of(qs, x.first, n, dk);
        x.k = rows_of(ks, x.first, n, dk);
        x.v = rows_of(vs, x.first, n, dv);
        x.grad = rows_of(dos, x.first, n, dv);
        x.b = rows_of(gs, x.first, n, dk);
        for (int64_t i = 1; i < n; ++i)
          for (int64_t d = 0; d < dk; ++d)
            x.b[size_t(i * dk + d)] = x.b[size_t((i - 1) * dk + d)] + x.b[size_t(i * dk + d)];
        const auto b = [&](int64_t i, int64_t d) { return x.b[size_t(i * dk + d)]; };
        x.state = state;
        x.leaves.resize(size_t(n * dk));
        for (int64_t i = 0; i < n; ++i)
          for (int64_t d = 0; d < dk; ++d) {
            x.reads.push_back((x.q[size_t(i * dk + d)] * exp(b(i, d))) * scale);
            x.leaves[size_t(d * n + i)] = x.k[size_t(i * dk + d)] * exp(b(n - 1, d) - b(i, d));
          }
        Floats out = product(read.fprop, x.reads, n, row, key(3, 0, 0, chunk, 0), transposed(state, dk), dv,
                             row, key(3, 0, 1, chunk, 0));
        x.a.assign(size_t(n * n), 0.0f);
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = i / 16 * 16; j <= i; ++j) {
            float acc = 0;
            for (int64_t d = 0; d < dk; ++d)
              acc = std::fma(x.q[size_t(i * dk + d)] * exp(b(i, d) - b(j, d)), x.k[size_t(j * dk + d)], acc);
            x.a[size_t(i * n + j)] = acc * scale;
          }
        for (int64_t sub = 16; sub < n; sub += 16) {
          const int64_t m = std::min<int64_t>(16, n - sub);
          Floats queries, keys;
          for (int64_t i = 0; i < m; ++i)
            for (int64_t d = 0; d < dk; ++d)
              queries.push_back((x.q[size_t((sub + i) * dk + d)] * exp(b(sub + i, d) - b(sub - 1, d))) *
                                scale);
          for (int64_t j = 0; j < sub; ++j)
            for (int64_t d = 0; d < dk; ++d)
              keys.push_back(x.k[size_t(j * dk + d)] * exp(b(sub - 1, d) - b(j, d)));
          const Floats block = product(qk.fprop, queries, m, row, key(0, 0, 0, chunk, sub / 16), keys, sub,
                                       row, key(0, 0, 1, chunk, sub / 16));
          for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < sub; ++j) x.a[size_t((sub + i) * n + j)] = block[size_t(i * sub + j)];
          x.decayed_keys.push_back(keys);
        }
        const Floats vt = transposed(x.v, n);
        out =
            product(av.fprop, x.a, n, row, key(2, 0, 0, chunk, 0), vt, dv, row, key(2, 0, 1, chunk, 0), out);
        for (int64_t i = 0; i < n; ++i)
          for (int64_t e = 0; e < dv; ++e)
            o[size_t(((s * length + x.first + i) * c.heads + h) * dv + e)] = out[size_t(i * dv + e)];
        Floats next(state.size());
        for (int64_t d = 0; d < dk; ++d)
          for (int64_t e = 0; e < dv; ++e)
            next[size_t(d * dv + e)] = exp(b(n - 1, d)) * state[size_t(d * dv + e)];
        if (chunk + 1 < chunks)
          state = product(update.fprop, x.leaves, dk, row, key(4, 0, 0, chunk, 0), vt, dv, row,
                          key(4, 0, 1, chunk, 0), next);
        all.push_back(x);
      }
      Floats dst(size_t(dv * dk), 0.0f); // the state's gradient, transposed
      for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
        const Chunk &x = all[size_t(chunk)];
        const int64_t n = x.n;
        const auto b = [&](int64_t i, int64_t d) { return x.b[size_t(i * dk + d)]; };
        const Floats ds = transposed(dst, dv), vt = transposed(x.v, n), st = transposed(x.state, dk);
        Floats dvt(size_t(dv * n), 0.0f);
        dvt = product(update.wgrad, ds, dk, col, key(4, 2, 0, chunk, 0), x.leaves, dk, col,
                      key(4, 2, 1, chunk, 0), dvt);
        dvt = product(av.wgrad, x.grad, n, col, key(2, 2, 0, chunk, 0), x.a, n, col, key(2, 2, 1, chunk, 0),
                      dvt);
        const Floats dreads = product(read.dgrad, x.grad, n, row, key(3, 1, 0, chunk, 0), st, dv, col,
                                      key(3, 1, 1, chunk, 0)),
                     dleaves = product(update.dgrad, ds, dk, row, key(4, 1, 0, chunk, 0), vt, dv, col,
                                       key(4, 1, 1, chunk, 0)),
                     da = product(av.dgrad, x.grad, n, row, key(2, 1, 0, chunk, 0), vt, dv, col,
                                  key(2, 1, 1, chunk, 0));
        Floats gq(size_t(n * dk)), gk(size_t(n * dk));
        for (int64_t i = 0; i < n; ++i)
          for (int64_t d = 0; d < dk; ++d) {
            const auto at = size_t(i * dk + d);
            gq[at] = (dreads[at] * exp(b(i, d))) * scale;
            float acc = 0;
            for (int64_t t = i; t < std::min(n, (i / 16 + 1) * 16); ++t)
              acc = std::fma(da[size_t(t * n + i)] * exp(b(t, d) - b(i, d)), x.q[size_t(t * dk + d)], acc);
            gk[at] = dleaves[size_t(d * n + i)] * exp(b(n - 1, d) - b(i, d)) + acc * scale;
          }
        for (int64_t sub = 16; sub < n; sub += 16) {
          const int64_t m = std::min<int64_t>(16, n - sub);
          Floats block, queries;
          for (int64_t i = 0; i < m; ++i) {
            for (int64_t j = 0; j < sub; ++j) block.push_back(da[size_t((sub + i) * n + j)]);
            for (int64_t d = 0; d < dk; ++d)
              queries.push_back(x.q[size_t((sub + i) * dk + d)] * exp(b(sub + i, d) - b(sub - 1, d)));
          }
          const Floats &keys = x.decayed_keys[size_t(sub / 16 - 1)];
          const Floats dqueries = product(qk.dgrad, block, m, row, key(0, 1, 0, chunk, sub / 16), keys, sub,
                                          col, key(0, 1, 1, chunk, sub / 16)),
                       dkeys = product(qk.wgrad, block, m, col, key(0, 2, 0, chunk, sub / 16), queries, m,
                                       col, key(0, 2, 1, chunk, sub / 16), Floats(size_t(sub * dk), 0.0f));
          for (int64_t i = 0; i < m; ++i)
            for (int64_t d = 0; d < dk; ++d) {
              float &to = gq[size_t((sub + i) * dk + d)];
              to = to + (dqueries[size_t(i * dk + d)] * exp(b(sub + i, d) - b(sub - 1, d))) * scale;
            }
          for (int64_t j = 0; j < sub; ++j)
            for (int64_t d = 0; d < dk; ++d) {
              float &to = gk[size_t(j * dk + d)];
              to = to + (dkeys[size_t(j * dk + d)] * exp(b(sub - 1, d) - b(j, d))) * scale;
            }
        }
        for (int64_t i = 0; i < n; ++i)
          for (int64_t d = 0; d < dk; ++d) {
            float acc = 0;
            for (int64_t j = i / 16 * 16; j <= i; ++j)
              acc = std::fma(da[size_t(i * n + j)] * exp(b(i, d) - b(j, d)), x.k[size_t(j * dk + d)], acc);
            const auto to = size_t(((s * length + x.first + i) * c.heads + h) * dk + d);
            dq[to] = gq[size_t(i * dk + d)] + acc * scale;
            dkey[to] = gk[size_t(i * dk + d)];
          }
        for (int64_t i = 0; i < n; ++i)
          for (int64_t e = 0; e < dv; ++e)
            dvalue[size_t(((s * length + x.first + i) * c.heads + h) * dv + e)] = dvt[size_t(e * n + i)];
        if (chunk == 0) break;
        for (int64_t e = 0; e < dv; ++e)
          for (int64_t d = 0; d < dk; ++d)
            dst[size_t(e * dk + d)] = exp(b(n - 1, d)) * dst[size_t(e * dk + d)];
        dst = product(read.wgrad, x.grad, n, col, key(3, 2, 0, chunk, 0), x.reads, n, col,
                      key(3, 2, 1, chunk, 0), dst);
      }
    }
  CHECK(same_bits(step.seen.at(path + "gla"), o));
  CHECK(same_bits(step.seen.at("0.attn.v_proj.output_grad"), dvalue));
  CHECK(same_bits(step.seen.at("0.attn.q_proj.output_grad"), dq));
  CHECK(same_bits(step.seen.at("0.attn.k_proj.output_grad"), dkey));
}

} // namespace

TEST_CASE("products inside GLA are quantize and gemm composed by hand", "[model]") {
  struct Case {
    const char *recipe, *linear;
    std::vector<std::string> roles;
  };
  for (const Case &c : {Case{"nvfp4", "nvfp4", {"*"}}, Case{"nvfp4-plain", "nvfp4", {"attn.state_*"}},
                        Case{"mxfp4-sr-rht", "mxfp4", {"attn.qk", "attn.av"}},
                        Case{"mxfp8", "mxfp8", {"attn.state_update"}}, Case{"bf16", "bf16", {"*"}}}) {
    CAPTURE(c.recipe, c.roles);
    compare(with_mixer_rules(c.recipe, c.linear, c.roles), 2, 150); // two chunks, and one of 22 tokens
  }
  Recipe rest = with_mixer_rules("nvfp4", "nvfp4", {"attn.av"});
  for (auto &[name, linear] : rest.linears) linear.wgrad.output = FormatId::bf16;
  compare(rest, 1, 80);
}

TEST_CASE("FP32 products inside GLA have the bits of its kernels", "[model]") {
  for (const int64_t length : {9, 64, 70, 150})
    for (const char *role : {"attn.av", "*"}) {
      CAPTURE(length, role);
      Recipe by_product = load_recipe("nvfp4");
      by_product.linears["f32"] = load_recipe("fp32").linears.at("f32");
      by_product.mixer_rules.push_back({.roles = {role}, .use = "f32"});
      Step whole(gla_model(), load_recipe("nvfp4"), 2, length), parts(gla_model(), by_product, 2, length);
      whole.run();
      parts.run();
      CHECK(parts.loss == whole.loss);
      CHECK(parts.digest() == whole.digest());
      Step watched(gla_model(), load_recipe("nvfp4"), 2, length); // who looks changes no bit
      std::map<std::string, int64_t> shown;
      watched.model.observe_operators(
          [&](const LinearObservation<float> &o) { ++shown[std::string(o.role)]; });
      watched.run();
      CHECK(watched.digest() == whole.digest());
      const int64_t chunks = (length + 63) / 64, heads = 2 * 2 * 4; // of all layers and sequences
      CHECK(shown["attn.av"] == heads * chunks);
      CHECK(shown["attn.state_update"] == heads * chunks);
      CHECK(shown["attn.qk"] == heads * ((length + 15) / 16 - chunks));
    }
}

TEST_CASE("products inside GLA do not depend on threads or instruction set", "[model]") {
  const Recipe recipe = with_mixer_rules("nvfp4", "nvfp4", {"*"});
  uint64_t expected = 0;
  const auto digest = [&](int threads, std::optional<Isa> isa = {}) {
    Step step(gla_model(), recipe, 1, 90, threads, isa);
    step.run();
    return step.digest();
  };
  expected = digest(1);
  CHECK(digest(3) == expected);
  for (const Isa isa : kIsas)
    if (supported(isa)) CHECK(digest(2, isa) == expected);
}

} // namespace nvfp4::test
