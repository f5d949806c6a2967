// SPDX-License-Identifier: Apache-2.0
// Softmax attention product by product, for recipes with rules for them: heads as matrices of their own, and
// what happens between the products. With all products in FP32 the bits are those of attention.hpp.
#pragma once
#include "nvfp4/reference_models/kernels/attention.hpp"
#include "nvfp4/reference_models/kernels/norm.hpp"

namespace nvfp4::models {

/// Where element (head, row, col) of a tensor lies.
struct HeadStrides {
  int64_t head, row, col;
};

/// Copies (heads, rows, cols) from one layout to another. A team takes some rows of a head.
template <class T> struct MoveHeads {
  int64_t heads, rows, cols;
  const T *from;
  HeadStrides from_strides;
  T *to;
  HeadStrides to_strides;

  static constexpr int64_t kRows = 64;

  [[nodiscard]] NVFP4_INLINE int64_t blocks() const { return (rows + kRows - 1) / kRows; }
  [[nodiscard]] int64_t teams() const { return heads * blocks(); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const int64_t head = index / blocks(), first = index % blocks() * kRows;
    const T *const source = from + head * from_strides.head + first * from_strides.row;
    T *const target = to + head * to_strides.head + first * to_strides.row;
    const HeadStrides f = from_strides, t = to_strides;
    team.map(
        numerics::min(kRows, rows - first), cols,
        [=](int64_t r, int64_t c) { return source[r * f.row + c * f.col]; },
        [=](int64_t r, int64_t c, T value) { target[r * t.row + c * t.col] = value; });
  }
};

/// Scores (heads, length, length) become P: row i the softmax of scale times its first i + 1 scores, then 0.
template <class T> struct AttentionProbabilities {
  int64_t heads, length;
  T scale;
  T *scores;

  [[nodiscard]] int64_t teams() const { return row_teams(heads * length); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, heads * length, index, [=](int64_t r, const auto &lane) {
      (void)softmax_row(lane, s.scores + r * s.length, r % s.length + 1, s.length, s.scale);
    });
  }
};

/// dp (heads, length, length) becomes the gradient of the scores: row i scale p (dp - sum(p dp)) in its first
/// i + 1 places, then 0.
template <class T> struct AttentionScoreGradients {
  int64_t heads, length;
  T scale;
  const T *p;
  T *dp;

  [[nodiscard]] int64_t teams() const { return row_teams(heads * length); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, heads * length, index, [=](int64_t r, const auto &lane) {
      (void)score_gradient_row(lane, s.p + r * s.length, s.dp + r * s.length, r % s.length + 1, s.length,
                               s.scale);
    });
  }
};

} // namespace nvfp4::models
