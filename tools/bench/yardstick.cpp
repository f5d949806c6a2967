// SPDX-License-Identifier: Apache-2.0
// Yardsticks: OpenBLAS through dlopen, loops of independent vector instructions, memcpy.
#include "tools/bench/yardstick.hpp"

#include "tools/environment.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <omp.h>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace nvfp4::bench {
namespace {

constexpr int kChains = 12; ///< independent chains: more than latency times throughput of any CPU at hand
constexpr int kTrials = 5;

#if defined(__x86_64__)

[[gnu::target("avx512f"), gnu::noinline]] void fma_512(int64_t n) {
  __m512 x[kChains];
#pragma GCC unroll 12
  for (int j = 0; j < kChains; ++j) x[j] = _mm512_set1_ps(1.0f);
  const __m512 y = _mm512_set1_ps(0.5f);
  for (int64_t i = 0; i < n; ++i)
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) {
      x[j] = _mm512_fmadd_ps(x[j], y, y);
      asm volatile("" : "+v"(x[j]));
    }
}

[[gnu::target("avx2,fma"), gnu::noinline]] void fma_256(int64_t n) {
  __m256 x[kChains];
#pragma GCC unroll 12
  for (int j = 0; j < kChains; ++j) x[j] = _mm256_set1_ps(1.0f);
  const __m256 y = _mm256_set1_ps(0.5f);
  for (int64_t i = 0; i < n; ++i)
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) {
      x[j] = _mm256_fmadd_ps(x[j], y, y);
      asm volatile("" : "+x"(x[j]));
    }
}

[[gnu::target("avx512f,avx512vnni"), gnu::noinline]] void vnni_512(int64_t n) {
  __m512i x[kChains];
#pragma GCC unroll 12
  for (int j = 0; j < kChains; ++j) x[j] = _mm512_set1_epi32(1);
  const __m512i y = _mm512_set1_epi32(0x01020304);
  for (int64_t i = 0; i < n; ++i)
#pragma GCC unroll 12
    for (int j = 0; j < kChains; ++j) {
      x[j] = _mm512_dpbusd_epi32(x[j], y, y);
      asm volatile("" : "+v"(x[j]));
    }
}

#endif

/// 1e9 operations per second of `loop(n)`, which does `per_iteration` operations n times on every thread.
template <class Loop> double peak(int threads, double per_iteration, Loop loop) {
  constexpr int64_t n = 400000;
  double best = 1e30;
  for (int trial = 0; trial < kTrials; ++trial) {
    double seconds = 0;
#pragma omp parallel num_threads(threads) reduction(max : seconds)
    {
#pragma omp barrier
      const double start = now();
      loop(n);
      seconds = now() - start;
    }
    best = std::min(best, seconds);
  }
  return per_iteration * double(n) * threads / best * 1e-9;
}

} // namespace

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> v) {
  if (v.empty()) return 0;
  std::nth_element(v.begin(), v.begin() + std::ptrdiff_t(v.size() / 2), v.end());
  return v[v.size() / 2];
}

Blas::Blas() {
  const Isa isa = choose_isa(tool::asked_isa());
  setenv("OPENBLAS_CORETYPE",
         isa == Isa::avx512 || (isa == Isa::scalar && supported(Isa::avx512)) ? "SkylakeX" : "Haswell", 0);
  void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) return;
  sgemm_ = reinterpret_cast<Sgemm>(dlsym(library, "cblas_sgemm"));
  set_threads_ = reinterpret_cast<void (*)(int)>(dlsym(library, "openblas_set_num_threads"));
  if (const auto name = reinterpret_cast<char *(*)()>(dlsym(library, "openblas_get_corename"));
      name != nullptr)
    core_ = name();
}

const Blas &Blas::instance() {
  static const Blas blas;
  return blas;
}

void Blas::set_threads(int threads) const {
  if (set_threads_ != nullptr) set_threads_(threads);
}

void Blas::sgemm(int m, int n, int k, const float *a, const float *b, float *c) const {
  constexpr int row_major = 101, plain = 111, transposed = 112;
  sgemm_(row_major, plain, transposed, m, n, k, 1.0f, a, k, b, k, 0.0f, c, n);
}

double fma_peak(int threads) {
#if defined(__x86_64__)
  const Isa isa = choose_isa(tool::asked_isa());
  if (isa != Isa::avx2 && supported(Isa::avx512)) return peak(threads, 2.0 * 16 * kChains, fma_512);
  if (supported(Isa::avx2)) return peak(threads, 2.0 * 8 * kChains, fma_256);
#endif
  (void)threads;
  return 0;
}

double vnni_peak(int threads) {
#if defined(__x86_64__)
  if (choose_isa(tool::asked_isa()) != Isa::avx2 && supported(Isa::avx512))
    return peak(threads, 2.0 * 64 * kChains, vnni_512);
#endif
  (void)threads;
  return 0;
}

double memcpy_rate(int threads) {
  constexpr size_t bytes = size_t{64} << 20;
  std::vector<std::vector<char>> from(size_t(threads), std::vector<char>(bytes, 1)), to = from;
  double best = 1e30;
  for (int trial = 0; trial < kTrials; ++trial) {
    const double start = now();
#pragma omp parallel num_threads(threads)
    {
      const size_t t = size_t(omp_get_thread_num());
      if (t < from.size()) std::memcpy(to[t].data(), from[t].data(), bytes);
    }
    best = std::min(best, now() - start);
  }
  return double(bytes) * threads / best * 1e-9;
}

} // namespace nvfp4::bench
