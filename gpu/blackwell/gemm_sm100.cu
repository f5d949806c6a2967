// SPDX-License-Identifier: Apache-2.0
// NVFP4 and MXFP4 GEMM with tcgen05.mma (sm_100a, 103a, 110a): one block makes 128 x 128 outputs in tensor
// memory. Four warps bring pieces of 256 elements along K by cp.async into four stages; one thread copies
// their scales to tensor memory and issues the instructions in increasing K. Not yet run on Blackwell; with
// the instructions simulated it runs on any GPU from sm_80 with room for it in shared memory.
#include "nvfp4/gpu/blackwell/simulated.cuh"
#include "nvfp4/gpu/blackwell/tcgen05.cuh"
#include "nvfp4/gpu/blackwell/tiles.cuh"
#include "nvfp4/gpu/emulated/gemm_detail.cuh"

namespace nvfp4::cuda::blackwell {
namespace {

constexpr int kThreads = 128, kStages = 4;
constexpr int kSharedBytes = kStages * kStageBytes + 1024; // and room to reach a 1024-byte boundary
/// Tensor memory: D in columns 0 to 127, then 32 columns of scales for each stage: 4 tiles of A, 4 of B.
constexpr int kColumnsOfD = 128, kColumnsOfStage = 2 * kStepsPerTile * kScaleColumns;
constexpr int kColumns = kColumnsOfD + kStages * kColumnsOfStage;
static_assert(kColumns == 256, "an allocation is a power of 2");

/// The instructions of a block: on the tensor core, issued by one thread and completing on barriers, ...
struct TensorCore {
  static constexpr bool kOneThread = true;
  uint32_t tmem = 0;
  uint64_t *barriers = nullptr; ///< one a stage; the n-th use of a stage completes phase n

  __device__ void copy(int column, uint64_t descriptor) { copy_scales(tmem + uint32_t(column), descriptor); }
  template <int ScaleBlock>
  __device__ void multiply(const UnitRule &, uint64_t a, uint64_t b, uint32_t idesc, int scale_a, int scale_b,
                           bool accumulate) {
    blackwell::multiply<ScaleBlock>(tmem, a, b, idesc, tmem + uint32_t(scale_a), tmem + uint32_t(scale_b),
                                    accumulate);
  }
  __device__ void commit(int piece) { gpu::tcgen05_commit(&barriers[piece % kStages]); }
  __device__ void wait(int piece) {
    gpu::barrier_wait(&barriers[piece % kStages], uint32_t(piece / kStages & 1));
  }
  /// Columns [col, col + 8) of the thread's row: lane = row, a warp reads its own 32 lanes.
  __device__ void load(int col, uint32_t (&v)[8]) {
    gpu::tmem_load8(tmem + (threadIdx.x / 32 * 32 << 16) + uint32_t(col), v);
  }
};

/// ... or simulated by the whole block, step by step.
struct Simulation {
  static constexpr bool kOneThread = false;
  static constexpr int kColumnsOfScales = kStages * kColumnsOfStage;
  static constexpr int kScaleBytesShared = kColumnsOfScales * 32 * 4;
  simulated::TensorMemory<kColumnsOfScales> memory;

  __device__ void copy(int column, uint64_t descriptor) {
    simulated::copy(memory, column - kColumnsOfD, descriptor);
  }
  template <int ScaleBlock>
  __device__ void multiply(const UnitRule &rule, uint64_t a, uint64_t b, uint32_t idesc, int scale_a,
                           int scale_b, bool accumulate) {
    simulated::mma(rule, memory, a, b, idesc, scale_a - kColumnsOfD, scale_b - kColumnsOfD, accumulate);
  }
  __device__ void commit(int) {}
  __device__ void wait(int) {}
  __device__ void load(int col, uint32_t (&v)[8]) {
    for (int j = 0; j < 8; ++j) v[j] = __float_as_uint(memory.d[col + j]);
  }
};

/// Issues one piece: its scale tiles, then its instructions in increasing K.
template <int ScaleBlock, class Instructions>
__device__ void issue_piece(Instructions &to, const UnitRule &rule, uint32_t stage, int piece, int steps) {
  const int scale_a = kColumnsOfD + piece % kStages * kColumnsOfStage,
            scale_b = scale_a + kStepsPerTile * kScaleColumns;
  const int first = piece * kStepsPerTile, count = min(steps - first, kStepsPerTile);
  const int tiles = scale_tile(count - 1, ScaleBlock) + 1;
  for (int t = 0; t < tiles; ++t) {
    to.copy(scale_a + t * kScaleColumns,
            scale_descriptor(stage + uint32_t(kStageScaleA + t * kScaleTileBytes)));
    to.copy(scale_b + t * kScaleColumns,
            scale_descriptor(stage + uint32_t(kStageScaleB + t * kScaleTileBytes)));
  }
  for (int step = 0; step < count; ++step) {
    const int column = scale_tile(step, ScaleBlock) * kScaleColumns;
    to.template multiply<ScaleBlock>(
        rule, operand_descriptor(stage + kStageA, step), operand_descriptor(stage + kStageB, step),
        instruction_descriptor(kTileRows, kTileRows, rule.scale == FormatId::ue8m0,
                               scale_byte(step, ScaleBlock)),
        scale_a + column, scale_b + column, first + step > 0);
  }
  to.commit(piece);
}

/// The whole product of one block, given its instructions.
template <int ScaleBlock, class Instructions>
__device__ void multiply_tile(const Product &p, uint32_t shared, Instructions &to) {
  const int thread = int(threadIdx.x);
  const int64_t tile_m = blockIdx.x, tile_n = blockIdx.y;
  const int steps = p.a.steps, pieces = (steps + kStepsPerTile - 1) / kStepsPerTile;
  const auto stage_of = [&](int piece) { return shared + uint32_t(piece % kStages * kStageBytes); };

  for (int piece = 0; piece < kStages - 1; ++piece) {
    if (piece < pieces) copy_stage<kThreads, ScaleBlock>(p, tile_m, tile_n, piece, stage_of(piece));
    copy_commit();
  }
  for (int piece = 0; piece < pieces; ++piece) {
    copy_wait<kStages - 2>();
    if constexpr (Instructions::kOneThread) {
      // what this thread's copies wrote becomes visible to the async proxy that tcgen05 reads through
      CAPTURE_IF_TCGEN05(asm volatile("fence.proxy.async.shared::cta;" ::: "memory"));
    }
    __syncthreads();
    if (!Instructions::kOneThread || thread == 0) {
      if constexpr (Instructions::kOneThread) gpu::tcgen05_fence_after();
      issue_piece<ScaleBlock>(to, p.rule, stage_of(piece), piece, steps);
    }
    __syncwarp();
    if (const int next = piece + kStages - 1; next < pieces) {
      if (piece > 0) to.wait(piece - 1); // the stage's former contents, and its scales in tensor memory
      copy_stage<kThreads, ScaleBlock>(p, tile_m, tile_n, next, stage_of(next));
    }
    copy_commit();
  }
  if (pieces > 0) to.wait(pieces - 1); // a commit tracks all that its thread issued before
  __syncwarp();
  if constexpr (Instructions::kOneThread) gpu::tcgen05_fence_after();

  const int64_t m = tile_m * kTileRows + thread;
  for (int col = 0; col < kTileRows; col += 8) {
    uint32_t v[8] = {};
    if (pieces > 0) to.load(col, v);
    for (int j = 0; j < 8; ++j) {
      const int64_t n = tile_n * kTileRows + col + j;
      if (m < p.a.rows && n < p.b.rows) write_output(p.out, FormatId::f32, p.b.rows, m, n, v[j]);
    }
    __syncwarp();
  }
}

template <int ScaleBlock> __global__ void __launch_bounds__(kThreads) gemm_kernel(Product p) {
  extern __shared__ uint8_t dynamic[];
  __shared__ __align__(8) uint64_t barriers[kStages];
  __shared__ uint32_t tmem_slot;
  const uint32_t shared = (shared_address(dynamic) + 1023) & ~1023u;
  if (threadIdx.x < 32) allocate_columns<kColumns>(&tmem_slot);
  if (threadIdx.x == 0)
    for (uint64_t &barrier : barriers) gpu::barrier_init(&barrier);
  gpu::tcgen05_fence_before();
  __syncthreads();
  gpu::tcgen05_fence_after();
  TensorCore instructions{tmem_slot, barriers};
  multiply_tile<ScaleBlock>(p, shared, instructions);
  gpu::tcgen05_fence_before();
  __syncthreads();
  gpu::tcgen05_fence_after();
  if (threadIdx.x < 32) free_columns<kColumns>(instructions.tmem);
}

template <int ScaleBlock> __global__ void __launch_bounds__(kThreads) simulated_kernel(Product p) {
  extern __shared__ uint8_t dynamic[];
  const uint32_t shared = (shared_address(dynamic) + 1023) & ~1023u;
  Simulation instructions;
  instructions.memory.scales =
      static_cast<uint32_t(*)[32]>(__cvta_shared_to_generic(shared + kStages * kStageBytes));
  multiply_tile<ScaleBlock>(p, shared, instructions);
}

template <int ScaleBlock> void launch(const Product &p, Engine engine, cudaStream_t stream) {
  const bool simulate = engine == Engine::simulated;
  const auto kernel = simulate ? simulated_kernel<ScaleBlock> : gemm_kernel<ScaleBlock>;
  const int bytes = kSharedBytes + (simulate ? Simulation::kScaleBytesShared : 0);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
        "shared memory of gemm_sm100");
  const dim3 grid(unsigned(p.a.padded_rows / kTileRows), unsigned(p.b.padded_rows / kTileRows));
  kernel<<<grid, kThreads, size_t(bytes), stream>>>(p);
  check_launch("gemm_sm100");
}

} // namespace

void gemm_sm100(const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b,
                const GemmOutput &output, Workspace &workspace, cudaStream_t stream, ScaleLayout layout,
                Engine engine) {
  if (engine == Engine::hardware && !(gpu::device_features() & golden::cases::kTcgen05))
    throw Error("gemm_sm100: needs compute capability 10.x or 11.0 and a build for sm_100a, 103a or 110a");
  if (rule.scale != FormatId::ue8m0 && rule.scale_block != 16)
    throw Error("gemm_sm100: UE4M3 scales are per 16 elements");
  const Product p = prepare("gemm_sm100", rule, a, b, output, workspace, stream, layout);
  if (a.rows == 0 || b.rows == 0) return;
  if (p.b.padded_rows / kTileRows > 65535) throw Error("gemm_sm100: B may have at most 8388480 rows");
  if (rule.scale_block == 16)
    launch<16>(p, engine, stream);
  else
    launch<32>(p, engine, stream);
}

} // namespace nvfp4::cuda::blackwell
