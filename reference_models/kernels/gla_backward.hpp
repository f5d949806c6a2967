// SPDX-License-Identifier: Apache-2.0
// Gated linear attention, backward: dq, dk, dv, dg from do and what forward saved. The states' gradients and
// the gates' sums go through a sequence from its end; the rest is computed for all chunks at once.
#pragma once
#include "nvfp4/reference_models/kernels/gla.hpp"

namespace nvfp4::models {

/// dS after each chunk, with respect to o of later ones: 0 after the last, and before a chunk
/// diag(exp(b_n)) dS + sum over i of scale (exp(b_i) q_i)^T do_i. A team takes some value columns of a
/// stream.
template <class T> struct GlaStateGradients {
  GlaShape<T> shape;
  const T *grad_o, *q, *saved;
  T *grad_states; // (streams, chunks, key, value)

  [[nodiscard]] int64_t teams() const { return shape.streams() * shape.tile_count(); }
  [[nodiscard]] int64_t scratch() const { return (kGlaChunk + 1) * shape.key; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const int64_t dk = sh.key, dv = sh.value, first = index % sh.tile_count() * kGlaTile;
    const int64_t width = numerics::min(kGlaTile, dv - first), stream = index / sh.tile_count();
    T *const qhat = team.scratch, *const decay = qhat + kGlaChunk * dk;
    T *ds = grad_states + GlaChunk<T>(sh, stream, sh.chunk_count() - 1).gradient + first;
    T *const end = ds;
    const T scale = sh.scale;
    fill(team, dk, width, View<T>{end, dv}, [=](int64_t, int64_t) { return T(0); });
    for (int64_t chunk = sh.chunk_count() - 1; chunk > 0; --chunk, ds -= dk * dv) {
      const GlaChunk<T> at(sh, stream, chunk);
      const View<const T> qc{q + at.keys, sh.heads * dk}, doc{grad_o + at.values + first, sh.heads * dv};
      const T *const b = saved + at.b, *const last = b + (at.n - 1) * dk, *const after = ds;
      T *const before = ds - dk * dv;
      fill(team, at.n, dk, View<T>{qhat, dk},
           [=](int64_t i, int64_t d) { return (qc(i, d) * numerics::exp(b[i * dk + d])) * scale; });
      fill(team, dk, 1, View<T>{decay, 1}, [=](int64_t d, int64_t) { return numerics::exp(last[d]); });
      fill(team, dk, width, View<T>{before, dv},
           [=](int64_t d, int64_t e) { return decay[d] * after[d * dv + e]; });
      team.matmul(dk, width, at.n, {qhat, 1, dk}, doc, {before, dv}, true);
    }
  }
};

inline constexpr int64_t kGlaEarlier = kGlaChunk - kGlaSub; ///< tokens before the last sub-chunk, at most

/// For gradients of gates that are made otherwise.
struct NothingPassed {
  template <class... Arguments> NVFP4_INLINE void reads(const Arguments &...) const {}
  template <class... Arguments> NVFP4_INLINE void leaves(const Arguments &...) const {}
};

/// dq (n, dk) += what a chunk's own tokens add: scale exp(b_i - b_j) da_ij k_j, from the sub-chunks before
/// the query's, then from its own. khat, part: scratch (48, dk). passed.reads(team, begin, end, f) is called
/// where queries begin to end - 1 read f(i, d) of all that is before `begin`.
template <class Team, class T, class Passed>
NVFP4_INLINE void gla_own_query_gradients(const Team &team, int64_t n, int64_t dk, T scale, const T *da,
                                          const T *b, View<const T> kc, View<T> dqc, T *khat, T *part,
                                          const Passed &passed) {
  for (int64_t s = kGlaSub; s < n; s += kGlaSub) {
    const int64_t m = numerics::min(kGlaSub, n - s);
    const T *const das = da + s * kGlaChunk, *const ref = b + (s - 1) * dk;
    const auto read = [=](int64_t i, int64_t d) {
      return (part[i * dk + d] * numerics::exp(b[(s + i) * dk + d] - ref[d])) * scale;
    };
    fill(team, s, dk, View<T>{khat, dk},
         [=](int64_t j, int64_t d) { return kc(j, d) * numerics::exp(ref[d] - b[j * dk + d]); });
    team.matmul(m, dk, s, {das, kGlaChunk}, {khat, dk}, {part, dk});
    fill(team, m, dk, dqc.at(s, 0), [=](int64_t i, int64_t d) { return dqc(s + i, d) + read(i, d); });
    passed.reads(team, s, s + m, read);
  }
  team.contract(
      n, dk,
      [=](int64_t i) {
        return Range{i / kGlaSub * kGlaSub, i + 1};
      },
      [=](int64_t i, int64_t d, int64_t j, T acc) {
        return gla_pair(da[i * kGlaChunk + j], kc(j, d), b[i * dk + d], b[j * dk + d], acc);
      },
      [=](int64_t i, int64_t d, T acc) { dqc(i, d) = dqc(i, d) + acc * scale; });
}

/// dk (n, dk) += scale exp(b_i - b_j) da_ij q_i, from the queries of a key's own sub-chunk, then from later
/// ones. qhat, part: scratch (16, dk), (48, dk). passed.leaves(team, end, f) is called where keys before
/// `end` leave f(j, d) to all that is at or after it.
template <class Team, class T, class Passed>
NVFP4_INLINE void gla_own_key_gradients(const Team &team, int64_t n, int64_t dk, T scale, const T *da,
                                        const T *b, View<const T> qc, View<T> dkc, T *qhat, T *part,
                                        const Passed &passed) {
  team.contract(
      n, dk,
      [=](int64_t j) {
        return Range{j, numerics::min((j / kGlaSub + 1) * kGlaSub, n)};
      },
      [=](int64_t j, int64_t d, int64_t i, T acc) {
        return gla_pair(da[i * kGlaChunk + j], qc(i, d), b[i * dk + d], b[j * dk + d], acc);
      },
      [=](int64_t j, int64_t d, T acc) { dkc(j, d) = dkc(j, d) + acc * scale; });
  for (int64_t s = kGlaSub; s < n; s += kGlaSub) {
    const int64_t m = numerics::min(kGlaSub, n - s);
    const T *const das = da + s * kGlaChunk, *const ref = b + (s - 1) * dk;
    const auto left = [=](int64_t j, int64_t d) {
      return (part[j * dk + d] * numerics::exp(ref[d] - b[j * dk + d])) * scale;
    };
    fill(team, m, dk, View<T>{qhat, dk},
         [=](int64_t i, int64_t d) { return qc(s + i, d) * numerics::exp(b[(s + i) * dk + d] - ref[d]); });
    team.matmul(s, dk, m, {das, 1, kGlaChunk}, {qhat, dk}, {part, dk});
    fill(team, s, dk, dkc, [=](int64_t j, int64_t d) { return dkc(j, d) + left(j, d); });
    passed.leaves(team, s, left);
  }
}

/// dq, dk, dv: through the states before and after the chunk, then between its own tokens. A team a chunk.
template <class T> struct GlaGradients {
  GlaShape<T> shape;
  const T *grad_o, *q, *k, *v, *saved, *grad_states;
  T *grad_q, *grad_k, *grad_v;

  [[nodiscard]] NVFP4_INLINE int64_t own_scratch() const {
    return kGlaChunk * kGlaChunk + shape.key * (kGlaChunk + kGlaEarlier);
  }
  [[nodiscard]] int64_t teams() const { return shape.streams() * shape.chunk_count(); }
  [[nodiscard]] int64_t scratch() const { return own_scratch(); }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    run(team, index, NothingPassed{});
  }

  /// The same, telling `passed` also of what goes through the states, over the whole chunk.
  template <class Team, class Passed>
  NVFP4_INLINE void run(const Team &team, int64_t index, const Passed &passed) const {
    const auto sh = shape;
    const GlaChunk<T> at(sh, index / sh.chunk_count(), index % sh.chunk_count());
    const int64_t dk = sh.key, dv = sh.value, kd = sh.heads * dk, vd = sh.heads * dv, n = at.n;
    const View<const T> qc{q + at.keys, kd}, kc{k + at.keys, kd}, vc{v + at.values, vd},
        doc{grad_o + at.values, vd};
    const View<T> dqc{grad_q + at.keys, kd}, dkc{grad_k + at.keys, kd}, dvc{grad_v + at.values, vd};
    const T *const b = saved + at.b, *const a = saved + at.a, *const state = saved + at.state,
                   *const ds = grad_states + at.gradient, *const last = b + (n - 1) * dk;
    T *const da = team.scratch;                 // (64, 64)
    T *const rows = da + kGlaChunk * kGlaChunk; // (64, dk)
    T *const part = rows + kGlaChunk * dk;      // (48, dk)
    const T scale = sh.scale;
    // through the states
    fill(team, n, dk, View<T>{rows, dk},
         [=](int64_t j, int64_t d) { return kc(j, d) * numerics::exp(last[d] - b[j * dk + d]); });
    team.matmul(n, dv, dk, {rows, dk}, {ds, dv}, dvc);
    team.matmul(n, dk, dv, doc, {state, 1, dv}, {rows, dk});
    fill(team, n, dk, dqc,
         [=](int64_t i, int64_t d) { return (rows[i * dk + d] * numerics::exp(b[i * dk + d])) * scale; });
    passed.reads(team, 0, n, dqc);
    team.matmul(n, dk, dv, vc, {ds, 1, dv}, {rows, dk});
    fill(team, n, dk, dkc,
         [=](int64_t j, int64_t d) { return rows[j * dk + d] * numerics::exp(last[d] - b[j * dk + d]); });
    passed.leaves(team, n, dkc);
    // dv_j += A_ij do_i and dA_ij = do_i v_j for j <= i
    for (int64_t s = 0; s < n; s += kGlaSub)
      team.matmul(numerics::min(kGlaSub, n - s), dv, n - s, {a + s * kGlaChunk + s, 1, kGlaChunk},
                  doc.at(s, 0), dvc.at(s, 0), true);
    team.matmul(n, n, dv, doc, vc.transposed(), {da, kGlaChunk});
    gla_own_key_gradients(team, n, dk, scale, da, b, qc, dkc, rows, part, passed);
    gla_own_query_gradients(team, n, dk, scale, da, b, kc, dqc, rows, part, passed);
  }
};

/// dg_t = sum over i >= t of (q_i dq_i - k_i dk_i), as in fla, from the last token on. A team takes some key
/// columns of a stream.
template <class T> struct GlaGateGradients {
  GlaShape<T> shape;
  const T *q, *k, *grad_q, *grad_k;
  T *grad_g;

  static constexpr int64_t kCols = 32;

  [[nodiscard]] NVFP4_INLINE int64_t across() const { return (shape.key + kCols - 1) / kCols; }
  [[nodiscard]] int64_t teams() const { return shape.streams() * across(); }
  [[nodiscard]] int64_t scratch() const { return (kGlaChunk + 1) * kCols; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const int64_t kd = sh.heads * sh.key, first = index % across() * kCols;
    const int64_t width = numerics::min(kCols, sh.key - first);
    T *const terms = team.scratch, *const sums = terms + kGlaChunk * kCols;
    team.each(width, [=](int64_t d) { sums[d] = T(0); });
    for (int64_t chunk = sh.chunk_count() - 1; chunk >= 0; --chunk) {
      const GlaChunk<T> at(sh, index / across(), chunk);
      const int64_t keys = at.keys + first;
      const View<const T> qc{q + keys, kd}, kc{k + keys, kd}, dqc{grad_q + keys, kd}, dkc{grad_k + keys, kd};
      const View<T> dgc{grad_g + keys, kd};
      fill(team, at.n, width, View<T>{terms, kCols},
           [=](int64_t i, int64_t d) { return qc(i, d) * dqc(i, d) - kc(i, d) * dkc(i, d); });
      team.each(width, [=](int64_t d) {
        T sum = sums[d];
        for (int64_t i = at.n - 1; i >= 0; --i) {
          sum += terms[i * kCols + d];
          dgc(i, d) = sum;
        }
        sums[d] = sum;
      });
    }
  }
};

/// dq, dk, dv, dg from do, by three kernels; `saved` is forward's.
template <class T> struct GlaBackward {
  GlaShape<T> shape;
  const T *grad_o, *q, *k, *v;
  T *grad_q, *grad_k, *grad_v, *grad_g;
  const T *saved;
  T *grad_states; // work: shape.states()

  template <class Runner> void run_on(Runner &runner) const {
    runner.run(GlaStateGradients<T>{shape, grad_o, q, saved, grad_states});
    runner.run(GlaGradients<T>{shape, grad_o, q, k, v, saved, grad_states, grad_q, grad_k, grad_v});
    runner.run(GlaGateGradients<T>{shape, q, k, grad_q, grad_k, grad_g});
  }
};

} // namespace nvfp4::models
