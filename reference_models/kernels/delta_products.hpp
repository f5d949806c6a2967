// SPDX-License-Identifier: Apache-2.0
// The gated delta rule product by product, for recipes with rules for its operators: what happens to one
// chunk of a sequence between the products. A team takes a head; matrices are dense, one head after the
// other. With all products in FP32 the bits are those of delta.hpp and delta_backward.hpp.
#pragma once
#include "nvfp4/reference_models/kernels/delta_backward.hpp"

namespace nvfp4::models {

/// A chunk of all heads of a sequence.
template <class T> struct DeltaPlace {
  DeltaShape<T> shape;
  int64_t sequence, chunk;

  [[nodiscard]] NVFP4_INLINE DeltaChunk<T> at(int64_t head) const {
    return {shape, sequence * shape.heads + head, chunk};
  }
};

/// The decays of every chunk. A team a chunk.
template <class T> struct DeltaDecays {
  DeltaShape<T> shape;
  const T *g;
  T *saved;

  [[nodiscard]] int64_t teams() const { return shape.chunks(); }
  [[nodiscard]] int64_t scratch() const { return kDeltaChunk; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const DeltaChunk<T> at(sh, index / sh.chunk_count(), index % sh.chunk_count());
    delta_decays<T>(team, at.n, {g + at.gates, sh.heads}, team.scratch, saved + at.decays);
  }
};

/// What a chunk's queries, (q d_i0) scale, and keys, -(k d_i0), read the state with, both (n, key), and what
/// its keys leave of them in the state, k d_{n-1,j+1}, transposed (key, n).
template <class T> struct DeltaStateFactors {
  DeltaPlace<T> place;
  const T *q, *k, *saved;
  T *reads, *recalls, *leaves;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const DeltaChunk<T> at = place.at(head);
    const int64_t dk = sh.key, n = at.n, first = head * n * dk;
    const View<const T> qc{q + at.keys, sh.heads * dk}, kc{k + at.keys, sh.heads * dk},
        decays{saved + at.decays, kDeltaDecays};
    const T scale = sh.scale;
    fill(team, n, dk, View<T>{reads + first, dk},
         [=](int64_t i, int64_t d) { return (qc(i, d) * decays(i, 0)) * scale; });
    fill(team, n, dk, View<T>{recalls + first, dk},
         [=](int64_t i, int64_t d) { return -(kc(i, d) * decays(i, 0)); });
    fill(team, n, dk, View<T>{leaves + first, 1, n},
         [=](int64_t j, int64_t d) { return kc(j, d) * decays(n - 1, j + 1); });
  }
};

/// below and a in `saved`, from the products kk and qk (n, n); qk becomes a.
template <class T> struct DeltaScores {
  DeltaPlace<T> place;
  const T *kk;
  T *qk, *saved;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const DeltaChunk<T> at = place.at(head);
    const int64_t n = at.n;
    const View<T> scores{qk + head * n * n, n}, kept{saved + at.a, kDeltaChunk};
    delta_scores<T>(team, n, {kk + head * n * n, n}, scores, saved + at.decays, place.shape.scale,
                    {saved + at.below, kDeltaChunk}, scores);
    fill(team, n, n, kept, [=](int64_t i, int64_t j) { return scores(i, j); });
  }
};

/// r in `saved`, from what the state leaves of v, r (n, value), which it solves in place.
template <class T> struct DeltaSolve {
  DeltaPlace<T> place;
  const T *beta;
  T *r, *saved;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  [[nodiscard]] int64_t scratch() const { return kDeltaChunk * kDeltaChunk; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    constexpr int64_t C = kDeltaChunk;
    const auto sh = place.shape;
    const DeltaChunk<T> at = place.at(head);
    const int64_t dv = sh.value, n = at.n;
    const View<T> rows{r + head * n * dv, dv}, lower{team.scratch, C};
    const View<const T> below{saved + at.below, C}, bc{beta + at.gates, sh.heads};
    fill(team, n, n, lower, [=](int64_t i, int64_t j) { return below(i, j) * bc(j, 0); });
    delta_solve<T>(team, n, dv, lower, rows);
    fill(team, n, dv, View<T>{saved + at.r, dv}, [=](int64_t i, int64_t e) { return rows(i, e); });
  }
};

/// What a chunk writes, u = beta r, transposed (value, n).
template <class T> struct DeltaWritten {
  DeltaPlace<T> place;
  const T *beta, *saved;
  T *ut;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const DeltaChunk<T> at = place.at(head);
    const int64_t dv = sh.value, n = at.n;
    const View<const T> r{saved + at.r, dv}, bc{beta + at.gates, sh.heads};
    fill(team, n, dv, View<T>{ut + head * n * dv, 1, n},
         [=](int64_t i, int64_t e) { return r(i, e) * bc(i, 0); });
  }
};

/// to = (the chunk's decay) from, of key times value elements: a state, or its gradient, without what a chunk
/// adds.
template <class T> struct DeltaDecayed {
  DeltaPlace<T> place;
  const T *saved, *from;
  T *to;
  int64_t head_stride; ///< of both

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const DeltaChunk<T> at = place.at(head);
    const T *const decays = saved + at.decays + (at.n - 1) * kDeltaDecays;
    const View<const T> source{from + head * head_stride, sh.value};
    fill(team, sh.key, sh.value, View<T>{to + head * head_stride, sh.value},
         [=](int64_t i, int64_t j) { return decays[0] * source(i, j); });
  }
};

/// From the gradient of u, tt (value, n), that of r through later r as well, t (n, value), and dv = beta t.
template <class T> struct DeltaSolveBack {
  DeltaPlace<T> place;
  const T *beta, *saved, *tt;
  T *t, *dv;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  [[nodiscard]] int64_t scratch() const { return kDeltaChunk * kDeltaChunk; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    constexpr int64_t C = kDeltaChunk;
    const auto sh = place.shape;
    const DeltaChunk<T> at = place.at(head);
    const int64_t width = sh.value, n = at.n, first = head * n * width;
    const View<T> rows{t + first, width}, lower{team.scratch, C};
    const View<const T> below{saved + at.below, C}, bc{beta + at.gates, sh.heads}, turned{tt + first, 1, n};
    fill(team, n, width, rows, [=](int64_t i, int64_t e) { return turned(i, e); });
    fill(team, n, n, lower, [=](int64_t i, int64_t j) { return below(i, j) * bc(i, 0); });
    delta_solve_back<T>(team, n, width, lower, rows);
    fill(team, n, width, View<T>{dv + first, width},
         [=](int64_t i, int64_t e) { return rows(i, e) * bc(i, 0); });
  }
};

/// dbeta, dg, and the gradients of the products kk and qk, both (n, n), the latter in place of da. What
/// products with the states made of q (dq) and k (recall), (n, key), and of k (leaves), (key, n), gets its
/// decays; dk (n, key) is the last turned.
template <class T> struct DeltaFactorGradients {
  DeltaPlace<T> place;
  const T *q, *k, *saved, *ut, *t, *dv, *ds, *leaves; // ds (key, value)
  T *da, *dkk, *dq, *recall, *dk, *grad_beta, *grad_g;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  [[nodiscard]] int64_t scratch() const { return kDeltaChunk * (kDeltaChunk + 3) + 1 + place.shape.key; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    constexpr int64_t C = kDeltaChunk;
    const auto sh = place.shape;
    const DeltaChunk<T> at = place.at(head);
    const int64_t key = sh.key, value = sh.value, n = at.n, keys = head * n * key, values = head * n * value,
                  square = head * n * n, states = head * key * value;
    const View<const T> qc{q + at.keys, sh.heads * key}, kc{k + at.keys, sh.heads * key},
        r{saved + at.r, value}, state{saved + at.state, value}, decays{saved + at.decays, kDeltaDecays},
        below{saved + at.below, C}, a{saved + at.a, C}, ts{t + values, value}, left{leaves + keys, 1, n};
    const View<T> x{dkk + square, n}, y{da + square, n}, dks{dk + keys, key},
        dbc{grad_beta + at.gates, sh.heads};
    T *const spare = team.scratch + C * C;
    const DeltaGateTerms<T> terms{spare, spare + C, spare + 2 * C, spare + 3 * C};
    team.rows(n, [=](int64_t i, const auto &lane) {
      const T sum = lane.sum(value, [=](int64_t e) { return ts(i, e) * r(i, e); });
      lane.one([=] { dbc(i, 0) = sum; });
    });
    team.matmul(n, n, value, {dv + values, value}, {ut + values, n}, x);
    terms.pass(team, n, x, below, y, a, {team.scratch, C});
    terms.carry(team, key, value, state, {ds + states, value}, &decays(n - 1, 0), spare + 3 * C + 1);
    delta_score_gradients<T>(team, n, decays, sh.scale, x, y);
    fill(team, n, key, dks, [=](int64_t j, int64_t d) { return left(j, d); });
    terms.factors(team, n, key, qc, kc, decays, sh.scale, {dq + keys, key}, {recall + keys, key}, dks);
    terms.sum(team, n, {grad_g + at.gates, sh.heads});
  }
};

} // namespace nvfp4::models
