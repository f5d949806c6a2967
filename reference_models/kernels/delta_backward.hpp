// SPDX-License-Identifier: Apache-2.0
// The gated delta rule, backward: dq, dk, dv, dg, dbeta from do and what forward saved. t, the gradient of u,
// and the states' gradients go through a sequence from its end, value columns apart; the rest is computed for
// all chunks at once.
#pragma once
#include "reference_models/kernels/delta.hpp"

namespace nvfp4::models {

/// t, dv = beta t, and dS after each chunk. A team takes some value columns of a stream.
template <class T> struct DeltaStateGradients {
  DeltaShape<T> shape;
  const T *grad_o, *q, *k, *beta, *products;
  T *grad_v, *grads; // grads: t and dS, laid out as r and the states in `saved`

  [[nodiscard]] int64_t teams() const { return shape.streams() * shape.tile_count(); }
  [[nodiscard]] int64_t scratch() const { return kDeltaChunk * shape.key; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    constexpr int64_t C = kDeltaChunk, D = kDeltaDecays;
    const auto sh = shape;
    const int64_t dk = sh.key, dv = sh.value, stream = index / sh.tile_count(),
                  first = index % sh.tile_count() * kDeltaTile, width = numerics::min(kDeltaTile, dv - first);
    T *const rows = team.scratch, *const end_state =
                                      grads + first + DeltaChunk<T>(sh, stream, sh.chunk_count() - 1).state;
    const T scale = sh.scale;
    team.rows(dk, [=](int64_t d, const auto &lane) {
      lane.each(width, [=](int64_t e) { end_state[d * dv + e] = T(0); });
    });
    for (int64_t chunk = sh.chunk_count() - 1; chunk >= 0; --chunk) {
      const DeltaChunk<T> at(sh, stream, chunk);
      const int64_t n = at.n;
      const View<const T> qc{q + at.keys, sh.heads * dk}, kc{k + at.keys, sh.heads * dk},
          doc{grad_o + at.values + first, sh.heads * dv}, bc{beta + at.gates, sh.heads};
      const View<T> dvc{grad_v + at.values + first, sh.heads * dv}, t{grads + at.r + first, dv};
      const T *const decays = products + at.decays, *const below = products + at.below,
                     *const a = products + at.a, *const last = decays + (n - 1) * D,
                     *const ds = grads + at.state + first;
      // through the state after the chunk and o, then through later r, last row first
      team.rows(n, [=](int64_t j, const auto &lane) {
        lane.each(dk, [=](int64_t d) { rows[j * dk + d] = kc(j, d) * last[j + 1]; });
      });
      team.matmul(n, width, dk, {rows, dk}, {ds, dv}, t);
      team.matmul(n, width, n, {a, 1, C}, doc, t, true);
      for (int64_t s = (n - 1) / kDeltaSub * kDeltaSub; s >= 0; s -= kDeltaSub) {
        const int64_t end = numerics::min(s + kDeltaSub, n);
        if (end < n)
          team.matmul(end - s, width, n - end, {below + end * C + s, 1, C}, t.at(end, 0), t.at(s, 0), true);
        team.each(width, [=](int64_t e) {
          for (int64_t j = end - 2; j >= s; --j) {
            T acc = t(j, e);
            for (int64_t i = j + 1; i < end; ++i) acc = numerics::fma(below[i * C + j], t(i, e), acc);
            t(j, e) = acc;
          }
        });
      }
      team.rows(n, [=](int64_t i, const auto &lane) {
        const T step = bc(i, 0);
        lane.each(width, [=](int64_t e) { dvc(i, e) = t(i, e) * step; });
        lane.each(dk, [=](int64_t d) { rows[i * dk + d] = (qc(i, d) * decays[i * D]) * scale; });
      });
      if (chunk == 0) break;
      T *const before = grads + at.state - dk * dv + first;
      team.rows(dk, [=](int64_t d, const auto &lane) {
        lane.each(width, [=](int64_t e) { before[d * dv + e] = last[0] * ds[d * dv + e]; });
      });
      team.matmul(dk, width, n, {rows, 1, dk}, doc, {before, dv}, true);
      team.rows(n, [=](int64_t i, const auto &lane) {
        lane.each(dk, [=](int64_t d) { rows[i * dk + d] = -(kc(i, d) * decays[i * D]); });
      });
      team.matmul(dk, width, n, {rows, 1, dk}, dvc, {before, dv}, true);
    }
  }
};

/// dq, dk, dbeta, and each token's term of the gates' gradients. A team a chunk.
template <class T> struct DeltaGradients {
  DeltaShape<T> shape;
  const T *grad_o, *q, *k, *beta, *products, *saved, *grads, *grad_v;
  T *grad_q, *grad_k, *grad_beta, *gate_terms; // gate_terms (streams, length)

  static constexpr int64_t kTurned = kDeltaChunk + 1; ///< pitch of what is transposed: spreads memory banks

  [[nodiscard]] int64_t teams() const { return shape.chunks(); }
  [[nodiscard]] int64_t scratch() const {
    return kDeltaChunk * (shape.key + 2 * kDeltaChunk) + kTurned * shape.value;
  }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    constexpr int64_t C = kDeltaChunk, D = kDeltaDecays;
    const auto sh = shape;
    const DeltaChunk<T> at(sh, index / sh.chunk_count(), index % sh.chunk_count());
    const int64_t dk = sh.key, dv = sh.value, kd = sh.heads * dk, vd = sh.heads * dv, n = at.n;
    const View<const T> qc{q + at.keys, kd}, kc{k + at.keys, kd}, doc{grad_o + at.values, vd},
        dvc{grad_v + at.values, vd}, bc{beta + at.gates, sh.heads};
    const View<T> dqc{grad_q + at.keys, kd}, dkc{grad_k + at.keys, kd}, dbc{grad_beta + at.gates, sh.heads};
    const T *const r = saved + at.r, *const state = saved + at.state, *const t = grads + at.r,
                   *const ds = grads + at.state, *const decays = products + at.decays,
                   *const last = decays + (n - 1) * D;
    T *const read = team.scratch, *const x = read + C * dk, *const y = x + C * C, *const ut = y + C * C,
             *const gate = gate_terms + at.token;
    const T scale = sh.scale;
    team.rows(n, [=](int64_t i, const auto &lane) {
      const T step = bc(i, 0);
      lane.each(dv, [=](int64_t e) { ut[e * kTurned + i] = r[i * dv + e] * step; });
      const T sum = lane.sum(dv, [=](int64_t e) { return t[i * dv + e] * r[i * dv + e]; });
      lane.one([=] { dbc(i, 0) = sum; });
    });
    // gradients of the products k_i k_j (x) and q_i k_j (y)
    team.matmul(n, n, dv, dvc, {ut, kTurned}, {x, C});
    team.matmul(n, n, dv, doc, {ut, kTurned}, {y, C});
    map_square(team, n, x,
               [=](T p, int64_t i, int64_t j) { return j < i ? -(p * decays[i * D + j + 1]) : T(0); });
    map_square(team, n, y, [=](T p, int64_t i, int64_t j) {
      return j <= i ? (p * decays[i * D + j + 1]) * scale : T(0);
    });
    // through the states
    team.matmul(n, dk, dv, doc, {state, 1, dv}, dqc);
    team.matmul(n, dk, dv, dvc, {state, 1, dv}, {read, dk});
    team.matmul(n, dk, dv, {ut, 1, kTurned}, {ds, 1, dv}, dkc);
    team.rows(n, [=](int64_t i, const auto &lane) {
      const T in = decays[i * D], out = last[i + 1];
      lane.each(dk, [=](int64_t d) {
        dqc(i, d) = (dqc(i, d) * in) * scale;
        read[i * dk + d] = -(read[i * dk + d] * in);
        dkc(i, d) = dkc(i, d) * out;
      });
    });
    team.matmul(n, dk, n, {y, C}, kc, dqc, true);
    team.matmul(n, dk, n, {x, C}, kc, {read, dk}, true);
    team.matmul(n, dk, n, {y, 1, C}, qc, dkc, true);
    team.matmul(n, dk, n, {x, 1, C}, kc, dkc, true);
    team.rows(n, [=](int64_t i, const auto &lane) {
      const T sum = lane.sum(
          dk, [=](int64_t d) { return qc(i, d) * dqc(i, d) + kc(i, d) * (read[i * dk + d] - dkc(i, d)); });
      lane.one([=] { gate[i] = sum; });
      lane.each(dk, [=](int64_t d) { dkc(i, d) = dkc(i, d) + read[i * dk + d]; });
    });
  }
};

/// dg_t = sum over i >= t of the terms, from the last token on. A team a stream.
template <class T> struct DeltaGateSums {
  DeltaShape<T> shape;
  const T *gate_terms;
  T *grad_g;

  [[nodiscard]] int64_t teams() const { return shape.streams(); }
  [[nodiscard]] int64_t scratch() const { return kDeltaChunk + 1; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t stream) const {
    const auto sh = shape;
    T *const terms = team.scratch, *const suffix = terms + kDeltaChunk;
    team.each(1, [=](int64_t) { *suffix = T(0); });
    for (int64_t chunk = sh.chunk_count() - 1; chunk >= 0; --chunk) {
      const DeltaChunk<T> at(sh, stream, chunk);
      const View<T> dgc{grad_g + at.gates, sh.heads};
      const T *const gate = gate_terms + at.token;
      team.each(at.n, [=](int64_t i) { terms[i] = gate[i]; });
      team.each(1, [=](int64_t) {
        T sum = *suffix;
        for (int64_t i = at.n - 1; i >= 0; --i) {
          sum += terms[i];
          dgc(i, 0) = sum;
        }
        *suffix = sum;
      });
    }
  }
};

/// dq, dk, dv, dg, dbeta from do, by four kernels; `saved` is forward's. dg_t = sum over i >= t of (q_i dq_i
/// + k_i dk_i as it reads the state - k_i dk_i as it writes to it).
template <class T> struct DeltaBackward {
  DeltaShape<T> shape;
  const T *grad_o, *q, *k, *v, *g, *beta;
  T *grad_q, *grad_k, *grad_v, *grad_g, *grad_beta;
  const T *saved;
  T *work; // shape.work()

  template <class Runner> void run_on(Runner &runner) const {
    T *const grads = work + shape.products(), *const terms = grads + shape.saved();
    runner.run(DeltaProducts<T>{shape, q, k, g, beta, work, true});
    runner.run(DeltaStateGradients<T>{shape, grad_o, q, k, beta, work, grad_v, grads});
    runner.run(DeltaGradients<T>{shape, grad_o, q, k, beta, work, saved, grads, grad_v, grad_q, grad_k,
                                 grad_beta, terms});
    runner.run(DeltaGateSums<T>{shape, terms, grad_g});
  }
};

} // namespace nvfp4::models
