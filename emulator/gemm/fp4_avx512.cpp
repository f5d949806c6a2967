// SPDX-License-Identifier: Apache-2.0
// FP4 kernels for AVX-512 VNNI: 8 rows x 16 columns, one 32-bit lane per column. README.md explains and
// proves them. Compiled with AVX-512 flags; everything here but the table is private to the file.
#include "nvfp4/emulator/gemm/fp4_kernels.hpp"

#include "nvfp4/emulator/cpu/float_state.hpp"

#if defined(__AVX512F__) && defined(__AVX512VNNI__)
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" // GCC 12's own headers
#endif
#include <immintrin.h>

namespace nvfp4::gemm {
namespace {

constexpr int kMr = 8, kNr = 16;
constexpr int kTruncate = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
constexpr int kFraction = 35;             ///< F of the FP4 units
constexpr int kLargestMagnitude = 0b1011; // vrange: maximum of absolute values, sign cleared

/// Twice the value of 16 packed E2M1 codes as signed bytes, in K order.
inline __m128i doubled(const uint8_t *nibbles) {
  const __m128i table = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
  const __m128i pairs = _mm_loadl_epi64(reinterpret_cast<const __m128i *>(nibbles));
  const __m128i low = _mm_and_si128(pairs, _mm_set1_epi8(15));
  const __m128i high = _mm_and_si128(_mm_srli_epi16(pairs, 4), _mm_set1_epi8(15));
  return _mm_shuffle_epi8(table, _mm_unpacklo_epi8(low, high));
}

inline void put(uint8_t *at, int32_t x) { __builtin_memcpy(at, &x, 4); }
inline void put(uint8_t *at, float x) { __builtin_memcpy(at, &x, 4); }

void pack_a(uint8_t *panel, int row, const uint8_t *codes, const uint8_t *scales, int64_t units, int unit,
            const float *scale_table) {
  for (int64_t u = 0; u < units; ++u) {
    __m128i sum = _mm_setzero_si128();
    for (int h = 0; h < unit; h += 16) {
      const __m128i x = doubled(codes + u * unit / 2 + h / 2);
      _mm_storeu_si128(reinterpret_cast<__m128i *>(panel + row * unit + h), x);
      sum = _mm_dpbusd_epi32(sum, _mm_set1_epi8(12), x);
    }
    sum = _mm_add_epi32(sum, _mm_srli_si128(sum, 8));
    sum = _mm_add_epi32(sum, _mm_srli_si128(sum, 4));
    put(panel + kMr * unit + 4 * row, -_mm_cvtsi128_si32(sum)); // -12 * (sum of the row's unit)
    put(panel + kMr * (unit + 4) + 4 * row, scale_table[scales[u]]);
    panel += kMr * (unit + 8);
  }
}

void pack_b(uint8_t *tile, int column, const uint8_t *codes, const uint8_t *scales, int64_t units, int unit,
            const float *scale_table) {
  for (int64_t u = 0; u < units; ++u) {
    for (int h = 0; h < unit; h += 16) {
      const __m128i x = _mm_add_epi8(doubled(codes + u * unit / 2 + h / 2), _mm_set1_epi8(12));
      uint8_t *at = tile + h * kNr + 4 * column;
      put(at, _mm_cvtsi128_si32(x));
      put(at + 4 * kNr, _mm_extract_epi32(x, 1));
      put(at + 8 * kNr, _mm_extract_epi32(x, 2));
      put(at + 12 * kNr, _mm_extract_epi32(x, 3));
    }
    put(tile + kNr * unit + 4 * column, scale_table[scales[u]]);
    tile += kNr * (unit + 4);
  }
}

inline __m512i load_bytes(const uint8_t *at) { return _mm512_loadu_si512(at); }
inline __m512 load_floats(const uint8_t *at) { return _mm512_loadu_ps(at); }
inline __m512i spread_word(const uint8_t *at) {
  int32_t x;
  __builtin_memcpy(&x, at, 4);
  return _mm512_set1_epi32(x);
}
inline __m512 spread_float(const uint8_t *at) {
  float x;
  __builtin_memcpy(&x, at, 4);
  return _mm512_set1_ps(x);
}

/// The integer sum of one unit for row r, converted: exact, |P| <= 144 * unit < 2^13.
template <int unit> inline __m512 unit_sum(const uint8_t *a, const __m512i (&b)[unit / 4], int r) {
  __m512i p = spread_word(a + kMr * unit + 4 * r);
#pragma GCC unroll 8
  for (int q = 0; q < unit / 4; ++q) p = _mm512_dpbusd_epi32(p, b[q], spread_word(a + r * unit + 4 * q));
  return _mm512_cvtepi32_ps(p);
}

template <int unit>
[[gnu::noinline]] void narrow_tile(const uint8_t *a, const uint8_t *b, int64_t steps, float *acc_out,
                                   float *peak_out) {
  __m512 acc[kMr], peak[kMr];
#pragma GCC unroll 8
  for (int r = 0; r < kMr; ++r) acc[r] = peak[r] = _mm512_setzero_ps();
  for (int64_t t = 0; t < steps; ++t) {
    __m512 sum[kMr];
#pragma GCC unroll 4
    for (int u = 0; u < 64 / unit; ++u) {
      __m512i q[unit / 4];
#pragma GCC unroll 8
      for (int i = 0; i < unit / 4; ++i) q[i] = load_bytes(b + 64 * i);
      const __m512 sy = load_floats(b + kNr * unit);
#pragma GCC unroll 8
      for (int r = 0; r < kMr; ++r) {
        const __m512 p = unit_sum<unit>(a, q, r);
        const __m512 s = _mm512_mul_ps(sy, spread_float(a + kMr * (unit + 4) + 4 * r));
        sum[r] = u == 0 ? _mm512_mul_ps(p, s) : _mm512_fmadd_ps(p, s, sum[r]);
      }
      a += kMr * (unit + 8);
      b += kNr * (unit + 4);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kMr; ++r) {
      peak[r] = _mm512_range_ps(peak[r], acc[r], kLargestMagnitude);
      acc[r] = _mm512_add_round_ps(acc[r], sum[r], kTruncate); // raises no flag
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kMr; ++r) {
    _mm512_storeu_ps(acc_out + kNr * r, acc[r]);
    _mm512_storeu_ps(peak_out + kNr * r, peak[r]);
  }
}

/// FP32 accumulators plus an exact FP64 sum, truncated to 53 bits and then to 24: truncation composes.
inline __m512 add_truncated(__m512 acc, __m512d low, __m512d high) {
  low = _mm512_add_round_pd(_mm512_cvtps_pd(_mm512_castps512_ps256(acc)), low, kTruncate);
  high = _mm512_add_round_pd(_mm512_cvtps_pd(_mm512_extractf32x8_ps(acc, 1)), high, kTruncate);
  return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvt_roundpd_ps(low, kTruncate)),
                            _mm512_cvt_roundpd_ps(high, kTruncate), 1);
}

/// Rows [first, first + 4) of the tile.
template <int unit, int first>
[[gnu::noinline]] void wide_tile(const uint8_t *a, const uint8_t *b, int64_t steps, float *acc_out,
                                 float *peak_out) {
  constexpr int rows = 4;
  __m512 acc[rows], peak[rows];
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) acc[r] = peak[r] = _mm512_setzero_ps();
  for (int64_t t = 0; t < steps; ++t) {
    __m512d low[rows], high[rows];
#pragma GCC unroll 4
    for (int u = 0; u < 64 / unit; ++u) {
      __m512i q[unit / 4];
#pragma GCC unroll 8
      for (int i = 0; i < unit / 4; ++i) q[i] = load_bytes(b + 64 * i);
      const __m512 sy = load_floats(b + kNr * unit);
#pragma GCC unroll 4
      for (int r = 0; r < rows; ++r) {
        const __m512 s = _mm512_mul_ps(sy, spread_float(a + kMr * (unit + 4) + 4 * (first + r)));
        const __m512 g = _mm512_mul_ps(unit_sum<unit>(a, q, first + r), s);
        const __m512d l = _mm512_cvtps_pd(_mm512_castps512_ps256(g)),
                      h = _mm512_cvtps_pd(_mm512_extractf32x8_ps(g, 1));
        low[r] = u == 0 ? l : _mm512_add_pd(low[r], l);
        high[r] = u == 0 ? h : _mm512_add_pd(high[r], h);
      }
      a += kMr * (unit + 8);
      b += kNr * (unit + 4);
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      peak[r] = _mm512_range_ps(peak[r], acc[r], kLargestMagnitude);
      acc[r] = add_truncated(acc[r], low[r], high[r]);
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r) {
    _mm512_storeu_ps(acc_out + kNr * (first + r), acc[r]);
    _mm512_storeu_ps(peak_out + kNr * (first + r), peak[r]);
  }
}

/// The exponent of a scale's format, by field: 0.25 * scale on A's side is undone by `shift` = 2.
inline __m512i scale_exponent(__m512 scale, int shift, int min_exponent) {
  const __m512i e = _mm512_srli_epi32(_mm512_castps_si512(scale), 23); // scales have no sign
  return _mm512_max_epi32(_mm512_add_epi32(e, _mm512_set1_epi32(shift - 127)),
                          _mm512_set1_epi32(min_exponent));
}

/// 2^e as FP64.
inline __m512d power(__m512i e) {
  return _mm512_castsi512_pd(_mm512_slli_epi64(_mm512_add_epi64(e, _mm512_set1_epi64(1023)), 52));
}

/// Eight FP64 lanes: x * 2^(35 - top), truncated to a whole number.
inline __m512d whole(__m256 x, __m512d lift) {
  return _mm512_roundscale_pd(_mm512_mul_pd(_mm512_cvtps_pd(x), lift), kTruncate);
}

/// One group of 16: its integer sum, and the lanes where some product is not zero.
struct Group {
  __m512 sum;
  __mmask16 any;
};
inline Group group_of(const uint8_t *a, const __m512i *b) {
  __m512i sum = _mm512_setzero_si512(), start = sum, count = sum; // count: of |a| over non-zero b
#pragma GCC unroll 4
  for (int q = 0; q < 4; ++q) {
    const __m512i x = spread_word(a + 4 * q), twelve = _mm512_set1_epi8(12);
    sum = _mm512_dpbusd_epi32(sum, b[q], x);
    start = _mm512_dpbusd_epi32(start, twelve, x);
    const __m512i nonzero = _mm512_maskz_set1_epi8(_mm512_cmpneq_epi8_mask(b[q], twelve), 1);
    count = _mm512_dpbusd_epi32(count, nonzero, _mm512_abs_epi8(x));
  }
  return {_mm512_cvtepi32_ps(_mm512_sub_epi32(sum, start)), _mm512_test_epi32_mask(count, count)};
}

/// The whole step for row r. Groups of 16 are cut one by one even where two share their scales.
template <int unit>
[[gnu::noinline]] void aligned_row(const uint8_t *a, const uint8_t *b, int64_t steps, int min_exponent, int r,
                                   float *acc_out) {
  constexpr int units = 64 / unit, per_unit = unit / 16;
  __m512 acc = _mm512_setzero_ps();
  for (int64_t t = 0; t < steps; ++t) {
    // the accumulator's exponent; in this engine's range it is zero or normal, and a zero's is below any
    // other
    const __m512i c = _mm512_srli_epi32(_mm512_slli_epi32(_mm512_castps_si512(acc), 1), 24);
    __m512i top = _mm512_sub_epi32(c, _mm512_set1_epi32(127));
    __m512 group[4];
#pragma GCC unroll 4
    for (int u = 0; u < units; ++u) {
      __m512i q[unit / 4];
#pragma GCC unroll 8
      for (int i = 0; i < unit / 4; ++i) q[i] = load_bytes(b + 64 * i);
      const __m512 sy = load_floats(b + kNr * unit), sx = spread_float(a + kMr * (unit + 4) + 4 * r);
      const __m512 s = _mm512_mul_ps(sy, sx);
      const __mmask16 scaled = _mm512_cmp_ps_mask(s, _mm512_setzero_ps(), _CMP_NEQ_OQ);
      const __m512i e =
          _mm512_add_epi32(scale_exponent(sx, 2, min_exponent), scale_exponent(sy, 0, min_exponent));
#pragma GCC unroll 2
      for (int h = 0; h < per_unit; ++h) {
        const Group g = group_of(a + r * unit + 16 * h, q + 4 * h);
        group[u * per_unit + h] = _mm512_mul_ps(g.sum, s);
        top = _mm512_mask_max_epi32(top, g.any & scaled, top, e);
      }
      a += kMr * (unit + 8);
      b += kNr * (unit + 4);
    }
    __m256 half[2];
#pragma GCC unroll 2
    for (int h = 0; h < 2; ++h) {
      const auto part = [h](__m512 v) {
        return h == 0 ? _mm512_castps512_ps256(v) : _mm512_extractf32x8_ps(v, 1);
      };
      const __m512i e =
          _mm512_cvtepi32_epi64(h == 0 ? _mm512_castsi512_si256(top) : _mm512_extracti32x8_epi32(top, 1));
      const __m512d up = power(_mm512_sub_epi64(_mm512_set1_epi64(kFraction), e));
      __m512d sum = whole(part(acc), up);
#pragma GCC unroll 4
      for (int g = 0; g < 4; ++g) sum = _mm512_add_pd(sum, whole(part(group[g]), up));
      half[h] = _mm512_cvt_roundpd_ps(
          _mm512_mul_pd(sum, power(_mm512_sub_epi64(e, _mm512_set1_epi64(kFraction)))), kTruncate);
    }
    acc = _mm512_insertf32x8(_mm512_castps256_ps512(half[0]), half[1], 1);
  }
  _mm512_storeu_ps(acc_out + kNr * r, acc);
}

bool narrow(const uint8_t *a, const uint8_t *b, int64_t steps, int unit, float *acc, float *peak) {
  _mm_setcsr(kNearest);
  (unit == 16 ? narrow_tile<16> : narrow_tile<32>)(a, b, steps, acc, peak);
  return (_mm_getcsr() & kInexact) == 0;
}

void wide(const uint8_t *a, const uint8_t *b, int64_t steps, int unit, float *acc, float *peak) {
  if (unit == 16) {
    wide_tile<16, 0>(a, b, steps, acc, peak);
    wide_tile<16, 4>(a, b, steps, acc, peak);
  } else {
    wide_tile<32, 0>(a, b, steps, acc, peak);
    wide_tile<32, 4>(a, b, steps, acc, peak);
  }
}

void aligned(const uint8_t *a, const uint8_t *b, int64_t steps, int unit, int min_exponent, float *acc) {
  for (int r = 0; r < kMr; ++r)
    (unit == 16 ? aligned_row<16> : aligned_row<32>)(a, b, steps, min_exponent, r, acc);
}

constexpr Fp4Kernels kKernels{kMr, kNr, pack_a, pack_b, narrow, wide, aligned};

} // namespace

const Fp4Kernels *fp4_avx512() { return &kKernels; }

} // namespace nvfp4::gemm
#else
namespace nvfp4::gemm {
const Fp4Kernels *fp4_avx512() { return nullptr; }
} // namespace nvfp4::gemm
#endif
