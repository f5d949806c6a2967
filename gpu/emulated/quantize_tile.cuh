// SPDX-License-Identifier: Apache-2.0
// How a tile of a matrix reaches the registers of the threads that own its blocks: through shared memory,
// turned, rounded and rotated as the job asks. One thread holds one block.
#pragma once
#include "nvfp4/gpu/emulated/quantize_detail.cuh"
#include "nvfp4/gpu/emulated/quantize_scale.cuh"

namespace nvfp4::cuda {

constexpr int kTileThreads = 256, kTileRows = 16, kTileColumns = 32, kTileBlocks = 8;

/// Floats of shared memory: 16 rows of 16 blocks, each row padded so that 8 rows lie in distinct banks; or,
/// for a turned source, 8 blocks along k by 32 columns, which is less.
template <int block> constexpr int kTileFloats = kTileRows *(16 * block + 4);

/// The block that a thread owns, in the output.
struct Place {
  int64_t row, column; ///< column counts blocks
  bool exists;
};

/// Row tiles: grid (row tiles, tiles along k). Turned: grid (tiles of 32 columns, tiles along k).
template <int block> [[nodiscard]] NVFP4_HD inline dim3 tile_grid(const TileJob &t) {
  const int64_t along = t.turned ? kTileBlocks * block : 16 * block,
                across = t.turned ? kTileColumns : kTileRows;
  return dim3(unsigned((t.job.rows + across - 1) / across), unsigned((t.job.k + along - 1) / along));
}

/// A quarter of a warp reads 8 rows, so that it meets no bank twice; 16x16 tiles want 16 rows side by side.
template <int block>
[[nodiscard]] __device__ inline Place place_of(const TileJob &t, int &tile_row, int &tile_block) {
  const int warp = int(threadIdx.x) / 32, lane = int(threadIdx.x) % 32;
  Place p;
  if (t.turned) {
    tile_row = lane;
    tile_block = warp;
    p.row = int64_t(blockIdx.x) * kTileColumns + lane;
    p.column = int64_t(blockIdx.y) * kTileBlocks + warp;
  } else {
    const bool tiles = t.job.block_rows != 1;
    tile_row = tiles ? lane & 15 : (lane & 7) | (warp & 1) << 3;
    tile_block = tiles ? 2 * warp + (lane >> 4) : 4 * (warp >> 1) + (lane >> 3);
    p.row = int64_t(blockIdx.x) * kTileRows + tile_row;
    p.column = int64_t(blockIdx.y) * 16 + tile_block;
  }
  p.exists = p.row < t.job.rows && p.column * block < t.job.k;
  return p;
}

/// 16 bytes on their way to shared memory.
__device__ inline void copy_async(float *to, const float *from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(uint32_t(__cvta_generic_to_shared(to))),
               "l"(from)
               : "memory");
}

template <int block> __device__ inline void load_tile(const TileJob &t, float *tile) {
  const QuantizeJob &job = t.job;
  const int64_t across = int64_t(blockIdx.x) * (t.turned ? kTileColumns : kTileRows),
                along = int64_t(blockIdx.y) * (t.turned ? kTileBlocks : 16) * block;
  constexpr int row_bits = block == 16 ? 6 : 7; // 4 block quads a row
  const int bits = t.turned ? 3 : row_bits, quads = 1 << bits, step = kTileThreads >> bits;
  const int pitch = t.turned ? kTileColumns : 16 * block + 4;
  const int64_t first_row = t.turned ? along : across, first_column = t.turned ? across : along;
  const int64_t rows = t.turned ? t.present : job.rows, columns = t.turned ? job.rows : job.k;
  const int quad = int(threadIdx.x) & (quads - 1), r0 = int(threadIdx.x) >> bits;
  const float *from = job.x + (first_row + r0) * job.stride + first_column + 4 * quad;
  float *to = tile + r0 * pitch + 4 * quad;
  if (t.aligned && first_row + (block / 4) * step <= rows && first_column + 4 * quads <= columns) {
#pragma unroll
    for (int i = 0; i < block / 4; ++i) copy_async(to + i * step * pitch, from), from += step * job.stride;
  } else {
    const int64_t wide = columns - first_column - 4 * quad;
#pragma unroll 1
    for (int64_t left = rows - first_row - r0, i = 0; i < block / 4; ++i, left -= step) {
      for (int j = 0; j < 4; ++j) to[j] = left > 0 && j < wide ? from[j] : 0.0f;
      from += step * job.stride;
      to += step * pitch;
    }
  }
  asm volatile("cp.async.commit_group;\ncp.async.wait_group 0;" ::: "memory");
  __syncthreads();
}

__device__ inline void butterflies(float (&y)[16]) {
#pragma unroll
  for (int step = 1; step < 16; step *= 2)
#pragma unroll
    for (int i = 0; i < 16; ++i)
      if ((i & step) == 0) {
        const float a = y[i], b = y[i + step];
        y[i] = a + b;
        y[i + step] = a - b;
      }
}

/// rotate16 where FP32 sums are exact: 8 significant bits, exponents at most 12 apart and 4 bits of growth
/// make 24. Up to 33 apart, in two parts on both sides of a grid: sums of the upper ones have 24 bits above
/// it, and those of the lower ones, at most half of it each, 24 bits below 8 of it. Both sums exact, their
/// sum is rounded once. False, x untouched, elsewhere and where subnormals, NaN or Inf come near.
__device__ inline bool rotate16_fast(float *x, uint16_t signs) {
  uint32_t pairs[8], high = 0, low = 0xFFFFFFFF; // maxima, and minima of magnitude - 1, by halves
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    pairs[i] = bf16_pair(x[2 * i], x[2 * i + 1]);
    const uint32_t magnitude = pairs[i] & 0x7FFF7FFFu;
    high = __vmaxu2(high, magnitude);
    low = __viaddmin_u16x2(magnitude, 0xFFFFFFFFu, low); // zero becomes the largest
  }
  high = max(high >> 16, high & 0xFFFF);
  low = min(low >> 16, low & 0xFFFF);
  const int spread = high == 0 ? 0 : int(high >> 7) - int((low + 1) >> 7);
  if (high >= 0x7D80 || low < 0x0FFF || spread > 33) return false;
  float y[16];
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const uint32_t flips = uint32_t(signs >> (2 * i) & 1) << 15 | uint32_t(signs >> (2 * i + 1) & 1) << 31;
    y[2 * i] = bf16_low(pairs[i] ^ flips);
    y[2 * i + 1] = bf16_high(pairs[i] ^ flips);
  }
  if (spread > 12) {
    // 1.5 times 2^23 grids, which are 2^-19 of the largest binade
    const float grid = bit_cast<float>(((high >> 7) + 4) << 23 | 0x400000u);
    float rest[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      const float upper = __fadd_rn(__fadd_rn(y[i], grid), -grid);
      rest[i] = __fadd_rn(y[i], -upper);
      y[i] = upper;
    }
    butterflies(rest);
    butterflies(y);
#pragma unroll
    for (int i = 0; i < 16; ++i) y[i] = y[i] + rest[i];
  } else {
    butterflies(y);
  }
#pragma unroll
  for (int i = 0; i < 16; i += 2) { // times 1/4, -0 becomes +0
    const uint32_t pair = bf16_pair(__fmaf_rn(y[i], 0.25f, 0.0f), __fmaf_rn(y[i + 1], 0.25f, 0.0f));
    x[i] = bf16_low(pair);
    x[i + 1] = bf16_high(pair);
  }
  return true;
}

/// Group `i` of 16 of the whole matrix, rotated; by the definition where rotate16_fast does not do it. Neighbours in i
/// are neighbours in memory: along rows, or across columns of a turned source. Returns the output row.
__device__ inline int64_t rotated_group(const TileJob &t, int64_t i, float (&x)[kHadamardSize]) {
  const QuantizeJob &job = t.job;
  const int64_t groups = job.k / kHadamardSize, r = t.turned ? i % job.rows : i / groups,
                first = (t.turned ? i / job.rows : i % groups) * kHadamardSize;
  for (int j = 0; j < kHadamardSize; ++j)
    x[j] = !t.turned               ? job.x[r * job.stride + first + j]
           : first + j < t.present ? job.x[(first + j) * job.stride + r]
                                   : 0.0f;
  if (!rotate16_fast(x, t.signs)) rotate16(x, t.signs);
  return r;
}

/// A thread's block from the tile, rounded and rotated; false where a group of it could not be rotated.
template <int block>
__device__ inline bool fetch_block(const TileJob &t, const float *tile, int tile_row, int tile_block,
                                   float (&x)[block]) {
  if (t.turned) {
#pragma unroll
    for (int i = 0; i < block; ++i) x[i] = tile[(tile_block * block + i) * kTileColumns + tile_row];
  } else {
    const float *const from = tile + tile_row * (16 * block + 4) + tile_block * block;
#pragma unroll
    for (int i = 0; i < block; i += 4) {
      const float4 v = *reinterpret_cast<const float4 *>(from + i);
      x[i] = v.x, x[i + 1] = v.y, x[i + 2] = v.z, x[i + 3] = v.w;
    }
  }
  bool rotated = true;
  if (t.rotates) {
#pragma unroll
    for (int first = 0; first < block; first += 16) rotated = rotate16_fast(x + first, t.signs) && rotated;
  } else if (t.rounds) {
#pragma unroll
    for (int i = 0; i < block; i += 2) {
      const uint32_t pair = bf16_pair(x[i], x[i + 1]);
      x[i] = bf16_low(pair);
      x[i + 1] = bf16_high(pair);
    }
  }
  return rotated;
}

/// The largest word without its sign; above 0x7F800000 where there is a NaN.
template <int block> [[nodiscard]] __device__ inline uint32_t largest_word(const float (&x)[block]) {
  float largest = 0.0f;
#pragma unroll
  for (int i = 0; i < block; ++i)
    asm("{.reg .f32 a; abs.f32 a, %1; max.NaN.f32 %0, %0, a;}" : "+f"(largest) : "f"(x[i]));
  return bit_cast<uint32_t>(largest);
}

} // namespace nvfp4::cuda
