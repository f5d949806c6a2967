// SPDX-License-Identifier: Apache-2.0
// Decode a code into sign, significand and exponent; round an exact value into a code. One engine for all formats,
// the same text on CPU and GPU. Packing of two or four codes and instruction names are in conversion.hpp.
#pragma once
#include "nvfp4/emulator/formats/format.hpp"

#include <bit>

namespace nvfp4 {

enum class Class : uint8_t { zero, finite, infinity, nan };

/// A decoded code: value = significand * 2^(exponent - mantissa_bits). Subnormals are NOT normalised: their exponent
/// is the format's minimum. That is what makes alignment by exponent field differ from alignment by value.
struct Decoded {
  Class cls;
  bool negative;
  uint64_t significand;
  int exponent;
};

enum class Rounding : uint8_t {
  nearest_even, ///< .rn
  toward_zero,  ///< .rz
  upward,       ///< .rp, toward +Inf
  downward,     ///< .rm, toward -Inf
  nearest_away, ///< .rna, ties away from zero
};

enum class Overflow : uint8_t {
  ieee,      ///< Inf (NaN for formats without Inf), or the largest finite value where the rounding points inward
  satfinite, ///< the largest finite value, also for an infinite input
  infinity,  ///< Inf whatever the rounding: what tensor cores do although they truncate
};

template <class To, class From> [[nodiscard]] NVFP4_HD constexpr To bit_cast(const From &from) {
  static_assert(sizeof(To) == sizeof(From));
  return __builtin_bit_cast(To, from);
}

/// Index of the highest set bit; x must not be 0.
[[nodiscard]] NVFP4_HD constexpr int msb(uint64_t x) {
#if defined(__CUDA_ARCH__)
  return 63 - __clzll(static_cast<long long>(x));
#else
  return 63 - std::countl_zero(x);
#endif
}

/// Decodes a posit; its significand has its highest bit at mantissa_bits.
[[nodiscard]] NVFP4_HD constexpr Decoded decode_posit(const Format &f, uint64_t code) {
  const uint64_t sign = uint64_t{1} << f.field_bits();
  code &= 2 * sign - 1;
  if (code == 0) return {Class::zero, false, 0, f.min_exponent()};
  if (code == sign) return {Class::nan, false, 0, 0};
  const bool negative = code > sign;
  const uint64_t body = negative ? 2 * sign - code : code; // below sign
  int at = f.field_bits() - 1, run = 0;                    // of the next bit
  const uint64_t first = body >> at & 1;
  for (; at >= 0 && (body >> at & 1) == first; --at) ++run;
  --at; // the bit that ends the run, present or not
  const int left = at < 0 ? 0 : at + 1;
  const uint64_t rest = body & ((uint64_t{1} << left) - 1); // exponent and fraction, the bits that are not there are zeros
  const int es = f.posit_exponent(), fraction = left > es ? left - es : 0;
  const int exponent = int(left >= es ? rest >> fraction : rest << (es - left));
  const uint64_t significand = (uint64_t{1} << fraction) | (rest & ((uint64_t{1} << fraction) - 1));
  return {Class::finite, negative, significand << (f.mantissa_bits - fraction), ((first != 0 ? run - 1 : -run) << es) + exponent};
}

/// Decodes one code. Bits above the code (and TF32's low 13 bits) are ignored.
[[nodiscard]] NVFP4_HD constexpr Decoded decode(const Format &f, uint64_t word) {
  if (f.encoding == Encoding::posit) return decode_posit(f, word);
  const uint64_t code = word >> f.padding_bits;
  const uint64_t magnitude = code & f.magnitude_mask();
  const bool negative = f.has_sign && ((code >> f.field_bits()) & 1) != 0;
  if (f.encoding == Encoding::twos_complement) {
    const uint64_t value = negative ? (uint64_t{1} << f.field_bits()) - magnitude : magnitude;
    return {value == 0 ? Class::zero : Class::finite, negative, value, f.min_exponent()};
  }
  if (f.specials == Specials::ieee && magnitude >= f.infinity_magnitude())
    return {magnitude == f.infinity_magnitude() ? Class::infinity : Class::nan, negative, 0, 0};
  if (f.specials == Specials::nan_only && magnitude == f.top_magnitude()) return {Class::nan, negative, 0, 0};
  if (f.encoding == Encoding::powers_of_two) return {Class::finite, false, 1, int(magnitude) - f.bias};
  const uint64_t mantissa = magnitude & ((uint64_t{1} << f.mantissa_bits) - 1);
  const int field = int(magnitude >> f.mantissa_bits);
  if (field == 0 && f.encoding != Encoding::normal) return {mantissa == 0 ? Class::zero : Class::finite, negative, mantissa, f.min_exponent()};
  return {Class::finite, negative, mantissa | (uint64_t{1} << f.mantissa_bits), field - f.bias};
}

/// Puts sign and padding around a magnitude code.
[[nodiscard]] NVFP4_HD constexpr uint64_t with_sign(const Format &f, bool negative, uint64_t magnitude) {
  const uint64_t sign = f.has_sign && negative ? uint64_t{1} << f.field_bits() : 0;
  if (f.complements() && negative) return magnitude == 0 ? 0 : 2 * sign - magnitude;
  return (sign | magnitude) << f.padding_bits;
}

/// The NaN that NVIDIA hardware writes: all ones, positive; +max where the format has no NaN (PTX ISA 9.1, cvt).
[[nodiscard]] NVFP4_HD constexpr uint64_t canonical_nan(const Format &f) {
  if (f.encoding == Encoding::posit) return uint64_t{1} << f.field_bits(); // NaR
  return f.id == FormatId::e8m13 ? 0x7FFFFFFF : with_sign(f, false, f.top_magnitude());
}

/// Of posits NaR, whatever the overflow: Inf is no large number to them.
[[nodiscard]] NVFP4_HD constexpr uint64_t infinity_code(const Format &f, bool negative, Overflow overflow) {
  if (f.encoding == Encoding::posit) return canonical_nan(f);
  if (overflow == Overflow::satfinite || f.specials == Specials::finite_only)
    return with_sign(f, negative, f.max_finite_magnitude());
  return with_sign(f, negative, f.specials == Specials::ieee ? f.infinity_magnitude() : f.top_magnitude());
}

/// Where a value falls on a format's grid: `kept` whole steps and the discarded part. Below the smallest normal the
/// grid is the fixed one of the subnormals.
struct GridPoint {
  uint64_t base; ///< code of the binade's start, so that base + kept is the magnitude code, carries included
  uint64_t kept;
  uint64_t rest; ///< discarded bits, as a fraction rest / 2^64 of one step
  bool sticky;   ///< something non-zero below `rest`
};

/// The same of posits, whose grid is that of the pattern without an end (Posit Standard, section 6): what of it stands in the
/// code, and the rest. Nothing but zero becomes zero, and nothing becomes more than the largest.
[[nodiscard]] NVFP4_HD constexpr GridPoint place_on_posits(const Format &f, uint64_t sig, int lsb) {
  const int top = msb(sig), scale = top + lsb, es = f.posit_exponent(), kept = f.field_bits();
  const int regime = scale >> es;
  if (regime >= f.code_bits - 2) return {0, f.max_finite_magnitude(), 0, false};
  if (regime < 2 - f.code_bits) return {0, 1, 0, false};
  // regime and exponent in the low bits of `head`, and the fraction from the top of 64 bits down
  const int run = regime >= 0 ? regime + 2 : 1 - regime, length = run + es;
  const uint64_t ones = regime >= 0 ? (uint64_t{2} << (regime + 1)) - 2 : 1;
  const uint64_t head = ones << es | uint64_t(scale - regime * (1 << es));
  const uint64_t fraction = top == 0 ? 0 : sig << (64 - top);
  if (length <= kept) {
    const int more = kept - length;
    if (more == 0) return {0, head, fraction, false};
    return {0, head << more | fraction >> (64 - more), fraction << more, false};
  }
  const int cut = length - kept;
  return {0, head >> cut, head << (64 - cut) | fraction >> cut, fraction << (64 - cut) != 0};
}

/// Places the exact value sig * 2^lsb (sig != 0) on the grid of f.
[[nodiscard]] NVFP4_HD constexpr GridPoint place_on_grid(const Format &f, uint64_t sig, int lsb) {
  if (f.encoding == Encoding::posit) return place_on_posits(f, sig, lsb);
  const int e = msb(sig) + lsb;
  const int binade = e < f.min_exponent() ? f.min_exponent() : e;
  const int shift = binade - f.mantissa_bits - lsb; // bits to discard
  const uint64_t base = uint64_t(int64_t(binade - (1 - f.bias))) << f.mantissa_bits;
  if (shift <= 0) return {base, sig << -shift, 0, false};
  if (shift < 64) return {base, sig >> shift, sig << (64 - shift), false};
  if (shift == 64) return {base, 0, sig, false};
  if (shift < 128) return {base, 0, sig >> (shift - 64), (sig << (128 - shift)) != 0};
  return {base, 0, 0, true};
}

/// Turns a rounded magnitude into a code, applying the overflow rule. `inward` says that the rounding mode points
/// toward zero for this sign.
[[nodiscard]] NVFP4_HD constexpr uint64_t finish_encode(const Format &f, bool negative, uint64_t magnitude, bool inward,
                                                        Overflow overflow) {
  if (magnitude <= f.max_finite_magnitude()) return with_sign(f, negative, magnitude);
  if (overflow == Overflow::ieee && inward) return with_sign(f, negative, f.max_finite_magnitude());
  return infinity_code(f, negative, overflow);
}

/// Rounds the exact value (-1)^negative * sig * 2^lsb to f. sig == 0 gives a zero of that sign. Not for powers of two;
/// a format of normal numbers alone has code 0 for all that is smaller.
[[nodiscard]] NVFP4_HD constexpr uint64_t encode(const Format &f, bool negative, uint64_t sig, int lsb, Rounding rounding,
                                                 Overflow overflow) {
  if (sig == 0) return with_sign(f, negative, 0);
  if (f.encoding == Encoding::normal && msb(sig) + lsb < f.min_exponent()) return 0;
  const GridPoint p = place_on_grid(f, sig, lsb);
  constexpr uint64_t half = uint64_t{1} << 63;
  const bool inexact = p.rest != 0 || p.sticky;
  bool up = false;
  bool inward = false;
  switch (rounding) {
  case Rounding::nearest_even: up = p.rest > half || (p.rest == half && (p.sticky || ((p.base + p.kept) & 1) != 0)); break;
  case Rounding::nearest_away: up = p.rest >= half; break;
  case Rounding::toward_zero: inward = true; break;
  case Rounding::upward:
    up = inexact && !negative;
    inward = negative;
    break;
  case Rounding::downward:
    up = inexact && negative;
    inward = !negative;
    break;
  }
  return finish_encode(f, negative, p.base + p.kept + (up ? 1 : 0), inward, overflow);
}

/// Rounds |value| to a format of powers of two: .rz takes the power below, .rp the power above; zero and everything
/// under the smallest is code 0. Beyond the largest the result is that under satfinite, NaN otherwise. Only rz and rp
/// exist.
[[nodiscard]] NVFP4_HD constexpr uint64_t encode_power(const Format &f, uint64_t sig, int lsb, bool up, Overflow overflow) {
  if (sig == 0) return 0;
  const int top = msb(sig);
  int field = top + lsb + f.bias;
  if (up && (sig & (sig - 1)) != 0) ++field;
  if (field < 0) return 0;
  return uint64_t(field) > f.max_finite_magnitude() ? infinity_code(f, false, overflow) : uint64_t(field);
}

/// Converts a code of one format into another with one rounding. Any NaN becomes the target's canonical NaN.
[[nodiscard]] NVFP4_HD constexpr uint64_t convert(const Format &to, const Format &from, uint64_t word, Rounding rounding,
                                                  Overflow overflow) {
  const Decoded d = decode(from, word);
  if (d.cls == Class::nan) return canonical_nan(to);
  if (d.cls == Class::infinity) return infinity_code(to, d.negative, overflow);
  if (to.encoding == Encoding::powers_of_two)
    return encode_power(to, d.significand, d.exponent - from.mantissa_bits, rounding == Rounding::upward, overflow);
  return encode(to, d.negative, d.significand, d.exponent - from.mantissa_bits, rounding, overflow);
}

/// Rounds an FP32 value; the rounding and saturation of the plain cvt.rn.satfinite forms unless told otherwise.
[[nodiscard]] NVFP4_HD constexpr uint64_t encode(FormatId to, float x, Rounding rounding = Rounding::nearest_even,
                                                 Overflow overflow = Overflow::satfinite) {
  return convert(format(to), format(FormatId::f32), bit_cast<uint32_t>(x), rounding, overflow);
}

/// The exact value of a code as double; NaN and Inf as double's. Exact for every format here.
[[nodiscard]] NVFP4_HD constexpr double value(FormatId id, uint64_t word) {
  return bit_cast<double>(
      convert(format(FormatId::f64), format(id), word, Rounding::nearest_even, Overflow::ieee));
}

/// The exact value of a code of at most 32 bits as float.
[[nodiscard]] NVFP4_HD constexpr float value_f32(FormatId id, uint64_t word) {
  return bit_cast<float>(uint32_t(
      convert(format(FormatId::f32), format(id), word, Rounding::nearest_even, Overflow::ieee)));
}

/// The largest finite value of a format, the smallest positive one and the smallest of full precision; for formats
/// within FP32 that have an exponent field and a zero, or are normal throughout.
[[nodiscard]] NVFP4_HD constexpr float largest(FormatId id) { return value_f32(id, format(id).max_finite_magnitude()); }
[[nodiscard]] NVFP4_HD constexpr float smallest(FormatId id) {
  return value_f32(id, format(id).encoding == Encoding::normal ? 0 : 1);
}
[[nodiscard]] NVFP4_HD constexpr float smallest_normal(FormatId id) {
  return value_f32(id, uint64_t{1} << format(id).mantissa_bits);
}

} // namespace nvfp4
