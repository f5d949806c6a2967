// SPDX-License-Identifier: Apache-2.0
// Gated slot attention (Zhang et al. 2024), forward and backward. Each head has a memory of M slots of keys
// and values, which decay by exp(g) and take 1 - exp(g) of each token:
//   Hk <- diag(exp(g)) Hk + s^T k,  p = softmax(Hk q),  Hv <- diag(exp(g)) Hv + s^T v,  o = p Hv.
// The second pass is gated linear attention with queries p and keys s. So is the first one, read by its
// values: Hk q is what GLA's gradient of its queries would be, with q as the gradient of its outputs. Both
// run on GLA's chunks and states (gla.hpp). Unlike GLA's, a gate's gradient is the sum of what passes the
// gate, so that strong gates keep its digits.
#pragma once
#include "nvfp4/reference_models/kernels/gla_backward.hpp"
#include "nvfp4/reference_models/kernels/slot_inputs.hpp"

namespace nvfp4::models {

/// Rows of q and k have stride heads * key, of v and o heads * value, of g, s and p heads * slots.
template <class T> struct SlotShape {
  int64_t batch, length, heads, slots, key, value;

  /// The passes as GLA: keys of a slot's width, and the values that its state holds.
  [[nodiscard]] GlaShape<T> first() const { return {batch, length, heads, slots, key, T(1)}; }
  [[nodiscard]] GlaShape<T> second() const { return {batch, length, heads, slots, value, T(1)}; }
  /// Elements kept from forward to backward, and of backward's work.
  [[nodiscard]] int64_t saved() const { return first().saved() + second().saved(); }
  [[nodiscard]] int64_t work() const { return numerics::max(first().states(), second().states()); }
};

/// Hk q: of each slot the sum over j <= i of exp(b_i - b_j) s_j (q_i k_j), from the state before the chunk,
/// then from its own tokens. A team a chunk.
template <class T> struct SlotScores {
  GlaShape<T> shape;
  const T *q, *k, *s, *saved; // saved: with GlaDecays and GlaStates of s and k
  T *scores;

  [[nodiscard]] int64_t teams() const { return shape.streams() * shape.chunk_count(); }
  [[nodiscard]] int64_t scratch() const { return kGlaChunk * kGlaChunk + 2 * kGlaChunk * shape.key; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const GlaChunk<T> at(sh, index / sh.chunk_count(), index % sh.chunk_count());
    const int64_t slots = sh.key, width = sh.value, n = at.n;
    const View<const T> qc{q + at.values, sh.heads * width}, kc{k + at.values, sh.heads * width},
        sc{s + at.keys, sh.heads * slots};
    const View<T> to{scores + at.keys, sh.heads * slots};
    const T *const b = saved + at.b;
    T *const products = team.scratch, *const rows = products + kGlaChunk * kGlaChunk;
    team.matmul(n, slots, width, qc, {saved + at.state, 1, width}, {rows, slots});
    fill(team, n, slots, to,
         [=](int64_t i, int64_t m) { return rows[i * slots + m] * numerics::exp(b[i * slots + m]); });
    team.matmul(n, n, width, qc, kc.transposed(), {products, kGlaChunk});
    gla_own_query_gradients(team, n, slots, T(1), products, b, sc, to, rows, rows + kGlaChunk * slots,
                            NothingPassed{});
  }
};

/// The gates' gradients of a chunk, added up from what passes them.
template <class T> struct PassedGates {
  int64_t slots;
  View<const T> q, k; // (n, slots)
  View<T> grad_g;     // (n, slots)
  T *terms;           // scratch (64, slots)

  /// What queries begin to end - 1 read, of all before `begin`, passes the gates from `begin` to their own.
  template <class Team, class F>
  NVFP4_INLINE void reads(const Team &team, int64_t begin, int64_t end, const F &f) const {
    const auto s = *this;
    fill(team, end - begin, slots, View<T>{terms, slots},
         [=](int64_t i, int64_t d) { return s.q(begin + i, d) * f(i, d); });
    team.each(slots, [=](int64_t d) {
      T sum = T(0);
      for (int64_t i = end - 1; i >= begin; --i) {
        sum += s.terms[(i - begin) * s.slots + d];
        s.grad_g(i, d) = s.grad_g(i, d) + sum;
      }
    });
  }
  /// What keys before `end` leave, to all at or after it, passes the gates from behind their own to end - 1.
  template <class Team, class F> NVFP4_INLINE void leaves(const Team &team, int64_t end, const F &f) const {
    const auto s = *this;
    fill(team, end, slots, View<T>{terms, slots}, [=](int64_t j, int64_t d) { return s.k(j, d) * f(j, d); });
    team.each(slots, [=](int64_t d) {
      T sum = T(0);
      for (int64_t t = 1; t < end; ++t) {
        sum += s.terms[(t - 1) * s.slots + d];
        s.grad_g(t, d) = s.grad_g(t, d) + sum;
      }
    });
  }
};

/// grad_g (n, dk) = exp(g_0 + ... + g_{n-1}) (S, dS), which all gates of a chunk let pass. terms: room for
/// dk.
template <class T, class Team>
NVFP4_INLINE void passed_states(const Team &team, int64_t n, int64_t dk, int64_t dv, View<const T> state,
                                View<const T> ds, const T *b, T *terms, View<T> grad_g) {
  team.rows(dk, [=](int64_t d, const auto &lane) {
    const T sum = lane.sum(dv, [=](int64_t e) { return state(d, e) * ds(d, e); });
    lane.one([=] { terms[d] = sum * numerics::exp(b[(n - 1) * dk + d]); });
  });
  fill(team, n, dk, grad_g, [=](int64_t, int64_t d) { return terms[d]; });
}

/// Adds to grad_g (n, dk) what passes it of the pairs i >= t > j of a sub-chunk, i after i, from the
/// gradients da of their scores.
template <class T, class Team>
NVFP4_INLINE void passed_own_pairs(const Team &team, int64_t n, int64_t dk, T scale, View<const T> da,
                                   const T *b, View<const T> q, View<const T> k, View<T> grad_g) {
  team.contract(
      n, dk,
      [=](int64_t t) {
        const int64_t begin = t / kGlaSub * kGlaSub;
        return Range{0, (t - begin) * (numerics::min(begin + kGlaSub, n) - t)};
      },
      [=](int64_t t, int64_t d, int64_t pair, T acc) {
        const int64_t begin = t / kGlaSub * kGlaSub, i = t + pair / (t - begin),
                      j = begin + pair % (t - begin);
        return gla_pair(da(i, j) * q(i, d), k(j, d), b[i * dk + d], b[j * dk + d], acc);
      },
      [=](int64_t t, int64_t d, T acc) { grad_g(t, d) = grad_g(t, d) + acc * scale; });
}

/// dq, dk, dv as GlaGradients, and dg_t: exp(g_0 + ... + g_{n-1}) (S, dS), which all gates of the chunk let
/// pass, and what passes t of reads of S, of what is left in dS, and of pairs of the chunk's tokens. A team a
/// chunk.
template <class T> struct PassedGradients {
  GlaGradients<T> gradients;
  T *grad_g;

  [[nodiscard]] int64_t teams() const { return gradients.teams(); }
  [[nodiscard]] int64_t scratch() const { return gradients.own_scratch() + kGlaChunk * gradients.shape.key; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto x = gradients;
    const GlaShape<T> sh = x.shape;
    const GlaChunk<T> at(sh, index / sh.chunk_count(), index % sh.chunk_count());
    const int64_t dk = sh.key, dv = sh.value, kd = sh.heads * dk, n = at.n;
    const View<const T> qc{x.q + at.keys, kd}, kc{x.k + at.keys, kd};
    const View<T> dgc{grad_g + at.keys, kd};
    const T *const b = x.saved + at.b, *const state = x.saved + at.state, *const da = team.scratch,
                   *const ds = x.grad_states + at.gradient;
    T *const terms = team.scratch + x.own_scratch();
    passed_states<T>(team, n, dk, dv, {state, dv}, {ds, dv}, b, terms, dgc);
    x.run(team, index, PassedGates<T>{dk, qc, kc, dgc, terms});
    passed_own_pairs<T>(team, n, dk, sh.scale, {da, kGlaChunk}, b, qc, kc, dgc); // x.run left da
  }
};

/// o, and p, the softmax of the scores, by seven kernels.
template <class T> struct SlotForward {
  SlotShape<T> shape;
  const T *q, *k, *v, *g, *s;
  T *p, *o, *saved; // saved: shape.saved()

  /// Runner has run(kernel): a backend.
  template <class Runner> void run_on(Runner &runner) const {
    const GlaShape<T> first = shape.first(), second = shape.second();
    runner.run(GlaDecays<T>{first, g, saved});
    runner.run(GlaStates<T>{first, s, k, saved});
    runner.run(SlotScores<T>{first, q, k, s, saved, p});
    runner.run(SlotSoftmaxForward<T>{shape.batch * shape.length * shape.heads, shape.slots, p});
    GlaForward<T>{second, p, s, v, g, o, saved + first.saved()}.run_on(runner);
  }
};

/// dq, dk, dv from do, and of each pass its gradients of g and s, whose sums are theirs. `saved` is
/// forward's, and its scores of the first pass are written.
template <class T> struct SlotBackward {
  SlotShape<T> shape;
  const T *grad_o, *q, *k, *v, *s, *p;
  T *grad_q, *grad_k, *grad_v;
  T *grad_g_1, *grad_g_2, *grad_s_1, *grad_s_2;
  T *grad_p;       // scratch like p
  T *saved, *work; // work: shape.work()
  T *unused;       // scratch like p

  template <class Runner> void run_on(Runner &runner) const {
    const GlaShape<T> first = shape.first(), second = shape.second();
    T *const kept = saved + first.saved();
    runner.run(GlaStateGradients<T>{second, grad_o, p, kept, work});
    runner.run(PassedGradients<T>{{second, grad_o, p, s, v, kept, work, grad_p, grad_s_2, grad_v}, grad_g_2});
    runner.run(SlotSoftmaxBackward<T>{shape.batch * shape.length * shape.heads, shape.slots, p, grad_p});
    // with grad_p as GLA's queries: dq is its output, and its gradient of the queries the scores again
    runner.run(GlaOutputs<T>{first, grad_p, s, k, grad_q, saved});
    runner.run(GlaStateGradients<T>{first, q, grad_p, saved, work});
    runner.run(PassedGradients<T>{{first, q, grad_p, s, k, saved, work, unused, grad_s_1, grad_k}, grad_g_1});
  }
};

} // namespace nvfp4::models
