// SPDX-License-Identifier: Apache-2.0
// The SSE control word while the vector kernels run: nearest even, subnormals kept, all exceptions masked.
// Restores the caller's word at the end of the scope.
#pragma once
#if defined(__x86_64__)
#include <xmmintrin.h>

namespace nvfp4::gemm {

inline constexpr unsigned kNearest = 0x1F80;    ///< round to nearest even, no flag raised, no FTZ, no DAZ
inline constexpr unsigned kTowardZero = 0x7F80; ///< the same, rounding toward zero
inline constexpr unsigned kInexact = 0x20;      ///< the precision flag

class FloatState {
public:
  FloatState() : saved_(_mm_getcsr()) { _mm_setcsr(kNearest); }
  ~FloatState() { _mm_setcsr(saved_); }
  FloatState(const FloatState &) = delete;
  FloatState &operator=(const FloatState &) = delete;

private:
  unsigned saved_;
};

} // namespace nvfp4::gemm
#endif
