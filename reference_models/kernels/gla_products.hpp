// SPDX-License-Identifier: Apache-2.0
// Gated linear attention product by product, for recipes with rules for them: what happens to one chunk of a
// sequence between the products. A team takes a head; matrices are dense, one head after the other. With all
// products in FP32 the bits are those of gla.hpp and gla_backward.hpp.
#pragma once
#include "nvfp4/reference_models/kernels/gla_backward.hpp"

namespace nvfp4::models {

/// A chunk of all heads of a sequence.
template <class T> struct GlaPlace {
  GlaShape<T> shape;
  int64_t sequence, chunk;

  [[nodiscard]] NVFP4_INLINE GlaChunk<T> at(int64_t head) const {
    return {shape, sequence * shape.heads + head, chunk};
  }
};

/// What a chunk reads the state with, (q exp(b)) scale (n, key), unless q is null, and what it leaves of it,
/// exp(b_n - b) k, transposed (key, n).
template <class T> struct GlaStateFactors {
  GlaPlace<T> place;
  const T *q, *k, *saved;
  T *reads, *leaves;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const GlaChunk<T> at = place.at(head);
    const int64_t dk = sh.key, n = at.n;
    const View<const T> qc{q + at.keys, sh.heads * dk}, kc{k + at.keys, sh.heads * dk};
    const T *const b = saved + at.b, *const last = b + (n - 1) * dk;
    const T scale = sh.scale;
    if (q != nullptr)
      fill(team, n, dk, View<T>{reads + head * n * dk, dk},
           [=](int64_t i, int64_t d) { return (qc(i, d) * numerics::exp(b[i * dk + d])) * scale; });
    fill(team, n, dk, View<T>{leaves + head * n * dk, 1, n},
         [=](int64_t j, int64_t d) { return kc(j, d) * numerics::exp(last[d] - b[j * dk + d]); });
  }
};

/// to (rows, key) or its transpose by strides = exp(b_n) from: a state, or its gradient, without what a chunk
/// adds.
template <class T> struct GlaDecayed {
  GlaPlace<T> place;
  const T *saved, *from;
  T *to;
  int64_t head_stride; ///< of both
  bool key_first;      ///< (key, value), else (value, key)

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const GlaChunk<T> at = place.at(head);
    const T *const last = saved + at.b + (at.n - 1) * sh.key, *const source = from + head * head_stride;
    const int64_t rows = key_first ? sh.key : sh.value, cols = key_first ? sh.value : sh.key;
    const bool by_row = key_first;
    fill(team, rows, cols, View<T>{to + head * head_stride, cols},
         [=](int64_t i, int64_t j) { return numerics::exp(last[by_row ? i : j]) * source[i * cols + j]; });
  }
};

/// The scores of each sub-chunk with itself in a (n, n), 0 after their diagonal.
template <class T> struct GlaOwnScores {
  GlaPlace<T> place;
  const T *q, *k, *saved;
  T *a;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const GlaChunk<T> at = place.at(head);
    const int64_t dk = sh.key, n = at.n;
    const View<const T> qc{q + at.keys, sh.heads * dk}, kc{k + at.keys, sh.heads * dk};
    const T *const b = saved + at.b;
    const View<T> to{a + head * n * n, n};
    const T scale = sh.scale;
    fill(team, n, n, to, [=](int64_t, int64_t) { return T(0); });
    team.contract(
        n, kGlaSub,
        [=](int64_t) {
          return Range{0, dk};
        },
        [=](int64_t i, int64_t j, int64_t d, T acc) {
          const int64_t other = numerics::min(i / kGlaSub * kGlaSub + j, n - 1);
          return gla_pair(qc(i, d), kc(other, d), b[i * dk + d], b[other * dk + d], acc);
        },
        [=](int64_t i, int64_t j, T acc) {
          const int64_t other = i / kGlaSub * kGlaSub + j;
          if (other <= i) to(i, other) = acc * scale;
        });
  }
};

/// Of the sub-chunk that starts at token `first`: its queries (m, key) decayed from its start, times the
/// scale where `scaled`, unless q is null, and all earlier keys (first, key) decayed to it.
template <class T> struct GlaSubFactors {
  GlaPlace<T> place;
  int64_t first;
  bool scaled;
  const T *q, *k, *saved;
  T *queries, *keys;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const GlaChunk<T> at = place.at(head);
    const int64_t dk = sh.key, s = first, m = numerics::min(kGlaSub, at.n - s);
    const View<const T> qc{q + at.keys, sh.heads * dk}, kc{k + at.keys, sh.heads * dk};
    const T *const b = saved + at.b, *const ref = b + (s - 1) * dk;
    const T scale = sh.scale;
    const bool with_scale = scaled;
    if (q != nullptr)
      fill(team, m, dk, View<T>{queries + head * m * dk, dk}, [=](int64_t i, int64_t d) {
        const T x = qc(s + i, d) * numerics::exp(b[(s + i) * dk + d] - ref[d]);
        return with_scale ? x * scale : x;
      });
    fill(team, s, dk, View<T>{keys + head * s * dk, dk},
         [=](int64_t j, int64_t d) { return kc(j, d) * numerics::exp(ref[d] - b[j * dk + d]); });
  }
};

/// dq and dk through the states, from the gradients of what GlaStateFactors made; then dk of keys with the
/// queries of their own sub-chunk, from da (n, n). One that is null is not made.
template <class T> struct GlaStateFactorGradients {
  GlaPlace<T> place;
  const T *q, *saved, *reads, *leaves, *da;
  T *grad_q, *grad_k;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const GlaChunk<T> at = place.at(head);
    const int64_t dk = sh.key, n = at.n;
    const View<const T> qc{q + at.keys, sh.heads * dk}, dreads{reads + head * n * dk, dk},
        dleaves{leaves + head * n * dk, 1, n}, das{da + head * n * n, n};
    const View<T> dqc{grad_q + at.keys, sh.heads * dk}, dkc{grad_k + at.keys, sh.heads * dk};
    const T *const b = saved + at.b, *const last = b + (n - 1) * dk;
    const T scale = sh.scale;
    if (grad_q != nullptr)
      fill(team, n, dk, dqc,
           [=](int64_t i, int64_t d) { return (dreads(i, d) * numerics::exp(b[i * dk + d])) * scale; });
    if (grad_k == nullptr) return;
    fill(team, n, dk, dkc,
         [=](int64_t j, int64_t d) { return dleaves(j, d) * numerics::exp(last[d] - b[j * dk + d]); });
    team.contract(
        n, dk,
        [=](int64_t j) {
          return Range{j, numerics::min((j / kGlaSub + 1) * kGlaSub, n)};
        },
        [=](int64_t j, int64_t d, int64_t i, T acc) {
          return gla_pair(das(i, j), qc(i, d), b[i * dk + d], b[j * dk + d], acc);
        },
        [=](int64_t j, int64_t d, T acc) { dkc(j, d) = dkc(j, d) + acc * scale; });
  }
};

/// Adds to dq and dk, unless they are null, the gradients of what GlaSubFactors made.
template <class T> struct GlaSubFactorGradients {
  GlaPlace<T> place;
  int64_t first;
  const T *saved, *queries, *keys;
  T *grad_q, *grad_k;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const GlaChunk<T> at = place.at(head);
    const int64_t dk = sh.key, s = first, m = numerics::min(kGlaSub, at.n - s);
    const View<const T> dqueries{queries + head * m * dk, dk}, dkeys{keys + head * s * dk, dk};
    const View<T> dqc{grad_q + at.keys, sh.heads * dk}, dkc{grad_k + at.keys, sh.heads * dk};
    const T *const b = saved + at.b, *const ref = b + (s - 1) * dk;
    const T scale = sh.scale;
    if (grad_q != nullptr)
      fill(team, m, dk, dqc.at(s, 0), [=](int64_t i, int64_t d) {
        const T e = numerics::exp(b[(s + i) * dk + d] - ref[d]);
        return dqc(s + i, d) + (dqueries(i, d) * e) * scale;
      });
    if (grad_k != nullptr)
      fill(team, s, dk, dkc, [=](int64_t j, int64_t d) {
        return dkc(j, d) + (dkeys(j, d) * numerics::exp(ref[d] - b[j * dk + d])) * scale;
      });
  }
};

/// Adds to dq what queries have of the keys of their own sub-chunk, from da (n, n).
template <class T> struct GlaOwnQueryGradients {
  GlaPlace<T> place;
  const T *k, *saved, *da;
  T *grad_q;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const GlaChunk<T> at = place.at(head);
    const int64_t dk = sh.key, n = at.n;
    const View<const T> kc{k + at.keys, sh.heads * dk}, das{da + head * n * n, n};
    const View<T> dqc{grad_q + at.keys, sh.heads * dk};
    const T *const b = saved + at.b;
    const T scale = sh.scale;
    team.contract(
        n, dk,
        [=](int64_t i) {
          return Range{i / kGlaSub * kGlaSub, i + 1};
        },
        [=](int64_t i, int64_t d, int64_t j, T acc) {
          return gla_pair(das(i, j), kc(j, d), b[i * dk + d], b[j * dk + d], acc);
        },
        [=](int64_t i, int64_t d, T acc) { dqc(i, d) = dqc(i, d) + acc * scale; });
  }
};

} // namespace nvfp4::models
