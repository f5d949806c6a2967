// SPDX-License-Identifier: Apache-2.0
// The tcgen05 instructions that a whole GEMM needs beyond those of the capture program: larger allocations,
// copies of scales into tensor memory, and the block-scaled instruction with its accumulate flag. Not yet
// run.
#pragma once
#include "nvfp4/gpu/capture/tcgen05_ptx.cuh"

namespace nvfp4::cuda::blackwell {

/// Whole warp: `Columns` (a power of 2 from 32) columns of tensor memory; the address is written to *slot.
template <int Columns> __device__ void allocate_columns([[maybe_unused]] uint32_t *slot) {
  CAPTURE_IF_TCGEN05(asm volatile(
      "tcgen05.alloc.cta_group::1.sync.aligned.shared::cta.b32 [%0], %1;\n"
      "tcgen05.relinquish_alloc_permit.cta_group::1.sync.aligned;" ::"r"(gpu::shared_address(slot)),
      "n"(Columns)
      : "memory"));
}
template <int Columns> __device__ void free_columns([[maybe_unused]] uint32_t address) {
  CAPTURE_IF_TCGEN05(
      asm volatile("tcgen05.dealloc.cta_group::1.sync.aligned.b32 %0, %1;" ::"r"(address), "n"(Columns)
                   : "memory"));
}

/// One thread: 32 rows of 16 bytes from shared memory to 4 columns of every group of 32 lanes. Ordered before
/// later tcgen05.mma of the same thread (PTX ISA 9.1, 9.7.16.6.2, pair 2).
__device__ inline void copy_scales([[maybe_unused]] uint32_t to, [[maybe_unused]] uint64_t descriptor) {
  CAPTURE_IF_TCGEN05(
      asm volatile("tcgen05.cp.cta_group::1.32x128b.warpx4 [%0], %1;" ::"r"(to), "l"(descriptor)
                   : "memory"));
}

#define BLACKWELL_TCGEN05_MMA(KIND)                                                                          \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %6, 0;\n"                                                   \
               "tcgen05.mma.cta_group::1." KIND " [%0], %1, %2, %3, [%4], [%5], p;\n}" ::"r"(d),             \
               "l"(a), "l"(b), "r"(idesc), "r"(scale_a), "r"(scale_b), "r"(uint32_t(accumulate))             \
               : "memory")

/// One thread: D = A B + D, or A B where `accumulate` is false.
template <int ScaleBlock>
__device__ void multiply([[maybe_unused]] uint32_t d, [[maybe_unused]] uint64_t a,
                         [[maybe_unused]] uint64_t b, [[maybe_unused]] uint32_t idesc,
                         [[maybe_unused]] uint32_t scale_a, [[maybe_unused]] uint32_t scale_b,
                         [[maybe_unused]] bool accumulate) {
  if constexpr (ScaleBlock == 16)
    CAPTURE_IF_TCGEN05(BLACKWELL_TCGEN05_MMA("kind::mxf4nvf4.block_scale.scale_vec::4X"));
  else
    CAPTURE_IF_TCGEN05(BLACKWELL_TCGEN05_MMA("kind::mxf4.block_scale.scale_vec::2X"));
}

} // namespace nvfp4::cuda::blackwell
