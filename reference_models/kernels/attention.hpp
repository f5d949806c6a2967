// SPDX-License-Identifier: Apache-2.0
// Causal softmax attention with grouped queries, forward: head h reads the keys and values of head h / (heads
// / kv_heads). Blocks of 64 query rows against all keys up to them, so that a team's memory grows with the
// length and not with its square.
#pragma once
#include "nvfp4/reference_models/kernels/team.hpp"

namespace nvfp4::models {

inline constexpr int64_t kQueryBlock = 64;

/// Rows of q and o have stride heads * dim, rows of k and v kv_heads * dim. heads is a multiple of kv_heads.
template <class T> struct AttentionShape {
  int64_t batch, length, heads, kv_heads, dim;
  T scale; ///< dim^-1/2

  [[nodiscard]] NVFP4_INLINE int64_t group() const { return heads / kv_heads; }
  [[nodiscard]] NVFP4_INLINE int64_t blocks() const { return (length + kQueryBlock - 1) / kQueryBlock; }
  /// Elements kept from forward to backward: each row's largest logit and 1 / sum of exponentials.
  [[nodiscard]] NVFP4_INLINE int64_t saved() const { return 2 * rows(); }
  /// Elements of work that forward, backward and the statistics need.
  [[nodiscard]] NVFP4_INLINE int64_t work() const { return 2 * turned() + rows(); }
  /// Rows of all heads.
  [[nodiscard]] NVFP4_INLINE int64_t rows() const { return batch * heads * length; }
  /// Elements of k or v.
  [[nodiscard]] NVFP4_INLINE int64_t turned() const { return batch * kv_heads * length * dim; }

  /// The rows of one head of a sequence, at data + first_row * stride.
  template <class E> NVFP4_INLINE View<E> q_rows(E *data, int64_t sequence, int64_t head) const {
    return {data + sequence * length * heads * dim + head * dim, heads * dim};
  }
  template <class E> NVFP4_INLINE View<E> k_rows(E *data, int64_t sequence, int64_t kv_head) const {
    return {data + sequence * length * kv_heads * dim + kv_head * dim, kv_heads * dim};
  }
  /// The same of a transposed tensor (batch, kv_heads, dim, length): (dim, length).
  template <class E> NVFP4_INLINE View<E> k_columns(E *data, int64_t sequence, int64_t kv_head) const {
    return {data + (sequence * kv_heads + kv_head) * dim * length, length};
  }
};

/// A team's block of queries. Long rows come first, so that the teams that end last have little to do.
struct QueryBlock {
  int64_t sequence, head, first, n;

  template <class T> NVFP4_INLINE QueryBlock(const AttentionShape<T> &s, int64_t index) {
    const int64_t streams = s.batch * s.heads, stream = index % streams;
    sequence = stream / s.heads;
    head = stream % s.heads;
    first = (s.blocks() - 1 - index / streams) * kQueryBlock;
    n = numerics::min(kQueryBlock, s.length - first);
  }
};

/// to (batch, kv_heads, dim, length) from k or v: products then read consecutive keys.
template <class T> struct AttentionTurn {
  AttentionShape<T> shape;
  const T *from;
  T *to;

  [[nodiscard]] int64_t teams() const { return shape.batch * shape.kv_heads * shape.blocks(); }
  [[nodiscard]] int64_t scratch() const { return shape.dim * (kQueryBlock + 1); }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const int64_t stream = index / sh.blocks(), first = index % sh.blocks() * kQueryBlock;
    const int64_t n = numerics::min(kQueryBlock, sh.length - first);
    const auto rows = sh.k_rows(from, stream / sh.kv_heads, stream % sh.kv_heads).at(first, 0);
    const auto columns = sh.k_columns(to, stream / sh.kv_heads, stream % sh.kv_heads).at(0, first);
    T *const part = team.scratch;
    constexpr int64_t kPitch = kQueryBlock + 1; // spreads memory banks
    team.rows(n, [=](int64_t j, const auto &lane) {
      lane.each(sh.dim, [=](int64_t d) { part[d * kPitch + j] = rows(j, d); });
    });
    team.rows(sh.dim, [=](int64_t d, const auto &lane) {
      lane.each(n, [=](int64_t j) { columns(d, j) = part[d * kPitch + j]; });
    });
  }
};

/// A row of scores becomes one of the softmax of scale times them: 0 from `valid` to `keys`. What it was
/// shifted and multiplied by.
template <class Lane, class T>
NVFP4_INLINE Two<T> softmax_row(const Lane &lane, T *row, int64_t valid, int64_t keys, T scale) {
  const T top = lane.max(valid, [=](int64_t j) { return row[j] * scale; });
  lane.each(keys, [=](int64_t j) {
    const T e = numerics::exp(row[j] * scale - top);
    row[j] = j < valid ? e : T(0);
  });
  const T factor = T(1) / lane.sum(valid, [=](int64_t j) { return row[j]; });
  lane.each(valid, [=](int64_t j) { row[j] = row[j] * factor; });
  return {top, factor};
}

/// A row of dp becomes one of the scores' gradients: 0 from `valid` to `keys`. dp's mean under p.
template <class Lane, class T>
NVFP4_INLINE T score_gradient_row(const Lane &lane, const T *p, T *row, int64_t valid, int64_t keys,
                                  T scale) {
  const T mean = lane.sum(valid, [=](int64_t j) { return p[j] * row[j]; });
  lane.each(keys, [=](int64_t j) {
    const T d = p[j] * (row[j] - mean) * scale;
    row[j] = j < valid ? d : T(0);
  });
  return mean;
}

/// o_i = sum over j <= i of p_ij v_j. A team a head and a block of queries.
template <class T> struct AttentionOutputs {
  AttentionShape<T> shape;
  const T *q, *kt, *v; // kt: k turned
  T *o, *saved;

  [[nodiscard]] int64_t teams() const { return shape.batch * shape.heads * shape.blocks(); }
  [[nodiscard]] int64_t scratch() const { return kQueryBlock * shape.length; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const QueryBlock at(sh, index);
    const int64_t first = at.first, keys = first + at.n, stride = sh.length;
    const auto qs = sh.q_rows(q, at.sequence, at.head),
               kts = sh.k_columns(kt, at.sequence, at.head / sh.group()),
               vs = sh.k_rows(v, at.sequence, at.head / sh.group());
    T *const p = team.scratch;
    T *const largest = saved + (at.sequence * sh.heads + at.head) * 2 * stride, *const inverse =
                                                                                    largest + stride;
    const T scale = sh.scale;
    team.matmul(at.n, keys, sh.dim, qs.at(first, 0), kts, {p, stride});
    team.rows(at.n, [=](int64_t r, const auto &lane) {
      const Two<T> by = softmax_row(lane, p + r * stride, first + r + 1, keys, scale);
      lane.one([=] {
        largest[first + r] = by.first;
        inverse[first + r] = by.second;
      });
    });
    team.matmul(at.n, sh.dim, keys, {p, stride}, vs, sh.q_rows(o, at.sequence, at.head).at(first, 0));
  }
};

/// o_i = sum over j <= i of p_ij v_j with p = softmax of scale q_i k_j, by two kernels.
template <class T> struct AttentionForward {
  AttentionShape<T> shape;
  const T *q, *k, *v;
  T *o, *saved, *work; // saved, work: shape.saved(), shape.work()

  /// Runner has run(kernel): a backend.
  template <class Runner> void run_on(Runner &runner) const {
    runner.run(AttentionTurn<T>{shape, k, work});
    runner.run(AttentionOutputs<T>{shape, q, work, v, o, saved});
  }
};

} // namespace nvfp4::models
