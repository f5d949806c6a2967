// SPDX-License-Identifier: Apache-2.0
// FP4 kernels for AVX2 and FMA: 4 rows x 16 columns, two vectors of 8 columns. README.md explains and proves
// them. Compiled with AVX2 flags; everything here but the table is private to the file.
#include "nvfp4/emulator/gemm/fp4_kernels.hpp"

#include "nvfp4/emulator/cpu/float_state.hpp"

#if defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>

namespace nvfp4::gemm {
namespace {

constexpr int kMr = 4, kNr = 16;
constexpr int kTile = kMr * kNr;
constexpr int kFraction = 35;                    ///< F of the FP4 units
constexpr int kNarrowSteps = 16, kWideSteps = 8; ///< steps whose sums are buffered, 4 KiB

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
    __m128i sum = _mm_setzero_si128(); // 16-bit lanes: pairs of K
    for (int h = 0; h < unit; h += 16) {
      const __m128i x = doubled(codes + u * unit / 2 + h / 2);
      _mm_storeu_si128(reinterpret_cast<__m128i *>(panel + row * unit + h), x);
      sum = _mm_sub_epi16(sum, _mm_maddubs_epi16(_mm_set1_epi8(12), x));
    }
    sum = _mm_add_epi16(sum, _mm_srli_si128(sum, 8));
    sum = _mm_add_epi16(sum, _mm_srli_si128(sum, 4));
    // two 16-bit starts: -12 * (sum over K % 4 in {0, 1}) and the same over {2, 3}
    put(panel + kMr * unit + 4 * row, _mm_cvtsi128_si32(sum));
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

inline __m256i load_bytes(const uint8_t *at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(at));
}
inline __m256i spread_word(const uint8_t *at) {
  int32_t x;
  __builtin_memcpy(&x, at, 4);
  return _mm256_set1_epi32(x);
}

/// The scaled groups of one unit: (4, 16) values P * sx * sy, exact in FP32 (at most 20 bits) under any
/// rounding.
template <int unit, class Use> inline void scaled_unit(const uint8_t *a, const uint8_t *b, Use use) {
  __m256i p[kMr][2]; // 16-bit sums: |p| <= 8 * 2 * 24 * 12 + 8 * 2 * 144 < 2^15 for unit = 32
#pragma GCC unroll 4
  for (int r = 0; r < kMr; ++r) p[r][0] = p[r][1] = spread_word(a + kMr * unit + 4 * r);
#pragma GCC unroll 8
  for (int q = 0; q < unit / 4; ++q) {
    const __m256i b0 = load_bytes(b + 64 * q), b1 = load_bytes(b + 64 * q + 32);
#pragma GCC unroll 4
    for (int r = 0; r < kMr; ++r) {
      const __m256i x = spread_word(a + r * unit + 4 * q);
      p[r][0] = _mm256_add_epi16(p[r][0], _mm256_maddubs_epi16(b0, x));
      p[r][1] = _mm256_add_epi16(p[r][1], _mm256_maddubs_epi16(b1, x));
    }
  }
  const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 4
  for (int r = 0; r < kMr; ++r) {
    const __m256 sx = _mm256_castsi256_ps(spread_word(a + kMr * (unit + 4) + 4 * r));
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      const __m256 sy = _mm256_castsi256_ps(load_bytes(b + kNr * unit + 32 * v));
      use(r, v, _mm256_cvtepi32_ps(_mm256_madd_epi16(p[r][v], ones)), _mm256_mul_ps(sx, sy));
    }
  }
}

/// Sums of steps in FP32: out is (steps, 4, 16). Inexact operations leave the precision flag.
template <int unit>
[[gnu::noinline]] void narrow_sums(const uint8_t *a, const uint8_t *b, int64_t steps, float *out) {
  for (int64_t t = 0; t < steps; ++t, out += kTile)
    for (int u = 0; u < 64 / unit; ++u) {
      scaled_unit<unit>(a, b, [&](int r, int v, __m256 p, __m256 s) {
        float *at = out + kNr * r + 8 * v;
        _mm256_storeu_ps(at, u == 0 ? _mm256_mul_ps(p, s) : _mm256_fmadd_ps(p, s, _mm256_loadu_ps(at)));
      });
      a += kMr * (unit + 8);
      b += kNr * (unit + 4);
    }
}

inline __m256 magnitude(__m256 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }

/// Adds the sums to the accumulators, one by one. The rounding mode must be toward zero.
[[gnu::noinline]] void narrow_chain(const float *sums, int64_t steps, float *acc, float *peak) {
  for (int o = 0; o < kTile; o += 8) {
    __m256 x = _mm256_loadu_ps(acc + o), top = _mm256_loadu_ps(peak + o);
    for (int64_t t = 0; t < steps; ++t) {
      top = _mm256_max_ps(top, magnitude(x));
      x = _mm256_add_ps(x, _mm256_loadu_ps(sums + t * kTile + o));
    }
    _mm256_storeu_ps(acc + o, x);
    _mm256_storeu_ps(peak + o, top);
  }
}

/// Sums of steps in FP64, exact: out is (steps, 4, 16).
template <int unit>
[[gnu::noinline]] void wide_sums(const uint8_t *a, const uint8_t *b, int64_t steps, double *out) {
  for (int64_t t = 0; t < steps; ++t, out += kTile)
    for (int u = 0; u < 64 / unit; ++u) {
      scaled_unit<unit>(a, b, [&](int r, int v, __m256 p, __m256 s) {
        const __m256 g = _mm256_mul_ps(p, s);
        double *at = out + kNr * r + 8 * v;
        const __m256d low = _mm256_cvtps_pd(_mm256_castps256_ps128(g)),
                      high = _mm256_cvtps_pd(_mm256_extractf128_ps(g, 1));
        _mm256_storeu_pd(at, u == 0 ? low : _mm256_add_pd(low, _mm256_loadu_pd(at)));
        _mm256_storeu_pd(at + 4, u == 0 ? high : _mm256_add_pd(high, _mm256_loadu_pd(at + 4)));
      });
      a += kMr * (unit + 8);
      b += kNr * (unit + 4);
    }
}

/// FP64 addition truncates to 53 bits, the conversion to 24: together one truncation of the exact sum.
[[gnu::noinline]] void wide_chain(const double *sums, int64_t steps, float *acc, float *peak) {
  for (int o = 0; o < kTile; o += 4) {
    __m128 x = _mm_loadu_ps(acc + o), top = _mm_loadu_ps(peak + o);
    for (int64_t t = 0; t < steps; ++t) {
      top = _mm_max_ps(top, _mm_andnot_ps(_mm_set1_ps(-0.0f), x));
      x = _mm256_cvtpd_ps(_mm256_add_pd(_mm256_cvtps_pd(x), _mm256_loadu_pd(sums + t * kTile + o)));
    }
    _mm_storeu_ps(acc + o, x);
    _mm_storeu_ps(peak + o, top);
  }
}

/// The exponent of a scale's format, by field: 0.25 * scale on A's side is undone by `shift` = 2.
inline __m256i scale_exponent(__m256 scale, int shift, int min_exponent) {
  const __m256i e = _mm256_srli_epi32(_mm256_castps_si256(scale), 23); // scales have no sign
  return _mm256_max_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(shift - 127)),
                          _mm256_set1_epi32(min_exponent));
}

/// Four FP64 lanes: 2^e.
inline __m256d power(__m256i e) {
  return _mm256_castsi256_pd(_mm256_slli_epi64(_mm256_add_epi64(e, _mm256_set1_epi64x(1023)), 52));
}

/// Four FP64 lanes: x * lift, truncated to a whole number.
inline __m256d whole(__m128 x, __m256d lift) {
  return _mm256_round_pd(_mm256_mul_pd(_mm256_cvtps_pd(x), lift), _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
}

/// One group of 16 for 8 columns: its integer sum, and all ones in the lanes where some product is not zero.
struct Group {
  __m256 sum;
  __m256i any;
};
inline Group group_of(const uint8_t *a, const uint8_t *b) {
  const __m256i twelve = _mm256_set1_epi8(12), ones = _mm256_set1_epi16(1);
  __m256i sum = _mm256_setzero_si256(), count = sum; // 16-bit sums; count: of |a| over non-zero b
  for (int q = 0; q < 4; ++q) {
    const __m256i x = spread_word(a + 4 * q), y = load_bytes(b + 64 * q);
    sum =
        _mm256_add_epi16(sum, _mm256_sub_epi16(_mm256_maddubs_epi16(y, x), _mm256_maddubs_epi16(twelve, x)));
    const __m256i nonzero = _mm256_andnot_si256(_mm256_cmpeq_epi8(y, twelve), _mm256_set1_epi8(1));
    count = _mm256_add_epi16(count, _mm256_maddubs_epi16(nonzero, _mm256_abs_epi8(x)));
  }
  const __m256i none = _mm256_cmpeq_epi32(count, _mm256_setzero_si256());
  return {_mm256_cvtepi32_ps(_mm256_madd_epi16(sum, ones)), _mm256_xor_si256(none, _mm256_set1_epi32(-1))};
}

/// The whole step for row r and columns 8 v to 8 v + 7, groups of 16 cut one by one even where two share
/// their scales. The rounding mode must be toward zero.
template <int unit>
[[gnu::noinline]] void aligned_row(const uint8_t *a, const uint8_t *b, int64_t steps, int min_exponent, int r,
                                   int v, float *acc_out) {
  constexpr int units = 64 / unit, per_unit = unit / 16;
  __m256 acc = _mm256_setzero_ps();
  for (int64_t t = 0; t < steps; ++t) {
    // the accumulator's exponent; in this engine's range it is zero or normal, and a zero's is below any
    // other
    const __m256i c = _mm256_srli_epi32(_mm256_slli_epi32(_mm256_castps_si256(acc), 1), 24);
    __m256i top = _mm256_sub_epi32(c, _mm256_set1_epi32(127));
    __m256 group[4];
    for (int u = 0; u < units; ++u) {
      const __m256 sx = _mm256_castsi256_ps(spread_word(a + kMr * (unit + 4) + 4 * r));
      const __m256 sy = _mm256_castsi256_ps(load_bytes(b + kNr * unit + 32 * v)), s = _mm256_mul_ps(sx, sy);
      const __m256i scaled = _mm256_castps_si256(_mm256_cmp_ps(s, _mm256_setzero_ps(), _CMP_NEQ_OQ));
      const __m256i e =
          _mm256_add_epi32(scale_exponent(sx, 2, min_exponent), scale_exponent(sy, 0, min_exponent));
      for (int h = 0; h < per_unit; ++h) {
        const Group g = group_of(a + r * unit + 16 * h, b + 16 * kNr * h + 32 * v);
        group[u * per_unit + h] = _mm256_mul_ps(g.sum, s);
        top = _mm256_blendv_epi8(top, _mm256_max_epi32(top, e), _mm256_and_si256(g.any, scaled));
      }
      a += kMr * (unit + 8);
      b += kNr * (unit + 4);
    }
    __m128 half[2];
    for (int h = 0; h < 2; ++h) {
      const auto part = [h](__m256 x) {
        return h == 0 ? _mm256_castps256_ps128(x) : _mm256_extractf128_ps(x, 1);
      };
      const __m256i e = _mm256_cvtepi32_epi64(_mm_castps_si128(part(_mm256_castsi256_ps(top))));
      const __m256d up = power(_mm256_sub_epi64(_mm256_set1_epi64x(kFraction), e));
      __m256d sum = whole(part(acc), up);
      for (int g = 0; g < 4; ++g) sum = _mm256_add_pd(sum, whole(part(group[g]), up));
      half[h] =
          _mm256_cvtpd_ps(_mm256_mul_pd(sum, power(_mm256_sub_epi64(e, _mm256_set1_epi64x(kFraction)))));
    }
    acc = _mm256_insertf128_ps(_mm256_castps128_ps256(half[0]), half[1], 1);
  }
  _mm256_storeu_ps(acc_out + kNr * r + 8 * v, acc);
}

void clear(float *acc, float *peak) {
  for (int o = 0; o < kTile; ++o) acc[o] = peak[o] = 0.0f;
}

bool narrow(const uint8_t *a, const uint8_t *b, int64_t steps, int unit, float *acc, float *peak) {
  alignas(64) float sums[kNarrowSteps * kTile];
  clear(acc, peak);
  for (int64_t t = 0; t < steps; t += kNarrowSteps) {
    const int64_t n = steps - t < kNarrowSteps ? steps - t : kNarrowSteps, u = t * (64 / unit);
    _mm_setcsr(kNearest);
    (unit == 16 ? narrow_sums<16> : narrow_sums<32>)(a + u * kMr * (unit + 8), b + u * kNr * (unit + 4), n,
                                                     sums);
    if ((_mm_getcsr() & kInexact) != 0) return false;
    _mm_setcsr(kTowardZero);
    narrow_chain(sums, n, acc, peak);
  }
  _mm_setcsr(kNearest);
  return true;
}

void wide(const uint8_t *a, const uint8_t *b, int64_t steps, int unit, float *acc, float *peak) {
  alignas(64) double sums[kWideSteps * kTile];
  clear(acc, peak);
  _mm_setcsr(kTowardZero);
  for (int64_t t = 0; t < steps; t += kWideSteps) {
    const int64_t n = steps - t < kWideSteps ? steps - t : kWideSteps, u = t * (64 / unit);
    (unit == 16 ? wide_sums<16> : wide_sums<32>)(a + u * kMr * (unit + 8), b + u * kNr * (unit + 4), n, sums);
    wide_chain(sums, n, acc, peak);
  }
  _mm_setcsr(kNearest);
}

void aligned(const uint8_t *a, const uint8_t *b, int64_t steps, int unit, int min_exponent, float *acc) {
  _mm_setcsr(kTowardZero);
  for (int r = 0; r < kMr; ++r)
    for (int v = 0; v < 2; ++v)
      (unit == 16 ? aligned_row<16> : aligned_row<32>)(a, b, steps, min_exponent, r, v, acc);
  _mm_setcsr(kNearest);
}

constexpr Fp4Kernels kKernels{kMr, kNr, pack_a, pack_b, narrow, wide, aligned};

} // namespace

const Fp4Kernels *fp4_avx2() { return &kKernels; }

} // namespace nvfp4::gemm
#else
namespace nvfp4::gemm {
const Fp4Kernels *fp4_avx2() { return nullptr; }
} // namespace nvfp4::gemm
#endif
