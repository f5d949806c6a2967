// SPDX-License-Identifier: Apache-2.0
// A GEMM by mma.sync, for every GPU from sm_80 on: 128 x 128 tiles, 64 bytes of K (32 elements of 16 bits) a step in
// four stages of cp.async, warps of 64 x 32 outputs. One accumulator set, chained in increasing K. Sources:
// PTX ISA 9.1, "mma.m16n8k16", "mma.m16n8k8", "ldmatrix", "cp.async".
#pragma once
#include "nvfp4/gpu/device/device.hpp"
#include "nvfp4/gpu/hopper/tensor_map.hpp"

namespace nvfp4::cuda::hopper {

namespace mma {

constexpr int kTile = 128, kStep = 32, kStages = 4, kThreads = 256;
constexpr int kRowBytes =
    2 * kStep + 16; ///< 16 bytes of padding: eight rows meet eight different bank groups
constexpr int kOperandBytes = kTile * kRowBytes, kStageBytes = 2 * kOperandBytes;

/// FP8's instructions exist from sm_89 on; before, nothing calls them.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 890
#define NVFP4_FROM_SM89(...) __trap()
#else
#define NVFP4_FROM_SM89(...) __VA_ARGS__
#endif
#define NVFP4_ALWAYS(...) __VA_ARGS__

/// The instructions of a fragment of 16 x 8 outputs and 32 bytes of K, one or two halves of it, and its accumulators,
/// e = 0 .. 3: row e / 2 * 8, column e % 2. Whatever the format, a register has four bytes of a row.
#define NVFP4_MMA_F32(IF, WHOLE, SHAPE, HALF, HALF_SHAPE, TYPES)                                             \
  struct WHOLE {                                                                                             \
    float d[4] = {};                                                                                         \
    __device__ void run(const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {                                  \
      IF(asm volatile("mma.sync.aligned." SHAPE ".row.col.f32." TYPES ".f32 {%0,%1,%2,%3}, "                 \
                      "{%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                               \
                      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                       \
                      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1)));                      \
    }                                                                                                        \
    [[nodiscard]] __device__ uint32_t word(int e) const { return __float_as_uint(d[e]); }                    \
  };                                                                                                         \
  struct HALF {                                                                                              \
    float d[4] = {};                                                                                         \
    __device__ void step(uint32_t a0, uint32_t a1, uint32_t b) {                                             \
      IF(asm volatile("mma.sync.aligned." HALF_SHAPE ".row.col.f32." TYPES ".f32 {%0,%1,%2,%3}, "            \
                      "{%4,%5}, {%6}, {%0,%1,%2,%3};"                                                        \
                      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                       \
                      : "r"(a0), "r"(a1), "r"(b)));                                                          \
    }                                                                                                        \
    __device__ void run(const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {                                  \
      step(a[0], a[1], b0), step(a[2], a[3], b1);                                                            \
    }                                                                                                        \
    [[nodiscard]] __device__ uint32_t word(int e) const { return __float_as_uint(d[e]); }                    \
  }
/// FP16 accumulators, two to a register.
#define NVFP4_MMA_F16(IF, WHOLE, SHAPE, HALF, HALF_SHAPE, TYPES)                                             \
  struct WHOLE {                                                                                             \
    uint32_t d[2] = {};                                                                                      \
    __device__ void run(const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {                                  \
      IF(asm volatile("mma.sync.aligned." SHAPE ".row.col.f16." TYPES                                        \
                      ".f16 {%0,%1}, {%2,%3,%4,%5}, {%6,%7}, {%0,%1};"                                       \
                      : "+r"(d[0]), "+r"(d[1])                                                               \
                      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1)));                      \
    }                                                                                                        \
    [[nodiscard]] __device__ uint32_t word(int e) const { return d[e / 2] >> (e % 2 * 16) & 0xFFFF; }        \
  };                                                                                                         \
  struct HALF {                                                                                              \
    uint32_t d[2] = {};                                                                                      \
    __device__ void step(uint32_t a0, uint32_t a1, uint32_t b) {                                             \
      IF(asm volatile("mma.sync.aligned." HALF_SHAPE ".row.col.f16." TYPES                                   \
                      ".f16 {%0,%1}, {%2,%3}, {%4}, {%0,%1};"                                                \
                      : "+r"(d[0]), "+r"(d[1])                                                               \
                      : "r"(a0), "r"(a1), "r"(b)));                                                          \
    }                                                                                                        \
    __device__ void run(const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {                                  \
      step(a[0], a[1], b0), step(a[2], a[3], b1);                                                            \
    }                                                                                                        \
    [[nodiscard]] __device__ uint32_t word(int e) const { return d[e / 2] >> (e % 2 * 16) & 0xFFFF; }        \
  }
NVFP4_MMA_F32(NVFP4_ALWAYS, Bf16K16, "m16n8k16", Bf16K8, "m16n8k8", "bf16.bf16");
NVFP4_MMA_F32(NVFP4_ALWAYS, F16K16, "m16n8k16", F16K8, "m16n8k8", "f16.f16");
NVFP4_MMA_F32(NVFP4_ALWAYS, Tf32K8, "m16n8k8", Tf32K4, "m16n8k4", "tf32.tf32");
NVFP4_MMA_F16(NVFP4_ALWAYS, F16AccK16, "m16n8k16", F16AccK8, "m16n8k8", "f16.f16");
#define NVFP4_MMA_FP8(NAME, TYPES)                                                                           \
  NVFP4_MMA_F32(NVFP4_FROM_SM89, NAME##K32, "m16n8k32", NAME##K16, "m16n8k16", TYPES);                       \
  NVFP4_MMA_F16(NVFP4_FROM_SM89, NAME##AccK32, "m16n8k32", NAME##AccK16, "m16n8k16", TYPES)
NVFP4_MMA_FP8(E4m3, "e4m3.e4m3");
NVFP4_MMA_FP8(E5m2, "e5m2.e5m2");
NVFP4_MMA_FP8(E4m3E5m2, "e4m3.e5m2");
NVFP4_MMA_FP8(E5m2E4m3, "e5m2.e4m3");
#undef NVFP4_MMA_FP8
#undef NVFP4_MMA_F32
#undef NVFP4_MMA_F16

/// 128 rows of 32 elements; what lies outside the operand becomes zero.
__device__ inline void load(const Operand &x, int64_t row0, int64_t k0, uint32_t to) {
#pragma unroll
  for (int i = threadIdx.x; i < kTile * 4; i += kThreads) {
    const int64_t row = row0 + (i >> 2), k = k0 + 8 * (i & 3);
    const bool inside = row < x.rows && k < x.k;
    const int bytes = inside ? int(min(int64_t(8), x.k - k)) * 2 : 0;
    const uint16_t *from = static_cast<const uint16_t *>(x.data) + (inside ? row * x.stride + k : 0);
    asm volatile(
        "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to + (i >> 2) * kRowBytes + 16 * (i & 3)),
        "l"(from), "r"(bytes)
        : "memory");
  }
}

__device__ inline void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

/// store(row, column, word) for every output.
template <class Fragment, class Store>
__global__ void __launch_bounds__(kThreads)
    tiles_kernel(Operand x, Operand y, int64_t tiles_n, const __grid_constant__ Store store) {
  extern __shared__ __align__(16) uint8_t shared[];
  const uint32_t data = uint32_t(__cvta_generic_to_shared(shared));
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warp_row = warp & 1, warp_col = warp >> 1;
  const int64_t row0 = blockIdx.x / tiles_n * kTile, col0 = blockIdx.x % tiles_n * kTile;
  const int64_t steps = (x.k + kStep - 1) / kStep;
  const auto fetch = [&](int64_t step) {
    if (step < steps) {
      const uint32_t to = data + uint32_t(step % kStages) * kStageBytes;
      load(x, row0, step * kStep, to);
      load(y, col0, step * kStep, to + kOperandBytes);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  Fragment d[4][4];
  for (int s = 0; s < kStages - 1; ++s) fetch(s);
  const uint32_t lane_a = (64 * warp_row + (lane & 15)) * kRowBytes + 16 * (lane >> 4);
  const uint32_t lane_b =
      kOperandBytes + (32 * warp_col + (lane & 7) + 8 * (lane >> 4)) * kRowBytes + 16 * ((lane >> 3) & 1);
  for (int64_t step = 0; step < steps; ++step) {
    asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 2) : "memory");
    __syncthreads(); // this step has arrived for all, and all have left the stage that is filled next
    fetch(step + kStages - 1);
    const uint32_t stage = data + uint32_t(step % kStages) * kStageBytes;
#pragma unroll
    for (int k = 0; k < kStep / 16; ++k) {
      uint32_t a[4][4], b[2][4];
#pragma unroll
      for (int i = 0; i < 4; ++i) load_matrices(a[i], stage + lane_a + 16 * i * kRowBytes + 32 * k);
#pragma unroll
      for (int j = 0; j < 2; ++j) load_matrices(b[j], stage + lane_b + 16 * j * kRowBytes + 32 * k);
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) d[i][j].run(a[i], b[j >> 1][2 * (j & 1)], b[j >> 1][2 * (j & 1) + 1]);
    }
  }
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int64_t row = row0 + 64 * warp_row + 16 * i + (lane >> 2) + 8 * (e >> 1);
        const int64_t col = col0 + 32 * warp_col + 8 * j + 2 * (lane & 3) + (e & 1);
        if (row < x.rows && col < y.rows) store(row, col, d[i][j].word(e));
      }
}

} // namespace mma

/// Multiplies operands whose rows are 16-byte aligned and given as elements of 16 bits, two FP8 or half a TF32 each;
/// neither has 0 rows.
template <class Fragment, class Store>
void launch_mma(const Operand &a, const Operand &b, const Store &store, cudaStream_t stream) {
  const int64_t tiles_m = (a.rows + mma::kTile - 1) / mma::kTile,
                tiles_n = (b.rows + mma::kTile - 1) / mma::kTile;
  check(cudaFuncSetAttribute(mma::tiles_kernel<Fragment, Store>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             mma::kStages * mma::kStageBytes),
        "shared memory of the mma kernel");
  mma::tiles_kernel<Fragment, Store>
      <<<unsigned(tiles_m * tiles_n), mma::kThreads, mma::kStages * mma::kStageBytes, stream>>>(a, b, tiles_n,
                                                                                                store);
  check_launch("tiles_kernel");
}

} // namespace nvfp4::cuda::hopper
