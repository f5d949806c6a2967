// SPDX-License-Identifier: Apache-2.0
// Gated linear attention, chunkwise (Yang et al. 2023; spec in README.md), forward. Chunks of 64 tokens with
// sub-chunks of 16: products of decays across sub-chunks are split at a sub-chunk's start, so that every
// exponent is at most 0 and no gate, however small, overflows; inside a sub-chunk each pair has its own
// exponential. Only the states go through a sequence; decays and outputs are computed for all chunks at once.
#pragma once
#include "nvfp4/reference_models/kernels/team.hpp"

namespace nvfp4::models {

inline constexpr int64_t kGlaChunk = 64, kGlaSub = 16;
inline constexpr int64_t kGlaTile = 64; ///< value columns of a team that goes through a sequence

/// What forward and backward share. Rows of q, k, g have stride heads * key, rows of v and o heads * value.
/// A head of a sequence is called a stream: there are batch * heads.
template <class T> struct GlaShape {
  int64_t batch, length, heads, key, value;
  T scale; ///< key^-1/2

  [[nodiscard]] NVFP4_INLINE int64_t streams() const { return batch * heads; }
  [[nodiscard]] NVFP4_INLINE int64_t chunk_count() const { return (length + kGlaChunk - 1) / kGlaChunk; }
  [[nodiscard]] NVFP4_INLINE int64_t tile_count() const { return (value + kGlaTile - 1) / kGlaTile; }
  /// Elements of a state before each chunk, (streams, chunks, key, value); also those of its gradient after
  /// it.
  [[nodiscard]] NVFP4_INLINE int64_t states() const { return streams() * chunk_count() * key * value; }
  /// Elements kept from forward to backward: b (streams, length, key), the sums of gates from a chunk's
  /// start; A (streams, length, 64), the scores inside a chunk; states.
  [[nodiscard]] NVFP4_INLINE int64_t saved() const {
    return streams() * length * (key + kGlaChunk) + states();
  }
};

/// A chunk of a stream: its tokens, and where its part of each array starts.
template <class T> struct GlaChunk {
  int64_t n, keys, values;
  int64_t b, a, state; ///< in `saved`
  int64_t gradient;    ///< in the gradients of states

  NVFP4_INLINE GlaChunk(const GlaShape<T> &s, int64_t stream, int64_t chunk) {
    const int64_t first = chunk * kGlaChunk, row = stream / s.heads * s.length + first,
                  head = stream % s.heads;
    n = numerics::min(kGlaChunk, s.length - first);
    keys = (row * s.heads + head) * s.key;
    values = (row * s.heads + head) * s.value;
    b = (stream * s.length + first) * s.key;
    a = s.streams() * s.length * s.key + (stream * s.length + first) * kGlaChunk;
    gradient = (stream * s.chunk_count() + chunk) * s.key * s.value;
    state = s.streams() * s.length * (s.key + kGlaChunk) + gradient;
  }
};

/// acc + (x exp(b_i - b_j)) y, in two roundings: what a pair of tokens of one sub-chunk adds in one key column.
template <class T> NVFP4_INLINE T gla_pair(T x, T y, T b_i, T b_j, T acc) {
  const T e = numerics::exp(b_i - b_j);
  return numerics::fma(x * e, y, acc);
}

/// b: sums of gates from the start of each chunk. A team a chunk.
template <class T> struct GlaDecays {
  GlaShape<T> shape;
  const T *g;
  T *saved;

  [[nodiscard]] int64_t teams() const { return shape.streams() * shape.chunk_count(); }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const GlaChunk<T> at(sh, index / sh.chunk_count(), index % sh.chunk_count());
    const View<const T> gc{g + at.keys, sh.heads * sh.key};
    T *const b = saved + at.b;
    team.each(sh.key, [=](int64_t d) {
      T sum = T(0);
      for (int64_t i = 0; i < at.n; ++i) {
        sum += gc(i, d);
        b[i * sh.key + d] = sum;
      }
    });
  }
};

/// The states before each chunk: S = 0, then S <- diag(exp(b_n)) S + sum over j of exp(b_n - b_j) k_j^T v_j.
/// A team takes some value columns of a stream.
template <class T> struct GlaStates {
  GlaShape<T> shape;
  const T *k, *v;
  T *saved;

  [[nodiscard]] int64_t teams() const { return shape.streams() * shape.tile_count(); }
  [[nodiscard]] int64_t scratch() const { return (kGlaChunk + 1) * shape.key; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const int64_t dk = sh.key, dv = sh.value, first = index % sh.tile_count() * kGlaTile;
    const int64_t width = numerics::min(kGlaTile, dv - first);
    T *const khat = team.scratch, *const decay = khat + kGlaChunk * dk;
    T *state = saved + GlaChunk<T>(sh, index / sh.tile_count(), 0).state + first;
    T *const start = state;
    fill(team, dk, width, View<T>{start, dv}, [=](int64_t, int64_t) { return T(0); });
    for (int64_t chunk = 0; chunk + 1 < sh.chunk_count(); ++chunk, state += dk * dv) {
      const GlaChunk<T> at(sh, index / sh.tile_count(), chunk);
      const View<const T> kc{k + at.keys, sh.heads * dk}, vc{v + at.values + first, sh.heads * dv};
      const T *const b = saved + at.b, *const last = b + (at.n - 1) * dk, *const before = state;
      T *const next = state + dk * dv;
      fill(team, at.n, dk, View<T>{khat, dk},
           [=](int64_t j, int64_t d) { return kc(j, d) * numerics::exp(last[d] - b[j * dk + d]); });
      fill(team, dk, 1, View<T>{decay, 1}, [=](int64_t d, int64_t) { return numerics::exp(last[d]); });
      fill(team, dk, width, View<T>{next, dv},
           [=](int64_t d, int64_t e) { return decay[d] * before[d * dv + e]; });
      team.matmul(dk, width, at.n, {khat, 1, dk}, vc, {next, dv}, true);
    }
  }
};

/// o_t = scale q_t S_t: from the state before the chunk, then from the chunk's own tokens. A team a chunk.
template <class T> struct GlaOutputs {
  GlaShape<T> shape;
  const T *q, *k, *v;
  T *o, *saved;

  static constexpr int64_t kTurned = kGlaChunk + 1; ///< pitch of what is transposed: spreads memory banks

  [[nodiscard]] int64_t teams() const { return shape.streams() * shape.chunk_count(); }
  [[nodiscard]] int64_t scratch() const { return shape.key * (2 * kTurned + kGlaChunk); }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const GlaChunk<T> at(sh, index / sh.chunk_count(), index % sh.chunk_count());
    const int64_t dk = sh.key, dv = sh.value, n = at.n;
    const View<const T> qc{q + at.keys, sh.heads * dk}, kc{k + at.keys, sh.heads * dk},
        vc{v + at.values, sh.heads * dv};
    const View<T> oc{o + at.values, sh.heads * dv};
    const T *const b = saved + at.b;
    T *const a = saved + at.a;
    T *const bt = team.scratch, *const kk = bt + dk * kTurned; // b and k, transposed
    T *const qs = kk + dk * kTurned;                           // (64, dk), later (16, dk)
    T *const kt = qs + kGlaSub * dk;                           // (dk, 48), beside the latter
    constexpr int64_t kt_row = kGlaChunk - kGlaSub;
    const T scale = sh.scale;
    team.map(
        n, dk,
        [=](int64_t i, int64_t d) {
          const T sum = b[i * dk + d];
          return Three<T>{sum, kc(i, d), (qc(i, d) * numerics::exp(sum)) * scale};
        },
        [=](int64_t i, int64_t d, Three<T> x) {
          bt[d * kTurned + i] = x.first;
          kk[d * kTurned + i] = x.second;
          qs[i * dk + d] = x.third;
        });
    team.matmul(n, dv, dk, {qs, dk}, {saved + at.state, dv}, oc);
    // a sub-chunk's scores with itself
    team.contract(
        n, kGlaSub,
        [=](int64_t) {
          return Range{0, dk};
        },
        [=](int64_t i, int64_t j, int64_t d, T acc) {
          const int64_t other = i / kGlaSub * kGlaSub + j;
          return gla_pair(qc(i, d), kk[d * kTurned + other], b[i * dk + d], bt[d * kTurned + other], acc);
        },
        [=](int64_t i, int64_t j, T acc) {
          const int64_t other = i / kGlaSub * kGlaSub + j;
          if (other < n) a[i * kGlaChunk + other] = other <= i ? acc * scale : T(0);
        });
    for (int64_t s = 0; s < n; s += kGlaSub) {
      const int64_t m = numerics::min(kGlaSub, n - s);
      if (s > 0) { // with earlier ones: both factors decay to or from the start of this one
        const T *const ref = b + (s - 1) * dk;
        fill(team, m, dk, View<T>{qs, dk}, [=](int64_t i, int64_t d) {
          return (qc(s + i, d) * numerics::exp(b[(s + i) * dk + d] - ref[d])) * scale;
        });
        fill(team, dk, s, View<T>{kt, kt_row}, [=](int64_t d, int64_t j) {
          return kk[d * kTurned + j] * numerics::exp(ref[d] - bt[d * kTurned + j]);
        });
        team.matmul(m, s, dk, {qs, dk}, {kt, kt_row}, {a + s * kGlaChunk, kGlaChunk});
      }
      team.matmul(m, dv, s + m, {a + s * kGlaChunk, kGlaChunk}, vc, oc.at(s, 0), true);
    }
  }
};

/// o_t = scale q_t S_t with S_t = diag(exp(g_t)) S_{t-1} + k_t^T v_t, by three kernels.
template <class T> struct GlaForward {
  GlaShape<T> shape;
  const T *q, *k, *v, *g;
  T *o, *saved; // saved: shape.saved()

  /// Runner has run(kernel): a backend.
  template <class Runner> void run_on(Runner &runner) const {
    runner.run(GlaDecays<T>{shape, g, saved});
    runner.run(GlaStates<T>{shape, k, v, saved});
    runner.run(GlaOutputs<T>{shape, q, k, v, o, saved});
  }
};

} // namespace nvfp4::models
