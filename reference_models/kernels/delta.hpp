// SPDX-License-Identifier: Apache-2.0
// The gated delta rule (Yang et al. 2024, "Gated Delta Networks"), chunkwise, forward. For each token
//   S <- exp(g) S,  r = v - k S,  u = beta r,  S <- S + k^T u,  o = scale q S.
// Inside a chunk of 64 the r solve a triangular system, since r_i = v_i - d_i k_i S_0 - sum over j < i of
// d_ij (k_i k_j) u_j with S_0 the state before the chunk and d the decay from its start or from j to i; all
// other steps are matrix products. A decay is the exponential of a sum of gates that is never taken as a
// difference, so strong gates lose no accuracy. Only r and the states go through a sequence, and their value
// columns do not depend on each other; the rest is computed for all chunks at once.
#pragma once
#include "nvfp4/reference_models/kernels/decays.hpp"

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
  /// Elements of r (streams, length, value), then the states; also those of t and of the states' gradients,
  /// which are backward's work.
  [[nodiscard]] NVFP4_INLINE int64_t recurrence() const { return tokens() * value + states(); }
  /// Elements kept from forward to backward: the recurrence, then what DeltaProducts writes.
  [[nodiscard]] NVFP4_INLINE int64_t saved() const {
    return recurrence() + tokens() * (kDeltaDecays + 2 * kDeltaChunk);
  }
  /// Elements of scratch of a team that takes kDeltaTile value columns: (64, key), and two squares.
  [[nodiscard]] NVFP4_INLINE int64_t tile_scratch() const { return kDeltaChunk * (key + 2 * kDeltaChunk); }
};

/// A chunk of a stream: its tokens, and where its part of each array starts.
template <class T> struct DeltaChunk {
  int64_t n, keys, values, gates;
  int64_t r, state;         ///< in `saved`; also those of t and of the state's gradient
  int64_t decays, below, a; ///< in `saved`: (n, 65), (n, 64), (n, 64)

  NVFP4_INLINE DeltaChunk(const DeltaShape<T> &s, int64_t stream, int64_t chunk) {
    const int64_t first = chunk * kDeltaChunk, row = stream / s.heads * s.length + first;
    gates = row * s.heads + stream % s.heads;
    keys = gates * s.key;
    values = gates * s.value;
    n = numerics::min(kDeltaChunk, s.length - first);
    const int64_t token = stream * s.length + first;
    r = token * s.value;
    state = s.tokens() * s.value + (stream * s.chunk_count() + chunk) * s.key * s.value;
    decays = s.recurrence() + token * kDeltaDecays;
    below = s.recurrence() + s.tokens() * kDeltaDecays + token * kDeltaChunk;
    a = below + s.tokens() * kDeltaChunk;
  }
};

/// chunk_decays, from gates that are first put side by side: `gates` has room for n.
template <class T, class Team>
NVFP4_INLINE void delta_decays(const Team &team, int64_t n, View<const T> g, T *gates, T *decays) {
  team.each(n, [=](int64_t i) { gates[i] = g(i, 0); });
  chunk_decays(team, n, View<const T>{gates, 1}, View<T>{decays, kDeltaDecays});
}

/// below = -d_ij kk_ij for j < i and a = scale d_ij qk_ij for j <= i, both 0 elsewhere, from the products of
/// the chunk's rows; each may be in its product's place.
template <class T, class Team>
NVFP4_INLINE void delta_scores(const Team &team, int64_t n, View<const T> kk, View<const T> qk,
                               const T *decays, T scale, View<T> below, View<T> a) {
  constexpr int64_t D = kDeltaDecays;
  fill(team, n, n, below, [=](int64_t i, int64_t j) {
    const T x = -(kk(i, j) * decays[i * D + j + 1]);
    return j < i ? x : T(0);
  });
  fill(team, n, n, a, [=](int64_t i, int64_t j) {
    const T x = (qk(i, j) * decays[i * D + j + 1]) * scale;
    return j <= i ? x : T(0);
  });
}

/// r (n, width) becomes x with x_i = r_i + sum over j < i of lower_ij x_j, row blocks of 16 in order: what
/// earlier blocks add is a product, the rest solve().
template <class T, class Team>
NVFP4_INLINE void delta_solve(const Team &team, int64_t n, int64_t width, View<const T> lower, View<T> r) {
  for (int64_t s = 0; s < n; s += kDeltaSub) {
    const int64_t m = numerics::min(kDeltaSub, n - s);
    if (s > 0) team.matmul(m, width, s, lower.at(s, 0), r, r.at(s, 0), true);
    team.solve(m, width, lower.at(s, s), r.at(s, 0));
  }
}

/// Of each chunk the decays d, d[i][0] = exp(g_0 + ... + g_i), d[i][j + 1] = exp(g_{j + 1} + ... + g_i), 0
/// for j > i; below = -d_ij (k_i k_j) for j < i; a = scale d_ij (q_i k_j) for j <= i; both 0 elsewhere. A
/// team a chunk.
template <class T> struct DeltaProducts {
  DeltaShape<T> shape;
  const T *q, *k, *g;
  T *saved;

  static constexpr int64_t kTurned = kDeltaChunk + 1; ///< pitch of what is transposed: spreads memory banks

  [[nodiscard]] int64_t teams() const { return shape.chunks(); }
  [[nodiscard]] int64_t scratch() const { return shape.key * kTurned + kDeltaChunk; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    constexpr int64_t C = kDeltaChunk;
    const auto sh = shape;
    const DeltaChunk<T> at(sh, index / sh.chunk_count(), index % sh.chunk_count());
    const int64_t dk = sh.key, n = at.n;
    const View<const T> qc{q + at.keys, sh.heads * dk}, kc{k + at.keys, sh.heads * dk},
        gc{g + at.gates, sh.heads};
    const View<T> below{saved + at.below, C}, a{saved + at.a, C};
    T *const decays = saved + at.decays, *const kt = team.scratch, *const gates = kt + dk * kTurned;
    delta_decays<T>(team, n, gc, gates, decays);
    fill(team, n, dk, View<T>{kt, 1, kTurned}, [=](int64_t i, int64_t d) { return kc(i, d); });
    team.matmul(n, n, dk, kc, {kt, kTurned}, below);
    team.matmul(n, n, dk, qc, {kt, kTurned}, a);
    delta_scores<T>(team, n, below, a, decays, sh.scale, below, a);
  }
};

/// r, and the states before each chunk. A team takes some value columns of a stream.
template <class T> struct DeltaStates {
  DeltaShape<T> shape;
  const T *k, *v, *beta;
  T *saved;

  [[nodiscard]] int64_t teams() const { return shape.streams() * shape.tile_count(); }
  [[nodiscard]] int64_t scratch() const { return shape.tile_scratch(); }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    constexpr int64_t C = kDeltaChunk, D = kDeltaDecays;
    const auto sh = shape;
    const int64_t dk = sh.key, dv = sh.value, stream = index / sh.tile_count(),
                  first = index % sh.tile_count() * kDeltaTile, width = numerics::min(kDeltaTile, dv - first);
    const View<T> rows{team.scratch, dk}, lower{team.scratch + C * dk, C}, r = lower.at(C, 0);
    fill(team, dk, width, View<T>{saved + DeltaChunk<T>(sh, stream, 0).state + first, dv},
         [=](int64_t, int64_t) { return T(0); });
    for (int64_t chunk = 0; chunk < sh.chunk_count(); ++chunk) {
      const DeltaChunk<T> at(sh, stream, chunk);
      const int64_t n = at.n;
      const View<const T> kc{k + at.keys, sh.heads * dk}, vc{v + at.values + first, sh.heads * dv},
          bc{beta + at.gates, sh.heads};
      const View<T> decays{saved + at.decays, D}, below{saved + at.below, C}, kept{saved + at.r + first, dv},
          state{saved + at.state + first, dv}, next = state.at(dk, 0);
      // what the state before the chunk leaves of v, then the triangular system
      fill(team, n, dk, rows, [=](int64_t i, int64_t d) { return -(kc(i, d) * decays(i, 0)); });
      fill(team, n, width, r, [=](int64_t i, int64_t e) { return vc(i, e); });
      fill(team, n, n, lower, [=](int64_t i, int64_t j) { return below(i, j) * bc(j, 0); });
      team.matmul(n, width, dk, rows, state, r, true);
      delta_solve<T>(team, n, width, lower, r);
      team.map(
          n, width,
          [=](int64_t i, int64_t e) {
            const T x = r(i, e);
            return Two<T>{x, x * bc(i, 0)};
          },
          [=](int64_t i, int64_t e, Two<T> x) {
            kept(i, e) = x.first;
            r(i, e) = x.second;
          });
      if (chunk + 1 == sh.chunk_count()) break;
      fill(team, n, dk, rows, [=](int64_t j, int64_t d) { return kc(j, d) * decays(n - 1, j + 1); });
      fill(team, dk, width, next, [=](int64_t d, int64_t e) { return decays(n - 1, 0) * state(d, e); });
      team.matmul(dk, width, n, rows.transposed(), r, next, true);
    }
  }
};

/// o, from the state before the chunk and from the chunk's u. A team takes some value columns of a chunk.
template <class T> struct DeltaOutputs {
  DeltaShape<T> shape;
  const T *q, *beta, *saved;
  T *o;

  [[nodiscard]] int64_t teams() const { return shape.chunks() * shape.tile_count(); }
  [[nodiscard]] int64_t scratch() const { return kDeltaChunk * (shape.key + kDeltaTile); }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const int64_t dk = sh.key, dv = sh.value, chunk = index / sh.tile_count(),
                  first = index % sh.tile_count() * kDeltaTile, width = numerics::min(kDeltaTile, dv - first);
    const DeltaChunk<T> at(sh, chunk / sh.chunk_count(), chunk % sh.chunk_count());
    const View<const T> qc{q + at.keys, sh.heads * dk}, bc{beta + at.gates, sh.heads},
        r{saved + at.r + first, dv}, decays{saved + at.decays, kDeltaDecays};
    const View<T> oc{o + at.values + first, sh.heads * dv}, rows{team.scratch, dk},
        u{team.scratch + kDeltaChunk * dk, kDeltaTile};
    const T scale = sh.scale;
    fill(team, at.n, width, u, [=](int64_t i, int64_t e) { return r(i, e) * bc(i, 0); });
    fill(team, at.n, dk, rows, [=](int64_t i, int64_t d) { return (qc(i, d) * decays(i, 0)) * scale; });
    team.matmul(at.n, width, dk, rows, {saved + at.state + first, dv}, oc);
    team.matmul(at.n, width, at.n, {saved + at.a, kDeltaChunk}, u, oc, true);
  }
};

/// o from q, k, v, g, beta, by three kernels.
template <class T> struct DeltaForward {
  DeltaShape<T> shape;
  const T *q, *k, *v, *g, *beta;
  T *o, *saved; // saved: shape.saved()

  /// Runner has run(kernel): a backend.
  template <class Runner> void run_on(Runner &runner) const {
    runner.run(DeltaProducts<T>{shape, q, k, g, saved});
    runner.run(DeltaStates<T>{shape, k, v, beta, saved});
    runner.run(DeltaOutputs<T>{shape, q, beta, saved, o});
  }
};

} // namespace nvfp4::models
