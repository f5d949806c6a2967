// SPDX-License-Identifier: Apache-2.0
// The step of the units that are ours: every product with its scales and the accumulator summed exactly, one
// rounding to FP32, nearest even. No hardware is claimed to do so. It shows what a format costs apart from
// any accumulator.
#pragma once
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
    Decoded factors[4] = {decode(fa, a[i]), decode(fb, b[i])};
    int count = 2, fraction = fa.mantissa_bits + fb.mantissa_bits;
    if (rule.scale_block != 0) {
      factors[count++] = decode(fs, scale_a[i / rule.scale_block]);
      factors[count++] = decode(fs, scale_b[i / rule.scale_block]);
      fraction += 2 * fs.mantissa_bits;
    }
    bool nan = false, infinity = false, zero = false, negative = false;
    int64_t product = 1; // at most 2^8 * 2^8 * 2^4 * 2^4
    int exponent = 0;
    for (int f = 0; f < count; ++f) {
      const Decoded &x = factors[f];
      nan = nan || x.cls == Class::nan;
      infinity = infinity || x.cls == Class::infinity;
      zero = zero || x.cls == Class::zero;
      negative = negative != x.negative;
      product *= int64_t(x.significand);
      exponent += x.exponent;
    }
    if (nan || (infinity && zero))
      special.nan = true;
    else if (infinity)
      special.infinity(negative);
    else if (!zero)
      sum.add(negative ? -product : product, exponent - fraction);
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
