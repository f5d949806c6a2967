// SPDX-License-Identifier: Apache-2.0
// Causal softmax attention, backward: dq by blocks of queries, then dk and dv by blocks of keys, which
// compute their share of the probabilities again, so that no memory grows with the square of the length.
#pragma once
#include "nvfp4/reference_models/kernels/attention.hpp"

namespace nvfp4::models {

/// dq, and each row's mean of dp under p. A team a head and a block of queries.
template <class T> struct AttentionQueryGradients {
  AttentionShape<T> shape;
  const T *grad_o, *q, *k, *kt, *vt, *saved; // kt, vt: k and v turned
  T *grad_q, *means;                         // means (batch, heads, length)

  [[nodiscard]] int64_t teams() const { return shape.batch * shape.heads * shape.blocks(); }
  [[nodiscard]] int64_t scratch() const { return 2 * kQueryBlock * shape.length; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const QueryBlock at(sh, index);
    const int64_t first = at.first, n = at.n, keys = first + n, stride = sh.length;
    const int64_t kv_head = at.head / sh.group(), stream = at.sequence * sh.heads + at.head;
    const auto qs = sh.q_rows(q, at.sequence, at.head), dos = sh.q_rows(grad_o, at.sequence, at.head);
    const auto kts = sh.k_columns(kt, at.sequence, kv_head), vts = sh.k_columns(vt, at.sequence, kv_head);
    T *const p = team.scratch, *const ds = p + kQueryBlock * stride,
             *const mean_rows = means + stream * stride;
    const T *const largest = saved + stream * 2 * stride, *const inverse = largest + stride;
    const T scale = sh.scale;
    team.matmul(n, keys, sh.dim, qs.at(first, 0), kts, {p, stride});
    team.matmul(n, keys, sh.dim, dos.at(first, 0), vts, {ds, stride});
    team.rows(n, [=](int64_t r, const auto &lane) {
      T *const row = p + r * stride;
      const int64_t valid = first + r + 1;
      const T top = largest[first + r], factor = inverse[first + r];
      lane.each(keys, [=](int64_t j) {
        const T e = numerics::exp(row[j] * scale - top) * factor;
        row[j] = j < valid ? e : T(0);
      });
      const T mean = score_gradient_row(lane, row, ds + r * stride, valid, keys, scale);
      lane.one([=] { mean_rows[first + r] = mean; });
    });
    team.matmul(n, sh.dim, keys, {ds, stride}, sh.k_rows(k, at.sequence, kv_head),
                sh.q_rows(grad_q, at.sequence, at.head).at(first, 0));
  }
};

/// dk and dv. A team takes 64 keys of a key head, its query heads and their blocks in increasing order.
template <class T> struct AttentionKeyGradients {
  AttentionShape<T> shape;
  const T *grad_o, *q, *kt, *vt, *saved, *means;
  T *grad_k, *grad_v;

  [[nodiscard]] int64_t teams() const { return shape.batch * shape.kv_heads * shape.blocks(); }
  [[nodiscard]] int64_t scratch() const { return 2 * kQueryBlock * kQueryBlock; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    constexpr int64_t C = kQueryBlock;
    const auto sh = shape;
    // early keys have the most queries
    const int64_t streams = sh.batch * sh.kv_heads, sequence = index % streams / sh.kv_heads,
                  kv_head = index % sh.kv_heads, key = index / streams * C;
    const int64_t keys = numerics::min(C, sh.length - key), stride = sh.length;
    const auto kts = sh.k_columns(kt, sequence, kv_head).at(0, key),
               vts = sh.k_columns(vt, sequence, kv_head).at(0, key);
    const auto dks = sh.k_rows(grad_k, sequence, kv_head).at(key, 0),
               dvs = sh.k_rows(grad_v, sequence, kv_head).at(key, 0);
    T *const p = team.scratch, *const ds = p + C * C;
    const T scale = sh.scale;
    for (int64_t member = 0; member < sh.group(); ++member) {
      const int64_t head = kv_head * sh.group() + member, stream = sequence * sh.heads + head;
      const auto qs = sh.q_rows(q, sequence, head), dos = sh.q_rows(grad_o, sequence, head);
      const T *const largest = saved + stream * 2 * stride, *const inverse = largest + stride,
                     *const mean_rows = means + stream * stride;
      for (int64_t first = key; first < sh.length; first += C) {
        const int64_t n = numerics::min(C, sh.length - first);
        team.matmul(n, keys, sh.dim, qs.at(first, 0), kts, {p, C});
        team.matmul(n, keys, sh.dim, dos.at(first, 0), vts, {ds, C});
        team.map(
            n, keys,
            [=](int64_t r, int64_t j) {
              const T e = numerics::exp(p[r * C + j] * scale - largest[first + r]) * inverse[first + r];
              const T d = e * (ds[r * C + j] - mean_rows[first + r]) * scale;
              const bool valid = key + j <= first + r;
              return Two<T>{valid ? e : T(0), valid ? d : T(0)};
            },
            [=](int64_t r, int64_t j, Two<T> x) {
              p[r * C + j] = x.first;
              ds[r * C + j] = x.second;
            });
        const bool add = member > 0 || first > key;
        team.matmul(keys, sh.dim, n, {p, 1, C}, dos.at(first, 0), dvs, add);
        team.matmul(keys, sh.dim, n, {ds, 1, C}, qs.at(first, 0), dks, add);
      }
    }
  }
};

/// dq, dk, dv from do, by four kernels; `saved` is forward's.
template <class T> struct AttentionBackward {
  AttentionShape<T> shape;
  const T *grad_o, *q, *k, *v;
  T *grad_q, *grad_k, *grad_v;
  const T *saved;
  T *work; // shape.work()

  template <class Runner> void run_on(Runner &runner) const {
    T *const kt = work, *const vt = kt + shape.turned(), *const means = vt + shape.turned();
    runner.run(AttentionTurn<T>{shape, k, kt});
    runner.run(AttentionTurn<T>{shape, v, vt});
    runner.run(AttentionQueryGradients<T>{shape, grad_o, q, k, kt, vt, saved, grad_q, means});
    runner.run(AttentionKeyGradients<T>{shape, grad_o, q, kt, vt, saved, means, grad_k, grad_v});
  }
};

} // namespace nvfp4::models
