// SPDX-License-Identifier: Apache-2.0
// Tiles of the exact FP4 product on Hopper whose accumulators go through the tensor core in the steps that it cannot sum
// whole: the accumulator is parted at a grid, and the tensor core adds the products of A's groups above the grid to one part
// and of those below to the other, exactly; one addition toward zero of both is the step. README.md has the proof. Internal
// to gemm_fp4_mostly.cu.
#pragma once
#include "nvfp4/gpu/emulated/gemm_fp4_carry.hpp"
#include "nvfp4/gpu/emulated/gemm_fp4_tiles.cuh"

namespace nvfp4::cuda::hopper {

/// Whether it is true of any thread of the warpgroups that multiply. All of them come here.
template <int Warpgroups> __device__ inline bool any_consumer(bool x) {
  int any;
  asm volatile("{\n.reg .pred p, q;\nsetp.ne.b32 q, %1, 0;\nbarrier.cta.red.or.pred p, 1, %2, q;\nselp.b32 %0, 1, 0, p;\n}"
               : "=r"(any)
               : "r"(int(x)), "n"(128 * Warpgroups)
               : "memory");
  return any != 0;
}

/// A step of a warpgroup's piece, which begins at the tile's column `column`; `row` is the warp's first. `low`: the lower parts
/// of this thread's two rows. `most`: the largest accumulators so far.
template <class G>
__device__ __forceinline__ void carried_step(Ring<G> &ring, int row, int column, const uint32_t (&low)[2], const float (&magic)[2],
                                             float (&most)[2], float (&acc)[G::kRegisters]) {
  const int lane = int(threadIdx.x) % 32;
  float h[G::kRegisters], l[G::kRegisters];
#pragma unroll
  for (int i = 0; i < G::kRegisters; ++i) {
    most[i / 2 % 2] = fmaxf(most[i / 2 % 2], fabsf(acc[i]));
    part_accumulator(acc[i], magic[i / 2 % 2], h[i], l[i]);
  }
  const uint32_t index = uniform(ring.stage), stage = ring.data + index * ring.kBytes, a = stage + row * kStepBytes,
                 b = uint32_t(descriptor(stage + ring.kBytesA + column * kStepBytes));
  barrier_wait(ring.full + 8 * index, ring.parity);
  uint32_t upper[4][4], lower[4][4];
#pragma unroll
  for (int g = 0; g < 4; ++g) {
    uint32_t r[4];
    load_matrices(r, a + place(lane & 15, g * 2 + (lane >> 4)));
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const bool is_low = (low[k % 2] >> g & 1) != 0;
      upper[g][k] = is_low ? 0u : r[k];
      lower[g][k] = is_low ? r[k] : 0u;
    }
  }
  wgmma_fence();
#pragma unroll
  for (int g = 0; g < 4; ++g) {
    multiply_registers(h, upper[g], descriptor_behind(b, g));
    multiply_registers(l, lower[g], descriptor_behind(b, g));
  }
  wgmma_commit();
  wgmma_wait<0>();
#pragma unroll
  for (float &x : h) asm volatile("" : "+f"(x)::"memory"); // complete only from here on
#pragma unroll
  for (float &x : l) asm volatile("" : "+f"(x)::"memory");
  if (lane == 0) barrier_arrive(ring.empty + 8 * index);
  ring.advance();
#pragma unroll
  for (int i = 0; i < G::kRegisters; ++i) acc[i] = add_rz(h[i], l[i]);
}

/// One warpgroup's piece of every carried tile.
template <class G>
__device__ void multiply_carried(const Fp4Job &job, int64_t tiles, int warpgroup, Ring<G> &ring, float *staging) {
  constexpr int kPieceN = G::kPieceN;
  const Limits limits(job.accumulation);
  const int steps = int(job.steps), lane = int(threadIdx.x) % 32;
  const int warp_row = G::row_of(warpgroup) + int(threadIdx.x) / 32 % 4 * 16, // of the tile
      column = G::column_of(warpgroup);
  const bool leader = lane == 0;
  for (int64_t i = next_tile<G, TileWay::carried>(job, blockIdx.x, tiles); i < tiles;
       i = next_tile<G, TileWay::carried>(job, i + gridDim.x, tiles)) {
    const TileAt at = tile_of<G>(job, i);
    const int group_row = int(at.row) + G::row_of(warpgroup), row = int(at.row) + warp_row, col = int(at.col) + column;
    float magic[2], limit[2], most[2] = {0.0f, 0.0f};
    {
      int lsb = 0x3FFF;
      for (int c = lane; c < kPieceN; c += 32) {
        const RowInfo y = job.b.rows[col + c];
        if (!y.empty()) lsb = min(lsb, int(y.lsb));
      }
      lsb = __reduce_min_sync(0xFFFFFFFF, lsb);
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const RowInfo x = job.a.rows[row + lane / 4 + 8 * h];
        const int grid = x.empty() || lsb == 0x3FFF ? 0 : x.grid + lsb;
        magic[h] = carry_magic(grid);
        limit[h] = carry_limit(grid);
      }
    }
    float acc[G::kRegisters] = {};
    for (int first = 0; first < steps; first += 32) {
      const uint32_t whole = classify_steps<kPieceN>(job, limits, group_row, col, first).whole;
      const int end = min(32, steps - first);
      uint32_t rest = ~whole & (0xFFFFFFFFu >> (32 - end)); // steps that are carried and not asked for yet
      uint32_t next[2];
      const auto read_next = [&] {
        if (rest == 0) return;
        const int64_t step = first + __ffs(int(rest)) - 1;
        rest &= rest - 1;
#pragma unroll
        for (int h = 0; h < 2; ++h) next[h] = job.a.carried[step * job.a.padded_rows + row + lane / 4 + 8 * h];
      };
      read_next();
      for (int t = 0; t < end;) {
        const uint32_t others = ~(whole >> t);
        const int run = others == 0 ? end - t : min(__ffs(int(others)) - 1, end - t);
        if (run != 0) {
          whole_steps<G>(ring, warpgroup, run, acc);
          t += run;
          if (job.paths != nullptr && leader) atomicAdd(&job.paths->summed, uint64_t(run) * 16 * kPieceN);
          continue;
        }
        const uint32_t here[2] = {next[0], next[1]};
        read_next();
        carried_step<G>(ring, warp_row, column, here, magic, most, acc);
        ++t;
        if (job.paths != nullptr && leader) atomicAdd(&job.paths->carried, uint64_t(16) * kPieceN);
      }
    }
    const bool outgrown = any_consumer<G::kWarpgroups>(most[0] >= limit[0] || most[1] >= limit[1]);
    if (!outgrown) {
      write_tile<kPieceN>(job, acc, staging, row, col);
    } else if (threadIdx.x == 0) { // gemm_fp4_framed.cu does it over
      for (int r = 0; r < G::kM; r += 64)
        for (int c = 0; c < G::kN; c += 32) job.outgrown_at(at.row + r, at.col + c) = 1;
      if (job.paths != nullptr) atomicAdd(&job.paths->outgrown, uint64_t(G::kM / 64 * (G::kN / 32)));
    }
    if (job.paths != nullptr && threadIdx.x == 0 && counts_tile(at)) atomicAdd(&job.paths->tiles_carried, 1ull);
  }
}

} // namespace nvfp4::cuda::hopper
