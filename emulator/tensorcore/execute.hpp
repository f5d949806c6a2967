// SPDX-License-Identifier: Apache-2.0
// Runs units: one instruction, and a dot product as the chain of instructions in increasing K. This text is the
// definition that every fast path is compared with.
#pragma once
#include "nvfp4/emulator/tensorcore/exact_sum.hpp"

#include <cmath>

namespace nvfp4 {

/// The operands of one dot product, codes in K order. Scales are null for units without them.
struct DotOperands {
  CodeView a, b;
  const uint8_t *scale_a = nullptr, *scale_b = nullptr; ///< one scale per scale_block elements
};

/// IEEE addition of two accumulator words, nearest even, canonical NaN: FADD and HADD2 after the expanded FP8 HMMAs.
[[nodiscard]] NVFP4_HD inline uint64_t add_accumulators(FormatId acc, uint64_t x, uint64_t y) {
  const Output output = acc == FormatId::f16 ? Output::rne_f16 : Output::rz_f32;
  const Format f = format(acc), wide = format(FormatId::f64);
  // FP32 + FP32 in double rounds innocently (53 >= 2*24 + 2); FP16 + FP16 is exact
  const double sum = value(acc, x) + value(acc, y);
  if (sum != sum) return accumulator_nan(output);
  return convert(f, wide, bit_cast<uint64_t>(sum), Rounding::nearest_even, Overflow::ieee);
}

/// FP8 mma.sync as ptxas expands it for sm_90, 100, 103 and 110: elements become FP16, one HMMA over k % 4 in {0, 1}
/// from zero, one over k % 4 in {2, 3} chained to it, then one add of C.
template <class Hooks = AsUnit>
[[nodiscard]] NVFP4_HD inline uint64_t expanded_fp8(const UnitRule &rule, CodeView a, CodeView b, uint64_t c,
                                                    Hooks &&hooks = Hooks()) {
  UnitRule hmma = rule;
  hmma.a = hmma.b = FormatId::f16;
  uint64_t acc = 0;
  for (int half = 0; half < 2; ++half) {
    uint16_t x[kMaxLink], y[kMaxLink];
    int n = 0;
    for (int k = 0; k < rule.k; ++k) {
      if (k % 4 / 2 != half) continue;
      x[n] = uint16_t(convert(format(FormatId::f16), format(rule.a), a[k], Rounding::nearest_even, Overflow::ieee));
      y[n] = uint16_t(convert(format(FormatId::f16), format(rule.b), b[k], Rounding::nearest_even, Overflow::ieee));
      ++n;
    }
    const CodeView va{reinterpret_cast<const uint8_t *>(x), 16}, vb{reinterpret_cast<const uint8_t *>(y), 16};
    acc = fdpa(hmma, va, vb, n, acc, 0, hooks);
    hooks.step(0, n, acc);
  }
  hooks.addition();
  const uint64_t sum = add_accumulators(rule.acc, acc, c);
  hooks.step(0, rule.k, sum);
  return sum;
}

/// One FP64 fused multiply-add. NaN as DMMA on H200: the first NaN among b, c, a passes on, made quiet; a NaN that the
/// operation itself makes is 0xFFF8000000000000.
[[nodiscard]] NVFP4_HD inline uint64_t fma_f64(uint64_t a, uint64_t b, uint64_t c) {
  constexpr uint64_t quiet = uint64_t{1} << 51;
  for (const uint64_t word : {b, c, a})
    if (decode(format(FormatId::f64), word).cls == Class::nan) return word | quiet;
  const double r = fma(bit_cast<double>(a), bit_cast<double>(b), bit_cast<double>(c));
  return r != r ? kGeneratedNanF64 : bit_cast<uint64_t>(r);
}

/// One instruction: D of one output element for the unit's K.
template <class Hooks = AsUnit>
[[nodiscard]] NVFP4_HD inline uint64_t execute(const UnitRule &rule, const DotOperands &op, uint64_t c,
                                               Accumulation accumulation = Accumulation::mmasim,
                                               Hooks &&hooks = Hooks()) {
  switch (rule.family) {
  case Family::gst_fdpa:
    c = gst_fdpa(rule, op.a, op.b, op.scale_a, op.scale_b, c, accumulation, hooks);
    hooks.step(0, rule.k, c);
    return c;
  case Family::exact_sum:
    c = exact_sum(rule, op.a, op.b, op.scale_a, op.scale_b, c, hooks);
    hooks.step(0, rule.k, c);
    return c;
  case Family::expanded_fp8: return expanded_fp8(rule, op.a, op.b, c, hooks);
  case Family::fma:
    for (int k = 0; k < rule.k; ++k) {
      hooks.fma();
      c = fma_f64(op.a[k], op.b[k], c);
      hooks.step(k, 1, c);
    }
    return c;
  case Family::st_fdpa:
  case Family::fdpa: break;
  }
  for (int k = 0; k < rule.k; k += rule.link) {
    int scale_exponent = 0;
    bool nan = false;
    if (rule.family == Family::st_fdpa) {
      const Format f = format(rule.scale);
      const Decoded x = decode(f, op.scale_a[k / rule.scale_block]), y = decode(f, op.scale_b[k / rule.scale_block]);
      nan = x.cls == Class::nan || y.cls == Class::nan;
      scale_exponent = x.exponent + y.exponent;
    }
    c = nan ? accumulator_nan(rule.output) : fdpa(rule, op.a.from(k), op.b.from(k), rule.link, c, scale_exponent, hooks);
    hooks.step(k, rule.link, c);
  }
  return c;
}

/// A dot product over k elements (a multiple of rule.k): the chain of instructions in increasing K from c.
template <class Hooks = AsUnit>
[[nodiscard]] NVFP4_HD inline uint64_t dot(const UnitRule &rule, const DotOperands &op, int64_t k, uint64_t c,
                                           Accumulation accumulation = Accumulation::mmasim, Hooks &&hooks = Hooks()) {
  for (int64_t i = 0; i < k; i += rule.k) {
    const int64_t s = rule.scale_row(i);
    hooks.instruction(i);
    c = execute(rule, {op.a.from(i), op.b.from(i), op.scale_a + s, op.scale_b + s}, c, accumulation, hooks);
  }
  return c;
}

} // namespace nvfp4
