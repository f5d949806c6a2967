// SPDX-License-Identifier: Apache-2.0
// The step of the units that are ours: every product with its scales and the accumulator summed exactly, one
// rounding to FP32, nearest even. No hardware is claimed to do so. It shows what a format costs apart from
// any accumulator.
#pragma once
#include "nvfp4/emulator/formats/block_codes.hpp"
#include "nvfp4/emulator/tensorcore/gst_fdpa.hpp"

namespace nvfp4 {

/// One instruction over rule.k elements. NaN of any factor wins; Inf times zero is NaN, as is Inf - Inf.
/// Scales may be null where rule.scale_block is 0.
template <class Hooks = AsUnit>
[[nodiscard]] NVFP4_HD inline uint64_t exact_sum(const UnitRule &rule, CodeView a, CodeView b,
                                                 const uint8_t *scale_a, const uint8_t *scale_b, uint64_t c,
                                                 Hooks &&hooks = Hooks()) {
  const Format fa = format(rule.a), fb = format(rule.b), fs = format(rule.scale), fc = format(rule.acc);
  WideSum sum;
  SpecialTerms special;
  for (int i = 0; i < rule.k; ++i) {
    Factor factors[4];
    int count = 2;
    bool flag_a = false, flag_b = false;
    if (rule.scale_block != 0) {
      const int block = i / rule.scale_block, place = i % rule.scale_block;
      const uint32_t word_a = read_scale(rule.scale, scale_a, block), word_b = read_scale(rule.scale, scale_b, block);
      factors[count++] = scale_factor(fs, word_a, place);
      factors[count++] = scale_factor(fs, word_b, place);
      flag_a = is_flagged(fs, word_a);
      flag_b = is_flagged(fs, word_b);
    }
    factors[0] = element_factor(fa, a[i], flag_a);
    factors[1] = element_factor(fb, b[i], flag_b);
    bool nan = false, infinity = false, zero = false, negative = false;
    int64_t product = 1; // of elements at most 2^8 * 2^8, flagged ones 2^24 * 2^24, of scales 2^4 * 2^4
    int lsb = 0;
    for (int f = 0; f < count; ++f) {
      const Factor &x = factors[f];
      nan = nan || x.cls == Class::nan;
      infinity = infinity || x.cls == Class::infinity;
      zero = zero || x.cls == Class::zero;
      negative = negative != x.negative;
      product *= int64_t(x.significand);
      lsb += x.lsb;
    }
    if (nan || (infinity && zero))
      special.nan = true;
    else if (infinity)
      special.infinity(negative);
    else if (!zero)
      sum.add(negative ? -product : product, lsb);
  }
  const Decoded z = decode(fc, c);
  if (z.cls == Class::nan)
    special.nan = true;
  else if (z.cls == Class::infinity)
    special.infinity(z.negative);
  else if (z.significand != 0)
    sum.add(z.negative ? -int64_t(z.significand) : int64_t(z.significand), z.exponent - fc.mantissa_bits);
  if (special.any()) return special.result(rule.output);
  hooks.wide();
  return hooks.round(rule.output, sum);
}

} // namespace nvfp4
