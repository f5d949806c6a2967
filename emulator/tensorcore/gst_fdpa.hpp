// SPDX-License-Identifier: Apache-2.0
// GST-FDPA: the FP4 step of Blackwell (mxf4, mxf4nvf4). Groups of 16 products are summed exactly and multiplied by
// their two scales exactly; groups and accumulator are then aligned, truncated, summed and rounded once per K = 64.
// Sources: MMA-Sim @0a5ce40 (mmasim), IDSLab-SKKU/mma-emu (nadpe), SubSir/EmuGen (exact), sf-tensor/tcgen05 @affce0c
// (tcgen05-model). The public FP4 outputs of a B200 fit all four; emulator/README.md says what else is claimed.
#pragma once
#include "nvfp4/emulator/tensorcore/fdpa.hpp"

namespace nvfp4 {

inline constexpr int kGroup = 16;    ///< products summed exactly before scaling
inline constexpr int kMaxGroups = 4; ///< groups in one step of K = 64
inline constexpr int kQuarter = 4;   ///< products summed exactly by tcgen05-model under UE4M3 scales

/// Twice the value of an E2M1 code without its sign: an integer.
[[nodiscard]] NVFP4_HD constexpr int e2m1_twice(uint64_t code) {
  const int m = int(code & 7);
  const int magnitude = m < 4 ? m : m < 6 ? 2 * m - 4 : 4 * m - 16; // 0 1 2 3 4 6 8 12
  return (code & 8) != 0 ? -magnitude : magnitude;
}

/// A scale as significand * 2^(exponent - 3).
struct GroupScale {
  bool nan;
  uint32_t significand;
  int exponent;
};

[[nodiscard]] NVFP4_HD constexpr GroupScale decode_scale(FormatId id, uint8_t code) {
  const Format f = format(id);
  const Decoded d = decode(f, code);
  if (d.cls == Class::nan) return {true, 0, 0};
  return {false, uint32_t(d.significand) << (3 - f.mantissa_bits), d.exponent};
}

/// A group of products with its scales: the exact value is scaled * 2^(scale_exponent - 8).
struct ScaledGroup {
  bool present;       ///< false when all products are zero or a scale is zero: no part in the alignment
  int64_t scaled;     ///< P * mx * my, |scaled| < 2^19
  int scale_exponent; ///< ex + ey
  int top_product;    ///< largest ea + eb of a non-zero product, by exponent field

  /// As a term of a sum aligned by the scales.
  [[nodiscard]] NVFP4_HD constexpr SumTerm term() const {
    return {scaled < 0, uint64_t(scaled < 0 ? -scaled : scaled), present ? scale_exponent : kAbsent, 8};
  }
};

[[nodiscard]] NVFP4_HD constexpr int e2m1_exponent(uint64_t code) {
  const int field = int(code >> 1) & 3;
  return field == 0 ? 0 : field - 1;
}

[[nodiscard]] NVFP4_HD inline ScaledGroup scale_group(CodeView a, CodeView b, GroupScale sa, GroupScale sb,
                                                      int n = kGroup) {
  int products = 0, top = -1;
  for (int i = 0; i < n; ++i) {
    const uint64_t x = a[i], y = b[i];
    const int p = e2m1_twice(x) * e2m1_twice(y);
    const int e = e2m1_exponent(x) + e2m1_exponent(y);
    products += p;
    if (p != 0 && e > top) top = e;
  }
  const int64_t significands = int64_t(sa.significand) * sb.significand;
  return {top >= 0 && significands != 0, products * significands, sa.exponent + sb.exponent, top};
}

/// Exact sums of scaled products and an FP32 accumulator: fixed point with 2^-640 in the lowest place, two's complement.
/// Wide enough for any UE8M0 scales (|exponent| <= 254) and any FP32 word.
struct WideSum {
  static constexpr int kLimbs = 16;
  static constexpr int kLowest = -640;
  uint64_t limb[kLimbs] = {};

  NVFP4_HD constexpr void add(int64_t v, int lsb) {
    const int position = lsb - kLowest;
    const int index = position / 64, shift = position % 64;
    const uint64_t extension = v < 0 ? ~uint64_t{0} : 0;
    const uint64_t low = uint64_t(v) << shift;
    const uint64_t high = shift == 0 ? extension : uint64_t(v >> (64 - shift));
    uint64_t carry = 0;
    for (int i = index; i < kLimbs; ++i) {
      const uint64_t part = i == index ? low : i == index + 1 ? high : extension;
      const uint64_t before = limb[i];
      const uint64_t sum = before + part;
      const uint64_t total = sum + carry;
      carry = uint64_t(sum < before) | uint64_t(total < sum);
      limb[i] = total;
    }
  }

  /// The sum rounded to FP32. What overflows is Inf, every zero +0.
  [[nodiscard]] NVFP4_HD constexpr uint64_t to_f32(Rounding rounding) const {
    const bool negative = (limb[kLimbs - 1] >> 63) != 0;
    uint64_t magnitude[kLimbs] = {};
    uint64_t carry = negative ? 1 : 0;
    int top = -1;
    for (int i = 0; i < kLimbs; ++i) {
      magnitude[i] = (negative ? ~limb[i] : limb[i]) + carry;
      carry = carry != 0 && magnitude[i] == 0 ? 1 : 0;
      if (magnitude[i] != 0) top = i;
    }
    if (top < 0) return 0;
    const int lead = msb(magnitude[top]);
    uint64_t leading = magnitude[top] << (63 - lead);
    if (lead < 63 && top > 0) leading |= magnitude[top - 1] >> (lead + 1);
    // of what lies below the 64 leading bits, rounding to 24 asks only whether it is 0
    bool below = lead < 63 && top > 0 && (magnitude[top - 1] << (63 - lead)) != 0;
    for (int i = 0; i < top - (lead < 63 ? 1 : 0); ++i) below = below || magnitude[i] != 0;
    const uint64_t word = encode(format(FormatId::f32), negative, leading | uint64_t(below),
                                 kLowest + 64 * top + lead - 63, rounding, Overflow::infinity);
    return word == 0x80000000 ? 0 : word; // every zero is +0, as in round_sum
  }
};

/// The operands of one FP4 step with their scales decoded.
struct GroupedStep {
  CodeView a, b;
  GroupScale scale_a[kMaxGroups], scale_b[kMaxGroups]; ///< of each group
  ScaledGroup groups[kMaxGroups];
  int count = 0;       ///< groups
  bool nan = false;    ///< a scale is NaN
  SumTerm accumulator; ///< absent when zero
};

/// The step by sf-tensor/tcgen05's model. Where C's exponent reaches every product's, groups meet C as in mmasim.
/// Otherwise alignment is by the largest scales alone, also under a C that exceeds them, and UE4M3 groups are cut in
/// quarters of four products. Powers of two as scales keep whole groups, each cut as C alone would cut it when C's
/// exponent reaches its products'; and in a result not yet zero, groups that lie below the floor and below the largest
/// scales are dropped.
template <class Hooks>
[[nodiscard]] NVFP4_HD inline uint64_t tcgen05_step(const UnitRule &rule, const GroupedStep &s, Hooks &&hooks) {
  SumTerm terms[kMaxGroups * (kGroup / kQuarter) + 1];
  const SumTerm &c = s.accumulator;
  int largest_scale = kAbsent, largest_product = kAbsent;
  for (int g = 0; g < s.count; ++g) {
    const ScaledGroup &group = s.groups[g];
    terms[g] = group.term();
    if (!group.present) continue;
    const int product = group.scale_exponent + group.top_product;
    largest_scale = group.scale_exponent > largest_scale ? group.scale_exponent : largest_scale;
    largest_product = product > largest_product ? product : largest_product;
  }
  terms[s.count] = c;
  if (c.exponent >= largest_product) return sum_terms(rule, terms, s.count + 1, c.exponent < rule.floor ? rule.floor : c.exponent, hooks);

  if (format(rule.scale).mantissa_bits != 0) {
    int n = 0;
    for (int k = 0; k < rule.k; k += kQuarter) {
      const int g = k / kGroup;
      terms[n++] = scale_group(s.a.from(k), s.b.from(k), s.scale_a[g], s.scale_b[g], kQuarter).term();
    }
    terms[n++] = c;
    return sum_terms(rule, terms, n, largest_scale, hooks);
  }
  for (int g = 0; g < s.count; ++g) {
    const ScaledGroup &group = s.groups[g];
    const int cut = c.exponent - rule.fraction_bits - (group.scale_exponent - 8);
    if (group.present && c.exponent >= group.scale_exponent + group.top_product && cut > 0)
      terms[g].significand = cut >= 64 ? 0 : terms[g].significand >> cut << cut;
  }
  if (largest_scale >= rule.floor) return sum_terms(rule, terms, s.count + 1, largest_scale, hooks);
  // here C is zero: the exponent of any other exceeds these products'
  if (sum_terms(rule, terms, s.count + 1, largest_scale, AsUnit()) == 0) return 0;
  const int floor = rule.floor - largest_scale; // in the sum's units
  for (int g = 0; g < s.count; ++g) {
    const int64_t units = align_term(terms[g], largest_scale, rule.fraction_bits);
    if (terms[g].exponent < largest_scale && (floor >= 62 || (units < 0 ? -units : units) < int64_t{1} << floor))
      terms[g] = {false, 0, kAbsent, 8};
  }
  return sum_terms(rule, terms, s.count + 1, largest_scale, hooks);
}

/// One instruction step of K = 64. scale_a and scale_b hold one code per rule.scale_block elements.
template <class Hooks = AsUnit>
[[nodiscard]] NVFP4_HD inline uint64_t gst_fdpa(const UnitRule &rule, CodeView a, CodeView b, const uint8_t *scale_a,
                                                const uint8_t *scale_b, uint64_t c, Accumulation accumulation,
                                                Hooks &&hooks = Hooks()) {
  GroupedStep s;
  s.a = a;
  s.b = b;
  s.count = rule.k / kGroup;
  for (int g = 0; g < s.count; ++g) {
    const int at = g * kGroup / rule.scale_block;
    s.scale_a[g] = decode_scale(rule.scale, scale_a[at]);
    s.scale_b[g] = decode_scale(rule.scale, scale_b[at]);
    s.nan = s.nan || s.scale_a[g].nan || s.scale_b[g].nan;
    s.groups[g] = scale_group(a.from(g * kGroup), b.from(g * kGroup), s.scale_a[g], s.scale_b[g]);
  }
  const Decoded z = decode(format(FormatId::f32), c);
  if (s.nan || z.cls == Class::nan) return accumulator_nan(rule.output);
  if (z.cls == Class::infinity) return c;
  s.accumulator = {z.negative, z.significand, z.significand == 0 ? kAbsent : z.exponent, 23};

  if (accumulation == Accumulation::exact) {
    WideSum sum;
    for (int g = 0; g < s.count; ++g) sum.add(s.groups[g].scaled, s.groups[g].scale_exponent - 8);
    sum.add(z.negative ? -int64_t(z.significand) : int64_t(z.significand), z.significand == 0 ? 0 : z.exponent - 23);
    hooks.wide();
    return hooks.round(rule.output, sum);
  }
  if (accumulation == Accumulation::tcgen05_model) return tcgen05_step(rule, s, hooks);

  const bool nadpe = accumulation == Accumulation::nadpe;
  SumTerm terms[kMaxGroups + 1];
  int top = s.accumulator.exponent > rule.floor ? s.accumulator.exponent : rule.floor;
  for (int g = 0; g < s.count; ++g) {
    terms[g] = s.groups[g].term();
    // nadpe leaves out a group that cancels to zero; mmasim lets it keep its exponent
    if (nadpe && s.groups[g].scaled == 0) terms[g].exponent = kAbsent;
    if (terms[g].exponent == kAbsent) continue;
    const int e = s.groups[g].scale_exponent + (nadpe ? s.groups[g].top_product : 0);
    top = e > top ? e : top;
  }
  terms[s.count] = s.accumulator;
  return sum_terms(rule, terms, s.count + 1, top, hooks);
}

} // namespace nvfp4
