// SPDX-License-Identifier: Apache-2.0
// Maxima and scales of 16 blocks at a time for AVX-512, and the table of its kernels. Everything else here is
// private to the file.
#include "nvfp4/emulator/quantize/kernels.hpp"

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" // GCC 12's own headers
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include "nvfp4/emulator/quantize/four_over_six_simd.hpp"
#include "nvfp4/emulator/quantize/scale_steps_simd.hpp"

#include <immintrin.h>

namespace nvfp4::quant {
namespace {

struct V16 {
  using F = __m512;
  using I = __m512i;

  static F broadcast(float x) { return _mm512_set1_ps(x); }
  static I broadcast(int x) { return _mm512_set1_epi32(x); }
  static F load(const float *x) { return _mm512_loadu_ps(x); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F magnitude(F x) { return _mm512_andnot_ps(_mm512_set1_ps(-0.0f), x); }
  static F with_sign_of(F positive, F x) {
    return _mm512_or_ps(positive, _mm512_and_ps(_mm512_set1_ps(-0.0f), x));
  }
  static F as_float(I x) { return _mm512_castsi512_ps(x); }
  static I as_int(F x) { return _mm512_castps_si512(x); }
  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static I add(I a, I b) { return _mm512_add_epi32(a, b); }
  static F sub(F a, F b) { return _mm512_sub_ps(a, b); }
  static I sub(I a, I b) { return _mm512_sub_epi32(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F div(F a, F b) { return _mm512_div_ps(a, b); }
  static F min(F a, F b) { return _mm512_min_ps(a, b); }
  static F max(F a, F b) { return _mm512_max_ps(a, b); }
  static I max(I a, I b) { return _mm512_max_epi32(a, b); }
  template <int n> static I shift_left(I x) { return _mm512_slli_epi32(x, n); }
  template <int n> static I shift_right(I x) { return _mm512_srli_epi32(x, n); }
  static I exponent_field(F x) { return _mm512_and_si512(as_int(x), broadcast(int(kInfinity))); }
  static F zero_where_below(F x, F limit) {
    return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, limit, _CMP_NLT_UQ), x);
  }
  static I zero_where_at_most(I x, I test, int limit) {
    return _mm512_maskz_mov_epi32(_mm512_cmpgt_epi32_mask(test, broadcast(limit)), x);
  }
  static I where_zero(I test, I a, I b) {
    return _mm512_mask_mov_epi32(b, _mm512_testn_epi32_mask(test, test), a);
  }
  static F round_bf16(F x) {
    const I word = as_int(x), odd = _mm512_and_si512(shift_right<16>(word), broadcast(1));
    return as_float(_mm512_and_si512(add(add(word, odd), broadcast(0x7FFF)), broadcast(int(0xFFFF0000))));
  }
  static uint32_t not_finite(I word) { // or negative
    return _mm512_cmpge_epu32_mask(word, broadcast(int(kInfinity)));
  }
  static uint32_t unordered(F x) { return _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q); }
  static uint32_t zeros(F x) { return _mm512_testn_epi32_mask(as_int(x), as_int(x)); }
};

inline __m512i magnitude(const float *x) {
  return _mm512_and_si512(_mm512_loadu_si512(x), _mm512_set1_epi32(0x7FFFFFFF));
}

uint32_t amax(const float *x, int64_t n) {
  __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
  int64_t i = 0;
  for (; i + 64 <= n; i += 64) {
    a = _mm512_max_epu32(a, magnitude(x + i));
    b = _mm512_max_epu32(b, magnitude(x + i + 16));
    c = _mm512_max_epu32(c, magnitude(x + i + 32));
    d = _mm512_max_epu32(d, magnitude(x + i + 48));
  }
  for (; i < n; i += 16) {
    const __mmask16 inside = n - i >= 16 ? __mmask16(0xFFFF) : __mmask16((1u << (n - i)) - 1);
    const __m512i v = _mm512_maskz_loadu_epi32(inside, x + i);
    a = _mm512_max_epu32(a, _mm512_and_si512(v, _mm512_set1_epi32(0x7FFFFFFF)));
  }
  return _mm512_reduce_max_epu32(_mm512_max_epu32(_mm512_max_epu32(a, b), _mm512_max_epu32(c, d)));
}

/// A tree over 16 vectors: each step halves what is left of two blocks and puts them side by side.
inline void store_maxima(__m512i (&v)[16], uint32_t *words) {
  for (int i = 0; i < 8; ++i)
    v[i] = _mm512_max_epu32(_mm512_shuffle_i64x2(v[i], v[i + 8], 0x44),
                            _mm512_shuffle_i64x2(v[i], v[i + 8], 0xEE));
  for (int i = 0; i < 4; ++i)
    v[i] = _mm512_max_epu32(_mm512_shuffle_i64x2(v[i], v[i + 4], 0x88),
                            _mm512_shuffle_i64x2(v[i], v[i + 4], 0xDD));
  for (int i = 0; i < 2; ++i)
    v[i] = _mm512_max_epu32(_mm512_unpacklo_epi64(v[i], v[i + 2]), _mm512_unpackhi_epi64(v[i], v[i + 2]));
  const __m512 p = _mm512_castsi512_ps(v[0]), q = _mm512_castsi512_ps(v[1]);
  const __m512i last = _mm512_max_epu32(_mm512_castps_si512(_mm512_shuffle_ps(p, q, 0x88)),
                                        _mm512_castps_si512(_mm512_shuffle_ps(p, q, 0xDD)));
  // 128-bit lanes hold blocks 0, 8, 4, 12 and following, in them 0, 2, 1, 3
  const __m512i place = _mm512_setr_epi32(0, 2, 1, 3, 8, 10, 9, 11, 4, 6, 5, 7, 12, 14, 13, 15);
  _mm512_storeu_si512(words, _mm512_permutexvar_epi32(place, last));
}

void block_amax(const float *x, int block, uint32_t *words) {
  __m512i v[16];
  if (block == 16)
    for (int i = 0; i < 16; ++i) v[i] = magnitude(x + 16 * i);
  else
    for (int i = 0; i < 16; ++i) v[i] = _mm512_max_epu32(magnitude(x + 32 * i), magnitude(x + 32 * i + 16));
  store_maxima(v, words);
}

void column_amax(const float *x, int64_t stride, int block, float *copy, uint32_t *words) {
  __m512i largest[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
  for (int i = 0; i < block; i += 2)
    for (int j = 0; j < 2; ++j) {
      const __m512i v = _mm512_loadu_si512(x + (i + j) * stride);
      _mm512_storeu_si512(copy + kGroup * (i + j), v);
      largest[j] = _mm512_max_epu32(largest[j], _mm512_and_si512(v, _mm512_set1_epi32(0x7FFFFFFF)));
    }
  _mm512_storeu_si512(words, _mm512_max_epu32(largest[0], largest[1]));
}

uint32_t scales(const ScaleSteps &steps, const uint32_t *words, float *factors, uint8_t *codes) {
  const auto s = VectorScale<V16>{steps}(_mm512_loadu_si512(words));
  _mm512_storeu_ps(factors, s.factor);
  _mm_storeu_si128(reinterpret_cast<__m128i *>(codes), _mm512_cvtepi32_epi8(s.code));
  return s.redo;
}

void errors(const ErrorRule &rule, const float *x, const float *factors, const float *values, float *sums) {
  _mm512_storeu_ps(sums, error_sums<V16>(rule, x, _mm512_loadu_ps(factors), _mm512_loadu_ps(values)));
}

constexpr Kernels kTable{amax,
                         block_amax,
                         column_amax,
                         scales,
                         errors,
                         encoder_avx512,
                         column_encoder_avx512,
                         philox_avx512,
                         rotate_avx512,
                         rotate_columns_avx512,
                         rotated_amax_avx512,
                         rotated_columns_amax_avx512,
                         transpose_avx512,
                         transpose_bytes_avx512};

} // namespace

const Kernels *kernels_avx512() { return &kTable; }

} // namespace nvfp4::quant
#else
namespace nvfp4::quant {
const Kernels *kernels_avx512() { return nullptr; }
} // namespace nvfp4::quant
#endif
