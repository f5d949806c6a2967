// SPDX-License-Identifier: Apache-2.0
// The vector type of 64-bit ARM's Advanced SIMD (NEON), with SDOT where the file is compiled for it.
// README.md says what every vector type has. Everything is private to the file that includes it.
#pragma once
#include <arm_neon.h>
#include <cstdint>

namespace nvfp4::simd {
namespace {

struct Neon {
  static constexpr int lanes = 4;
  static constexpr int held =
      16;                  ///< vectors that an inner loop can keep in registers beside what it works on
  using F = float32x4_t;   ///< 4 x FP32
  using I = int32x4_t;     ///< 4 x int32, 8 x int16 or 16 x int8
  using D = float64x2_t;   ///< 2 x FP64: one half of an F
  using L = int64x2_t;     ///< 2 x int64: one half of an I
  using Mask = uint32x4_t; ///< all ones or zero
  using Bytes = int8x16_t; ///< 16 x int8

  static F load(const float *x) { return vld1q_f32(x); }
  static F load_f(const uint8_t *at) { return as_float(load_i(at)); }
  static I load_i(const uint8_t *at) { return vreinterpretq_s32_u8(vld1q_u8(at)); }
  static D load(const double *x) { return vld1q_f64(x); }
  static void store(float *to, F x) { vst1q_f32(to, x); }
  static void store(double *to, D x) { vst1q_f64(to, x); }
  static void store(uint8_t *to, I x) { vst1q_u8(to, vreinterpretq_u8_s32(x)); }
  static F spread_f(const uint8_t *at) { return as_float(spread_i(at)); }
  static I spread_i(const uint8_t *at) {
    int32_t x;
    __builtin_memcpy(&x, at, 4);
    return vdupq_n_s32(x);
  }
  static D spread_d(const uint8_t *at) {
    double x;
    __builtin_memcpy(&x, at, 8);
    return vdupq_n_f64(x);
  }
  static F broadcast(float x) { return vdupq_n_f32(x); }
  static I broadcast(int x) { return vdupq_n_s32(x); }
  static D broadcast(double x) { return vdupq_n_f64(x); }
  static F as_float(I x) { return vreinterpretq_f32_s32(x); }
  static I as_int(F x) { return vreinterpretq_s32_f32(x); }

  static F add(F a, F b) { return vaddq_f32(a, b); }
  static F mul(F a, F b) { return vmulq_f32(a, b); }
  static F fma(F a, F b, F c) { return vfmaq_f32(c, a, b); }
  static F magnitude(F x) { return vabsq_f32(x); }
  /// The larger of two magnitudes; the first has no sign.
  static F max_magnitude(F a, F b) { return vmaxq_f32(a, vabsq_f32(b)); }
  static D add(D a, D b) { return vaddq_f64(a, b); }
  static D sub(D a, D b) { return vsubq_f64(a, b); }
  static D mul(D a, D b) { return vmulq_f64(a, b); }
  static D fma(D a, D b, D c) { return vfmaq_f64(c, a, b); }
  static D bit_and(D a, D b) {
    return vreinterpretq_f64_u64(vandq_u64(vreinterpretq_u64_f64(a), vreinterpretq_u64_f64(b)));
  }
  /// 1.5 times the power of two at or below a positive number.
  static D middle_of_binade(D x) {
    return vreinterpretq_f64_u64(vorrq_u64(vandq_u64(vreinterpretq_u64_f64(x), vdupq_n_u64(0x7FF0000000000000)),
                                           vdupq_n_u64(0x0008000000000000)));
  }

  static I add(I a, I b) { return vaddq_s32(a, b); }
  static I sub(I a, I b) { return vsubq_s32(a, b); }
  static I max(I a, I b) { return vmaxq_s32(a, b); }
  static I add_saturated8(I a, I b) { return vreinterpretq_s32_s8(vqaddq_s8(bytes(a), bytes(b))); }
  static I max8(I a, I b) { return vreinterpretq_s32_s8(vmaxq_s8(bytes(a), bytes(b))); }
  /// Bytes 0, 2, ... of 16-bit words, times 16, and bytes 1, 3, ...; as 16-bit words.
  static I even_bytes_times16(I x) {
    return vreinterpretq_s32_u16(vshrq_n_u16(vshlq_n_u16(vreinterpretq_u16_s32(x), 8), 4));
  }
  static I odd_bytes_times16(I x) {
    return vreinterpretq_s32_u16(vshlq_n_u16(vshrq_n_u16(vreinterpretq_u16_s32(x), 8), 4));
  }
  static I bit_and(I a, I b) { return vandq_s32(a, b); }
  static I bit_xor(I a, I b) { return veorq_s32(a, b); }
  /// How many bits of each lane are set.
  static I count_bits(I x) {
    return vreinterpretq_s32_u32(vpaddlq_u16(vpaddlq_u8(vcntq_u8(vreinterpretq_u8_s32(x)))));
  }
  template <int n> static I shift_left(I x) { return vshlq_n_s32(x, n); }
  template <int n> static I shift_right(I x) {
    return vreinterpretq_s32_u32(vshrq_n_u32(vreinterpretq_u32_s32(x), n));
  }
  template <int n> static I shift_right_signed(I x) { return vshrq_n_s32(x, n); }

  static Mask nonzero(I x) { return vtstq_s32(x, x); }
  static Mask nonzero(F x) { return vmvnq_u32(vceqzq_f32(x)); }
  static Mask both(Mask a, Mask b) { return vandq_u32(a, b); }
  static I where(Mask m, I a, I b) { return vbslq_s32(m, a, b); }

  static F to_float(I x) { return vcvtq_f32_s32(x); }
  static D widen_low(F x) { return vcvt_f64_f32(vget_low_f32(x)); }
  static D widen_high(F x) { return vcvt_high_f64_f32(x); }

  // Two halves of another kind: of each four lanes the first two, and the other two.
  static D widen_first(F x) { return widen_low(x); }
  static D widen_second(F x) { return widen_high(x); }
  static F narrow(D first, D second) { return narrow_truncated(first, second); }
  /// FP64 words of a low and a high word to a lane.
  static D join_first(I low, I high) { return vreinterpretq_f64_s32(vzip1q_s32(low, high)); }
  static D join_second(I low, I high) { return vreinterpretq_f64_s32(vzip2q_s32(low, high)); }
  static I high_words(D first, D second) {
    return vuzp2q_s32(vreinterpretq_s32_f64(first), vreinterpretq_s32_f64(second));
  }

  static L extend_low(I x) { return vmovl_s32(vget_low_s32(x)); }
  static L extend_high(I x) { return vmovl_high_s32(x); }
  /// 2^(e + n) and 2^(n - e), the exponents of normal numbers.
  static D power(L e, int n) { return power_of(vaddq_s64(e, vdupq_n_s64(1023 + n))); }
  static D power_negated(L e, int n) { return power_of(vsubq_s64(vdupq_n_s64(1023 + n), e)); }
  /// Cut to a whole number; raises no flag.
  static D whole(D x) { return vrndq_f64(x); }

  // These truncate between toward_zero() and nearest() only; they raise flags.
  static constexpr bool kEmbeddedRounding = false;
  static F add_truncated(F a, F b) { return add(a, b); }
  static D add_truncated(D a, D b) { return add(a, b); }
  static F narrow_truncated(D low, D high) { return vcvt_high_f32_f64(vcvt_f32_f64(low), high); }
  /// FPCR 0: nearest even, no flushing, no traps. Clears the flags of FPSR.
  static void nearest() { asm volatile("msr fpcr, xzr\n\tmsr fpsr, xzr" ::: "memory"); }
  static void toward_zero() {
    const uint64_t rounding = uint64_t{3} << 22; // FPCR.RMode
    asm volatile("msr fpcr, %0" ::"r"(rounding) : "memory");
  }
  /// The same: truncates everything until nearest().
  static void mode_toward_zero() { toward_zero(); }
  static bool inexact() {
    uint64_t flags;
    asm volatile("mrs %0, fpsr" : "=r"(flags)::"memory");
    return (flags & 0x10) != 0; // FPSR.IXC
  }

  // Signed bytes times signed bytes: no offset.
  static constexpr int kByteOffset = 0;
  static Bytes dot_start_add(Bytes sum, Bytes) { return sum; }
  static int32_t dot_start_word(Bytes) { return 0; }
#if defined(__ARM_FEATURE_DOTPROD)
  using Dot = I; // SDOT: four products to a lane
  static Dot dot_start(const uint8_t *) { return vdupq_n_s32(0); }
  static Dot dot_zero() { return vdupq_n_s32(0); }
  static void dot(Dot &sum, I b, I a) { sum = vdotq_s32(sum, bytes(b), bytes(a)); }
  static Dot dot_sub(Dot a, Dot b) { return vsubq_s32(a, b); }
  static I total(Dot x) { return x; }
#else
  struct Dot { // SMLAL: products in 16 bits, which must hold sums of one in four
    int16x8_t low, high;
  };
  static Dot dot_start(const uint8_t *) { return dot_zero(); }
  static Dot dot_zero() { return {vdupq_n_s16(0), vdupq_n_s16(0)}; }
  static void dot(Dot &sum, I b, I a) {
    sum.low = vmlal_s8(sum.low, vget_low_s8(bytes(b)), vget_low_s8(bytes(a)));
    sum.high = vmlal_high_s8(sum.high, bytes(b), bytes(a));
  }
  static Dot dot_sub(Dot a, Dot b) { return {vsubq_s16(a.low, b.low), vsubq_s16(a.high, b.high)}; }
  static I total(Dot x) { return vpaddq_s32(vpaddlq_s16(x.low), vpaddlq_s16(x.high)); }
#endif
  static I spread_byte(int x) { return vreinterpretq_s32_s8(vdupq_n_s8(int8_t(x))); }
  static I magnitude8(I x) { return vreinterpretq_s32_s8(vabsq_s8(bytes(x))); }
  static I one_where_differs8(I x, int from) {
    const uint8x16_t same = vceqq_s8(bytes(x), vdupq_n_s8(int8_t(from)));
    return vreinterpretq_s32_u8(vbicq_u8(vdupq_n_u8(1), same));
  }

  static Bytes lookup_nibbles(const int8_t (&table)[16], const uint8_t *nibbles) {
    const uint8x8_t pairs = vld1_u8(nibbles), low = vand_u8(pairs, vdup_n_u8(15)), high = vshr_n_u8(pairs, 4);
    return vqtbl1q_s8(vld1q_s8(table), vcombine_u8(vzip1_u8(low, high), vzip2_u8(low, high)));
  }
  static Bytes zero_bytes() { return vdupq_n_s8(0); }
  static Bytes add8(Bytes x, int y) { return vaddq_s8(x, vdupq_n_s8(int8_t(y))); }
  static void store(uint8_t *to, Bytes x) { vst1q_s8(reinterpret_cast<int8_t *>(to), x); }
  template <int n> static int32_t word(Bytes x) { return vgetq_lane_s32(vreinterpretq_s32_s8(x), n); }

private:
  static int8x16_t bytes(I x) { return vreinterpretq_s8_s32(x); }
  static D power_of(L field) { return vreinterpretq_f64_s64(vshlq_n_s64(field, 52)); }
};

} // namespace
} // namespace nvfp4::simd
