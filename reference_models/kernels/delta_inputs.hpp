// SPDX-License-Identifier: Apache-2.0
// What Gated DeltaNet does to its inputs, as flash-linear-attention defines it: the L2 norm of queries and
// keys, and the decay and step of each head.
#pragma once
#include "nvfp4/reference_models/kernels/elementwise.hpp"
#include "nvfp4/reference_models/kernels/norm.hpp"

namespace nvfp4::models {

/// y = x rstd, rstd = 1 / sqrt(sum(x^2) + epsilon); fla's epsilon is 1e-6. A row is one head of one token.
template <class T> struct L2NormForward {
  int64_t rows, cols;
  T epsilon;
  const T *x;
  T *y, *rstd; // (rows, cols), may be x; (rows)

  [[nodiscard]] int64_t teams() const { return row_teams(rows); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, rows, index, [=](int64_t r, const auto &lane) {
      const T *from = s.x + r * s.cols;
      T *to = s.y + r * s.cols;
      const T squares = lane.sum(s.cols, [=](int64_t j) { return from[j] * from[j]; });
      const T inverse = T(1) / numerics::sqrt(squares + s.epsilon);
      lane.one([=] { s.rstd[r] = inverse; });
      lane.each(s.cols, [=](int64_t j) { to[j] = from[j] * inverse; });
    });
  }
};

/// dx = rstd (dy - y sum(dy y)), from forward's y.
template <class T> struct L2NormBackward {
  int64_t rows, cols;
  const T *dy, *y, *rstd;
  T *dx; // may be dy

  [[nodiscard]] int64_t teams() const { return row_teams(rows); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, rows, index, [=](int64_t r, const auto &lane) {
      const T *dy_row = s.dy + r * s.cols, *y_row = s.y + r * s.cols;
      T *to = s.dx + r * s.cols;
      const T inverse = s.rstd[r];
      const T sum = lane.sum(s.cols, [=](int64_t j) { return dy_row[j] * y_row[j]; });
      lane.each(s.cols, [=](int64_t j) { to[j] = inverse * (dy_row[j] - y_row[j] * sum); });
    });
  }
};

/// g = -exp(a_log) softplus(a + dt_bias), the log of the decay, and beta = sigmoid(b). All (tokens, heads),
/// parameters (heads).
template <class T> struct DeltaGateForward {
  int64_t tokens, heads;
  const T *a, *b, *a_log, *dt_bias;
  T *g, *beta;

  [[nodiscard]] int64_t teams() const { return chunks(tokens * heads); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    each_in_chunk(team, tokens * heads, index, [=](int64_t i) {
      const int64_t h = i % s.heads;
      s.g[i] = -numerics::exp(s.a_log[h]) * numerics::softplus(s.a[i] + s.dt_bias[h]);
      s.beta[i] = numerics::sigmoid(s.b[i]);
    });
  }
};

/// da and db. Sums over tokens (AccumulateColumns) give the parameters' gradients: of da that of dt_bias, of
/// `terms` = dg g that of a_log.
template <class T> struct DeltaGateBackward {
  int64_t tokens, heads;
  const T *dg, *dbeta, *g, *beta, *a, *a_log, *dt_bias;
  T *da, *db, *terms;

  [[nodiscard]] int64_t teams() const { return chunks(tokens * heads); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    each_in_chunk(team, tokens * heads, index, [=](int64_t i) {
      const int64_t h = i % s.heads;
      const T d = s.dg[i];
      s.da[i] = (d * -numerics::exp(s.a_log[h])) * numerics::sigmoid(s.a[i] + s.dt_bias[h]);
      s.db[i] = s.dbeta[i] * (s.beta[i] * (T(1) - s.beta[i]));
      s.terms[i] = d * s.g[i];
    });
  }
};

} // namespace nvfp4::models
