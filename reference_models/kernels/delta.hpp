// SPDX-License-Identifier: Apache-2.0
// The gated delta rule (Yang et al. 2024, "Gated Delta Networks"), chunkwise. For each token
//   S <- exp(g) S,  r = v - k S,  u = beta r,  S <- S + k^T u,  o = scale q S.
// Inside a chunk of 64 the r solve a triangular system, since r_i = v_i - d_i k_i S_0 - sum over j < i of
// d_ij (k_i k_j) u_j with S_0 the state before the chunk and d the decay from its start or from j to i; all
// other steps are matrix products. A decay is the exponential of a sum of gates that is never taken as a
// difference, so strong gates lose no accuracy.
#pragma once
#include "reference_models/kernels/team.hpp"

namespace nvfp4::models {

inline constexpr int64_t kDeltaChunk = 64, kDeltaSub = 16;

/// What forward and backward share. Rows of q and k have stride heads * key, of v and o heads * value, of g
/// and beta heads.
template <class T> struct DeltaShape {
  int64_t batch, length, heads, key, value;
  T scale; ///< key^-1/2

  static constexpr int64_t kDecays = kDeltaChunk + 1; ///< a row: from the chunk's start, then from each token

  [[nodiscard]] NVFP4_INLINE int64_t teams() const { return batch * heads; }
  [[nodiscard]] NVFP4_INLINE int64_t chunk_count() const { return (length + kDeltaChunk - 1) / kDeltaChunk; }
  /// Elements a team keeps from forward to backward: r (length, value), states (chunks + 1, key, value).
  [[nodiscard]] NVFP4_INLINE int64_t saved() const {
    return length * value + (chunk_count() + 1) * key * value;
  }
  /// Elements of scratch a team needs.
  [[nodiscard]] NVFP4_INLINE int64_t scratch() const {
    return kDeltaChunk * (4 * key + 3 * value + 4 * kDeltaChunk + kDecays + 1) + key * value + 1;
  }

  /// decays (n, 65): d[i][0] = exp(g_0 + ... + g_i), d[i][j + 1] = exp(g_{j + 1} + ... + g_i), 0 for j > i.
  template <class Team>
  NVFP4_INLINE void make_decays(const Team &team, int64_t n, View<const T> g, T *decays) const {
    team.each(n + 1, [=](int64_t j) {
      T sum = T(0);
      for (int64_t i = 0; i < n; ++i) {
        sum = i >= j ? sum + g(i, 0) : T(0);
        decays[i * kDecays + j] = sum;
      }
    });
    team.rows(n, [=](int64_t i, const auto &lane) {
      lane.each(n + 1, [=](int64_t j) {
        const T e = numerics::exp(decays[i * kDecays + j]);
        decays[i * kDecays + j] = j <= i + 1 ? e : T(0);
      });
    });
  }
};

/// x (n, n) <- x with the rows (i) and columns (j) of f(x, i, j).
template <class Team, class T, class F> NVFP4_INLINE void map_square(const Team &team, int64_t n, T *x, F f) {
  team.rows(n, [=](int64_t i, const auto &lane) {
    lane.each(n, [=](int64_t j) { x[i * kDeltaChunk + j] = f(x[i * kDeltaChunk + j], i, j); });
  });
}

template <class T> struct DeltaForward {
  DeltaShape<T> shape;
  const T *q, *k, *v, *g, *beta;
  T *o;
  T *saved, *scratch; // (teams, shape.saved()), (teams, shape.scratch())

  [[nodiscard]] int64_t teams() const { return shape.teams(); }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    constexpr int64_t C = kDeltaChunk, D = DeltaShape<T>::kDecays;
    const auto sh = shape;
    const int64_t dk = sh.key, dv = sh.value, kd = sh.heads * dk, vd = sh.heads * dv;
    const int64_t first_row = index / sh.heads * sh.length, head = index % sh.heads;
    T *keep = saved + index * sh.saved();
    T *const kt = scratch + index * sh.scratch(), *const rows = kt + C * dk, *const u = rows + C * dk,
             *const below = u + C * dv, *const a = below + C * C, *const decays = a + C * C;
    T *state = keep + sh.length * dv;
    const T scale = sh.scale;
    team.each(dk * dv, [=](int64_t i) { state[i] = T(0); });
    for (int64_t c = 0; c < sh.length; c += C, state += dk * dv) {
      const int64_t n = numerics::min(C, sh.length - c);
      const View<const T> qc{q + (first_row + c) * kd + head * dk, kd},
          kc{k + (first_row + c) * kd + head * dk, kd}, vc{v + (first_row + c) * vd + head * dv, vd},
          gc{g + (first_row + c) * sh.heads + head, sh.heads},
          bc{beta + (first_row + c) * sh.heads + head, sh.heads};
      const View<T> oc{o + (first_row + c) * vd + head * dv, vd};
      T *const r = keep + c * dv;
      sh.make_decays(team, n, gc, decays);
      team.rows(dk, [=](int64_t d, const auto &lane) {
        lane.each(n, [=](int64_t j) { kt[d * C + j] = kc(j, d); });
      });
      team.matmul(n, n, dk, kc, {kt, C}, {below, C});
      team.matmul(n, n, dk, qc, {kt, C}, {a, C});
      map_square(team, n, below, [=](T x, int64_t i, int64_t j) {
        return j < i ? -(x * decays[i * D + j + 1]) * bc(j, 0) : T(0);
      });
      map_square(team, n, a, [=](T x, int64_t i, int64_t j) {
        return j <= i ? (x * decays[i * D + j + 1]) * scale : T(0);
      });
      // r: what the state before the chunk leaves of v, then the triangular system
      team.rows(n, [=](int64_t i, const auto &lane) {
        lane.each(dk, [=](int64_t d) { rows[i * dk + d] = -(kc(i, d) * decays[i * D]); });
        lane.each(dv, [=](int64_t e) { r[i * dv + e] = vc(i, e); });
      });
      team.matmul(n, dv, dk, {rows, dk}, {state, dv}, {r, dv}, true);
      for (int64_t s = 0; s < n; s += kDeltaSub) {
        const int64_t end = numerics::min(s + kDeltaSub, n);
        if (s > 0) team.matmul(end - s, dv, s, {below + s * C, C}, {r, dv}, {r + s * dv, dv}, true);
        for (int64_t i = s + 1; i < end; ++i)
          team.matmul(1, dv, i - s, {below + i * C + s, C}, {r + s * dv, dv}, {r + i * dv, dv}, true);
      }
      team.rows(n, [=](int64_t i, const auto &lane) {
        const T step = bc(i, 0);
        lane.each(dv, [=](int64_t e) { u[i * dv + e] = r[i * dv + e] * step; });
        lane.each(dk, [=](int64_t d) { rows[i * dk + d] = (qc(i, d) * decays[i * D]) * scale; });
      });
      team.matmul(n, dv, dk, {rows, dk}, {state, dv}, oc);
      team.matmul(n, dv, n, {a, C}, {u, dv}, oc, true);
      // the state after the chunk
      const T *last = decays + (n - 1) * D;
      T *const next = state + dk * dv;
      team.rows(n, [=](int64_t j, const auto &lane) {
        lane.each(dk, [=](int64_t d) { rows[j * dk + d] = kc(j, d) * last[j + 1]; });
      });
      team.each(dk * dv, [=](int64_t i) { next[i] = last[0] * state[i]; });
      team.matmul(dk, dv, n, {rows, 1, dk}, {u, dv}, {next, dv}, true);
    }
  }
};

/// dq, dk, dv, dg, dbeta from do; `saved` is forward's. dg_t = sum over i >= t of (q_i dq_i + k_i dk_i as it
/// reads the state
/// - k_i dk_i as it writes to it).
template <class T> struct DeltaBackward {
  DeltaShape<T> shape;
  const T *grad_o, *q, *k, *v, *g, *beta;
  T *grad_q, *grad_k, *grad_v, *grad_g, *grad_beta;
  const T *saved;
  T *scratch;

  [[nodiscard]] int64_t teams() const { return shape.teams(); }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    constexpr int64_t C = kDeltaChunk, D = DeltaShape<T>::kDecays;
    const auto sh = shape;
    const int64_t dk = sh.key, dv = sh.value, kd = sh.heads * dk, vd = sh.heads * dv;
    const int64_t first_row = index / sh.heads * sh.length, head = index % sh.heads;
    const T *keep = saved + index * sh.saved();
    T *const kt = scratch + index * sh.scratch(), *const qs = kt + C * dk, *const ks = qs + C * dk,
             *const read = ks + C * dk, *const u = read + C * dk, *const ut = u + C * dv,
             *const t = ut + C * dv, *const below = t + C * dv, *const a = below + C * C,
             *const x = a + C * C, *const y = x + C * C, *const decays = y + C * C,
             *const gate = decays + C * D, *const ds = gate + C, *const suffix = ds + dk * dv;
    const T scale = sh.scale;
    team.each(dk * dv, [=](int64_t i) { ds[i] = T(0); });
    team.each(1, [=](int64_t) { *suffix = T(0); });
    for (int64_t chunk = sh.chunk_count() - 1; chunk >= 0; --chunk) {
      const int64_t c = chunk * C, n = numerics::min(C, sh.length - c);
      const int64_t at_k = (first_row + c) * kd + head * dk, at_v = (first_row + c) * vd + head * dv,
                    at_g = (first_row + c) * sh.heads + head;
      const View<const T> qc{q + at_k, kd}, kc{k + at_k, kd}, doc{grad_o + at_v, vd}, gc{g + at_g, sh.heads},
          bc{beta + at_g, sh.heads};
      const View<T> dqc{grad_q + at_k, kd}, dkc{grad_k + at_k, kd}, dvc{grad_v + at_v, vd},
          dgc{grad_g + at_g, sh.heads}, dbc{grad_beta + at_g, sh.heads};
      const T *const r = keep + c * dv, *const state = keep + sh.length * dv + chunk * dk * dv;
      const T *const last = decays + (n - 1) * D;
      sh.make_decays(team, n, gc, decays);
      team.rows(dk, [=](int64_t d, const auto &lane) {
        lane.each(n, [=](int64_t j) { kt[d * C + j] = kc(j, d); });
      });
      team.matmul(n, n, dk, kc, {kt, C}, {below, C});
      team.matmul(n, n, dk, qc, {kt, C}, {a, C});
      map_square(team, n, below, [=](T p, int64_t i, int64_t j) {
        return j < i ? -(p * decays[i * D + j + 1]) * bc(i, 0) : T(0);
      });
      map_square(team, n, a, [=](T p, int64_t i, int64_t j) {
        return j <= i ? (p * decays[i * D + j + 1]) * scale : T(0);
      });
      team.rows(n, [=](int64_t j, const auto &lane) {
        const T step = bc(j, 0);
        lane.each(dv, [=](int64_t e) {
          u[j * dv + e] = r[j * dv + e] * step;
          ut[e * C + j] = r[j * dv + e] * step;
        });
        lane.each(dk, [=](int64_t d) { ks[j * dk + d] = kc(j, d) * last[j + 1]; });
      });
      // t, the gradient of u: through o and the state after the chunk, then through later r, last row first
      team.matmul(n, dv, dk, {ks, dk}, {ds, dv}, {t, dv});
      team.matmul(n, dv, n, {a, 1, C}, doc, {t, dv}, true);
      for (int64_t s = (n - 1) / kDeltaSub * kDeltaSub; s >= 0; s -= kDeltaSub) {
        const int64_t end = numerics::min(s + kDeltaSub, n);
        if (end < n)
          team.matmul(end - s, dv, n - end, {below + end * C + s, 1, C}, {t + end * dv, dv}, {t + s * dv, dv},
                      true);
        for (int64_t j = end - 2; j >= s; --j)
          team.matmul(1, dv, end - 1 - j, {below + (j + 1) * C + j, 1, C}, {t + (j + 1) * dv, dv},
                      {t + j * dv, dv}, true);
      }
      team.rows(n, [=](int64_t i, const auto &lane) {
        const T step = bc(i, 0);
        const T sum = lane.sum(dv, [=](int64_t e) { return t[i * dv + e] * r[i * dv + e]; });
        lane.one([=] { dbc(i, 0) = sum; });
        lane.each(dv, [=](int64_t e) { dvc(i, e) = t[i * dv + e] * step; });
      });
      // gradients of the products k_i k_j (x) and q_i k_j (y)
      team.matmul(n, n, dv, dvc, {ut, C}, {x, C});
      team.matmul(n, n, dv, doc, {ut, C}, {y, C});
      map_square(team, n, x,
                 [=](T p, int64_t i, int64_t j) { return j < i ? -(p * decays[i * D + j + 1]) : T(0); });
      map_square(team, n, y, [=](T p, int64_t i, int64_t j) {
        return j <= i ? (p * decays[i * D + j + 1]) * scale : T(0);
      });
      // through the states
      team.matmul(n, dk, dv, doc, {state, 1, dv}, dqc);
      team.matmul(n, dk, dv, dvc, {state, 1, dv}, {read, dk});
      team.matmul(n, dk, dv, {u, dv}, {ds, 1, dv}, dkc);
      team.rows(n, [=](int64_t i, const auto &lane) {
        const T in = decays[i * D], out = last[i + 1];
        lane.each(dk, [=](int64_t d) {
          dqc(i, d) = (dqc(i, d) * in) * scale;
          read[i * dk + d] = -(read[i * dk + d] * in);
          dkc(i, d) = dkc(i, d) * out;
          qs[i * dk + d] = (qc(i, d) * in) * scale;
          ks[i * dk + d] = -(kc(i, d) * in);
        });
      });
      team.matmul(n, dk, n, {y, C}, kc, dqc, true);
      team.matmul(n, dk, n, {x, C}, kc, {read, dk}, true);
      team.matmul(n, dk, n, {y, 1, C}, qc, dkc, true);
      team.matmul(n, dk, n, {x, 1, C}, kc, dkc, true);
      team.each(dk * dv, [=](int64_t i) { ds[i] = last[0] * ds[i]; });
      team.matmul(dk, dv, n, {qs, 1, dk}, doc, {ds, dv}, true);
      team.matmul(dk, dv, n, {ks, 1, dk}, dvc, {ds, dv}, true);
      team.rows(n, [=](int64_t i, const auto &lane) {
        const T sum = lane.sum(
            dk, [=](int64_t d) { return qc(i, d) * dqc(i, d) + kc(i, d) * (read[i * dk + d] - dkc(i, d)); });
        lane.one([=] { gate[i] = sum; });
        lane.each(dk, [=](int64_t d) { dkc(i, d) = dkc(i, d) + read[i * dk + d]; });
      });
      team.each(1, [=](int64_t) {
        T sum = *suffix;
        for (int64_t i = n - 1; i >= 0; --i) {
          sum += gate[i];
          dgc(i, 0) = sum;
        }
        *suffix = sum;
      });
    }
  }
};

} // namespace nvfp4::models
