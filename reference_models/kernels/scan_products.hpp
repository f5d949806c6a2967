// SPDX-License-Identifier: Apache-2.0
// Mamba-2's scan product by product, for recipes with rules for its operators: what happens to one chunk of a
// sequence between the products. A team takes a head; matrices are dense, one head after the other. With all
// products in FP32 the bits are those of scan.hpp and scan_backward.hpp.
#pragma once
#include "nvfp4/reference_models/kernels/scan_backward.hpp"

namespace nvfp4::models {

/// A chunk of all heads of a sequence.
template <class T> struct ScanPlace {
  ScanShape<T> shape;
  int64_t sequence, chunk;

  [[nodiscard]] NVFP4_INLINE ScanChunk<T> at(int64_t head) const { return {shape, sequence, head, chunk}; }
};

/// What a chunk reads the state with (n, state), what it leaves of B, transposed (state, n), and what it
/// writes, transposed (value, n).
template <class T> struct ScanFactors {
  ScanPlace<T> place;
  const T *c, *b, *x, *dt, *saved;
  T *reads, *leaves, *ut;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const ScanChunk<T> at = place.at(head);
    const int64_t n = at.n, ds = sh.state, dv = sh.value, row = at.token * sh.row;
    const View<const T> decays{saved + at.decays, kScanDecays};
    scan_reads<T>(team, n, ds, {c + row, sh.row}, decays, {reads + head * n * ds, ds});
    scan_leaves<T>(team, n, ds, {b + row, sh.row}, decays, {leaves + head * n * ds, 1, n});
    scan_writes<T>(team, n, dv, {x + row + head * dv, sh.row}, {dt + at.gates, sh.heads},
                   {ut + head * n * dv, 1, n});
  }
};

/// The scores a (n, n), from the products in `saved`.
template <class T> struct ScanScores {
  ScanPlace<T> place;
  const T *saved;
  T *a;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const ScanChunk<T> at = place.at(head);
    scan_scores<T>(team, at.n, {saved + at.products, kScanChunk}, {saved + at.decays, kScanDecays},
                   {a + head * at.n * at.n, at.n});
  }
};

/// y (n, value) += D x.
template <class T> struct ScanSkip {
  ScanPlace<T> place;
  const T *x, *skip;
  T *y;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const ScanChunk<T> at = place.at(head);
    const int64_t dv = sh.value;
    const View<const T> xc{x + at.token * sh.row + head * dv, sh.row};
    const View<T> to{y + head * at.n * dv, dv};
    const T *const through = skip + head;
    fill(team, at.n, dv, to, [=](int64_t i, int64_t e) { return to(i, e) + *through * xc(i, e); });
  }
};

/// to = (the chunk's decay) from, of state times value elements: a state, or its gradient, without what a
/// chunk adds.
template <class T> struct ScanDecayed {
  ScanPlace<T> place;
  const T *saved, *from;
  T *to;
  int64_t head_stride; ///< of both

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const ScanChunk<T> at = place.at(head);
    const T *const decay = saved + at.decays + (at.n - 1) * kScanDecays;
    const View<const T> source{from + head * head_stride, sh.value};
    fill(team, sh.state, sh.value, View<T>{to + head * head_stride, sh.value},
         [=](int64_t i, int64_t j) { return *decay * source(i, j); });
  }
};

/// Gradients of x, dt and g, and D's terms, from those of what tokens write, dut (value, n), and of scores,
/// da (n, n), which become those of products. What products with the states made of C (dreads), (n, state),
/// and of B (dleaves), (state, n), gets its decays; db (n, state) is the last turned.
template <class T> struct ScanFactorGradients {
  ScanPlace<T> place;
  const T *c, *b, *x, *dt, *skip, *saved, *grad_y, *ds, *dut,
      *dleaves; // grad_y (n, value), ds (state, value)
  T *da, *dreads, *db;
  T *grad_x, *grad_dt, *grad_g, *skip_terms; // as in ScanGradients

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  [[nodiscard]] int64_t scratch() const { return kScanChunk * (kScanChunk + 2) + place.shape.state + 1; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    constexpr int64_t C = kScanChunk;
    const auto sh = place.shape;
    const ScanChunk<T> at = place.at(head);
    const int64_t n = at.n, width = sh.state, dv = sh.value, row = at.token * sh.row,
                  states = head * n * width, values = head * n * dv, square = head * n * n;
    const View<const T> cc{c + row, sh.row}, bc{b + row, sh.row}, xc{x + row + head * dv, sh.row},
        dtc{dt + at.gates, sh.heads}, decays{saved + at.decays, kScanDecays},
        products{saved + at.products, C}, state{saved + at.state, dv}, after{ds + head * width * dv, dv},
        left{dleaves + states, 1, n};
    const View<T> scores{da + square, n}, read{dreads + states, width}, dbc{db + states, width},
        dgc{grad_g + at.gates, sh.heads}, pairs{team.scratch, C};
    T *const reads = team.scratch + C * C, *const leaves = reads + C, *const whole = leaves + C,
             *const parts = whole + 1;
    team.map(
        n, n,
        [=](int64_t i, int64_t j) {
          const T decayed = scores(i, j) * decays(i, j + 1);
          return Two<T>{j <= i ? decayed : T(0), j <= i ? decayed * products(i, j) : T(0)};
        },
        [=](int64_t i, int64_t j, Two<T> value) {
          scores(i, j) = value.first;
          pairs(i, j) = value.second;
        });
    scan_input_gradients<T>(team, n, dv, xc, dtc, {grad_y + values, dv}, skip + head, {dut + values, 1, n},
                            {grad_x + row + head * dv, sh.row}, {grad_dt + at.gates, sh.heads},
                            {skip_terms + at.gates, sh.heads});
    scan_reads<T>(team, n, width, read, decays, read);
    scan_row_products<T>(team, n, width, cc, read, reads);
    scan_leaves<T>(team, n, width, left, decays, dbc);
    scan_row_products<T>(team, n, width, bc, dbc, leaves);
    scan_whole<T>(team, width, dv, state, after, &decays(n - 1, 0), parts, whole);
    passed_pairs(team, n, pairs, dgc);
    gate_gradients<Team, T>(team, n, whole, reads, leaves, dgc, dgc);
  }
};

/// to (n) = the sum over heads of from (heads, n), in their order, from 0.
template <class T> struct SumHeads {
  int64_t heads, n;
  const T *from;
  T *to;

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    each_in_chunk(team, n, index, [=](int64_t i) {
      T sum = T(0);
      for (int64_t h = 0; h < s.heads; ++h) sum += s.from[h * s.n + i];
      s.to[i] = sum;
    });
  }
};

} // namespace nvfp4::models
