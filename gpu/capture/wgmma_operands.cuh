// SPDX-License-Identifier: Apache-2.0
// How wgmma reads its operands: core matrices in shared memory and the descriptor that points at them.
// Source: PTX ISA 9.1, "Shared memory matrix layout" and "Matrix descriptor" of wgmma.
#pragma once
#include "nvfp4/gpu/capture/features.cuh"

#include <cstdint>

#if CAPTURE_HAS_WGMMA
#define CAPTURE_IF_WGMMA(X) X
#else
#define CAPTURE_IF_WGMMA(X) __trap()
#endif

namespace nvfp4::gpu {

constexpr int kCore = 128; ///< bytes of a core matrix: 8 rows of 16 bytes

/// Where 16-byte chunk `chunk` of row `row` lies: core matrices adjacent along K, then along rows.
__device__ inline int core_offset(int row, int chunk) {
  return ((row >> 3) * 2 + chunk) * kCore + (row & 7) * 16;
}

/// K-major operand without swizzle: leading offset (between core matrices along K) 128, stride offset (rows)
/// 256.
__device__ inline uint64_t wgmma_descriptor(const void *shared) {
  const uint64_t address = __cvta_generic_to_shared(shared);
  return ((address & 0x3FFFF) >> 4) | uint64_t(kCore >> 4) << 16 | uint64_t(2 * kCore >> 4) << 32;
}

} // namespace nvfp4::gpu
