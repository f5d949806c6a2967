// SPDX-License-Identifier: Apache-2.0
// The FDPA kernels over a vector type V of emulator/simd: `rows` x one vector of columns to a tile. README.md
// explains and proves them. Included by one file for each instruction set; private to each of them.
#pragma once
#include "nvfp4/emulator/gemm/fdpa_kernels.hpp"

namespace nvfp4::gemm {
namespace {

template <class V, int rows> struct FdpaSimd {
  using F = typename V::F;
  using I = typename V::I;
  using D = typename V::D;

  static constexpr int kMr = rows, kNr = V::lanes;

  /// 2^e for -126 <= e <= 127.
  static F power(I e) { return V::as_float(V::template shift_left<23>(V::add(e, V::broadcast(127)))); }

  /// The larger of the two signed 16-bit halves of each lane.
  static I larger_half(I pairs) {
    return V::max(V::template shift_right_signed<16>(pairs),
                  V::template shift_right_signed<16>(V::template shift_left<16>(pairs)));
  }

  /// (a + b + c) * unit truncated to FP32, by way of FP64: 33 bits and a power of two are exact there.
  static F finish_wide(I a, I b, I c, F unit) {
    const D low = V::add(V::add(V::widen_low(a), V::widen_low(b)), V::widen_low(c));
    const D high = V::add(V::add(V::widen_high(a), V::widen_high(b)), V::widen_high(c));
    return V::narrow_truncated(V::mul(low, V::widen_low(unit)), V::mul(high, V::widen_high(unit)));
  }

  /// Bits whose sign is set where a + b = sum left 32 bits.
  static I overflow(I a, I b, I sum) { return V::bit_and(V::bit_xor(a, sum), V::bit_xor(b, sum)); }

  /// The rounding mode must be toward zero where V's rounding is a mode.
  template <int link, bool scaled, bool wide>
  [[gnu::noinline]] static bool tile_of(const uint8_t *a, const uint8_t *b, int64_t steps,
                                        const FdpaStep &step, const float *in, float *out) {
    constexpr int sums = link == 32 ? 2 : 1; // 16 products, each under 4 * 2^25, fill 31 bits
    const I fraction = V::broadcast(step.fraction_bits);
    const I keep = V::broadcast(step.e8m13 ? ~0x3FF : ~0);
    I lost = V::broadcast(0);
    F acc[kMr];
#pragma GCC unroll 8
    for (int r = 0; r < kMr; ++r) acc[r] = V::load(in + kNr * r);
    for (int64_t t = 0; t < steps; ++t) {
      const uint8_t *ea = a + kMr * link * 4, *eb = b + kNr * link * 4;
      const uint8_t *sa = a + kMr * link * 6, *sb = b + kNr * link * 6;
      I top[kMr];
      {
        const I e = V::load_i(eb);
#pragma GCC unroll 8
        for (int r = 0; r < kMr; ++r) top[r] = V::add16(e, V::spread_i(ea + 2 * link * r));
      }
#pragma GCC unroll 2
      for (int k = 2; k < link; k += 2) {
        const I e = V::load_i(eb + 2 * kNr * k);
#pragma GCC unroll 8
        for (int r = 0; r < kMr; ++r)
          top[r] = V::max16(top[r], V::add16(e, V::spread_i(ea + 2 * link * r + 2 * k)));
      }
      F lift[kMr]; // 2^(F - top), with the scales' exponents for the products
      I sum[kMr][sums];
#pragma GCC unroll 8
      for (int r = 0; r < kMr; ++r) {
        I e = larger_half(top[r]), s = V::broadcast(0);
        if (scaled) {
          s = V::add(V::load_i(sb), V::spread_i(sa + 4 * r));
          e = V::add(e, s);
        }
        const I c = V::template shift_right<24>(V::template shift_left<1>(V::as_int(acc[r])));
        e = V::max(e, V::sub(c, V::broadcast(127)));
        top[r] = V::max(e, V::broadcast(kAlignmentFloor));
        I up = V::sub(fraction, top[r]);
        if (scaled) // a block of zeros may have any scale; a block far below the top vanishes
          up = V::max(V::min(V::add(up, s), V::broadcast(127)), V::broadcast(-126));
        lift[r] = power(up);
        for (int h = 0; h < sums; ++h) sum[r][h] = V::broadcast(0);
      }
#pragma GCC unroll 2
      for (int h = 0; h < sums; ++h)
#pragma GCC unroll 4
        for (int k = h * 16; k < h * 16 + link / sums; ++k) {
          const F y = V::load_f(b + 4 * kNr * k);
#pragma GCC unroll 8
          for (int r = 0; r < kMr; ++r) {
            const F p = V::mul(y, V::spread_f(a + 4 * link * r + 4 * k));
            sum[r][h] = V::add(sum[r][h], V::to_int_truncated(V::mul(p, lift[r])));
          }
        }
#pragma GCC unroll 8
      for (int r = 0; r < kMr; ++r) {
        const F down = power(V::sub(top[r], fraction)), up = power(V::sub(fraction, top[r]));
        const I term = V::to_int_truncated(V::mul(acc[r], up));
        if (wide) {
          acc[r] = finish_wide(sum[r][0], sums == 2 ? sum[r][sums - 1] : V::broadcast(0), term, down);
        } else {
          I total = sum[r][0];
          if (sums == 2) {
            total = V::add(sum[r][0], sum[r][sums - 1]);
            lost = V::bit_or(lost, overflow(sum[r][0], sum[r][sums - 1], total));
          }
          const I all = V::add(total, term);
          lost = V::bit_or(lost, overflow(total, term, all));
          acc[r] = V::mul(V::to_float_truncated(all), down);
        }
        acc[r] = V::as_float(V::bit_and(V::as_int(acc[r]), keep));
      }
      a = sa + (scaled ? 4 * kMr : 0);
      b = sb + (scaled ? 4 * kNr : 0);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kMr; ++r) V::store(out + kNr * r, acc[r]);
    return !V::any_negative(lost);
  }

  template <bool wide>
  static bool tile_any(const uint8_t *a, const uint8_t *b, int64_t steps, const FdpaStep &step,
                       const float *in, float *out) {
    switch (step.link) {
    case 4: return tile_of<4, false, wide>(a, b, steps, step, in, out);
    case 8: return tile_of<8, false, wide>(a, b, steps, step, in, out);
    case 16: return tile_of<16, false, wide>(a, b, steps, step, in, out);
    default:
      return step.scaled ? tile_of<32, true, wide>(a, b, steps, step, in, out)
                         : tile_of<32, false, wide>(a, b, steps, step, in, out);
    }
  }

  static bool tile(const uint8_t *a, const uint8_t *b, int64_t steps, const FdpaStep &step, bool wide,
                   const float *in, float *out) {
    V::toward_zero();
    const bool kept =
        wide ? tile_any<true>(a, b, steps, step, in, out) : tile_any<false>(a, b, steps, step, in, out);
    V::nearest();
    return kept;
  }

  static constexpr FdpaKernels kTable{kMr, kNr, tile};
};

} // namespace
} // namespace nvfp4::gemm
