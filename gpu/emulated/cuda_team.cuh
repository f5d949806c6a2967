// SPDX-License-Identifier: Apache-2.0
// A team of the models' kernels as a block of GPU threads: the same steps as CpuTeam, each followed by a
// barrier, with the same order of every sum. See reference_models/kernels/team.hpp.
#pragma once
#include "reference_models/kernels/team.hpp"

namespace nvfp4::cuda {

inline constexpr int kTeamThreads = 256;
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

template <class T> struct CudaTeam {
  template <class F> __device__ __forceinline__ void each(int64_t n, F f) const {
    for (int64_t i = threadIdx.x; i < n; i += kTeamThreads) f(i);
    __syncthreads();
  }
  template <class F> __device__ __forceinline__ void rows(int64_t n, F f) const {
    const CudaLane<T> lane{int(threadIdx.x % 32)};
    for (int64_t r = threadIdx.x / 32; r < n; r += kTeamThreads / 32) f(r, lane);
    __syncthreads();
  }
  template <class Step, class Store>
  __device__ __forceinline__ void contract(int64_t m, int64_t n, int64_t k, Step step, Store store) const {
    for (int64_t at = threadIdx.x; at < m * n; at += kTeamThreads) {
      const int64_t i = at / n, j = at % n;
      T acc = T(0);
      for (int64_t q = 0; q < k; ++q) acc = step(i, j, q, acc);
      store(i, j, acc);
    }
    __syncthreads();
  }
  /// Each thread keeps 4 rows of one column, so that a value of b serves four chains.
  __device__ __forceinline__ void matmul(int64_t m, int64_t n, int64_t k, models::View<const T> a,
                                         models::View<const T> b, models::View<T> c, bool add = false) const {
    const int64_t groups = (m + 3) / 4;
    for (int64_t at = threadIdx.x; at < groups * n; at += kTeamThreads) {
      const int64_t i = at / n * 4, j = at % n;
      T acc[4];
#pragma unroll
      for (int r = 0; r < 4; ++r) acc[r] = add && i + r < m ? c(i + r, j) : T(0);
      const int64_t last = m - 1;
      const T *row[4];
#pragma unroll
      for (int r = 0; r < 4; ++r) row[r] = a.data + numerics::min(i + r, last) * a.row;
      for (int64_t q = 0; q < k; ++q) {
        const T x = b(q, j);
#pragma unroll
        for (int r = 0; r < 4; ++r) acc[r] = numerics::fma(row[r][q * a.col], x, acc[r]);
      }
#pragma unroll
      for (int r = 0; r < 4; ++r)
        if (i + r < m) c(i + r, j) = acc[r];
    }
    __syncthreads();
  }
  /// A warp takes a column, lane l its rows l, l + 32, ...
  template <class Term, class Store>
  __device__ __forceinline__ void column_sums(int64_t rows, int64_t cols, Term term, Store store) const {
    const CudaLane<T> lane{int(threadIdx.x % 32)};
    for (int64_t j = threadIdx.x / 32; j < cols; j += kTeamThreads / 32) {
      const T sum = lane.sum(rows, [=](int64_t r) { return term(r, j); });
      lane.one([=] { store(j, sum); });
    }
    __syncthreads();
  }
};

} // namespace nvfp4::cuda
