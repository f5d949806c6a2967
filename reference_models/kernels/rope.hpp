// SPDX-License-Identifier: Apache-2.0
// Rotary position embedding, NeoX-style halves as Hugging Face's Llama and Qwen have it: element i of a head
// is paired with element i + dim / 2. The tables come from model/rope_table.hpp.
#pragma once
#include "nvfp4/reference_models/kernels/norm.hpp"

namespace nvfp4::models {

/// y = x rotated by the angles of its position, the place in its sequence. y may be x. Forward's y has
/// (x0 cos - x1 sin, x1 cos + x0 sin); `inverse` turns back.
template <class T> struct RopeShape {
  int64_t tokens, length, heads, dim; ///< tokens is a multiple of length; dim is even
  const T *cosine, *sine;             ///< (length, dim / 2)

  template <class Team>
  NVFP4_INLINE void rotate(const Team &team, int64_t index, const T *x, T *y, bool inverse) const {
    const auto s = *this;
    const int64_t half = dim / 2;
    rows_of_team(team, tokens * heads, index, [=](int64_t r, const auto &lane) {
      const int64_t position = r / s.heads % s.length;
      const T *c = s.cosine + position * half, *w = s.sine + position * half;
      const T *from = x + r * s.dim;
      T *to = y + r * s.dim;
      lane.each(half, [=](int64_t i) {
        const T x0 = from[i], x1 = from[i + half];
        const T turn = inverse ? -w[i] : w[i];
        to[i] = x0 * c[i] - x1 * turn;
        to[i + half] = x1 * c[i] + x0 * turn;
      });
    });
  }
};

template <class T> struct RopeForward {
  RopeShape<T> shape;
  const T *x; // (tokens, heads, dim)
  T *y;       // may be x

  [[nodiscard]] int64_t teams() const { return row_teams(shape.tokens * shape.heads); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    shape.rotate(team, index, x, y, false);
  }
};

/// dx is dy turned back.
template <class T> struct RopeBackward {
  RopeShape<T> shape;
  const T *dy;
  T *dx; // may be dy

  [[nodiscard]] int64_t teams() const { return row_teams(shape.tokens * shape.heads); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    shape.rotate(team, index, dy, dx, true);
  }
};

} // namespace nvfp4::models
