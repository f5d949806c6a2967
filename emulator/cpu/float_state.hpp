// SPDX-License-Identifier: Apache-2.0
// The floating-point environment of a scope that computes: round to nearest even, subnormals kept, no traps.
// The caller's environment, flags included, is given back at the end.
#pragma once
#if defined(__x86_64__)
#include <xmmintrin.h>
#elif defined(__aarch64__)
#include <cstdint>
#else
#include <cfenv>
#endif

namespace nvfp4 {

class FloatState {
public:
#if defined(__x86_64__)
  FloatState() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80); } // all exceptions masked, no FTZ, no DAZ
  ~FloatState() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
  // <cfenv> would leave flushing to zero (FPCR.FZ) as it was
  FloatState() {
    asm volatile("mrs %0, fpcr\n\tmrs %1, fpsr" : "=r"(saved_), "=r"(flags_));
    asm volatile("msr fpcr, xzr" ::: "memory");
  }
  ~FloatState() { asm volatile("msr fpcr, %0\n\tmsr fpsr, %1" ::"r"(saved_), "r"(flags_) : "memory"); }
#else
  FloatState() {
    std::feholdexcept(&saved_); // saves the environment, too
    std::fesetenv(FE_DFL_ENV);
  }
  ~FloatState() { std::fesetenv(&saved_); }
#endif
  FloatState(const FloatState &) = delete;
  FloatState &operator=(const FloatState &) = delete;

private:
#if defined(__x86_64__)
  unsigned saved_;
#elif defined(__aarch64__)
  uint64_t saved_, flags_;
#else
  std::fenv_t saved_;
#endif
};

} // namespace nvfp4
