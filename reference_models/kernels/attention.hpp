// SPDX-License-Identifier: Apache-2.0
// Causal softmax attention with grouped queries: head h reads the keys and values of head h / (heads /
// kv_heads). Blocks of 64 query rows against all keys up to them, so that memory grows with the length and
// not with its square.
#pragma once
#include "reference_models/kernels/team.hpp"

namespace nvfp4::models {

inline constexpr int64_t kQueryBlock = 64;

/// Rows of q and o have stride heads * dim, rows of k and v kv_heads * dim. heads is a multiple of kv_heads.
template <class T> struct AttentionShape {
  int64_t batch, length, heads, kv_heads, dim;
  T scale; ///< dim^-1/2

  [[nodiscard]] NVFP4_INLINE int64_t group() const { return heads / kv_heads; }
  /// Elements kept from forward to backward, of all teams: each row's largest logit and 1 / sum of
  /// exponentials.
  [[nodiscard]] NVFP4_INLINE int64_t saved() const { return 2 * batch * heads * length; }
  /// Elements of scratch, of all teams, for forward, backward and the statistics.
  [[nodiscard]] NVFP4_INLINE int64_t scratch() const { return batch * heads * team_scratch(); }
  /// Two blocks of (64, length), then k and v transposed, (dim, length).
  [[nodiscard]] NVFP4_INLINE int64_t team_scratch() const { return 2 * length * (kQueryBlock + dim); }

  /// The rows of one head of a sequence, at data + first_row * stride.
  template <class E> NVFP4_INLINE View<E> q_rows(E *data, int64_t sequence, int64_t head) const {
    return {data + sequence * length * heads * dim + head * dim, heads * dim};
  }
  template <class E> NVFP4_INLINE View<E> k_rows(E *data, int64_t sequence, int64_t kv_head) const {
    return {data + sequence * length * kv_heads * dim + kv_head * dim, kv_heads * dim};
  }
};

/// to (dim, length) = from (length, dim).
template <class T, class Team>
NVFP4_INLINE void transpose_rows(const Team &team, int64_t length, int64_t dim, View<const T> from, T *to) {
  team.rows(dim, [=](int64_t d, const auto &lane) {
    lane.each(length, [=](int64_t j) { to[d * length + j] = from(j, d); });
  });
}

/// o_i = sum over j <= i of p_ij v_j with p = softmax of scale q_i k_j.
template <class T> struct AttentionForward {
  AttentionShape<T> shape;
  const T *q, *k, *v;
  T *o;
  T *saved, *scratch; // shape.saved(), shape.scratch()

  [[nodiscard]] int64_t teams() const { return shape.batch * shape.heads; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const int64_t sequence = index / sh.heads, head = index % sh.heads, stride = sh.length;
    const auto qs = sh.q_rows(q, sequence, head);
    const auto ks = sh.k_rows(k, sequence, head / sh.group()), vs = sh.k_rows(v, sequence, head / sh.group());
    const auto os = sh.q_rows(o, sequence, head);
    T *const p = scratch + index * sh.team_scratch(), *const kt = p + 2 * kQueryBlock * stride;
    T *const largest = saved + index * 2 * stride, *const inverse = largest + stride;
    const T scale = sh.scale;
    transpose_rows(team, sh.length, sh.dim, ks, kt);
    for (int64_t first = 0; first < sh.length; first += kQueryBlock) {
      const int64_t n = numerics::min(kQueryBlock, sh.length - first), keys = first + n;
      team.matmul(n, keys, sh.dim, qs.at(first, 0), {kt, stride}, {p, stride});
      team.rows(n, [=](int64_t r, const auto &lane) {
        T *const row = p + r * stride;
        const int64_t valid = first + r + 1;
        const T top = lane.max(valid, [=](int64_t j) { return row[j] * scale; });
        lane.each(keys, [=](int64_t j) {
          const T e = numerics::exp(row[j] * scale - top);
          row[j] = j < valid ? e : T(0);
        });
        const T factor = T(1) / lane.sum(valid, [=](int64_t j) { return row[j]; });
        lane.each(valid, [=](int64_t j) { row[j] = row[j] * factor; });
        lane.one([=] {
          largest[first + r] = top;
          inverse[first + r] = factor;
        });
      });
      team.matmul(n, sh.dim, keys, {p, stride}, vs, os.at(first, 0));
    }
  }
};

/// dq, dk, dv from do; `saved` is forward's. A team takes a key head, and its query heads and blocks in
/// increasing order.
template <class T> struct AttentionBackward {
  AttentionShape<T> shape;
  const T *grad_o, *q, *k, *v;
  T *grad_q, *grad_k, *grad_v;
  const T *saved;
  T *scratch;

  [[nodiscard]] int64_t teams() const { return shape.batch * shape.kv_heads; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const int64_t sequence = index / sh.kv_heads, kv_head = index % sh.kv_heads, stride = sh.length;
    const auto ks = sh.k_rows(k, sequence, kv_head), vs = sh.k_rows(v, sequence, kv_head);
    const auto dks = sh.k_rows(grad_k, sequence, kv_head), dvs = sh.k_rows(grad_v, sequence, kv_head);
    T *const p = scratch + index * sh.team_scratch(), *const ds = p + kQueryBlock * stride,
             *const kt = ds + kQueryBlock * stride, *const vt = kt + sh.dim * stride;
    const T scale = sh.scale;
    transpose_rows(team, sh.length, sh.dim, ks, kt);
    transpose_rows(team, sh.length, sh.dim, vs, vt);
    for (int64_t member = 0; member < sh.group(); ++member) {
      const int64_t head = kv_head * sh.group() + member;
      const auto qs = sh.q_rows(q, sequence, head), dos = sh.q_rows(grad_o, sequence, head);
      const auto dqs = sh.q_rows(grad_q, sequence, head);
      const T *const largest = saved + (sequence * sh.heads + head) * 2 * stride, *const inverse =
                                                                                      largest + stride;
      for (int64_t first = 0; first < sh.length; first += kQueryBlock) {
        const int64_t n = numerics::min(kQueryBlock, sh.length - first), keys = first + n;
        team.matmul(n, keys, sh.dim, qs.at(first, 0), {kt, stride}, {p, stride});
        team.matmul(n, keys, sh.dim, dos.at(first, 0), {vt, stride}, {ds, stride});
        team.rows(n, [=](int64_t r, const auto &lane) {
          T *const row = p + r * stride, *const d_row = ds + r * stride;
          const int64_t valid = first + r + 1;
          const T top = largest[first + r], factor = inverse[first + r];
          lane.each(keys, [=](int64_t j) {
            const T e = numerics::exp(row[j] * scale - top) * factor;
            row[j] = j < valid ? e : T(0);
          });
          const T mean = lane.sum(valid, [=](int64_t j) { return row[j] * d_row[j]; });
          lane.each(keys, [=](int64_t j) {
            const T d = row[j] * (d_row[j] - mean) * scale;
            d_row[j] = j < valid ? d : T(0);
          });
        });
        team.matmul(n, sh.dim, keys, {ds, stride}, ks, dqs.at(first, 0));
        // the rows of this block's own keys start at 0 with the first query head
        const int64_t before = member == 0 ? first : keys;
        accumulate(team, n, before, keys, p, dos.at(first, 0), dvs);
        accumulate(team, n, before, keys, ds, qs.at(first, 0), dks);
      }
    }
  }

private:
  /// to (keys, dim) += weights^T rows, where the rows of `to` from `before` on count as 0.
  template <class Team>
  NVFP4_INLINE void accumulate(const Team &team, int64_t n, int64_t before, int64_t keys, const T *weights,
                               View<const T> rows, View<T> to) const {
    const View<const T> a{weights, 1, shape.length};
    if (before > 0) team.matmul(before, shape.dim, n, a, rows, to, true);
    if (before < keys) team.matmul(keys - before, shape.dim, n, a.at(before, 0), rows, to.at(before, 0));
  }
};

/// What happens to the logits z = scale q_i k_j, j <= i, of one head, all sums in FP64: rows in increasing
/// order.
struct AttentionMoments {
  double entropy;        ///< sum over rows of -sum p log p, in nats
  double largest;        ///< largest z
  double z1, z2, z3, z4; ///< sums of powers of z over length (length + 1) / 2 logits
};

/// Diagnostics of a forward pass; costs about as much as one. `saved` is forward's.
template <class T> struct AttentionStatistics {
  AttentionShape<T> shape;
  const T *q, *k;
  const T *saved;
  T *scratch;
  AttentionMoments *rows, *heads; // (batch, heads, length) work, (batch, heads) result

  [[nodiscard]] int64_t teams() const { return shape.batch * shape.heads; }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto sh = shape;
    const int64_t sequence = index / sh.heads, head = index % sh.heads, stride = sh.length;
    const auto qs = sh.q_rows(q, sequence, head);
    const auto ks = sh.k_rows(k, sequence, head / sh.group());
    T *const p = scratch + index * sh.team_scratch(), *const kt = p + 2 * kQueryBlock * stride;
    const T *const largest = saved + index * 2 * stride, *const inverse = largest + stride;
    AttentionMoments *const out = rows + index * stride, *const total = heads + index;
    const T scale = sh.scale;
    transpose_rows(team, sh.length, sh.dim, ks, kt);
    for (int64_t first = 0; first < sh.length; first += kQueryBlock) {
      const int64_t n = numerics::min(kQueryBlock, sh.length - first);
      team.matmul(n, first + n, sh.dim, qs.at(first, 0), {kt, stride}, {p, stride});
      team.rows(n, [=](int64_t r, const auto &lane) {
        const T *const row = p + r * stride;
        const int64_t valid = first + r + 1;
        const T top = largest[first + r], factor = inverse[first + r];
        AttentionMoments m;
        // -sum p log p = -log factor - sum p (z - top)
        m.entropy = -double(numerics::log(factor)) - lane.sum(valid, [=](int64_t j) {
          const T d = row[j] * scale - top;
          return double(numerics::exp(d) * factor) * double(d);
        });
        m.largest = double(top);
        const auto z = [=](int64_t j) { return double(row[j] * scale); };
        m.z1 = lane.sum(valid, z);
        m.z2 = lane.sum(valid, [=](int64_t j) { return z(j) * z(j); });
        m.z3 = lane.sum(valid, [=](int64_t j) { return z(j) * z(j) * z(j); });
        m.z4 = lane.sum(valid, [=](int64_t j) { return (z(j) * z(j)) * (z(j) * z(j)); });
        lane.one([=] { out[first + r] = m; });
      });
    }
    team.each(1, [=](int64_t) {
      AttentionMoments sum = out[0];
      for (int64_t r = 1; r < sh.length; ++r) {
        sum.entropy += out[r].entropy;
        sum.largest = numerics::max(sum.largest, out[r].largest);
        sum.z1 += out[r].z1;
        sum.z2 += out[r].z2;
        sum.z3 += out[r].z3;
        sum.z4 += out[r].z4;
      }
      *total = sum;
    });
  }
};

} // namespace nvfp4::models
