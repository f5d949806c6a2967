// SPDX-License-Identifier: Apache-2.0
// BF16 GEMM by mma.sync m16n8k16, for every GPU from sm_80 on: 128 x 128 tiles, 32 elements a step in four
// stages of cp.async, warps of 64 x 32 outputs. One accumulator set, chained in increasing K. Sources: PTX
// ISA 9.1, "mma.m16n8k16", "ldmatrix", "cp.async".
#include "nvfp4/gpu/device/device.hpp"
#include "nvfp4/gpu/hopper/gemm_bf16.hpp"
#include "nvfp4/gpu/hopper/tensor_map.hpp"

namespace nvfp4::cuda {
namespace {

constexpr int kTile = 128, kStep = 32, kStages = 4, kThreads = 256;
constexpr int kRowBytes =
    2 * kStep + 16; ///< 16 bytes of padding: eight rows meet eight different bank groups
constexpr int kOperandBytes = kTile * kRowBytes, kStageBytes = 2 * kOperandBytes;

struct Product {
  hopper::Operand a, b;
  float alpha;
  const float *bias;
  Epilogue epilogue;
  float *out;
};

/// 128 rows of 32 elements; what lies outside the operand becomes zero.
__device__ void load(const hopper::Operand &x, int64_t row0, int64_t k0, uint32_t to) {
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

__device__ void load_matrices(uint32_t (&r)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(address)
               : "memory");
}

__device__ void mma(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
               "{%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__global__ void __launch_bounds__(kThreads) mma_kernel(Product p, int64_t tiles_n) {
  extern __shared__ __align__(16) uint8_t shared[];
  const uint32_t data = uint32_t(__cvta_generic_to_shared(shared));
  const int lane = threadIdx.x & 31, warp = threadIdx.x >> 5, warp_row = warp & 1, warp_col = warp >> 1;
  const int64_t row0 = blockIdx.x / tiles_n * kTile, col0 = blockIdx.x % tiles_n * kTile;
  const int64_t steps = (p.a.k + kStep - 1) / kStep;
  const auto fetch = [&](int64_t step) {
    if (step < steps) {
      const uint32_t to = data + uint32_t(step % kStages) * kStageBytes;
      load(p.a, row0, step * kStep, to);
      load(p.b, col0, step * kStep, to + kOperandBytes);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  };
  float d[4][4][4] = {};
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
        for (int j = 0; j < 4; ++j) mma(d[i][j], a[i], b[j >> 1][2 * (j & 1)], b[j >> 1][2 * (j & 1) + 1]);
    }
  }
  const int64_t n = p.b.rows;
  const bool reads = p.epilogue.into != Epilogue::Into::overwrite;
#pragma unroll
  for (int i = 0; i < 4; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int64_t row = row0 + 64 * warp_row + 16 * i + (lane >> 2) + 8 * (e >> 1);
        const int64_t col = col0 + 32 * warp_col + 8 * j + 2 * (lane & 3) + (e & 1);
        if (row >= p.a.rows || col >= n) continue;
        float &out = p.out[row * n + col];
        out = finish(p.epilogue, p.alpha, d[i][j][e], reads ? out : 0.0f, p.bias ? p.bias + col : nullptr);
      }
}

} // namespace

void gemm_bf16_mma(const uint16_t *a, const uint16_t *b, int64_t m, int64_t n, int64_t k, int64_t lda,
                   int64_t ldb, float alpha, const float *bias, Epilogue epilogue, float *out,
                   cudaStream_t stream) {
  const hopper::Operand left{a, m, k, lda, 2}, right{b, n, k, ldb, 2};
  hopper::check_product("gemm_bf16_mma", left, right, 8);
  if (m == 0 || n == 0) return;
  const hopper::AlignedOperand x(left, stream), y(right, stream);
  const int64_t tiles_m = (m + kTile - 1) / kTile, tiles_n = (n + kTile - 1) / kTile;
  check(cudaFuncSetAttribute(mma_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kStages * kStageBytes),
        "shared memory of the mma kernel");
  mma_kernel<<<unsigned(tiles_m * tiles_n), kThreads, kStages * kStageBytes, stream>>>(
      {x.get(), y.get(), alpha, bias, epilogue, out}, tiles_n);
  check_launch("mma_kernel");
}

} // namespace nvfp4::cuda
