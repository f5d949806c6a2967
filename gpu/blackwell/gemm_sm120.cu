// SPDX-License-Identifier: Apache-2.0
// NVFP4 and MXFP4 GEMM with block-scaled mma.sync (sm_120a, 121a). A block of 8 warps makes 128 x 128
// outputs, a warp 64 x 32 of them as 4 x 4 fragments; two stages of 256 elements along K come by cp.async.
// Not yet run on Blackwell; with the instruction simulated it runs on any GPU from sm_80.
#include "nvfp4/gpu/blackwell/simulated.cuh"
#include "nvfp4/gpu/blackwell/tiles.cuh"
#include "nvfp4/gpu/capture/run_tiles.hpp"
#include "nvfp4/gpu/emulated/gemm_detail.cuh"

#if CAPTURE_HAS_MMA_BLOCK
#define BLACKWELL_IF_MMA(X) X
#else
#define BLACKWELL_IF_MMA(X) __trap()
#endif

namespace nvfp4::cuda::blackwell {
namespace {

constexpr int kThreads = 256, kStages = 2, kFragmentsM = 4, kFragmentsN = 4;
constexpr int kSharedBytes = kStages * kStageBytes + 1024; // and room to reach a 1024-byte boundary

__device__ void load_matrices(uint32_t from, uint32_t (&r)[4]) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(from)
               : "memory");
}

#define BLACKWELL_MMA(KIND, TYPES)                                                                           \
  asm volatile("mma.sync.aligned.m16n8k64.row.col." KIND "." TYPES                                           \
               " {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3}, {%10}, {%12,%13}, {%11}, {%12,%14};"  \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                              \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1), "r"(scale_a), "r"(scale_b),   \
                 "h"(uint16_t(byte)), "h"(uint16_t(thread_a)), "h"(uint16_t(thread_b)))

/// D = A B + D. The selectors must be constants once everything is unrolled.
template <int ScaleBlock, Engine E>
__device__ void multiply([[maybe_unused]] const UnitRule &rule, float (&d)[4], const uint32_t (&a)[4],
                         uint32_t b0, uint32_t b1, uint32_t scale_a, uint32_t scale_b, int byte, int thread_a,
                         int thread_b) {
  if constexpr (E == Engine::simulated)
    simulated::mma(rule, d, a, b0, b1, scale_a, scale_b, byte, thread_a, thread_b);
  else if constexpr (ScaleBlock == 16)
    BLACKWELL_IF_MMA(BLACKWELL_MMA("kind::mxf4nvf4.block_scale.scale_vec::4X", "f32.e2m1.e2m1.f32.ue4m3"));
  else
    BLACKWELL_IF_MMA(BLACKWELL_MMA("kind::mxf4.block_scale.scale_vec::2X", "f32.e2m1.e2m1.f32.ue8m0"));
}

/// One instruction's K for the warp's 64 x 32 outputs.
template <int ScaleBlock, Engine E>
__device__ void multiply_step(const UnitRule &rule, float (&d)[kFragmentsM][kFragmentsN][4],
                              const uint8_t *stage, int row, int col, int step) {
  const int lane = threadIdx.x & 31;
  const uint32_t tile_a = shared_address(stage + kStageA), tile_b = shared_address(stage + kStageB);
  uint32_t a[kFragmentsM][4], b[kFragmentsN / 2][4];
#pragma unroll
  for (int f = 0; f < kFragmentsM; ++f)
    load_matrices(tile_a + uint32_t(ldmatrix_a(lane, row + 16 * f, step)), a[f]);
#pragma unroll
  for (int f = 0; f < kFragmentsN / 2; ++f)
    load_matrices(tile_b + uint32_t(ldmatrix_b(lane, col + 16 * f, step)), b[f]);
  const int scales = scale_tile(step, ScaleBlock) * kScaleTileBytes;
  uint32_t scale_a[kFragmentsM / 2];
#pragma unroll
  for (int f = 0; f < kFragmentsM / 2; ++f)
    scale_a[f] = *reinterpret_cast<const uint32_t *>(stage + kStageScaleA + scales +
                                                     scale_word_of_lane(lane, row + 32 * f));
  const uint32_t scale_b =
      *reinterpret_cast<const uint32_t *>(stage + kStageScaleB + scales + scale_word_of_lane(lane, col));
#pragma unroll
  for (int i = 0; i < kFragmentsM; ++i)
#pragma unroll
    for (int j = 0; j < kFragmentsN; ++j)
      multiply<ScaleBlock, E>(rule, d[i][j], a[i], b[j / 2][2 * (j & 1)], b[j / 2][2 * (j & 1) + 1],
                              scale_a[i / 2], scale_b, scale_byte(step, ScaleBlock), thread_id_a(i),
                              thread_id_b(j));
}

template <int ScaleBlock, Engine E> __global__ void __launch_bounds__(kThreads) gemm_kernel(Product p) {
  extern __shared__ uint8_t dynamic[];
  uint8_t *shared = dynamic + (1024 - shared_address(dynamic) % 1024) % 1024;
  const int warp = int(threadIdx.x) / 32, lane = threadIdx.x & 31;
  const int row = warp / 4 * 64, col = warp % 4 * 32; // of the warp in the tile
  const int64_t tile_m = blockIdx.x, tile_n = blockIdx.y;
  const int steps = p.a.steps, pieces = (steps + kStepsPerTile - 1) / kStepsPerTile;

  float d[kFragmentsM][kFragmentsN][4] = {};
  if (pieces > 0) copy_stage<kThreads, ScaleBlock>(p, tile_m, tile_n, 0, shared_address(shared));
  copy_commit();
  for (int piece = 0; piece < pieces; ++piece) {
    const uint8_t *stage = shared + piece % kStages * kStageBytes;
    if (piece + 1 < pieces)
      copy_stage<kThreads, ScaleBlock>(p, tile_m, tile_n, piece + 1,
                                       shared_address(shared + (piece + 1) % kStages * kStageBytes));
    copy_commit();
    copy_wait<1>(); // this piece has arrived, the next may be under way
    __syncthreads();
    const int first = piece * kStepsPerTile;
#pragma unroll
    for (int step = 0; step < kStepsPerTile; ++step)
      if (first + step < steps) multiply_step<ScaleBlock, E>(p.rule, d, stage, row, col, step);
    __syncthreads(); // the next round's copy overwrites this stage
  }

#pragma unroll
  for (int i = 0; i < kFragmentsM; ++i)
#pragma unroll
    for (int j = 0; j < kFragmentsN; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const Position at = d_position(lane, e);
        const int64_t m = tile_m * kTileRows + row + 16 * i + at.row;
        const int64_t n = tile_n * kTileRows + col + 8 * j + at.col;
        if (m < p.a.rows && n < p.b.rows)
          write_apart(p.out, FormatId::f32, p.b.rows, m, n, __float_as_uint(d[i][j][e]));
      }
}

template <int ScaleBlock, Engine E> void launch(const Product &p, cudaStream_t stream) {
  check(cudaFuncSetAttribute(gemm_kernel<ScaleBlock, E>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             kSharedBytes),
        "shared memory of gemm_sm120");
  const dim3 grid(unsigned(p.a.padded_rows / kTileRows), unsigned(p.b.padded_rows / kTileRows));
  gemm_kernel<ScaleBlock, E><<<grid, kThreads, kSharedBytes, stream>>>(p);
  check_launch("gemm_sm120");
}

} // namespace

void gemm_sm120(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b,
                const GemmOutput &output, Workspace &workspace, cudaStream_t stream, ScaleLayout layout,
                Engine engine) {
  if (engine == Engine::hardware && !(gpu::device_features() & golden::cases::kMmaBlock))
    throw Error("gemm_sm120: needs compute capability 12.x and a build for sm_120a or sm_121a");
  if ((rule.scale == FormatId::ue4m3) != (rule.scale_block == 16))
    throw Error("gemm_sm120: mma.sync takes UE4M3 per 16 or UE8M0 per 32 elements");
  const Product p = prepare("gemm_sm120", rule, a, b, output, workspace, stream, layout);
  if (a.rows == 0 || b.rows == 0) return;
  if (p.b.padded_rows / kTileRows > 65535) throw Error("gemm_sm120: B may have at most 8388480 rows");
  const bool simulate = engine == Engine::simulated;
  if (rule.scale_block == 16)
    simulate ? launch<16, Engine::simulated>(p, stream) : launch<16, Engine::hardware>(p, stream);
  else
    simulate ? launch<32, Engine::simulated>(p, stream) : launch<32, Engine::hardware>(p, stream);
}

} // namespace nvfp4::cuda::blackwell
