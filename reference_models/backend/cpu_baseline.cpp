// SPDX-License-Identifier: Apache-2.0
// The CPU backend for the instruction set that the build targets, in FP32 and FP64: the definition of a
// model's bits.
#include "nvfp4/reference_models/backend/cpu_backend.hpp"
#include "nvfp4/reference_models/backend/cpu_backends.hpp"

namespace nvfp4::models {

template <class T> struct Multiply<Baseline, T> {
  __attribute__((noinline)) static void run(int64_t m, int64_t n, int64_t k, View<const T> a, View<const T> b,
                                            View<T> c, bool add) {
    for (int64_t i = 0; i < m; ++i)
      for (int64_t j = 0; j < n; ++j) {
        T acc = add ? c(i, j) : T(0);
        for (int64_t q = 0; q < k; ++q) acc = numerics::fma(a(i, q), b(q, j), acc);
        c(i, j) = acc;
      }
  }
};

std::unique_ptr<Backend<float>> make_baseline_backend(int threads, Isa isa) {
  return std::make_unique<CpuBackend<Baseline, float>>(threads, isa);
}
std::unique_ptr<Backend<double>> make_baseline_double_backend(int threads) {
  return std::make_unique<CpuBackend<Baseline, double>>(threads, Isa::scalar);
}

} // namespace nvfp4::models
