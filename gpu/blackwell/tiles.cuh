// SPDX-License-Identifier: Apache-2.0
// Bringing one K piece (256 elements) of both operands into shared memory with cp.async. Shared by both
// kernels; not yet run.
#pragma once
#include "nvfp4/gpu/blackwell/fragments.hpp"
#include "nvfp4/gpu/blackwell/gemm.hpp"
#include "nvfp4/gpu/capture/features.cuh"

namespace nvfp4::cuda::blackwell {

/// One stage of the pipeline: codes of A and B in swizzled tiles, then their scales, 4 tiles of 512 bytes
/// each (2 are used with a scale per 32).
constexpr int kScaleBytes = kStepsPerTile * kScaleTileBytes;
constexpr int kStageA = 0, kStageB = kTileBytes, kStageScaleA = 2 * kTileBytes,
              kStageScaleB = kStageScaleA + kScaleBytes;
constexpr int kStageBytes = kStageScaleB + kScaleBytes;
static_assert(kStageBytes % 1024 == 0, "stages keep the swizzle's alignment");

__device__ inline uint32_t shared_address(const void *p) { return uint32_t(__cvta_generic_to_shared(p)); }

/// 16 bytes, past L1. PTX ISA 9.1, 9.7.9.25.3.1 cp.async.
__device__ inline void copy_chunk([[maybe_unused]] uint32_t to, [[maybe_unused]] const void *from) {
#if CAPTURE_HAS_MMA16
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
#endif
}
__device__ inline void copy_commit() {
#if CAPTURE_HAS_MMA16
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
/// Waits until at most `Pending` groups of this thread are under way.
template <int Pending> __device__ void copy_wait() {
#if CAPTURE_HAS_MMA16
  asm volatile("cp.async.wait_group %0;" ::"n"(Pending) : "memory");
#endif
}

/// All threads of the block copy piece `piece` of A's tile (rows tile_row * 128 ..) or B's.
template <int Threads, int ScaleBlock>
__device__ void copy_operand(const NativeOperand &x, int64_t tile_row, int64_t piece, uint32_t codes,
                             uint32_t scales) {
  constexpr int chunks = kTileBytes / kChunkBytes, per_row = kRowBytes / kChunkBytes;
  const uint8_t *from = x.codes + tile_row * kTileRows * x.row_bytes + piece * kRowBytes;
#pragma unroll
  for (int i = int(threadIdx.x); i < chunks; i += Threads)
    copy_chunk(codes + uint32_t(tile_offset(i / per_row, i % per_row)),
               from + i / per_row * x.row_bytes + i % per_row * kChunkBytes);
  // a K piece's scale tiles are adjacent in the 128x4 layout
  constexpr int bytes = kTileK / ScaleBlock / 4 * kScaleTileBytes;
  const int64_t pieces = x.row_bytes / kRowBytes;
  const uint8_t *scale = x.scales + (tile_row * pieces + piece) * bytes;
  for (int i = int(threadIdx.x); i < bytes / kChunkBytes; i += Threads)
    copy_chunk(scales + uint32_t(i * kChunkBytes), scale + i * kChunkBytes);
}

template <int Threads, int ScaleBlock>
__device__ void copy_stage(const Product &p, int64_t tile_m, int64_t tile_n, int64_t piece, uint32_t stage) {
  copy_operand<Threads, ScaleBlock>(p.a, tile_m, piece, stage + kStageA, stage + kStageScaleA);
  copy_operand<Threads, ScaleBlock>(p.b, tile_n, piece, stage + kStageB, stage + kStageScaleB);
}

} // namespace nvfp4::cuda::blackwell
