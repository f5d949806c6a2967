// SPDX-License-Identifier: Apache-2.0
// A 64-bit digest of an array that does not depend on who computes it: the sum, modulo 2^64, of a mix of each
// word with its index. It tells accidental differences; it is no protection against intended ones.
#pragma once
#include "nvfp4/reference_models/kernels/elementwise.hpp"

namespace nvfp4::models {

/// The finaliser of splitmix64 (Steele, Lea, Flood 2014).
NVFP4_INLINE uint64_t mix64(uint64_t x) {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/// partial[chunk] = sum of mix64(word + (first + i + 1) * golden ratio) over a chunk; the host adds the
/// chunks.
template <class T> struct DigestSums {
  int64_t n;
  uint64_t first; ///< index of element 0, so that several arrays have one digest
  const T *x;
  uint64_t *partial;

  [[nodiscard]] int64_t teams() const { return chunks(n); }
  template <class Team> NVFP4_INLINE void operator()(const Team &team, int64_t index) const {
    const auto s = *this;
    const int64_t begin = index * kChunk;
    const int64_t length = numerics::min(kChunk, n - begin);
    team.rows(1, [=](int64_t, const auto &lane) {
      const uint64_t sum = lane.sum(length, [=](int64_t i) {
        uint64_t word;
        if constexpr (sizeof(T) == 4)
          word = __builtin_bit_cast(uint32_t, s.x[begin + i]);
        else
          word = __builtin_bit_cast(uint64_t, s.x[begin + i]);
        return mix64(word + (s.first + uint64_t(begin + i) + 1) * 0x9E3779B97F4A7C15u);
      });
      lane.one([=] { s.partial[index] = sum; });
    });
  }
};

} // namespace nvfp4::models
