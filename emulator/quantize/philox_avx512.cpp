// SPDX-License-Identifier: Apache-2.0
// Philox4x32-10 for AVX-512, 16 blocks at a time in two independent sequences. Private but for the one function.
#include "nvfp4/emulator/quantize/kernels.hpp"

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" // GCC 12's own headers
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

namespace nvfp4::quant {
namespace {

constexpr int kRounds = 10;

/// 8 blocks: each word in the low half of a 64-bit lane. The high halves are whatever the products leave
/// there: vpmuludq does not read them.
struct Blocks {
  __m512i w0, w1, w2, w3;
};

inline void round(Blocks &b, uint64_t key0, uint64_t key1) {
  const __m512i p0 = _mm512_mul_epu32(b.w0, _mm512_set1_epi64(0xD2511F53));
  const __m512i p1 = _mm512_mul_epu32(b.w2, _mm512_set1_epi64(0xCD9E8D57));
  constexpr int xor3 = 0x96;
  b.w0 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p1, 32), b.w1, _mm512_set1_epi64(int64_t(key0)), xor3);
  b.w2 = _mm512_ternarylogic_epi64(_mm512_srli_epi64(p0, 32), b.w3, _mm512_set1_epi64(int64_t(key1)), xor3);
  b.w1 = p1;
  b.w3 = p0;
}

/// Lane 2L takes block L and lane 2L + 1 block L + 4, so that store() finds them in order.
inline Blocks load(uint64_t offset, const uint64_t *index) {
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
  const __m512i i = _mm512_permutexvar_epi64(order, _mm512_loadu_si512(index));
  return {_mm512_set1_epi64(int64_t(offset)), _mm512_set1_epi64(int64_t(offset >> 32)), i,
          _mm512_srli_epi64(i, 32)};
}

inline void store(const Blocks &b, uint8_t *to) {
  const __m512i low = _mm512_mask_shuffle_epi32(b.w0, 0xAAAA, b.w1, _MM_PERM_CCAA);
  const __m512i high = _mm512_mask_shuffle_epi32(b.w2, 0xAAAA, b.w3, _MM_PERM_CCAA);
  _mm512_storeu_si512(to, _mm512_unpacklo_epi64(low, high));
  _mm512_storeu_si512(to + 64, _mm512_unpackhi_epi64(low, high));
}

} // namespace

void philox_avx512(uint64_t seed, uint64_t offset, const uint64_t *index, int count, uint8_t *bytes) {
  uint64_t key0[kRounds], key1[kRounds];
  for (int r = 0; r < kRounds; ++r) {
    key0[r] = uint32_t(uint32_t(seed) + uint32_t(r) * 0x9E3779B9u);
    key1[r] = uint32_t(uint32_t(seed >> 32) + uint32_t(r) * 0xBB67AE85u);
  }
  for (; count >= 16; count -= 16, index += 16, bytes += 256) {
    Blocks a = load(offset, index), b = load(offset, index + 8);
    for (int r = 0; r < kRounds; ++r) {
      round(a, key0[r], key1[r]);
      round(b, key0[r], key1[r]);
    }
    store(a, bytes);
    store(b, bytes + 128);
  }
  for (; count >= 8; count -= 8, index += 8, bytes += 128) {
    Blocks a = load(offset, index);
    for (int r = 0; r < kRounds; ++r) round(a, key0[r], key1[r]);
    store(a, bytes);
  }
}

} // namespace nvfp4::quant
#endif
