// SPDX-License-Identifier: Apache-2.0
// GST-FDPA: the FP4 step of Blackwell (mxf4, mxf4nvf4). Groups of 16 products are summed exactly and multiplied by
// their two scales exactly; groups and accumulator are then aligned, truncated, summed and rounded once per K = 64.
// Sources: MMA-Sim @0a5ce40 (mmasim), IDSLab-SKKU/mma-emu (nadpe); no FP4 hardware output decides between them yet.
#pragma once
#include "nvfp4/emulator/tensorcore/fdpa.hpp"

namespace nvfp4 {

inline constexpr int kGroup = 16;    ///< products summed exactly before scaling
inline constexpr int kMaxGroups = 4; ///< groups in one step of K = 64

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
  const Decoded d = decode(format(id), code);
  if (d.cls == Class::nan) return {true, 0, 0};
  return id == FormatId::ue8m0 ? GroupScale{false, 8, d.exponent} : GroupScale{false, uint32_t(d.significand), d.exponent};
}

/// A group of 16 products with its scales: the exact value is scaled * 2^(scale_exponent - 8).
struct ScaledGroup {
  bool present;       ///< false when all products are zero or a scale is zero: no part in the alignment
  int64_t scaled;     ///< P * mx * my, |scaled| < 2^19
  int scale_exponent; ///< ex + ey
  int top_product;    ///< largest ea + eb of a non-zero product, by exponent field
};

[[nodiscard]] NVFP4_HD constexpr int e2m1_exponent(uint64_t code) {
  const int field = int(code >> 1) & 3;
  return field == 0 ? 0 : field - 1;
}

[[nodiscard]] NVFP4_HD inline ScaledGroup scale_group(CodeView a, CodeView b, GroupScale sa, GroupScale sb) {
  int products = 0, top = -1;
  for (int i = 0; i < kGroup; ++i) {
    const uint64_t x = a[i], y = b[i];
    const int p = e2m1_twice(x) * e2m1_twice(y);
    const int e = e2m1_exponent(x) + e2m1_exponent(y);
    products += p;
    if (p != 0 && e > top) top = e;
  }
  const int64_t significands = int64_t(sa.significand) * sb.significand;
  return {top >= 0 && significands != 0, products * significands, sa.exponent + sb.exponent, top};
}

/// Exact sums of scaled groups and an FP32 accumulator: fixed point with 2^-640 in the lowest place, two's complement.
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

  /// The sum truncated toward zero to FP32.
  [[nodiscard]] NVFP4_HD constexpr uint64_t truncate_to_f32() const {
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
    // 64 leading bits are enough: truncation to 24 does not look below them
    const int lead = msb(magnitude[top]);
    uint64_t leading = magnitude[top] << (63 - lead);
    if (lead < 63 && top > 0) leading |= magnitude[top - 1] >> (lead + 1);
    const uint64_t word = encode(format(FormatId::f32), negative, leading, kLowest + 64 * top + lead - 63,
                                 Rounding::toward_zero, Overflow::infinity);
    return word == 0x80000000 ? 0 : word; // every zero is +0, as in round_sum
  }
};

/// One instruction step of K = 64. scale_a and scale_b hold one code per rule.scale_block elements.
[[nodiscard]] NVFP4_HD inline uint64_t gst_fdpa(const UnitRule &rule, CodeView a, CodeView b, const uint8_t *scale_a,
                                                const uint8_t *scale_b, uint64_t c, Accumulation accumulation) {
  ScaledGroup groups[kMaxGroups] = {};
  const int count = rule.k / kGroup;
  bool nan = false;
  for (int g = 0; g < count; ++g) {
    const int s = g * kGroup / rule.scale_block;
    const GroupScale sa = decode_scale(rule.scale, scale_a[s]), sb = decode_scale(rule.scale, scale_b[s]);
    nan = nan || sa.nan || sb.nan;
    groups[g] = scale_group(a.from(g * kGroup), b.from(g * kGroup), sa, sb);
  }
  const Decoded z = decode(format(FormatId::f32), c);
  if (nan || z.cls == Class::nan) return accumulator_nan(rule.output);
  if (z.cls == Class::infinity) return c;

  if (accumulation == Accumulation::exact) {
    WideSum sum;
    for (int g = 0; g < count; ++g) sum.add(groups[g].scaled, groups[g].scale_exponent - 8);
    sum.add(z.negative ? -int64_t(z.significand) : int64_t(z.significand), z.significand == 0 ? 0 : z.exponent - 23);
    return sum.truncate_to_f32();
  }

  const bool nadpe = accumulation == Accumulation::nadpe;
  int top = rule.floor;
  for (int g = 0; g < count; ++g) {
    // nadpe leaves out a group that cancels to zero; mmasim lets it keep its exponent
    if (!groups[g].present || (nadpe && groups[g].scaled == 0)) continue;
    const int e = groups[g].scale_exponent + (nadpe ? groups[g].top_product : 0);
    top = e > top ? e : top;
  }
  if (z.significand != 0 && z.exponent > top) top = z.exponent;

  int64_t sum = 0; // |term| < 2^47
  for (int g = 0; g < count; ++g) {
    const int64_t t = groups[g].scaled;
    if (groups[g].present)
      sum += align_term({t < 0, uint64_t(t < 0 ? -t : t), groups[g].scale_exponent, 8}, top, rule.fraction_bits);
  }
  if (z.significand != 0) sum += align_term({z.negative, z.significand, z.exponent, 23}, top, rule.fraction_bits);
  return round_sum(rule.output, sum, top - rule.fraction_bits);
}

} // namespace nvfp4
