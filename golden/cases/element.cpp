// SPDX-License-Identifier: Apache-2.0
// Format table and the bit-level encoder used to make inputs. Sources: OCP MX 1.0 section 5.3, PTX ISA 9.1
// section 5.2.3, IEEE 754-2019.
#include "nvfp4/golden/cases/element.hpp"

#include <cmath>
#include <limits>

namespace nvfp4::golden::cases {

const ElementFormat &format_of(Element e) {
  static constexpr ElementFormat table[] = {
      {"e2m1", 4, 2, 1, 1, 0, false, false},       {"e3m2", 8, 3, 2, 3, 0, false, false},
      {"e2m3", 8, 2, 3, 1, 0, false, false},       {"e4m3", 8, 4, 3, 7, 0, false, true},
      {"e5m2", 8, 5, 2, 15, 0, true, true},        {"ue4m3", 8, 4, 3, 7, 0, false, true},
      {"ue8m0", 8, 8, 0, 127, 0, false, true},     {"bf16", 16, 8, 7, 127, 0, true, true},
      {"f16", 16, 5, 10, 15, 0, true, true},       {"tf32", 32, 8, 10, 127, 13, true, true},
      {"f32", 32, 8, 23, 127, 0, true, true},      {"f64", 64, 11, 52, 1023, 0, true, true},
      {"e1m2", 4, 1, 2, 0, 0, false, false},       {"int4", 4, 0, 3, -2, 0, false, false, true},
      {"int8", 8, 0, 7, 0, 0, false, false, true}, {"ue5m3", 8, 5, 3, 15, 0, false, true},
      {"ue5m3g", 8, 5, 3, 15, 0, true, true},      {"s1p2", 4, 0, 3, 0, 0, false, false},
      {"if4", 4, 2, 1, 1, 0, false, false, false, false, Element::int4, 6.0 / 7.0},
      {"mixfp4", 4, 2, 1, 1, 0, false, false, false, false, Element::e1m2, 2.0},
      {"ue4m3f", 8, 4, 3, 7, 0, false, true},
      {"hif4s", 32, 6, 2, 48, 0, false, true, false, true},
      {"int16", 16, 0, 15, -14, 0, false, false, true},
      {"p4e1", 4, 3, 0, 0, 0, false, true, true, false, Element::f64, 0.0, 1},
      {"p8e0", 8, 2, 5, 0, 0, false, true, true, false, Element::f64, 0.0, 0},
      {"p16e1", 16, 3, 12, 0, 0, false, true, true, false, Element::f64, 0.0, 1},
  };
  return table[int(e)];
}

uint64_t sign_bit(const ElementFormat &f) {
  return uint64_t{1} << (f.exponent_bits + f.mantissa_bits + f.padding);
}

uint64_t with_sign(const ElementFormat &f, bool negative, uint64_t magnitude) {
  if (!negative) return magnitude;
  if (f.complement) return magnitude == 0 ? 0 : 2 * sign_bit(f) - magnitude;
  return sign_bit(f) | magnitude;
}

uint64_t negated(const ElementFormat &f, uint64_t code) {
  return f.complement ? (2 * sign_bit(f) - code) % (2 * sign_bit(f)) : code ^ sign_bit(f);
}

static uint64_t magnitude_mask(const ElementFormat &f) { return (sign_bit(f) - 1) >> f.padding << f.padding; }

static uint64_t infinity(const ElementFormat &f) {
  return ((uint64_t{1} << f.exponent_bits) - 1) << (f.mantissa_bits + f.padding);
}

uint64_t max_finite(const ElementFormat &f) {
  const uint64_t step = uint64_t{1} << f.padding;
  if (f.is_posit()) return magnitude_mask(f);
  if (f.has_inf) return infinity(f) - step;
  return f.has_nan ? magnitude_mask(f) - step : magnitude_mask(f);
}

uint64_t inf_or_max(const ElementFormat &f) { return f.has_inf ? infinity(f) : max_finite(f); }

uint64_t nan_or_max(const ElementFormat &f, bool negative, uint64_t payload) {
  if (!f.has_nan) return with_sign(f, negative, max_finite(f));
  if (f.is_posit()) return sign_bit(f); // the one NaR
  const uint64_t sign = negative ? sign_bit(f) : 0;
  if (!f.has_inf) return sign | magnitude_mask(f);
  const uint64_t mask = ((uint64_t{1} << f.mantissa_bits) - 1) << f.padding;
  const uint64_t bits = (payload << f.padding) & mask;
  return sign | infinity(f) | (bits ? bits : mask);
}

/// The bits of a posit behind its sign, from the top down until none are left.
static uint64_t posit_magnitude(const ElementFormat &f, int exponent, uint64_t fraction) {
  const int width = f.exponent_bits + f.mantissa_bits, regime = exponent >> f.posit;
  int room = width;
  uint64_t bits = 0;
  const auto put = [&](uint64_t bit) {
    if (room > 0) bits |= (bit & 1) << --room;
  };
  for (int i = 0; i < (regime >= 0 ? regime + 1 : -regime); ++i) put(regime >= 0);
  put(regime < 0);
  for (int i = f.posit; i-- > 0;) put(uint64_t(exponent) >> i);
  for (int i = 64; i-- > 0 && room > 0;) put(fraction >> i);
  return bits == 0 ? 1 : bits;
}

uint64_t compose(const ElementFormat &f, bool negative, int exponent, uint64_t fraction) {
  if (f.is_posit() && exponent <= f.max_exponent() && exponent >= f.min_exponent())
    return with_sign(f, negative, posit_magnitude(f, exponent, fraction));
  if (f.is_posit()) return with_sign(f, negative, exponent > 0 ? max_finite(f) : 1);
  if (exponent > f.max_exponent()) return with_sign(f, negative, max_finite(f));
  const uint64_t m = f.mantissa_bits ? fraction >> (64 - f.mantissa_bits) : 0;
  const uint64_t hidden = uint64_t{1} << f.mantissa_bits;
  uint64_t magnitude = 0;
  if (exponent >= f.min_exponent()) {
    magnitude = (uint64_t(exponent + f.bias) << f.mantissa_bits) | m;
  } else {
    const int shift = f.min_exponent() - exponent;
    magnitude = shift > f.mantissa_bits ? 0 : (hidden | m) >> shift;
  }
  magnitude <<= f.padding;
  return with_sign(f, negative, magnitude > max_finite(f) ? max_finite(f) : magnitude);
}

bool encode_exact(const ElementFormat &f, double value, uint64_t &code) {
  const bool negative = std::signbit(value);
  const double v = std::fabs(value);
  if (v == 0) return code = with_sign(f, negative, 0), true;
  int e = 0;
  const double significand = std::frexp(v, &e) * 2; // in [1, 2)
  --e;
  if (e > f.max_exponent()) return false;
  const uint64_t fraction = uint64_t(std::ldexp(significand - 1, 52)) << 12;
  code = compose(f, negative, e, fraction);
  return decode(f, code) == value;
}

static double decode_posit(const ElementFormat &f, uint64_t code) {
  if (code == sign_bit(f)) return std::numeric_limits<double>::quiet_NaN();
  if (code == 0) return 0;
  const bool negative = (code & sign_bit(f)) != 0;
  const uint64_t magnitude = negative ? negated(f, code) : code;
  int at = f.exponent_bits + f.mantissa_bits;
  const auto next = [&]() -> uint64_t { return at > 0 ? magnitude >> --at & 1 : 0; };
  const uint64_t first = next();
  int run = 1;
  while (at > 0 && next() == first) ++run;
  int exponent = first != 0 ? run - 1 : -run;
  for (int i = 0; i < f.posit; ++i) exponent = 2 * exponent + int(next());
  double v = 1, weight = 1;
  while (at > 0) v += double(next()) * (weight /= 2);
  return std::ldexp(negative ? -v : v, exponent);
}

double decode(const ElementFormat &f, uint64_t code) {
  if (f.is_posit()) return decode_posit(f, code);
  const uint64_t code_magnitude =
      f.complement && (code & sign_bit(f)) != 0 ? negated(f, code) : code & magnitude_mask(f);
  const uint64_t magnitude = code_magnitude >> f.padding;
  const bool negative = (code & sign_bit(f)) != 0;
  const uint64_t field = magnitude >> f.mantissa_bits, m = magnitude & ((uint64_t{1} << f.mantissa_bits) - 1);
  const bool top = field == (uint64_t{1} << f.exponent_bits) - 1;
  double v = 0;
  if (f.complement)
    v = std::ldexp(double(magnitude), f.min_exponent() - f.mantissa_bits);
  else if (top && f.has_inf)
    v = m ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
  else if (f.has_nan && !f.has_inf && magnitude == magnitude_mask(f) >> f.padding)
    v = std::numeric_limits<double>::quiet_NaN();
  else if (field == 0 && f.mantissa_bits > 0 && !f.normal)
    v = std::ldexp(double(m), f.min_exponent() - f.mantissa_bits);
  else
    v = std::ldexp(double(m | (uint64_t{1} << f.mantissa_bits)), int(field) - f.bias - f.mantissa_bits);
  return negative ? -v : v;
}

} // namespace nvfp4::golden::cases
