// SPDX-License-Identifier: Apache-2.0
// Mamba-2's scan, backward: the gradients of x, B, C, dt, g and D from dy and what forward saved. The states'
// gradients go through a sequence from its end; the rest is computed for all chunks at once, head after head,
// since B and C are those of all heads.
#pragma once
#include "nvfp4/reference_models/kernels/scan.hpp"

namespace nvfp4::models {

/// dS after each chunk, with respect to y of later ones: 0 after the last, and before a chunk
/// exp(g_0 + ... + g_{n-1}) dS + sum over i of (exp(g_0 + ... + g_i) C_i)^T dy_i. A team takes some value
/// columns of a stream.
template <class T> struct ScanStateGradients {
  ScanShape<T> shape;
  const T *grad_y, *c, *saved;
  T *grad_states; // (streams, chunks, state, value)

  [[nodiscard]] int64_t teams() const { return shape.streams() * shape.tile_count(); }
  [[nodiscard]] int64_t scratch() const { return kScanChunk * shape.state; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const int64_t ds = sh.state, dv = sh.value, stream = index / sh.tile_count(),
                  first = index % sh.tile_count() * kScanTile, width = numerics::min(kScanTile, dv - first);
    const int64_t sequence = stream / sh.heads, head = stream % sh.heads;
    const View<T> read{team.scratch, ds};
    fill(team, ds, width,
         View<T>{grad_states + ScanChunk<T>(sh, sequence, head, sh.chunk_count() - 1).state + first, dv},
         [=](int64_t, int64_t) { return T(0); });
    for (int64_t chunk = sh.chunk_count() - 1; chunk > 0; --chunk) {
      const ScanChunk<T> at(sh, sequence, head, chunk);
      const int64_t n = at.n;
      const View<const T> cc{c + at.token * sh.row, sh.row}, dyc{grad_y + at.values + first, sh.heads * dv},
          decays{saved + at.decays, kScanDecays};
      const View<T> after{grad_states + at.state + first, dv}, before{after.data - ds * dv, dv};
      scan_reads<T>(team, n, ds, cc, decays, read);
      fill(team, ds, width, before, [=](int64_t d, int64_t e) { return decays(n - 1, 0) * after(d, e); });
      team.matmul(ds, width, n, read.transposed(), dyc, before, true);
    }
  }
};

/// From the gradient du of what tokens write: those of dt, dt_i = sum of du_i x_i, and of x (dx may be du),
/// du_i dt_i + D dy_i; and D's terms, sums of dy_i x_i.
template <class T, class Team>
NVFP4_INLINE void scan_input_gradients(const Team &team, int64_t n, int64_t value, View<const T> x,
                                       View<const T> dt, View<const T> dy, const T *skip, View<const T> du,
                                       View<T> dx, View<T> grad_dt, View<T> terms) {
  team.rows(n, [=](int64_t i, const auto &lane) {
    const T step = lane.sum(value, [=](int64_t e) { return du(i, e) * x(i, e); }),
            term = lane.sum(value, [=](int64_t e) { return dy(i, e) * x(i, e); });
    lane.one([=] {
      grad_dt(i, 0) = step;
      terms(i, 0) = term;
    });
  });
  fill(team, n, value, dx, [=](int64_t i, int64_t e) { return du(i, e) * dt(i, 0) + *skip * dy(i, e); });
}
/// sums[i] = x_i y_i, rows of `width`.
template <class T, class Team>
NVFP4_INLINE void scan_row_products(const Team &team, int64_t n, int64_t width, View<const T> x,
                                    View<const T> y, T *sums) {
  team.rows(n, [=](int64_t i, const auto &lane) {
    const T sum = lane.sum(width, [=](int64_t d) { return x(i, d) * y(i, d); });
    lane.one([=] { sums[i] = sum; });
  });
}
/// *whole = (S, dS) times the chunk's decay, from the sums of its rows, parts (state).
template <class T, class Team>
NVFP4_INLINE void scan_whole(const Team &team, int64_t rows, int64_t value, View<const T> state,
                             View<const T> after, const T *decay, T *parts, T *whole) {
  scan_row_products<T>(team, rows, value, state, after, parts);
  team.rows(1, [=](int64_t, const auto &lane) {
    const T sum = lane.sum(rows, [=](int64_t d) { return parts[d]; });
    lane.one([=] { *whole = sum * *decay; });
  });
}

/// All gradients; those of B and C are sums over heads, in their order, of what goes through the states, and
/// then of the chunk's own pairs. Of D they are terms (tokens, heads), whose sums over tokens are its own. A
/// team a chunk of a sequence.
template <class T> struct ScanGradients {
  ScanShape<T> shape;
  const T *grad_y, *c, *b, *x, *dt, *skip, *saved, *grad_states;
  T *grad_c, *grad_b, *grad_x; // in rows as c, b, x
  T *grad_dt, *grad_g, *skip_terms;

  [[nodiscard]] int64_t teams() const { return shape.batch * shape.chunk_count(); }
  [[nodiscard]] int64_t scratch() const {
    return kScanChunk * (3 * kScanChunk + shape.state + shape.value + 2) + shape.state + 1;
  }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    constexpr int64_t C = kScanChunk;
    const auto sh = shape;
    const int64_t sequence = index / sh.chunk_count(), chunk = index % sh.chunk_count(), ds = sh.state,
                  dv = sh.value;
    const ScanChunk<T> start(sh, sequence, 0, chunk);
    const int64_t n = start.n, rows = start.token * sh.row;
    const View<const T> cc{c + rows, sh.row}, bc{b + rows, sh.row}, products{saved + start.products, C};
    const View<T> dcc{grad_c + rows, sh.row}, dbc{grad_b + rows, sh.row};
    const View<T> between{team.scratch, C}, a = between.at(C, 0), pairs = a.at(C, 0);
    const View<T> part{pairs.data + C * C, ds}, u{part.data + C * ds, dv};
    T *const reads = u.data + C * dv, *const leaves = reads + C, *const whole = leaves + C,
             *const whole_parts = whole + 1;
    fill(team, n, ds, dcc, [=](int64_t, int64_t) { return T(0); });
    fill(team, n, ds, dbc, [=](int64_t, int64_t) { return T(0); });
    fill(team, n, n, between, [=](int64_t, int64_t) { return T(0); });
    for (int64_t head = 0; head < sh.heads; ++head) {
      const ScanChunk<T> at(sh, sequence, head, chunk);
      const View<const T> xc{x + rows + head * dv, sh.row}, dtc{dt + at.gates, sh.heads},
          dyc{grad_y + at.values, sh.heads * dv}, decays{saved + at.decays, kScanDecays},
          state{saved + at.state, dv}, after{grad_states + at.state, dv};
      const View<T> dxc{grad_x + rows + head * dv, sh.row}, dgc{grad_g + at.gates, sh.heads};
      // of pairs, dy_i u_j times the decay is the gradient of C_i B_j
      scan_writes<T>(team, n, dv, xc, dtc, u);
      team.matmul(n, n, dv, dyc, u.transposed(), pairs);
      team.map(
          n, n,
          [=](int64_t i, int64_t j) {
            const T decay = decays(i, j + 1), decayed = pairs(i, j) * decay, own = products(i, j) * decay;
            return Three<T>{j <= i ? between(i, j) + decayed : T(0), j <= i ? own : T(0),
                            j <= i ? decayed * products(i, j) : T(0)};
          },
          [=](int64_t i, int64_t j, Three<T> value) {
            between(i, j) = value.first;
            a(i, j) = value.second;
            pairs(i, j) = value.third;
          });
      // dx: through the state after the chunk, then later tokens, as u; then D
      scan_leaves<T>(team, n, ds, bc, decays, part);
      team.matmul(n, dv, ds, part, after, dxc);
      team.matmul(n, dv, n, a.transposed(), dyc, dxc, true);
      scan_input_gradients<T>(team, n, dv, xc, dtc, dyc, skip + head, dxc, dxc,
                              {grad_dt + at.gates, sh.heads}, {skip_terms + at.gates, sh.heads});
      // C through the state before the chunk, B through the one after it
      team.matmul(n, ds, dv, dyc, state.transposed(), part);
      scan_reads<T>(team, n, ds, part, decays, part);
      scan_row_products<T>(team, n, ds, cc, part, reads);
      fill(team, n, ds, dcc, [=](int64_t i, int64_t d) { return dcc(i, d) + part(i, d); });
      team.matmul(n, ds, dv, u, after.transposed(), part);
      scan_leaves<T>(team, n, ds, part, decays, part);
      scan_row_products<T>(team, n, ds, bc, part, leaves);
      fill(team, n, ds, dbc, [=](int64_t j, int64_t d) { return dbc(j, d) + part(j, d); });
      scan_whole<T>(team, ds, dv, state, after, &decays(n - 1, 0), whole_parts, whole);
      passed_pairs(team, n, pairs, dgc);
      gate_gradients<Team, T>(team, n, whole, reads, leaves, dgc, dgc);
    }
    team.matmul(n, ds, n, between, bc, dcc, true);
    team.matmul(n, ds, n, between.transposed(), cc, dbc, true);
  }
};

/// The gradients from dy, by two kernels; `saved` is forward's.
template <class T> struct ScanBackward {
  ScanShape<T> shape;
  const T *grad_y, *c, *b, *x, *dt, *skip;
  T *grad_c, *grad_b, *grad_x, *grad_dt, *grad_g, *skip_terms;
  const T *saved;
  T *grad_states; // work: shape.states()

  template <class Runner> void run_on(Runner &runner) const {
    runner.run(ScanStateGradients<T>{shape, grad_y, c, saved, grad_states});
    runner.run(ScanGradients<T>{shape, grad_y, c, b, x, dt, skip, saved, grad_states, grad_c, grad_b, grad_x,
                                grad_dt, grad_g, skip_terms});
  }
};

} // namespace nvfp4::models
