// SPDX-License-Identifier: Apache-2.0
// Mamba-2's scan of a state space (Dao and Gu 2024), chunkwise, forward. For each token of a head
//   S <- exp(g) S + B^T (dt x),  y = C S + D x,
// where all heads share B and C. Inside a chunk of 64, y_i has of x_j the product C_i B_j, which is that of
// all heads, times the decay from j to i. Only the states go through a sequence; the rest is computed for all
// chunks at once.
#pragma once
#include "nvfp4/reference_models/kernels/decays.hpp"
#include "nvfp4/reference_models/kernels/elementwise.hpp"

namespace nvfp4::models {

inline constexpr int64_t kScanChunk = 64;
inline constexpr int64_t kScanTile = 64;               ///< value columns of a team
inline constexpr int64_t kScanDecays = kScanChunk + 1; ///< from the chunk's start, then from each token

/// What forward and backward share. x (heads * value wide), B and C (state wide) of a token stand in rows of
/// `row` elements, y in rows of heads * value, dt and g of heads. A head of a sequence is called a stream.
template <class T> struct ScanShape {
  int64_t batch, length, heads, state, value, row;

  [[nodiscard]] NVFP4_INLINE int64_t streams() const { return batch * heads; }
  [[nodiscard]] NVFP4_INLINE int64_t tokens() const { return batch * length; }
  [[nodiscard]] NVFP4_INLINE int64_t chunk_count() const { return (length + kScanChunk - 1) / kScanChunk; }
  [[nodiscard]] NVFP4_INLINE int64_t tile_count() const { return (value + kScanTile - 1) / kScanTile; }
  /// Elements of a state before each chunk, (streams, chunks, state, value); also those of its gradient after
  /// it, which are backward's work.
  [[nodiscard]] NVFP4_INLINE int64_t states() const { return streams() * chunk_count() * state * value; }
  /// Elements kept from forward to backward: the states; C_i B_j of each chunk, (tokens, 64); the decays,
  /// (streams, length, 65).
  [[nodiscard]] NVFP4_INLINE int64_t saved() const {
    return states() + tokens() * (kScanChunk + heads * kScanDecays);
  }
};

/// A chunk of a stream: its tokens, and where its part of each array starts.
template <class T> struct ScanChunk {
  int64_t n, token, gates, values;
  int64_t state, products, decays; ///< in `saved`; the first also in the gradients of states

  NVFP4_INLINE ScanChunk(const ScanShape<T> &s, int64_t sequence, int64_t head, int64_t chunk) {
    const int64_t first = chunk * kScanChunk, stream = sequence * s.heads + head;
    n = numerics::min(kScanChunk, s.length - first);
    token = sequence * s.length + first;
    gates = token * s.heads + head;
    values = gates * s.value;
    state = (stream * s.chunk_count() + chunk) * s.state * s.value;
    products = s.states() + token * kScanChunk;
    decays = s.states() + s.tokens() * kScanChunk + (stream * s.length + first) * kScanDecays;
  }
  /// Of kernels whose teams are the chunks of all streams.
  static NVFP4_INLINE ScanChunk of(const ScanShape<T> &s, int64_t index) {
    const int64_t stream = index / s.chunk_count();
    return ScanChunk(s, stream / s.heads, stream % s.heads, index % s.chunk_count());
  }
};

/// dt = softplus(raw + dt_bias) and g = -exp(a_log) dt, the log of the decay. All (tokens, heads), parameters
/// (heads).
template <class T> struct ScanGateForward {
  int64_t tokens, heads;
  const T *raw, *a_log, *dt_bias;
  T *dt, *g;

  [[nodiscard]] int64_t teams() const { return chunks(tokens * heads); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    each_in_chunk(team, tokens * heads, index, [=](int64_t i) {
      const int64_t h = i % s.heads;
      const T step = numerics::softplus(s.raw[i] + s.dt_bias[h]);
      s.dt[i] = step;
      s.g[i] = -numerics::exp(s.a_log[h]) * step;
    });
  }
};

/// draw from what x and the decays say of dt. Sums over tokens (AccumulateColumns) give the parameters'
/// gradients: of draw that of dt_bias, of `terms` = dg g that of a_log.
template <class T> struct ScanGateBackward {
  int64_t tokens, heads;
  const T *grad_dt, *grad_g, *g, *raw, *a_log, *dt_bias;
  T *grad_raw, *terms;

  [[nodiscard]] int64_t teams() const { return chunks(tokens * heads); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    each_in_chunk(team, tokens * heads, index, [=](int64_t i) {
      const int64_t h = i % s.heads;
      const T d = s.grad_g[i], step = s.grad_dt[i] + d * -numerics::exp(s.a_log[h]);
      s.terms[i] = d * s.g[i];
      s.grad_raw[i] = step * numerics::sigmoid(s.raw[i] + s.dt_bias[h]);
    });
  }
};

/// What a chunk's tokens leave of B in the state after it, (n, state), and what they write, dt x (n, value).
template <class T, class Team>
NVFP4_INLINE void scan_leaves(const Team &team, int64_t n, int64_t state, View<const T> b,
                              View<const T> decays, View<T> to) {
  fill(team, n, state, to, [=](int64_t j, int64_t d) { return b(j, d) * decays(n - 1, j + 1); });
}
template <class T, class Team>
NVFP4_INLINE void scan_writes(const Team &team, int64_t n, int64_t value, View<const T> x, View<const T> dt,
                              View<T> to) {
  fill(team, n, value, to, [=](int64_t j, int64_t e) { return dt(j, 0) * x(j, e); });
}
/// What they read the state before it with (n, state), or the gradient of that, decayed from it.
template <class T, class Team>
NVFP4_INLINE void scan_reads(const Team &team, int64_t n, int64_t state, View<const T> c,
                             View<const T> decays, View<T> to) {
  fill(team, n, state, to, [=](int64_t i, int64_t d) { return c(i, d) * decays(i, 0); });
}
/// C_i B_j times the decay from j to i, 0 for j > i.
template <class T, class Team>
NVFP4_INLINE void scan_scores(const Team &team, int64_t n, View<const T> products, View<const T> decays,
                              View<T> to) {
  fill(team, n, n, to, [=](int64_t i, int64_t j) {
    const T value = products(i, j) * decays(i, j + 1);
    return j <= i ? value : T(0);
  });
}

/// The decays of each chunk of a stream. A team a chunk.
template <class T> struct ScanDecays {
  ScanShape<T> shape;
  const T *g;
  T *saved;

  [[nodiscard]] int64_t teams() const { return shape.streams() * shape.chunk_count(); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto at = ScanChunk<T>::of(shape, index);
    chunk_decays(team, at.n, View<const T>{g + at.gates, shape.heads},
                 View<T>{saved + at.decays, kScanDecays});
  }
};

/// C_i B_j of each chunk of a sequence, for all its pairs. A team a chunk.
template <class T> struct ScanProducts {
  ScanShape<T> shape;
  const T *c, *b;
  T *saved;

  [[nodiscard]] int64_t teams() const { return shape.batch * shape.chunk_count(); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const ScanChunk<T> at(sh, index / sh.chunk_count(), 0, index % sh.chunk_count());
    const View<const T> cc{c + at.token * sh.row, sh.row}, bc{b + at.token * sh.row, sh.row};
    team.matmul(at.n, at.n, sh.state, cc, bc.transposed(), {saved + at.products, kScanChunk});
  }
};

/// The states before each chunk: S = 0, then S <- exp(g_0 + ... + g_{n-1}) S + sum over j of the decay from j
/// to the chunk's end times B_j^T (dt_j x_j). A team takes some value columns of a stream.
template <class T> struct ScanStates {
  ScanShape<T> shape;
  const T *b, *x, *dt;
  T *saved;

  [[nodiscard]] int64_t teams() const { return shape.streams() * shape.tile_count(); }
  [[nodiscard]] int64_t scratch() const { return kScanChunk * (shape.state + kScanTile); }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const int64_t width_of_state = sh.state, dv = sh.value, stream = index / sh.tile_count(),
                  first = index % sh.tile_count() * kScanTile, width = numerics::min(kScanTile, dv - first);
    const View<T> left{team.scratch, width_of_state},
        u{team.scratch + kScanChunk * width_of_state, kScanTile};
    const int64_t sequence = stream / sh.heads, head = stream % sh.heads;
    fill(team, width_of_state, width, View<T>{saved + ScanChunk<T>(sh, sequence, head, 0).state + first, dv},
         [=](int64_t, int64_t) { return T(0); });
    for (int64_t chunk = 0; chunk + 1 < sh.chunk_count(); ++chunk) {
      const ScanChunk<T> at(sh, sequence, head, chunk);
      const int64_t n = at.n;
      const View<const T> bc{b + at.token * sh.row, sh.row},
          xc{x + at.token * sh.row + head * dv + first, sh.row}, dtc{dt + at.gates, sh.heads},
          decays{saved + at.decays, kScanDecays};
      const View<T> state{saved + at.state + first, dv}, next = state.at(width_of_state, 0);
      scan_leaves<T>(team, n, width_of_state, bc, decays, left);
      scan_writes<T>(team, n, width, xc, dtc, u);
      fill(team, width_of_state, width, next,
           [=](int64_t d, int64_t e) { return decays(n - 1, 0) * state(d, e); });
      team.matmul(width_of_state, width, n, left.transposed(), u, next, true);
    }
  }
};

/// y, from the state before the chunk, then from the chunk's own tokens, then from D. A team a chunk of a
/// stream.
template <class T> struct ScanOutputs {
  ScanShape<T> shape;
  const T *c, *x, *dt, *skip, *saved; // skip: D (heads)
  T *y;

  [[nodiscard]] int64_t teams() const { return shape.streams() * shape.chunk_count(); }
  [[nodiscard]] int64_t scratch() const { return kScanChunk * (shape.state + shape.value + kScanChunk); }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const auto at = ScanChunk<T>::of(sh, index);
    const int64_t ds = sh.state, dv = sh.value, n = at.n, head = at.gates % sh.heads;
    const View<const T> cc{c + at.token * sh.row, sh.row}, xc{x + at.token * sh.row + head * dv, sh.row},
        dtc{dt + at.gates, sh.heads}, decays{saved + at.decays, kScanDecays},
        products{saved + at.products, kScanChunk};
    const View<T> yc{y + at.values, sh.heads * dv}, read{team.scratch, ds},
        u{team.scratch + kScanChunk * ds, dv}, a{team.scratch + kScanChunk * (ds + dv), kScanChunk};
    const T *const through = skip + head;
    scan_reads<T>(team, n, ds, cc, decays, read);
    scan_writes<T>(team, n, dv, xc, dtc, u);
    scan_scores<T>(team, n, products, decays, a);
    team.matmul(n, dv, ds, read, {saved + at.state, dv}, yc);
    team.matmul(n, dv, n, a, u, yc, true);
    fill(team, n, dv, yc, [=](int64_t i, int64_t e) { return yc(i, e) + *through * xc(i, e); });
  }
};

/// y from x, B, C, dt and g, by four kernels.
template <class T> struct ScanForward {
  ScanShape<T> shape;
  const T *c, *b, *x, *dt, *g, *skip;
  T *y, *saved; // saved: shape.saved()

  /// Runner has run(kernel): a backend.
  template <class Runner> void run_on(Runner &runner) const {
    runner.run(ScanDecays<T>{shape, g, saved});
    runner.run(ScanProducts<T>{shape, c, b, saved});
    runner.run(ScanStates<T>{shape, b, x, dt, saved});
    runner.run(ScanOutputs<T>{shape, c, x, dt, skip, saved, y});
  }
};

} // namespace nvfp4::models
