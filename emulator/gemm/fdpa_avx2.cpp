// SPDX-License-Identifier: Apache-2.0
// FDPA kernels for AVX2: 4 rows x 8 columns, one 32-bit lane per column, the control word set to truncation.
// README.md explains and proves them. Compiled with AVX2 flags; everything but the table is private to the
// file.
#include "nvfp4/emulator/gemm/fdpa_kernels.hpp"

#include "nvfp4/emulator/cpu/float_state.hpp"

#if defined(__AVX2__)
#include <immintrin.h>

namespace nvfp4::gemm {
namespace {

constexpr int kMr = 4, kNr = 8;

inline __m256i load_words(const uint8_t *at) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i *>(at));
}
inline __m256 load_floats(const uint8_t *at) { return _mm256_castsi256_ps(load_words(at)); }
inline __m256i spread_word(const uint8_t *at) {
  int32_t x;
  __builtin_memcpy(&x, at, 4);
  return _mm256_set1_epi32(x);
}
inline __m256 spread_float(const uint8_t *at) { return _mm256_castsi256_ps(spread_word(at)); }

/// 2^e for -126 <= e <= 127.
inline __m256 power(__m256i e) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(e, _mm256_set1_epi32(127)), 23));
}

/// The larger of the two signed 16-bit halves of each lane.
inline __m256i larger_half(__m256i pairs) {
  return _mm256_max_epi32(_mm256_srai_epi32(pairs, 16), _mm256_srai_epi32(_mm256_slli_epi32(pairs, 16), 16));
}

/// (a + b + c) * unit truncated to FP32, by way of FP64: 33 bits and a power of two are exact there.
inline __m256 finish_wide(__m256i a, __m256i b, __m256i c, __m256 unit) {
  __m128 half[2];
  for (int h = 0; h < 2; ++h) {
    const auto part = [h](__m256i v) {
      return h == 0 ? _mm256_castsi256_si128(v) : _mm256_extracti128_si256(v, 1);
    };
    const __m256d x = _mm256_add_pd(_mm256_add_pd(_mm256_cvtepi32_pd(part(a)), _mm256_cvtepi32_pd(part(b))),
                                    _mm256_cvtepi32_pd(part(c)));
    const __m128 u = _mm_castsi128_ps(part(_mm256_castps_si256(unit)));
    half[h] = _mm256_cvtpd_ps(_mm256_mul_pd(x, _mm256_cvtps_pd(u)));
  }
  return _mm256_insertf128_ps(_mm256_castps128_ps256(half[0]), half[1], 1);
}

/// Bits whose sign is set where a + b = sum left 32 bits.
inline __m256i overflow(__m256i a, __m256i b, __m256i sum) {
  return _mm256_and_si256(_mm256_xor_si256(a, sum), _mm256_xor_si256(b, sum));
}

template <int link, bool scaled, bool wide>
[[gnu::noinline]] bool tile_of(const uint8_t *a, const uint8_t *b, int64_t steps, const FdpaStep &step,
                               const float *in, float *out) {
  constexpr int sums = link == 32 ? 2 : 1; // 16 products, each under 4 * 2^25, fill 31 bits
  const __m256i fraction = _mm256_set1_epi32(step.fraction_bits);
  const __m256i keep = _mm256_set1_epi32(step.e8m13 ? ~0x3FF : ~0);
  __m256i lost = _mm256_setzero_si256();
  __m256 acc[kMr];
  for (int r = 0; r < kMr; ++r) acc[r] = _mm256_loadu_ps(in + kNr * r);
  for (int64_t t = 0; t < steps; ++t) {
    const uint8_t *ea = a + kMr * link * 4, *eb = b + kNr * link * 4;
    const uint8_t *sa = a + kMr * link * 6, *sb = b + kNr * link * 6;
    __m256i top[kMr];
    {
      const __m256i e = load_words(eb);
#pragma GCC unroll 4
      for (int r = 0; r < kMr; ++r) top[r] = _mm256_add_epi16(e, spread_word(ea + 2 * link * r));
    }
#pragma GCC unroll 2
    for (int k = 2; k < link; k += 2) {
      const __m256i e = load_words(eb + 2 * kNr * k);
#pragma GCC unroll 4
      for (int r = 0; r < kMr; ++r)
        top[r] = _mm256_max_epi16(top[r], _mm256_add_epi16(e, spread_word(ea + 2 * link * r + 2 * k)));
    }
    __m256 lift[kMr]; // 2^(F - top), with the scales' exponents for the products
    __m256i sum[kMr][2];
#pragma GCC unroll 4
    for (int r = 0; r < kMr; ++r) {
      __m256i e = larger_half(top[r]), s = _mm256_setzero_si256();
      if (scaled) {
        s = _mm256_add_epi32(load_words(sb), spread_word(sa + 4 * r));
        e = _mm256_add_epi32(e, s);
      }
      const __m256i c = _mm256_srli_epi32(_mm256_slli_epi32(_mm256_castps_si256(acc[r]), 1), 24);
      e = _mm256_max_epi32(e, _mm256_sub_epi32(c, _mm256_set1_epi32(127)));
      top[r] = _mm256_max_epi32(e, _mm256_set1_epi32(kAlignmentFloor));
      __m256i up = _mm256_sub_epi32(fraction, top[r]);
      if (scaled) // a block of zeros may have any scale; a block far below the top vanishes
        up = _mm256_max_epi32(_mm256_min_epi32(_mm256_add_epi32(up, s), _mm256_set1_epi32(127)),
                              _mm256_set1_epi32(-126));
      lift[r] = power(up);
      sum[r][0] = sum[r][1] = _mm256_setzero_si256();
    }
#pragma GCC unroll 2
    for (int h = 0; h < sums; ++h)
#pragma GCC unroll 4
      for (int k = h * 16; k < h * 16 + link / sums; ++k) {
        const __m256 y = load_floats(b + 4 * kNr * k);
#pragma GCC unroll 4
        for (int r = 0; r < kMr; ++r) {
          const __m256 p = _mm256_mul_ps(y, spread_float(a + 4 * link * r + 4 * k));
          sum[r][h] = _mm256_add_epi32(sum[r][h], _mm256_cvttps_epi32(_mm256_mul_ps(p, lift[r])));
        }
      }
#pragma GCC unroll 4
    for (int r = 0; r < kMr; ++r) {
      const __m256 down = power(_mm256_sub_epi32(top[r], fraction)),
                   up = power(_mm256_sub_epi32(fraction, top[r]));
      const __m256i term = _mm256_cvttps_epi32(_mm256_mul_ps(acc[r], up));
      if (wide) {
        acc[r] = finish_wide(sum[r][0], sum[r][1], term, down);
      } else {
        const __m256i total = _mm256_add_epi32(sum[r][0], sum[r][1]), all = _mm256_add_epi32(total, term);
        lost = _mm256_or_si256(
            lost, _mm256_or_si256(overflow(sum[r][0], sum[r][1], total), overflow(total, term, all)));
        acc[r] = _mm256_mul_ps(_mm256_cvtepi32_ps(all), down);
      }
      acc[r] = _mm256_castsi256_ps(_mm256_and_si256(_mm256_castps_si256(acc[r]), keep));
    }
    a = sa + (scaled ? 4 * kMr : 0);
    b = sb + (scaled ? 4 * kNr : 0);
  }
  for (int r = 0; r < kMr; ++r) _mm256_storeu_ps(out + kNr * r, acc[r]);
  return _mm256_movemask_ps(_mm256_castsi256_ps(lost)) == 0;
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
  _mm_setcsr(kTowardZero);
  const bool kept =
      wide ? tile_any<true>(a, b, steps, step, in, out) : tile_any<false>(a, b, steps, step, in, out);
  _mm_setcsr(kNearest);
  return kept;
}

constexpr FdpaKernels kKernels{kMr, kNr, tile};

} // namespace

const FdpaKernels *fdpa_avx2() { return &kKernels; }

} // namespace nvfp4::gemm
#else
namespace nvfp4::gemm {
const FdpaKernels *fdpa_avx2() { return nullptr; }
} // namespace nvfp4::gemm
#endif
