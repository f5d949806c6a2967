// SPDX-License-Identifier: Apache-2.0
// T-FDPA and ST-FDPA: one fused dot-product-add of a tensor core in integer arithmetic. Aligns every product and the
// accumulator to the largest exponent, truncates each magnitude there, sums exactly and rounds once.
// Sources: MMA-Sim (arXiv 2511.10909) for the algorithm; emulator/README.md for what was measured on hardware.
#pragma once
#include "nvfp4/emulator/formats/code_view.hpp"
#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/tensorcore/unit.hpp"

namespace nvfp4 {

/// The NaN that an invalid FP64 operation gives on NVIDIA GPUs.
inline constexpr uint64_t kGeneratedNanF64 = 0xFFF8000000000000;

/// Canonical NaN of an accumulator container: 0x7FFFFFFF, 0x7FFF.
[[nodiscard]] NVFP4_HD constexpr uint64_t accumulator_nan(Output output) {
  return output == Output::rne_f16 ? 0x7FFF : output == Output::rne_f64 ? kGeneratedNanF64 : 0x7FFFFFFF;
}

/// Rounds the exact sum S * 2^lsb into the container. Overflow gives Inf although f32 truncates. A zero result is +0,
/// whether S is zero or a negative S is too small to represent (measured on H200 for every unit).
[[nodiscard]] NVFP4_HD constexpr uint64_t round_sum(Output output, int64_t sum, int lsb) {
  const bool negative = sum < 0;
  const uint64_t magnitude = negative ? uint64_t{0} - uint64_t(sum) : uint64_t(sum);
  if (magnitude == 0) return 0;
  const Format f = format(output == Output::rne_f16    ? FormatId::f16
                          : output == Output::rz_e8m13 ? FormatId::e8m13
                                                       : FormatId::f32);
  const Rounding rounding = output == Output::rne_f16 ? Rounding::nearest_even : Rounding::toward_zero;
  const uint64_t code = encode(f, negative, magnitude, lsb, rounding, Overflow::infinity);
  return code == with_sign(f, true, 0) ? 0 : code;
}

/// Collects Inf and NaN of the terms of one sum.
struct SpecialTerms {
  bool nan = false, plus_inf = false, minus_inf = false;

  NVFP4_HD constexpr void infinity(bool negative) { (negative ? minus_inf : plus_inf) = true; }
  [[nodiscard]] NVFP4_HD constexpr bool any() const { return nan || plus_inf || minus_inf; }
  [[nodiscard]] NVFP4_HD constexpr uint64_t result(Output output) const {
    if (nan || (plus_inf && minus_inf)) return accumulator_nan(output);
    return with_sign(format(output == Output::rne_f16 ? FormatId::f16 : FormatId::f32), minus_inf,
                     format(output == Output::rne_f16 ? FormatId::f16 : FormatId::f32).infinity_magnitude());
  }
};

/// A finite term of a sum: significand * 2^(exponent - fraction), sign apart.
struct SumTerm {
  bool negative;
  uint64_t significand;
  int exponent;
  int fraction;
};

/// The exponent of a term that takes no part in a sum: below all others, so that alignment leaves nothing of it.
inline constexpr int kAbsent = -(1 << 20);

/// The magnitude of a term in units of 2^(top - F), truncated.
[[nodiscard]] NVFP4_HD constexpr int64_t align_term(const SumTerm &t, int top, int fraction_bits) {
  const int shift = fraction_bits - t.fraction - (top - t.exponent);
  const uint64_t m = shift >= 0 ? t.significand << shift : shift <= -64 ? 0 : t.significand >> -shift;
  return t.negative ? -int64_t(m) : int64_t(m);
}

/// What the definition shows of its inside, and how it rounds at last. This one shows nothing and rounds as the unit
/// does; another type with these members makes a trace, or asks what another final rounding would have given. Every
/// function of the definition takes one as its last argument.
struct AsUnit {
  /// One fused step: `count` terms in K order, the accumulator last, aligned to `top`, F = `fraction_bits`.
  NVFP4_HD constexpr void fused(const SumTerm * /*terms*/, int /*count*/, int /*top*/, int /*fraction_bits*/) {}
  /// One exact sum (accumulation model `exact`, and exact_sum.hpp).
  NVFP4_HD constexpr void wide() {}
  /// One IEEE operation: addition of two accumulators, or an FP64 fma.
  NVFP4_HD constexpr void addition() {}
  NVFP4_HD constexpr void fma() {}
  /// The accumulator after a step over `products` elements from the instruction's element k on.
  NVFP4_HD constexpr void step(int /*k*/, int /*products*/, uint64_t /*word*/) {}
  /// An instruction begins at the chain's element k.
  NVFP4_HD constexpr void instruction(int64_t /*k*/) {}

  [[nodiscard]] NVFP4_HD constexpr uint64_t round(Output output, int64_t sum, int lsb) const {
    return round_sum(output, sum, lsb);
  }
  [[nodiscard]] NVFP4_HD constexpr uint64_t round(Output output, const auto &wide_sum) const {
    return wide_sum.to_f32(output == Output::rne_f32 ? Rounding::nearest_even : Rounding::toward_zero);
  }
};

/// Widest fused step of any unit, in products.
inline constexpr int kMaxLink = 32;

/// Cuts `count` terms to multiples of 2^(top - F), sums them exactly and rounds. |term| < 2^(F + 14), at most 33 terms.
template <class Hooks>
[[nodiscard]] NVFP4_HD constexpr uint64_t sum_terms(const UnitRule &rule, const SumTerm *terms, int count, int top,
                                                    Hooks &&hooks) {
  int64_t sum = 0;
  for (int i = 0; i < count; ++i) sum += align_term(terms[i], top, rule.fraction_bits);
  hooks.fused(terms, count, top, rule.fraction_bits);
  return hooks.round(rule.output, sum, top - rule.fraction_bits);
}

/// One fused step over n products of a and b (n <= kMaxLink) and the accumulator word c.
/// scale_exponent is added to every product's exponent (ST-FDPA); 0 for the unscaled units.
template <class Hooks = AsUnit>
[[nodiscard]] NVFP4_HD inline uint64_t fdpa(const UnitRule &rule, CodeView a, CodeView b, int n, uint64_t c,
                                            int scale_exponent = 0, Hooks &&hooks = Hooks()) {
  const Format fa = format(rule.a), fb = format(rule.b), fc = format(rule.acc);
  SumTerm terms[kMaxLink + 1];
  int top = rule.floor;
  SpecialTerms special;
  for (int i = 0; i < n; ++i) {
    const Decoded x = decode(fa, a[i]), y = decode(fb, b[i]);
    const bool negative = x.negative != y.negative;
    terms[i] = {negative, 0, kAbsent, 0};
    if (x.cls == Class::nan || y.cls == Class::nan) special.nan = true;
    else if (x.cls == Class::infinity || y.cls == Class::infinity) {
      if (x.cls == Class::zero || y.cls == Class::zero) special.nan = true;
      else special.infinity(negative);
    } else if (x.significand != 0 && y.significand != 0) {
      const int e = x.exponent + y.exponent + scale_exponent;
      terms[i] = {negative, x.significand * y.significand, e, fa.mantissa_bits + fb.mantissa_bits};
      top = e > top ? e : top;
    }
  }
  const Decoded z = decode(fc, c);
  terms[n] = {z.negative, z.significand, z.significand == 0 ? kAbsent : z.exponent, fc.mantissa_bits};
  if (z.cls == Class::nan) special.nan = true;
  else if (z.cls == Class::infinity) special.infinity(z.negative);
  else if (terms[n].exponent > top) top = terms[n].exponent;
  if (special.any()) return special.result(rule.output);
  return sum_terms(rule, terms, n + 1, top, hooks);
}

} // namespace nvfp4
