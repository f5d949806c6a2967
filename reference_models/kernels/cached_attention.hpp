// SPDX-License-Identifier: Apache-2.0
// Causal softmax attention of new tokens behind cached ones, forward alone: prefill, decoding a token at a
// time, sliding windows. Without a cache and a window its words are attention.hpp's.
#pragma once
#include "nvfp4/reference_models/kernels/attention.hpp"

#include "nvfp4/emulator/formats/bf16.hpp"

namespace nvfp4::models {

/// What keys and values are rounded to where they are kept.
enum class KvRounding : uint8_t {
  none,
  bf16, ///< nearest even
  e4m3, ///< nearest even, saturating
};

NVFP4_INLINE float round_kv(KvRounding rounding, float x) {
  if (rounding == KvRounding::bf16) return round_to_bf16(x);
  if (rounding == KvRounding::e4m3)
    return value_f32(FormatId::e4m3, encode(FormatId::e4m3, x, Rounding::nearest_even, Overflow::satfinite));
  return x;
}

/// Keys are kept turned, (batch, kv_heads, dim, capacity), values as (batch, capacity, kv_heads, dim).
template <class T> struct CachedAttentionShape {
  AttentionShape<T> queries; ///< `length` new tokens a sequence
  int64_t past;              ///< tokens before them in the cache
  int64_t capacity;          ///< at least past + length
  int64_t window;            ///< keys that a query sees at most, itself among them; 0: all

  [[nodiscard]] NVFP4_INLINE int64_t elements() const {
    return queries.batch * capacity * queries.kv_heads * queries.dim;
  }
  template <class E> NVFP4_INLINE View<E> keys(E *cache, int64_t sequence, int64_t kv_head) const {
    return {cache + (sequence * queries.kv_heads + kv_head) * queries.dim * capacity, capacity};
  }
  template <class E> NVFP4_INLINE View<E> values(E *cache, int64_t sequence, int64_t kv_head) const {
    const int64_t width = queries.kv_heads * queries.dim;
    return {cache + sequence * capacity * width + kv_head * queries.dim, width};
  }
  /// The first key that the query at this place among the new ones sees.
  [[nodiscard]] NVFP4_INLINE int64_t first_key(int64_t query) const {
    return window == 0 ? 0 : numerics::max<int64_t>(0, past + query + 1 - window);
  }
};

/// Puts k and v of the new tokens, rows as AttentionShape has them, behind those that are there. With e4m3,
/// x / scale is rounded and the value times scale kept.
template <class T> struct KvStore {
  CachedAttentionShape<T> shape;
  const T *k, *v;
  T *keys, *values;
  KvRounding rounding;
  T k_scale, v_scale;

  [[nodiscard]] int64_t teams() const {
    return shape.queries.batch * shape.queries.kv_heads * shape.queries.blocks();
  }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    const auto q = shape.queries;
    const int64_t stream = index / q.blocks(), first = index % q.blocks() * kQueryBlock;
    const int64_t sequence = stream / q.kv_heads, head = stream % q.kv_heads;
    const auto from_k = q.k_rows(k, sequence, head).at(first, 0),
               from_v = q.k_rows(v, sequence, head).at(first, 0);
    const auto to_k = shape.keys(keys, sequence, head).at(0, shape.past + first);
    const auto to_v = shape.values(values, sequence, head).at(shape.past + first, 0);
    const auto kept = [=](T x, T scale) {
      if (s.rounding == KvRounding::none) return x;
      return T(round_kv(s.rounding, float(x / scale))) * scale;
    };
    team.rows(numerics::min(kQueryBlock, q.length - first), [=](int64_t j, const auto &lane) {
      lane.each(q.dim, [=](int64_t d) {
        to_k(d, j) = kept(from_k(j, d), s.k_scale);
        to_v(j, d) = kept(from_v(j, d), s.v_scale);
      });
    });
  }
};

/// o_i = sum over the keys that i sees of p_ij v_j. A softmax's sums begin at the first of them.
template <class T> struct CachedAttention {
  CachedAttentionShape<T> shape;
  const T *q, *keys, *values;
  T *o;

  [[nodiscard]] int64_t teams() const {
    return shape.queries.batch * shape.queries.heads * shape.queries.blocks();
  }
  [[nodiscard]] int64_t scratch() const { return kQueryBlock * (shape.past + shape.queries.length); }

  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = shape;
    const auto sh = shape.queries;
    const QueryBlock at(sh, index);
    const int64_t stride = s.past + sh.length, group = sh.group();
    const int64_t begin = s.first_key(at.first), count = s.past + at.first + at.n - begin;
    const auto qs = sh.q_rows(q, at.sequence, at.head).at(at.first, 0);
    const auto ks = s.keys(keys, at.sequence, at.head / group).at(0, begin);
    const auto vs = s.values(values, at.sequence, at.head / group).at(begin, 0);
    T *const p = team.scratch;
    team.matmul(at.n, count, sh.dim, qs, ks, {p, stride});
    team.rows(at.n, [=](int64_t r, const auto &lane) {
      const int64_t query = at.first + r, hidden = s.first_key(query) - begin;
      T *const row = p + r * stride;
      softmax_row(lane, row + hidden, s.past + query + 1 - begin - hidden, count - hidden, sh.scale);
      lane.each(hidden, [=](int64_t j) { row[j] = T(0); });
    });
    team.matmul(at.n, sh.dim, count, {p, stride}, vs, sh.q_rows(o, at.sequence, at.head).at(at.first, 0));
  }
};

} // namespace nvfp4::models
