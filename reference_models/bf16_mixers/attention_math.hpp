// SPDX-License-Identifier: Apache-2.0
// The scalar arithmetic of tensor-core attention, one text for CPU and GPU: 2^x, a maximum that keeps NaN, and
// the constants that fix the order of work. What is rounded to BF16 is rounded by emulator/formats/bf16.hpp.
#pragma once
#include "nvfp4/emulator/formats/bf16.hpp"
#include "nvfp4/emulator/numerics/elementary.hpp"

namespace nvfp4::models::tensorcore {

inline constexpr int kForwardKeys = 128;  ///< keys a forward step brings under one running maximum
inline constexpr int kBackwardBlock = 64; ///< backward visits whole blocks of this many queries and keys
inline constexpr float kLog2E = 1.44269504088896341f;

NVFP4_INLINE float infinity() { return numerics::detail::float_of(0x7F800000u); }

/// The larger one; NaN when either is. Neither argument is -0 where this is used (an accumulator never is).
NVFP4_INLINE float max_or_nan(float a, float b) {
#if defined(__CUDA_ARCH__)
  float r;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b));
  return r;
#else
  return a != a ? a : (b != b || b > a) ? b : a;
#endif
}

/// 2^x for x up to 127, 0 below -126.5: what MUFU's ex2.approx would give, in FP32 steps that every machine
/// rounds alike. 1 for 0 exactly; relative error at most 2^-18 for results that are normal
/// (tests/reference_models/bf16_mixers/attention.cpp). NaN for NaN; 0 for -Inf.
NVFP4_INLINE float exp2_negative(float x) {
  constexpr float kShift = 12583039.0f; // 1.5 * 2^23 + 127: the sum's low bits are the exponent field of 2^n
  x = max_or_nan(x, -127.0f);
  const float shifted = x + kShift;
  const float r = x - (shifted - kShift);
  float p = 9.58285294e-3f;
  p = numerics::fma(p, r, 5.59064262e-2f);
  p = numerics::fma(p, r, 2.40240991e-1f);
  p = numerics::fma(p, r, 6.93124175e-1f);
  p = numerics::fma(p, r, 1.0f);
  return p * numerics::detail::float_of(numerics::detail::word_of(shifted) << 23);
}

/// A finished word: every NaN becomes the tensor cores' own, 0x7FFFFFFF.
NVFP4_INLINE float finished(float x) { return x == x ? x : numerics::detail::float_of(0x7FFFFFFFu); }

} // namespace nvfp4::models::tensorcore
