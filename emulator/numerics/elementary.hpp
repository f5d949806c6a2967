// SPDX-License-Identifier: Apache-2.0
// exp, log and what models build from them, in FP32 operations that every IEEE machine rounds alike: the same
// bits on CPU and GPU, scalar or SIMD. No contraction allowed. Largest errors over all floats of their useful
// range: exp 1.02 ulp, log 0.83, sigmoid, logsigmoid and softplus 2.9, silu 3.7 above -87; below that silu's
// error is |x| 2^-149, because sigmoid(x) is subnormal. See tests/emulator/numerics/elementary.cpp.
#pragma once
#include "nvfp4/emulator/formats/codec.hpp"

#include <cmath>
#include <cstdint>

namespace nvfp4::numerics {

#if defined(__CUDA_ARCH__)
NVFP4_INLINE float fma(float a, float b, float c) { return ::fmaf(a, b, c); }
NVFP4_INLINE double fma(double a, double b, double c) { return ::fma(a, b, c); }
NVFP4_INLINE float sqrt(float x) { return ::sqrtf(x); }
NVFP4_INLINE double sqrt(double x) { return ::sqrt(x); }
#else
NVFP4_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
NVFP4_INLINE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
NVFP4_INLINE float sqrt(float x) { return __builtin_sqrtf(x); }
NVFP4_INLINE double sqrt(double x) { return __builtin_sqrt(x); }
#endif
template <class T> NVFP4_INLINE T max(T a, T b) { return a > b ? a : b; }
template <class T> NVFP4_INLINE T min(T a, T b) { return a < b ? a : b; }
template <class T> NVFP4_INLINE T abs(T a) { return a < T(0) ? -a : a; }

namespace detail {
NVFP4_INLINE float float_of(uint32_t w) { return __builtin_bit_cast(float, w); }
NVFP4_INLINE uint32_t word_of(float x) { return __builtin_bit_cast(uint32_t, x); }
} // namespace detail

/// e^x. Gradual underflow; +Inf above 88.72284, 0 below -103.97; NaN for NaN.
/// Reduction and polynomial as in Cephes expf (S. Moshier), with fused steps.
NVFP4_INLINE float exp(float x) {
  x = x > 89.0f ? 89.0f : x;
  x = x < -104.0f ? -104.0f : x;
  constexpr float kRound = 12582912.0f; // 1.5 * 2^23: adding it rounds to an integer
  const float shifted = fma(x, 1.44269504088896341f, kRound);
  const float n = shifted - kRound;
  float r = fma(n, -0.693359375f, x);
  r = fma(n, 2.12194440e-4f, r);
  float p = 1.9875691500e-4f;
  p = fma(p, r, 1.3981999507e-3f);
  p = fma(p, r, 8.3334519073e-3f);
  p = fma(p, r, 4.1665795894e-2f);
  p = fma(p, r, 1.6666665459e-1f);
  p = fma(p, r, 5.0000001201e-1f);
  p = fma(p, r * r, r) + 1.0f;
  // 2^n in two steps, so that neither factor leaves the normal range
  const int32_t i = int32_t(detail::word_of(shifted)) - 0x4B400000;
  const int32_t half = i >> 1;
  const float a = detail::float_of(uint32_t(half + 127) << 23);
  const float b = detail::float_of(uint32_t(i - half + 127) << 23);
  return p * a * b;
}

/// Natural logarithm. -Inf for 0, NaN below 0. Polynomial as in Cephes logf (S. Moshier).
NVFP4_INLINE float log(float x) {
  const bool tiny = x < 1.17549435e-38f;
  const float y = tiny ? x * 8388608.0f : x;
  const uint32_t w = detail::word_of(y);
  // y = m 2^e with m in [sqrt(1/2), sqrt(2))
  const uint32_t t = w - 0x3F3504F3u;
  const int32_t ei = int32_t(t) >> 23;
  const float m = detail::float_of((t & 0x007FFFFFu) + 0x3F3504F3u);
  const float e = float(ei) - (tiny ? 23.0f : 0.0f);
  const float f = m - 1.0f;
  const float z = f * f;
  float p = 7.0376836292e-2f;
  p = fma(p, f, -1.1514610310e-1f);
  p = fma(p, f, 1.1676998740e-1f);
  p = fma(p, f, -1.2420140846e-1f);
  p = fma(p, f, 1.4249322787e-1f);
  p = fma(p, f, -1.6668057665e-1f);
  p = fma(p, f, 2.0000714765e-1f);
  p = fma(p, f, -2.4999993993e-1f);
  p = fma(p, f, 3.3333331174e-1f);
  float q = p * f * z;
  q = fma(e, -2.12194440e-4f, q);
  q = fma(-0.5f, z, q);
  float result = fma(e, 0.693359375f, f + q);
  const float infinity = detail::float_of(0x7F800000u);
  result = x == 0.0f ? -infinity : result;
  result = x < 0.0f ? detail::float_of(0x7FC00000u) : result;
  return x < infinity ? result : x; // +Inf and NaN pass
}

// FP64 serves the gradient checks only; its bits are the C library's.
inline double exp(double x) { return std::exp(x); }
inline double log(double x) { return std::log(x); }

/// log(1 + u) for u >= 0, accurate for small u (Kahan's correction).
template <class T> NVFP4_INLINE T log1p(T u) {
  const T w = T(1) + u;
  const T d = w - T(1);
  return d == T(0) ? u : log(w) * (u / d);
}

/// 1 / (1 + e^-x) without overflow.
template <class T> NVFP4_INLINE T sigmoid(T x) {
  const T e = exp(-abs(x));
  const T s = T(1) / (T(1) + e);
  return x >= T(0) ? s : e * s;
}

/// log(sigmoid(x)) = min(x, 0) - log(1 + e^-|x|).
template <class T> NVFP4_INLINE T logsigmoid(T x) { return min(x, T(0)) - log1p(exp(-abs(x))); }

/// log(1 + e^x).
template <class T> NVFP4_INLINE T softplus(T x) { return max(x, T(0)) + log1p(exp(-abs(x))); }

/// x sigmoid(x), and its derivative.
template <class T> NVFP4_INLINE T silu(T x) { return x * sigmoid(x); }
template <class T> NVFP4_INLINE T silu_derivative(T x) {
  const T s = sigmoid(x);
  return s * (T(1) + x * (T(1) - s));
}

/// tanh(x): an odd polynomial below 0.625 as in Cephes tanhf (S. Moshier), from there 1 - 2 / (e^2|x| + 1).
NVFP4_INLINE float tanh(float x) {
  const float a = abs(x), z = x * x;
  float p = -5.70498872745e-3f;
  p = fma(p, z, 2.06390887954e-2f);
  p = fma(p, z, -5.37397155531e-2f);
  p = fma(p, z, 1.33314422036e-1f);
  p = fma(p, z, -3.33332819422e-1f);
  const float small = fma(p * z, x, x);
  const float large = 1.0f - 2.0f / (exp(2.0f * a) + 1.0f);
  return a < 0.625f || x != x ? small : x < 0.0f ? -large : large;
}
inline double tanh(double x) { return std::tanh(x); }

/// x (1 + tanh(u)) / 2 with u = sqrt(2 / pi) (x + 0.044715 x^3), as x sigmoid(2 u): within 3e-6 of the exact
/// value above -5, relative to it.
template <class T> NVFP4_INLINE T gelu_tanh(T x) {
  const T cube = x * x * x;
  return x * sigmoid(T(1.59576912160573071) * (x + T(0.044715) * cube));
}

} // namespace nvfp4::numerics
