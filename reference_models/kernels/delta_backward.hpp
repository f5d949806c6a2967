// SPDX-License-Identifier: Apache-2.0
// The gated delta rule, backward: dq, dk, dv, dg, dbeta from do and what forward saved. t, the gradient of u,
// and the states' gradients go through a sequence from its end, value columns apart; the rest is computed for
// all chunks at once.
#pragma once
#include "nvfp4/reference_models/kernels/delta.hpp"

namespace nvfp4::models {

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
      for (int64_t s = (n - 1) / kDeltaSub * kDeltaSub; s >= 0; s -= kDeltaSub) {
        const int64_t end = numerics::min(s + kDeltaSub, n);
        if (end < n)
          team.matmul(end - s, width, n - end, lower.at(end, s).transposed(), t.at(end, 0), t.at(s, 0), true);
        team.solve(end - s, width, lower.at(s, s).transposed(), t.at(s, 0), true);
      }
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

/// dq, dk, dbeta, and each token's term of the gates' gradients. A team a chunk.
template <class T> struct DeltaGradients {
  DeltaShape<T> shape;
  const T *grad_o, *q, *k, *beta, *saved, *grads, *grad_v;
  T *grad_q, *grad_k, *grad_beta, *gate_terms; // gate_terms (streams, length)

  static constexpr int64_t kTurned = kDeltaChunk + 1; ///< pitch of what is transposed: spreads memory banks
  static constexpr int64_t kPart = 128;               ///< value columns whose u are in scratch at a time

  [[nodiscard]] int64_t teams() const { return shape.chunks(); }
  [[nodiscard]] int64_t scratch() const {
    return 2 * kDeltaChunk * kDeltaChunk +
           numerics::max(kDeltaChunk * shape.key, kTurned * numerics::min(kPart, shape.value));
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
        x{team.scratch, C}, y = x.at(C, 0), read{team.scratch + 2 * C * C, dk};
    const View<T> ut{read.data, kTurned}; // before `read`
    T *const gate = gate_terms + at.token;
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
    fill(team, n, n, x, [=](int64_t i, int64_t j) {
      const T p = -(x(i, j) * decays(i, j + 1));
      return j < i ? p : T(0);
    });
    fill(team, n, n, y, [=](int64_t i, int64_t j) {
      const T p = (y(i, j) * decays(i, j + 1)) * scale;
      return j <= i ? p : T(0);
    });
    // through the state before the chunk
    team.matmul(n, dk, dv, doc, state.transposed(), dqc);
    team.matmul(n, dk, dv, dvc, state.transposed(), read);
    fill(team, n, dk, dqc, [=](int64_t i, int64_t d) { return (dqc(i, d) * decays(i, 0)) * scale; });
    fill(team, n, dk, read, [=](int64_t i, int64_t d) { return -(read(i, d) * decays(i, 0)); });
    fill(team, n, dk, dkc, [=](int64_t i, int64_t d) { return dkc(i, d) * decays(n - 1, i + 1); });
    team.matmul(n, dk, n, y, kc, dqc, true);
    team.matmul(n, dk, n, x, kc, read, true);
    team.matmul(n, dk, n, y.transposed(), qc, dkc, true);
    team.matmul(n, dk, n, x.transposed(), kc, dkc, true);
    team.rows(n, [=](int64_t i, const auto &lane) {
      const T sum =
          lane.sum(dk, [=](int64_t d) { return qc(i, d) * dqc(i, d) + kc(i, d) * (read(i, d) - dkc(i, d)); });
      lane.one([=] { gate[i] = sum; });
    });
    fill(team, n, dk, dkc, [=](int64_t i, int64_t d) { return dkc(i, d) + read(i, d); });
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

/// dq, dk, dv, dg, dbeta from do, by three kernels; `saved` is forward's. dg_t = sum over i >= t of (q_i dq_i
/// + k_i dk_i as it reads the state - k_i dk_i as it writes to it).
template <class T> struct DeltaBackward {
  DeltaShape<T> shape;
  const T *grad_o, *q, *k, *v, *g, *beta;
  T *grad_q, *grad_k, *grad_v, *grad_g, *grad_beta;
  const T *saved;
  T *work; // shape.work()

  template <class Runner> void run_on(Runner &runner) const {
    T *const grads = work, *const terms = grads + shape.recurrence();
    runner.run(DeltaStateGradients<T>{shape, grad_o, q, k, beta, saved, grad_v, grads});
    runner.run(
        DeltaGradients<T>{shape, grad_o, q, k, beta, saved, grads, grad_v, grad_q, grad_k, grad_beta, terms});
    runner.run(DeltaGateSums<T>{shape, terms, grad_g});
  }
};

} // namespace nvfp4::models
