// SPDX-License-Identifier: Apache-2.0
// Tiles of the exact FP4 product on Hopper in which the tensor core may sum a good part of the steps, as
// products of trained models have them: a warpgroup sums a step of 64 rows whole where that is exact for all
// of them, as gemm_fp4_wgmma.cu does, and takes it apart 32 columns at a time where it is not, as
// gemm_fp4_framed.cu does.
#include "nvfp4/gpu/emulated/gemm_fp4_framed.cuh"

namespace nvfp4::cuda {
namespace {

using namespace hopper;

constexpr int kMostlyStages = 5;
template <int TileN> using MostlyRing = Ring<TileN, kMostlyStages>;
template <int TileN> constexpr int kSlices = TileN / kPieceN;
template <int TileN>
constexpr int kSharedMostly = int(MostlyRing<TileN>::kAllBytes) +
                              4 * kConsumers *(16 * kPitch * int(sizeof(float)) +
                                               kSlices<TileN> * int(sizeof(WarpFactors))) +
                              1024;

/// Maxima, byte by byte, of ranges of 8 rows each.
template <int Count> __device__ inline uint32_t worst_of(const uint32_t *ranges) {
  uint32_t worst = 0;
#pragma unroll
  for (int i = 0; i < Count / 4; ++i) {
    const uint4 r = reinterpret_cast<const uint4 *>(ranges)[i];
    worst = __vmaxu4(worst, __vmaxu4(__vmaxu4(r.x, r.y), __vmaxu4(r.z, r.w)));
  }
  return worst;
}

/// A bit for each of the 32 steps from `first` on: the tensor core may sum it for 64 rows and TileN columns.
template <int TileN>
__device__ inline uint32_t fast_steps(const Fp4Job &job, const Limits &limits, int row, int col, int first) {
  const int64_t t = first + int(threadIdx.x) % 32;
  bool fast = false;
  if (t < job.steps)
    fast = limits.tensor_core_sums(
        StepRange::sum(worst_of<8>(job.a.ranges8 + (t * job.a.padded_rows + row) / 8),
                       worst_of<TileN / 8>(job.b.ranges8 + (t * job.b.padded_rows + col) / 8)));
  return __ballot_sync(0xFFFFFFFF, fast);
}

/// 16 x 32 outputs of a warp under guard; rare, hence apart, and its registers in memory.
__device__ __noinline__ uint32_t guarded_slice(const Fp4Job &job, int row, int col, int t,
                                               const RowFactors *rows, const ColumnFactors *columns,
                                               const float *groups, float *accs) {
  float g[4][kOutputs], acc[kOutputs];
  for (int i = 0; i < kOutputs; ++i) {
    acc[i] = accs[i];
    for (int k = 0; k < 4; ++k) g[k][i] = groups[k * kOutputs + i];
  }
  const uint32_t repaired = guarded_steps(job, row, col, t, rows, columns, g, acc);
  for (int i = 0; i < kOutputs; ++i) accs[i] = acc[i];
  return repaired;
}

/// A warpgroup's 64 rows of a tile.
template <int TileN> struct Piece {
  const Fp4Job &job;
  MostlyRing<TileN> &ring;
  const WarpFactors *factors; ///< of this warp, a slice each
  int row, col;               ///< of this warp
  int first_row;              ///< in the tile, of the warpgroup
  bool guarded = false;       ///< an accumulator of this warp has passed its limit
  float acc[kSlices<TileN>][kOutputs] = {};

  [[nodiscard]] __device__ bool leader() const { return threadIdx.x % 32 == 0; }

  /// Multiplies a step into `sum`.
  __device__ void multiply(float (&sum)[TileN / 2]) {
    barrier_wait(ring.full + 8 * ring.stage, ring.parity);
    const uint32_t a = ring.data + ring.stage * ring.kBytes + first_row * kStepBytes,
                   b = ring.data + ring.stage * ring.kBytes + ring.kBytesA;
    wgmma_fence();
    Bf16::run<0>(sum, descriptor(a), descriptor(b));
#pragma unroll
    for (int k = 1; k < 4; ++k) Bf16::run(sum, descriptor(a + 32 * k), descriptor(b + 32 * k));
    wgmma_commit();
    ring.advance();
  }
  /// Adds the step that was multiplied into `sum` and gives its stage back.
  __device__ void add(float (&sum)[TileN / 2], uint32_t &oldest) {
#pragma unroll
    for (float &x : sum) asm volatile("" : "+f"(x)::"memory"); // complete only from here on
    if (leader()) barrier_arrive(ring.empty + 8 * oldest);
    if (++oldest == uint32_t(kMostlyStages)) oldest = 0;
#pragma unroll
    for (int r = 0; r < TileN / 2; ++r)
      acc[r / kOutputs][r % kOutputs] = add_rz(acc[r / kOutputs][r % kOutputs], sum[r]);
  }
  /// `count` steps that the tensor core sums, at least one.
  __device__ void sum_steps(int count) {
    float even[TileN / 2], odd[TileN / 2];
    uint32_t oldest = ring.stage;
    multiply(even);
    int step = 1;
    for (; step + 1 < count; step += 2) {
      multiply(odd);
      wgmma_wait<1>();
      add(even, oldest);
      multiply(even);
      wgmma_wait<1>();
      add(odd, oldest);
    }
    if (step < count) {
      multiply(odd);
      wgmma_wait<1>();
      add(even, oldest);
      wgmma_wait<0>();
      add(odd, oldest);
    } else {
      wgmma_wait<0>();
      add(even, oldest);
    }
    if (job.paths != nullptr && leader()) atomicAdd(&job.paths->summed, uint64_t(count) * 16 * TileN);
  }

  /// A bit for each fragment of 16 x 8 that the tensor core may sum, from bit 2 on.
  [[nodiscard]] __device__ uint32_t summed_fragments(int64_t t) const {
    const int lane = min(int(threadIdx.x) % 32, 1 + TileN / 8);
    const uint32_t range = lane < 2 ? job.a.ranges8[(t * job.a.padded_rows + row) / 8 + lane]
                                    : job.b.ranges8[(t * job.b.padded_rows + col) / 8 + lane - 2];
    const int width = int(range & 255);
    const int rows = max(__shfl_sync(0xFFFFFFFF, width, 0), __shfl_sync(0xFFFFFFFF, width, 1));
    return __ballot_sync(0xFFFFFFFF, rows + width <= kSumWidth);
  }
  /// Step t, taken apart.
  __device__ void take_apart(int t) {
    const int lane = int(threadIdx.x) % 32;
    const uint32_t summed = summed_fragments(t);
    barrier_wait(ring.full + 8 * ring.stage, ring.parity);
    const uint32_t a = ring.data + ring.stage * ring.kBytes + first_row * kStepBytes,
                   b = ring.data + ring.stage * ring.kBytes + ring.kBytesA;
#pragma unroll
    for (int s = 0; s < kSlices<TileN>; ++s) {
      float g[4][kOutputs];
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k)
        Bf16::run<0>(g[k], descriptor(a + 32 * k), descriptor(b + s * kPieceN * kStepBytes + 32 * k));
      wgmma_commit();
      wgmma_wait<0>();
#pragma unroll
      for (int k = 0; k < 4; ++k)
#pragma unroll
        for (float &x : g[k]) asm volatile("" : "+f"(x)::"memory"); // complete only from here on
      const RowFactors *const rows = factors[s].row + lane / 4;
      const ColumnFactors *const columns = factors[s].columns + lane % 4;
      // sums of whole steps do not look at the limit
      guarded = guarded || __any_sync(0xFFFFFFFF, beyond_limit(rows, acc[s])) != 0;
      if (guarded) {
        float groups[4 * kOutputs], accs[kOutputs];
#pragma unroll
        for (int i = 0; i < kOutputs; ++i) {
          accs[i] = acc[s][i];
#pragma unroll
          for (int k = 0; k < 4; ++k) groups[k * kOutputs + i] = g[k][i];
        }
        const uint32_t repaired = guarded_slice(job, row + lane / 4, col + s * kPieceN + lane % 4 * 2, t,
                                                rows, columns, groups, accs);
#pragma unroll
        for (int i = 0; i < kOutputs; ++i) acc[s][i] = accs[i];
        if (job.paths != nullptr) {
          count_guarded(job, repaired);
          if (leader()) atomicAdd(&job.paths->passed, 128ull * kFragments);
        }
      } else {
        const uint32_t fragments = summed >> (s * kFragments) & (((1u << kFragments) - 1) << 2);
        guarded = __any_sync(0xFFFFFFFF, framed_steps(rows, columns, fragments, g, acc[s])) != 0;
        if (job.paths != nullptr) count_framed(job, fragments);
      }
    }
    if (leader()) barrier_arrive(ring.empty + 8 * ring.stage);
    ring.advance();
  }
};

template <int TileN>
__device__ void multiply_tiles(const Fp4Job &job, int64_t tiles, int warpgroup, MostlyRing<TileN> ring,
                               float *staging, WarpFactors *factors) {
  const Limits limits(job.accumulation);
  const int steps = int(job.steps);
  for (int64_t i = next_tile<TileN, TileWay::mostly>(job, blockIdx.x, tiles); i < tiles;
       i = next_tile<TileN, TileWay::mostly>(job, i + gridDim.x, tiles)) {
    const TileAt at = tile_of<TileN>(job, i);
    const int group_row = int(at.row) + warpgroup * 64, row = group_row + int(threadIdx.x) / 32 % 4 * 16,
              col = int(at.col);
    for (int s = 0; s < kSlices<TileN>; ++s)
      set_factors(job, row, col + s * kPieceN, job.accumulation == Accumulation::mmasim, factors[s]);
    Piece<TileN> piece{job, ring, factors, row, col, warpgroup * 64};
    for (int first = 0; first < steps; first += 32) {
      const uint32_t fast = fast_steps<TileN>(job, limits, group_row, col, first);
      const int end = min(32, steps - first);
      for (int t = 0; t < end;) {
        const int run =
            __ffs(int(~(fast >> t))) - 1; // of fast steps; all ones beyond the last bit never come
        if (run == 0) {
          piece.take_apart(first + t);
          ++t;
        } else {
          const int count = run < 0 ? end - t : min(run, end - t);
          piece.sum_steps(count);
          t += count;
        }
      }
    }
    float acc[TileN / 2];
#pragma unroll
    for (int r = 0; r < TileN / 2; ++r) acc[r] = piece.acc[r / kOutputs][r % kOutputs];
    write_tile<TileN>(job, acc, staging, row, col);
    if (job.paths != nullptr && threadIdx.x == 0 && col % 128 == 0) atomicAdd(&job.paths->tiles_mostly, 1ull);
  }
}

template <int TileN>
__global__ void __launch_bounds__(kThreads, 1)
    mostly_fast_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
                       const __grid_constant__ Fp4Job job, int64_t tiles) {
  extern __shared__ uint8_t shared[];
  const MostlyRing<TileN> ring((shared_address(shared) + 1023) & ~1023u);
  ring.start(4 * kConsumers);
  const int warpgroup = int(threadIdx.x / 128), warp = int(threadIdx.x / 32);
  if (warpgroup == kConsumers) {
    fewer_registers<40>();
    if (warp == 4 * kConsumers) feed_steps<TileWay::mostly>(&map_a, &map_b, job, tiles, ring);
  } else {
    more_registers<232>();
    uint8_t *const behind = shared + (ring.data - shared_address(shared)) + MostlyRing<TileN>::kAllBytes;
    WarpFactors *const factors = reinterpret_cast<WarpFactors *>(behind);
    float *const staging = reinterpret_cast<float *>(factors + 4 * kConsumers * kSlices<TileN>);
    multiply_tiles<TileN>(job, tiles, warpgroup, ring, staging + warp * 16 * kPitch,
                          factors + warp * kSlices<TileN>);
  }
}

template <int TileN> void launch(const Fp4Job &job, int processors, cudaStream_t stream) {
  launch_tiles<TileN>(mostly_fast_kernel<TileN>, "mostly_fast_kernel", kThreads, kSharedMostly<TileN>, job,
                      processors, stream);
}

} // namespace

void gemm_fp4_mostly(const Fp4Job &job, int processors, cudaStream_t stream) {
  narrow_tiles(job, processors) ? launch<64>(job, processors, stream) : launch<128>(job, processors, stream);
}

} // namespace nvfp4::cuda
