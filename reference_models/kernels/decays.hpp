// SPDX-License-Identifier: Apache-2.0
// Gates that are one number a token, chunkwise: the decays between the tokens of a chunk, and a gate's
// gradient as the sum of what passes it. Neither takes a difference of sums, so that strong gates keep their
// digits.
#pragma once
#include "nvfp4/reference_models/kernels/team.hpp"

namespace nvfp4::models {

/// decays (n, n + 1): in column 0 exp(g_0 + ... + g_i), in column j + 1 exp(g_{j+1} + ... + g_i), 0 for j >
/// i.
template <class Team, class T>
NVFP4_INLINE void chunk_decays(const Team &team, int64_t n, View<const T> gates, View<T> decays) {
  team.each(n + 1, [=](int64_t j) {
    T sum = T(0);
    for (int64_t i = 0; i < n; ++i) {
      sum = i >= j ? sum + gates(i, 0) : T(0);
      decays(i, j) = sum;
    }
  });
  fill(team, n, n + 1, decays, [=](int64_t i, int64_t j) {
    const T e = numerics::exp(decays(i, j));
    return j <= i + 1 ? e : T(0);
  });
}

/// passed (n, 1): the sums over i >= t of the sums over j < t of pairs_ij, in increasing order: what i reads of
/// j (j < i), times its gradient, that gate t lets pass. pairs (n, n) is overwritten.
template <class Team, class T>
NVFP4_INLINE void passed_pairs(const Team &team, int64_t n, View<T> pairs, View<T> passed) {
  team.each(n, [=](int64_t i) { // row i becomes its sums over j < 1, 2, ..., i
    T sum = T(0);
    for (int64_t j = 0; j < i; ++j) {
      sum += pairs(i, j);
      pairs(i, j) = sum;
    }
  });
  team.each(n, [=](int64_t gate) {
    T sum = T(0);
    for (int64_t i = gate; gate > 0 && i < n; ++i) sum += pairs(i, gate - 1);
    passed(gate, 0) = sum;
  });
}

/// grad (n, 1) = ((whole + reads_t + ... + reads_{n-1}) + leaves_0 + ... + leaves_{t-1}) + passed_t, all chains
/// in increasing order: what all gates of the chunk let pass, what tokens read of the state before it and leave
/// in the one after it, each times its gradient, and passed_pairs, which may be in grad's place.
template <class Team, class T>
NVFP4_INLINE void gate_gradients(const Team &team, int64_t n, const T *whole, const T *reads, const T *leaves,
                                 View<const T> passed, View<T> grad) {
  team.each(n, [=](int64_t gate) {
    T sum = *whole;
    for (int64_t i = gate; i < n; ++i) sum += reads[i];
    for (int64_t j = 0; j < gate; ++j) sum += leaves[j];
    grad(gate, 0) = sum + passed(gate, 0);
  });
}

} // namespace nvfp4::models
