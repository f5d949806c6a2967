// SPDX-License-Identifier: Apache-2.0
// The CPU backend for AVX2 and FMA: the same kernels, vectorised by the compiler, and a matrix product of 6
// rows by 16 columns in registers.
#include "nvfp4/reference_models/backend/cpu_backend.hpp"
#include "nvfp4/reference_models/backend/cpu_backends.hpp"

#if defined(__x86_64__)
#include <immintrin.h>

namespace nvfp4::models {
namespace {

constexpr int64_t kDepth = 128; // rows of b that are multiplied at a time; c keeps the chain between them
constexpr int64_t kRows = 6, kCols = 16;

/// R rows of c by 16 columns of a packed panel; only `cols` of them are stored.
template <int R>
NVFP4_INLINE void tile(int64_t depth, const float *a, int64_t a_row, int64_t a_col, const float *panel,
                       float *c, int64_t c_row, int64_t cols, bool add) {
  alignas(32) float edge[R][kCols] = {};
  const bool whole = cols == kCols;
  if (add && !whole)
    for (int i = 0; i < R; ++i)
      for (int64_t j = 0; j < cols; ++j) edge[i][j] = c[i * c_row + j];
  __m256 acc[R][2];
  for (int i = 0; i < R; ++i) {
    const float *from = whole ? c + i * c_row : edge[i];
    acc[i][0] = add ? _mm256_loadu_ps(from) : _mm256_setzero_ps();
    acc[i][1] = add ? _mm256_loadu_ps(from + 8) : _mm256_setzero_ps();
  }
  for (int64_t q = 0; q < depth; ++q) {
    const __m256 b0 = _mm256_load_ps(panel + q * kCols), b1 = _mm256_load_ps(panel + q * kCols + 8);
#pragma GCC unroll 6
    for (int i = 0; i < R; ++i) {
      const __m256 x = _mm256_broadcast_ss(a + i * a_row + q * a_col);
      acc[i][0] = _mm256_fmadd_ps(x, b0, acc[i][0]);
      acc[i][1] = _mm256_fmadd_ps(x, b1, acc[i][1]);
    }
  }
  for (int i = 0; i < R; ++i) {
    float *to = whole ? c + i * c_row : edge[i];
    _mm256_storeu_ps(to, acc[i][0]);
    _mm256_storeu_ps(to + 8, acc[i][1]);
    if (!whole)
      for (int64_t j = 0; j < cols; ++j) c[i * c_row + j] = edge[i][j];
  }
}

} // namespace

template <> struct Multiply<Avx2, float> {
  __attribute__((noinline)) static void run(int64_t m, int64_t n, int64_t k, View<const float> a,
                                            View<const float> b, View<float> c, bool add) {
    alignas(64) float panel[kDepth * kCols];
    for (int64_t j = 0; j < n; j += kCols) {
      const int64_t cols = n - j < kCols ? n - j : kCols;
      for (int64_t q = 0; q == 0 || q < k; q += kDepth) {
        const int64_t depth = k - q < kDepth ? k - q : kDepth;
        for (int64_t r = 0; r < depth; ++r)
          for (int64_t w = 0; w < kCols; ++w) panel[r * kCols + w] = w < cols ? b(q + r, j + w) : 0.0f;
        const bool more = add || q > 0;
        int64_t i = 0;
        for (; i + kRows <= m; i += kRows)
          tile<kRows>(depth, &a(i, q), a.row, a.col, panel, &c(i, j), c.row, cols, more);
        for (; i < m; ++i) tile<1>(depth, &a(i, q), a.row, a.col, panel, &c(i, j), c.row, cols, more);
      }
    }
  }
};

Backend<float> *new_avx2_backend(int threads) { return new CpuBackend<Avx2, float>(threads, Isa::avx2); }

} // namespace nvfp4::models
#endif
