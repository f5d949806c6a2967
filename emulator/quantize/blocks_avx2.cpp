// SPDX-License-Identifier: Apache-2.0
// Maxima and scales of 16 blocks for AVX2, eight at a time, and the table of its kernels. Everything else
// here is private to the file.
#include "nvfp4/emulator/quantize/kernels.hpp"

#if defined(__AVX2__) && defined(__FMA__)
#include "nvfp4/emulator/quantize/four_over_six_simd.hpp"
#include "nvfp4/emulator/quantize/scale_steps_simd.hpp"

#include <immintrin.h>

namespace nvfp4::quant {
namespace {

struct V8 {
  using F = __m256;
  using I = __m256i;

  static F broadcast(float x) { return _mm256_set1_ps(x); }
  static I broadcast(int x) { return _mm256_set1_epi32(x); }
  static F load(const float *x) { return _mm256_loadu_ps(x); }
  static F fma(F a, F b, F c) { return _mm256_fmadd_ps(a, b, c); }
  static F magnitude(F x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }
  static F with_sign_of(F positive, F x) {
    return _mm256_or_ps(positive, _mm256_and_ps(_mm256_set1_ps(-0.0f), x));
  }
  static F as_float(I x) { return _mm256_castsi256_ps(x); }
  static I as_int(F x) { return _mm256_castps_si256(x); }
  static F add(F a, F b) { return _mm256_add_ps(a, b); }
  static I add(I a, I b) { return _mm256_add_epi32(a, b); }
  static F sub(F a, F b) { return _mm256_sub_ps(a, b); }
  static I sub(I a, I b) { return _mm256_sub_epi32(a, b); }
  static F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static F div(F a, F b) { return _mm256_div_ps(a, b); }
  static F min(F a, F b) { return _mm256_min_ps(a, b); }
  static F max(F a, F b) { return _mm256_max_ps(a, b); }
  static I max(I a, I b) { return _mm256_max_epi32(a, b); }
  template <int n> static I shift_left(I x) { return _mm256_slli_epi32(x, n); }
  template <int n> static I shift_right(I x) { return _mm256_srli_epi32(x, n); }
  static I exponent_field(F x) { return _mm256_and_si256(as_int(x), broadcast(int(kInfinity))); }
  static F zero_where_below(F x, F limit) { return _mm256_and_ps(_mm256_cmp_ps(x, limit, _CMP_NLT_UQ), x); }
  static I zero_where_at_most(I x, I test, int limit) {
    return _mm256_and_si256(_mm256_cmpgt_epi32(test, broadcast(limit)), x);
  }
  static I where_zero(I test, I a, I b) {
    return _mm256_blendv_epi8(b, a, _mm256_cmpeq_epi32(test, _mm256_setzero_si256()));
  }
  static F round_bf16(F x) {
    const I word = as_int(x), odd = _mm256_and_si256(shift_right<16>(word), broadcast(1));
    return as_float(_mm256_and_si256(add(add(word, odd), broadcast(0x7FFF)), broadcast(int(0xFFFF0000))));
  }
  static uint32_t not_finite(I word) { // or negative: their words are the largest unsigned ones
    const I top = _mm256_max_epu32(word, broadcast(int(kInfinity)));
    return uint32_t(_mm256_movemask_ps(as_float(_mm256_cmpeq_epi32(top, word))));
  }
  static uint32_t unordered(F x) { return uint32_t(_mm256_movemask_ps(_mm256_cmp_ps(x, x, _CMP_UNORD_Q))); }
  static uint32_t zeros(F x) {
    return uint32_t(_mm256_movemask_ps(as_float(_mm256_cmpeq_epi32(as_int(x), _mm256_setzero_si256()))));
  }
};

inline __m256i magnitude(const float *x) {
  return _mm256_and_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(x)),
                          _mm256_set1_epi32(0x7FFFFFFF));
}

uint32_t amax(const float *x, int64_t n) {
  __m256i m[4] = {};
  int64_t i = 0;
  for (; i + 32 <= n; i += 32)
    for (int j = 0; j < 4; ++j) m[j] = _mm256_max_epu32(m[j], magnitude(x + i + 8 * j));
  for (; i + 8 <= n; i += 8) m[0] = _mm256_max_epu32(m[0], magnitude(x + i));
  if (i < n) {
    float rest[8] = {};
    __builtin_memcpy(rest, x + i, size_t(n - i) * sizeof(float));
    m[0] = _mm256_max_epu32(m[0], magnitude(rest));
  }
  uint32_t words[8], top = 0;
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(words),
                      _mm256_max_epu32(_mm256_max_epu32(m[0], m[1]), _mm256_max_epu32(m[2], m[3])));
  for (const uint32_t w : words) top = w > top ? w : top;
  return top;
}

/// A tree over eight vectors: each step halves what is left of two blocks and puts them side by side.
inline void store_maxima(__m256i (&v)[8], uint32_t *words) {
  for (int i = 0; i < 4; ++i)
    v[i] = _mm256_max_epu32(_mm256_permute2x128_si256(v[i], v[i + 4], 0x20),
                            _mm256_permute2x128_si256(v[i], v[i + 4], 0x31));
  for (int i = 0; i < 2; ++i)
    v[i] = _mm256_max_epu32(_mm256_unpacklo_epi64(v[i], v[i + 2]), _mm256_unpackhi_epi64(v[i], v[i + 2]));
  const __m256 p = _mm256_castsi256_ps(v[0]), q = _mm256_castsi256_ps(v[1]);
  const __m256i last = _mm256_max_epu32(_mm256_castps_si256(_mm256_shuffle_ps(p, q, 0x88)),
                                        _mm256_castps_si256(_mm256_shuffle_ps(p, q, 0xDD)));
  const __m256i place = _mm256_setr_epi32(0, 2, 1, 3, 4, 6, 5, 7);
  _mm256_storeu_si256(reinterpret_cast<__m256i *>(words), _mm256_permutevar8x32_epi32(last, place));
}

void block_amax(const float *x, int block, uint32_t *words) {
  for (int half = 0; half < 2; ++half) {
    __m256i v[8];
    for (int i = 0; i < 8; ++i) {
      const float *const at = x + (8 * half + i) * block;
      v[i] = _mm256_max_epu32(magnitude(at), magnitude(at + 8));
      if (block == 32)
        v[i] = _mm256_max_epu32(v[i], _mm256_max_epu32(magnitude(at + 16), magnitude(at + 24)));
    }
    store_maxima(v, words + 8 * half);
  }
}

void column_amax(const float *x, int64_t stride, int block, float *copy, uint32_t *words) {
  __m256i largest[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int i = 0; i < block; ++i)
    for (int half = 0; half < 2; ++half) {
      const float *const at = x + i * stride + 8 * half;
      largest[half] = _mm256_max_epu32(largest[half], magnitude(at));
      _mm256_storeu_ps(copy + kGroup * i + 8 * half, _mm256_loadu_ps(at));
    }
  for (int half = 0; half < 2; ++half)
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(words + 8 * half), largest[half]);
}

uint32_t scales(const ScaleSteps &steps, const uint32_t *words, float *factors, uint8_t *codes) {
  uint32_t redo = 0;
  for (int half = 0; half < 2; ++half) {
    const auto s =
        VectorScale<V8>{steps}(_mm256_loadu_si256(reinterpret_cast<const __m256i *>(words + 8 * half)));
    _mm256_storeu_ps(factors + 8 * half, s.factor);
    uint32_t code[8];
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(code), s.code);
    for (int i = 0; i < 8; ++i) codes[8 * half + i] = uint8_t(code[i]);
    redo |= s.redo << (8 * half);
  }
  return redo;
}

void errors(const ErrorRule &rule, const float *x, const float *factors, const float *values, float *sums) {
  for (int half = 0; half < kGroup; half += 8)
    _mm256_storeu_ps(sums + half, error_sums<V8>(rule, x + half, _mm256_loadu_ps(factors + half),
                                                 _mm256_loadu_ps(values + half)));
}

constexpr Kernels kTable{amax,
                         block_amax,
                         column_amax,
                         scales,
                         errors,
                         encoder_avx2,
                         column_encoder_avx2,
                         philox_avx2,
                         rotate_avx2,
                         rotate_columns_avx2,
                         rotated_amax_avx2,
                         rotated_columns_amax_avx2,
                         transpose_avx2,
                         transpose_bytes_avx2};

} // namespace

const Kernels *kernels_avx2() { return &kTable; }

} // namespace nvfp4::quant
#else
namespace nvfp4::quant {
const Kernels *kernels_avx2() { return nullptr; }
} // namespace nvfp4::quant
#endif
