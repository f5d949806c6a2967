// SPDX-License-Identifier: Apache-2.0
// Where elements and scales lie: in the registers of mma.m16n8k64, in shared memory, in tensor memory. Pure
// functions, the same text in the kernels and in tests/gpu/blackwell/layout.cpp, which holds them against a
// second transcription of the PTX ISA. The layouts are proven there; the kernels that use them are not yet
// run.
#pragma once
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/emulator/quantize/scale_layout.hpp"

namespace nvfp4::cuda::blackwell {

// ---- Tiles of shared memory -----------------------------------------------------------------------------
// Both kernels multiply 128 x 128 outputs and take K in pieces of 256 elements: 128 bytes of every row, 8
// chunks of 16 bytes, 4 instructions of K = 64 with 2 chunks each.
inline constexpr int kTileRows = 128, kRowBytes = 128, kChunkBytes = 16, kTileK = 256, kStepK = 64;
inline constexpr int kStepsPerTile = kTileK / kStepK;
inline constexpr int kTileBytes = kTileRows * kRowBytes;
/// One piece of the 128x4 scale layout: 128 rows by 4 scales (64 elements of NVFP4, 128 of MXFP4).
inline constexpr int kScaleTileBytes = 512;

/// Byte of chunk `chunk` of row `row` in a tile: 128-byte swizzle, the chunk's number xor the row's number
/// modulo
/// 8. PTX ISA 9.1, 9.7.16.3.3 "Canonical Layouts", K-major, 128B swizzling: Swizzle<3,4,3> over 8 rows of 128
/// bytes, groups of 8 rows SBO = 1024 bytes apart. A tile starts on a 1024-byte boundary (table 41).
[[nodiscard]] NVFP4_HD constexpr int tile_offset(int row, int chunk) {
  return row * kRowBytes + (chunk ^ (row & 7)) * kChunkBytes;
}

/// Scales per row that one instruction of K = 64 takes: 4 (NVFP4, a scale per 16) or 2 (MXFP4, a scale per
/// 32).
[[nodiscard]] NVFP4_HD constexpr int scales_per_step(int scale_block) { return kStepK / scale_block; }
/// Which 512-byte scale tile of a K piece serves a step, and the first byte of a row's word that it reads
/// there: byte-id of mma.sync (table 37), SFA_ID and SFB_ID of tcgen05.mma (9.7.16.10.7.2, 9.7.16.10.7.3).
[[nodiscard]] NVFP4_HD constexpr int scale_tile(int step, int scale_block) {
  return step * scales_per_step(scale_block) / 4;
}
[[nodiscard]] NVFP4_HD constexpr int scale_byte(int step, int scale_block) {
  return step * scales_per_step(scale_block) % 4;
}
/// Byte of row `row`'s word in a scale tile: that of scale_offset_128x4.
[[nodiscard]] NVFP4_HD constexpr int scale_word_offset(int row) { return int(scale_offset_128x4(row, 0, 4)); }

// ---- Registers of mma.sync.m16n8k64 (sm_120a) -----------------------------------------------------------
// PTX ISA 9.1, 9.7.14.5.11 "Matrix Fragments for mma.m16n8k64"; g = lane >> 2, t = lane & 3.
//   register      row (column of B)   k                   elements, low nibble first
//   a0, a1        g, g + 8            8 t .. 8 t + 7      0..7, 8..15
//   a2, a3        g, g + 8            32 + 8 t ..         16..23, 24..31
//   b0, b1        g                   8 t .., 32 + 8 t .. 0..7, 8..15
//   d0 d1, d2 d3  g, g + 8            columns 2 t, 2 t + 1
// A register is 4 bytes of a row: bytes 4 t of chunk 0 (k < 32) or chunk 1. That is what ldmatrix deals out
// (9.7.14.5.15): of every 8 x 16-byte matrix, lane l gets bytes 4 (l & 3) of row l >> 2.
struct Position {
  int row, col;
};

/// Output i (0..3) of a lane.
[[nodiscard]] NVFP4_HD constexpr Position d_position(int lane, int i) {
  return {(lane >> 2) + 8 * (i >> 1), 2 * (lane & 3) + (i & 1)};
}

/// Byte that a lane passes to ldmatrix.x4 for A: rows [row, row + 16), step `step` of the tile. Matrices 0 to
/// 3 are rows 0-7 and 8-15 of the first chunk, then of the second: registers a0 to a3.
[[nodiscard]] NVFP4_HD constexpr int ldmatrix_a(int lane, int row, int step) {
  return tile_offset(row + (lane & 15), 2 * step + (lane >> 4));
}
/// The same for B: columns [col, col + 16), two fragments. Matrices 0 and 1 are the chunks of columns 0-7
/// (b0, b1 of the first fragment), 2 and 3 those of columns 8-15.
[[nodiscard]] NVFP4_HD constexpr int ldmatrix_b(int lane, int col, int step) {
  return tile_offset(col + (lane & 7) + 8 * (lane >> 4), 2 * step + (lane >> 3 & 1));
}

// Scales: 9.7.14.3 "Block Scaling for mma.sync". thread-id-a 0 or 1 makes lanes t = 0, 1 or t = 2, 3 of each
// quad supply the rows of A: lane 4 (m % 8) + 2 thread-id-a + m / 8 supplies row m. thread-id-b makes lane 4
// n + thread-id-b supply column n. The figures alone say which of the pair serves which half of the rows;
// CUTLASS (SFALayout of SM120_16x8x64_TN_VS) has the same assignment.
//   thread-id-a   t = 0   t = 1   t = 2   t = 3        thread-id-b   the lane that supplies column g
//        0        row g   g + 8     -       -             0 .. 3     t = thread-id-b
//        1          -       -     row g   g + 8
// So one word of a lane serves two fragments of A or four of B. With rows 32 p + 8 t + g in the lanes,
// fragment 2 p of A (rows 32 p ..) reads with thread-id-a 0, fragment 2 p + 1 with 1; with columns 8 t + g,
// fragment f of B reads with thread-id-b f.

/// Byte of the scale word that a lane holds for the 32 rows (or columns) from `first`, a multiple of 32.
[[nodiscard]] NVFP4_HD constexpr int scale_word_of_lane(int lane, int first) {
  return scale_word_offset(first + 8 * (lane & 3) + (lane >> 2));
}
/// Selectors of fragment `fragment` (16 rows of A, 8 columns of B) of a warp's tile.
[[nodiscard]] NVFP4_HD constexpr int thread_id_a(int fragment) { return fragment & 1; }
[[nodiscard]] NVFP4_HD constexpr int thread_id_b(int fragment) { return fragment & 3; }

// ---- Descriptors of tcgen05.mma (sm_100a, 103a) ---------------------------------------------------------
/// Shared-memory descriptor, PTX ISA 9.1 table 40: start address, leading offset (not read with swizzling in
/// K-major; 1 as in the ISA's examples), stride offset, constant 0b001 from bit 46, swizzle mode from bit 61.
[[nodiscard]] NVFP4_HD constexpr uint64_t shared_descriptor(uint32_t address, int stride, int swizzle) {
  return (uint64_t(address) & 0x3FFFF) >> 4 | uint64_t{1} << 16 | uint64_t(stride >> 4) << 32 |
         uint64_t{1} << 46 | uint64_t(swizzle) << 61;
}
/// Operand of step `step`: 128-byte swizzle (mode 2), 1024 bytes between groups of 8 rows. The step's 32
/// bytes are selected by the start address; the swizzle acts on the resulting addresses.
[[nodiscard]] NVFP4_HD constexpr uint64_t operand_descriptor(uint32_t tile, int step) {
  return shared_descriptor(tile + uint32_t(32 * step), 8 * kRowBytes, 2);
}
/// Source of tcgen05.cp.32x128b.warpx4: 32 rows of 16 bytes, no swizzle, 128 bytes between groups of 8.
[[nodiscard]] NVFP4_HD constexpr uint64_t scale_descriptor(uint32_t tile) {
  return shared_descriptor(tile, 128, 0);
}

/// Instruction descriptor, table 44 (kind::mxf4 and kind::mxf4nvf4): E2M1 (1) for A at bit 7 and B at bit 10,
/// N / 8 at bit 17, scale type (UE8M0 = 1, UE4M3 = 0) at bit 23, M / 128 at bit 27, scale ids of B at bit 4
/// and of A at bit 29; dense, not negated, not transposed, K = 64.
[[nodiscard]] NVFP4_HD constexpr uint32_t instruction_descriptor(int m, int n, bool ue8m0, int scale_id) {
  return uint32_t(scale_id) << 4 | 1u << 7 | 1u << 10 | uint32_t(n >> 3) << 17 |
         uint32_t(ue8m0 ? 1 : 0) << 23 | uint32_t(m >> 7) << 27 | uint32_t(scale_id) << 29;
}

// ---- Tensor memory --------------------------------------------------------------------------------------
// D: layout D of 9.7.16.10.5.4, lane = row, column = column. Scales: 9.7.16.10.7.2.3 and 9.7.16.10.7.3.3, 32
// lanes by 4 columns for 128 rows, repeated in all four groups of 32 lanes: row r in lane r % 32, column r /
// 32, byte = scale. The 512 bytes of a 128x4 tile have that order already, 16 bytes (4 columns) a lane.
inline constexpr int kScaleColumns = kScaleTileBytes / (32 * 4);

} // namespace nvfp4::cuda::blackwell
