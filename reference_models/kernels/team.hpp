// SPDX-License-Identifier: Apache-2.0
// How a model's kernels are written once for CPU and GPU. A kernel is a struct of pointers and sizes whose
// operator() does the work of one *team*: one CPU thread, or one block of GPU threads. It may only use the
// steps below; every step ends with a barrier, and each fixes the order of its sums, so the bits are the same
// wherever it runs.
//
//   team.each(n, f)                  f(i) for i in [0, n), independent of each other
//   team.map(m, n, value, store)     store(i, j, value(i, j)); a value may be computed more than once, and
//                                    before others are stored: the way to read much memory at a time
//   team.rows(n, f)                  f(r, lane) for r in [0, n), independent; `lane` has:
//     lane.each(n, g)                  g(i), independent
//     lane.map(n, value, store)        store(i, value(i)), as team.map
//     lane.sum(n, term)                sum of term(i): 32 strided partial sums, then a butterfly
//                                      (of the type that term returns)
//     lane.max(n, term)                largest term(i); -Inf for n = 0
//     lane.one(g)                      g() once
//   team.contract(m, n, range, step, store)  for each (i, j): acc = 0; acc = step(i, j, q, acc) for q of
//                                    range(i) in increasing order; store(i, j, acc)
//   team.matmul(m, n, k, a, b, c, add)  c = a b (or c + a b): one chain of fused multiply-adds an output, k
//                                    increasing, from 0 (or from c)
//   team.solve(n, width, l, x)       x_i += sum over j < i of l_ij x_j, for i < n <= kSolved in increasing
//                                    order, or from_last j > i, i decreasing: one chain of fused
//                                    multiply-adds from x_i, j increasing. x.col must be 1
//   team.column_sums(rows, cols, term, store)  sum over r of term(r, j): 32 partial sums strided by row, then
//                                    a butterfly
//
// A kernel with scratch() finds that many elements at team.scratch, its own while it runs and of no defined
// value when it starts: a thread's memory on the CPU, shared memory where it fits on a GPU.
//
// CpuTeam runs them one after the other; Tag names the instruction set, so that no two builds share a symbol.
#pragma once
#include "nvfp4/emulator/numerics/reduce.hpp"

#include <cstdint>
#include <type_traits>

namespace nvfp4::models {

/// Element (i, j) at data[i * row + j * col].
template <class T> struct View {
  T *data = nullptr;
  int64_t row = 0, col = 1;

  NVFP4_INLINE T &operator()(int64_t i, int64_t j) const { return data[i * row + j * col]; }
  NVFP4_INLINE View<T> at(int64_t i, int64_t j) const { return {data + i * row + j * col, row, col}; }
  NVFP4_INLINE View<T> transposed() const { return {data, col, row}; }
  NVFP4_INLINE operator View<const T>() const requires(!std::is_const_v<T>) { return {data, row, col}; }
};

inline constexpr int kSolved = 16; ///< rows that `solve` takes at most

/// Places from `begin` up to, not including, `end`.
struct Range {
  int64_t begin, end;
};

/// Values that are computed together.
template <class T> struct Two { T first, second; };
template <class T> struct Three { T first, second, third; };

/// x (m, n) <- f(i, j).
template <class Team, class T, class F>
NVFP4_INLINE void fill(const Team &team, int64_t m, int64_t n, View<T> x, F f) {
  team.map(m, n, f, [=](int64_t i, int64_t j, T value) { x(i, j) = value; });
}

struct Baseline {}; ///< the instruction set that the build targets
struct Avx2 {};
struct Avx512 {};

/// c = a b by the widest multiply-add of the instruction set; the generic one is scalar. Specialised where
/// Tag is built.
template <class Tag, class T> struct Multiply;

/// One CPU thread as the 32 lanes of a warp.
template <class Tag, class T> struct CpuLane {
  template <class F> NVFP4_INLINE void each(int64_t n, F f) const {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) f(i);
  }
  template <class Value, class Store> NVFP4_INLINE void map(int64_t n, Value value, Store store) const {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store(i, value(i));
  }
  template <class F> NVFP4_INLINE void one(F f) const { f(); }
  template <class F> NVFP4_INLINE auto sum(int64_t n, F term) const {
    constexpr int L = numerics::kLanes;
    decltype(term(int64_t{0})) p[L] = {};
    int64_t i = 0;
    for (; i + L <= n; i += L) {
#pragma omp simd
      for (int l = 0; l < L; ++l) p[l] += term(i + l);
    }
    for (int l = 0; l < int(n - i); ++l) p[l] += term(i + l);
    return numerics::butterfly_sum(p);
  }
  template <class F> NVFP4_INLINE T max(int64_t n, F term) const {
    constexpr int L = numerics::kLanes;
    T p[L];
    for (T &v : p) v = T(-__builtin_inff());
    int64_t i = 0;
    for (; i + L <= n; i += L) {
#pragma omp simd
      for (int l = 0; l < L; ++l) p[l] = numerics::max(p[l], term(i + l));
    }
    for (int l = 0; l < int(n - i); ++l) p[l] = numerics::max(p[l], term(i + l));
    T m = p[0];
    for (int l = 1; l < L; ++l) m = numerics::max(m, p[l]);
    return m;
  }
};

template <class Tag, class T> struct CpuTeam {
  T *scratch = nullptr;

  template <class F> NVFP4_INLINE void each(int64_t n, F f) const {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) f(i);
  }
  template <class Value, class Store>
  NVFP4_INLINE void map(int64_t m, int64_t n, Value value, Store store) const {
    for (int64_t i = 0; i < m; ++i) {
#pragma omp simd
      for (int64_t j = 0; j < n; ++j) store(i, j, value(i, j));
    }
  }
  template <class F> NVFP4_INLINE void rows(int64_t n, F f) const {
    const CpuLane<Tag, T> lane;
    for (int64_t r = 0; r < n; ++r) f(r, lane);
  }
  template <class Ranges, class Step, class Store>
  NVFP4_INLINE void contract(int64_t m, int64_t n, Ranges range, Step step, Store store) const {
    constexpr int W = 16; // one register of outputs
    for (int64_t i = 0; i < m; ++i) {
      const Range r = range(i);
      int64_t j = 0;
      for (; j + W <= n; j += W) {
        T acc[W] = {};
        for (int64_t q = r.begin; q < r.end; ++q) {
#pragma omp simd
          for (int w = 0; w < W; ++w) acc[w] = step(i, j + w, q, acc[w]);
        }
#pragma omp simd
        for (int w = 0; w < W; ++w) store(i, j + w, acc[w]);
      }
      for (; j < n; ++j) {
        T acc = T(0);
        for (int64_t q = r.begin; q < r.end; ++q) acc = step(i, j, q, acc);
        store(i, j, acc);
      }
    }
  }
  NVFP4_INLINE void matmul(int64_t m, int64_t n, int64_t k, View<const T> a, View<const T> b, View<T> c,
                           bool add = false) const {
    Multiply<Tag, T>::run(m, n, k, a, b, c, add);
  }
  NVFP4_INLINE void solve(int64_t n, int64_t width, View<const T> l, View<T> x,
                          bool from_last = false) const {
    constexpr int W = 16;
    for (int64_t first = 0; first < width; first += W) {
      const int across = int(numerics::min<int64_t>(W, width - first));
      for (int64_t done = 1; done < n; ++done) {
        const int64_t i = from_last ? n - 1 - done : done;
        T *const to = x.data + i * x.row + first;
        T acc[W] = {};
        for (int w = 0; w < across; ++w) acc[w] = to[w];
        for (int64_t j = from_last ? i + 1 : 0, end = from_last ? n : i; j < end; ++j) {
          const T *const from = x.data + j * x.row + first;
          const T factor = l(i, j);
          if (across == W) {
#pragma omp simd
            for (int w = 0; w < W; ++w) acc[w] = numerics::fma(factor, from[w], acc[w]);
          } else {
            for (int w = 0; w < across; ++w) acc[w] = numerics::fma(factor, from[w], acc[w]);
          }
        }
        for (int w = 0; w < across; ++w) to[w] = acc[w];
      }
    }
  }
  template <class Term, class Store>
  NVFP4_INLINE void column_sums(int64_t rows, int64_t cols, Term term, Store store) const {
    constexpr int L = numerics::kLanes, W = 16;
    for (int64_t first = 0; first < cols; first += W) {
      const int width = int(numerics::min<int64_t>(W, cols - first));
      T p[L][W] = {};
      for (int64_t r = 0; r < rows; ++r) {
        T *q = p[r % L];
        if (width == W) {
#pragma omp simd
          for (int w = 0; w < W; ++w) q[w] += term(r, first + w);
        } else {
          for (int w = 0; w < width; ++w) q[w] += term(r, first + w);
        }
      }
      for (int step = L / 2; step > 0; step /= 2)
        for (int l = 0; l < step; ++l) {
#pragma omp simd
          for (int w = 0; w < W; ++w) p[l][w] = p[l][w] + p[l + step][w];
        }
      for (int w = 0; w < width; ++w) store(first + w, p[0][w]);
    }
  }
};

} // namespace nvfp4::models
