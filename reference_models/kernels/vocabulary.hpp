// SPDX-License-Identifier: Apache-2.0
// The two ends of a language model: embedding rows by token, and the cross-entropy of logits.
#pragma once
#include "nvfp4/reference_models/kernels/norm.hpp"

namespace nvfp4::models {

/// y (rows, cols) = table[token[r]].
template <class T> struct EmbeddingForward {
  int64_t rows, cols;
  const int32_t *tokens;
  const T *table; // (vocabulary, cols)
  T *y;

  [[nodiscard]] int64_t teams() const { return row_teams(rows); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, rows, index, [=](int64_t r, const auto &lane) {
      const T *from = s.table + int64_t(s.tokens[r]) * s.cols;
      lane.each(s.cols, [=](int64_t j) { s.y[r * s.cols + j] = from[j]; });
    });
  }
};

/// dtable[v] += dy[r] for the rows r whose token is v, r increasing. One team a token of the vocabulary; its
/// rows are positions[starts[v] .. starts[v + 1]).
template <class T> struct EmbeddingBackward {
  int64_t vocabulary, cols;
  const int32_t *starts, *positions;
  const T *dy;
  T *dtable;

  [[nodiscard]] int64_t teams() const { return vocabulary; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t v) const {
    const auto s = *this;
    if (starts[v] == starts[v + 1]) return;
    team.each(cols, [=](int64_t j) {
      T sum = s.dtable[v * s.cols + j];
      for (int32_t p = s.starts[v]; p < s.starts[v + 1]; ++p)
        sum += s.dy[int64_t(s.positions[p]) * s.cols + j];
      s.dtable[v * s.cols + j] = sum;
    });
  }
};

/// loss[r] = -log softmax(logits[r])[target[r]] and, with dlogits, its gradient times weight[r] * scale.
/// dlogits may be logits.
template <class T> struct CrossEntropy {
  int64_t rows, vocabulary;
  const T *logits;
  const int32_t *targets;
  const T *weights; // (rows): 0 where a target does not count
  T scale;
  T *loss;    // (rows), unweighted
  T *dlogits; // (rows, vocabulary) or null

  [[nodiscard]] int64_t teams() const { return row_teams(rows); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    rows_of_team(team, rows, index, [=](int64_t r, const auto &lane) {
      const T *z = s.logits + r * s.vocabulary;
      const int64_t target = s.targets[r];
      const T z_target = z[target];
      const T largest = lane.max(s.vocabulary, [=](int64_t j) { return z[j]; });
      const T sum = lane.sum(s.vocabulary, [=](int64_t j) { return numerics::exp(z[j] - largest); });
      lane.one([=] { s.loss[r] = (largest + numerics::log(sum)) - z_target; });
      if (s.dlogits == nullptr) return;
      const T factor = s.weights[r] * s.scale;
      lane.each(s.vocabulary, [=](int64_t j) {
        const T p = numerics::exp(z[j] - largest) / sum;
        s.dlogits[r * s.vocabulary + j] = (j == target ? p - T(1) : p) * factor;
      });
    });
  }
};

} // namespace nvfp4::models
