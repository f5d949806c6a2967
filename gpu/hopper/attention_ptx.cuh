// SPDX-License-Identifier: Apache-2.0
// What the attention kernels need beyond wgmma.cuh: products whose A lies in registers and B as rows along N,
// named barriers, and copies of boxes of (batch, length, heads, dim) tensors.
// Sources: PTX ISA 9.1, "wgmma.mma_async", "Shared Memory Matrix Layout", "cp.async.bulk".
#pragma once
#include "nvfp4/gpu/device/bf16.cuh"
#include "nvfp4/gpu/hopper/wgmma.cuh"

namespace nvfp4::cuda::hopper {

/// B with N contiguous: tiles of 64 columns, each of `tile_bytes` / 128 rows of K, 128-byte swizzle.
/// `address` advances by 2048 bytes per 16 rows of K.
__device__ inline uint64_t descriptor_n_major(uint32_t address, uint32_t tile_bytes) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62, kGroupStride = uint64_t{1024 >> 4} << 32;
  return ((address & 0x3FFFF) >> 4) | uint64_t(tile_bytes >> 4) << 16 | kGroupStride | kSwizzle128;
}

/// D (64, N) += A B with A in registers and B n-major in shared memory, K = 16.
__device__ __forceinline__ void product(float (&d)[64], const uint32_t *a, uint64_t b) {
  NVFP4_IF_HOPPER(asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
                               "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " NVFP4_LIST64
                               ", {%64,%65,%66,%67}, %68, p, 1, 1, 1;\n}"
                               : NVFP4_R64(d, 0)
                               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)));
}
__device__ __forceinline__ void product(float (&d)[32], const uint32_t *a, uint64_t b) {
  NVFP4_IF_HOPPER(asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, 1, 0;\n"
                               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " NVFP4_LIST32
                               ", {%32,%33,%34,%35}, %36, p, 1, 1, 1;\n}"
                               : NVFP4_R16(d, 0), NVFP4_R16(d, 16)
                               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)));
}

/// Registers that a product in flight reads or writes: the compiler may not touch them before this point.
template <int N> __device__ __forceinline__ void settle(float (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
template <int N> __device__ __forceinline__ void settle(uint32_t (&d)[N]) {
#pragma unroll
  for (int i = 0; i < N; ++i) asm volatile("" : "+r"(d[i])::"memory");
}

/// An accumulator (64, 2 N) as the A operand of K = 2 N: register for register the same elements.
template <int N> __device__ __forceinline__ void pack(const float (&from)[N], uint32_t (&to)[N / 2]) {
#pragma unroll
  for (int i = 0; i < N / 2; ++i) to[i] = bf16_pair(from[2 * i], from[2 * i + 1]);
}

/// The box at (dim, head, row, sequence); what lies outside the tensor becomes zero.
__device__ inline void copy_head_box(uint32_t to, const CUtensorMap *map, int dim, int head, int row,
                                     int sequence, uint32_t barrier) {
  NVFP4_IF_HOPPER(asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes"
                               " [%0], [%1, {%2, %3, %4, %5}], [%6];" ::"r"(to),
                               "l"(map), "r"(dim), "r"(head), "r"(row), "r"(sequence), "r"(barrier)
                               : "memory"));
}

/// `bytes` (a multiple of 16) from 16-byte aligned memory.
__device__ inline void copy_bytes(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier) {
  NVFP4_IF_HOPPER(asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes"
                               " [%0], [%1], %2, [%3];" ::"r"(to),
                               "l"(from), "r"(bytes), "r"(barrier)
                               : "memory"));
}

/// What can be read as this thread's fragment: rows and columns of accumulator element 4 j + 2 h + e of a
/// warpgroup's 64 rows are row() + 8 h and 8 j + col() + e.
__device__ inline int fragment_row() { return int(threadIdx.x % 128 / 32 * 16 + (threadIdx.x & 31) / 4); }
__device__ inline int fragment_col() { return int(2 * (threadIdx.x & 3)); }

/// Barrier `id` (1 to 15): waits for `threads` threads, which arrive or wait.
__device__ inline void named_barrier_sync(int id, int threads) {
  NVFP4_IF_HOPPER(asm volatile("barrier.cta.sync.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory"));
}
__device__ inline void named_barrier_arrive(int id, int threads) {
  NVFP4_IF_HOPPER(asm volatile("barrier.cta.arrive.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory"));
}

/// The right to issue products goes round `count` warpgroups, which call both once per round, the first one
/// after `first_turn`. Named barriers 1 to `count`.
__device__ __forceinline__ void take_turn(int warpgroup) { named_barrier_sync(1 + warpgroup, 256); }
__device__ __forceinline__ void pass_turn(int warpgroup, int count) {
  named_barrier_arrive(warpgroup + 1 == count ? 1 : warpgroup + 2, 256);
}
__device__ __forceinline__ void first_turn(int warpgroup, int count) {
  if (warpgroup == count - 1) pass_turn(warpgroup, count);
}
/// The first warpgroup takes what the last passed on, so that no barrier is left half full.
__device__ __forceinline__ void last_turn(int warpgroup) {
  if (warpgroup == 0) take_turn(0);
}

/// One lane of a warp tells a barrier that the warp has read a stage.
__device__ inline void release(uint32_t barrier) {
  if ((threadIdx.x & 31) == 0) barrier_arrive(barrier);
}

} // namespace nvfp4::cuda::hopper
