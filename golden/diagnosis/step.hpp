// SPDX-License-Identifier: Apache-2.0
// The definition of a dot product once more, step by step and with everything in between kept: what a trace
// shows, and the chain with another final rounding. Uses the helpers of the reference, not its loops.
#pragma once
#include "nvfp4/emulator/tensorcore/execute.hpp"

#include <array>
#include <cmath>

namespace nvfp4 {

/// How a finished sum becomes the accumulator.
enum class Finish : uint8_t {
  as_unit,      ///< as the catalogue says: truncation for FP32 accumulators
  nearest_even, ///< nearest even where the unit truncates
};

/// One fused step (or one addition, or one FP64 fma) of a chain.
struct Step {
  enum class Kind : uint8_t {
    fused,   ///< align, cut, sum, round
    wide,    ///< exact sum (accumulation model `exact`): no alignment, `sum` is not kept
    add,     ///< IEEE addition of two accumulators (expanded FP8)
    fma,     ///< one IEEE fused multiply-add (FP64)
    special, ///< NaN or Inf decided: nothing was aligned
  };
  Kind kind = Kind::special;
  int64_t k = 0;        ///< first element along K
  int products = 0;     ///< elements along K
  int max_exponent = 0; ///< what terms are aligned to, the unit's floor included
  int lsb = 0;          ///< aligned terms and sum count units of 2^lsb
  int terms = 0; ///< scaled groups (FP4) or products in K order, then the accumulator; absent ones are 0
  std::array<int64_t, kMaxLink + 1> aligned; ///< [0, terms) are set
  int cut_terms = 0;                         ///< terms that lost bits in the alignment
  double lost = 0;                           ///< magnitude lost by all terms together, in units of 2^lsb
  int64_t sum = 0;                           ///< before normalisation, exact
  uint64_t word = 0;                         ///< the accumulator after the step
};

namespace detail {

/// Nearest-even rounding of an exact sum; the truncated word is the start.
[[nodiscard]] inline uint64_t round_wide(const WideSum &sum, Finish finish) {
  const uint64_t cut = sum.truncate_to_f32();
  const Decoded d = decode(format(FormatId::f32), cut);
  if (finish == Finish::as_unit || d.cls == Class::infinity) return cut;
  const bool negative = (sum.limb[WideSum::kLimbs - 1] >> 63) != 0;
  const int64_t sign = negative ? -1 : 1;
  WideSum rest = sum; // |rest| - half an ulp
  if (d.significand != 0) rest.add(-sign * int64_t(d.significand), d.exponent - 23);
  rest.add(-sign, d.exponent - 24);
  bool zero = true;
  for (const uint64_t limb : rest.limb) zero = zero && limb == 0;
  const bool below_half = !zero && ((rest.limb[WideSum::kLimbs - 1] >> 63) != 0) != negative;
  if (below_half || (zero && (cut & 1) == 0)) return cut;
  return (cut & 0x7FFFFFFF) + 1 + (negative ? 0x80000000 : 0);
}

[[nodiscard]] inline uint64_t round_fused(Output output, int64_t sum, int lsb, Finish finish) {
  if (finish == Finish::as_unit || (output != Output::rz_f32 && output != Output::rz_e8m13) || sum == 0)
    return round_sum(output, sum, lsb);
  const Format f = format(output == Output::rz_e8m13 ? FormatId::e8m13 : FormatId::f32);
  const uint64_t magnitude = sum < 0 ? uint64_t{0} - uint64_t(sum) : uint64_t(sum);
  const uint64_t code = encode(f, sum < 0, magnitude, lsb, Rounding::nearest_even, Overflow::infinity);
  return code == with_sign(f, true, 0) ? 0 : code;
}

/// Aligns terms[0, s.terms) to s.max_exponent, sums and rounds.
inline void finish_fused(const UnitRule &rule, Finish finish, const SumTerm *terms, Step &s) {
  s.kind = Step::Kind::fused;
  s.lsb = s.max_exponent - rule.fraction_bits;
  for (int i = 0; i < s.terms; ++i) {
    const SumTerm &t = terms[i];
    s.aligned[size_t(i)] = t.significand == 0 ? 0 : align_term(t, s.max_exponent, rule.fraction_bits);
    s.sum += s.aligned[size_t(i)];
    const int shift = rule.fraction_bits - t.fraction - (s.max_exponent - t.exponent);
    if (t.significand == 0 || shift >= 0) continue;
    const uint64_t cut = shift <= -64 ? t.significand : t.significand & ((uint64_t{1} << -shift) - 1);
    if (cut == 0) continue;
    ++s.cut_terms;
    s.lost += std::ldexp(double(cut), shift);
  }
  s.word = round_fused(rule.output, s.sum, s.lsb, finish);
}

inline void fdpa_step(const UnitRule &rule, CodeView a, CodeView b, int n, uint64_t c, int scale_exponent,
                      Finish finish, Step &s) {
  const Format fa = format(rule.a), fb = format(rule.b), fc = format(rule.acc);
  SumTerm terms[kMaxLink + 1];
  SpecialTerms special;
  s.max_exponent = rule.floor;
  s.terms = n + 1;
  for (int i = 0; i < n; ++i) {
    const Decoded x = decode(fa, a[i]), y = decode(fb, b[i]);
    const bool negative = x.negative != y.negative;
    terms[i] = {negative, 0, 0, 0};
    if (x.cls == Class::nan || y.cls == Class::nan)
      special.nan = true;
    else if (x.cls == Class::infinity || y.cls == Class::infinity) {
      if (x.cls == Class::zero || y.cls == Class::zero)
        special.nan = true;
      else
        special.infinity(negative);
    } else if (x.significand != 0 && y.significand != 0) {
      const int e = x.exponent + y.exponent + scale_exponent;
      terms[i] = {negative, x.significand * y.significand, e, fa.mantissa_bits + fb.mantissa_bits};
      s.max_exponent = std::max(s.max_exponent, e);
    }
  }
  const Decoded z = decode(fc, c);
  terms[n] = {z.negative, z.significand, z.exponent, fc.mantissa_bits};
  if (z.cls == Class::nan)
    special.nan = true;
  else if (z.cls == Class::infinity)
    special.infinity(z.negative);
  else if (z.significand != 0)
    s.max_exponent = std::max(s.max_exponent, z.exponent);
  if (special.any()) {
    s.word = special.result(rule.output);
    return;
  }
  finish_fused(rule, finish, terms, s);
}

inline void gst_step(const UnitRule &rule, const DotOperands &op, uint64_t c, Accumulation accumulation,
                     Finish finish, Step &s) {
  const int count = rule.k / kGroup;
  ScaledGroup groups[kMaxGroups] = {};
  const Decoded z = decode(format(FormatId::f32), c);
  bool nan = z.cls == Class::nan;
  for (int g = 0; g < count; ++g) {
    const int at = g * kGroup / rule.scale_block;
    const GroupScale sa = decode_scale(rule.scale, op.scale_a[at]),
                     sb = decode_scale(rule.scale, op.scale_b[at]);
    nan = nan || sa.nan || sb.nan;
    groups[g] = scale_group(op.a.from(g * kGroup), op.b.from(g * kGroup), sa, sb);
  }
  if (nan || z.cls == Class::infinity) {
    s.word = nan ? accumulator_nan(rule.output) : c;
    return;
  }
  SumTerm terms[kMaxGroups + 1];
  s.max_exponent = rule.floor;
  s.terms = count + 1;
  WideSum wide;
  for (int g = 0; g < count; ++g) {
    const ScaledGroup &group = groups[g];
    const bool negative = group.scaled < 0;
    terms[g] = {negative, uint64_t(negative ? -group.scaled : group.scaled), group.scale_exponent, 8};
    wide.add(group.scaled, group.scale_exponent - 8);
    const bool nadpe = accumulation == Accumulation::nadpe;
    if (!group.present || (nadpe && group.scaled == 0)) continue;
    s.max_exponent = std::max(s.max_exponent, group.scale_exponent + (nadpe ? group.top_product : 0));
  }
  terms[count] = {z.negative, z.significand, z.exponent, 23};
  if (z.significand != 0) s.max_exponent = std::max(s.max_exponent, z.exponent);
  if (accumulation == Accumulation::exact) {
    s.kind = Step::Kind::wide;
    s.terms = 0;
    if (z.significand != 0)
      wide.add(z.negative ? -int64_t(z.significand) : int64_t(z.significand), z.exponent - 23);
    s.word = round_wide(wide, finish);
    return;
  }
  finish_fused(rule, finish, terms, s);
}

/// The steps of one expanded FP8 instruction.
template <class Visit>
uint64_t expanded_steps(const UnitRule &rule, const DotOperands &op, int64_t k, uint64_t c, Finish finish,
                        Visit &visit) {
  UnitRule hmma = rule;
  hmma.a = hmma.b = FormatId::f16;
  uint64_t acc = 0;
  for (int half = 0; half < 2; ++half) {
    uint16_t x[kMaxLink], y[kMaxLink];
    int n = 0;
    for (int i = 0; i < rule.k; ++i) {
      if (i % 4 / 2 != half) continue;
      x[n] = uint16_t(
          convert(format(FormatId::f16), format(rule.a), op.a[i], Rounding::nearest_even, Overflow::ieee));
      y[n++] = uint16_t(
          convert(format(FormatId::f16), format(rule.b), op.b[i], Rounding::nearest_even, Overflow::ieee));
    }
    Step s;
    s.k = k;
    s.products = n;
    fdpa_step(hmma, {reinterpret_cast<const uint8_t *>(x), 16}, {reinterpret_cast<const uint8_t *>(y), 16}, n,
              acc, 0, finish, s);
    acc = s.word;
    visit(s);
  }
  Step s;
  s.kind = Step::Kind::add;
  s.k = k;
  s.products = rule.k;
  s.word = add_accumulators(rule.acc, acc, c);
  visit(s);
  return s.word;
}

} // namespace detail

/// The chain of dot() (execute.hpp) from c over k elements; visit(const Step &) sees every step. Returns the
/// last word, which with Finish::as_unit is dot()'s.
template <class Visit>
uint64_t run_steps(const UnitRule &rule, const DotOperands &op, int64_t k, uint64_t c,
                   Accumulation accumulation, Finish finish, Visit &&visit) {
  for (int64_t i = 0; i < k; i += rule.k) {
    const int64_t at = rule.scale_block == 0 ? 0 : i / rule.scale_block;
    const DotOperands one{op.a.from(i), op.b.from(i), op.scale_a + at, op.scale_b + at};
    if (rule.family == Family::expanded_fp8) {
      c = detail::expanded_steps(rule, one, i, c, finish, visit);
      continue;
    }
    const int link = rule.family == Family::gst_fdpa ? rule.k : rule.family == Family::fma ? 1 : rule.link;
    for (int j = 0; j < rule.k; j += link) {
      Step s;
      s.k = i + j;
      s.products = link;
      if (rule.family == Family::gst_fdpa) {
        detail::gst_step(rule, one, c, accumulation, finish, s);
      } else if (rule.family == Family::fma) {
        s.kind = Step::Kind::fma;
        s.word = fma_f64(one.a[j], one.b[j], c);
      } else {
        int scale_exponent = 0;
        bool nan = false;
        if (rule.family == Family::st_fdpa) {
          const Format f = format(rule.scale);
          const Decoded x = decode(f, one.scale_a[j / rule.scale_block]),
                        y = decode(f, one.scale_b[j / rule.scale_block]);
          nan = x.cls == Class::nan || y.cls == Class::nan;
          scale_exponent = x.exponent + y.exponent;
        }
        if (nan)
          s.word = accumulator_nan(rule.output);
        else
          detail::fdpa_step(rule, one.a.from(j), one.b.from(j), link, c, scale_exponent, finish, s);
      }
      c = s.word;
      visit(s);
    }
  }
  return c;
}

} // namespace nvfp4
