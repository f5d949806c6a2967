// SPDX-License-Identifier: Apache-2.0
// Reading of a format's name, and rounding on the bit patterns of codec.hpp and of posits.
#include "nvfp4/emulator/formats/number_format.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

namespace nvfp4 {
namespace {

using Kind = NumberFormat::Kind;

[[noreturn]] void refuse(std::string_view name, const std::string &why) {
  throw Error("number format '" + std::string(name) + "': " + why);
}

/// A whole number at the start of `text`, which is cut; nothing where there is none.
std::optional<int> take_number(std::string_view &text) {
  int n = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  if (error != std::errc()) return std::nullopt;
  text.remove_prefix(size_t(end - text.data()));
  return n;
}

bool take(std::string_view &text, std::string_view word) {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

/// ":word:word=3" a word at a time.
template <class Each> void for_each_option(std::string_view name, std::string_view text, Each each) {
  while (!text.empty()) {
    if (!take(text, ":")) refuse(name, "expected ':' before '" + std::string(text) + "'");
    const std::string_view word = text.substr(0, text.find(':'));
    text.remove_prefix(word.size());
    std::string_view value = word.find('=') == std::string_view::npos ? "" : word.substr(word.find('=') + 1);
    std::optional<int> number;
    if (!value.empty()) {
      number = take_number(value);
      if (!number || !value.empty()) refuse(name, "expected a whole number in '" + std::string(word) + "'");
    }
    if (!each(word.substr(0, word.find('=')), number))
      refuse(name, "'" + std::string(word) + "' is no option of it");
  }
}

NumberFormat parse_float(std::string_view name, std::string_view text) {
  const int exponent = take_number(text).value_or(-1);
  const int fraction = take(text, "m") ? take_number(text).value_or(-1) : -1;
  if (exponent < 0 || exponent > 10 || fraction < 0 || fraction > 30)
    refuse(name, "expected eXmY with X from 0 to 10 and Y from 0 to 30");
  NumberFormat f{.name = std::string(name)};
  std::optional<int> given_bias;
  Specials specials = exponent < 2 ? Specials::finite_only : Specials::ieee;
  bool has_sign = true;
  for_each_option(name, text, [&](std::string_view word, std::optional<int> value) {
    if (word == "bias" && value)
      given_bias = *value;
    else if (value)
      return false;
    else if (word == "ieee")
      specials = Specials::ieee;
    else if (word == "nan")
      specials = Specials::nan_only;
    else if (word == "finite")
      specials = Specials::finite_only;
    else if (word == "fnuz")
      specials = Specials::finite_only, f.kind = Kind::fnuz;
    else if (word == "unsigned")
      has_sign = false;
    else
      return false;
    return true;
  });
  const int usual = exponent == 0 ? 0 : (1 << (exponent - 1)) - (f.kind == Kind::fnuz ? 0 : 1);
  const int bias = given_bias.value_or(usual);
  f.bits = exponent + fraction + (has_sign ? 1 : 0);
  if (f.bits < 2 || f.bits > 32) refuse(name, "expected 2 to 32 bits, got " + std::to_string(f.bits));
  if (specials == Specials::ieee && exponent < 2)
    refuse(name, "Inf and NaN of IEEE 754 need two bits of exponent");
  if (f.kind == Kind::fnuz && !has_sign)
    refuse(name, "the NaN of fnuz is the code of -0, which an unsigned format lacks");
  // every value must be a number of FP64, and FP64's subnormals are left alone
  const int top = (1 << exponent) - 1 - bias;
  if (bias > 1000 || bias < -1000 || top > 1000 || 1 - bias - fraction < -1000)
    refuse(name,
           "expected a bias that leaves all exponents between -1000 and 1000, got " + std::to_string(bias));
  f.row = {FormatId::f64,     "", int8_t(f.bytes() * 8), int8_t(f.bits), int8_t(exponent),
           int8_t(fraction), 0,  int16_t(bias),         specials,       has_sign};
  return f;
}

NumberFormat parse_fixed(std::string_view name, std::string_view text) {
  const std::optional<int> bits = take_number(text);
  const std::optional<int> behind = take(text, ".") ? take_number(text) : std::optional<int>(0);
  if (!bits || !behind || !text.empty() || *bits < 2 || *bits > 32 || *behind < -200 || *behind > 200)
    refuse(name, "expected fixedN or fixedN.F with N from 2 to 32 and F from -200 to 200");
  NumberFormat f{.name = std::string(name), .bits = *bits};
  f.row = {FormatId::f64,
           "",
           int8_t(f.bytes() * 8),
           int8_t(*bits),
           0,
           int8_t(*bits - 1),
           0,
           int16_t(1 - (*bits - 1) + *behind),
           Specials::finite_only,
           true,
           Encoding::twos_complement};
  return f;
}

NumberFormat parse_posit(std::string_view name, std::string_view text) {
  const std::optional<int> bits = take_number(text);
  if (!bits || *bits < 2 || *bits > 32) refuse(name, "expected positN with N from 2 to 32");
  NumberFormat f{.name = std::string(name), .kind = Kind::posit, .bits = *bits};
  for_each_option(name, text, [&](std::string_view word, std::optional<int> value) {
    if (word != "es" || !value || *value < 0 || *value > 4) return false;
    f.posit_exponent = *value;
    return true;
  });
  return f;
}

/// Up by one step of the magnitude, from what is cut off.
bool rounds_up(NumberRounding rounding, bool negative, bool last_bit, uint64_t rest, bool sticky,
               uint32_t random) {
  constexpr uint64_t half = uint64_t{1} << 63;
  const bool inexact = rest != 0 || sticky;
  switch (rounding) {
  case NumberRounding::nearest_even: return rest > half || (rest == half && (sticky || last_bit));
  case NumberRounding::nearest_away: return rest >= half;
  case NumberRounding::toward_zero: return false;
  case NumberRounding::upward: return inexact && !negative;
  case NumberRounding::downward: return inexact && negative;
  case NumberRounding::odd: return inexact && !last_bit;
  case NumberRounding::stochastic: break;
  }
  return ((rest >> 32) + random) >> 32 != 0;
}

bool points_inward(NumberRounding rounding, bool negative) {
  return rounding == NumberRounding::toward_zero || rounding == NumberRounding::odd ||
         rounding == (negative ? NumberRounding::upward : NumberRounding::downward);
}

uint64_t encode_row(const NumberFormat &n, const Decoded &d, NumberRounding rounding, bool saturate,
                    uint32_t random) {
  const Format &f = n.row;
  const Overflow overflow = saturate ? Overflow::satfinite : Overflow::ieee;
  if (!f.has_sign && d.negative && d.cls != Class::nan) return 0; // below its smallest number
  if (d.cls == Class::nan) return canonical_nan(f);
  if (d.cls == Class::infinity) return infinity_code(f, d.negative, overflow);
  if (d.cls == Class::zero) return with_sign(f, d.negative, 0);
  const GridPoint p = place_on_grid(f, d.significand, d.exponent - 52);
  const uint64_t magnitude = p.base + p.kept;
  const bool up = rounds_up(rounding, d.negative, (magnitude & 1) != 0, p.rest, p.sticky, random);
  return finish_encode(f, d.negative, magnitude + uint64_t(up), points_inward(rounding, d.negative),
                       overflow);
}

uint64_t encode_fnuz(const NumberFormat &n, const Decoded &d, NumberRounding rounding, bool saturate,
                     uint32_t random) {
  const Format &f = n.row;
  const uint64_t nan = with_sign(f, true, 0);
  if (d.cls == Class::nan || (d.cls == Class::infinity && !saturate)) return nan;
  if (d.cls == Class::zero) return 0;
  // where a format without specials saturates, this one has NaN: one more exponent tells
  if (!saturate && d.cls == Class::finite) {
    NumberFormat wider = n;
    ++wider.row.exponent_bits;
    const uint64_t magnitude = encode_row(wider, d, rounding, true, random) & wider.row.magnitude_mask();
    if (magnitude > f.max_finite_magnitude())
      return points_inward(rounding, d.negative) ? with_sign(f, d.negative, f.max_finite_magnitude()) : nan;
  }
  const uint64_t code = encode_row(n, d, rounding, true, random);
  return code == nan ? 0 : code;
}

double decode_posit(const NumberFormat &f, uint64_t code) {
  const uint64_t nar = uint64_t{1} << (f.bits - 1), mask = (nar << 1) - 1;
  code &= mask;
  if (code == 0) return 0.0;
  if (code == nar) return std::numeric_limits<double>::quiet_NaN();
  const bool negative = code >= nar;
  const uint64_t body = (negative ? (mask + 1 - code) : code) & (nar - 1);
  int at = f.bits - 2; // of the next bit
  const bool ones = (body >> at & 1) != 0;
  int run = 0;
  while (at >= 0 && ((body >> at & 1) != 0) == ones) ++run, --at;
  --at; // the bit that ends the regime, present or not
  int exponent = 0;
  for (int i = 0; i < f.posit_exponent; ++i, --at)
    exponent = 2 * exponent + (at >= 0 ? int(body >> at & 1) : 0);
  double significand = 1.0, weight = 0.5;
  for (; at >= 0; --at, weight /= 2) significand += body >> at & 1 ? weight : 0.0;
  const int scale = ((ones ? run - 1 : -run) << f.posit_exponent) + exponent;
  return std::ldexp(negative ? -significand : significand, scale);
}

uint64_t encode_posit(const NumberFormat &f, const Decoded &d, NumberRounding rounding, uint32_t random) {
  const uint64_t nar = uint64_t{1} << (f.bits - 1), largest = nar - 1;
  if (d.cls == Class::nan || d.cls == Class::infinity) return nar;
  if (d.cls == Class::zero) return 0;
  const auto with_sign_of = [&](uint64_t magnitude) { return d.negative ? 2 * nar - magnitude : magnitude; };
  const int lead = msb(d.significand), scale = d.exponent - 52 + lead;
  const int regime = scale >> f.posit_exponent, exponent = scale - (regime << f.posit_exponent);
  if (regime >= f.bits - 2) return with_sign_of(largest);
  if (regime < -(f.bits - 2)) return with_sign_of(1);
  // the pattern without an end: regime, exponent, fraction, from the top of 128 bits down
  __extension__ using Wide = unsigned __int128;
  Wide pattern = 0;
  int used = 0;
  const auto append = [&](uint64_t bits, int count) {
    if (count == 0) return;
    used += count;
    pattern |= Wide(bits) << (128 - used);
  };
  if (regime >= 0)
    append((uint64_t{2} << (regime + 1)) - 2, regime + 2);
  else
    append(1, 1 - regime);
  append(uint64_t(exponent), f.posit_exponent);
  append(d.significand - (uint64_t{1} << lead), lead);
  const int kept = f.bits - 1;
  uint64_t magnitude = uint64_t(pattern >> (128 - kept));
  const Wide cut = pattern << kept;
  magnitude +=
      rounds_up(rounding, d.negative, (magnitude & 1) != 0, uint64_t(cut >> 64), uint64_t(cut) != 0, random);
  return with_sign_of(std::clamp<uint64_t>(magnitude, 1, largest));
}

} // namespace

NumberFormat parse_number_format(std::string_view name) {
  if (const std::optional<FormatId> id = find_format(name)) {
    const Format f = format(*id);
    if (f.extra != ScaleExtra::none || f.has_other())
      refuse(name, "has a meaning in its block alone");
    if (f.encoding == Encoding::powers_of_two || f.storage_bits > 32 || f.padding_bits != 0)
      refuse(name, "is reached by its conversions alone (nvfp4 info --conversions)");
    if (f.encoding == Encoding::posit)
      return {.name = std::string(name), .kind = Kind::posit, .bits = f.code_bits, .posit_exponent = f.posit_exponent()};
    return {.name = std::string(name), .bits = f.code_bits, .row = f};
  }
  std::string_view text = name;
  if (take(text, "fixed")) return parse_fixed(name, text);
  if (take(text, "posit")) return parse_posit(name, text);
  if (take(text, "e")) return parse_float(name, text);
  refuse(
      name,
      "expected a format's name, eXmY, fixedN.F or positN, as in e4m3, e5m10, e4m3:bias=8:fnuz, fixed16.8, "
      "posit8:es=0");
}

uint64_t encode_number(const NumberFormat &f, double x, NumberRounding rounding, bool saturate,
                       uint32_t random) {
  const Decoded d = decode(format(FormatId::f64), bit_cast<uint64_t>(x));
  switch (f.kind) {
  case Kind::row: return encode_row(f, d, rounding, saturate, random);
  case Kind::fnuz: return encode_fnuz(f, d, rounding, saturate, random);
  case Kind::posit: break;
  }
  if (rounding != NumberRounding::nearest_even && rounding != NumberRounding::toward_zero &&
      rounding != NumberRounding::stochastic)
    throw Error("number format '" + f.name + "': posits take the roundings rne, rz and sr, got " +
                std::string(to_string(rounding)));
  return encode_posit(f, d, rounding, random);
}

double decode_number(const NumberFormat &f, uint64_t code) {
  if (f.kind == Kind::posit) return decode_posit(f, code);
  if (f.kind == Kind::fnuz && (code & (f.row.magnitude_mask() << 1 | 1)) == with_sign(f.row, true, 0))
    return std::numeric_limits<double>::quiet_NaN();
  const uint64_t word = convert(format(FormatId::f64), f.row, code, Rounding::nearest_even, Overflow::ieee);
  return bit_cast<double>(word);
}

} // namespace nvfp4
