// SPDX-License-Identifier: Apache-2.0
// Element codes of 16 blocks for AVX2: E2M1, E4M3 and E5M2, nearest and stochastic, by one arithmetic.
// README.md proves it. Private but for the function that finds an encoder.
#include "nvfp4/emulator/quantize/kernels.hpp"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

namespace nvfp4::quant {
namespace {

using enum ElementRounding;

struct E2m1 {
  static constexpr int mantissa = 1, lowest = 127, bits = 3; // exponent field of the smallest normal
  static constexpr float top = 6.0f;
};
struct E4m3 {
  static constexpr int mantissa = 3, lowest = 121, bits = 7;
  static constexpr float top = 448.0f;
};
struct E5m2 {
  static constexpr int mantissa = 2, lowest = 113, bits = 7;
  static constexpr float top = 57344.0f;
};

inline __m256i all(int x) { return _mm256_set1_epi32(x); }
inline __m256i words(__m256 x) { return _mm256_castps_si256(x); }
inline __m256 floats(__m256i x) { return _mm256_castsi256_ps(x); }
inline __m256i load_words(const void *at) { return _mm256_loadu_si256(static_cast<const __m256i *>(at)); }

inline __m256 with_factor(Meet meet, const float *at, __m256 factor) {
  __m256 x = _mm256_loadu_ps(at);
  if (meet == Meet::divide) return _mm256_div_ps(x, factor);
  if (meet == Meet::multiply_flushed) {
    const __m256i field = _mm256_and_si256(words(x), all(int(kInfinity)));
    x = _mm256_andnot_ps(floats(_mm256_cmpeq_epi32(field, _mm256_setzero_si256())), x);
  }
  return _mm256_mul_ps(x, factor);
}

/// The sign of x above the magnitude code. A quotient of either zero loses it.
template <class T> inline __m256i with_sign(Meet meet, const float *x, __m256 y, __m256i code) {
  constexpr int magnitude = (1 << T::bits) - 1;
  __m256i sign = _mm256_and_si256(_mm256_srli_epi32(load_words(x), 31 - T::bits), all(magnitude + 1));
  if (meet == Meet::divide)
    sign = _mm256_and_si256(sign, words(_mm256_cmp_ps(y, _mm256_setzero_ps(), _CMP_NEQ_UQ)));
  return _mm256_or_si256(_mm256_and_si256(code, all(magnitude)), sign);
}

inline __m256i random_bytes(const uint8_t *at) {
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i *>(at)));
}

/// The exponent field, in its place, of the binade whose grid t is rounded to.
template <class T> inline __m256i binade_of(__m256 t) {
  const __m256 normal = _mm256_max_ps(t, floats(all(T::lowest << 23)));
  return _mm256_and_si256(words(normal), all(int(kInfinity)));
}
/// The code where the binade starts minus what its own steps count, times 2^fraction.
template <class T, int fraction> inline __m256i start_of(__m256i binade) {
  return _mm256_sub_epi32(_mm256_srli_epi32(binade, 23 - T::mantissa - fraction),
                          all(T::lowest << (T::mantissa + fraction)));
}
/// t in steps of its binade; exact.
template <class T> inline __m256 in_steps(__m256 t, __m256i binade) {
  return _mm256_mul_ps(t, floats(_mm256_sub_epi32(all((254 + T::mantissa) << 23), binade)));
}
template <class T> inline __m256i round_down(__m256 t) {
  const __m256i binade = binade_of<T>(t);
  return _mm256_add_epi32(_mm256_cvttps_epi32(in_steps<T>(t, binade)), start_of<T, 0>(binade));
}

template <class T, ElementRounding R> inline __m256i round(__m256 y, const uint8_t *random) {
  const __m256 t = _mm256_min_ps(floats(_mm256_and_si256(words(y), all(0x7FFFFFFF))), _mm256_set1_ps(T::top));
  const __m256i binade = binade_of<T>(t);
  if constexpr (R == nearest) { // the sum's ulp is the step
    const __m256i m =
        _mm256_add_epi32(_mm256_add_epi32(binade, all((23 - T::mantissa) << 23)), start_of<T, 0>(binade));
    return words(_mm256_add_ps(t, floats(m)));
  } else if constexpr (R == sr_te) {
    const __m256i step = _mm256_sub_epi32(binade, all((T::mantissa + 8) << 23)); // over 256
    const __m256 moved = _mm256_fmadd_ps(_mm256_cvtepi32_ps(random_bytes(random)), floats(step), t);
    return round_down<T>(_mm256_min_ps(moved, _mm256_set1_ps(T::top)));
  } else if constexpr (R == sr_carry8) {
    const __m256 scaled = _mm256_mul_ps(in_steps<T>(t, binade), _mm256_set1_ps(256.0f));
    const __m256i fixed = _mm256_add_epi32(_mm256_cvttps_epi32(scaled), start_of<T, 8>(binade));
    return _mm256_srli_epi32(_mm256_add_epi32(fixed, random_bytes(random)), 8);
  } else { // 32 bits of the fraction, the upper and the lower 16
    const __m256 scaled = in_steps<T>(t, binade), half_word = _mm256_set1_ps(65536.0f);
    const __m256i kept = _mm256_cvttps_epi32(scaled);
    const __m256 rest = _mm256_mul_ps(_mm256_sub_ps(scaled, _mm256_cvtepi32_ps(kept)), half_word);
    const __m256i upper = _mm256_cvttps_epi32(rest);
    const __m256i lower =
        _mm256_cvttps_epi32(_mm256_mul_ps(_mm256_sub_ps(rest, _mm256_cvtepi32_ps(upper)), half_word));
    const __m256i bits = load_words(random);
    const __m256i sum = _mm256_add_epi32(_mm256_or_si256(_mm256_slli_epi32(upper, 16), lower), bits);
    const __m256i no_carry = _mm256_cmpeq_epi32(_mm256_max_epu32(sum, bits), sum);
    const __m256i code = _mm256_add_epi32(kept, start_of<T, 0>(binade));
    return _mm256_add_epi32(_mm256_add_epi32(code, all(1)), no_carry);
  }
}

/// 64 codes, one to a 32-bit lane, into 32 bytes of nibbles.
inline void store_nibbles(const __m256i (&c)[8], uint8_t *to) {
  const auto bytes = [](__m256i p, __m256i q, __m256i r, __m256i s) {
    return _mm256_packus_epi16(_mm256_packus_epi32(p, q), _mm256_packus_epi32(r, s));
  };
  const __m256i weights = _mm256_set1_epi16(0x1001);
  const __m256i both = _mm256_packus_epi16(_mm256_maddubs_epi16(bytes(c[0], c[1], c[2], c[3]), weights),
                                           _mm256_maddubs_epi16(bytes(c[4], c[5], c[6], c[7]), weights));
  const __m128i low = _mm256_castsi256_si128(both), high = _mm256_extracti128_si256(both, 1);
  _mm_storeu_si128(reinterpret_cast<__m128i *>(to), _mm_unpacklo_epi16(low, high));
  _mm_storeu_si128(reinterpret_cast<__m128i *>(to + 16), _mm_unpackhi_epi16(low, high));
}

inline void store_bytes(const __m256i (&c)[8], uint8_t *to) {
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (int j = 0; j < 8; j += 4) {
    const __m256i bytes =
        _mm256_packus_epi16(_mm256_packus_epi32(c[j], c[j + 1]), _mm256_packus_epi32(c[j + 2], c[j + 3]));
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + 8 * j), _mm256_permutevar8x32_epi32(bytes, order));
  }
}

template <class T, Meet meet, ElementRounding R>
void encode(const float *x, int block, const float *factors, const uint8_t *random, uint8_t *codes) {
  constexpr int random_size = R == nearest ? 0 : R == sr_exact ? 4 : 1;
  const int shift = block == 32 ? 2 : 1; // vectors of a block
  for (int first = 0; first < 2 * block; first += 8) {
    __m256i c[8];
    for (int j = 0; j < 8; ++j) {
      const int v = first + j;
      const float *const at = x + 8 * v;
      const __m256 y = with_factor(meet, at, _mm256_set1_ps(factors[v >> shift]));
      c[j] = with_sign<T>(meet, at, y, round<T, R>(y, random + 8 * v * random_size));
    }
    if constexpr (T::bits == 3)
      store_nibbles(c, codes + 4 * first);
    else
      store_bytes(c, codes + 8 * first);
  }
}

/// Columns: a lane has its own factor, and its codes meet in a word without leaving it.
template <class T, Meet meet, ElementRounding R>
void encode_columns(const float *x, int block, const float *factors, const uint8_t *random, int64_t random_stride,
                    uint32_t *to, int64_t to_stride) {
  constexpr int bits = T::bits + 1, rows = 32 / bits;
  constexpr int random_size = R == nearest ? 0 : R == sr_exact ? 4 : 1;
  for (int half = 0; half < 2; ++half, x += 8, factors += 8, random += 8 * random_size, to += 8) {
    const __m256 factor = _mm256_loadu_ps(factors);
    for (int first = 0; first < block; first += rows) {
      __m256i word = _mm256_setzero_si256();
      for (int i = first + rows - 1; i >= first; --i) {
        const float *const at = x + kGroup * i;
        const __m256 y = with_factor(meet, at, factor);
        const __m256i code = round<T, R>(y, random + random_stride * i);
        word = _mm256_or_si256(_mm256_slli_epi32(word, bits), with_sign<T>(meet, at, y, code));
      }
      _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + first / rows * to_stride), word);
    }
  }
}

/// The functions of an element, of a meeting and of a rounding: along rows and down columns.
struct Encoders {
  Encode rows = nullptr;
  EncodeColumns columns = nullptr;
};
template <class T, Meet meet, ElementRounding R>
constexpr Encoders kEncoders{encode<T, meet, R>, encode_columns<T, meet, R>};

template <ElementRounding R> Encoders find(FormatId element, Meet meet) {
  if (element == FormatId::e2m1) {
    switch (meet) {
    case Meet::multiply: return kEncoders<E2m1, Meet::multiply, R>;
    case Meet::multiply_flushed: return kEncoders<E2m1, Meet::multiply_flushed, R>;
    case Meet::divide: return kEncoders<E2m1, Meet::divide, R>;
    }
  }
  if constexpr (R != sr_te)
    if (meet == Meet::multiply) {
      if (element == FormatId::e4m3) return kEncoders<E4m3, Meet::multiply, R>;
      if (element == FormatId::e5m2) return kEncoders<E5m2, Meet::multiply, R>;
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

Encode encoder_avx2(FormatId element, Meet meet, ElementRounding rounding) {
  return find(element, meet, rounding).rows;
}
EncodeColumns column_encoder_avx2(FormatId element, Meet meet, ElementRounding rounding) {
  return find(element, meet, rounding).columns;
}

} // namespace nvfp4::quant
#endif
