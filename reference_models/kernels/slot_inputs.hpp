// SPDX-License-Identifier: Apache-2.0
// What gated slot attention does around its two passes, as flash-linear-attention defines it: SiLU of q, k, v
// and the output, decay and write of each slot, and the softmax over a head's slots.
#pragma once
#include "nvfp4/reference_models/kernels/attention.hpp"
#include "nvfp4/reference_models/kernels/elementwise.hpp"
#include "nvfp4/reference_models/kernels/norm.hpp"

namespace nvfp4::models {

/// y = silu(x).
template <class T> struct SiluForward {
  int64_t n;
  const T *x;
  T *y; // may be x

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    each_in_chunk(team, n, index, [=](int64_t i) { s.y[i] = numerics::silu(s.x[i]); });
  }
};

/// dx = dy silu'(x).
template <class T> struct SiluBackward {
  int64_t n;
  const T *dy, *x;
  T *dx; // may be dy

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    each_in_chunk(team, n, index, [=](int64_t i) { s.dx[i] = s.dy[i] * numerics::silu_derivative(s.x[i]); });
  }
};

/// 1 - e^g for g <= 0, to the last digits of a small g too (Kahan's correction), which subtracting from 1
/// would lose.
template <class T> NVFP4_INLINE T one_minus_exp(T g) {
  const T e = numerics::exp(g), rest = T(1) - e;
  const T corrected = rest * (g / numerics::log(e));
  return rest == T(0) ? -g : e > T(0.5) ? corrected : rest;
}

/// g = logsigmoid(x) / normalizer, the log of a slot's decay, and s = 1 - exp(g), how much it takes of a
/// token.
template <class T> struct SlotGateForward {
  int64_t n;
  const T *x;
  T *g, *s;
  T normalizer;

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto t = *this;
    each_in_chunk(team, n, index, [=](int64_t i) {
      const T decay = numerics::logsigmoid(t.x[i]) / t.normalizer;
      t.g[i] = decay;
      t.s[i] = one_minus_exp(decay);
    });
  }
};

/// dx from what both passes say of g and s: ((dg_1 + dg_2) - (ds_1 + ds_2) exp(g)) sigmoid(-x) / normalizer.
template <class T> struct SlotGateBackward {
  int64_t n;
  const T *dg_1, *dg_2, *ds_1, *ds_2, *g, *x;
  T *dx; // may be one of the gradients
  T normalizer;

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto t = *this;
    each_in_chunk(team, n, index, [=](int64_t i) {
      const T dg = (t.dg_1[i] + t.dg_2[i]) - (t.ds_1[i] + t.ds_2[i]) * numerics::exp(t.g[i]);
      t.dx[i] = dg * numerics::sigmoid(-t.x[i]) / t.normalizer;
    });
  }
};

/// Rows of x become their softmax.
template <class T> struct SlotSoftmaxForward {
  int64_t rows, cols;
  T *x;

  [[nodiscard]] int64_t teams() const { return row_teams(rows); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, rows, index, [=](int64_t r, const auto &lane) {
      (void)softmax_row(lane, s.x + r * s.cols, s.cols, s.cols, T(1));
    });
  }
};

/// Rows of dp become those of the scores' gradients: p (dp - sum(p dp)).
template <class T> struct SlotSoftmaxBackward {
  int64_t rows, cols;
  const T *p;
  T *dp;

  [[nodiscard]] int64_t teams() const { return row_teams(rows); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, rows, index, [=](int64_t r, const auto &lane) {
      (void)score_gradient_row(lane, s.p + r * s.cols, s.dp + r * s.cols, s.cols, s.cols, T(1));
    });
  }
};

} // namespace nvfp4::models
