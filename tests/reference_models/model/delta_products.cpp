// SPDX-License-Identifier: Apache-2.0
// Recipes' mixer rules in Gated DeltaNet: chunks as composed by hand from quantize and gemm, FP32 products as
// the whole kernels, and the same bits on any thread and instruction set.
#include "nvfp4/reference_models/family/mixer_operators.hpp"
#include "tests/reference_models/model/products_support.hpp"

namespace nvfp4::test {
namespace {

ModelConfig delta_model() {
  ModelConfig c = small_model("gdn");
  c.kv_heads = c.heads;
  c.key_dim = 80; // 20 a head
  c.value_dim = 96;
  return c;
}

/// One head of one sequence, row-major: what the mixer gets, and what it must give.
struct Head {
  int64_t n, dk, dv; // tokens, key, value
  Floats q, k, v, g, beta, grad_o;
  Floats o, dq, dk_, dv_, dg, dbeta;
};

/// The delta rule of a head by hand; `key` is of (number, product, use, chunk).
template <class Key, class Linear> void by_hand(Head &h, const Linear &linear, const Key &key) {
  using enum Axis;
  const int64_t dk = h.dk, dv = h.dv, chunks = (h.n + 63) / 64;
  const float scale = 1.0f / numerics::sqrt(float(dk));
  const LinearRecipe qk = linear("attn.qk"), kk = linear("attn.kk"), av = linear("attn.av"),
                     read = linear("attn.state_read"), update = linear("attn.state_update"),
                     recall = linear("attn.state_recall");
  const auto fprop = [&](const LinearRecipe &l, int number, int64_t c, const Floats &x, int64_t m,
                         const Floats &w, int64_t out, const Floats &added = {}) {
    return product(l.fprop, x, m, row, key(number, 0, 0, c), w, out, row, key(number, 0, 1, c), added);
  };
  const auto dgrad = [&](const LinearRecipe &l, int number, int64_t c, const Floats &dy, int64_t m,
                         const Floats &w, int64_t out, const Floats &added = {}) {
    return product(l.dgrad, dy, m, row, key(number, 1, 0, c), w, out, col, key(number, 1, 1, c), added);
  };
  const auto wgrad = [&](const LinearRecipe &l, int number, int64_t c, const Floats &dy, const Floats &x,
                         int64_t m, const Floats &added) {
    return product(l.wgrad, dy, m, col, key(number, 2, 0, c), x, m, col, key(number, 2, 1, c), added);
  };
  struct Chunk {
    int64_t first, n;
    Floats q, k, beta, grad, d, reads, recalls, leaves, a, below, state, r,
        ut; // d (n, n + 1), leaves (dk, n)
  };
  std::vector<Chunk> all;
  Floats state = zeros(dk * dv);
  h.o.clear();
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    Chunk x{};
    x.first = chunk * 64;
    const int64_t n = x.n = std::min<int64_t>(64, h.n - x.first);
    x.q = rows_of(h.q, x.first, n, dk);
    x.k = rows_of(h.k, x.first, n, dk);
    x.beta = rows_of(h.beta, x.first, n, 1);
    x.grad = rows_of(h.grad_o, x.first, n, dv);
    x.d = decays_by_hand(rows_of(h.g, x.first, n, 1), n);
    const auto d = [&](int64_t i, int64_t j) { return x.d[size_t(i * (n + 1) + j)]; };
    x.leaves = zeros(n * dk);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t e = 0; e < dk; ++e) {
        x.reads.push_back((x.q[size_t(i * dk + e)] * d(i, 0)) * scale);
        x.recalls.push_back(-(x.k[size_t(i * dk + e)] * d(i, 0)));
        x.leaves[size_t(e * n + i)] = x.k[size_t(i * dk + e)] * d(n - 1, i + 1);
      }
    const Floats scores = fprop(qk, 0, chunk, x.q, n, x.k, n), keys = fprop(kk, 5, chunk, x.k, n, x.k, n);
    x.a = zeros(n * n);
    x.below = zeros(n * n);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j <= i; ++j) {
        const auto at = size_t(i * n + j);
        x.a[at] = (scores[at] * d(i, j + 1)) * scale;
        if (j < i) x.below[at] = -(keys[at] * d(i, j + 1));
      }
    x.state = state;
    const Floats st = transposed(state, dk);
    x.r = fprop(recall, 6, chunk, x.recalls, n, st, dv, rows_of(h.v, x.first, n, dv));
    // each r in turn: its sum runs over whole blocks of 16 before it, then over its own
    for (int64_t i = 0; i < n; ++i)
      for (int64_t e = 0; e < dv; ++e) {
        float &to = x.r[size_t(i * dv + e)];
        for (int64_t j = 0; j < i; ++j)
          to = std::fma(x.below[size_t(i * n + j)] * x.beta[size_t(j)], x.r[size_t(j * dv + e)], to);
      }
    x.ut = zeros(n * dv);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t e = 0; e < dv; ++e) x.ut[size_t(e * n + i)] = x.r[size_t(i * dv + e)] * x.beta[size_t(i)];
    Floats out = fprop(read, 3, chunk, x.reads, n, st, dv);
    out = fprop(av, 2, chunk, x.a, n, x.ut, dv, out);
    h.o.insert(h.o.end(), out.begin(), out.end());
    if (chunk + 1 < chunks) {
      for (float &s : state) s = d(n - 1, 0) * s;
      state = fprop(update, 4, chunk, x.leaves, dk, x.ut, dv, state);
    }
    all.push_back(x);
  }
  Floats dst = zeros(dv * dk); // the state's gradient, transposed
  h.dq = h.dk_ = zeros(h.n * dk);
  h.dv_ = zeros(h.n * dv);
  h.dg = h.dbeta = zeros(h.n);
  for (int64_t chunk = chunks - 1; chunk >= 0; --chunk) {
    const Chunk &x = all[size_t(chunk)];
    const int64_t n = x.n;
    const auto d = [&](int64_t i, int64_t j) { return x.d[size_t(i * (n + 1) + j)]; };
    const Floats ds = transposed(dst, dv), st = transposed(x.state, dk);
    Floats du = wgrad(update, 4, chunk, ds, x.leaves, dk, zeros(dv * n));
    du = transposed(wgrad(av, 2, chunk, x.grad, x.a, n, du), dv);
    // last row first; a row's sum runs over whole blocks of 16 after it, then over its own
    for (int64_t j = n - 1; j >= 0; --j)
      for (int64_t e = 0; e < dv; ++e) {
        float &to = du[size_t(j * dv + e)];
        const int64_t end = std::min(n, (j / 16 + 1) * 16);
        const auto add = [&](int64_t from, int64_t past) {
          for (int64_t i = from; i < past; ++i)
            to = std::fma(x.below[size_t(i * n + j)] * x.beta[size_t(i)], du[size_t(i * dv + e)], to);
        };
        add(end, n);
        add(j + 1, end);
      }
    Floats dr(du.size());
    for (int64_t i = 0; i < n; ++i) {
      Floats terms;
      for (int64_t e = 0; e < dv; ++e) {
        const auto at = size_t(i * dv + e);
        dr[at] = du[at] * x.beta[size_t(i)];
        terms.push_back(du[at] * x.r[at]);
      }
      h.dbeta[size_t(x.first + i)] = warp_sum(terms);
    }
    std::copy(dr.begin(), dr.end(), h.dv_.begin() + x.first * dv);
    Floats da = dgrad(av, 2, chunk, x.grad, n, x.ut, dv);
    const Floats dleaves = dgrad(update, 4, chunk, ds, dk, x.ut, dv);
    Floats gq = dgrad(read, 3, chunk, x.grad, n, st, dv), grecall = dgrad(recall, 6, chunk, dr, n, st, dv),
           gk = transposed(dleaves, dk), dbelow = zeros(n * n);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j)
        for (int64_t e = 0; e < dv; ++e)
          dbelow[size_t(i * n + j)] =
              std::fma(dr[size_t(i * dv + e)], x.ut[size_t(e * n + j)], dbelow[size_t(i * n + j)]);
    // what passes the gates: pairs, the state, and what tokens read of it and leave in it
    Floats pairs = zeros(n * n), whole_terms;
    for (size_t at = 0; at < pairs.size(); ++at) pairs[at] = dbelow[at] * x.below[at] + da[at] * x.a[at];
    const Floats passed = passed_by_hand(pairs, n);
    for (int64_t e = 0; e < dk; ++e) {
      Floats terms;
      for (int64_t c = 0; c < dv; ++c) terms.push_back(x.state[size_t(e * dv + c)] * ds[size_t(e * dv + c)]);
      whole_terms.push_back(warp_sum(terms));
    }
    const float whole = warp_sum(whole_terms) * d(n - 1, 0);
    Floats reading, leaving;
    for (int64_t i = 0; i < n; ++i) {
      Floats of_reads, of_leaves;
      for (int64_t e = 0; e < dk; ++e) {
        const auto at = size_t(i * dk + e);
        gq[at] = (gq[at] * d(i, 0)) * scale;
        grecall[at] = -(grecall[at] * d(i, 0));
        gk[at] = gk[at] * d(n - 1, i + 1);
        of_reads.push_back(x.q[at] * gq[at] + x.k[at] * grecall[at]);
        of_leaves.push_back(x.k[at] * gk[at]);
      }
      reading.push_back(warp_sum(of_reads));
      leaving.push_back(warp_sum(of_leaves));
    }
    for (int64_t gate = 0; gate < n; ++gate) {
      float sum = whole;
      for (int64_t i = gate; i < n; ++i) sum = sum + reading[size_t(i)];
      for (int64_t j = 0; j < gate; ++j) sum = sum + leaving[size_t(j)];
      h.dg[size_t(x.first + gate)] = sum + passed[size_t(gate)];
    }
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; ++j) {
        const auto at = size_t(i * n + j);
        dbelow[at] = j < i ? -(dbelow[at] * d(i, j + 1)) : 0.0f;
        da[at] = j <= i ? (da[at] * d(i, j + 1)) * scale : 0.0f;
      }
    gq = dgrad(qk, 0, chunk, da, n, x.k, n, gq);
    grecall = dgrad(kk, 5, chunk, dbelow, n, x.k, n, grecall);
    gk = wgrad(qk, 0, chunk, da, x.q, n, gk);
    gk = wgrad(kk, 5, chunk, dbelow, x.k, n, gk);
    for (size_t i = 0; i < gk.size(); ++i) gk[i] = gk[i] + grecall[i];
    std::copy(gq.begin(), gq.end(), h.dq.begin() + x.first * dk);
    std::copy(gk.begin(), gk.end(), h.dk_.begin() + x.first * dk);
    if (chunk == 0) break;
    for (float &s : dst) s = d(n - 1, 0) * s;
    dst = wgrad(read, 3, chunk, x.grad, x.reads, n, dst);
    dst = wgrad(recall, 6, chunk, dr, x.recalls, n, dst);
  }
}

/// Gated DeltaNet of block 0 by hand, against the model's o and the gradients of q, k, v and the gates. The
/// gradients before normalisation and convolutions are what the tests of those kernels are about: here the
/// model runs them on the hand's.
void compare(const Recipe &recipe, int64_t batch, int64_t length) {
  const ModelConfig c = delta_model();
  Step step(c, recipe, batch, length);
  step.run();
  const Recipe bound = recipe.for_family("gdn");
  const int64_t dk = c.key_head(), dv = c.value_head(), chunks = (length + 63) / 64;
  const std::string path = "model.layers.0.attn.";
  Floats o(step.seen.at(path + "delta").size()), dq(size_t(batch * length * c.key_dim)), dkey(dq.size()),
      dvalue(o.size()), dg(size_t(batch * length * c.heads)), dbeta(dg.size());
  for (int64_t s = 0; s < batch; ++s)
    for (int64_t h = 0; h < c.heads; ++h) {
      const auto of_head = [&](const std::string &name, int64_t width) {
        return head_of(step.seen.at(name), s, length, c.heads, h, width);
      };
      Head head{length,
                dk,
                dv,
                of_head(path + "q_norm", dk),
                of_head(path + "k_norm", dk),
                of_head(path + "v_conv1d", dv),
                of_head(path + "gate", 1),
                of_head(path + "beta", 1),
                of_head(path + "delta.output_grad", dv),
                {},
                {},
                {},
                {},
                {},
                {}};
      by_hand(
          head, [&](const char *role) { return bound.resolve(role, 0, c.layers); },
          [&](int number, int product, int use, int64_t chunk) {
            return operator_key_by_hand(number, product, use, ((s * c.heads + h) * chunks + chunk) * 4);
          });
      const auto put = [&](const Floats &from, int64_t width, Floats &to) {
        for (int64_t t = 0; t < length; ++t)
          for (int64_t e = 0; e < width; ++e)
            to[size_t(((s * length + t) * c.heads + h) * width + e)] = from[size_t(t * width + e)];
      };
      put(head.o, dv, o);
      put(head.dq, dk, dq);
      put(head.dk_, dk, dkey);
      put(head.dv_, dv, dvalue);
      put(head.dg, 1, dg);
      put(head.dbeta, 1, dbeta);
    }
  CHECK(same_bits(step.seen.at(path + "delta"), o));
  Model<float> &model = step.model;
  const int64_t rows = batch * length;
  const auto value = [&](const char *name) { return model.parameters().value(path + name); };
  Backend<float> &backend = *step.backend;
  const auto before_norm = [&](const char *name, const Floats &grad, int64_t width, bool normalised) {
    // the convolution's output and its norm again, then both backward
    const Floats &x = step.seen.at(path + name + "_proj");
    Floats dx(x.size()), through = grad, dw(size_t(width * kTaps));
    const float *const weight = value((std::string(name) + "_conv1d.weight").c_str());
    if (normalised) {
      Floats y(x.size()), unit(x.size()), rstd(size_t(rows * c.heads));
      backend.run(ConvolutionForward<float>{rows, length, width, x.data(), weight, y.data()});
      backend.run(
          L2NormForward<float>{rows * c.heads, width / c.heads, 1e-6f, y.data(), unit.data(), rstd.data()});
      backend.run(L2NormBackward<float>{rows * c.heads, width / c.heads, through.data(), unit.data(),
                                        rstd.data(), through.data()});
    }
    Floats work(x.size());
    ConvolutionBackward<float>{rows,   length,    width,     through.data(), x.data(),
                               weight, dx.data(), dw.data(), work.data()}
        .run_on(backend);
    return dx;
  };
  CHECK(same_bits(step.seen.at("0.attn.v_proj.output_grad"), before_norm("v", dvalue, c.value_dim, false)));
  CHECK(same_bits(step.seen.at("0.attn.q_proj.output_grad"), before_norm("q", dq, c.key_dim, true)));
  CHECK(same_bits(step.seen.at("0.attn.k_proj.output_grad"), before_norm("k", dkey, c.key_dim, true)));
  Floats da(dg.size()), db(dg.size()), terms(dg.size());
  backend.run(DeltaGateBackward<float>{rows, c.heads, dg.data(), dbeta.data(),
                                       step.seen.at(path + "gate").data(), step.seen.at(path + "beta").data(),
                                       gate_input(step, path, step.seen.at(path + "a_proj")).data(),
                                       value("A_log"), value("dt_bias"), da.data(), db.data(), terms.data()});
  CHECK(same_bits(step.seen.at("0.attn.a_proj.output_grad"), da));
  CHECK(same_bits(step.seen.at("0.attn.b_proj.output_grad"), db));
}

} // namespace

TEST_CASE("products inside Gated DeltaNet are quantize and gemm composed by hand", "[model]") {
  struct Case {
    const char *recipe, *linear;
    std::vector<std::string> roles;
  };
  for (const Case &c :
       {Case{"nvfp4", "nvfp4", {"*"}}, Case{"nvfp4-plain", "nvfp4", {"attn.state_*"}},
        Case{"mxfp4-sr-rht", "mxfp4", {"attn.kk", "attn.av"}}, Case{"mxfp8", "mxfp8", {"attn.state_recall"}},
        Case{"nvfp4", "nvfp4", {"attn.qk", "attn.state_update"}}, Case{"bf16", "bf16", {"*"}}}) {
    CAPTURE(c.recipe, c.roles);
    compare(with_mixer_rules(c.recipe, c.linear, c.roles), 2, 150); // two chunks, and one of 22 tokens
  }
  Recipe rest = with_mixer_rules("nvfp4", "nvfp4", {"attn.kk", "attn.qk"});
  for (auto &[name, linear] : rest.linears) linear.wgrad.output = FormatId::bf16;
  compare(rest, 1, 80);
  compare(load_recipe("nvfp4+mixer_rules=nvfp4+gate_inputs=nvfp4"), 1, 80);
}

TEST_CASE("FP32 products inside Gated DeltaNet have the bits of its kernels", "[model]") {
  check_fp32_products(delta_model(),
                      [](const std::string &, int64_t length) { return 4 * ((length + 63) / 64); });
}

TEST_CASE("products inside Gated DeltaNet do not depend on threads or instruction set", "[model]") {
  check_same_everywhere(delta_model());
}

TEST_CASE("gradients through products inside mixers approach the exact ones as formats widen", "[model]") {
  for (const char *family : {"gdn", "gla", "gsa", "mamba2"}) {
    CAPTURE(family);
    ModelConfig config = small_model(family);
    config.kv_heads = config.heads;
    config.init_std = 0.05; // with large weights the model itself magnifies every error
    const auto gradients = [&](const Recipe &recipe) {
      Step step(config, recipe, 1, 90);
      step.run();
      const float *const g = step.model.parameters().gradients();
      return Floats(g, g + step.model.parameters().total());
    };
    // linear layers in FP32, so that only the mixer differs
    const auto inside = [](const char *from, const char *linear) {
      Recipe r = load_recipe("fp32");
      const Recipe other = load_recipe(from);
      r.units = other.units;
      r.linears["inside"] = other.linears.at(linear);
      r.mixer_rules.push_back({.roles = {"*"}, .use = "inside"});
      check_recipe(r, "test");
      return r;
    };
    const Floats exact = gradients(load_recipe("fp32"));
    const auto error = [&](const Floats &g) {
      double sum = 0, norm = 0;
      for (size_t i = 0; i < g.size(); ++i) {
        sum += (double(g[i]) - double(exact[i])) * (double(g[i]) - double(exact[i]));
        norm += double(exact[i]) * double(exact[i]);
      }
      return std::sqrt(sum / norm);
    };
    const double bf16 = error(gradients(inside("bf16", "bf16"))),
                 mxfp8 = error(gradients(inside("mxfp8", "mxfp8"))),
                 nvfp4 = error(gradients(inside("nvfp4-plain", "nvfp4")));
    CAPTURE(bf16, mxfp8, nvfp4);
    CHECK(bf16 > 0);
    CHECK(bf16 < 0.04);
    CHECK(mxfp8 > 2 * bf16);
    CHECK(mxfp8 < 0.25);
    CHECK(nvfp4 > 2 * mxfp8);
    CHECK(nvfp4 < 1.5);
  }
}

} // namespace nvfp4::test
