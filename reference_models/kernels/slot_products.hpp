// SPDX-License-Identifier: Apache-2.0
// Gated slot attention product by product: the gates' gradients of one chunk, added up from what passes them
// as the products come. A team takes a head; matrices are dense, one head after the other, and a pass has no
// scale. With all products in FP32 the bits are those of slots.hpp; the rest is gla_products.hpp's.
#pragma once
#include "nvfp4/reference_models/kernels/attention_products.hpp"
#include "nvfp4/reference_models/kernels/gla_products.hpp"
#include "nvfp4/reference_models/kernels/slots.hpp"

namespace nvfp4::models {

/// dg of a chunk from its state in `saved` and the gradient ds (key, value) of the one after it.
template <class T> struct PassedStates {
  GlaPlace<T> place;
  const T *saved, *ds;
  T *grad_g;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  [[nodiscard]] int64_t scratch() const { return place.shape.key; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const GlaChunk<T> at = place.at(head);
    const int64_t dk = sh.key, dv = sh.value;
    passed_states<T>(team, at.n, dk, dv, {saved + at.state, dv}, {ds + head * dk * dv, dv}, saved + at.b,
                     team.scratch, {grad_g + at.keys, sh.heads * dk});
  }
};

/// Adds to dg what queries from `begin` up to `end` read of all before `begin`: values (end - begin, key),
/// decayed from there.
template <class T> struct PassedReads {
  GlaPlace<T> place;
  int64_t begin, end;
  const T *q, *saved, *values;
  T *grad_g;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  [[nodiscard]] int64_t scratch() const { return kGlaChunk * place.shape.key; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const GlaChunk<T> at = place.at(head);
    const int64_t dk = sh.key, kd = sh.heads * dk, s = begin;
    const T *const b = saved + at.b;
    const View<const T> from{values + head * (end - begin) * dk, dk};
    const PassedGates<T> gates{dk, {q + at.keys, kd}, {}, {grad_g + at.keys, kd}, team.scratch};
    gates.reads(team, begin, end, [=](int64_t i, int64_t d) {
      const T before = s > 0 ? b[(s - 1) * dk + d] : T(0);
      return from(i, d) * numerics::exp(b[(s + i) * dk + d] - before);
    });
  }
};

/// Adds to dg what keys before `end` leave to all at or after it: values (end, key), decayed to there.
template <class T> struct PassedLeaves {
  GlaPlace<T> place;
  int64_t end;
  const T *k, *saved, *values;
  HeadStrides strides; ///< of values
  T *grad_g;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  [[nodiscard]] int64_t scratch() const { return kGlaChunk * place.shape.key; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const GlaChunk<T> at = place.at(head);
    const int64_t dk = sh.key, kd = sh.heads * dk;
    const T *const b = saved + at.b, *const to = b + (end - 1) * dk;
    const View<const T> from{values + head * strides.head, strides.row, strides.col};
    const PassedGates<T> gates{dk, {}, {k + at.keys, kd}, {grad_g + at.keys, kd}, team.scratch};
    gates.leaves(team, end,
                 [=](int64_t j, int64_t d) { return from(j, d) * numerics::exp(to[d] - b[j * dk + d]); });
  }
};

/// Adds to dg what passes it of the pairs of a sub-chunk, from da (n, n).
template <class T> struct PassedPairs {
  GlaPlace<T> place;
  const T *q, *k, *saved, *da;
  T *grad_g;

  [[nodiscard]] int64_t teams() const { return place.shape.heads; }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t head) const {
    const auto sh = place.shape;
    const GlaChunk<T> at = place.at(head);
    const int64_t dk = sh.key, kd = sh.heads * dk, n = at.n;
    passed_own_pairs<T>(team, n, dk, sh.scale, {da + head * n * n, n}, saved + at.b, {q + at.keys, kd},
                        {k + at.keys, kd}, {grad_g + at.keys, kd});
  }
};

} // namespace nvfp4::models
