// SPDX-License-Identifier: Apache-2.0
// Tiles of the exact FP4 product on Hopper in which the tensor core may sum a good part of the steps, as
// products of trained models have them: a warpgroup sums a step of 64 rows whole where that is exact for all
// of them, as gemm_fp4_wgmma.cu does, and in two halves, by the scales of A's groups, where it is not. What
// neither holds exactly is done over by fragments of 16 x 8. README.md has the proofs.
#include "nvfp4/gpu/emulated/gemm_fp4_halves.hpp"
#include "nvfp4/gpu/emulated/gemm_fp4_tiles.cuh"

namespace nvfp4::cuda {
namespace {

using namespace hopper;

constexpr int kHalvedN = 64; ///< columns of one sum of halves
constexpr int kPairedWidth = 85; ///< twice the bits above the least multiple that a group may have in split_step()

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

/// A bit for each of 32 steps.
struct StepBits {
  uint32_t whole; ///< the tensor core may sum it for 64 rows and TileN columns
  uint32_t grown; ///< an accumulator might cut something
};
template <int TileN>
__device__ inline StepBits classify_steps(const Fp4Job &job, const Limits &limits, int row, int col,
                                          int first) {
  const int64_t t = first + int(threadIdx.x) % 32;
  bool whole = false, grown = false;
  if (t < job.steps) {
    const StepRange range =
        StepRange::sum(worst_of<8>(job.a.ranges8 + (t * job.a.padded_rows + row) / 8),
                       worst_of<TileN / 8>(job.b.ranges8 + (t * job.b.padded_rows + col) / 8));
    whole = limits.tensor_core_sums(range);
    grown = range.growth >= limits.growth;
  }
  return {__ballot_sync(0xFFFFFFFF, whole), __ballot_sync(0xFFFFFFFF, grown)};
}

/// What a warp reads of a step that is not whole.
struct HalvedStep {
  uint32_t low[2]; ///< StepHalves::low of this thread's two rows
  uint32_t ranges; ///< by lanes: ranges8 of columns, eight a lane; of the warp's rows, lanes 28 and 29; their halves8, 30, 31

  HalvedStep() = default;
  __device__ HalvedStep(const Fp4Job &job, int row, int col, int columns, int64_t t) {
    const int lane = int(threadIdx.x) % 32;
    const uint32_t a = uint32_t(t) * uint32_t(job.a.padded_rows) + uint32_t(row), // operands fit the memory
        b = uint32_t(t) * uint32_t(job.b.padded_rows) + uint32_t(col);
    low[0] = job.a.halves[a + lane / 4];
    low[1] = job.a.halves[a + lane / 4 + 8];
    ranges = lane < 28   ? job.b.ranges8[b / 8 + min(lane, columns / 8 - 1)]
             : lane < 30 ? job.a.ranges8[a / 8 + lane - 28]
                         : job.a.halves8[a / 8 + lane - 30];
  }
};

/// How a warp takes a step that is not whole. Rows that fit an FP32 sum with all columns, eight of them together, are not
/// halved.
struct HalvedPlan {
  uint32_t low;  ///< the lower halves of this thread's two rows, a byte each; 0: not halved
  uint32_t ranges; ///< HalvedStep::ranges
  uint32_t ways; ///< a bit for each fragment of 16 x 8 that halves do not hold; from bit 16 on, for each eight of rows halved

  HalvedPlan() = default;
  __device__ explicit HalvedPlan(const HalvedStep &s) {
    const int lane = int(threadIdx.x) % 32, width = int(s.ranges & 255);
    const int widest = __reduce_max_sync(0xFFFFFFFF, lane < 28 ? width : 0);
    int rows = 0;
    uint32_t halved = 0;
    low = 0;
    ranges = s.ranges;
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const int whole = __shfl_sync(0xFFFFFFFF, width, 28 + h), half = __shfl_sync(0xFFFFFFFF, width, 30 + h);
      const bool own = whole + widest > kSumWidth;
      if (own) low |= s.low[h] << (8 * h), halved |= 1u << h;
      rows = max(rows, own ? half : whole);
    }
    ways = (__ballot_sync(0xFFFFFFFF, width + rows > kSumWidth) & 0xFFFF) | halved << 16;
  }
  [[nodiscard]] __device__ bool halved(int h) const { return (ways >> (16 + h) & 1) != 0; }
};

/// A bit for each fragment with an accumulator at or beyond its row's limit.
template <int Registers>
[[nodiscard]] __device__ inline uint32_t beyond_limit(const float (&acc)[Registers], const float (&limit)[2]) {
  float most[4] = {};
#pragma unroll
  for (int r = 0; r < Registers; ++r) most[r % 4] = fmaxf(most[r % 4], fabsf(acc[r]));
  if (__any_sync(0xFFFFFFFF, fmaxf(most[0], most[1]) >= limit[0] || fmaxf(most[2], most[3]) >= limit[1]) == 0) return 0;
  uint32_t fragments = 0;
#pragma unroll
  for (int j = 0; j < Registers / 4; ++j) {
    bool beyond = false;
#pragma unroll
    for (int o = 0; o < 4; ++o) beyond |= fabsf(acc[4 * j + o]) >= limit[o / 2];
    if (__any_sync(0xFFFFFFFF, beyond) != 0) fragments |= 1u << j;
  }
  return fragments;
}

/// A warp's 16 rows of a step, and eight of its columns, by groups; from where they stand in shared memory.
__device__ inline void load_rows(uint32_t (&fa)[4][4], uint32_t a) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int g = 0; g < 4; ++g) load_matrices(fa[g], a + place(lane & 15, g * 2 + (lane >> 4)));
}
__device__ inline void load_columns(uint32_t (&fb)[4][2], uint32_t b) {
  const int lane = int(threadIdx.x) % 32;
#pragma unroll
  for (int g = 0; g < 4; g += 2) {
    uint32_t r[4];
    load_matrices(r, b + place(lane & 7, g * 2 + (lane >> 3)));
    fb[g][0] = r[0];
    fb[g][1] = r[1];
    fb[g + 1][0] = r[2];
    fb[g + 1][1] = r[3];
  }
}

/// A step of 16 x 8 outputs of a warp where pairs of FP32 do not do; rare. `a` and `b` are where its rows and columns stand
/// in shared memory, `rows` and `columns` their ranges.
__device__ __noinline__ float4 rare_fragment(const Fp4Job &job, int row, int col, int t, uint32_t a, uint32_t b,
                                             uint32_t rows, uint32_t columns, float4 from) {
  const int lane = int(threadIdx.x) % 32;
  uint32_t fa[4][4], fb[4][2];
  load_rows(fa, a);
  load_columns(fb, b);
  float acc[4] = {from.x, from.y, from.z, from.w};
  Counts counts;
  mixed_step(job, StepRange::sum(rows, columns), Limits(job.accumulation), row + lane / 4,
             col + lane % 4 * 2, t, fa, fb, acc, counts);
  if (job.paths != nullptr) add_counts(job.paths, counts);
  return make_float4(acc[0], acc[1], acc[2], acc[3]);
}

/// A warp's fragments of 16 x 8 with their groups apart.
struct ApartStep {
  const Fp4Job &job;
  int row, col, t;     ///< of the first fragment
  uint32_t a, b;       ///< where rows and columns stand in shared memory
  uint32_t ranges;     ///< HalvedStep::ranges

  /// Fragments j[n]: from and to slots, one float4 a lane; the same fragment may be there twice.
  template <int N>
  __device__ __forceinline__ void run(const uint32_t (&fa)[4][4], const int (&j)[N], float4 *const (&slots)[N]) const {
    const uint32_t rows = __vmaxu4(__shfl_sync(0xFFFFFFFF, ranges, 28), __shfl_sync(0xFFFFFFFF, ranges, 29));
    uint32_t columns[N];
    float4 from[N], to[N];
    float g[N][4][4] = {}, magic[N];
    uint32_t rare = 0;
#pragma unroll
    for (int n = 0; n < N; ++n) {
      from[n] = *slots[n];
      columns[n] = __shfl_sync(0xFFFFFFFF, ranges, j[n]);
      uint32_t fb[4][2];
      load_columns(fb, b + 8 * j[n] * kStepBytes);
#pragma unroll
      for (int k = 0; k < 4; ++k) add_group(g[n][k], fa[k], fb[k][0], fb[k][1]);
    }
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const StepRange range = StepRange::sum(rows, columns[n]);
      const int lsb = 254 - range.place; // of both, at least -92 in tiles that frames could hold
      const float limit = job.accumulation == Accumulation::mmasim ? uncut_below(lsb) : __int_as_float(0x7F800000);
      const float largest = fmaxf(fmaxf(fabsf(from[n].x), fabsf(from[n].y)), fmaxf(fabsf(from[n].z), fabsf(from[n].w)));
      if (range.width > kPairedWidth || lsb > 60 || __any_sync(0xFFFFFFFF, largest >= limit) != 0) rare |= 1u << n;
      magic[n] = 1.5f * power_of_two(min(lsb, 60) + 46);
    }
#pragma unroll
    for (int n = 0; n < N; ++n) {
      to[n].x = split_step(from[n].x, magic[n], g[n][0][0], g[n][1][0], g[n][2][0], g[n][3][0]);
      to[n].y = split_step(from[n].y, magic[n], g[n][0][1], g[n][1][1], g[n][2][1], g[n][3][1]);
      to[n].z = split_step(from[n].z, magic[n], g[n][0][2], g[n][1][2], g[n][2][2], g[n][3][2]);
      to[n].w = split_step(from[n].w, magic[n], g[n][0][3], g[n][1][3], g[n][2][3], g[n][3][3]);
    }
    if (job.paths != nullptr) {
      int plain = 0;
      for (int n = 0; n < N; ++n) plain += (rare >> n & 1) == 0 && (n == 0 || j[n] != j[0]);
      atomicAdd(&job.paths->split, 4ull * uint64_t(plain));
    }
    if (rare != 0)
#pragma unroll 1
      for (int n = 0; n < N; ++n) {
        const int at = n == 0 ? j[0] : j[N - 1];
        if ((rare >> n & 1) == 0) continue;
        const float4 r = rare_fragment(job, row, col + 8 * at, t, a, b + 8 * at * kStepBytes, rows,
                                       n == 0 ? columns[0] : columns[N - 1], n == 0 ? from[0] : from[N - 1]);
        (n == 0 ? to[0] : to[N - 1]) = r;
      }
#pragma unroll
    for (int n = 0; n < N; ++n) *slots[n] = to[n];
  }
};

constexpr int kSlots = 16 * kPitch / 128; ///< fragments that a warp's staging memory holds

/// Those of a warp's fragments that `apart` names, by way of its staging memory, so that one text serves all.
template <int Registers>
__device__ __forceinline__ void step_apart(const ApartStep &step, uint32_t apart, float *staging, float (&acc)[Registers]) {
  float4 *const own = reinterpret_cast<float4 *>(staging) + threadIdx.x % 32;
  uint32_t fa[4][4];
  load_rows(fa, step.a);
  if (step.job.paths != nullptr && threadIdx.x % 32 == 0)
    atomicAdd(&step.job.paths->apart, 128ull * uint64_t(__popc(apart)));
  while (apart != 0) {
    uint32_t now = apart;
    while (__popc(now) > kSlots) now &= 0x7FFFFFFFu >> __clz(int(now));
    apart &= ~now;
    float4 *slot = own;
#pragma unroll
    for (int j = 0; j < Registers / 4; ++j)
      if ((now >> j & 1) != 0) {
        *slot = make_float4(acc[4 * j], acc[4 * j + 1], acc[4 * j + 2], acc[4 * j + 3]);
        slot += 32;
      }
    slot = own;
    for (uint32_t rest = now; rest != 0; slot += 64) { // two at a time
      const int first = __ffs(int(rest)) - 1;
      rest &= rest - 1;
      const int second = rest != 0 ? __ffs(int(rest)) - 1 : first;
      float4 *const slots[2] = {slot, rest != 0 ? slot + 32 : slot};
      rest &= rest - 1;
      step.run<2>(fa, {first, second}, slots);
    }
    slot = own;
#pragma unroll
    for (int j = 0; j < Registers / 4; ++j)
      if ((now >> j & 1) != 0) {
        const float4 r = *slot;
        acc[4 * j] = r.x, acc[4 * j + 1] = r.y, acc[4 * j + 2] = r.z, acc[4 * j + 3] = r.w;
        slot += 32;
      }
  }
}

/// One warpgroup's 64 rows of every mostly fast tile.
template <int TileN>
__device__ void multiply_tiles(const Fp4Job &job, int64_t tiles, int warpgroup, Ring<TileN> ring,
                               float *staging) {
  const Limits limits(job.accumulation);
  const int steps = int(job.steps), lane = int(threadIdx.x) % 32, warp_rows = int(threadIdx.x) / 32 % 4 * 16;
  const bool leader = lane == 0;
  for (int64_t i = next_tile<TileN, TileWay::mostly>(job, blockIdx.x, tiles); i < tiles;
       i = next_tile<TileN, TileWay::mostly>(job, i + gridDim.x, tiles)) {
    const TileAt at = tile_of<TileN>(job, i);
    const int group_row = int(at.row) + warpgroup * 64, row = group_row + warp_rows, col = int(at.col);
    // accumulators of this thread's two rows below these are not cut by anything
    float limit[2];
    {
      int lsb = 0x3FFF;
      for (int c = lane; c < TileN; c += 32) {
        const RowInfo y = job.b.rows[col + c];
        if (!y.empty()) lsb = min(lsb, int(y.lsb));
      }
      lsb = __reduce_min_sync(0xFFFFFFFF, lsb);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const RowInfo x = job.a.rows[row + lane / 4 + 8 * h];
        limit[h] = job.accumulation == Accumulation::mmasim && !x.empty() && lsb != 0x3FFF
                       ? uncut_below(x.lsb + lsb)
                       : __int_as_float(0x7F800000);
      }
    }
    float acc[TileN / 2] = {};
    for (int first = 0; first < steps; first += 32) {
      const StepBits bits = classify_steps<TileN>(job, limits, group_row, col, first);
      const int end = min(32, steps - first);
      const uint32_t slow = ~bits.whole & (0xFFFFFFFFu >> (32 - end)); // steps that are not whole
      uint32_t rest = slow;                                            // of which none is asked for yet
      // what is read of one is asked for a step ahead, and what follows from it while another is multiplied
      HalvedStep next;
      HalvedPlan plan;
      const auto read_next = [&] {
        if (rest != 0) next = HalvedStep(job, row, col, TileN, first + __ffs(int(rest)) - 1);
        rest &= rest - 1;
      };
      const auto plan_next = [&] {
        plan = HalvedPlan(next);
        read_next();
      };
      if (rest != 0) {
        read_next();
        plan_next();
      }
      for (int t = 0; t < end;) {
        const uint32_t others = ~(bits.whole >> t);
        const int run = others == 0 ? end - t : min(__ffs(int(others)) - 1, end - t);
        if (run != 0) {
          whole_steps<TileN>(ring, warpgroup, run, acc);
          t += run;
          if (job.paths != nullptr && leader) atomicAdd(&job.paths->summed, uint64_t(run) * 16 * TileN);
          continue;
        }
        // a step in halves
        const bool more = slow >> t > 1;
        const HalvedPlan here = plan;
        uint32_t apart = here.ways & ((1u << (TileN / 8)) - 1);
        if ((bits.grown >> t & 1) != 0) apart |= beyond_limit(acc, limit);
        barrier_wait(ring.full + 8 * ring.stage, ring.parity);
        const uint32_t a = ring.data + ring.stage * ring.kBytes + (warpgroup * 64 + warp_rows) * kStepBytes,
                       b = ring.data + ring.stage * ring.kBytes + ring.kBytesA;
        uint32_t high[4][4], low[4][4];
#pragma unroll
        for (int g = 0; g < 4; ++g) {
          uint32_t r[4];
          load_matrices(r, a + place(lane & 15, g * 2 + (lane >> 4)));
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            const bool is_low = (here.low >> (k % 2 * 8 + g) & 1) != 0;
            high[g][k] = is_low ? 0u : r[k];
            low[g][k] = is_low ? r[k] : 0u;
          }
        }
        constexpr int kSlices = TileN / kHalvedN, kOutputs = kHalvedN / 2, kFragments = kHalvedN / 8;
        float h[2][kOutputs], l[kOutputs];
        const auto multiply_half = [&](float(&sum)[kOutputs], const uint32_t(&half)[4][4], int s) {
          wgmma_fence();
#pragma unroll
          for (int g = 0; g < 4; ++g)
            multiply_registers(sum, half[g], descriptor(b + s * kHalvedN * kStepBytes + 32 * g), g != 0);
          wgmma_commit();
        };
        const auto add_slice = [&](float(&hs)[kOutputs], int s) {
#pragma unroll
          for (float &x : hs) asm volatile("" : "+f"(x)::"memory"); // complete only from here on
#pragma unroll
          for (float &x : l) asm volatile("" : "+f"(x)::"memory");
          float *const d = acc + s * kOutputs;
          if ((apart >> (s * kFragments) & ((1u << kFragments) - 1)) != 0) { // zeros leave those as they are
#pragma unroll
            for (int r = 0; r < kOutputs; ++r)
              if ((apart >> (s * kFragments + r / 4) & 1) != 0) hs[r] = l[r] = 0.0f;
          }
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            if (here.halved(half)) {
#pragma unroll
              for (int j = 0; j < kFragments; ++j)
#pragma unroll
                for (int o = 4 * j + 2 * half; o < 4 * j + 2 * half + 2; ++o) d[o] = halved_step(d[o], hs[o], l[o]);
            } else {
#pragma unroll
              for (int j = 0; j < kFragments; ++j)
#pragma unroll
                for (int o = 4 * j + 2 * half; o < 4 * j + 2 * half + 2; ++o) d[o] = add_rz(d[o], hs[o]);
            }
          }
        };
        multiply_half(h[0], high, 0);
        multiply_half(l, low, 0);
        if constexpr (kSlices == 2) {
          multiply_half(h[1], high, 1); // while the first slice is added
          if (more) plan_next();
          wgmma_wait<1>();
          add_slice(h[0], 0);
          multiply_half(l, low, 1);
          wgmma_wait<0>();
          add_slice(h[1], 1);
        } else {
          if (more) plan_next();
          wgmma_wait<0>();
          add_slice(h[0], 0);
        }
        if (apart != 0) step_apart({job, row, col, first + t, a, b, here.ranges}, apart, staging, acc);
        if (leader) barrier_arrive(ring.empty + 8 * ring.stage);
        ring.advance();
        ++t;
        if (job.paths != nullptr && leader)
          atomicAdd(&job.paths->halved,
                    128ull * uint64_t(TileN / 8 - __popc(apart)));
      }
    }
    write_tile<TileN>(job, acc, staging, row, col);
    if (job.paths != nullptr && threadIdx.x == 0 && col % 128 == 0)
      atomicAdd(&job.paths->tiles_mostly, 1ull);
  }
}

template <int TileN>
__global__ void __launch_bounds__(kThreads, 1)
    mostly_fast_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
                       const __grid_constant__ Fp4Job job, int64_t tiles) {
  extern __shared__ uint8_t shared[];
  const Ring<TileN> ring((shared_address(shared) + 1023) & ~1023u);
  ring.start(4 * kConsumers);
  const int warpgroup = int(threadIdx.x / 128), warp = int(threadIdx.x / 32);
  if (warpgroup == kConsumers) {
    fewer_registers<24>();
    if (warp == 4 * kConsumers) feed_steps<TileWay::mostly>(&map_a, &map_b, job, tiles, ring);
  } else {
    more_registers<240>();
    float *staging =
        reinterpret_cast<float *>(shared + (ring.empty + 8 * kStages<TileN> - shared_address(shared)));
    multiply_tiles<TileN>(job, tiles, warpgroup, ring, staging + warp * 16 * kPitch);
  }
}

template <int TileN> void launch(const Fp4Job &job, int processors, cudaStream_t stream) {
  launch_tiles<TileN>(mostly_fast_kernel<TileN>, "mostly_fast_kernel", kThreads, kSharedBytes<TileN>, job,
                      processors, stream);
}

} // namespace

void gemm_fp4_mostly(const Fp4Job &job, int processors, cudaStream_t stream) {
  narrow_tiles(job, processors) ? launch<64>(job, processors, stream) : launch<128>(job, processors, stream);
}

} // namespace nvfp4::cuda
