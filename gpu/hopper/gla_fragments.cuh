// SPDX-License-Identifier: Apache-2.0
// What the GLA kernels share: BF16 tiles in shared memory, the fragments of mma.sync m16n8k16 read from them
// in either orientation, asynchronous copies. Sources: PTX ISA 9.1, "mma.m16n8k16", "ldmatrix", "cp.async".
#pragma once
#include "nvfp4/emulator/numerics/elementary.hpp"
#include "nvfp4/gpu/device/bf16.cuh"
#include "nvfp4/reference_models/bf16_mixers/gla.hpp"

#include <cuda_runtime.h>

#include <cstdint>

namespace nvfp4::cuda::gla {

using models::bf16_gla::kChunk;
using models::bf16_gla::kPart;
using models::bf16_gla::kSub;
using models::bf16_gla::kSubs;
using models::bf16_gla::Shape;

/// Elements added to a row of a BF16 tile: rows of a multiple of 16 elements then start an odd number of
/// 16-byte units apart, and the eight rows of a matrix lie in different banks.
constexpr int kPad = 8;

__device__ inline uint32_t shared_address(const void *p) { return uint32_t(__cvta_generic_to_shared(p)); }

/// A BF16 tile in shared memory: byte address of its first element, bytes from row to row.
struct Tile {
  uint32_t address;
  int row_bytes;

  __device__ uint32_t at(int row, int col) const { return address + uint32_t(row * row_bytes + 2 * col); }
};

template <bool kTransposed> __device__ inline void load_matrices(uint32_t (&r)[4], uint32_t address) {
  if constexpr (kTransposed)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(address)
                 : "memory");
}

// Lane l names a row of matrix l / 8. Matrices 0 to 3 of A are (m, k), (m + 8, k), (m, k + 8), (m + 8, k +
// 8); of two B fragments (n, k), (n, k + 8), (n + 8, k), (n + 8, k + 8). Stored rows follow from which of the
// two indices runs along the tile's rows.

/// A fragment of 16 rows m and 16 k from a tile stored (m, k).
__device__ inline void load_a(uint32_t (&r)[4], const Tile &t, int m, int k) {
  const int lane = int(threadIdx.x) & 31;
  load_matrices<false>(r, t.at(m + (lane & 15), k + 8 * (lane >> 4)));
}
/// The same from a tile stored (k, m).
__device__ inline void load_a_transposed(uint32_t (&r)[4], const Tile &t, int m, int k) {
  const int lane = int(threadIdx.x) & 31;
  load_matrices<true>(r, t.at(k + (lane & 7) + 8 * (lane >> 4), m + 8 * ((lane >> 3) & 1)));
}
/// B fragments of 16 columns n (r[0], r[1] for the first eight, r[2], r[3] for the rest) and 16 k from a tile
/// stored (n, k).
__device__ inline void load_b(uint32_t (&r)[4], const Tile &t, int n, int k) {
  const int lane = int(threadIdx.x) & 31;
  load_matrices<false>(r, t.at(n + (lane & 7) + 8 * (lane >> 4), k + 8 * ((lane >> 3) & 1)));
}
/// The same from a tile stored (k, n).
__device__ inline void load_b_transposed(uint32_t (&r)[4], const Tile &t, int n, int k) {
  const int lane = int(threadIdx.x) & 31;
  load_matrices<true>(r, t.at(k + (lane & 15), n + 8 * (lane >> 4)));
}

/// One instruction. d[0], d[1]: row lane / 4, columns 2 (lane % 4) and the next; d[2], d[3]: row + 8.
__device__ inline void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
/// Two: 16 columns.
__device__ inline void mma_pair(float (&d0)[4], float (&d1)[4], const uint32_t (&a)[4],
                                const uint32_t (&b)[4]) {
  mma(d0, a, b[0], b[1]);
  mma(d1, a, b[2], b[3]);
}

/// 16 bytes from global to shared memory, zeros when not inside (the address is not read then).
__device__ inline void copy16(uint32_t to, const void *from, bool inside) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(inside ? 16 : 0)
               : "memory");
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending> __device__ inline void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// Begins to copy a tile of `rows` rows and `cols` (a multiple of 8) BF16 columns; rows from `valid_rows` and
/// columns from `valid_cols` (a multiple of 8) on become zeros. All threads of the block take part.
__device__ inline void copy_tile(const Tile &to, const uint16_t *from, int64_t stride, int rows, int cols,
                                 int valid_rows, int valid_cols) {
  const int pieces = cols / 8;
  for (int i = int(threadIdx.x); i < rows * pieces; i += int(blockDim.x)) {
    const int row = i / pieces, col = 8 * (i % pieces);
    const bool inside = row < valid_rows && col < valid_cols;
    copy16(to.at(row, col), inside ? from + row * stride + col : from, inside);
  }
}

/// Where a chunk lies: `index` counts the chunks of all teams.
struct Where {
  int64_t first_row; ///< of (batch, length)
  int64_t head;
  int rows; ///< inside the length, 1 to 64

  __device__ Where(const Shape &s, int64_t index) {
    const int64_t chunks = s.chunks(), team = index / chunks, c = index % chunks;
    first_row = team / s.heads * s.length + c * kChunk;
    head = team % s.heads;
    rows = int(s.length - c * kChunk < kChunk ? s.length - c * kChunk : kChunk);
  }
  /// Offset of the chunk's first row in an array with `width` elements per head.
  __device__ int64_t offset(const Shape &s, int64_t width) const {
    return (first_row * s.heads + head) * width;
  }
};

/// Index of the pair of sub-chunks r < t among the six.
__device__ inline int pair_index(int t, int r) { return t * (t - 1) / 2 + r; }

} // namespace nvfp4::cuda::gla
