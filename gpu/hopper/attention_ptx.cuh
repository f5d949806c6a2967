// SPDX-License-Identifier: Apache-2.0
// What the attention kernels need beyond wgmma.cuh: products with 64 or 128 columns whose A lies in shared
// memory or in registers, B as rows along N, and copies of boxes of (batch, length, heads, dim) tensors.
// Sources: PTX ISA 9.1, "wgmma.mma_async", "Shared Memory Matrix Layout", "cp.async.bulk".
#pragma once
#include "gpu/hopper/wgmma.cuh"

namespace nvfp4::cuda::hopper {

/// B with N contiguous: tiles of 64 columns, each of `tile_bytes` / 128 rows of K, 128-byte swizzle.
/// `address` advances by 2048 bytes per 16 rows of K.
__device__ inline uint64_t descriptor_n_major(uint32_t address, uint32_t tile_bytes) {
  constexpr uint64_t kSwizzle128 = uint64_t{1} << 62, kGroupStride = uint64_t{1024 >> 4} << 32;
  return ((address & 0x3FFFF) >> 4) | uint64_t(tile_bytes >> 4) << 16 | kGroupStride | kSwizzle128;
}

#define NVFP4_LIST32                                                                                         \
  "{%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,"              \
  "%25,%26,%27,%28,%29,%30,%31}"

/// D (64, N) = A B^T, or D += with Accumulate; both operands K-major in shared memory, K = 16.
template <bool Accumulate> __device__ __forceinline__ void product(float (&d)[64], uint64_t a, uint64_t b) {
  NVFP4_IF_HOPPER(asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %66, 0;\n"
                               "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " NVFP4_LIST64
                               ", %64, %65, p, 1, 1, 0, 0;\n}"
                               : NVFP4_R64(d, 0)
                               : "l"(a), "l"(b), "n"(int(Accumulate))));
}
template <bool Accumulate> __device__ __forceinline__ void product(float (&d)[32], uint64_t a, uint64_t b) {
  NVFP4_IF_HOPPER(asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %34, 0;\n"
                               "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 " NVFP4_LIST32
                               ", %32, %33, p, 1, 1, 0, 0;\n}"
                               : NVFP4_R16(d, 0), NVFP4_R16(d, 16)
                               : "l"(a), "l"(b), "n"(int(Accumulate))));
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

/// Two FP32 words as BF16, nearest even, `low` in the lower half.
__device__ inline uint32_t pack_bf16(float low, float high) {
  uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}

/// An accumulator (64, 2 N) as the A operand of K = 2 N: register for register the same elements.
template <int N> __device__ __forceinline__ void pack(const float (&from)[N], uint32_t (&to)[N / 2]) {
#pragma unroll
  for (int i = 0; i < N / 2; ++i) to[i] = pack_bf16(from[2 * i], from[2 * i + 1]);
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

/// One lane of a warp tells a barrier that the warp has read a stage.
__device__ inline void release(uint32_t barrier) {
  if ((threadIdx.x & 31) == 0) barrier_arrive(barrier);
}

} // namespace nvfp4::cuda::hopper
