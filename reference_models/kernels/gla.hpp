// SPDX-License-Identifier: Apache-2.0
// Gated linear attention, chunkwise (Yang et al. 2023; spec in README.md). One team a sequence and head.
// Chunks of 64 with sub-chunks of 16: products of decays across sub-chunks are split at a sub-chunk's start,
// so that every exponent is at most 0 and no gate, however small, overflows; inside a sub-chunk each pair has
// its own exponential.
#pragma once
#include "reference_models/kernels/team.hpp"

namespace nvfp4::models {

inline constexpr int64_t kGlaChunk = 64, kGlaSub = 16;

/// What forward and backward share. Rows of q, k, g have stride heads * key, rows of v and o heads * value.
template <class T> struct GlaShape {
  int64_t batch, length, heads, key, value;
  T scale; ///< key^-1/2

  [[nodiscard]] NVFP4_INLINE int64_t teams() const { return batch * heads; }
  [[nodiscard]] NVFP4_INLINE int64_t chunk_count() const { return (length + kGlaChunk - 1) / kGlaChunk; }
  /// Elements a team keeps from forward to backward: b (length, key), A (length, 64), states (chunks + 1,
  /// key, value).
  [[nodiscard]] NVFP4_INLINE int64_t saved() const {
    return length * (key + kGlaChunk) + (chunk_count() + 1) * key * value;
  }
  /// Elements of scratch a team needs.
  [[nodiscard]] NVFP4_INLINE int64_t scratch() const {
    return 8 * kGlaChunk * key + kGlaChunk * kGlaChunk + 2 * key * value + 2 * key;
  }
  NVFP4_INLINE T *b(T *saved_team) const { return saved_team; }
  NVFP4_INLINE T *scores(T *saved_team) const { return saved_team + length * key; }
  NVFP4_INLINE T *states(T *saved_team) const { return saved_team + length * (key + kGlaChunk); }
};

/// o_t = scale q_t S_t with S_t = diag(exp(g_t)) S_{t-1} + k_t^T v_t.
template <class T> struct GlaForward {
  GlaShape<T> shape;
  const T *q, *k, *v, *g;
  T *o;
  T *saved, *scratch; // (teams, shape.saved()), (teams, shape.scratch())

  [[nodiscard]] int64_t teams() const { return shape.teams(); }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const int64_t dk = sh.key, dv = sh.value, kd = sh.heads * dk, vd = sh.heads * dv;
    const int64_t first_row = index / sh.heads * sh.length, head = index % sh.heads;
    T *keep = saved + index * sh.saved();
    T *work = scratch + index * sh.scratch();
    T *const qs = work, *const kt = qs + kGlaChunk * dk, *const bt = kt + kGlaChunk * dk,
             *const kk = bt + kGlaChunk * dk;
    T *state = sh.states(keep);
    team.each(dk * dv, [=](int64_t i) { state[i] = T(0); });
    for (int64_t c = 0; c < sh.length; c += kGlaChunk, state += dk * dv) {
      const int64_t n = numerics::min(kGlaChunk, sh.length - c);
      const View<const T> qc{q + (first_row + c) * kd + head * dk, kd},
          kc{k + (first_row + c) * kd + head * dk, kd}, gc{g + (first_row + c) * kd + head * dk, kd},
          vc{v + (first_row + c) * vd + head * dv, vd};
      const View<T> oc{o + (first_row + c) * vd + head * dv, vd};
      T *const b = sh.b(keep) + c * dk, *const a = sh.scores(keep) + c * kGlaChunk;
      const T scale = sh.scale;
      team.each(dk, [=](int64_t d) { // decay from the chunk's start, also by key
        T sum = T(0);
        for (int64_t i = 0; i < n; ++i) {
          sum += gc(i, d);
          b[i * dk + d] = sum;
          bt[d * kGlaChunk + i] = sum;
          kk[d * kGlaChunk + i] = kc(i, d);
        }
      });
      // from the state before the chunk
      team.rows(n, [=](int64_t i, const auto &lane) {
        lane.each(dk, [=](int64_t d) { qs[i * dk + d] = (qc(i, d) * numerics::exp(b[i * dk + d])) * scale; });
      });
      team.matmul(n, dv, dk, {qs, dk}, {state, dv}, oc);
      for (int64_t s = 0; s < n; s += kGlaSub) {
        const int64_t m = numerics::min(kGlaSub, n - s);
        if (s > 0) { // earlier sub-chunks, both factors decaying to or from the start of this one
          const T *ref = b + (s - 1) * dk;
          team.rows(m, [=](int64_t i, const auto &lane) {
            lane.each(dk, [=](int64_t d) {
              qs[i * dk + d] = (qc(s + i, d) * numerics::exp(b[(s + i) * dk + d] - ref[d])) * scale;
            });
          });
          team.rows(dk, [=](int64_t d, const auto &lane) {
            const T r = ref[d];
            lane.each(s, [=](int64_t j) {
              kt[d * kGlaChunk + j] = kk[d * kGlaChunk + j] * numerics::exp(r - bt[d * kGlaChunk + j]);
            });
          });
          team.matmul(m, s, dk, {qs, dk}, {kt, kGlaChunk}, {a + s * kGlaChunk, kGlaChunk});
        }
        team.contract(
            m, m, dk,
            [=](int64_t i, int64_t j, int64_t d, T acc) {
              const T e = numerics::exp(b[(s + i) * dk + d] - bt[d * kGlaChunk + s + j]);
              return numerics::fma(qc(s + i, d) * e, kk[d * kGlaChunk + s + j], acc);
            },
            [=](int64_t i, int64_t j, T acc) {
              a[(s + i) * kGlaChunk + s + j] = j <= i ? acc * scale : T(0);
            });
        team.matmul(m, dv, s + m, {a + s * kGlaChunk, kGlaChunk}, vc, oc.at(s, 0), true);
      }
      // the state after the chunk
      const T *last = b + (n - 1) * dk;
      T *const next = state + dk * dv;
      team.rows(n, [=](int64_t j, const auto &lane) {
        lane.each(dk, [=](int64_t d) { qs[j * dk + d] = kc(j, d) * numerics::exp(last[d] - b[j * dk + d]); });
      });
      team.rows(dk, [=](int64_t d, const auto &lane) {
        const T decay = numerics::exp(last[d]);
        lane.each(dv, [=](int64_t e) { next[d * dv + e] = decay * state[d * dv + e]; });
      });
      team.matmul(dk, dv, n, {qs, 1, dk}, vc, {next, dv}, true);
    }
  }
};

/// dq, dk, dv, dg from do; `saved` is forward's. dg_t = sum over i >= t of (q_i dq_i - k_i dk_i), as in fla.
template <class T> struct GlaBackward {
  GlaShape<T> shape;
  const T *grad_o, *q, *k, *v;
  T *grad_q, *grad_k, *grad_v, *grad_g;
  T *saved, *scratch;

  [[nodiscard]] int64_t teams() const { return shape.teams(); }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const int64_t dk = sh.key, dv = sh.value, kd = sh.heads * dk, vd = sh.heads * dv;
    const int64_t first_row = index / sh.heads * sh.length, head = index % sh.heads;
    T *keep = saved + index * sh.saved();
    T *work = scratch + index * sh.scratch();
    T *const khat = work, *const qhat = khat + kGlaChunk * dk, *const part = qhat + kGlaChunk * dk,
             *const da = part + kGlaChunk * dk, *const ds = da + kGlaChunk * kGlaChunk,
             *const suffix = ds + dk * dv;
    const T scale = sh.scale;
    team.each(dk * dv, [=](int64_t i) { ds[i] = T(0); });
    team.each(dk, [=](int64_t d) { suffix[d] = T(0); });
    for (int64_t chunk = sh.chunk_count() - 1; chunk >= 0; --chunk) {
      const int64_t c = chunk * kGlaChunk, n = numerics::min(kGlaChunk, sh.length - c);
      const int64_t at_k = (first_row + c) * kd + head * dk, at_v = (first_row + c) * vd + head * dv;
      const View<const T> qc{q + at_k, kd}, kc{k + at_k, kd}, vc{v + at_v, vd}, doc{grad_o + at_v, vd};
      const View<T> dqc{grad_q + at_k, kd}, dkc{grad_k + at_k, kd}, dvc{grad_v + at_v, vd},
          dgc{grad_g + at_k, kd};
      const T *const b = sh.b(keep) + c * dk, *const a = sh.scores(keep) + c * kGlaChunk;
      const T *const state = sh.states(keep) + chunk * dk * dv;
      const T *const last = b + (n - 1) * dk;
      // through the states
      team.rows(n, [=](int64_t j, const auto &lane) {
        lane.each(dk,
                  [=](int64_t d) { khat[j * dk + d] = kc(j, d) * numerics::exp(last[d] - b[j * dk + d]); });
      });
      team.matmul(n, dv, dk, {khat, dk}, {ds, dv}, dvc);
      team.matmul(n, dk, dv, doc, {state, 1, dv}, {part, dk});
      team.rows(n, [=](int64_t i, const auto &lane) {
        lane.each(dk,
                  [=](int64_t d) { dqc(i, d) = (part[i * dk + d] * numerics::exp(b[i * dk + d])) * scale; });
      });
      team.matmul(n, dk, dv, vc, {ds, 1, dv}, {part, dk});
      team.rows(n, [=](int64_t j, const auto &lane) {
        lane.each(dk,
                  [=](int64_t d) { dkc(j, d) = part[j * dk + d] * numerics::exp(last[d] - b[j * dk + d]); });
      });
      for (int64_t s = 0; s < n; s += kGlaSub) {
        const int64_t m = numerics::min(kGlaSub, n - s);
        // dv_j += A_ij do_i and dA_ij = do_i v_j for j <= i
        team.matmul(s + m, dv, m, {a + s * kGlaChunk, 1, kGlaChunk}, doc.at(s, 0), dvc, true);
        team.matmul(m, s + m, dv, doc.at(s, 0), vc.transposed(), {da + s * kGlaChunk, kGlaChunk});
        T *const das = da + s * kGlaChunk; // rows of this sub-chunk
        if (s > 0) {
          const T *ref = b + (s - 1) * dk;
          team.rows(s, [=](int64_t j, const auto &lane) {
            lane.each(
                dk, [=](int64_t d) { khat[j * dk + d] = kc(j, d) * numerics::exp(ref[d] - b[j * dk + d]); });
          });
          team.rows(m, [=](int64_t i, const auto &lane) {
            lane.each(dk, [=](int64_t d) {
              qhat[i * dk + d] = qc(s + i, d) * numerics::exp(b[(s + i) * dk + d] - ref[d]);
            });
          });
          team.matmul(m, dk, s, {das, kGlaChunk}, {khat, dk}, {part, dk});
          team.rows(m, [=](int64_t i, const auto &lane) {
            lane.each(dk, [=](int64_t d) {
              const T e = numerics::exp(b[(s + i) * dk + d] - ref[d]);
              dqc(s + i, d) = dqc(s + i, d) + (part[i * dk + d] * e) * scale;
            });
          });
          team.matmul(s, dk, m, {das, 1, kGlaChunk}, {qhat, dk}, {part, dk});
          team.rows(s, [=](int64_t j, const auto &lane) {
            lane.each(dk, [=](int64_t d) {
              dkc(j, d) = dkc(j, d) + (part[j * dk + d] * numerics::exp(ref[d] - b[j * dk + d])) * scale;
            });
          });
        }
        team.contract(
            m, dk, m,
            [=](int64_t i, int64_t d, int64_t j, T acc) {
              const T e = numerics::exp(b[(s + i) * dk + d] - b[(s + j) * dk + d]);
              const T next = numerics::fma(das[i * kGlaChunk + s + j] * e, kc(s + j, d), acc);
              return j <= i ? next : acc;
            },
            [=](int64_t i, int64_t d, T acc) { dqc(s + i, d) = dqc(s + i, d) + acc * scale; });
        team.contract(
            m, dk, m,
            [=](int64_t j, int64_t d, int64_t i, T acc) {
              const T e = numerics::exp(b[(s + i) * dk + d] - b[(s + j) * dk + d]);
              const T next = numerics::fma(das[i * kGlaChunk + s + j] * e, qc(s + i, d), acc);
              return i >= j ? next : acc;
            },
            [=](int64_t j, int64_t d, T acc) { dkc(s + j, d) = dkc(s + j, d) + acc * scale; });
      }
      // the gradient of the state before the chunk, and of the gates
      team.rows(n, [=](int64_t i, const auto &lane) {
        lane.each(dk,
                  [=](int64_t d) { qhat[i * dk + d] = (qc(i, d) * numerics::exp(b[i * dk + d])) * scale; });
      });
      team.rows(dk, [=](int64_t d, const auto &lane) {
        const T decay = numerics::exp(last[d]);
        lane.each(dv, [=](int64_t e) { ds[d * dv + e] = decay * ds[d * dv + e]; });
      });
      team.matmul(dk, dv, n, {qhat, 1, dk}, doc, {ds, dv}, true);
      team.each(dk, [=](int64_t d) {
        T sum = suffix[d];
        for (int64_t i = n - 1; i >= 0; --i) {
          sum += qc(i, d) * dqc(i, d) - kc(i, d) * dkc(i, d);
          dgc(i, d) = sum;
        }
        suffix[d] = sum;
      });
    }
  }
};

} // namespace nvfp4::models
