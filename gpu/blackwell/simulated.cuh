// SPDX-License-Identifier: Apache-2.0
// Software stand-ins for the two instructions, so that everything around them (copies, layouts, descriptors,
// pipelines, epilogues) runs on any GPU from sm_80. They read registers, selectors and descriptors as the PTX
// ISA 9.1 describes them, written without fragments.hpp; the arithmetic is the emulator's gst_fdpa. Slow; for
// checks only.
#pragma once
#include "nvfp4/emulator/tensorcore/gst_fdpa.hpp"

#include <cstdint>

namespace nvfp4::cuda::blackwell::simulated {

/// Not inlined: the kernels would hold it hundreds of times.
__device__ __noinline__ inline float step(const UnitRule &rule, const uint32_t (&a)[8],
                                          const uint32_t (&b)[8], uint32_t scale_a, uint32_t scale_b,
                                          float c) {
  const auto bytes = [](const uint32_t *p) { return reinterpret_cast<const uint8_t *>(p); };
  return __uint_as_float(uint32_t(gst_fdpa(rule, {bytes(a), 4}, {bytes(b), 4}, bytes(&scale_a),
                                           bytes(&scale_b), __float_as_uint(c), Accumulation::mmasim)));
}

/// mma.sync.m16n8k64 with block scaling (9.7.14.5.11, 9.7.14.3). Whole warp. Not inlined, as step().
__device__ __noinline__ inline void mma(const UnitRule &rule, float (&d)[4], const uint32_t (&a)[4],
                                        uint32_t b0, uint32_t b1, uint32_t scale_a, uint32_t scale_b,
                                        int byte, int thread_a, int thread_b) {
  const int lane = threadIdx.x & 31, group = lane >> 2, in_group = lane % 4;
  uint32_t row[2][8], col[2][8], of_row[2], of_col[2];
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int n = 2 * in_group + i; // the lane's columns; its rows are group and group + 8
#pragma unroll
    for (int word = 0; word < 8; ++word) { // elements 8 word .. 8 word + 7 along k
      row[i][word] = __shfl_sync(~0u, a[i + 2 * (word / 4)], 4 * group + word % 4);
      col[i][word] = __shfl_sync(~0u, word < 4 ? b0 : b1, 4 * n + word % 4);
    }
    of_row[i] = __shfl_sync(~0u, scale_a, 4 * group + 2 * thread_a + i) >> (8 * byte);
    of_col[i] = __shfl_sync(~0u, scale_b, 4 * n + thread_b) >> (8 * byte);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int j = 0; j < 2; ++j) d[2 * i + j] = step(rule, row[i], col[j], of_row[i], of_col[j], d[2 * i + j]);
}

/// What a shared-memory descriptor (table 40) points at, K-major: 16 bytes `chunk` of row `row`.
__device__ inline uint4 described(uint64_t descriptor, int row, int chunk) {
  const uint32_t start = uint32_t(descriptor & 0x3FFF) << 4, stride = uint32_t(descriptor >> 32 & 0x3FFF)
                                                                      << 4;
  const bool swizzled = descriptor >> 61 == 2; // 128 bytes: Swizzle<3,4,3>; else rows of 16 bytes
  uint32_t address =
      start + uint32_t(row / 8) * stride + uint32_t(row % 8) * (swizzled ? 128 : 16) + uint32_t(chunk) * 16;
  if (swizzled) address ^= (address >> 7 & 7) << 4;
  return *static_cast<const uint4 *>(__cvta_shared_to_generic(address));
}

/// A block's tensor memory: D of the thread's row, and columns of scales (lanes 32 to 127 would repeat them).
template <int Columns> struct TensorMemory {
  float d[128];
  uint32_t (*scales)[32]; // (Columns, 32) in shared memory
};

/// tcgen05.cp.32x128b.warpx4. Whole block.
template <int Columns> __device__ void copy(TensorMemory<Columns> &t, int to, uint64_t descriptor) {
  if (threadIdx.x < 32) {
    const uint4 v = described(descriptor, int(threadIdx.x), 0);
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
    for (int i = 0; i < 4; ++i) t.scales[to + i][threadIdx.x] = words[i];
  }
  __syncthreads();
}

/// tcgen05.mma with the fields of an instruction descriptor (table 44) that vary here. Whole block; a thread
/// is a row.
template <int Columns>
__device__ void mma(const UnitRule &rule, TensorMemory<Columns> &t, uint64_t a, uint64_t b, uint32_t idesc,
                    int scale_a, int scale_b, bool accumulate) {
  const int row = int(threadIdx.x), n = int(idesc >> 17 & 63) * 8, id_a = int(idesc >> 29 & 3),
            id_b = int(idesc >> 4 & 3);
  const auto load = [](uint64_t descriptor, int r, uint32_t(&words)[8]) {
    for (int chunk = 0; chunk < 2; ++chunk) {
      const uint4 v = described(descriptor, r, chunk);
      words[4 * chunk] = v.x, words[4 * chunk + 1] = v.y, words[4 * chunk + 2] = v.z,
                words[4 * chunk + 3] = v.w;
    }
  };
  uint32_t of_row[8], of_col[8];
  load(a, row, of_row);
  const uint32_t sa = t.scales[scale_a + row / 32][row % 32] >> (8 * id_a);
  for (int col = 0; col < n; ++col) {
    load(b, col, of_col);
    const uint32_t sb = t.scales[scale_b + col / 32][col % 32] >> (8 * id_b);
    t.d[col] = step(rule, of_row, of_col, sa, sb, accumulate ? t.d[col] : 0.0f);
  }
}

} // namespace nvfp4::cuda::blackwell::simulated
