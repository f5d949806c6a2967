// SPDX-License-Identifier: Apache-2.0
// FP32 operations with a rounding of their own: instructions on the GPU, and on the CPU the same words from
// the exact error of a sum, so that a kernel's arithmetic can be tested without a GPU. The CPU's expect
// numbers within 2^-100 .. 2^100, or zero. And powers of two.
#pragma once
#include "nvfp4/emulator/formats/codec.hpp"

#include <cmath>

namespace nvfp4::cuda {

#if !defined(__CUDA_ARCH__)
/// s moved one word toward zero if it lies beyond s + e exactly, and so on for other directions; e is the
/// exact error of s, rounded to nearest.
inline float toward_zero(float s, double e) {
  return (s > 0 && e < 0) || (s < 0 && e > 0) ? std::nextafter(s, 0.0f) : s;
}
inline float downward(float s, double e) { return e < 0 ? std::nextafter(s, -INFINITY) : s; }
inline float upward(float s, double e) { return e > 0 ? std::nextafter(s, INFINITY) : s; }

/// What a + b in FP64 (s is the same sum in FP32) has beyond s. Its sign is exact.
inline double beyond(double a, double b, float s) {
  const double sum = a + b, bb = sum - a;
  return (sum - double(s)) + ((a - (sum - bb)) + (b - bb));
}
#define NVFP4_ROUNDED(DEVICE, HOST) return HOST
#else
#define NVFP4_ROUNDED(DEVICE, HOST) return DEVICE
#endif

NVFP4_INLINE float add_rn(float a, float b) { NVFP4_ROUNDED(__fadd_rn(a, b), a + b); }
NVFP4_INLINE float sub_rn(float a, float b) { NVFP4_ROUNDED(__fsub_rn(a, b), a - b); }
NVFP4_INLINE float mul_rn(float a, float b) { NVFP4_ROUNDED(__fmul_rn(a, b), a * b); }
NVFP4_INLINE float add_rz(float a, float b) {
  NVFP4_ROUNDED(__fadd_rz(a, b), toward_zero(a + b, beyond(a, b, a + b)));
}
NVFP4_INLINE float fma_rn(float a, float b, float c) { NVFP4_ROUNDED(__fmaf_rn(a, b, c), std::fma(a, b, c)); }
NVFP4_INLINE float fma_down(float a, float b, float c) {
  NVFP4_ROUNDED(__fmaf_rd(a, b, c), downward(std::fma(a, b, c), beyond(double(a) * b, c, std::fma(a, b, c))));
}
NVFP4_INLINE float fma_up(float a, float b, float c) {
  NVFP4_ROUNDED(__fmaf_ru(a, b, c), upward(std::fma(a, b, c), beyond(double(a) * b, c, std::fma(a, b, c))));
}
/// An integer toward zero.
NVFP4_INLINE float whole_rz(int64_t x) {
  NVFP4_ROUNDED(__ll2float_rz(x), toward_zero(float(x), double(x) - double(float(x))));
}
#undef NVFP4_ROUNDED

[[nodiscard]] NVFP4_INLINE float power_of_two(int e) { return bit_cast<float>(uint32_t(e + 127) << 23); }
/// The power of two of a number's exponent; 0 for 0.
[[nodiscard]] NVFP4_INLINE float leading_power(float x) {
  return bit_cast<float>(bit_cast<uint32_t>(x) & 0x7F800000u);
}

} // namespace nvfp4::cuda
