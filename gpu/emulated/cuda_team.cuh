// SPDX-License-Identifier: Apache-2.0
// A team of the models' kernels as GPU threads: one block, or a cluster of blocks where teams are fewer than
// multiprocessors. The same steps as CpuTeam, each followed by a barrier, with the same order of every sum.
// See reference_models/kernels/team.hpp.
#pragma once
#include "gpu/emulated/cuda_matmul.cuh"

namespace nvfp4::cuda {

inline constexpr unsigned kFullWarp = 0xFFFFFFFFu;

template <class T> struct CudaLane {
  int lane;

  template <class F> __device__ __forceinline__ void each(int64_t n, F f) const {
    for (int64_t i = lane; i < n; i += 32) f(i);
    __syncwarp();
  }
  template <class F> __device__ __forceinline__ void one(F f) const {
    if (lane == 0) f();
    __syncwarp();
  }
  template <class F> __device__ __forceinline__ auto sum(int64_t n, F term) const {
    decltype(term(int64_t{0})) p = 0;
    for (int64_t i = lane; i < n; i += 32) p += term(i);
    return butterfly(p);
  }
  template <class S> __device__ __forceinline__ S butterfly(S p) const {
#pragma unroll
    for (int step = 16; step > 0; step /= 2) p = p + shuffle(p, step);
    return p;
  }
  template <class F> __device__ __forceinline__ T max(int64_t n, F term) const {
    T p = T(-__int_as_float(0x7F800000));
    for (int64_t i = lane; i < n; i += 32) p = numerics::max(p, term(i));
#pragma unroll
    for (int step = 16; step > 0; step /= 2) p = numerics::max(p, shuffle(p, step));
    return p;
  }

private:
  static __device__ __forceinline__ float shuffle(float p, int step) {
    return __shfl_xor_sync(kFullWarp, p, step);
  }
  static __device__ __forceinline__ double shuffle(double p, int step) {
    return __shfl_xor_sync(kFullWarp, p, step);
  }
  static __device__ __forceinline__ uint64_t shuffle(uint64_t p, int step) {
    return __shfl_xor_sync(kFullWarp, static_cast<unsigned long long>(p), step);
  }
};

/// `blocks` blocks of Threads threads each; more than one are a cluster.
template <class T, int Threads> struct CudaTeam {
  int block, blocks;

  template <class F> __device__ __forceinline__ void each(int64_t n, F f) const {
    for (int64_t i = rank(); i < n; i += count()) f(i);
    sync();
  }
  template <class F> __device__ __forceinline__ void rows(int64_t n, F f) const {
    const CudaLane<T> lane{int(threadIdx.x % 32)};
    for (int64_t r = rank() / 32; r < n; r += count() / 32) f(r, lane);
    sync();
  }
  template <class Step, class Store>
  __device__ __forceinline__ void contract(int64_t m, int64_t n, int64_t k, Step step, Store store) const {
    for (int64_t at = rank(); at < m * n; at += count()) {
      const int64_t i = at / n, j = at % n;
      T acc = T(0);
#pragma unroll 4 // only the additions are a chain: what a step computes before them overlaps with other steps
      for (int64_t q = 0; q < k; ++q) acc = step(i, j, q, acc);
      store(i, j, acc);
    }
    sync();
  }
  __device__ __forceinline__ void matmul(int64_t m, int64_t n, int64_t k, models::View<const T> a,
                                         models::View<const T> b, models::View<T> c, bool add = false) const {
#if __CUDA_ARCH__ >= 900 // before, both kinds of tiles together have too little shared memory
    constexpr bool kLargeTiles = true;
#else
    constexpr bool kLargeTiles = false;
#endif
    if (kLargeTiles && m >= 64 && blocks == 1) {
      if constexpr (kLargeTiles) multiply_tiles<T, Threads, 64>(m, n, k, a, b, c, add, block, blocks);
    } else if (m >= kTiledRows) {
      multiply_tiles<T, Threads, 32>(m, n, k, a, b, c, add, block, blocks);
    } else {
      multiply_outputs<T>(m, n, k, a, b, c, add, rank(), count());
    }
    sync();
  }
  /// Blocks share 16 columns at a time; a thread adds up rows l, l + 32, ... of one column.
  template <class Term, class Store>
  __device__ __forceinline__ void column_sums(int64_t rows, int64_t cols, Term term, Store store) const {
    constexpr int kLanes = numerics::kLanes, kCols = 16;
    __shared__ T partial[kLanes][kCols];
    const int width = kCols / blocks;
    for (int64_t first = int64_t(block) * width; first < cols; first += kCols) {
      for (int at = int(threadIdx.x); at < kLanes * width; at += Threads) {
        const int l = at / width;
        const int64_t j = first + at % width;
        T sum = T(0);
        if (j < cols) {
#pragma unroll 8
          for (int64_t r = l; r < rows; r += kLanes) sum += term(r, j);
        }
        partial[l][at % width] = sum;
      }
      __syncthreads();
      const CudaLane<T> lane{int(threadIdx.x % 32)};
      for (int c = int(threadIdx.x) / 32; c < width; c += Threads / 32) {
        if (first + c >= cols) break;
        const T sum = lane.butterfly(partial[threadIdx.x % 32][c]);
        lane.one([=] { store(first + c, sum); });
      }
      __syncthreads();
    }
    sync();
  }

private:
  /// Warps are numbered across blocks, so that little work meets all multiprocessors of a cluster.
  [[nodiscard]] __device__ __forceinline__ int rank() const {
    return (int(threadIdx.x / 32) * blocks + block) * 32 + int(threadIdx.x % 32);
  }
  [[nodiscard]] __device__ __forceinline__ int count() const { return blocks * Threads; }
  __device__ __forceinline__ void sync() const {
#if __CUDA_ARCH__ >= 900
    if (blocks > 1) {
      asm volatile("barrier.cluster.arrive.release;\n\tbarrier.cluster.wait.acquire;" ::: "memory");
      return;
    }
#endif
    __syncthreads();
  }
};

template <class K, int Threads>
__global__ void __launch_bounds__(Threads)
    run_teams(const __grid_constant__ K kernel, int64_t teams, int blocks) {
  const CudaTeam<float, Threads> team{int(blockIdx.x) % blocks, blocks};
  for (int64_t i = blockIdx.x / blocks; i < teams; i += gridDim.x / blocks) kernel(team, i);
}

/// What a launch needs to know of the device.
struct DeviceShape {
  int processors = 0;
  bool clusters = false; ///< compute capability 9.0 and newer
};
[[nodiscard]] inline DeviceShape device_shape() {
  int device = 0, processors = 0, major = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
        "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  return {processors, major >= 9};
}

/// Runs all teams of a kernel; clusters of up to 8 blocks fill the device where teams are few.
template <int Threads, class K>
void launch_teams(const DeviceShape &device, const K &kernel, const char *name) {
  const int64_t teams = kernel.teams();
  if (teams <= 0) return;
  int blocks = 1;
  while (device.clusters && blocks < 8 && teams * blocks * 2 <= device.processors) blocks *= 2;
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {unsigned(blocks), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(numerics::min<int64_t>(teams, int64_t{1} << 27) * blocks));
  config.blockDim = dim3(Threads);
  config.attrs = &attribute;
  config.numAttrs = blocks > 1 ? 1 : 0;
  check(cudaLaunchKernelEx(&config, run_teams<K, Threads>, kernel, teams, blocks), name);
}

} // namespace nvfp4::cuda
