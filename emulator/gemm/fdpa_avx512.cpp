// SPDX-License-Identifier: Apache-2.0
// FDPA kernels for AVX-512: 8 rows x 16 columns, one 32-bit lane per column. README.md explains and proves
// them. Compiled with AVX-512 flags; everything here but the table is private to the file.
#include "nvfp4/emulator/gemm/fdpa_kernels.hpp"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__)
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" // GCC 12's own headers
#endif
#include <immintrin.h>

namespace nvfp4::gemm {
namespace {

constexpr int kMr = 8, kNr = 16;
constexpr int kTruncate = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;

inline __m512i load_words(const uint8_t *at) { return _mm512_loadu_si512(at); }
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

/// 2^e for -126 <= e <= 127.
inline __m512 power(__m512i e) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(e, _mm512_set1_epi32(127)), 23));
}

/// The larger of the two signed 16-bit halves of each lane.
inline __m512i larger_half(__m512i pairs) {
  return _mm512_max_epi32(_mm512_srai_epi32(pairs, 16), _mm512_srai_epi32(_mm512_slli_epi32(pairs, 16), 16));
}

/// (sum + term) * unit truncated to FP32, by way of FP64: 33 bits and a power of two are exact there.
inline __m512 finish_wide(__m512i low_sum, __m512i high_sum, __m512i term, __m512 unit) {
  const auto half = [](__m512i a, __m512i b, __m512i c, __m512 s, auto part) {
    const __m512d x = _mm512_add_pd(_mm512_add_pd(_mm512_cvtepi32_pd(part(a)), _mm512_cvtepi32_pd(part(b))),
                                    _mm512_cvtepi32_pd(part(c)));
    return _mm512_cvt_roundpd_ps(
        _mm512_mul_pd(x, _mm512_cvtps_pd(_mm256_castsi256_ps(part(_mm512_castps_si512(s))))), kTruncate);
  };
  const __m256 low = half(low_sum, high_sum, term, unit, [](__m512i v) { return _mm512_castsi512_si256(v); });
  const __m256 high =
      half(low_sum, high_sum, term, unit, [](__m512i v) { return _mm512_extracti32x8_epi32(v, 1); });
  return _mm512_insertf32x8(_mm512_castps256_ps512(low), high, 1);
}

/// Bits whose sign is set where a + b = sum left 32 bits.
inline __m512i overflow(__m512i a, __m512i b, __m512i sum) {
  return _mm512_and_si512(_mm512_xor_si512(a, sum), _mm512_xor_si512(b, sum));
}

template <int link, bool scaled, bool wide>
[[gnu::noinline]] bool tile_of(const uint8_t *a, const uint8_t *b, int64_t steps, const FdpaStep &step,
                               const float *in, float *out) {
  constexpr int sums = link == 32 ? 2 : 1; // 16 products, each under 4 * 2^25, fill 31 bits
  const __m512i fraction = _mm512_set1_epi32(step.fraction_bits);
  const __m512i keep = _mm512_set1_epi32(step.e8m13 ? ~0x3FF : ~0);
  __m512i lost = _mm512_setzero_si512();
  __m512 acc[kMr];
#pragma GCC unroll 8
  for (int r = 0; r < kMr; ++r) acc[r] = _mm512_loadu_ps(in + kNr * r);
  for (int64_t t = 0; t < steps; ++t) {
    const uint8_t *ea = a + kMr * link * 4, *eb = b + kNr * link * 4;
    const uint8_t *sa = a + kMr * link * 6, *sb = b + kNr * link * 6;
    __m512i top[kMr];
    {
      const __m512i e = load_words(eb);
#pragma GCC unroll 8
      for (int r = 0; r < kMr; ++r) top[r] = _mm512_add_epi16(e, spread_word(ea + 2 * link * r));
    }
#pragma GCC unroll 2
    for (int k = 2; k < link; k += 2) {
      const __m512i e = load_words(eb + 2 * kNr * k);
#pragma GCC unroll 8
      for (int r = 0; r < kMr; ++r)
        top[r] = _mm512_max_epi16(top[r], _mm512_add_epi16(e, spread_word(ea + 2 * link * r + 2 * k)));
    }
    __m512 lift[kMr]; // 2^(F - top), with the scales' exponents for the products
    __m512i sum[kMr][sums];
#pragma GCC unroll 8
    for (int r = 0; r < kMr; ++r) {
      __m512i e = larger_half(top[r]), s = _mm512_setzero_si512();
      if (scaled) {
        s = _mm512_add_epi32(load_words(sb), spread_word(sa + 4 * r));
        e = _mm512_add_epi32(e, s);
      }
      const __m512i c = _mm512_srli_epi32(_mm512_slli_epi32(_mm512_castps_si512(acc[r]), 1), 24);
      e = _mm512_max_epi32(e, _mm512_sub_epi32(c, _mm512_set1_epi32(127)));
      top[r] = _mm512_max_epi32(e, _mm512_set1_epi32(kAlignmentFloor));
      __m512i up = _mm512_sub_epi32(fraction, top[r]);
      if (scaled) // a block of zeros may have any scale; a block far below the top vanishes
        up = _mm512_max_epi32(_mm512_min_epi32(_mm512_add_epi32(up, s), _mm512_set1_epi32(127)),
                              _mm512_set1_epi32(-126));
      lift[r] = power(up);
      for (int h = 0; h < sums; ++h) sum[r][h] = _mm512_setzero_si512();
    }
#pragma GCC unroll 2
    for (int h = 0; h < sums; ++h)
#pragma GCC unroll 4
      for (int k = h * 16; k < h * 16 + link / sums; ++k) {
        const __m512 y = load_floats(b + 4 * kNr * k);
#pragma GCC unroll 8
        for (int r = 0; r < kMr; ++r) {
          const __m512 p = _mm512_mul_ps(y, spread_float(a + 4 * link * r + 4 * k));
          sum[r][h] = _mm512_add_epi32(sum[r][h], _mm512_cvttps_epi32(_mm512_mul_ps(p, lift[r])));
        }
      }
#pragma GCC unroll 8
    for (int r = 0; r < kMr; ++r) {
      const __m512 down = power(_mm512_sub_epi32(top[r], fraction)),
                   up = power(_mm512_sub_epi32(fraction, top[r]));
      const __m512i term = _mm512_cvttps_epi32(_mm512_mul_ps(acc[r], up));
      if (wide) {
        acc[r] = finish_wide(sum[r][0], sums == 2 ? sum[r][1] : _mm512_setzero_si512(), term, down);
      } else {
        __m512i total = sum[r][0];
        if (sums == 2) {
          total = _mm512_add_epi32(sum[r][0], sum[r][1]);
          lost = _mm512_or_si512(lost, overflow(sum[r][0], sum[r][1], total));
        }
        const __m512i all = _mm512_add_epi32(total, term);
        lost = _mm512_or_si512(lost, overflow(total, term, all));
        acc[r] = _mm512_mul_ps(_mm512_cvt_roundepi32_ps(all, kTruncate), down);
      }
      acc[r] = _mm512_castsi512_ps(_mm512_and_si512(_mm512_castps_si512(acc[r]), keep));
    }
    a = sa + (scaled ? 4 * kMr : 0);
    b = sb + (scaled ? 4 * kNr : 0);
  }
#pragma GCC unroll 8
  for (int r = 0; r < kMr; ++r) _mm512_storeu_ps(out + kNr * r, acc[r]);
  return _mm512_movepi32_mask(lost) == 0;
}

template <bool wide>
bool tile_any(const uint8_t *a, const uint8_t *b, int64_t steps, const FdpaStep &step, const float *in,
              float *out) {
  switch (step.link) {
  case 4: return tile_of<4, false, wide>(a, b, steps, step, in, out);
  case 8: return tile_of<8, false, wide>(a, b, steps, step, in, out);
  case 16: return tile_of<16, false, wide>(a, b, steps, step, in, out);
  default:
    return step.scaled ? tile_of<32, true, wide>(a, b, steps, step, in, out)
                       : tile_of<32, false, wide>(a, b, steps, step, in, out);
  }
}

bool tile(const uint8_t *a, const uint8_t *b, int64_t steps, const FdpaStep &step, bool wide, const float *in,
          float *out) {
  return wide ? tile_any<true>(a, b, steps, step, in, out) : tile_any<false>(a, b, steps, step, in, out);
}

constexpr FdpaKernels kKernels{kMr, kNr, tile};

} // namespace

const FdpaKernels *fdpa_avx512() { return &kKernels; }

} // namespace nvfp4::gemm
#else
namespace nvfp4::gemm {
const FdpaKernels *fdpa_avx512() { return nullptr; }
} // namespace nvfp4::gemm
#endif
