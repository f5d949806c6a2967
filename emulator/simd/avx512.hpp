// SPDX-License-Identifier: Apache-2.0
// The vector type of AVX-512: F, BW, VL, DQ and VNNI. README.md says what every vector type has. Only for
// files compiled for AVX-512; everything is private to the file that includes it.
#pragma once
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" // GCC 12's own headers
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <cstdint>
#include <immintrin.h>

namespace nvfp4::simd {
namespace {

struct Avx512 {
  static constexpr int lanes = 16;
  static constexpr int held =
      16;            ///< vectors that an inner loop can keep in registers beside what it works on
  using F = __m512;  ///< 16 x FP32
  using I = __m512i; ///< 16 x int32, 32 x int16 or 64 x int8
  using D = __m512d; ///< 8 x FP64: one half of an F
  using L = __m512i; ///< 8 x int64: one half of an I
  using Mask = __mmask16;
  using Bytes = __m128i; ///< 16 x int8

  static F load(const float *x) { return _mm512_loadu_ps(x); }
  static F load_f(const uint8_t *at) { return _mm512_loadu_ps(at); }
  static I load_i(const uint8_t *at) { return _mm512_loadu_si512(at); }
  static D load(const double *x) { return _mm512_loadu_pd(x); }
  static void store(float *to, F x) { _mm512_storeu_ps(to, x); }
  static void store(double *to, D x) { _mm512_storeu_pd(to, x); }
  static void store(uint8_t *to, I x) { _mm512_storeu_si512(to, x); }
  static F spread_f(const uint8_t *at) {
    float x;
    __builtin_memcpy(&x, at, 4);
    return _mm512_set1_ps(x);
  }
  static I spread_i(const uint8_t *at) {
    int32_t x;
    __builtin_memcpy(&x, at, 4);
    return _mm512_set1_epi32(x);
  }
  static D spread_d(const uint8_t *at) {
    double x;
    __builtin_memcpy(&x, at, 8);
    return _mm512_set1_pd(x);
  }
  static F broadcast(float x) { return _mm512_set1_ps(x); }
  static I broadcast(int x) { return _mm512_set1_epi32(x); }
  static D broadcast(double x) { return _mm512_set1_pd(x); }
  static F as_float(I x) { return _mm512_castsi512_ps(x); }
  static I as_int(F x) { return _mm512_castps_si512(x); }

  static F add(F a, F b) { return _mm512_add_ps(a, b); }
  static F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static F fma(F a, F b, F c) { return _mm512_fmadd_ps(a, b, c); }
  static F magnitude(F x) { return _mm512_abs_ps(x); }
  /// The larger of two magnitudes.
  static F max_magnitude(F a, F b) { return _mm512_range_ps(a, b, 0b1011); }
  static D add(D a, D b) { return _mm512_add_pd(a, b); }
  static D sub(D a, D b) { return _mm512_sub_pd(a, b); }
  static D mul(D a, D b) { return _mm512_mul_pd(a, b); }
  static D fma(D a, D b, D c) { return _mm512_fmadd_pd(a, b, c); }
  static D bit_and(D a, D b) { return _mm512_and_pd(a, b); }
  /// 1.5 times the power of two at or below a positive number.
  static D middle_of_binade(D x) {
    return _mm512_castsi512_pd(_mm512_ternarylogic_epi64(_mm512_castpd_si512(x), _mm512_set1_epi64(0x7FF0000000000000),
                                                         _mm512_set1_epi64(0x0008000000000000), 0xEA)); // a & b | c
  }

  static I add(I a, I b) { return _mm512_add_epi32(a, b); }
  static I sub(I a, I b) { return _mm512_sub_epi32(a, b); }
  static I max(I a, I b) { return _mm512_max_epi32(a, b); }
  static I add_saturated8(I a, I b) { return _mm512_adds_epi8(a, b); }
  static I max8(I a, I b) { return _mm512_max_epi8(a, b); }
  /// Bytes 0, 2, ... of 16-bit words, times 16, and bytes 1, 3, ...; as 16-bit words.
  static I even_bytes_times16(I x) { return _mm512_maddubs_epi16(x, _mm512_set1_epi16(0x0010)); }
  static I odd_bytes_times16(I x) { return _mm512_maddubs_epi16(x, _mm512_set1_epi16(0x1000)); }
  static I bit_and(I a, I b) { return _mm512_and_si512(a, b); }
  static I bit_xor(I a, I b) { return _mm512_xor_si512(a, b); }
  /// How many bits of each lane are set.
  static I count_bits(I x) {
    const I table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    const I nibble = _mm512_set1_epi8(15), one = _mm512_set1_epi8(1);
    const I low = _mm512_shuffle_epi8(table, _mm512_and_si512(x, nibble));
    const I high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(x, 4), nibble));
    return _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), low, one), high, one);
  }
  template <int n> static I shift_left(I x) { return _mm512_slli_epi32(x, n); }
  template <int n> static I shift_right(I x) { return _mm512_srli_epi32(x, n); }
  template <int n> static I shift_right_signed(I x) { return _mm512_srai_epi32(x, n); }

  static Mask nonzero(I x) { return _mm512_test_epi32_mask(x, x); }
  static Mask nonzero(F x) { return _mm512_cmp_ps_mask(x, _mm512_setzero_ps(), _CMP_NEQ_OQ); }
  static Mask both(Mask a, Mask b) { return Mask(a & b); }
  static I where(Mask m, I a, I b) { return _mm512_mask_mov_epi32(b, m, a); }

  static F to_float(I x) { return _mm512_cvtepi32_ps(x); }
  static D widen_low(F x) { return _mm512_cvtps_pd(_mm512_castps512_ps256(x)); }
  static D widen_high(F x) { return _mm512_cvtps_pd(_mm512_extractf32x8_ps(x, 1)); }

  // Two halves of another kind: of each four lanes the first two, and the other two.
  static D widen_first(F x) { return widen_low(pairs_apart(x)); }
  static D widen_second(F x) { return widen_high(pairs_apart(x)); }
  static F narrow(D first, D second) {
    const F apart =
        _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(first)), _mm512_cvtpd_ps(second), 1);
    return _mm512_castpd_ps(
        _mm512_permutexvar_pd(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), _mm512_castps_pd(apart)));
  }
  /// FP64 words of a low and a high word to a lane.
  static D join_first(I low, I high) { return _mm512_castsi512_pd(_mm512_unpacklo_epi32(low, high)); }
  static D join_second(I low, I high) { return _mm512_castsi512_pd(_mm512_unpackhi_epi32(low, high)); }
  static I high_words(D first, D second) {
    return as_int(_mm512_shuffle_ps(_mm512_castpd_ps(first), _mm512_castpd_ps(second), 0xDD));
  }

  static L extend_low(I x) { return _mm512_cvtepi32_epi64(_mm512_castsi512_si256(x)); }
  static L extend_high(I x) { return _mm512_cvtepi32_epi64(_mm512_extracti32x8_epi32(x, 1)); }
  /// 2^(e + n) and 2^(n - e), the exponents of normal numbers.
  static D power(L e, int n) { return power_of(_mm512_add_epi64(e, _mm512_set1_epi64(1023 + n))); }
  static D power_negated(L e, int n) { return power_of(_mm512_sub_epi64(_mm512_set1_epi64(1023 + n), e)); }
  /// Cut to a whole number; raises no flag.
  static D whole(D x) { return _mm512_roundscale_pd(x, kTruncate); }

  // Truncation is part of these instructions, which suppress flags.
  static constexpr bool kEmbeddedRounding = true;
  static F add_truncated(F a, F b) { return _mm512_add_round_ps(a, b, kTruncate); }
  static D add_truncated(D a, D b) { return _mm512_add_round_pd(a, b, kTruncate); }
  static F narrow_truncated(D low, D high) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvt_roundpd_ps(low, kTruncate)),
                              _mm512_cvt_roundpd_ps(high, kTruncate), 1);
  }
  static void nearest() { _mm_setcsr(0x1F80); }
  static void toward_zero() {}
  /// Truncates everything until nearest(), which clears the flags.
  static void mode_toward_zero() { _mm_setcsr(0x7F80); }
  static bool inexact() { return (_mm_getcsr() & 0x20) != 0; }

  // vpdpbusd: unsigned bytes times signed bytes, four products to a lane.
  static constexpr int kByteOffset = 12;
  using Dot = I;
  static Dot dot_start(const uint8_t *at) { return spread_i(at); }
  static Dot dot_zero() { return _mm512_setzero_si512(); }
  static void dot(Dot &sum, I b, I a) { sum = _mm512_dpbusd_epi32(sum, b, a); }
  static Dot dot_sub(Dot a, Dot b) { return _mm512_sub_epi32(a, b); }
  static I total(Dot x) { return x; }
  static Bytes dot_start_add(Bytes sum, Bytes x) {
    return _mm_dpbusd_epi32(sum, _mm_set1_epi8(kByteOffset), x);
  }
  static int32_t dot_start_word(Bytes sum) {
    sum = _mm_add_epi32(sum, _mm_srli_si128(sum, 8));
    return -_mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_srli_si128(sum, 4)));
  }
  static I spread_byte(int x) { return _mm512_set1_epi8(char(x)); }
  static I magnitude8(I x) { return _mm512_abs_epi8(x); }
  static I one_where_differs8(I x, int from) {
    return _mm512_maskz_set1_epi8(_mm512_cmpneq_epi8_mask(x, spread_byte(from)), 1);
  }

  static Bytes lookup_nibbles(const int8_t (&table)[16], const uint8_t *nibbles) {
    const Bytes pairs = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(nibbles));
    const Bytes low = _mm_and_si128(pairs, _mm_set1_epi8(15));
    const Bytes high = _mm_and_si128(_mm_srli_epi16(pairs, 4), _mm_set1_epi8(15));
    return _mm_shuffle_epi8(_mm_loadu_si128(reinterpret_cast<const __m128i *>(table)),
                            _mm_unpacklo_epi8(low, high));
  }
  static Bytes zero_bytes() { return _mm_setzero_si128(); }
  static Bytes add8(Bytes x, int y) { return _mm_add_epi8(x, _mm_set1_epi8(char(y))); }
  static void store(uint8_t *to, Bytes x) { _mm_storeu_si128(reinterpret_cast<__m128i *>(to), x); }
  template <int n> static int32_t word(Bytes x) { return _mm_extract_epi32(x, n); }

private:
  static F pairs_apart(F x) {
    return _mm512_castpd_ps(
        _mm512_permutexvar_pd(_mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7), _mm512_castps_pd(x)));
  }
  static constexpr int kTruncate = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
  static D power_of(L field) { return _mm512_castsi512_pd(_mm512_slli_epi64(field, 52)); }
};

#if defined(__AVX512VPOPCNTDQ__)
/// The same with VPOPCNTDQ.
struct Avx512Popcount : Avx512 {
  static I count_bits(I x) { return _mm512_popcnt_epi32(x); }
};
#endif

} // namespace
} // namespace nvfp4::simd
