// SPDX-License-Identifier: Apache-2.0
// What every figure is held against, measured in the same run: OpenBLAS SGEMM with its best kernels for this
// CPU, memcpy, and the CPU's peaks of FP32 multiply-adds and of 8-bit dot products.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace nvfp4::bench {

/// Seconds on a steady clock.
[[nodiscard]] double now();

/// The upper one of two; 0 of nothing.
[[nodiscard]] double median(std::vector<double> v);

/// OpenBLAS, loaded at run time. Debian's build may choose slow kernels by itself: OPENBLAS_CORETYPE is set
/// to SkylakeX or Haswell, after what NVFP4_ISA or the CPU allows, unless the caller has set it.
class Blas {
public:
  /// Loads the library once per process; `loaded()` is false where there is none.
  static const Blas &instance();

  [[nodiscard]] bool loaded() const { return sgemm_ != nullptr; }
  [[nodiscard]] const std::string &core() const { return core_; } ///< the kernels in use, "SkylakeX"
  void set_threads(int threads) const;
  /// C (m, n) = A (m, k) * B (n, k)^T, all row-major.
  void sgemm(int m, int n, int k, const float *a, const float *b, float *c) const;

private:
  Blas();
  using Sgemm = void (*)(int, int, int, int, int, int, float, const float *, int, const float *, int, float,
                         float *, int);
  Sgemm sgemm_ = nullptr;
  void (*set_threads_)(int) = nullptr;
  std::string core_ = "none";
};

/// Peaks in 1e9 operations (a multiply-add is two) per second over `threads` threads; 0 when the CPU has no
/// such instruction. The widest vectors that NVFP4_ISA or the CPU allows.
[[nodiscard]] double fma_peak(int threads);
[[nodiscard]] double vnni_peak(int threads);

/// 1e9 bytes read per second by memcpy of blocks larger than the caches.
[[nodiscard]] double memcpy_rate(int threads);

} // namespace nvfp4::bench
