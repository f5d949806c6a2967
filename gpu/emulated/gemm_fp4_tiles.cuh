// SPDX-License-Identifier: Apache-2.0
// What the kernels of the exact FP4 product on Hopper share: the tiles of one way in order, and a warpgroup
// that feeds their steps to shared memory by the tensor copy engine. Internal.
#pragma once
#include "nvfp4/gpu/emulated/gemm_fp4_steps.cuh"
#include "nvfp4/gpu/hopper/gemm_tiles.cuh"

namespace nvfp4::cuda::hopper {

/// A block's tile of M x N outputs, by pieces of 64 x PieceN, a warpgroup each.
template <int M, int N, int PieceN> struct Geometry {
  static constexpr int kM = M, kN = N, kPieceN = PieceN;
  static constexpr int kAcross = N / PieceN, kWarpgroups = M / 64 * kAcross; ///< pieces of 64 rows, and all
  static constexpr int kRegisters = PieceN / 2;                             ///< outputs of a thread
  static constexpr int kBlocks = M * N < 128 * 64 ? 2 : 1;                  ///< of a multiprocessor
  /// The first warp behind the pieces' feeds them. Two warpgroups and more take registers from its warpgroup: what it keeps,
  /// and what each of theirs then has.
  static constexpr bool kTakes = kWarpgroups > 1;
  static constexpr int kKept = 24, kTaken = kWarpgroups == 2 ? 240 : 112;
  static constexpr int kFeeder = 4 * kWarpgroups, kThreads = 128 * kWarpgroups + (kTakes ? 128 : 32);
  static constexpr int kStepBytes = (M + N) * hopper::kStepBytes;
  /// Besides the stages: rows that warps write, and what aligns them.
  static constexpr int kOtherBytes = 4 * kWarpgroups * 16 * kPitch * int(sizeof(float)) + 1024;
  static constexpr int kStages = (226 * 1024 / kBlocks - kOtherBytes) / (kStepBytes + 16);
  static constexpr int kSharedBytes = kStages * (kStepBytes + 16) + kOtherBytes;

  /// The first row and column of a warpgroup's piece within the tile.
  static __device__ int row_of(int warpgroup) { return warpgroup / kAcross * 64; }
  static __device__ int column_of(int warpgroup) { return warpgroup % kAcross * PieceN; }
};
using WideTile = Geometry<128, 128, 128>; ///< most outputs for the bytes that it reads
using NarrowTile = Geometry<128, 64, 64>;
using PiecedTile = Geometry<128, 64, 32>; ///< four warps a scheduler hide the latency of dependent additions
using SmallTile = Geometry<64, 32, 32>;   ///< where multiprocessors would be idle

enum class TileSize { wide, narrow, small };

/// Small where tiles of 128 x 64 leave half of the multiprocessors without one; else narrow where that makes the
/// fullest one's share smaller. The bits are the same.
inline TileSize tile_size(const Fp4Job &job, int processors) {
  const int64_t tiles = job.tiles_m * job.tiles_n;
  const auto rounds = [&](int64_t n) { return (n + processors - 1) / processors; };
  if (4 * tiles <= processors) return TileSize::small;
  return rounds(2 * tiles) < 2 * rounds(tiles) ? TileSize::narrow : TileSize::wide;
}

/// Tile `index`, in bands of kGroupM rows of tiles. 32 bits count the tiles of any output that fits the memory, and divide in
/// a fraction of the time that 64 take.
template <class G> __device__ inline TileAt tile_of(const Fp4Job &job, int64_t index) {
  const uint32_t columns = uint32_t(job.tiles_n) * (128 / G::kN), i = uint32_t(index),
                 band = i / (kGroupM * columns), first = band * kGroupM, inside = i - first * columns;
  const uint32_t rows = min(uint32_t(kGroupM), uint32_t(job.tiles_m) * (128 / G::kM) - first);
  return {int64_t(first + inside % rows) * G::kM, int64_t(inside / rows) * G::kN};
}
/// Of the tiles in a tile of 128 x 128, the one that counts it.
__device__ inline bool counts_tile(TileAt at) { return at.row % 128 == 0 && at.col % 128 == 0; }

/// The block's next tile from `index` on whose way is one of two, looked for by a whole warp; `tiles` or more
/// where there is none. Those that outgrew being carried are framed ones.
template <class G, TileWay one, TileWay other = one>
__device__ inline int64_t next_tile(const Fp4Job &job, int64_t index, int64_t tiles) {
  for (; index < tiles; index += 32 * int64_t(gridDim.x)) {
    const int64_t mine = index + (threadIdx.x & 31) * int64_t(gridDim.x);
    bool found = false;
    if (mine < tiles) {
      const TileAt at = tile_of<G>(job, mine);
      const TileWay way = job.way(at.row, at.col);
      found = way == one || way == other ||
              (one == TileWay::framed && way == TileWay::carried && job.outgrown_at(at.row, at.col) != 0);
    }
    const uint32_t lanes = __ballot_sync(0xFFFFFFFF, found);
    if (lanes != 0) return index + (__ffs(int(lanes)) - 1) * int64_t(gridDim.x);
  }
  return index;
}

/// Shared memory by stages of one step, and their barriers.
template <class G, int Stages = G::kStages> struct Ring {
  static constexpr uint32_t kBytesA = G::kM * kStepBytes, kBytes = G::kStepBytes;
  static constexpr uint32_t kAllBytes = Stages * (kBytes + 16);
  uint32_t data, full, empty, stage = 0, parity = 0;

  __device__ explicit Ring(uint32_t start)
      : data(start), full(start + Stages * kBytes), empty(full + 8 * Stages) {}
  /// What lies behind it in the block's shared memory: kPitch floats for each row of warps that write.
  [[nodiscard]] __device__ float *staging(uint8_t *shared) const {
    return reinterpret_cast<float *>(shared + (empty + 8 * Stages - shared_address(shared)));
  }
  __device__ void advance() {
    if (++stage == Stages) stage = 0, parity ^= 1;
  }
  /// Starts the barriers for this many warps that read; the block's threads wait for it.
  __device__ void start(int warps) const {
    if (threadIdx.x == 0) {
      for (int s = 0; s < Stages; ++s) {
        barrier_init(full + 8 * s, 1);
        barrier_init(empty + 8 * s, uint32_t(warps));
      }
      barrier_init_fence();
    }
    __syncthreads();
  }
};

/// One warp keeps the stages full, step by step of every tile of this way.
template <TileWay way, class G, int Stages>
__device__ void feed_steps(const CUtensorMap *map_a, const CUtensorMap *map_b, const Fp4Job &job,
                           int64_t tiles, Ring<G, Stages> &ring) {
  const bool leader = (threadIdx.x & 31) == 0;
  for (int64_t i = next_tile<G, way>(job, blockIdx.x, tiles); i < tiles; i = next_tile<G, way>(job, i + gridDim.x, tiles)) {
    const TileAt at = tile_of<G>(job, i);
    if (leader) {
      for (int64_t step = 0; step < job.steps; ++step) {
        const uint32_t full = ring.full + 8 * ring.stage, to = ring.data + ring.stage * ring.kBytes;
        barrier_wait(ring.empty + 8 * ring.stage, ring.parity ^ 1);
        barrier_expect(full, ring.kBytes);
        copy_box(to, map_a, int(step * 64), int(at.row), full);
        copy_box(to + ring.kBytesA, map_b, int(step * 64), int(at.col), full);
        ring.advance();
      }
    }
    __syncwarp();
  }
}

/// What all lanes have, so that the compiler knows it: wgmma's descriptors are then made of it without moves.
__device__ inline uint32_t uniform(uint32_t x) { return __shfl_sync(0xFFFFFFFF, x, 0); }

/// The descriptor of shared memory 32 k bytes behind `low`'s, a descriptor's lower word.
__device__ inline uint64_t descriptor_behind(uint32_t low, int k) {
  constexpr uint64_t kUpper = descriptor(0) >> 32 << 32;
  return kUpper | (low + 2 * uint32_t(k));
}

/// The next step's products of a warpgroup's piece, from zero; under way until a wait.
template <class G>
__device__ __forceinline__ void multiply_step(Ring<G> &ring, int warpgroup, float (&sum)[G::kRegisters]) {
  const uint32_t index = uniform(ring.stage), stage = ring.data + index * ring.kBytes,
                 a = uint32_t(descriptor(stage + G::row_of(warpgroup) * kStepBytes)),
                 b = uint32_t(descriptor(stage + ring.kBytesA + G::column_of(warpgroup) * kStepBytes));
  barrier_wait(ring.full + 8 * index, ring.parity);
  wgmma_fence();
  Bf16::run<0>(sum, descriptor_behind(a, 0), descriptor_behind(b, 0));
#pragma unroll
  for (int k = 1; k < 4; ++k) Bf16::run(sum, descriptor_behind(a, k), descriptor_behind(b, k));
  wgmma_commit();
  ring.advance();
}

/// `count` > 0 steps of a warpgroup's piece, each summed whole by the tensor core and added toward zero. Two sets of sums:
/// one is multiplied into while the other is added. Nothing is under way before and after.
template <class G, class Count>
__device__ __forceinline__ void whole_steps(Ring<G> &ring, int warpgroup, Count count, float (&acc)[G::kRegisters]) {
  constexpr int kRegisters = G::kRegisters;
  const bool leader = (threadIdx.x & 31) == 0;
  float even[kRegisters], odd[kRegisters];
  uint32_t oldest = ring.stage; // the first stage not yet given back
  const auto add = [&](float(&sum)[kRegisters]) {
#pragma unroll
    for (float &x : sum) asm volatile("" : "+f"(x)::"memory"); // complete only from here on
    if (leader) barrier_arrive(ring.empty + 8 * oldest);
    if (++oldest == uint32_t(G::kStages)) oldest = 0;
#pragma unroll
    for (int r = 0; r < kRegisters; ++r) acc[r] = __fadd_rz(acc[r], sum[r]);
  };
  multiply_step(ring, warpgroup, even);
  Count step = 1;
  for (; step + 1 < count; step += 2) {
    multiply_step(ring, warpgroup, odd);
    wgmma_wait<1>();
    add(even);
    multiply_step(ring, warpgroup, even);
    wgmma_wait<1>();
    add(odd);
  }
  if (step < count) {
    multiply_step(ring, warpgroup, odd);
    wgmma_wait<1>();
    add(even);
    wgmma_wait<0>();
    add(odd);
  } else {
    wgmma_wait<0>();
    add(even);
  }
}

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

/// Starts a kernel over a job's tiles, at most as many blocks as run at a time; the operands come through tensor maps.
template <class G, class Count>
void launch_tiles(void (*kernel)(CUtensorMap, CUtensorMap, Fp4Job, Count), const char *name, int threads,
                  int shared_bytes, const Fp4Job &job, int processors, cudaStream_t stream) {
  const int64_t k = job.steps * 64, tiles = job.tiles_m * job.tiles_n * (128 / G::kM) * (128 / G::kN);
  const CUtensorMap map_a = tensor_map({job.a.values, job.a.padded_rows, k, k, 2}, G::kM),
                    map_b = tensor_map({job.b.values, job.b.padded_rows, k, k, 2}, G::kN);
  check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes),
        "shared memory of the FP4 product");
  kernel<<<unsigned(std::min<int64_t>(tiles, int64_t{processors} * G::kBlocks)), threads, size_t(shared_bytes), stream>>>(
      map_a, map_b, job, Count(tiles));
  check_launch(name);
}

/// Writes one warp's 16 rows of accumulators as outputs.
template <int TileN>
__device__ inline void write_tile(const Fp4Job &job, const float (&acc)[TileN / 2], float *staging,
                                  int64_t row, int64_t col) {
  if (job.out.finishes) { // apart, so that the code of a tile stays small
    write_rows<TileN>(job.m, job.n, acc, staging, row, col, [&](int64_t r, int64_t c, float value) {
      finish_in_place(job.out, job.n, r, c, value);
    });
    return;
  }
  const bool plain = job.writes_plainly();
  write_rows<TileN>(job.m, job.n, acc, staging, row, col, [&](int64_t r, int64_t c, float value) {
    if (plain)
      static_cast<float *>(job.out.d)[r * job.n + c] = value;
    else
      write_output(job.out, FormatId::f32, job.n, r, c, bit_cast<uint32_t>(value));
  });
}

} // namespace nvfp4::cuda::hopper
