// SPDX-License-Identifier: Apache-2.0
// The CPU backend for AVX-512: the same kernels, vectorised by the compiler, and a matrix product of 8 rows
// by 32 columns in registers.
#include "nvfp4/reference_models/backend/cpu_backend.hpp"
#include "nvfp4/reference_models/backend/cpu_backends.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

namespace nvfp4::models {
namespace {

constexpr int64_t kDepth = 128; // rows of b that are multiplied at a time; c keeps the chain between them
constexpr int64_t kRows = 8, kCols = 32;

/// Rows r of b (depth, cols <= 32), as 32 consecutive floats each.
NVFP4_INLINE void pack(View<const float> b, int64_t depth, int64_t cols, float *panel) {
  const auto low = __mmask16(cols >= 16 ? 0xFFFF : (1 << cols) - 1);
  const auto high = __mmask16(cols >= 32 ? 0xFFFF : cols > 16 ? (1 << (cols - 16)) - 1 : 0);
  const __m512i lanes = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  const __m512i offsets = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(int(b.col)));
  for (int64_t q = 0; q < depth; ++q) {
    const float *row = b.data + q * b.row;
    _mm512_store_ps(panel + q * kCols, _mm512_mask_i32gather_ps(_mm512_setzero_ps(), low, offsets, row, 4));
    _mm512_store_ps(panel + q * kCols + 16,
                    _mm512_mask_i32gather_ps(_mm512_setzero_ps(), high, offsets, row + 16 * b.col, 4));
  }
}

/// R rows of c by up to 32 columns.
template <int R>
NVFP4_INLINE void tile(int64_t depth, const float *a, int64_t a_row, int64_t a_col, const float *b,
                       int64_t b_row, float *c, int64_t c_row, __mmask16 low, __mmask16 high, bool add) {
  __m512 acc[R][2];
  for (int i = 0; i < R; ++i) {
    acc[i][0] = add ? _mm512_maskz_loadu_ps(low, c + i * c_row) : _mm512_setzero_ps();
    acc[i][1] = add ? _mm512_maskz_loadu_ps(high, c + i * c_row + 16) : _mm512_setzero_ps();
  }
  for (int64_t q = 0; q < depth; ++q) {
    const __m512 b0 = _mm512_maskz_loadu_ps(low, b + q * b_row),
                 b1 = _mm512_maskz_loadu_ps(high, b + q * b_row + 16);
#pragma GCC unroll 8
    for (int i = 0; i < R; ++i) {
      const __m512 x = _mm512_set1_ps(a[i * a_row + q * a_col]);
      acc[i][0] = _mm512_fmadd_ps(x, b0, acc[i][0]);
      acc[i][1] = _mm512_fmadd_ps(x, b1, acc[i][1]);
    }
  }
  for (int i = 0; i < R; ++i) {
    _mm512_mask_storeu_ps(c + i * c_row, low, acc[i][0]);
    _mm512_mask_storeu_ps(c + i * c_row + 16, high, acc[i][1]);
  }
}

} // namespace

template <> struct Multiply<Avx512, float> {
  __attribute__((noinline)) static void run(int64_t m, int64_t n, int64_t k, View<const float> a,
                                            View<const float> b, View<float> c, bool add) {
    alignas(64) float panel[kDepth * kCols];
    for (int64_t j = 0; j < n; j += kCols) {
      const int64_t cols = n - j < kCols ? n - j : kCols;
      const auto low = __mmask16(cols >= 16 ? 0xFFFF : (1 << cols) - 1);
      const auto high = __mmask16(cols >= 32 ? 0xFFFF : cols > 16 ? (1 << (cols - 16)) - 1 : 0);
      for (int64_t q = 0; q == 0 || q < k; q += kDepth) {
        const int64_t depth = k - q < kDepth ? k - q : kDepth;
        const float *from = b.data + q * b.row + j;
        int64_t step = b.row;
        if (b.col != 1) {
          pack(b.at(q, j), depth, cols, panel);
          from = panel;
          step = kCols;
        }
        const bool more = add || q > 0;
        int64_t i = 0;
        for (; i + kRows <= m; i += kRows)
          tile<kRows>(depth, &a(i, q), a.row, a.col, from, step, &c(i, j), c.row, low, high, more);
        for (; i < m; ++i)
          tile<1>(depth, &a(i, q), a.row, a.col, from, step, &c(i, j), c.row, low, high, more);
      }
    }
  }
};

Backend<float> *new_avx512_backend(int threads) {
  return new CpuBackend<Avx512, float>(threads, Isa::avx512);
}

} // namespace nvfp4::models
#endif
