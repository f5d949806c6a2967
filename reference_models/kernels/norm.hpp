// SPDX-License-Identifier: Apache-2.0
// RMSNorm, and RMSNorm followed by a swish gate. Rows are independent; the gradient of the weight is written
// as terms (rows, cols) that AccumulateColumns then sums.
#pragma once
#include "nvfp4/reference_models/kernels/team.hpp"

namespace nvfp4::models {

inline constexpr int64_t kRowsPerTeam = 16;

NVFP4_INLINE int64_t row_teams(int64_t rows) { return (rows + kRowsPerTeam - 1) / kRowsPerTeam; }

/// f(r, lane) for the rows of team `index`.
template <class Team, class F>
NVFP4_INLINE void rows_of_team(const Team &team, int64_t rows, int64_t index, F f) {
  const int64_t first = index * kRowsPerTeam;
  team.rows(numerics::min(kRowsPerTeam, rows - first),
            [=](int64_t r, const auto &lane) { f(first + r, lane); });
}

/// y = x rstd weight, rstd = 1 / sqrt(mean(x^2) + epsilon).
template <class T> struct RmsNormForward {
  int64_t rows, cols;
  T epsilon;
  const T *x, *weight; // (rows, cols), (cols)
  T *y, *rstd;         // (rows, cols), (rows)

  [[nodiscard]] int64_t teams() const { return row_teams(rows); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, rows, index, [=](int64_t r, const auto &lane) {
      const T *x_row = s.x + r * s.cols;
      const T squares = lane.sum(s.cols, [=](int64_t j) { return x_row[j] * x_row[j]; });
      const T inverse = T(1) / numerics::sqrt(squares / T(s.cols) + s.epsilon);
      lane.one([=] { s.rstd[r] = inverse; });
      lane.map(s.cols, [=](int64_t j) { return (x_row[j] * inverse) * s.weight[j]; },
               [=](int64_t j, T value) { s.y[r * s.cols + j] = value; });
    });
  }
};

/// dx = rstd (dy w - x' mean(dy w x')), x' = x rstd; with `residual`, dx is that plus residual. terms = dy
/// x'.
template <class T> struct RmsNormBackward {
  int64_t rows, cols;
  const T *dy, *x, *weight, *rstd;
  const T *residual; // (rows, cols) or null; may be dx
  T *dx, *terms;

  [[nodiscard]] int64_t teams() const { return row_teams(rows); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, rows, index, [=](int64_t r, const auto &lane) {
      const T *dy_row = s.dy + r * s.cols, *x_row = s.x + r * s.cols;
      const T inverse = s.rstd[r];
      const T mean = lane.sum(s.cols, [=](int64_t j) {
        return (dy_row[j] * s.weight[j]) * (x_row[j] * inverse);
      }) / T(s.cols);
      lane.map(
          s.cols,
          [=](int64_t j) -> Two<T> {
            const T normal = x_row[j] * inverse;
            const T d = inverse * (dy_row[j] * s.weight[j] - normal * mean);
            return {s.residual != nullptr ? s.residual[r * s.cols + j] + d : d, dy_row[j] * normal};
          },
          [=](int64_t j, const Two<T> &d) {
            s.dx[r * s.cols + j] = d.first;
            s.terms[r * s.cols + j] = d.second;
          });
    });
  }
};

/// y = (x rstd weight) swish(gate): GLA's and Gated DeltaNet's output, per head.
template <class T> struct GatedNormForward {
  int64_t rows, cols;
  T epsilon;
  const T *x, *weight, *gate; // (rows, cols), (cols), (rows, cols)
  T *y, *rstd;

  [[nodiscard]] int64_t teams() const { return row_teams(rows); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, rows, index, [=](int64_t r, const auto &lane) {
      const T *x_row = s.x + r * s.cols, *gate_row = s.gate + r * s.cols;
      const T squares = lane.sum(s.cols, [=](int64_t j) { return x_row[j] * x_row[j]; });
      const T inverse = T(1) / numerics::sqrt(squares / T(s.cols) + s.epsilon);
      lane.one([=] { s.rstd[r] = inverse; });
      lane.map(s.cols, [=](int64_t j) { return ((x_row[j] * inverse) * s.weight[j]) * numerics::silu(gate_row[j]); },
               [=](int64_t j, T value) { s.y[r * s.cols + j] = value; });
    });
  }
};

/// dx, dgate and the terms of the weight's gradient.
template <class T> struct GatedNormBackward {
  int64_t rows, cols;
  const T *dy, *x, *weight, *gate, *rstd;
  T *dx, *dgate, *terms;

  [[nodiscard]] int64_t teams() const { return row_teams(rows); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, rows, index, [=](int64_t r, const auto &lane) {
      const T *dy_row = s.dy + r * s.cols, *x_row = s.x + r * s.cols, *gate_row = s.gate + r * s.cols;
      T *dx_row = s.dx + r * s.cols;
      const T inverse = s.rstd[r];
      lane.map(
          s.cols,
          [=](int64_t j) -> Three<T> {
            const T sig = numerics::sigmoid(gate_row[j]);
            const T normal = x_row[j] * inverse;
            const T dn = dy_row[j] * (gate_row[j] * sig); // gradient of the normalised, weighted value
            return {(dy_row[j] * (normal * s.weight[j])) * (sig * (T(1) + gate_row[j] * (T(1) - sig))), dn * s.weight[j],
                    dn * normal};
          },
          [=](int64_t j, const Three<T> &d) {
            s.dgate[r * s.cols + j] = d.first;
            dx_row[j] = d.second;
            s.terms[r * s.cols + j] = d.third;
          });
      const T mean =
          lane.sum(s.cols, [=](int64_t j) { return dx_row[j] * (x_row[j] * inverse); }) / T(s.cols);
      lane.map(s.cols, [=](int64_t j) { return inverse * (dx_row[j] - (x_row[j] * inverse) * mean); },
               [=](int64_t j, T d) { dx_row[j] = d; });
    });
  }
};

} // namespace nvfp4::models
