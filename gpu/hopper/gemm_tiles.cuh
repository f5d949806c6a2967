// SPDX-License-Identifier: Apache-2.0
// The GEMM that BF16 and FP8 share: D (M,N) = A (M,K) * B (N,K)^T, operands of 128 bytes a row and step
// brought by the copy engine, one accumulator set per output tile, chained over all of K in increasing order.
#pragma once
#include "nvfp4/gpu/device/device.hpp"
#include "nvfp4/gpu/hopper/tensor_map.hpp"
#include "nvfp4/gpu/hopper/wgmma.cuh"
#include "nvfp4/emulator/gemm/epilogue.hpp"

#include <algorithm>

namespace nvfp4::cuda::hopper {

constexpr int kTileM = 128, kStepBytes = 128; ///< a step along K: four instructions of 32 bytes
constexpr int kConsumers = 2;                 ///< warpgroups of 64 rows each; a third one feeds them
constexpr int kThreads = 128 * (kConsumers + 1);
constexpr int kGroupM =
    16; ///< tiles are visited in groups of this many rows of tiles, so that operands stay in L2

/// Stages that fit into 192 KiB.
template <int TileN> constexpr int kStages = 192 * 1024 / ((kTileM + TileN) * kStepBytes);
constexpr int kPitch = 40; ///< floats between staged rows: no bank conflicts
template <int TileN>
constexpr int kSharedBytes = kStages<TileN> *((kTileM + TileN) * kStepBytes + 16) +
                             4 * kConsumers * 16 * kPitch * 4 + 1024;

struct Product {
  int64_t m, n;
  int steps; ///< along K
  int step_elements;
  float alpha;
  const float *bias; ///< (N), may be null
  Epilogue epilogue;
  float *out; ///< (M,N)
};

struct TileAt {
  int64_t row, col;
};

__device__ inline TileAt tile_at(const Product &p, int64_t index, int tile_n) {
  const int64_t tiles_m = (p.m + kTileM - 1) / kTileM, tiles_n = (p.n + tile_n - 1) / tile_n;
  const int64_t group = index / (kGroupM * tiles_n), first = group * kGroupM;
  const int64_t rows = min(int64_t(kGroupM), tiles_m - first), inside = index - group * kGroupM * tiles_n;
  return {(first + inside % rows) * kTileM, inside / rows * tile_n};
}

/// One thread keeps the stages full.
template <int TileN>
__device__ void feed(const CUtensorMap *map_a, const CUtensorMap *map_b, const Product &p, int64_t tiles,
                     uint32_t data, uint32_t full, uint32_t empty) {
  constexpr uint32_t bytes_a = kTileM * kStepBytes, bytes = bytes_a + TileN * kStepBytes;
  uint32_t stage = 0, parity = 0;
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    const TileAt at = tile_at(p, t, TileN);
    for (int step = 0; step < p.steps; ++step) {
      barrier_wait(empty + 8 * stage, parity ^ 1);
      barrier_expect(full + 8 * stage, bytes);
      copy_box(data + stage * bytes, map_a, step * p.step_elements, int(at.row), full + 8 * stage);
      copy_box(data + stage * bytes + bytes_a, map_b, step * p.step_elements, int(at.col), full + 8 * stage);
      if (++stage == kStages<TileN>) stage = 0, parity ^= 1;
    }
  }
}

/// Hands one warp's 16 rows of an (m, n) output to store(row, column, value). 32 columns at a time go through
/// shared memory, so that 32 lanes write 128 bytes of a row and the code stays small enough for the
/// instruction cache: straight from registers it cost 28 us a tile on an H200.
template <int TileN, class Store>
__device__ void write_rows(int64_t m, int64_t n, const float (&d)[TileN / 2], float *staging, int64_t row0,
                           int64_t col0, Store store) {
  const int lane = threadIdx.x & 31;
  float2 *put = reinterpret_cast<float2 *>(staging + (lane >> 2) * kPitch) + (lane & 3);
  const int rows = int(min(int64_t(16), m - row0));
#pragma unroll
  for (int chunk = 0; chunk < TileN / 32; ++chunk) {
    __syncwarp();
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float *acc = d + 16 * chunk + 4 * j;
      put[4 * j] = {acc[0], acc[1]};
      put[4 * j + 4 * kPitch] = {acc[2], acc[3]}; // 8 rows on
    }
    __syncwarp();
    const int64_t col = col0 + 32 * chunk + lane;
    if (col >= n) continue; // the last lanes of a ragged tile
#pragma unroll 8
    for (int r = 0; r < 16; ++r)
      if (r < rows) store(row0 + r, col, staging[r * kPitch + lane]);
  }
  __syncwarp(); // wgmma needs whole warps
}

/// One warpgroup multiplies its 64 rows of every tile. A stage is given back once the next step's
/// instructions are under way, so that the tensor cores never wait for it.
template <class Op, int TileN>
__device__ void multiply(const Product &p, int64_t tiles, int warpgroup, uint32_t data, uint32_t full,
                         uint32_t empty, float *staging) {
  constexpr uint32_t bytes_a = kTileM * kStepBytes, bytes = bytes_a + TileN * kStepBytes;
  const bool leader = (threadIdx.x & 31) == 0;
  uint32_t stage = 0, parity = 0;
  for (int64_t t = blockIdx.x; t < tiles; t += gridDim.x) {
    float d[TileN / 2];
#pragma unroll
    for (float &x : d) x = 0.0f;
    uint32_t previous = 0;
    for (int step = 0; step < p.steps; ++step) {
      barrier_wait(full + 8 * stage, parity);
      const uint32_t a = data + stage * bytes + warpgroup * 64 * kStepBytes,
                     b = data + stage * bytes + bytes_a;
#pragma unroll
      for (float &x : d) asm volatile("" : "+f"(x)::"memory");
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < 4; ++k) Op::run(d, descriptor(a + 32 * k), descriptor(b + 32 * k));
      wgmma_commit();
      wgmma_wait<1>();
      if (step > 0 && leader) barrier_arrive(empty + 8 * previous);
      previous = stage;
      if (++stage == kStages<TileN>) stage = 0, parity ^= 1;
    }
    wgmma_wait<0>();
#pragma unroll
    for (float &x : d) asm volatile("" : "+f"(x)::"memory"); // complete only from here on
    if (p.steps > 0 && leader) barrier_arrive(empty + 8 * previous);
    const TileAt at = tile_at(p, t, TileN);
    const bool reads = p.epilogue.into != Epilogue::Into::overwrite;
    write_rows<TileN>(p.m, p.n, d, staging, at.row + threadIdx.x / 32 * 16, at.col,
                      [&](int64_t row, int64_t col, float value) {
                        float *const out = p.out + row * p.n + col;
                        *out = finish(p.epilogue, p.alpha, value, reads ? *out : 0.0f,
                                      p.bias ? p.bias + col : nullptr);
                      });
  }
}

template <class Op, int TileN>
__global__ void __launch_bounds__(kThreads, 1)
    gemm_kernel(const __grid_constant__ CUtensorMap map_a, const __grid_constant__ CUtensorMap map_b,
                Product p, int64_t tiles) {
  extern __shared__ uint8_t shared[];
  const uint32_t data = (shared_address(shared) + 1023) & ~1023u;
  const uint32_t full = data + kStages<TileN> * (kTileM + TileN) * kStepBytes,
                 empty = full + 8 * kStages<TileN>;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages<TileN>; ++s) {
      barrier_init(full + 8 * s, 1);
      barrier_init(empty + 8 * s, 4 * kConsumers);
    }
    barrier_init_fence();
  }
  __syncthreads();
  const int warpgroup = int(threadIdx.x / 128);
  if (warpgroup == kConsumers) {
    fewer_registers<40>();
    if (threadIdx.x == 128 * kConsumers) feed<TileN>(&map_a, &map_b, p, tiles, data, full, empty);
  } else {
    more_registers<232>();
    float *staging =
        reinterpret_cast<float *>(shared + (empty + 8 * kStages<TileN> - shared_address(shared)));
    multiply<Op, TileN>(p, tiles, warpgroup, data, full, empty, staging + threadIdx.x / 32 * 16 * kPitch);
  }
}

template <class Op, int TileN>
void launch_tiles(const Operand &a, const Operand &b, const Product &p, int64_t tiles, int processors,
                  cudaStream_t stream) {
  const CUtensorMap map_a = tensor_map(a, kTileM), map_b = tensor_map(b, TileN);
  check(cudaFuncSetAttribute(gemm_kernel<Op, TileN>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                             kSharedBytes<TileN>),
        "shared memory of the GEMM kernel");
  gemm_kernel<Op, TileN>
      <<<unsigned(std::min<int64_t>(tiles, processors)), kThreads, kSharedBytes<TileN>, stream>>>(
          map_a, map_b, p, tiles);
  check_launch("gemm_kernel");
}

/// Wide tiles where they fill the GPU at least once, narrow ones otherwise: the bits are the same.
template <class Op> void launch(const Operand &a, const Operand &b, Product p, cudaStream_t stream) {
  if (p.m == 0 || p.n == 0) return;
  int device = 0, processors = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
        "cudaDeviceGetAttribute");
  p.step_elements = kStepBytes / a.element_bytes;
  p.steps = int((a.k + p.step_elements - 1) / p.step_elements);
  const auto tiles = [&](int tile_n) {
    return ((p.m + kTileM - 1) / kTileM) * ((p.n + tile_n - 1) / tile_n);
  };
  if (tiles(256) >= processors)
    launch_tiles<Op, 256>(a, b, p, tiles(256), processors, stream);
  else
    launch_tiles<Op, 128>(a, b, p, tiles(128), processors, stream);
}

} // namespace nvfp4::cuda::hopper
