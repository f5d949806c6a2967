// SPDX-License-Identifier: Apache-2.0
// The exact NVFP4 and MXFP4 product: BF16 tensor cores sum the groups of a step of K = 64 without any
// rounding, FP32 additions toward zero chain the steps. Where a range says that this is not proven,
// gemm_fp4_steps.cuh takes the step. README.md has the proofs. Tiles of 128 x 128, operands by cp.async and
// ldmatrix; on sm_90 gemm_fp4_wgmma.cu takes the tiles in which every step is fast, gemm_fp4_framed.cu most
// others.
#include "nvfp4/gpu/emulated/gemm_fp4_carry.hpp"
#include "nvfp4/gpu/emulated/gemm_fp4_steps.cuh"

#include <algorithm>

namespace nvfp4::cuda {
namespace {

constexpr int kTile = 128, kStages = 3;
constexpr int kTileBytes = kTile * 128; // one operand's 128 rows of 64 BF16
constexpr int kStageBytes = 2 * kTileBytes;
constexpr int kSharedBytes = kStages * kStageBytes;

/// 8 warps of 64 x 32 where all steps are fast; 16 warps of 32 x 32 for the others, whose code is longer and
/// slower.
template <bool mixed> struct Geometry {
  static constexpr int threads = mixed ? 512 : 256;
  static constexpr int mi = mixed ? 2 : 4, nj = 4; // fragments of 16 x 8 per warp
};

__device__ inline void copy_async(uint32_t shared, const void *global) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(global) : "memory");
}
__device__ inline void commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int n> __device__ inline void wait_groups() {
  asm volatile("cp.async.wait_group %0;" ::"n"(n) : "memory");
}

/// One step of both operands into a stage.
template <int threads>
__device__ inline void copy_step(const Fp4Job &job, uint32_t stage, int64_t row, int64_t col, int64_t t) {
#pragma unroll
  for (int i = 0; i < kTile * 8 / threads; ++i) {
    const int at = int(threadIdx.x) + i * threads, r = at / 8, piece = at % 8;
    copy_async(stage + place(r, piece), job.a.values + ((row + r) * job.steps + t) * 64 + piece * 8);
    copy_async(stage + kTileBytes + place(r, piece),
               job.b.values + ((col + r) * job.steps + t) * 64 + piece * 8);
  }
}

/// The worst of the rows of one side of a tile.
struct SideWorst {
  int least, largest; ///< scale exponents
  int spread;         ///< of all K, norm - lsb
  int reach;          ///< largest scale exponent - lsb
  int lsb;            ///< of all K, the least
};

/// FP32 holds frames and cuts of rows within these scale exponents.
constexpr int kLowestFramed = -30, kHighestFramed = 40;
/// Bits above the least multiple: that a frame holds exactly; that no accumulator can be cut below.
constexpr int kFrameSpread = 44, kUncutSpread = 35;

/// About what gemm_fp4_mostly.cu spends on a tile, in cycles, beyond one of whole steps: a step in halves, a
/// fragment apart. What gemm_fp4_framed.cu spends a step, beyond the same.
constexpr int kHalvedCost = 3000, kApartCost = 500, kFramedCost = 2600;

/// How many of a tile's fragments of 16 x 8 halves do not hold in a step: their widths add up to too much.
__device__ inline int fragments_apart(const Fp4Job &job, int64_t row, int64_t col, int64_t t) {
  const uint4 a = *reinterpret_cast<const uint4 *>(job.a.halves8 + (t * job.a.padded_rows + row) / 8);
  const uint4 *const ranges =
      reinterpret_cast<const uint4 *>(job.b.ranges8 + (t * job.b.padded_rows + col) / 8);
  uint32_t b[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const uint4 r = ranges[i];
    b[i] = __byte_perm(__byte_perm(r.x, r.y, 0x0040), __byte_perm(r.z, r.w, 0x0040), 0x5410);
  }
  constexpr uint32_t kBytes = 0x01010101;
  int count = 0;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t pair = (i < 2 ? a.x : i < 4 ? a.y : i < 6 ? a.z : a.w) >> (i % 2 * 16);
    const uint32_t rows = max(pair & 255, pair >> 8 & 255) * kBytes;
#pragma unroll
    for (int j = 0; j < 4; ++j)
      count += __popc(__vcmpgtu4(__vaddus4(rows, b[j]), uint32_t(kSumWidth) * kBytes)) / 8;
  }
  return count;
}

/// The way of a tile whose steps the tensor core may not all sum.
__device__ inline TileWay slow_way(const Fp4Job &job, const Limits &limits, const SideWorst &a,
                                   const SideWorst &b) {
  const bool range = min(a.least, b.least) >= kLowestFramed && max(a.largest, b.largest) <= kHighestFramed;
  if (!job.frames || !range) return TileWay::mixed;
  const bool mmasim = job.accumulation == Accumulation::mmasim,
             small = mmasim || job.accumulation == Accumulation::exact || a.spread + b.spread <= kUncutSpread;
  if (a.spread + b.spread <= kFrameSpread && a.reach + b.reach <= limits.reach && small)
    return TileWay::framed;
  return mmasim ? TileWay::guarded : TileWay::mixed;
}

/// Decides each tile's way. Fast: every step may take the tensor core's sum, and every output is in range and
/// not NaN. A block a tile.
__global__ void __launch_bounds__(2 * kTile) classify_kernel(const __grid_constant__ Fp4Job job) {
  const int64_t row = int64_t(blockIdx.x) % job.tiles_m * kTile,
                col = int64_t(blockIdx.x) / job.tiles_m * kTile;
  const Limits limits(job.accumulation);
  int slow = 0, apart = 0; // steps, and fragments of them
  int carry = -0x8000;     // the largest of slow steps' widths and norms, as carried_step_of() has them
  for (int64_t t = threadIdx.x; t < job.steps; t += blockDim.x)
    if (!limits.tensor_core_sums(StepRange::sum(job.a.ranges128[(t * job.a.padded_rows + row) / 128],
                                                job.b.ranges128[(t * job.b.padded_rows + col) / 128]))) {
      ++slow;
      carry = max(carry, int(int16_t(job.a.carried128[(t * job.a.padded_rows + row) / 128])) +
                             (int(job.b.carried128[(t * job.b.padded_rows + col) / 128]) >> 16));
      if (job.frames) apart += fragments_apart(job, row, col, t);
    }
  __shared__ SideWorst worst[2]; // of A's rows and of B's
  __shared__ int slow_steps, apart_fragments, widest_carry;
  if (threadIdx.x < 2) worst[threadIdx.x] = {127, -128, -1000, -1000, 1000};
  if (threadIdx.x == 0) slow_steps = apart_fragments = 0, widest_carry = -0x8000;
  __syncthreads();
  if (slow != 0) {
    atomicAdd(&slow_steps, slow);
    atomicMax(&widest_carry, carry);
  }
  if (apart != 0) atomicAdd(&apart_fragments, apart);
  const bool second = threadIdx.x >= kTile;
  const RowInfo r = second ? job.b.rows[col + threadIdx.x - kTile] : job.a.rows[row + threadIdx.x];
  SideWorst &side = worst[second ? 1 : 0];
  if (!r.empty()) {
    atomicMin(&side.least, int(r.min));
    atomicMax(&side.largest, int(r.max));
    atomicMax(&side.spread, r.norm - r.lsb);
    atomicMax(&side.reach, r.max - r.lsb);
    atomicMin(&side.lsb, int(r.lsb));
  }
  const bool nan = __syncthreads_or(r.nan != 0) != 0;
  if (threadIdx.x != 0) return;
  const RowInfo x{int16_t(worst[0].least), int16_t(worst[0].largest), 0, 0, 0, 0},
      y{int16_t(worst[1].least), int16_t(worst[1].largest), 0, 0, 0, 0};
  TileWay way = TileWay::fast;
  if (nan || !in_range(x, y))
    way = TileWay::mixed;
  else if (slow_steps != 0)
    way = slow_way(job, limits, worst[0], worst[1]);
  if (way == TileWay::framed && widest_carry - 8 * worst[1].lsb <= kCarriedWidth)
    way = TileWay::carried;
  else if (way == TileWay::framed && float(kHalvedCost) * float(slow_steps) + float(kApartCost) * float(apart_fragments) <=
                                    float(kFramedCost) * float(job.steps))
    way = TileWay::mostly;
  job.ways[blockIdx.x] = way;
  atomicAdd(&job.tiles_of[int(way)], 1u);
  for (int i = 0; i < 8; ++i) job.outgrown_at(row + i / 4 * 64, col + i % 4 * 32) = 0;
}

/// Tiles in bands of 16 rows of tiles, down each column of a band first, so that neighbours share operands in
/// L2.
__device__ inline void tile_origin(const Fp4Job &job, int64_t tile, int64_t &row, int64_t &col) {
  constexpr int64_t band = 16;
  const int64_t first = tile / (band * job.tiles_n) * band, high = min(band, job.tiles_m - first);
  const int64_t within = tile - first * job.tiles_n;
  row = (first + within % high) * kTile;
  col = within / high * kTile;
}

template <bool mixed> __device__ __forceinline__ void multiply_tile(const Fp4Job &job, uint32_t base, int64_t row, int64_t col) {
  constexpr int kThreads = Geometry<mixed>::threads, kMi = Geometry<mixed>::mi, kNj = Geometry<mixed>::nj;
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  const int warp_row = warp / 4 * 16 * kMi, warp_col = warp % 4 * 32;
  float acc[kMi][kNj][4] = {};
  [[maybe_unused]] Counts counts;
  [[maybe_unused]] const Limits limits(job.accumulation);

#pragma unroll
  for (int s = 0; s < kStages - 1; ++s) {
    if (s < job.steps) copy_step<kThreads>(job, base + uint32_t(s * kStageBytes), row, col, s);
    commit();
  }
  int stage = 0, next = kStages - 1;
  for (int64_t t = 0; t < job.steps; ++t) {
    wait_groups<kStages - 2>();
    __syncthreads(); // the step has arrived for all, and all have left the stage that is filled next
    if (t + kStages - 1 < job.steps)
      copy_step<kThreads>(job, base + uint32_t(next * kStageBytes), row, col, t + kStages - 1);
    commit();
    const uint32_t at_a = base + uint32_t(stage * kStageBytes), at_b = at_a + kTileBytes;
    stage = stage + 1 == kStages ? 0 : stage + 1;
    next = next + 1 == kStages ? 0 : next + 1;

    uint32_t b[kNj][4][2]; // [fragment][group]
#pragma unroll
    for (int j = 0; j < kNj; j += 2)
#pragma unroll
      for (int g = 0; g < 4; ++g) {
        uint32_t r[4];
        load_matrices(r,
                      at_b + place(warp_col + j * 8 + (lane & 7) + (lane >> 4) * 8, g * 2 + (lane >> 3 & 1)));
        b[j][g][0] = r[0];
        b[j][g][1] = r[1];
        b[j + 1][g][0] = r[2];
        b[j + 1][g][1] = r[3];
      }
    [[maybe_unused]] uint32_t range_a[kMi], range_b[kNj];
    if constexpr (mixed) {
      const uint32_t *const ra = job.a.ranges8 + (t * job.a.padded_rows + row + warp_row) / 8;
      const uint32_t *const rb = job.b.ranges8 + (t * job.b.padded_rows + col + warp_col) / 8;
#pragma unroll
      for (int i = 0; i < kMi; ++i) range_a[i] = __vmaxu4(ra[2 * i], ra[2 * i + 1]);
#pragma unroll
      for (int j = 0; j < kNj; ++j) range_b[j] = rb[j];
    }
#pragma unroll
    for (int i = 0; i < kMi; ++i) {
      uint32_t a[4][4];
#pragma unroll
      for (int g = 0; g < 4; ++g)
        load_matrices(a[g], at_a + place(warp_row + i * 16 + (lane & 15), g * 2 + (lane >> 4)));
      if constexpr (mixed) {
        const int64_t r = row + warp_row + i * 16 + lane / 4;
#pragma unroll
        for (int j = 0; j < kNj; ++j)
          mixed_step(job, StepRange::sum(range_a[i], range_b[j]), limits, r,
                     col + warp_col + j * 8 + lane % 4 * 2, t, a, b[j], acc[i][j], counts);
      } else {
        float sum[kNj][4] = {};
#pragma unroll
        for (int g = 0; g < 4; ++g)
#pragma unroll
          for (int j = 0; j < kNj; ++j) add_group(sum[j], a[g], b[j][g][0], b[j][g][1]);
#pragma unroll
        for (int j = 0; j < kNj; ++j)
#pragma unroll
          for (int o = 0; o < 4; ++o) acc[i][j][o] = __fadd_rz(acc[i][j][o], sum[j][o]);
      }
    }
  }

  const bool plain = job.writes_plainly();
#pragma unroll
  for (int i = 0; i < kMi; ++i)
#pragma unroll
    for (int j = 0; j < kNj; ++j)
#pragma unroll
      for (int o = 0; o < 4; ++o) {
        const int64_t r = row + warp_row + i * 16 + lane / 4 + (o >= 2 ? 8 : 0);
        const int64_t c = col + warp_col + j * 8 + lane % 4 * 2 + (o & 1);
        if (r >= job.m || c >= job.n) continue;
        uint32_t word = bit_cast<uint32_t>(acc[i][j][o]);
        if constexpr (mixed) word = mixed_word(job, r, c, acc[i][j][o], counts);
        if (plain)
          static_cast<uint32_t *>(job.out.d)[r * job.n + c] = word;
        else
          write_output(job.out, FormatId::f32, job.n, r, c, word);
      }
  if (job.paths == nullptr) return;
  if constexpr (mixed) add_counts(job.paths, counts);
  if (threadIdx.x == 0) atomicAdd(mixed ? &job.paths->tiles_mixed : &job.paths->tiles_fast, 1ull);
}

/// `mixed` false: tiles where every step is fast; true: mixed ones. Each launch covers all tiles and leaves
/// the others.
template <bool mixed>
__global__ void __launch_bounds__(Geometry<mixed>::threads, 1)
    product_kernel(const __grid_constant__ Fp4Job job) {
  constexpr TileWay kWay = mixed ? TileWay::mixed : TileWay::fast;
  if (!job.has(kWay)) return;
  extern __shared__ __align__(128) uint8_t shared[];
  const uint32_t base = uint32_t(__cvta_generic_to_shared(shared));
  for (int64_t tile = blockIdx.x; tile < job.tiles_m * job.tiles_n; tile += gridDim.x) {
    int64_t row, col;
    tile_origin(job, tile, row, col);
    if (job.way(row, col) != kWay) continue;
    multiply_tile<mixed>(job, base, row, col);
    __syncthreads(); // all have left the stages
  }
}

template <bool mixed> void launch(const Fp4Job &job, int processors, cudaStream_t stream) {
  check(
      cudaFuncSetAttribute(product_kernel<mixed>, cudaFuncAttributeMaxDynamicSharedMemorySize, kSharedBytes),
      "shared memory of the FP4 product");
  const int64_t tiles = job.tiles_m * job.tiles_n;
  // usually none is mixed
  const auto blocks = unsigned(mixed ? std::min<int64_t>(tiles, processors) : tiles);
  product_kernel<mixed><<<blocks, Geometry<mixed>::threads, kSharedBytes, stream>>>(job);
  check_launch("product_kernel");
}

} // namespace

void check_fp4(const UnitRule &rule, const Fp4Operand &a, const Fp4Operand &b, const GemmOutput &output) {
  if (rule.family != Family::gst_fdpa || rule.k != 64 || rule.fraction_bits != 35 ||
      rule.floor > kLowestSum || a.scale != rule.scale || b.scale != rule.scale ||
      a.scale_block != rule.scale_block || b.scale_block != rule.scale_block || a.steps != b.steps)
    throw Error("cuda::gemm_fp4: operands were not prepared for this unit, or have different K");
  if (output.start != nullptr)
    throw Error("cuda::gemm_fp4: chains start at +0 here; cuda::gemm continues accumulators");
  // as on the CPU: 2^24 steps keep sums within FP32's exponents
  if (a.steps > int64_t{1} << 24) throw Error("cuda::gemm_fp4: K above 2^30");
}

void gemm_fp4(const UnitRule &rule, const Fp4Operand &a, const Fp4Operand &b, const GemmOutput &output,
              Accumulation accumulation, cudaStream_t stream, Fp4Paths *paths) {
  check_fp4(rule, a, b, output);
  const int64_t tiles = a.padded_rows / kTile * (b.padded_rows / kTile);
  const StreamBuffer ways(tiles * int64_t(sizeof(TileWay)), stream), outgrown(8 * tiles, stream),
      tiles_of(kTileWays * int64_t(sizeof(uint32_t)), stream);
  check(cudaMemsetAsync(tiles_of.as<void>(), 0, kTileWays * sizeof(uint32_t), stream), "cudaMemsetAsync");
  int device = 0, processors = 0, major = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
        "cudaDeviceGetAttribute");
  const bool hopper = major == 9;
  const Fp4Job job{.rule = rule,
                   .accumulation = accumulation,
                   .a = view_of(a),
                   .b = view_of(b),
                   .m = a.source.rows,
                   .n = b.source.rows,
                   .steps = a.steps,
                   .tiles_m = a.padded_rows / kTile,
                   .tiles_n = b.padded_rows / kTile,
                   .out = output,
                   .paths = paths,
                   .ways = ways.as<TileWay>(),
                   .tiles_of = tiles_of.as<uint32_t>(),
                   .outgrown = outgrown.as<uint8_t>(),
                   .frames = hopper};
  classify_kernel<<<unsigned(tiles), 2 * kTile, 0, stream>>>(job);
  check_launch("classify_kernel");
  if (hopper) {
    gemm_fp4_wgmma(job, processors, stream);
    gemm_fp4_mostly(job, processors, stream);
    gemm_fp4_framed(job, processors, stream);
  } else {
    launch<false>(job, processors, stream);
  }
  launch<true>(job, processors, stream);
}

} // namespace nvfp4::cuda
