// SPDX-License-Identifier: Apache-2.0
// A team's FP32 matrix product: every output one chain of fused multiply-adds in increasing k, from 0 or from
// c. Tiles of outputs with slabs of the operands in shared memory, or plain loops where outputs are few.
// Never inlined: kernels call it many times.
#pragma once
#include "nvfp4/gpu/device/device.hpp"
#include "nvfp4/reference_models/kernels/team.hpp"

namespace nvfp4::cuda {

inline constexpr int kTeamThreads = 256;
inline constexpr int64_t kTiledRows = 8; ///< fewer rows are not worth a tile
/// Elements at the start of a block's dynamic shared memory that products work in.
inline constexpr int kSlabElements = 16 * (64 + 4 + 128 + 4);

/// Places 0, step, 2 step, ... below n; step is a power of two.
__device__ __forceinline__ int steps(int n, int step) { return (n + step - 1) / step; }

/// Four rows of a column a thread, so that a value of b serves four chains.
template <class T>
__device__ __noinline__ void multiply_outputs(int64_t m, int64_t n, int64_t k, models::View<const T> a,
                                              models::View<const T> b, models::View<T> c, bool add, int rank,
                                              int count) {
  const int64_t groups = (m + 3) / 4;
  for (int64_t at = rank; at < groups * n; at += count) {
    const int64_t i = at / n * 4, j = at % n;
    T acc[4];
    const T *row[4];
#pragma unroll
    for (int r = 0; r < 4; ++r) {
      acc[r] = add && i + r < m ? c(i + r, j) : T(0);
      row[r] = a.data + numerics::min(i + r, m - 1) * a.row;
    }
#pragma unroll 4
    for (int64_t q = 0; q < k; ++q) {
      const T x = b(q, j);
#pragma unroll
      for (int r = 0; r < 4; ++r) acc[r] = numerics::fma(row[r][q * a.col], x, acc[r]);
    }
#pragma unroll
    for (int r = 0; r < 4; ++r)
      if (i + r < m) c(i + r, j) = acc[r];
  }
}

/// Blocks share tiles of 8 Down x 32 Across * 8 / Down outputs; a thread of 256 has 8 rows of Across columns.
/// The next slab of k is read while one is used.
template <class T, int Down, int Across>
__device__ __noinline__ void multiply_tiles(int64_t m, int64_t n, int64_t k, models::View<const T> a,
                                            models::View<const T> b, models::View<T> c, bool add, int block,
                                            int blocks) {
  constexpr int kOwn = 8, kBeside = 8 / Down; // rows of a thread, warps of a row
  constexpr int kRows = kOwn * Down, kCols = 32 * Across * kBeside;
  constexpr int kSlab = kCols > 128 ? 8 : 16; // of k at a time
  constexpr int kPitchA = kRows + 4, kPitchB = kCols + 4;
  constexpr int kLoadA = (kRows * kSlab + kTeamThreads - 1) / kTeamThreads,
                kLoadB = kCols * kSlab / kTeamThreads;
  static_assert(kSlab * (kPitchA + kPitchB) <= kSlabElements && kLoadB > 0);
  extern __shared__ __align__(16) unsigned char team_memory[];
  T *const slab_a = reinterpret_cast<T *>(team_memory), *const slab_b = slab_a + kSlab * kPitchA;
  const int thread = int(threadIdx.x), warp = thread / 32, lane = thread % 32;
  // which element of a slab a thread reads first, and the way to its next: along whatever is contiguous
  const bool turned_a = a.col != 1, turned_b = b.col != 1, reads_a = thread < kRows * kSlab;
  const int qa = turned_a ? thread / kRows : thread % kSlab, ia = turned_a ? thread % kRows : thread / kSlab;
  const int qa_step = turned_a ? kTeamThreads / kRows : 0, ia_step = turned_a ? 0 : kTeamThreads / kSlab;
  const int qb = turned_b ? thread % kSlab : thread / kCols, jb = turned_b ? thread / kSlab : thread % kCols;
  const int qb_step = turned_b ? 0 : kTeamThreads / kCols, jb_step = turned_b ? kTeamThreads / kSlab : 0;
  const int64_t a_slab = kSlab * a.col, a_step = qa_step * a.col + ia_step * a.row;
  const int64_t b_slab = kSlab * b.row, b_step = qb_step * b.row + jb_step * b.col;
  const int own_row = warp / kBeside * kOwn, own_col = warp % kBeside * (32 * Across) + lane;
  const int64_t across = (n + kCols - 1) / kCols, tiles = (m + kRows - 1) / kRows * across;
  for (int64_t tile = block; tile < tiles; tile += blocks) {
    const int64_t i0 = tile / across * kRows, j0 = tile % across * kCols;
    const int height = int(numerics::min<int64_t>(kRows, m - i0)),
              width = int(numerics::min<int64_t>(kCols, n - j0));
    const T *from_a = &a(i0 + ia, qa), *from_b = &b(qb, j0 + jb);
    T *const own = &c(i0 + own_row, j0 + own_col);
    // of this thread's outputs, those inside
    const int own_rows = min(kOwn, height - own_row), own_cols = (width - own_col + 31) / 32;
    T acc[Across][kOwn], next_a[kLoadA], next_b[kLoadB];
#pragma unroll
    for (int x = 0; x < Across; ++x)
#pragma unroll
      for (int r = 0; r < kOwn; ++r)
        acc[x][r] = add && r < own_rows && x < own_cols ? own[r * c.row + 32 * x * c.col] : T(0);
    const auto read = [&](int length) {
      // of this thread's elements, those inside: the others are zeros, which nobody uses
      const int count_a = !reads_a   ? 0
                          : turned_a ? (ia < height ? steps(length - qa, kTeamThreads / kRows) : 0)
                                     : (qa < length ? steps(height - ia, kTeamThreads / kSlab) : 0);
      const int count_b = turned_b ? (qb < length ? steps(width - jb, kTeamThreads / kSlab) : 0)
                                   : (jb < width ? steps(length - qb, kTeamThreads / kCols) : 0);
      const T *at = from_a;
#pragma unroll
      for (int e = 0; e < kLoadA; ++e, at += a_step) next_a[e] = e < count_a ? *at : T(0);
      at = from_b;
#pragma unroll
      for (int e = 0; e < kLoadB; ++e, at += b_step) next_b[e] = e < count_b ? *at : T(0);
      from_a += a_slab;
      from_b += b_slab;
    };
    int left = int(k);
    if (left > 0) read(min(kSlab, left));
    for (; left > 0; left -= kSlab) {
      __syncthreads(); // all have left the slab
#pragma unroll
      for (int e = 0; e < kLoadA; ++e)
        if (reads_a) slab_a[(qa + e * qa_step) * kPitchA + ia + e * ia_step] = next_a[e];
#pragma unroll
      for (int e = 0; e < kLoadB; ++e) slab_b[(qb + e * qb_step) * kPitchB + jb + e * jb_step] = next_b[e];
      __syncthreads();
      if (left > kSlab) read(min(kSlab, left - kSlab));
      if (own_rows <= 0 || own_cols <= 0) continue;
      const auto use = [&](int q) {
        T y[kOwn];
#pragma unroll
        for (int r = 0; r < kOwn; r += 4) {
          const float4 v = *reinterpret_cast<const float4 *>(&slab_a[q * kPitchA + own_row + r]);
          y[r] = v.x, y[r + 1] = v.y, y[r + 2] = v.z, y[r + 3] = v.w;
        }
#pragma unroll
        for (int x = 0; x < Across; ++x) {
          const T z = slab_b[q * kPitchB + own_col + 32 * x];
#pragma unroll
          for (int r = 0; r < kOwn; ++r) acc[x][r] = numerics::fma(y[r], z, acc[x][r]);
        }
      };
      // never past k: a product of zeros can change a -0
      if (left >= kSlab) {
#pragma unroll
        for (int q = 0; q < kSlab; ++q) use(q);
      } else {
#pragma unroll 1
        for (int q = 0; q < left; ++q) use(q);
      }
    }
    __syncthreads(); // before the next tile, or the next call
#pragma unroll
    for (int x = 0; x < Across; ++x)
#pragma unroll
      for (int r = 0; r < kOwn; ++r)
        if (r < own_rows && x < own_cols) own[r * c.row + 32 * x * c.col] = acc[x][r];
  }
}

} // namespace nvfp4::cuda
