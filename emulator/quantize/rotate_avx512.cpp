// SPDX-License-Identifier: Apache-2.0
// The Hadamard rotation of groups of 16 and the transposition of 16 x 16 tiles for AVX-512. Private but for
// the functions of the table.
#include "nvfp4/emulator/quantize/kernels.hpp"

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" // GCC 12's own headers
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include "nvfp4/emulator/quantize/rotate_simd.hpp"
#include "nvfp4/emulator/quantize/transpose_bytes_simd.hpp"

#include <immintrin.h>

namespace nvfp4::quant {
namespace {

// A sum of 16 BF16 numbers is exact in FP64 where its exponent fields differ by at most 41 (8 bits each, 4
// for the sum). Rounding the input to BF16 may raise the largest field by one.
constexpr int kSpreadFp64 = 40;
constexpr uint32_t kLargestBf16 = 0x7F7F7FFF; ///< the largest word that rounds to a finite BF16

inline __m512i load_words(const float *x) { return _mm512_loadu_si512(x); }

inline __m512i round_bf16(__m512i word) {
  const __mmask16 odd = _mm512_test_epi32_mask(word, _mm512_set1_epi32(0x10000));
  const __m512i sum = _mm512_add_epi32(word, _mm512_set1_epi32(0x7FFF));
  return _mm512_and_si512(_mm512_mask_add_epi32(sum, odd, sum, _mm512_set1_epi32(1)),
                          _mm512_set1_epi32(int(0xFFFF0000)));
}

// A step of the transform takes (a, b) to (a + b, a - b): each lane is multiplied by +1 or, in the lanes of
// b, by -1, which is exact, and its partner is added. The last product turns -0 into +0.

inline __m512i transform_fp32(__m512 y) {
  const __m512 sign8 = _mm512_setr_ps(1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1);
  const __m512 sign4 = _mm512_setr_ps(1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1);
  const __m512 sign2 = _mm512_setr_ps(1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1);
  const __m512 sign1 = _mm512_setr_ps(1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1);
  y = _mm512_fmadd_ps(y, sign8, _mm512_shuffle_f32x4(y, y, 0x4E));
  y = _mm512_fmadd_ps(y, sign4, _mm512_shuffle_f32x4(y, y, 0xB1));
  y = _mm512_fmadd_ps(y, sign2, _mm512_permute_ps(y, 0x4E));
  y = _mm512_fmadd_ps(y, sign1, _mm512_permute_ps(y, 0xB1));
  return _mm512_castps_si512(_mm512_fmadd_ps(y, _mm512_set1_ps(0.25f), _mm512_setzero_ps()));
}

inline __m256 transform_eight(__m512d y) {
  const __m512d sign4 = _mm512_setr_pd(1, 1, 1, 1, -1, -1, -1, -1);
  const __m512d sign2 = _mm512_setr_pd(1, 1, -1, -1, 1, 1, -1, -1);
  const __m512d sign1 = _mm512_setr_pd(1, -1, 1, -1, 1, -1, 1, -1);
  y = _mm512_fmadd_pd(y, sign4, _mm512_shuffle_f64x2(y, y, 0x4E));
  y = _mm512_fmadd_pd(y, sign2, _mm512_permutex_pd(y, 0x4E));
  y = _mm512_fmadd_pd(y, sign1, _mm512_permute_pd(y, 0x55));
  return _mm512_cvtpd_ps(_mm512_fmadd_pd(y, _mm512_set1_pd(0.25), _mm512_setzero_pd()));
}

inline __m512i transform_fp64(__m512 x) {
  const __m512d low = _mm512_cvtps_pd(_mm512_castps512_ps256(x));
  const __m512d high = _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1));
  const __m512 first = _mm512_castps256_ps512(transform_eight(_mm512_add_pd(low, high)));
  return _mm512_castps_si512(_mm512_insertf32x8(first, transform_eight(_mm512_sub_pd(low, high)), 1));
}

inline void rotate_group(const float *x, __m512i flip, float *rotated) {
  const __m512i word = _mm512_xor_si512(round_bf16(load_words(x)), flip);
  _mm512_storeu_si512(rotated, round_bf16(transform_fp64(_mm512_castsi512_ps(word))));
}

/// In FP32; the result counts if it raised no inexact flag and no word was larger than kLargestFp32. Returns
/// the largest magnitude.
[[gnu::noinline]] uint32_t rotate_fp32(const float *x, int groups, __m512i flip, float *rotated) {
  __m512i top = _mm512_setzero_si512();
  for (int g = 0; g < groups; ++g) {
    const __m512i raw = load_words(x + 16 * g);
    __builtin_prefetch(x + 16 * g + kAhead);
    top = _mm512_max_epu32(top, _mm512_and_si512(raw, _mm512_set1_epi32(0x7FFFFFFF)));
    const __m512 y = _mm512_castsi512_ps(_mm512_xor_si512(round_bf16(raw), flip));
    _mm512_storeu_si512(rotated + 16 * g, round_bf16(transform_fp32(y)));
  }
  return _mm512_reduce_max_epu32(top);
}

struct Words {
  static constexpr int lanes = 16;
  using F = __m512;
  using W = __m512i;
  static W zero() { return _mm512_setzero_si512(); }
  static W load(const float *x) { return load_words(x); }
  static void store(float *to, W x) { _mm512_storeu_si512(to, x); }
  static W as_word(F x) { return _mm512_castps_si512(x); }
  static uint32_t largest(W x) { return _mm512_reduce_max_epu32(x); }
  static W max(W a, W b) { return _mm512_max_epu32(a, b); }
  static W magnitude(W x) { return _mm512_and_si512(x, _mm512_set1_epi32(0x7FFFFFFF)); }
  static W round_bf16(W x) { return quant::round_bf16(x); }
  static W round_bf16(F x) { return quant::round_bf16(_mm512_castps_si512(x)); }
  static W flip(W x, uint32_t sign) { return _mm512_xor_si512(x, _mm512_set1_epi32(int(sign))); }
  static F as_float(W x) { return _mm512_castsi512_ps(x); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static F quarter(F x) { return _mm512_fmadd_ps(x, _mm512_set1_ps(0.25f), _mm512_setzero_ps()); }
};

[[gnu::noinline]] Largest largest_along(const float *x, int groups, __m512i flip) {
  __m512i top = _mm512_setzero_si512(), out = top;
  for (int g = 0; g < groups; ++g) {
    const __m512i raw = load_words(x + 16 * g);
    __builtin_prefetch(x + 16 * g + kAhead);
    top = _mm512_max_epu32(top, Words::magnitude(raw));
    const __m512 y = _mm512_castsi512_ps(_mm512_xor_si512(round_bf16(raw), flip));
    out = _mm512_max_epu32(out, Words::magnitude(transform_fp32(y)));
  }
  return {_mm512_reduce_max_epu32(top), _mm512_reduce_max_epu32(out)};
}

/// The range of one or several groups.
struct Range {
  __m512i largest = _mm512_setzero_si512();
  __m512i smallest = _mm512_set1_epi32(-1); ///< minus one, so that zeros count as the largest

  void add(__m512i word) {
    const __m512i m = _mm512_and_si512(word, _mm512_set1_epi32(0x7FFFFFFF));
    largest = _mm512_max_epu32(largest, m);
    smallest = _mm512_min_epu32(smallest, _mm512_sub_epi32(m, _mm512_set1_epi32(1)));
  }
};
struct Spread {
  uint32_t top; ///< largest word
  int fields;
  explicit Spread(const Range &r) : top(_mm512_reduce_max_epu32(r.largest)) {
    const int least = int((_mm512_reduce_min_epu32(r.smallest) + 1) >> 23);
    fields = int(top >> 23) - (least > 0 ? least : 1);
  }
};

} // namespace

uint32_t rotate_avx512(const float *x, int groups, uint16_t signs, float *rotated) {
  const __m512i flip = _mm512_maskz_set1_epi32(signs, int(0x80000000));
  alignas(64) float kept[32 * 16];
  if (x == rotated) { // a second attempt needs what was there
    for (int g = 0; g < groups; ++g) _mm512_store_si512(kept + 16 * g, load_words(x + 16 * g));
    x = kept;
  }
  _mm_setcsr(kDefaultMode);
  if (rotate_fp32(x, groups, flip, rotated) <= kLargestFp32 && (_mm_getcsr() & kInexact) == 0) return 0;
  uint32_t left = 0;
  for (int g = 0; g < groups; ++g) {
    Range own;
    own.add(load_words(x + 16 * g));
    const Spread s(own);
    if (s.fields <= kSpreadFp64 && s.top <= kLargestBf16) {
      rotate_group(x + 16 * g, flip, rotated + 16 * g);
    } else {
      left |= uint32_t{1} << g;
      _mm512_storeu_si512(rotated + 16 * g, load_words(x + 16 * g));
    }
  }
  return left;
}

void transpose_avx512(const float *x, int64_t stride, float *transposed, int64_t to_stride) {
  __m512 r[16];
  for (int i = 0; i < 16; ++i) r[i] = _mm512_loadu_ps(x + i * stride);
  __m512 s[16];
  for (int i = 0; i < 16; i += 2) { // pairs of rows: 32-bit pairs
    s[i] = _mm512_unpacklo_ps(r[i], r[i + 1]);
    s[i + 1] = _mm512_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) // four rows: a column in each 128-bit lane
    for (int j = 0; j < 2; ++j) {
      const __m512d a = _mm512_castps_pd(s[i + j]), b = _mm512_castps_pd(s[i + 2 + j]);
      r[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(a, b));
      r[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(a, b));
    }
  for (int j = 0; j < 4; ++j) { // r[4 q + j] has column 4 L + j of rows 4 q.. in lane L
    const __m512 a = _mm512_shuffle_f32x4(r[j], r[4 + j], 0x44),
                 b = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0x44);
    const __m512 c = _mm512_shuffle_f32x4(r[j], r[4 + j], 0xEE),
                 d = _mm512_shuffle_f32x4(r[8 + j], r[12 + j], 0xEE);
    float *const to = transposed + j * to_stride;
    _mm512_storeu_ps(to, _mm512_shuffle_f32x4(a, b, 0x88));
    _mm512_storeu_ps(to + 4 * to_stride, _mm512_shuffle_f32x4(a, b, 0xDD));
    _mm512_storeu_ps(to + 8 * to_stride, _mm512_shuffle_f32x4(c, d, 0x88));
    _mm512_storeu_ps(to + 12 * to_stride, _mm512_shuffle_f32x4(c, d, 0xDD));
  }
}

bool rotate_columns_avx512(const float *x, int64_t stride, int tiles, uint16_t signs, float *to, int64_t to_tile) {
  _mm_setcsr(kDefaultMode);
  return rotate_down<Words>(x, stride, tiles, signs, to, to_tile) <= kLargestFp32 && (_mm_getcsr() & kInexact) == 0;
}

uint32_t rotated_amax_avx512(const float *x, int groups, uint16_t signs) {
  _mm_setcsr(kDefaultMode);
  const Largest found = largest_along(x, groups, _mm512_maskz_set1_epi32(signs, int(0x80000000)));
  return counted(found, _mm_getcsr());
}

uint32_t rotated_columns_amax_avx512(const float *x, int64_t stride, int tiles, uint16_t signs) {
  _mm_setcsr(kDefaultMode);
  const Largest found = largest_down<Words>(x, stride, tiles, signs);
  return counted(found, _mm_getcsr());
}

void transpose_bytes_avx512(const uint8_t *x, int64_t stride, uint8_t *transposed, int64_t to_stride) {
  transpose_bytes16(x, stride, transposed, to_stride);
}

} // namespace nvfp4::quant
#endif
