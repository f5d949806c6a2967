// SPDX-License-Identifier: Apache-2.0
// The gated delta rule (Yang et al. 2024, "Gated Delta Networks"), chunkwise, forward. For each token
//   S <- exp(g) S,  r = v - k S,  u = beta r,  S <- S + k^T u,  o = scale q S.
// Inside a chunk of 64 the r solve a triangular system, since r_i = v_i - d_i k_i S_0 - sum over j < i of
// d_ij (k_i k_j) u_j with S_0 the state before the chunk and d the decay from its start or from j to i; all
// other steps are matrix products. A decay is the exponential of a sum of gates that is never taken as a
// difference, so strong gates lose no accuracy. Only r and the states go through a sequence, and their value
// columns do not depend on each other; the rest is computed for all chunks at once.
#pragma once
#include "reference_models/kernels/team.hpp"

namespace nvfp4::models {

inline constexpr int64_t kDeltaChunk = 64, kDeltaSub = 16;
inline constexpr int64_t kDeltaTile = 64;                ///< value columns of a team
inline constexpr int64_t kDeltaDecays = kDeltaChunk + 1; ///< from the chunk's start, then from each token

/// What forward and backward share. Rows of q and k have stride heads * key, of v and o heads * value, of g
/// and beta heads. A head of a sequence is called a stream: there are batch * heads.
template <class T> struct DeltaShape {
  int64_t batch, length, heads, key, value;
  T scale; ///< key^-1/2

  [[nodiscard]] NVFP4_INLINE int64_t streams() const { return batch * heads; }
  [[nodiscard]] NVFP4_INLINE int64_t tokens() const { return streams() * length; }
  [[nodiscard]] NVFP4_INLINE int64_t chunk_count() const { return (length + kDeltaChunk - 1) / kDeltaChunk; }
  [[nodiscard]] NVFP4_INLINE int64_t chunks() const { return streams() * chunk_count(); }
  [[nodiscard]] NVFP4_INLINE int64_t tile_count() const { return (value + kDeltaTile - 1) / kDeltaTile; }
  /// Elements of a state before each chunk, (streams, chunks, key, value).
  [[nodiscard]] NVFP4_INLINE int64_t states() const { return chunks() * key * value; }
  /// Elements kept from forward to backward: r (streams, length, value), then the states.
  [[nodiscard]] NVFP4_INLINE int64_t saved() const { return tokens() * value + states(); }
  /// Elements of what DeltaProducts writes.
  [[nodiscard]] NVFP4_INLINE int64_t products() const { return tokens() * (kDeltaDecays + 2 * kDeltaChunk); }
  /// Elements of work that forward and backward need: products, t as r, gradients as states, terms of gates.
  [[nodiscard]] NVFP4_INLINE int64_t work() const { return products() + saved() + tokens(); }
};

/// A chunk of a stream: its tokens, and where its part of each array starts.
template <class T> struct DeltaChunk {
  int64_t n, keys, values, gates;
  int64_t token;            ///< in arrays (streams, length, ...)
  int64_t r, state;         ///< in `saved`; also those of t and of the state's gradient
  int64_t decays, below, a; ///< in products: (n, 65), (n, 64), (n, 64)

  NVFP4_INLINE DeltaChunk(const DeltaShape<T> &s, int64_t stream, int64_t chunk) {
    const int64_t first = chunk * kDeltaChunk, row = stream / s.heads * s.length + first;
    gates = row * s.heads + stream % s.heads;
    keys = gates * s.key;
    values = gates * s.value;
    n = numerics::min(kDeltaChunk, s.length - first);
    token = stream * s.length + first;
    r = token * s.value;
    state = s.tokens() * s.value + (stream * s.chunk_count() + chunk) * s.key * s.value;
    decays = token * kDeltaDecays;
    below = s.tokens() * kDeltaDecays + token * kDeltaChunk;
    a = below + s.tokens() * kDeltaChunk;
  }
};

/// x (n, n) <- x with the rows (i) and columns (j) of f(x, i, j).
template <class Team, class T, class F> NVFP4_INLINE void map_square(const Team &team, int64_t n, T *x, F f) {
  team.rows(n, [=](int64_t i, const auto &lane) {
    lane.each(n, [=](int64_t j) { x[i * kDeltaChunk + j] = f(x[i * kDeltaChunk + j], i, j); });
  });
}

/// Of each chunk the decays d, d[i][0] = exp(g_0 + ... + g_i), d[i][j + 1] = exp(g_{j + 1} + ... + g_i), 0
/// for j > i; below = -d_ij (k_i k_j) beta for j < i; a = scale d_ij (q_i k_j) for j <= i. A team a chunk.
template <class T> struct DeltaProducts {
  DeltaShape<T> shape;
  const T *q, *k, *g, *beta;
  T *products;
  bool transposed; ///< below takes beta_i, as backward needs it, for beta_j

  static constexpr int64_t kTurned = kDeltaChunk + 1; ///< pitch of what is transposed: spreads memory banks

  [[nodiscard]] int64_t teams() const { return shape.chunks(); }
  [[nodiscard]] int64_t scratch() const { return shape.key * kTurned; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    constexpr int64_t C = kDeltaChunk, D = kDeltaDecays;
    const auto sh = shape;
    const DeltaChunk<T> at(sh, index / sh.chunk_count(), index % sh.chunk_count());
    const int64_t dk = sh.key, n = at.n;
    const View<const T> qc{q + at.keys, sh.heads * dk}, kc{k + at.keys, sh.heads * dk},
        gc{g + at.gates, sh.heads}, bc{beta + at.gates, sh.heads};
    T *const decays = products + at.decays, *const below = products + at.below, *const a = products + at.a,
             *const kt = team.scratch;
    const T scale = sh.scale;
    const bool of_row = transposed;
    team.each(n + 1, [=](int64_t j) {
      T sum = T(0);
      for (int64_t i = 0; i < n; ++i) {
        sum = i >= j ? sum + gc(i, 0) : T(0);
        decays[i * D + j] = sum;
      }
    });
    team.rows(n, [=](int64_t i, const auto &lane) {
      lane.each(n + 1, [=](int64_t j) {
        const T e = numerics::exp(decays[i * D + j]);
        decays[i * D + j] = j <= i + 1 ? e : T(0);
      });
      lane.each(dk, [=](int64_t d) { kt[d * kTurned + i] = kc(i, d); });
    });
    team.matmul(n, n, dk, kc, {kt, kTurned}, {below, C});
    team.matmul(n, n, dk, qc, {kt, kTurned}, {a, C});
    map_square(team, n, below, [=](T x, int64_t i, int64_t j) {
      return j < i ? -(x * decays[i * D + j + 1]) * bc(of_row ? i : j, 0) : T(0);
    });
    map_square(team, n, a, [=](T x, int64_t i, int64_t j) {
      return j <= i ? (x * decays[i * D + j + 1]) * scale : T(0);
    });
  }
};

/// r, and the states before each chunk. A team takes some value columns of a stream.
template <class T> struct DeltaStates {
  DeltaShape<T> shape;
  const T *k, *v, *beta, *products;
  T *saved;

  [[nodiscard]] int64_t teams() const { return shape.streams() * shape.tile_count(); }
  [[nodiscard]] int64_t scratch() const { return kDeltaChunk * (shape.key + kDeltaTile); }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    constexpr int64_t C = kDeltaChunk, D = kDeltaDecays, W = kDeltaTile;
    const auto sh = shape;
    const int64_t dk = sh.key, dv = sh.value, stream = index / sh.tile_count(),
                  first = index % sh.tile_count() * W, width = numerics::min(W, dv - first);
    T *const rows = team.scratch, *const u = rows + C * dk;
    T *const start = saved + DeltaChunk<T>(sh, stream, 0).state + first;
    team.rows(dk, [=](int64_t d, const auto &lane) {
      lane.each(width, [=](int64_t e) { start[d * dv + e] = T(0); });
    });
    for (int64_t chunk = 0; chunk < sh.chunk_count(); ++chunk) {
      const DeltaChunk<T> at(sh, stream, chunk);
      const int64_t n = at.n;
      const View<const T> kc{k + at.keys, sh.heads * dk}, vc{v + at.values + first, sh.heads * dv},
          bc{beta + at.gates, sh.heads};
      const T *const decays = products + at.decays, *const below = products + at.below,
                     *const last = decays + (n - 1) * D, *const state = saved + at.state + first;
      const View<T> r{saved + at.r + first, dv};
      // what the state before the chunk leaves of v, then the triangular system
      team.rows(n, [=](int64_t i, const auto &lane) {
        lane.each(dk, [=](int64_t d) { rows[i * dk + d] = -(kc(i, d) * decays[i * D]); });
        lane.each(width, [=](int64_t e) { r(i, e) = vc(i, e); });
      });
      team.matmul(n, width, dk, {rows, dk}, {state, dv}, r, true);
      for (int64_t s = 0; s < n; s += kDeltaSub) {
        const int64_t end = numerics::min(s + kDeltaSub, n);
        if (s > 0) team.matmul(end - s, width, s, {below + s * C, C}, r, r.at(s, 0), true);
        team.each(width, [=](int64_t e) {
          for (int64_t i = s + 1; i < end; ++i) {
            T acc = r(i, e);
            for (int64_t j = s; j < i; ++j) acc = numerics::fma(below[i * C + j], r(j, e), acc);
            r(i, e) = acc;
          }
        });
      }
      if (chunk + 1 == sh.chunk_count()) break;
      T *const next = saved + at.state + dk * dv + first;
      team.rows(n, [=](int64_t j, const auto &lane) {
        const T step = bc(j, 0);
        lane.each(width, [=](int64_t e) { u[j * W + e] = r(j, e) * step; });
        lane.each(dk, [=](int64_t d) { rows[j * dk + d] = kc(j, d) * last[j + 1]; });
      });
      team.rows(dk, [=](int64_t d, const auto &lane) {
        lane.each(width, [=](int64_t e) { next[d * dv + e] = last[0] * state[d * dv + e]; });
      });
      team.matmul(dk, width, n, {rows, 1, dk}, {u, W}, {next, dv}, true);
    }
  }
};

/// o, from the state before the chunk and from the chunk's u. A team takes some value columns of a chunk.
template <class T> struct DeltaOutputs {
  DeltaShape<T> shape;
  const T *q, *beta, *products, *saved;
  T *o;

  [[nodiscard]] int64_t teams() const { return shape.chunks() * shape.tile_count(); }
  [[nodiscard]] int64_t scratch() const { return kDeltaChunk * (shape.key + kDeltaTile); }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    constexpr int64_t C = kDeltaChunk, D = kDeltaDecays, W = kDeltaTile;
    const auto sh = shape;
    const int64_t dk = sh.key, dv = sh.value, chunk = index / sh.tile_count(),
                  first = index % sh.tile_count() * W, width = numerics::min(W, dv - first);
    const DeltaChunk<T> at(sh, chunk / sh.chunk_count(), chunk % sh.chunk_count());
    const View<const T> qc{q + at.keys, sh.heads * dk}, bc{beta + at.gates, sh.heads},
        r{saved + at.r + first, dv};
    const View<T> oc{o + at.values + first, sh.heads * dv};
    const T *const decays = products + at.decays;
    T *const rows = team.scratch, *const u = rows + C * dk;
    const T scale = sh.scale;
    team.rows(at.n, [=](int64_t i, const auto &lane) {
      const T step = bc(i, 0);
      lane.each(width, [=](int64_t e) { u[i * W + e] = r(i, e) * step; });
      lane.each(dk, [=](int64_t d) { rows[i * dk + d] = (qc(i, d) * decays[i * D]) * scale; });
    });
    team.matmul(at.n, width, dk, {rows, dk}, {saved + at.state + first, dv}, oc);
    team.matmul(at.n, width, at.n, {products + at.a, C}, {u, W}, oc, true);
  }
};

/// o from q, k, v, g, beta, by three kernels.
template <class T> struct DeltaForward {
  DeltaShape<T> shape;
  const T *q, *k, *v, *g, *beta;
  T *o, *saved, *work; // saved, work: shape.saved(), shape.work()

  /// Runner has run(kernel): a backend.
  template <class Runner> void run_on(Runner &runner) const {
    runner.run(DeltaProducts<T>{shape, q, k, g, beta, work, false});
    runner.run(DeltaStates<T>{shape, k, v, beta, work, saved});
    runner.run(DeltaOutputs<T>{shape, q, beta, work, saved, o});
  }
};

} // namespace nvfp4::models
