// SPDX-License-Identifier: Apache-2.0
// Recipes' mixer rules in gated slot attention: chunks as composed by hand from quantize and gemm, FP32
// products as the whole kernels, and the same bits on any thread and instruction set.
#include "nvfp4/reference_models/family/mixer_operators.hpp"
#include "tests/reference_models/model/products_support.hpp"

namespace nvfp4::test {
namespace {

ModelConfig slot_model() {
  ModelConfig c = small_model("gsa");
  c.kv_heads = c.heads;
  c.key_dim = 80; // 20 a head
  c.value_dim = c.hidden = 88;
  c.slots = 18;
  return c;
}

/// (n, M) tensors of a chunk of a head, M slots.
struct Chunk {
  int64_t first, n, slots;
  Floats b, s, products, leaves; // products (n, n), leaves (M, n)
  Floats of_state, of_tokens;    // what the first pass' products gave, by token
  Floats key_state, value_state; // before the chunk, (M, K), (M, V)
  Floats p, a;                   // a (n, n)

  [[nodiscard]] float decay(int64_t i, int64_t from, int64_t d) const { // of slot d, from before token `from`
    const float before = from > 0 ? b[size_t((from - 1) * slots + d)] : 0.0f;
    return numerics::exp(b[size_t(i * slots + d)] - before);
  }
  [[nodiscard]] float decay_to(int64_t end, int64_t j, int64_t d) const { // from after j to before `end`
    return numerics::exp(b[size_t((end - 1) * slots + d)] - b[size_t(j * slots + d)]);
  }
  [[nodiscard]] float pair(int64_t i, int64_t j, int64_t d) const {
    return numerics::exp(b[size_t(i * slots + d)] - b[size_t(j * slots + d)]);
  }
  /// What tokens before `end` write, decayed to it (end, M).
  [[nodiscard]] Floats writes(int64_t end) const {
    Floats out;
    for (int64_t j = 0; j < end; ++j)
      for (int64_t d = 0; d < slots; ++d) out.push_back(s[size_t(j * slots + d)] * decay_to(end, j, d));
    return out;
  }
  /// Rows `from` to `end` - 1 of x (n, M), decayed from before `from`.
  [[nodiscard]] Floats reads(const Floats &x, int64_t from, int64_t end) const {
    Floats out;
    for (int64_t i = from; i < end; ++i)
      for (int64_t d = 0; d < slots; ++d) out.push_back(x[size_t(i * slots + d)] * decay(i, from, d));
    return out;
  }
};

/// One pass' gates' gradients of a chunk: q reads, s writes, da are gradients of their pairs.
struct GateSums {
  const Chunk &x;
  const Floats &q;
  Floats dg;

  GateSums(const Chunk &chunk, const Floats &queries, const Floats &state, const Floats &ds)
      : x(chunk), q(queries), dg(zeros(x.n * x.slots)) {
    const int64_t width = int64_t(state.size()) / x.slots;
    for (int64_t d = 0; d < x.slots; ++d) {
      Floats terms;
      for (int64_t e = 0; e < width; ++e)
        terms.push_back(state[size_t(d * width + e)] * ds[size_t(d * width + e)]);
      const float whole = warp_sum(terms) * x.decay(x.n - 1, 0, d);
      for (int64_t i = 0; i < x.n; ++i) dg[size_t(i * x.slots + d)] = whole;
    }
  }
  /// values (tokens from `begin`, M) as a product made them
  void reads(int64_t begin, int64_t end, const Floats &values) {
    for (int64_t d = 0; d < x.slots; ++d) {
      float sum = 0;
      for (int64_t i = end - 1; i >= begin; --i) {
        const auto at = size_t(i * x.slots + d);
        sum = sum + q[at] * (values[size_t((i - begin) * x.slots + d)] * x.decay(i, begin, d));
        dg[at] = dg[at] + sum;
      }
    }
  }
  /// values (end, M)
  void leaves(int64_t end, const Floats &values) {
    for (int64_t d = 0; d < x.slots; ++d) {
      float sum = 0;
      for (int64_t t = 1; t < end; ++t) {
        const auto at = size_t((t - 1) * x.slots + d);
        sum = sum + x.s[at] * (values[at] * x.decay_to(end, t - 1, d));
        dg[at + size_t(x.slots)] = dg[at + size_t(x.slots)] + sum;
      }
    }
  }
  void pairs(const Floats &da) {
    for (int64_t t = 0; t < x.n; ++t)
      for (int64_t d = 0; d < x.slots; ++d) {
        const int64_t begin = t / 16 * 16, end = std::min(begin + 16, x.n);
        float acc = 0;
        for (int64_t i = t; i < end; ++i)
          for (int64_t j = begin; j < t; ++j)
            acc = std::fma((da[size_t(i * x.n + j)] * q[size_t(i * x.slots + d)]) * x.pair(i, j, d),
                           x.s[size_t(j * x.slots + d)], acc);
        dg[size_t(t * x.slots + d)] = dg[size_t(t * x.slots + d)] + acc;
      }
  }
};

/// One head of one sequence, row-major: what the mixer gets, and what it must give.
struct Head {
  int64_t n, slots, key, value;
  Floats q, k, v, g, s, grad_o;
  Floats p, o, dq, dk, dv, dg_1, dg_2, ds_1, ds_2;
};

/// Scores (n, n) of each sub-chunk of q with itself, 0 elsewhere.
Floats own_scores(const Chunk &x, const Floats &q) {
  Floats a = zeros(x.n * x.n);
  for (int64_t i = 0; i < x.n; ++i)
    for (int64_t j = i / 16 * 16; j <= i; ++j)
      for (int64_t d = 0; d < x.slots; ++d)
        a[size_t(i * x.n + j)] = std::fma(q[size_t(i * x.slots + d)] * x.pair(i, j, d),
                                          x.s[size_t(j * x.slots + d)], a[size_t(i * x.n + j)]);
  return a;
}
/// to (n, M) += what queries have of keys of their own sub-chunk, or keys of queries.
void add_own(const Chunk &x, const Floats &da, const Floats &other, bool of_queries, Floats &to) {
  for (int64_t i = 0; i < x.n; ++i)
    for (int64_t d = 0; d < x.slots; ++d) {
      const int64_t begin = of_queries ? i / 16 * 16 : i,
                    end = of_queries ? i + 1 : std::min(x.n, (i / 16 + 1) * 16);
      float acc = 0;
      for (int64_t t = begin; t < end; ++t)
        acc = of_queries
                  ? std::fma(da[size_t(i * x.n + t)] * x.pair(i, t, d), other[size_t(t * x.slots + d)], acc)
                  : std::fma(da[size_t(t * x.n + i)] * x.pair(t, i, d), other[size_t(t * x.slots + d)], acc);
      to[size_t(i * x.slots + d)] = to[size_t(i * x.slots + d)] + acc;
    }
}
/// Rows `from` to `end` - 1, columns before `from`, of a (n, n).
Floats block_of(const Floats &a, int64_t n, int64_t from, int64_t end) {
  Floats out;
  for (int64_t i = from; i < end; ++i)
    for (int64_t j = 0; j < from; ++j) out.push_back(a[size_t(i * n + j)]);
  return out;
}
void put_block(const Floats &block, int64_t n, int64_t from, int64_t end, Floats &a) {
  for (int64_t i = from; i < end; ++i)
    for (int64_t j = 0; j < from; ++j) a[size_t(i * n + j)] = block[size_t((i - from) * from + j)];
}

/// Both passes of a head by hand; `key` is of (number, product, use, chunk, sub-chunk).
template <class Key, class Linear>
void by_hand(Head &h, Backend<float> &backend, const Linear &linear, const Key &key) {
  using enum Axis;
  const int64_t M = h.slots, K = h.key, V = h.value, chunks = (h.n + 63) / 64;
  const LinearRecipe qk = linear("attn.qk"), scored = linear("attn.slot_scores"),
                     read_keys = linear("attn.state_read_keys"),
                     update_keys = linear("attn.state_update_keys"), weighed = linear("attn.slot_weights"),
                     av = linear("attn.av"), read = linear("attn.state_read"),
                     update = linear("attn.state_update");
  int64_t chunk = 0, sub = 0; // of the products
  const auto fprop = [&](const LinearRecipe &l, int number, const Floats &x, int64_t m, const Floats &w,
                         int64_t out, const Floats &added = {}) {
    return product(l.fprop, x, m, row, key(number, 0, 0, chunk, sub), w, out, row,
                   key(number, 0, 1, chunk, sub), added);
  };
  const auto dgrad = [&](const LinearRecipe &l, int number, const Floats &dy, int64_t m, const Floats &w,
                         int64_t out, const Floats &added = {}) {
    return product(l.dgrad, dy, m, row, key(number, 1, 0, chunk, sub), w, out, col,
                   key(number, 1, 1, chunk, sub), added);
  };
  const auto wgrad = [&](const LinearRecipe &l, int number, const Floats &dy, const Floats &x, int64_t m,
                         const Floats &added) {
    return product(l.wgrad, dy, m, col, key(number, 2, 0, chunk, sub), x, m, col,
                   key(number, 2, 1, chunk, sub), added);
  };
  std::vector<Chunk> all;
  Floats state = zeros(M * K);
  for (chunk = 0; chunk < chunks; ++chunk) { // the first pass: scores of the slots
    Chunk x{};
    x.first = chunk * 64;
    x.slots = M;
    const int64_t n = x.n = std::min<int64_t>(64, h.n - x.first);
    const Floats q = rows_of(h.q, x.first, n, K), k = rows_of(h.k, x.first, n, K);
    x.s = rows_of(h.s, x.first, n, M);
    x.b = rows_of(h.g, x.first, n, M);
    for (size_t at = size_t(M); at < x.b.size(); ++at) x.b[at] = x.b[at - size_t(M)] + x.b[at];
    x.leaves = transposed(x.writes(n), n);
    x.key_state = state;
    x.of_state = fprop(read_keys, 9, q, n, state, M);
    x.products = fprop(qk, 0, q, n, k, n);
    Floats scores = x.reads(x.of_state, 0, n);
    x.of_tokens = zeros(n * M);
    for (int64_t s = 16; s < n; s += 16) {
      sub = s / 16;
      const int64_t end = std::min(s + 16, n);
      const Floats more =
          fprop(scored, 7, block_of(x.products, n, s, end), end - s, transposed(x.writes(s), s), M);
      std::copy(more.begin(), more.end(), x.of_tokens.begin() + s * M);
      for (int64_t i = s; i < end; ++i)
        for (int64_t d = 0; d < M; ++d) {
          const auto at = size_t(i * M + d);
          scores[at] = scores[at] + x.of_tokens[at] * x.decay(i, s, d);
        }
    }
    sub = 0;
    add_own(x, x.products, x.s, true, scores);
    x.p = scores;
    backend.run(SlotSoftmaxForward<float>{n, M, x.p.data()});
    if (chunk + 1 < chunks) {
      for (int64_t at = 0; at < M * K; ++at)
        state[size_t(at)] = x.decay(n - 1, 0, at / K) * state[size_t(at)];
      state = fprop(update_keys, 10, x.leaves, M, transposed(k, n), K, state);
    }
    all.push_back(x);
  }
  state = zeros(M * V);
  for (chunk = 0; chunk < chunks; ++chunk) { // the second: o
    Chunk &x = all[size_t(chunk)];
    const int64_t n = x.n;
    const Floats vt = transposed(rows_of(h.v, x.first, n, V), n);
    x.value_state = state;
    Floats o = fprop(read, 3, x.reads(x.p, 0, n), n, transposed(state, M), V);
    x.a = own_scores(x, x.p);
    for (int64_t s = 16; s < n; s += 16) {
      sub = s / 16;
      const int64_t end = std::min(s + 16, n);
      put_block(fprop(weighed, 8, x.reads(x.p, s, end), end - s, x.writes(s), s), n, s, end, x.a);
    }
    sub = 0;
    o = fprop(av, 2, x.a, n, vt, V, o);
    h.o.insert(h.o.end(), o.begin(), o.end());
    h.p.insert(h.p.end(), x.p.begin(), x.p.end());
    if (chunk + 1 < chunks) {
      for (int64_t at = 0; at < M * V; ++at)
        state[size_t(at)] = x.decay(n - 1, 0, at / V) * state[size_t(at)];
      state = fprop(update, 4, x.leaves, M, vt, V, state);
    }
  }
  h.dq = h.dk = zeros(h.n * K);
  h.dv = zeros(h.n * V);
  h.dg_1 = h.dg_2 = h.ds_1 = h.ds_2 = zeros(h.n * M);
  const auto put = [&](const Chunk &x, const Floats &from, Floats &to) {
    std::copy(from.begin(), from.end(), to.begin() + x.first * (int64_t(from.size()) / x.n));
  };
  const auto decayed = [&](const Chunk &x, const Floats &rows) { // (M, n), back to tokens
    Floats out = transposed(rows, M);
    for (int64_t j = 0; j < x.n; ++j)
      for (int64_t d = 0; d < M; ++d) out[size_t(j * M + d)] = out[size_t(j * M + d)] * x.decay_to(x.n, j, d);
    return out;
  };
  Floats dst = zeros(V * M), dp = zeros(h.n * M); // dst: transposed
  for (chunk = chunks - 1; chunk >= 0; --chunk) {
    const Chunk &x = all[size_t(chunk)];
    const int64_t n = x.n;
    const Floats vt = transposed(rows_of(h.v, x.first, n, V), n), dy = rows_of(h.grad_o, x.first, n, V),
                 ds = transposed(dst, V), st = transposed(x.value_state, M);
    Floats dvt = wgrad(update, 4, ds, x.leaves, M, zeros(V * n));
    dvt = wgrad(av, 2, dy, x.a, n, dvt);
    put(x, transposed(dvt, V), h.dv);
    const Floats of_reads = dgrad(read, 3, dy, n, st, V), of_leaves = dgrad(update, 4, ds, M, vt, V),
                 da = dgrad(av, 2, dy, n, vt, V);
    Floats gp = x.reads(of_reads, 0, n), gs = decayed(x, of_leaves);
    add_own(x, da, x.p, false, gs);
    GateSums gates(x, x.p, x.value_state, ds);
    gates.reads(0, n, of_reads);
    gates.leaves(n, transposed(of_leaves, M));
    std::vector<Floats> of_subs;
    for (int64_t s = 16; s < n; s += 16) {
      sub = s / 16;
      const int64_t end = std::min(s + 16, n);
      const Floats block = block_of(da, n, s, end);
      of_subs.push_back(dgrad(weighed, 8, block, end - s, x.writes(s), s));
      const Floats more = wgrad(weighed, 8, block, x.reads(x.p, s, end), end - s, zeros(s * M));
      gates.leaves(s, more);
      for (int64_t d = 0; d < M; ++d) {
        for (int64_t i = s; i < end; ++i)
          gp[size_t(i * M + d)] =
              gp[size_t(i * M + d)] + of_subs.back()[size_t((i - s) * M + d)] * x.decay(i, s, d);
        for (int64_t j = 0; j < s; ++j)
          gs[size_t(j * M + d)] = gs[size_t(j * M + d)] + more[size_t(j * M + d)] * x.decay_to(s, j, d);
      }
    }
    sub = 0;
    add_own(x, da, x.s, true, gp);
    for (int64_t s = 16; s < n; s += 16) gates.reads(s, std::min(s + 16, n), of_subs[size_t(s / 16 - 1)]);
    gates.pairs(da);
    put(x, gp, dp);
    put(x, gs, h.ds_2);
    put(x, gates.dg, h.dg_2);
    if (chunk == 0) break;
    for (int64_t at = 0; at < V * M; ++at) dst[size_t(at)] = x.decay(n - 1, 0, at % M) * dst[size_t(at)];
    dst = wgrad(read, 3, dy, x.reads(x.p, 0, n), n, dst);
  }
  backend.run(SlotSoftmaxBackward<float>{h.n, M, h.p.data(), dp.data()});
  Floats ds = zeros(M * K);
  for (chunk = chunks - 1; chunk >= 0; --chunk) {
    const Chunk &x = all[size_t(chunk)];
    const int64_t n = x.n;
    const Floats q = rows_of(h.q, x.first, n, K), k = rows_of(h.k, x.first, n, K), kt = transposed(k, n),
                 dscores = rows_of(dp, x.first, n, M), dreads = x.reads(dscores, 0, n);
    Floats gq = dgrad(read_keys, 9, dreads, n, x.key_state, M),
           gk = transposed(wgrad(update_keys, 10, ds, x.leaves, M, zeros(K * n)), K);
    const Floats of_leaves = dgrad(update_keys, 10, ds, M, kt, K);
    Floats gs = decayed(x, of_leaves), da = own_scores(x, dscores);
    add_own(x, x.products, dscores, false, gs);
    GateSums gates(x, dscores, x.key_state, ds);
    gates.reads(0, n, x.of_state);
    gates.leaves(n, transposed(of_leaves, M));
    for (int64_t s = 16; s < n; s += 16) {
      sub = s / 16;
      const int64_t end = std::min(s + 16, n);
      const Floats queries = x.reads(dscores, s, end), keys = transposed(x.writes(s), s);
      const Floats more =
          transposed(wgrad(scored, 7, queries, block_of(x.products, n, s, end), end - s, zeros(M * s)), M);
      gates.leaves(s, more);
      for (int64_t j = 0; j < s; ++j)
        for (int64_t d = 0; d < M; ++d)
          gs[size_t(j * M + d)] = gs[size_t(j * M + d)] + more[size_t(j * M + d)] * x.decay_to(s, j, d);
      put_block(dgrad(scored, 7, queries, end - s, keys, M), n, s, end, da);
    }
    sub = 0;
    for (int64_t s = 16; s < n; s += 16) {
      const int64_t end = std::min(s + 16, n);
      gates.reads(s, end, rows_of(x.of_tokens, s, end - s, M));
    }
    gates.pairs(x.products);
    gq = dgrad(qk, 0, da, n, k, n, gq);
    gk = wgrad(qk, 0, da, q, n, gk);
    put(x, gq, h.dq);
    put(x, gk, h.dk);
    put(x, gs, h.ds_1);
    put(x, gates.dg, h.dg_1);
    if (chunk == 0) break;
    for (int64_t at = 0; at < M * K; ++at) ds[size_t(at)] = x.decay(n - 1, 0, at / K) * ds[size_t(at)];
    ds = wgrad(read_keys, 9, dreads, q, n, ds);
  }
}

/// Gated slot attention of block 0 by hand, against the model's p and o and the gradients of what its
/// projections made, through the model's own kernels of SiLU and gates.
void compare(const Recipe &recipe, int64_t batch, int64_t length) {
  const ModelConfig c = slot_model();
  Step step(c, recipe, batch, length);
  step.run();
  Backend<float> &backend = *step.backend;
  const Recipe bound = recipe.for_family("gsa");
  const int64_t chunks = (length + 63) / 64, rows = batch * length, slots = c.heads * c.slots;
  const std::string path = "model.layers.0.attn.";
  const auto active = [&](const char *name) {
    Floats x = step.seen.at(path + name);
    backend.run(SiluForward<float>{int64_t(x.size()), x.data(), x.data()});
    return x;
  };
  const Floats q = active("q_proj"), k = active("k_proj"), v = active("v_proj");
  Floats o(v.size()), p(size_t(rows * slots)), dq(q.size()), dk(q.size()), dv(v.size()), dg_1(p.size()),
      dg_2(p.size()), ds_1(p.size()), ds_2(p.size());
  for (int64_t s = 0; s < batch; ++s)
    for (int64_t h = 0; h < c.heads; ++h) {
      const auto of_head = [&](const Floats &x) {
        return head_of(x, s, length, c.heads, h, int64_t(x.size()) / (rows * c.heads));
      };
      Head head{length,
                c.slots,
                c.key_head(),
                c.value_head(),
                of_head(q),
                of_head(k),
                of_head(v),
                of_head(step.seen.at(path + "gate")),
                of_head(step.seen.at(path + "write")),
                of_head(step.seen.at(path + "gsa.output_grad")),
                {},
                {},
                {},
                {},
                {},
                {},
                {},
                {},
                {}};
      by_hand(
          head, backend, [&](const char *role) { return bound.resolve(role, 0, c.layers); },
          [&](int number, int made, int use, int64_t chunk, int64_t sub) {
            return operator_key_by_hand(number, made, use, ((s * c.heads + h) * chunks + chunk) * 4 + sub);
          });
      const auto put = [&](const Floats &from, Floats &to) {
        const int64_t width = int64_t(from.size()) / length;
        for (int64_t t = 0; t < length; ++t)
          for (int64_t e = 0; e < width; ++e)
            to[size_t(((s * length + t) * c.heads + h) * width + e)] = from[size_t(t * width + e)];
      };
      put(head.o, o);
      put(head.p, p);
      put(head.dq, dq);
      put(head.dk, dk);
      put(head.dv, dv);
      put(head.dg_1, dg_1);
      put(head.dg_2, dg_2);
      put(head.ds_1, ds_1);
      put(head.ds_2, ds_2);
    }
  CHECK(same_bits(step.seen.at(path + "slots"), p));
  CHECK(same_bits(step.seen.at(path + "gsa"), o));
  const auto through = [&](Floats grad, const char *name) {
    backend.run(SiluBackward<float>{int64_t(grad.size()), grad.data(), step.seen.at(path + name).data(),
                                    grad.data()});
    return grad;
  };
  CHECK(same_bits(step.seen.at("0.attn.q_proj.output_grad"), through(dq, "q_proj")));
  CHECK(same_bits(step.seen.at("0.attn.k_proj.output_grad"), through(dk, "k_proj")));
  CHECK(same_bits(step.seen.at("0.attn.v_proj.output_grad"), through(dv, "v_proj")));
  Floats df(p.size());
  backend.run(SlotGateBackward<float>{int64_t(p.size()), dg_1.data(), dg_2.data(), ds_1.data(), ds_2.data(),
                                      step.seen.at(path + "gate").data(),
                                      gate_input(step, path, step.seen.at(path + "f_proj")).data(), df.data(),
                                      float(c.gate_normalizer)});
  CHECK(same_bits(step.seen.at("0.attn.f_proj.output_grad"), df));
}

} // namespace

TEST_CASE("products inside gated slot attention are quantize and gemm composed by hand", "[model]") {
  struct Case {
    const char *recipe, *linear;
    std::vector<std::string> roles;
  };
  for (const Case &c :
       {Case{"nvfp4", "nvfp4", {"*"}}, Case{"nvfp4-plain", "nvfp4", {"attn.*_keys"}},
        Case{"mxfp4-sr-rht", "mxfp4", {"attn.qk", "attn.slot_scores"}},
        Case{"mxfp8", "mxfp8", {"attn.slot_weights"}},
        Case{"nvfp4", "nvfp4", {"attn.av", "attn.state_update*"}}, Case{"bf16", "bf16", {"*"}}}) {
    CAPTURE(c.recipe, c.roles);
    compare(with_mixer_rules(c.recipe, c.linear, c.roles), 2, 150); // two chunks, and one of 22 tokens
  }
  Recipe rest = with_mixer_rules("nvfp4", "nvfp4", {"attn.slot_*", "attn.qk"});
  for (auto &[name, linear] : rest.linears) linear.wgrad.output = FormatId::bf16;
  compare(rest, 1, 80);
  compare(load_recipe("nvfp4+mixer_rules=nvfp4+gate_inputs=mxfp8"), 1, 80);
}

TEST_CASE("FP32 products inside gated slot attention have the bits of its kernels", "[model]") {
  check_fp32_products(slot_model(), [](const std::string &role, int64_t length) {
    int64_t subs = 0; // sub-chunks with earlier ones
    for (int64_t first = 0; first < length; first += 64)
      subs += (std::min<int64_t>(64, length - first) - 1) / 16;
    return 4 * (role.starts_with("attn.slot_") ? subs : (length + 63) / 64);
  });
}

TEST_CASE("products inside gated slot attention do not depend on threads or instruction set", "[model]") {
  check_same_everywhere(slot_model());
}

} // namespace nvfp4::test
