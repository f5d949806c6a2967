// SPDX-License-Identifier: Apache-2.0
// Philox4x32-10 for AVX2, 8 blocks at a time in two independent sequences. Private but for the one function.
#include "nvfp4/emulator/quantize/kernels.hpp"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

namespace nvfp4::quant {
namespace {

constexpr int kRounds = 10;

/// 4 blocks: each word in the low half of a 64-bit lane. The high halves are whatever the products leave
/// there: vpmuludq does not read them.
struct Blocks {
  __m256i w0, w1, w2, w3;
};

inline __m256i xor3(__m256i a, __m256i b, uint64_t key) {
  return _mm256_xor_si256(_mm256_xor_si256(a, b), _mm256_set1_epi64x(int64_t(key)));
}

inline void round(Blocks &b, uint64_t key0, uint64_t key1) {
  const __m256i p0 = _mm256_mul_epu32(b.w0, _mm256_set1_epi64x(0xD2511F53));
  const __m256i p1 = _mm256_mul_epu32(b.w2, _mm256_set1_epi64x(0xCD9E8D57));
  b.w0 = xor3(_mm256_srli_epi64(p1, 32), b.w1, key0);
  b.w2 = xor3(_mm256_srli_epi64(p0, 32), b.w3, key1);
  b.w1 = p1;
  b.w3 = p0;
}

/// Lanes take blocks 0, 2, 1, 3, so that store() finds them in order.
inline Blocks load(uint64_t offset, const uint64_t *index) {
  const __m256i i =
      _mm256_permute4x64_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(index)), 0xD8);
  return {_mm256_set1_epi64x(int64_t(offset)), _mm256_set1_epi64x(int64_t(offset >> 32)), i,
          _mm256_srli_epi64(i, 32)};
}

inline void store(const Blocks &b, uint8_t *to) {
  const __m256i low = _mm256_blend_epi32(b.w0, _mm256_slli_epi64(b.w1, 32), 0xAA);
  const __m256i high = _mm256_blend_epi32(b.w2, _mm256_slli_epi64(b.w3, 32), 0xAA);
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), _mm256_unpacklo_epi64(low, high));
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + 32), _mm256_unpackhi_epi64(low, high));
}

} // namespace

void philox_avx2(uint64_t seed, uint64_t offset, const uint64_t *index, int count, uint8_t *bytes) {
  uint64_t key0[kRounds], key1[kRounds];
  for (int r = 0; r < kRounds; ++r) {
    key0[r] = uint32_t(uint32_t(seed) + uint32_t(r) * 0x9E3779B9u);
    key1[r] = uint32_t(uint32_t(seed >> 32) + uint32_t(r) * 0xBB67AE85u);
  }
  for (; count >= 8; count -= 8, index += 8, bytes += 128) {
    Blocks a = load(offset, index), b = load(offset, index + 4);
    for (int r = 0; r < kRounds; ++r) {
      round(a, key0[r], key1[r]);
      round(b, key0[r], key1[r]);
    }
    store(a, bytes);
    store(b, bytes + 64);
  }
}

} // namespace nvfp4::quant
#endif
