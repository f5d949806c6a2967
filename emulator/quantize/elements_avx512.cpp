// SPDX-License-Identifier: Apache-2.0
// Element codes of 16 blocks for AVX-512: E2M1, E4M3 and E5M2, nearest and stochastic. README.md proves the
// arithmetic. Private but for the function that finds an encoder.
#include "nvfp4/emulator/quantize/kernels.hpp"

#if defined(__AVX512F__) && defined(__AVX512DQ__)
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" // GCC 12's own headers
#pragma GCC diagnostic ignored "-Wuninitialized"
#endif
#include <immintrin.h>

namespace nvfp4::quant {
namespace {

using enum ElementRounding;

constexpr int kDown = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
constexpr int kSmallestMagnitude = 0b1010; // vrange: minimum of absolute values, sign cleared

inline __m512 with_factor(Meet meet, const float *at, __m512 factor) {
  const __m512 x = _mm512_loadu_ps(at);
  if (meet == Meet::divide) return _mm512_div_ps(x, factor);
  if (meet == Meet::multiply) return _mm512_mul_ps(x, factor);
  const __mmask16 normal = _mm512_test_epi32_mask(_mm512_castps_si512(x), _mm512_set1_epi32(int(kInfinity)));
  return _mm512_maskz_mul_ps(normal, x, factor);
}

/// The sign of x above the magnitude code. A quotient of either zero loses it.
template <int bits> inline __m512i with_sign(Meet meet, const float *x, __m512 y, __m512i code) {
  constexpr int magnitude = (1 << bits) - 1;
  __m512i sign = _mm512_srli_epi32(_mm512_loadu_si512(x), 31 - bits);
  if (meet == Meet::divide)
    sign = _mm512_maskz_mov_epi32(_mm512_cmp_ps_mask(y, _mm512_setzero_ps(), _CMP_NEQ_UQ), sign);
  return _mm512_ternarylogic_epi32(_mm512_set1_epi32(magnitude), code, sign, 0xCA); // magnitude ? code : sign
}

inline __m512i random_bytes(const uint8_t *at) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i *>(at)));
}

/// Lane 0 to 3 of a table by floor(t / 2), for 0 <= t <= 6: the binades of E2M1 above its subnormals are
/// [0, 2), [2, 4) and [4, 6].
inline __m512 by_binade(__m512 t, __m512 table) {
  const __m512 floored = _mm512_add_round_ps(t, _mm512_set1_ps(0x1p24f), kDown); // ulp 2
  return _mm512_permutevar_ps(table, _mm512_castps_si512(floored));
}
inline __m512 table4(float a, float b, float c) { return _mm512_broadcast_f32x4(_mm_setr_ps(a, b, c, c)); }
/// For each binade a number whose ulp is its step 1/2, 1, 2 (over 2^fraction). Adding it to t counts steps in
/// the low bits; there it holds 0, 2, 4 beforehand, so that the count becomes the code.
template <int fraction> inline __m512 magic_e2m1() {
  constexpr float top = float(1 << (22 - fraction));
  return table4(top, 2 * top + 2, 4 * top + 8);
}

template <ElementRounding R> inline __m512i round_e2m1(__m512 y, const uint8_t *random) {
  const __m512 t = _mm512_range_ps(y, _mm512_set1_ps(6.0f), kSmallestMagnitude);
  if constexpr (R == nearest) {
    return _mm512_castps_si512(_mm512_add_ps(t, by_binade(t, magic_e2m1<0>())));
  } else if constexpr (R == sr_carry8) {
    const __m512 fixed = _mm512_add_round_ps(t, by_binade(t, magic_e2m1<8>()), kDown);
    return _mm512_srli_epi32(_mm512_add_epi32(_mm512_castps_si512(fixed), random_bytes(random)), 8);
  } else if constexpr (R == sr_te) {
    const __m512 step = by_binade(t, table4(0.5f / 256, 1.0f / 256, 2.0f / 256));
    const __m512 moved = _mm512_min_ps(_mm512_fmadd_ps(_mm512_cvtepi32_ps(random_bytes(random)), step, t),
                                       _mm512_set1_ps(6.0f));
    return _mm512_castps_si512(_mm512_add_round_ps(moved, by_binade(moved, magic_e2m1<0>()), kDown));
  } else {
    const __m512 m = by_binade(t, magic_e2m1<0>());
    const __m512 kept = _mm512_add_round_ps(t, m, kDown);
    const __m512 rest = _mm512_sub_ps(t, _mm512_sub_ps(kept, m));
    const __m512i fraction =
        _mm512_cvttps_epu32(_mm512_mul_ps(rest, by_binade(t, table4(0x1p33f, 0x1p32f, 0x1p31f))));
    const __m512i bits = _mm512_loadu_si512(random);
    const __mmask16 carry = _mm512_cmplt_epu32_mask(_mm512_add_epi32(fraction, bits), bits);
    const __m512i code = _mm512_castps_si512(kept);
    return _mm512_mask_add_epi32(code, carry, code, _mm512_set1_epi32(1));
  }
}

/// 128 codes, one to a 32-bit lane, into nibbles.
inline __m512i pack_nibbles(const __m512i (&c)[8]) {
  const auto bytes = [](__m512i p, __m512i q, __m512i r, __m512i s) {
    return _mm512_packus_epi16(_mm512_packus_epi32(p, q), _mm512_packus_epi32(r, s));
  };
  const __m512i weights = _mm512_set1_epi16(0x1001);
  const __m512i low = _mm512_maddubs_epi16(bytes(c[0], c[1], c[2], c[3]), weights);
  const __m512i high = _mm512_maddubs_epi16(bytes(c[4], c[5], c[6], c[7]), weights);
  // word 8 L + j holds quarter L of vector j
  alignas(64) static constexpr uint16_t kOrder[32] = {0,  8,  16, 24, 1,  9,  17, 25, 2,  10, 18,
                                                      26, 3,  11, 19, 27, 4,  12, 20, 28, 5,  13,
                                                      21, 29, 6,  14, 22, 30, 7,  15, 23, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(kOrder), _mm512_packus_epi16(low, high));
}

template <Meet meet, ElementRounding R>
void encode_e2m1(const float *x, int block, const float *factors, const uint8_t *random, uint8_t *codes) {
  constexpr int random_size = R == nearest ? 0 : R == sr_exact ? 4 : 1;
  const int shift = block == 32;
  for (int first = 0; first < block; first += 8) {
    __m512i c[8];
    for (int j = 0; j < 8; ++j) {
      const int v = first + j;
      const float *const at = x + 16 * v;
      const __m512 y = with_factor(meet, at, _mm512_set1_ps(factors[v >> shift]));
      c[j] = with_sign<3>(meet, at, y, round_e2m1<R>(y, random + 16 * v * random_size));
    }
    _mm512_storeu_si512(codes + 8 * first, pack_nibbles(c));
  }
}

/// E4M3 (3 mantissa bits) and E5M2 (2): the same addition, with the binade taken from the exponent field.
template <int mantissa, ElementRounding R> inline __m512i round_fp8(__m512 y, const uint8_t *random) {
  constexpr int lowest = mantissa == 3 ? 121 : 113; // exponent field of the smallest normal
  constexpr float top = mantissa == 3 ? 448.0f : 57344.0f;
  constexpr int fraction = R == sr_carry8 ? 8 : 0;
  const __m512 t = _mm512_range_ps(y, _mm512_set1_ps(top), kSmallestMagnitude);
  const __m512 normal = _mm512_max_ps(t, _mm512_castsi512_ps(_mm512_set1_epi32(lowest << 23)));
  const __m512i binade = _mm512_and_si512(_mm512_castps_si512(normal), _mm512_set1_epi32(int(kInfinity)));
  const __m512i start = _mm512_add_epi32(
      _mm512_srli_epi32(binade, 23 - mantissa - fraction),
      _mm512_set1_epi32(((23 - mantissa - fraction) << 23) - (lowest << (mantissa + fraction))));
  const __m512 m = _mm512_castsi512_ps(_mm512_add_epi32(binade, start));
  if constexpr (R == nearest) {
    return _mm512_castps_si512(_mm512_add_ps(t, m));
  } else {
    const __m512 kept = _mm512_add_round_ps(t, m, kDown);
    const __m512i code = _mm512_castps_si512(kept);
    if constexpr (R == sr_carry8) return _mm512_srli_epi32(_mm512_add_epi32(code, random_bytes(random)), 8);
    const __m512 rest = _mm512_sub_ps(t, _mm512_sub_ps(kept, m));
    const __m512i inverse_step = _mm512_sub_epi32(_mm512_set1_epi32((286 + mantissa) << 23), binade);
    const __m512i discarded =
        _mm512_cvttps_epu32(_mm512_mul_ps(rest, _mm512_castsi512_ps(inverse_step))); // rest / step * 2^32
    const __m512i bits = _mm512_loadu_si512(random);
    const __mmask16 carry = _mm512_cmplt_epu32_mask(_mm512_add_epi32(discarded, bits), bits);
    return _mm512_mask_add_epi32(code, carry, code, _mm512_set1_epi32(1));
  }
}

template <int mantissa, ElementRounding R>
void encode_fp8(const float *x, int block, const float *factors, const uint8_t *random, uint8_t *codes) {
  constexpr int random_size = R == nearest ? 0 : R == sr_exact ? 4 : 1;
  const int shift = block == 32;
  for (int v = 0; v < block; ++v) {
    const float *const at = x + 16 * v;
    const __m512 y = with_factor(Meet::multiply, at, _mm512_set1_ps(factors[v >> shift]));
    const __m512i c =
        with_sign<7>(Meet::multiply, at, y, round_fp8<mantissa, R>(y, random + 16 * v * random_size));
    _mm_storeu_si128(reinterpret_cast<__m128i *>(codes + 16 * v), _mm512_cvtepi32_epi8(c));
  }
}

/// Columns: a lane has its own factor, and its codes meet in a word without leaving it.
template <FormatId element, Meet meet, ElementRounding R>
void encode_columns(const float *x, int block, const float *factors, const uint8_t *random, int64_t random_stride,
                    uint32_t *to, int64_t to_stride) {
  constexpr int bits = element == FormatId::e2m1 ? 4 : 8, rows = 32 / bits;
  const __m512 factor = _mm512_loadu_ps(factors);
  for (int first = 0; first < block; first += rows, to += to_stride) {
    __m512i word = _mm512_setzero_si512();
#pragma GCC unroll 8
    for (int i = first + rows - 1; i >= first; --i) {
      const float *const at = x + kGroup * i;
      const uint8_t *const own = random + random_stride * i;
      const __m512 y = with_factor(meet, at, factor);
      __m512i code;
      if constexpr (element == FormatId::e2m1)
        code = round_e2m1<R>(y, own);
      else
        code = round_fp8<element == FormatId::e4m3 ? 3 : 2, R>(y, own);
      word = _mm512_or_si512(_mm512_slli_epi32(word, bits), with_sign<bits - 1>(meet, at, y, code));
    }
    _mm512_storeu_si512(to, word);
  }
}

/// The functions of an element, of a meeting and of a rounding: along rows and down columns.
struct Encoders {
  Encode rows = nullptr;
  EncodeColumns columns = nullptr;
};
template <ElementRounding R> Encoders find(FormatId element, Meet meet) {
  using enum FormatId;
  if (element == e2m1) {
    switch (meet) {
    case Meet::multiply: return {encode_e2m1<Meet::multiply, R>, encode_columns<e2m1, Meet::multiply, R>};
    case Meet::multiply_flushed:
      return {encode_e2m1<Meet::multiply_flushed, R>, encode_columns<e2m1, Meet::multiply_flushed, R>};
    case Meet::divide: return {encode_e2m1<Meet::divide, R>, encode_columns<e2m1, Meet::divide, R>};
    }
  }
  if constexpr (R != sr_te)
    if (meet == Meet::multiply) {
      if (element == e4m3) return {encode_fp8<3, R>, encode_columns<e4m3, Meet::multiply, R>};
      if (element == e5m2) return {encode_fp8<2, R>, encode_columns<e5m2, Meet::multiply, R>};
    }
  return {};
}
Encoders find(FormatId element, Meet meet, ElementRounding rounding) {
  switch (rounding) {
  case nearest: return find<nearest>(element, meet);
  case sr_carry8: return find<sr_carry8>(element, meet);
  case sr_te: return find<sr_te>(element, meet);
  case sr_mid8: return {}; // the definition's
  case sr_exact: break;
  }
  return find<sr_exact>(element, meet);
}

} // namespace

Encode encoder_avx512(FormatId element, Meet meet, ElementRounding rounding) {
  return find(element, meet, rounding).rows;
}
EncodeColumns column_encoder_avx512(FormatId element, Meet meet, ElementRounding rounding) {
  return find(element, meet, rounding).columns;
}

} // namespace nvfp4::quant
#endif
