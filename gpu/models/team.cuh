// SPDX-License-Identifier: Apache-2.0
// A team of the models' kernels as GPU threads: one block, or a cluster of blocks where teams without scratch
// are fewer than multiprocessors. The same steps as CpuTeam, each followed by a barrier, with the same order
// of every sum. See reference_models/kernels/team.hpp.
#pragma once
#include "nvfp4/gpu/models/matmul.cuh"

namespace nvfp4::cuda {

inline constexpr unsigned kFullWarp = 0xFFFFFFFFu;

template <class T> struct CudaLane {
  int lane;

  template <class F> __device__ __forceinline__ void each(int64_t n, F f) const {
    for (int64_t i = lane; i < n; i += 32) f(i);
    __syncwarp();
  }
  /// Reads kBatch of a thread's elements before it stores the first.
  template <class Value, class Store> __device__ __forceinline__ void map(int64_t n, Value value, Store store) const {
    constexpr int kBatch = 4;
    int64_t i = lane;
    for (; i + 32 * (kBatch - 1) < n; i += 32 * kBatch) {
      decltype(value(int64_t{0})) x[kBatch];
#pragma unroll
      for (int b = 0; b < kBatch; ++b) x[b] = value(i + 32 * b);
#pragma unroll
      for (int b = 0; b < kBatch; ++b) store(i + 32 * b, x[b]);
    }
    for (; i < n; i += 32) store(i, value(i));
    __syncwarp();
  }
  template <class F> __device__ __forceinline__ void one(F f) const {
    if (lane == 0) f();
    __syncwarp();
  }
  template <class F> __device__ __forceinline__ auto sum(int64_t n, F term) const {
    decltype(term(int64_t{0})) p = 0;
#pragma unroll 8
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

/// `blocks` blocks of kTeamThreads threads each; more than one are a cluster.
template <class T> struct CudaTeam {
  static constexpr int Threads = kTeamThreads;
  int block, blocks;
  T *scratch;

  template <class F> __device__ __forceinline__ void each(int64_t n, F f) const {
    for (int64_t i = rank(); i < n; i += count()) f(i);
    sync();
  }
  /// Warps share rows of 32 elements. A thread reads for kBatch of its elements before it stores the first;
  /// at ragged ends one after the other, since no thread may read what another one stores.
  template <class Value, class Store>
  __device__ __forceinline__ void map(int64_t m, int64_t n, Value value, Store store) const {
    constexpr int kBatch = 8;
    const int across = int(n + 31) / 32, items = int(m) * across, warps = count() / 32;
    const int64_t lane = threadIdx.x % 32;
    for (int first = rank() / 32; first < items; first += kBatch * warps) {
      if (n % 32 == 0 && first + (kBatch - 1) * warps < items) {
        decltype(value(int64_t{0}, int64_t{0})) x[kBatch];
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
          const int item = first + b * warps;
          x[b] = value(item / across, item % across * 32 + lane);
        }
#pragma unroll
        for (int b = 0; b < kBatch; ++b) {
          const int item = first + b * warps;
          store(item / across, item % across * 32 + lane, x[b]);
        }
        continue;
      }
#pragma unroll 1
      for (int item = first; item < min(first + kBatch * warps, items); item += warps) {
        const int64_t j = item % across * 32 + lane;
        if (j < n) store(item / across, j, value(item / across, j));
      }
    }
    sync();
  }
  template <class F> __device__ __forceinline__ void rows(int64_t n, F f) const {
    const CudaLane<T> lane{int(threadIdx.x % 32)};
    for (int64_t r = rank() / 32; r < n; r += count() / 32) f(r, lane);
    sync();
  }
  template <class Ranges, class Step, class Store>
  __device__ __forceinline__ void contract(int64_t m, int64_t n, Ranges range, Step step, Store store) const {
    for (int64_t at = rank(); at < m * n; at += count()) {
      const int64_t i = at / n, j = at % n;
      const models::Range r = range(i);
      T acc = T(0);
#pragma unroll 4 // only the additions wait for each other: what a step computes before them overlaps with other steps
      for (int64_t q = r.begin; q < r.end; ++q) acc = step(i, j, q, acc);
      store(i, j, acc);
    }
    sync();
  }
  __device__ __forceinline__ void matmul(int64_t m, int64_t n, int64_t k, models::View<const T> a,
                                         models::View<const T> b, models::View<T> c, bool add = false) const {
    if (m < kTiledRows || m * n <= 4 * kTeamThreads) {
      multiply_outputs<T>(m, n, k, a, b, c, add, rank(), count());
    } else if (m <= 16) {
      multiply_tiles<T, 2, 2>(m, n, k, a, b, c, add, block, blocks);
    } else if (m <= 32 || (blocks > 1 && n > 64)) { // small tiles: more of them for a cluster to share
      multiply_tiles<T, 4, 2>(m, n, k, a, b, c, add, block, blocks);
    } else if (n <= 64) {
      multiply_tiles<T, 8, 2>(m, n, k, a, b, c, add, block, blocks);
    } else {
      multiply_tiles<T, 8, 4>(m, n, k, a, b, c, add, block, blocks);
    }
    sync();
  }
  /// A thread has a column in registers.
  __device__ __forceinline__ void solve(int64_t n, int64_t width, models::View<const T> l, models::View<T> x,
                                        bool from_last = false) const {
    constexpr int N = models::kSolved;
    __shared__ T factor[N][N];
    const int64_t own = int(threadIdx.x) / N, beside = int(threadIdx.x) % N;
    if (own < n && beside < n) factor[own][beside] = l(own, beside);
    __syncthreads();
    for (int64_t e = rank(); e < width; e += count()) {
      T v[N];
#pragma unroll
      for (int i = 0; i < N; ++i) v[i] = i < n ? x(i, e) : T(0);
#pragma unroll
      for (int done = 1; done < N; ++done) {
        const int i = from_last ? N - 1 - done : done;
#pragma unroll
        for (int j = 0; j < N; ++j)
          if (from_last ? j > i && j < n : j < i) v[i] = numerics::fma(factor[i][j], v[j], v[i]);
      }
#pragma unroll
      for (int i = 0; i < N; ++i)
        if (i < n) x(i, e) = v[i];
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
#pragma unroll 32 // few threads read all rows: each needs many loads under way
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

/// Scratch stands behind the products' slabs in dynamic shared memory, or, where it does not fit, in
/// `memory`, a part for each block.
template <class K>
__global__ void __launch_bounds__(kTeamThreads, 2)
    run_teams(const __grid_constant__ K kernel, int64_t teams, int blocks, float *memory, int64_t own) {
  extern __shared__ __align__(16) unsigned char team_memory[];
  float *const scratch = memory != nullptr ? memory + int64_t(blockIdx.x) * own
                                           : reinterpret_cast<float *>(team_memory) + kSlabElements;
  const CudaTeam<float> team{int(blockIdx.x) % blocks, blocks, scratch};
  for (int64_t i = blockIdx.x / blocks; i < teams; i += gridDim.x / blocks) kernel(team, i);
}

/// What a launch needs to know of the device.
struct DeviceShape {
  int processors = 0, shared = 0; ///< bytes of shared memory a block can have
  bool clusters = false;          ///< compute capability 9.0 and newer
};
[[nodiscard]] inline DeviceShape device_shape() {
  int device = 0, processors = 0, major = 0, shared = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device),
        "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&shared, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  return {processors, shared, major >= 9};
}

/// Runs all teams of a kernel. Teams without scratch take clusters of up to 8 blocks where they are too few
/// to fill the device. `memory` holds the scratch that is too large for shared memory; work that uses the
/// same runs in one stream.
template <class K>
void launch_teams(const DeviceShape &device, const K &kernel, const char *name,
                  DeviceBuffer *memory = nullptr) {
  const int64_t teams = kernel.teams();
  if (teams <= 0) return;
  int64_t own = 0, most = int64_t{1} << 27; // elements of scratch, blocks at most
  int blocks = 1;
  float *outside = nullptr;
  auto shared = int64_t(kSlabElements) * int64_t(sizeof(float));
  if constexpr (requires { kernel.scratch(); }) {
    own = (kernel.scratch() + 31) / 32 * 32;
    constexpr int64_t kStatic = 4096; // column_sums has shared memory of its own
    const int64_t wanted = shared + own * int64_t(sizeof(float));
    if (wanted + kStatic <= device.shared) {
      shared = wanted;
    } else {
      most = 2 * device.processors;
      memory->reserve(numerics::min(teams, most) * own * int64_t(sizeof(float)));
      outside = memory->as<float>();
    }
    check(cudaFuncSetAttribute(run_teams<K>, cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared)), name);
  } else {
    while (device.clusters && blocks < 8 && teams * blocks * 2 <= device.processors) blocks *= 2;
  }
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeClusterDimension;
  attribute.val.clusterDim = {unsigned(blocks), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(unsigned(numerics::min(teams, most) * blocks));
  config.blockDim = dim3(kTeamThreads);
  config.dynamicSmemBytes = size_t(shared);
  config.attrs = &attribute;
  config.numAttrs = blocks > 1 ? 1 : 0;
  check(cudaLaunchKernelEx(&config, run_teams<K>, kernel, teams, blocks, outside, own), name);
}

} // namespace nvfp4::cuda
