// SPDX-License-Identifier: Apache-2.0
// The gated delta rule, backward: dq, dk, dv, dg, dbeta from do and what forward saved. t, the gradient of u,
// and the states' gradients go through a sequence from its end, value columns apart; the rest is computed for
// all chunks at once. A gate's gradient is the sum of what passes it: of the pairs of tokens before and after
// it, and of what the states carry. Differences of larger sums (q_i dq_i - k_i dk_i from the sequence's end)
// would cost strong gates their digits.
#pragma once
#include "nvfp4/reference_models/kernels/delta.hpp"

namespace nvfp4::models {

/// t (n, width) becomes x with x_j = t_j + sum over i > j of lower_ij x_i, row blocks of 16 from the last.
template <class T, class Team>
NVFP4_INLINE void delta_solve_back(const Team &team, int64_t n, int64_t width, View<const T> lower,
                                   View<T> t) {
  for (int64_t s = (n - 1) / kDeltaSub * kDeltaSub; s >= 0; s -= kDeltaSub) {
    const int64_t end = numerics::min(s + kDeltaSub, n);
    if (end < n)
      team.matmul(end - s, width, n - end, lower.at(end, s).transposed(), t.at(end, 0), t.at(s, 0), true);
    team.solve(end - s, width, lower.at(s, s).transposed(), t.at(s, 0), true);
  }
}

/// What a chunk's gates carry. dg_t, with s_i = q_i dq_i + k_i dk_i of what token i reads of the state before
/// the chunk, w_j = k_j dk_j of what token j leaves in the state after it, and P_ij what i reads of j, each
/// times its gradient: ((exp(g_0 + ... + g_{n-1}) (S, dS) + s_t + ... + s_{n-1}) + w_0 + ... + w_{t-1}) + the
/// sum over i >= t of the sums over j < t of P_ij, all chains in increasing order.
template <class T> struct DeltaGateTerms {
  T *passed, *read, *left, *whole; ///< (n), (n), (n), (1)

  /// passed, from the gradients x of k_i k_j's products times -d_ij and y of q_i k_j's times scale d_ij;
  /// pairs (n, n) is work.
  template <class Team>
  NVFP4_INLINE void pass(const Team &team, int64_t n, View<const T> x, View<const T> below, View<const T> y,
                         View<const T> a, View<T> pairs) const {
    fill(team, n, n, pairs, [=](int64_t i, int64_t j) { return x(i, j) * below(i, j) + y(i, j) * a(i, j); });
    passed_pairs(team, n, pairs, View<T>{passed, 1});
  }
  /// whole, from the state (key, value), its gradient and the chunk's decay; work: room for `key`.
  template <class Team>
  NVFP4_INLINE void carry(const Team &team, int64_t key, int64_t value, View<const T> state, View<const T> ds,
                          const T *decay, T *work) const {
    T *const to = whole;
    team.rows(key, [=](int64_t d, const auto &lane) {
      const T sum = lane.sum(value, [=](int64_t e) { return state(d, e) * ds(d, e); });
      lane.one([=] { work[d] = sum; });
    });
    team.rows(1, [=](int64_t, const auto &lane) {
      const T sum = lane.sum(key, [=](int64_t d) { return work[d]; });
      lane.one([=] { *to = sum * *decay; });
    });
  }
  /// read and left, from gradients of q (dq) and k (recall) through the state before the chunk and of k (dk)
  /// through the state after it, which get their decays first.
  template <class Team>
  NVFP4_INLINE void factors(const Team &team, int64_t n, int64_t key, View<const T> q, View<const T> k,
                            View<const T> decays, T scale, View<T> dq, View<T> recall, View<T> dk) const {
    T *const reads = read, *const leaves = left;
    fill(team, n, key, dq, [=](int64_t i, int64_t d) { return (dq(i, d) * decays(i, 0)) * scale; });
    fill(team, n, key, recall, [=](int64_t i, int64_t d) { return -(recall(i, d) * decays(i, 0)); });
    fill(team, n, key, dk, [=](int64_t i, int64_t d) { return dk(i, d) * decays(n - 1, i + 1); });
    team.rows(n, [=](int64_t i, const auto &lane) {
      const T reading = lane.sum(key, [=](int64_t d) { return q(i, d) * dq(i, d) + k(i, d) * recall(i, d); }),
              leaving = lane.sum(key, [=](int64_t d) { return k(i, d) * dk(i, d); });
      lane.one([=] {
        reads[i] = reading;
        leaves[i] = leaving;
      });
    });
  }
  /// dg (n), from all of them.
  template <class Team> NVFP4_INLINE void sum(const Team &team, int64_t n, View<T> dg) const {
    gate_gradients<Team, T>(team, n, whole, read, left, View<T>{passed, 1}, dg);
  }
};

/// Gradients of below and a, (n, n), in x and y become those of the products k_i k_j and q_i k_j.
template <class T, class Team>
NVFP4_INLINE void delta_score_gradients(const Team &team, int64_t n, View<const T> decays, T scale, View<T> x,
                                        View<T> y) {
  fill(team, n, n, x, [=](int64_t i, int64_t j) {
    const T p = -(x(i, j) * decays(i, j + 1));
    return j < i ? p : T(0);
  });
  fill(team, n, n, y, [=](int64_t i, int64_t j) {
    const T p = (y(i, j) * decays(i, j + 1)) * scale;
    return j <= i ? p : T(0);
  });
}

/// t, dv = beta t, and dS after each chunk. A team takes some value columns of a stream.
template <class T> struct DeltaStateGradients {
  DeltaShape<T> shape;
  const T *grad_o, *q, *k, *beta, *saved;
  T *grad_v, *grads; // grads: t and dS, laid out as r and the states in `saved`

  [[nodiscard]] int64_t teams() const { return shape.streams() * shape.tile_count(); }
  [[nodiscard]] int64_t scratch() const { return shape.tile_scratch(); }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    constexpr int64_t C = kDeltaChunk;
    const auto sh = shape;
    const int64_t dk = sh.key, dv = sh.value, stream = index / sh.tile_count(),
                  first = index % sh.tile_count() * kDeltaTile, width = numerics::min(kDeltaTile, dv - first);
    const View<T> rows{team.scratch, dk}, lower{team.scratch + C * dk, C}, t = lower.at(C, 0);
    const T scale = sh.scale;
    fill(team, dk, width, View<T>{grads + DeltaChunk<T>(sh, stream, sh.chunk_count() - 1).state + first, dv},
         [=](int64_t, int64_t) { return T(0); });
    for (int64_t chunk = sh.chunk_count() - 1; chunk >= 0; --chunk) {
      const DeltaChunk<T> at(sh, stream, chunk);
      const int64_t n = at.n;
      const View<const T> qc{q + at.keys, sh.heads * dk}, kc{k + at.keys, sh.heads * dk},
          doc{grad_o + at.values + first, sh.heads * dv}, bc{beta + at.gates, sh.heads},
          decays{saved + at.decays, kDeltaDecays}, below{saved + at.below, C};
      const View<T> dvc{grad_v + at.values + first, sh.heads * dv}, kept{grads + at.r + first, dv},
          ds{grads + at.state + first, dv};
      // through the state after the chunk and o, then through later r, last row first
      fill(team, n, dk, rows, [=](int64_t j, int64_t d) { return kc(j, d) * decays(n - 1, j + 1); });
      fill(team, n, n, lower, [=](int64_t i, int64_t j) { return below(i, j) * bc(i, 0); });
      team.matmul(n, width, dk, rows, ds, t);
      team.matmul(n, width, n, {saved + at.a, 1, C}, doc, t, true);
      delta_solve_back<T>(team, n, width, lower, t);
      team.map(
          n, width,
          [=](int64_t i, int64_t e) {
            const T x = t(i, e);
            return Two<T>{x, x * bc(i, 0)};
          },
          [=](int64_t i, int64_t e, Two<T> x) {
            kept(i, e) = x.first;
            dvc(i, e) = x.second;
            t(i, e) = x.second;
          });
      if (chunk == 0) break;
      const View<T> before{grads + at.state - dk * dv + first, dv};
      fill(team, n, dk, rows, [=](int64_t i, int64_t d) { return (qc(i, d) * decays(i, 0)) * scale; });
      fill(team, dk, width, before, [=](int64_t d, int64_t e) { return decays(n - 1, 0) * ds(d, e); });
      team.matmul(dk, width, n, rows.transposed(), doc, before, true);
      fill(team, n, dk, rows, [=](int64_t i, int64_t d) { return -(kc(i, d) * decays(i, 0)); });
      team.matmul(dk, width, n, rows.transposed(), t, before, true);
    }
  }
};

/// dq, dk, dbeta, dg. A team a chunk.
template <class T> struct DeltaGradients {
  DeltaShape<T> shape;
  const T *grad_o, *q, *k, *beta, *saved, *grads, *grad_v;
  T *grad_q, *grad_k, *grad_beta, *grad_g;

  static constexpr int64_t kTurned = kDeltaChunk + 1; ///< pitch of what is transposed: spreads memory banks
  static constexpr int64_t kPart = 128;               ///< value columns whose u are in scratch at a time

  [[nodiscard]] int64_t teams() const { return shape.chunks(); }
  [[nodiscard]] int64_t scratch() const {
    return 2 * kDeltaChunk * kDeltaChunk + 3 * kDeltaChunk + 1 +
           numerics::max(numerics::max(kDeltaChunk * shape.key, kTurned * kDeltaChunk),
                         kTurned * numerics::min(kPart, shape.value));
  }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    constexpr int64_t C = kDeltaChunk;
    const auto sh = shape;
    const DeltaChunk<T> at(sh, index / sh.chunk_count(), index % sh.chunk_count());
    const int64_t dk = sh.key, dv = sh.value, kd = sh.heads * dk, vd = sh.heads * dv, n = at.n;
    const View<const T> qc{q + at.keys, kd}, kc{k + at.keys, kd}, doc{grad_o + at.values, vd},
        dvc{grad_v + at.values, vd}, bc{beta + at.gates, sh.heads}, r{saved + at.r, dv},
        state{saved + at.state, dv}, decays{saved + at.decays, kDeltaDecays}, t{grads + at.r, dv},
        ds{grads + at.state, dv};
    const View<T> dqc{grad_q + at.keys, kd}, dkc{grad_k + at.keys, kd}, dbc{grad_beta + at.gates, sh.heads},
        dgc{grad_g + at.gates, sh.heads}, x{team.scratch, C}, y = x.at(C, 0);
    const View<const T> below{saved + at.below, C}, a{saved + at.a, C};
    T *const spare = team.scratch + 2 * C * C;
    const DeltaGateTerms<T> terms{spare, spare + C, spare + 2 * C, spare + 3 * C};
    const View<T> read{terms.whole + 1, dk};
    const View<T> ut{read.data, kTurned}, pairs = ut; // before `read`, one after the other
    const T scale = sh.scale;
    team.rows(n, [=](int64_t i, const auto &lane) {
      const T sum = lane.sum(dv, [=](int64_t e) { return t(i, e) * r(i, e); });
      lane.one([=] { dbc(i, 0) = sum; });
    });
    // gradients of the products k_i k_j (x) and q_i k_j (y), and of k through the state after the chunk
    for (int64_t e = 0; e < dv; e += kPart) {
      const int64_t part = numerics::min(kPart, dv - e);
      fill(team, n, part, ut.transposed(), [=](int64_t i, int64_t c) { return r(i, e + c) * bc(i, 0); });
      team.matmul(n, n, part, dvc.at(0, e), ut, x, e > 0);
      team.matmul(n, n, part, doc.at(0, e), ut, y, e > 0);
      team.matmul(n, dk, part, ut.transposed(), ds.at(0, e).transposed(), dkc, e > 0);
    }
    terms.pass(team, n, x, below, y, a, pairs);
    terms.carry(team, dk, dv, state, ds, &decays(n - 1, 0), read.data);
    delta_score_gradients<T>(team, n, decays, scale, x, y);
    // through the state before the chunk
    team.matmul(n, dk, dv, doc, state.transposed(), dqc);
    team.matmul(n, dk, dv, dvc, state.transposed(), read);
    terms.factors(team, n, dk, qc, kc, decays, scale, dqc, read, dkc);
    terms.sum(team, n, dgc);
    team.matmul(n, dk, n, y, kc, dqc, true);
    team.matmul(n, dk, n, x, kc, read, true);
    team.matmul(n, dk, n, y.transposed(), qc, dkc, true);
    team.matmul(n, dk, n, x.transposed(), kc, dkc, true);
    fill(team, n, dk, dkc, [=](int64_t i, int64_t d) { return dkc(i, d) + read(i, d); });
  }
};

/// dq, dk, dv, dg, dbeta from do, by two kernels; `saved` is forward's.
template <class T> struct DeltaBackward {
  DeltaShape<T> shape;
  const T *grad_o, *q, *k, *v, *g, *beta;
  T *grad_q, *grad_k, *grad_v, *grad_g, *grad_beta;
  const T *saved;
  T *grads; // work: shape.recurrence()

  template <class Runner> void run_on(Runner &runner) const {
    runner.run(DeltaStateGradients<T>{shape, grad_o, q, k, beta, saved, grad_v, grads});
    runner.run(DeltaGradients<T>{shape, grad_o, q, k, beta, saved, grads, grad_v, grad_q, grad_k, grad_beta,
                                 grad_g});
  }
};

} // namespace nvfp4::models
