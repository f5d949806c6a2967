// SPDX-License-Identifier: Apache-2.0
// The Hadamard rotation of groups of 16 and the transposition of 16 x 16 tiles for AVX2. Private but for the
// functions of the table.
#include "nvfp4/emulator/quantize/kernels.hpp"

#if defined(__AVX2__) && defined(__FMA__)
#include "nvfp4/emulator/quantize/rotate_simd.hpp"
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

struct Words {
  static constexpr int lanes = 8;
  using F = __m256;
  using W = __m256i;
  static W zero() { return _mm256_setzero_si256(); }
  static W load(const float *x) { return load_words(x); }
  static void store(float *to, W x) { _mm256_storeu_si256(reinterpret_cast<__m256i *>(to), x); }
  static W as_word(F x) { return _mm256_castps_si256(x); }
  static uint32_t largest(W x) {
    alignas(32) uint32_t word[8];
    _mm256_store_si256(reinterpret_cast<__m256i *>(word), x);
    uint32_t top = 0;
    for (const uint32_t w : word) top = w > top ? w : top;
    return top;
  }
  static W max(W a, W b) { return _mm256_max_epu32(a, b); }
  static W magnitude(W x) { return _mm256_and_si256(x, _mm256_set1_epi32(0x7FFFFFFF)); }
  static W round_bf16(W x) { return quant::round_bf16(x); }
  static W round_bf16(F x) { return quant::round_bf16(_mm256_castps_si256(x)); }
  static W flip(W x, uint32_t sign) { return _mm256_xor_si256(x, _mm256_set1_epi32(int(sign))); }
  static F as_float(W x) { return _mm256_castsi256_ps(x); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static F quarter(F x) { return _mm256_fmadd_ps(x, _mm256_set1_ps(0.25f), _mm256_setzero_ps()); }
};

/// The eight steps of one row of 16 in FP32, times 4: within vectors each lane is multiplied by +1 or -1 and
/// its partner is added.
inline void transform(__m256 &a, __m256 &b) {
  const __m256 sum = _mm256_add_ps(a, b);
  b = _mm256_sub_ps(a, b);
  a = sum;
  const __m256 sign4 = _mm256_setr_ps(1, 1, 1, 1, -1, -1, -1, -1),
               sign2 = _mm256_setr_ps(1, 1, -1, -1, 1, 1, -1, -1),
               sign1 = _mm256_setr_ps(1, -1, 1, -1, 1, -1, 1, -1);
  for (__m256 *const y : {&a, &b}) {
    *y = _mm256_fmadd_ps(*y, sign4, _mm256_permute2f128_ps(*y, *y, 1));
    *y = _mm256_fmadd_ps(*y, sign2, _mm256_permute_ps(*y, 0x4E));
    *y = _mm256_fmadd_ps(*y, sign1, _mm256_permute_ps(*y, 0xB1));
  }
}

/// In FP32, to `rotated` where it is not null; what it gives counts if no inexact flag is up and no word was
/// larger than kLargestFp32.
template <bool store>
[[gnu::noinline]] Largest rotate_fp32(const float *x, int groups, const Flips &flips, float *rotated) {
  const __m256i flip0 = load_words(reinterpret_cast<const float *>(flips.word)),
                flip1 = load_words(reinterpret_cast<const float *>(flips.word + 8));
  __m256i top = Words::zero(), out = top;
  for (int g = 0; g < groups; ++g) {
    const __m256i a = load_words(x + 16 * g), b = load_words(x + 16 * g + 8);
    __builtin_prefetch(x + 16 * g + kAhead);
    top = Words::max(top, Words::max(Words::magnitude(a), Words::magnitude(b)));
    __m256 y = Words::as_float(_mm256_xor_si256(round_bf16(a), flip0)),
           z = Words::as_float(_mm256_xor_si256(round_bf16(b), flip1));
    transform(y, z);
    const __m256i first = Words::as_word(Words::quarter(y)), second = Words::as_word(Words::quarter(z));
    if (store) {
      _mm256_storeu_si256(reinterpret_cast<__m256i *>(rotated + 16 * g), round_bf16(first));
      _mm256_storeu_si256(reinterpret_cast<__m256i *>(rotated + 16 * g + 8), round_bf16(second));
    } else {
      out = Words::max(out, Words::max(Words::magnitude(first), Words::magnitude(second)));
    }
  }
  return {Words::largest(top), Words::largest(out)};
}

} // namespace

bool rotate_columns_avx2(const float *x, int64_t stride, int tiles, uint16_t signs, float *to, int64_t to_tile) {
  _mm_setcsr(kDefaultMode);
  return rotate_down<Words>(x, stride, tiles, signs, to, to_tile) <= kLargestFp32 && (_mm_getcsr() & kInexact) == 0;
}

uint32_t rotated_amax_avx2(const float *x, int groups, uint16_t signs) {
  const Flips flips(signs);
  _mm_setcsr(kDefaultMode);
  const Largest found = rotate_fp32<false>(x, groups, flips, nullptr);
  return counted(found, _mm_getcsr());
}

uint32_t rotated_columns_amax_avx2(const float *x, int64_t stride, int tiles, uint16_t signs) {
  _mm_setcsr(kDefaultMode);
  const Largest found = largest_down<Words>(x, stride, tiles, signs);
  return counted(found, _mm_getcsr());
}

uint32_t rotate_avx2(const float *x, int groups, uint16_t signs, float *rotated) {
  alignas(32) float kept[32 * 16];
  if (x == rotated) { // a second attempt needs what was there
    __builtin_memcpy(kept, x, size_t(groups) * 64);
    x = kept;
  }
  const Flips flips(signs);
  _mm_setcsr(kDefaultMode);
  if (rotate_fp32<true>(x, groups, flips, rotated).in <= kLargestFp32 && (_mm_getcsr() & kInexact) == 0)
    return 0;
  const __m256i flip0 = _mm256_load_si256(reinterpret_cast<const __m256i *>(flips.word));
  const __m256i flip1 = _mm256_load_si256(reinterpret_cast<const __m256i *>(flips.word + 8));
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
