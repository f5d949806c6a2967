// SPDX-License-Identifier: Apache-2.0
// The Hadamard rotation of groups of 16 and the transposition of 16 x 16 tiles for AVX2. Private but for the
// functions of the table.
#include "nvfp4/emulator/quantize/kernels.hpp"

#if defined(__AVX2__) && defined(__FMA__)
#include "nvfp4/emulator/quantize/transpose_bytes_simd.hpp"

#include <immintrin.h>

namespace nvfp4::quant {
namespace {

/// Largest difference of exponent fields in a group at which FP64 sums without rounding: BF16 has 8 bits, 16
/// terms add 4, so 41 + 8 + 4 = 53. Rounding to BF16 may raise the largest field by one.
constexpr int kMaxSpread = 40;
constexpr uint32_t kLargestBf16 = 0x7F7F7FFF; ///< the largest word that rounds to a finite BF16

inline __m256i load_words(const float *x) { return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(x)); }

inline __m256i round_bf16(__m256i word) {
  const __m256i odd = _mm256_and_si256(_mm256_srli_epi32(word, 16), _mm256_set1_epi32(1));
  const __m256i sum = _mm256_add_epi32(_mm256_add_epi32(word, odd), _mm256_set1_epi32(0x7FFF));
  return _mm256_and_si256(sum, _mm256_set1_epi32(int(0xFFFF0000)));
}

inline void butterfly(__m256d &a, __m256d &b) {
  const __m256d sum = _mm256_add_pd(a, b);
  b = _mm256_sub_pd(a, b);
  a = sum;
}

/// The last two steps of four values; the products with +-1 are exact. -0 becomes +0.
inline __m128 finish(__m256d y) {
  y = _mm256_fmadd_pd(y, _mm256_setr_pd(1, 1, -1, -1), _mm256_permute4x64_pd(y, 0x4E));
  y = _mm256_fmadd_pd(y, _mm256_setr_pd(1, -1, 1, -1), _mm256_permute_pd(y, 5));
  return _mm256_cvtpd_ps(_mm256_fmadd_pd(y, _mm256_set1_pd(0.25), _mm256_setzero_pd()));
}

bool sums_exactly(const float *x) {
  uint32_t top = 0, low = 0xFFFFFFFF;
  const __m256i mask = _mm256_set1_epi32(0x7FFFFFFF), one = _mm256_set1_epi32(1);
  const __m256i a = _mm256_and_si256(load_words(x), mask), b = _mm256_and_si256(load_words(x + 8), mask);
  uint32_t largest[8], smallest[8];
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(largest), _mm256_max_epu32(a, b));
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(smallest),
                      _mm256_min_epu32(_mm256_sub_epi32(a, one), _mm256_sub_epi32(b, one)));
  for (int i = 0; i < 8; ++i) {
    top = largest[i] > top ? largest[i] : top;
    low = smallest[i] < low ? smallest[i] : low; // minus one: a zero is the largest
  }
  const int least = int((low + 1) >> 23);
  return top <= kLargestBf16 && int(top >> 23) - (least > 0 ? least : 1) <= kMaxSpread;
}

void transpose8(const float *x, int64_t stride, float *to, int64_t to_stride) {
  __m256 r[8], s[8];
  for (int i = 0; i < 8; ++i) r[i] = _mm256_loadu_ps(x + i * stride);
  for (int i = 0; i < 8; i += 2) {
    s[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4)
    for (int j = 0; j < 2; ++j) { // a column of four rows in each 128-bit lane
      const __m256d a = _mm256_castps_pd(s[i + j]), b = _mm256_castps_pd(s[i + 2 + j]);
      r[i + 2 * j] = _mm256_castpd_ps(_mm256_unpacklo_pd(a, b));
      r[i + 2 * j + 1] = _mm256_castpd_ps(_mm256_unpackhi_pd(a, b));
    }
  for (int j = 0; j < 4; ++j) {
    _mm256_storeu_ps(to + j * to_stride, _mm256_permute2f128_ps(r[j], r[4 + j], 0x20));
    _mm256_storeu_ps(to + (4 + j) * to_stride, _mm256_permute2f128_ps(r[j], r[4 + j], 0x31));
  }
}

} // namespace

uint32_t rotate_avx2(const float *x, int groups, uint16_t signs, float *rotated) {
  alignas(32) uint32_t flips[16];
  for (int i = 0; i < 16; ++i) flips[i] = (signs >> i & 1u) << 31;
  const __m256i flip0 = _mm256_load_si256(reinterpret_cast<const __m256i *>(flips));
  const __m256i flip1 = _mm256_load_si256(reinterpret_cast<const __m256i *>(flips + 8));
  uint32_t left = 0;
  for (int g = 0; g < groups; ++g, x += 16, rotated += 16) {
    const __m256i a = load_words(x), b = load_words(x + 8);
    if (!sums_exactly(x)) {
      left |= uint32_t{1} << g;
      _mm256_storeu_si256(reinterpret_cast<__m256i *>(rotated), a);
      _mm256_storeu_si256(reinterpret_cast<__m256i *>(rotated + 8), b);
      continue;
    }
    const __m256 p = _mm256_castsi256_ps(_mm256_xor_si256(round_bf16(a), flip0));
    const __m256 q = _mm256_castsi256_ps(_mm256_xor_si256(round_bf16(b), flip1));
    __m256d y[4] = {_mm256_cvtps_pd(_mm256_castps256_ps128(p)), _mm256_cvtps_pd(_mm256_extractf128_ps(p, 1)),
                    _mm256_cvtps_pd(_mm256_castps256_ps128(q)), _mm256_cvtps_pd(_mm256_extractf128_ps(q, 1))};
    butterfly(y[0], y[2]);
    butterfly(y[1], y[3]);
    butterfly(y[0], y[1]);
    butterfly(y[2], y[3]);
    for (int h = 0; h < 2; ++h) {
      const __m256 both =
          _mm256_insertf128_ps(_mm256_castps128_ps256(finish(y[2 * h])), finish(y[2 * h + 1]), 1);
      _mm256_storeu_si256(reinterpret_cast<__m256i *>(rotated + 8 * h),
                          round_bf16(_mm256_castps_si256(both)));
    }
  }
  return left;
}

void transpose_avx2(const float *x, int64_t stride, float *transposed, int64_t to_stride) {
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 16; j += 8)
      transpose8(x + i * stride + j, stride, transposed + j * to_stride + i, to_stride);
}

void transpose_bytes_avx2(const uint8_t *x, int64_t stride, uint8_t *transposed, int64_t to_stride) {
  transpose_bytes16(x, stride, transposed, to_stride);
}

} // namespace nvfp4::quant
#endif
