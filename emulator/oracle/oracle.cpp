// SPDX-License-Identifier: Apache-2.0
// The definitions behind oracle.hpp, written over exact dyadic rationals. Only the parameters of a unit are
// shared with the rest of the emulator; formats, decoding, rounding and summation are stated here a second
// time on purpose.
#include "nvfp4/emulator/oracle/oracle.hpp"

#include <boost/multiprecision/cpp_int.hpp>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <vector>

namespace nvfp4::oracle {
namespace {

using Integer = boost::multiprecision::cpp_int;

/// The exact rational number n * 2^e. Every number below is one, whatever its size.
struct Exact {
  Integer n = 0;
  int e = 0;

  [[nodiscard]] bool is_zero() const { return n.is_zero(); }
  [[nodiscard]] bool is_negative() const { return n.sign() < 0; }
};

/// The integer x / 2^e, for e not above x.e.
Integer in_units(const Exact &x, int e) { return x.n << static_cast<unsigned>(x.e - e); }

Exact power_of_two(int e) { return {1, e}; }

Exact operator*(const Exact &x, const Exact &y) { return {x.n * y.n, x.e + y.e}; }

Exact operator+(const Exact &x, const Exact &y) {
  if (x.is_zero()) return y;
  if (y.is_zero()) return x;
  const int e = std::min(x.e, y.e);
  return {in_units(x, e) + in_units(y, e), e};
}

Exact magnitude(const Exact &x) { return {boost::multiprecision::abs(x.n), x.e}; }

/// Sign of x - y, for x, y >= 0.
int compare(const Exact &x, const Exact &y) {
  if (x.is_zero() || y.is_zero()) return int(!x.is_zero()) - int(!y.is_zero());
  const int log_x = int(msb(x.n)) + x.e,
            log_y = int(msb(y.n)) + y.e; // unequal logarithms spare the long shift
  if (log_x != log_y) return log_x < log_y ? -1 : 1;
  const int e = std::min(x.e, y.e);
  return in_units(x, e).compare(in_units(y, e));
}

/// The largest multiple of 2^e that is not above x in magnitude, with the sign of x.
Exact cut_toward_zero(const Exact &x, int e) {
  if (x.e >= e) return x;
  const Integer units = boost::multiprecision::abs(x.n) >> static_cast<unsigned>(e - x.e);
  return {x.is_negative() ? Integer(-units) : units, e};
}

// ----------------------------------------------------------------------------------------------------------
// formats

/// What the largest codes mean: nothing special, all ones is NaN, or Inf and NaNs as in IEEE 754.
enum class Top { number, nan, ieee };

/// A format as its standard states it. `word_padding` low bits of the storage word carry nothing.
struct Shape {
  int exponent_bits, mantissa_bits, bias;
  Top top;
  bool has_sign = true;
  bool has_zero = true; ///< UE8M0 has no zero and no subnormals: field E is 2^(E-127) throughout
  int word_padding = 0;
  bool complement = false; ///< negative words are 2^n minus those of their magnitudes (integers and posits)
  int posit_es = -1;       ///< of a posit its bits of exponent

  [[nodiscard]] int magnitude_bits() const { return exponent_bits + mantissa_bits; }
  [[nodiscard]] uint64_t all_ones() const { return (uint64_t{1} << magnitude_bits()) - 1; }
  [[nodiscard]] uint64_t infinity() const { return all_ones() - ((uint64_t{1} << mantissa_bits) - 1); }
  [[nodiscard]] uint64_t largest() const {
    return top == Top::ieee ? infinity() - 1 : top == Top::nan ? all_ones() - 1 : all_ones();
  }
  [[nodiscard]] uint64_t word(bool negative, uint64_t magnitude) const {
    if (complement && negative) return magnitude == 0 ? 0 : 2 * (all_ones() + 1) - magnitude;
    return (magnitude + (negative && has_sign ? all_ones() + 1 : 0)) << word_padding;
  }
};

Shape shape(FormatId id) {
  switch (id) {
  case FormatId::e2m1: return {2, 1, 1, Top::number};
  case FormatId::e1m2: return {1, 2, 0, Top::number};
  case FormatId::e3m2: return {3, 2, 3, Top::number};
  case FormatId::e2m3: return {2, 3, 1, Top::number};
  case FormatId::e4m3: return {4, 3, 7, Top::nan};
  case FormatId::e5m2: return {5, 2, 15, Top::ieee};
  case FormatId::int4: return {0, 3, -2, Top::number, true, true, 0, true};
  case FormatId::int8: return {0, 7, 0, Top::number, true, true, 0, true};
  case FormatId::int16: return {0, 15, -14, Top::number, true, true, 0, true};
  case FormatId::p4e1: return {3, 0, 0, Top::number, true, true, 0, true, 1};
  case FormatId::p8e0: return {2, 5, 0, Top::number, true, true, 0, true, 0};
  case FormatId::p16e1: return {3, 12, 0, Top::number, true, true, 0, true, 1};
  case FormatId::ue4m3: return {4, 3, 7, Top::nan, false};
  case FormatId::ue5m3: return {5, 3, 15, Top::nan, false};
  case FormatId::ue5m3g: return {5, 3, 15, Top::ieee, false};
  case FormatId::ue8m0: return {8, 0, 127, Top::nan, false, false};
  case FormatId::s1p2: return {0, 3, 0, Top::number};
  case FormatId::if4:
  case FormatId::mixfp4: return {2, 1, 1, Top::number}; // of blocks without a flag
  case FormatId::ue4m3f: return {4, 3, 7, Top::nan, false};
  case FormatId::hif4s: return {6, 2, 48, Top::nan, false, false};
  case FormatId::bf16: return {8, 7, 127, Top::ieee};
  case FormatId::f16: return {5, 10, 15, Top::ieee};
  case FormatId::tf32: return {8, 10, 127, Top::ieee, true, true, 13};
  case FormatId::e8m13: return {8, 13, 127, Top::ieee, true, true, 10};
  case FormatId::f32: return {8, 23, 127, Top::ieee};
  case FormatId::f64: break;
  }
  return {11, 52, 1023, Top::ieee};
}

/// The exponent that the field of a magnitude stands for; subnormals have the smallest one.
int field_exponent(const Shape &s, uint64_t magnitude) {
  const int field = int(magnitude >> s.mantissa_bits);
  return (s.has_zero ? std::max(field, 1) : field) - s.bias;
}

/// A posit of `bits` bits behind its sign, by the words of the standard: the run of bits equal to the first, es bits of exponent,
/// the fraction.
Exact posit_value(int bits, int es, uint64_t magnitude) {
  if (magnitude == 0) return {};
  std::string text;
  for (int i = bits - 1; i >= 0; --i) text += (magnitude >> i & 1) != 0 ? '1' : '0';
  const size_t run = std::min(text.find(text[0] == '1' ? '0' : '1'), text.size());
  const int regime = text[0] == '1' ? int(run) - 1 : -int(run);
  std::string tail = run < text.size() ? text.substr(run + 1) : "";
  tail.resize(std::max(tail.size(), size_t(es)), '0');
  int exponent = 0;
  for (int i = 0; i < es; ++i) exponent = 2 * exponent + (tail[size_t(i)] - '0');
  Exact value{1, regime * (1 << es) + exponent};
  for (const char bit : tail.substr(size_t(es))) value = {value.n * 2 + (bit - '0'), value.e - 1};
  return value;
}

/// The value of a magnitude by the formula alone, as if no code were special and the exponent field had no
/// end.
Exact nominal_value(const Shape &s, uint64_t magnitude) {
  if (s.posit_es >= 0) return posit_value(s.magnitude_bits(), s.posit_es, magnitude);
  const uint64_t one = uint64_t{1} << s.mantissa_bits;
  const bool hidden_one = magnitude >= one || !s.has_zero;
  return {magnitude % one + (hidden_one ? one : 0), field_exponent(s, magnitude) - s.mantissa_bits};
}

/// A decoded operand or a term made of operands. A term's exponent is the sum of its factors' field
/// exponents.
struct Number {
  enum class Kind { finite, infinite, nan } kind = Kind::finite;
  bool negative = false; ///< also of zeros and infinities
  Exact value;           ///< signed; of finite numbers
  int exponent = 0;

  [[nodiscard]] bool is_nan() const { return kind == Kind::nan; }
  [[nodiscard]] bool is_infinite() const { return kind == Kind::infinite; }
  [[nodiscard]] bool is_zero() const { return kind == Kind::finite && value.is_zero(); }
};

Number decode(FormatId id, uint64_t word) {
  const Shape s = shape(id);
  const uint64_t code = word >> s.word_padding, ones = s.all_ones();
  Number x;
  x.negative = s.has_sign && (code & (ones + 1)) != 0;
  const uint64_t mag = s.complement && x.negative ? 2 * (ones + 1) - code % (2 * (ones + 1)) : code & ones;
  if (mag > s.largest() && s.posit_es >= 0) { // NaR
    x.kind = Number::Kind::nan;
    x.negative = false;
    return x;
  }
  if (mag > s.largest() && !s.complement) { // the lowest integer is one more than the largest
    x.kind = s.top == Top::ieee && mag == s.infinity() ? Number::Kind::infinite : Number::Kind::nan;
    return x;
  }
  x.value = nominal_value(s, mag);
  if (x.negative) x.value.n = -x.value.n;
  x.exponent = field_exponent(s, mag);
  return x;
}

Number operator*(const Number &x, const Number &y) {
  Number p;
  p.negative = x.negative != y.negative;
  if (x.is_nan() || y.is_nan() || (x.is_infinite() && y.is_zero()) || (x.is_zero() && y.is_infinite()))
    p.kind = Number::Kind::nan;
  else if (x.is_infinite() || y.is_infinite())
    p.kind = Number::Kind::infinite;
  else {
    p.value = x.value * y.value;
    p.exponent = x.exponent + y.exponent;
  }
  return p;
}

/// An element of a block whose scale word is known. The sevenths of IF4 are FP32 numbers: 6/7 rounded, times i, rounded.
Number decode_in_block(FormatId element, uint64_t code, FormatId scale, uint64_t word) {
  if (scale != FormatId::ue4m3f || word < 128) return decode(element, code);
  if (element == FormatId::mixfp4) return decode(FormatId::e1m2, code) * decode(FormatId::e2m1, 4); // twice E1M2
  if (element != FormatId::if4) return decode(element, code);
  static constexpr uint32_t sevenths[9] = {0,          0x3F5B6DB7, 0x3FDB6DB7, 0x40249249, 0x405B6DB7,
                                           0x40892492, 0x40A49249, 0x40C00000, 0x40DB6DB7};
  const bool negative = code >= 8;
  return decode(FormatId::f32, sevenths[negative ? 16 - code : code] + (negative ? 0x80000000u : 0u));
}

/// The scale that element i of a block has: HiFloat4's bits above the byte are exponents of eighths and sixteenths.
Number decode_scale(FormatId scale, uint64_t word, size_t i) {
  Number x = decode(scale, word);
  if (scale != FormatId::hif4s || x.is_nan()) return x;
  const int shift = int(word >> (8 + i / 8) & 1) + int(word >> (16 + i / 4) & 1);
  x.value.e += shift;
  x.exponent += shift;
  return x;
}

enum class Direction { down, up, nearest_even, nearest_away }; ///< of a magnitude

/// The magnitude code next to v >= 0, found by bisection over the nominal values, which increase with the
/// code. Overflow is the one code after the largest finite one (under `down`: iff v is at least that code's
/// nominal value).
uint64_t round_magnitude(const Shape &s, const Exact &v, Direction direction) {
  uint64_t low = 0, high = s.largest() + 1;
  if (compare(v, nominal_value(s, low)) <= 0) return low;
  if (compare(v, nominal_value(s, high)) >= 0) return high;
  while (high - low > 1) { // value(low) <= v < value(high)
    const uint64_t middle = low + (high - low) / 2;
    (compare(v, nominal_value(s, middle)) < 0 ? high : low) = middle;
  }
  const Exact below = nominal_value(s, low);
  if (direction == Direction::down || compare(v, below) == 0) return low;
  if (direction == Direction::up) return high;
  const int side = compare(v * power_of_two(1), below + nominal_value(s, high));
  if (side != 0) return side < 0 ? low : high;
  return direction == Direction::nearest_away || low % 2 == 1 ? high : low;
}

/// The posit next to v > 0: between two of them the limit is the posit of one more bit that stands between, whatever the mean of
/// their values is, and no number goes below the smallest or above the largest.
uint64_t round_posit(const Shape &s, const Exact &v, Direction direction) {
  const int bits = s.magnitude_bits();
  uint64_t low = 1, high = s.all_ones();
  if (compare(v, posit_value(bits, s.posit_es, low)) <= 0) return low;
  if (compare(v, posit_value(bits, s.posit_es, high)) >= 0) return high;
  while (high - low > 1) {
    const uint64_t middle = low + (high - low) / 2;
    (compare(v, posit_value(bits, s.posit_es, middle)) < 0 ? high : low) = middle;
  }
  if (direction == Direction::down || compare(v, posit_value(bits, s.posit_es, low)) == 0) return low;
  if (direction == Direction::up) return high;
  const int side = compare(v, posit_value(bits + 1, s.posit_es, 2 * low + 1));
  if (side != 0) return side < 0 ? low : high;
  return direction == Direction::nearest_away || low % 2 == 1 ? high : low;
}

uint64_t canonical_nan(FormatId id) {
  if (shape(id).posit_es >= 0) return shape(id).all_ones() + 1; // NaR
  return id == FormatId::f64 ? kF64Nan : shape(id).word(false, shape(id).all_ones());
}

// ------------------------------------------------------------------------------------------------------
// fused sums

/// Rounds a finished sum into the accumulator's word: every zero is +0; truncation, too, overflows to Inf.
uint64_t finish(const UnitRule &rule, const Exact &sum) {
  const bool nearest = rule.output == Output::rne_f16 || rule.output == Output::rne_f32;
  const Shape s = shape(rule.output == Output::rne_f16    ? FormatId::f16
                        : rule.output == Output::rz_e8m13 ? FormatId::e8m13
                                                          : FormatId::f32);
  const auto direction = nearest ? Direction::nearest_even : Direction::down;
  const uint64_t rounded = round_magnitude(s, magnitude(sum), direction);
  if (rounded == 0) return 0; // +0 also for a negative sum that is too small
  return s.word(sum.is_negative(), rounded);
}

/// The word of a sum whose terms contain NaN or Inf; nothing when all are finite.
std::optional<uint64_t> special_sum(FormatId acc, std::span<const Number> terms) {
  bool nan = false, plus = false, minus = false;
  for (const Number &t : terms) {
    nan |= t.is_nan();
    plus |= t.is_infinite() && !t.negative;
    minus |= t.is_infinite() && t.negative;
  }
  if (nan || (plus && minus)) return canonical_nan(acc);
  if (plus || minus) return shape(acc).word(minus, shape(acc).infinity());
  return std::nullopt;
}

/// Fused dot-product-add: every term is cut to a multiple of 2^(e_max - F), the sum is exact. All terms given
/// here take part in e_max, so the caller leaves out those that must not. An exact sum cuts nothing.
uint64_t fused_sum(const UnitRule &rule, std::span<const Number> terms) {
  if (const auto word = special_sum(rule.acc, terms)) return *word;
  int e_max = rule.floor;
  for (const Number &t : terms) e_max = std::max(e_max, t.exponent);
  Exact sum;
  for (const Number &t : terms)
    sum = sum + (rule.family == Family::exact_sum ? t.value : cut_toward_zero(t.value, e_max - rule.fraction_bits));
  return finish(rule, sum);
}

/// IEEE 754 addition, to nearest even.
uint64_t ieee_add(FormatId id, const Number &x, const Number &y) {
  if (const auto word = special_sum(id, std::array{x, y})) return *word;
  const Shape s = shape(id);
  const Exact sum = x.value + y.value;
  if (sum.is_zero()) return s.word(x.is_zero() && y.is_zero() && x.negative && y.negative, 0);
  return s.word(sum.is_negative(), round_magnitude(s, magnitude(sum), Direction::nearest_even));
}

/// FP64 fused multiply-add; which NaN comes out is what DMMA does on H200.
uint64_t fused_multiply_add(uint64_t a, uint64_t b, uint64_t c) {
  for (const uint64_t operand : {b, c, a})
    if (decode(FormatId::f64, operand).is_nan()) return operand | 0x0008000000000000;
  return ieee_add(FormatId::f64, decode(FormatId::f64, a) * decode(FormatId::f64, b), decode(FormatId::f64, c));
}

// --------------------------------------------------------------------------------------------------------
// families

using Codes = std::span<const uint64_t>;
using Scales = std::span<const uint8_t>;

/// Bytes of a scale, and scale b of a row of them, the low byte first.
size_t bytes_of(FormatId scale) { return scale == FormatId::hif4s || scale == FormatId::f32 ? 4 : 1; }
uint64_t word_of(FormatId scale, Scales scales, size_t b) {
  uint64_t word = 0;
  for (size_t i = bytes_of(scale); i-- > 0;) word = word << 8 | scales[b * bytes_of(scale) + i];
  return word;
}

/// A chain of fused sums of rule.link products; with scales, each product carries its blocks' two scales as
/// factors.
uint64_t dense(const UnitRule &rule, Codes a, Codes b, Scales scale_a, Scales scale_b, uint64_t c) {
  const size_t link = size_t(rule.link), block = size_t(rule.scale_block);
  for (size_t start = 0; start < a.size(); start += link) {
    std::vector<Number> terms;
    for (size_t i = start; i < std::min(start + link, a.size()); ++i) {
      if (block == 0) {
        if (const Number term = decode(rule.a, a[i]) * decode(rule.b, b[i]); !term.is_zero()) terms.push_back(term);
        continue;
      }
      const uint64_t x = word_of(rule.scale, scale_a, i / block), y = word_of(rule.scale, scale_b, i / block);
      const Number term = decode_in_block(rule.a, a[i], rule.scale, x) * decode_in_block(rule.b, b[i], rule.scale, y) *
                          (decode_scale(rule.scale, x, i % block) * decode_scale(rule.scale, y, i % block));
      if (!term.is_zero()) terms.push_back(term);
    }
    if (const Number acc = decode(rule.acc, c); !acc.is_zero()) terms.push_back(acc);
    c = fused_sum(rule, terms);
  }
  return c;
}

/// The exact dot product of one scaled group, with the exponent under which it is aligned; nothing when the
/// group takes no part.
std::optional<Number> scaled_group(const UnitRule &rule, Codes a, Codes b, uint8_t scale_a, uint8_t scale_b,
                                   Accumulation accumulation) {
  const Number scale = decode(rule.scale, scale_a) * decode(rule.scale, scale_b);
  Exact sum;
  std::optional<int> largest_exponent; // of the products that are not zero
  for (size_t i = 0; i < a.size(); ++i) {
    const Number product = decode(rule.a, a[i]) * decode(rule.b, b[i]);
    if (product.is_zero()) continue;
    sum = sum + product.value;
    largest_exponent = std::max(largest_exponent.value_or(product.exponent), product.exponent);
  }
  if (scale.is_nan()) return scale; // also over zero data
  if (!largest_exponent || scale.is_zero()) return std::nullopt;
  const bool nadpe = accumulation == Accumulation::nadpe;
  if (nadpe && sum.is_zero()) return std::nullopt; // cancelled groups are left out there, and only there
  Number group;
  group.value = sum * scale.value;
  group.exponent = scale.exponent + (nadpe ? *largest_exponent : 0);
  return group;
}

constexpr size_t kGroup = 16;

/// One instruction by the model of sf-tensor/tcgen05: products one by one with their scales, then gathered.
uint64_t tcgen05_model(const UnitRule &rule, Codes a, Codes b, Scales scale_a, Scales scale_b, uint64_t c) {
  struct Gathered { // neighbouring products, with the largest exponents among those that are not zero
    Exact value;
    std::optional<int> product, scale;
  };
  const auto gather = [&](size_t length) {
    std::vector<Gathered> all(a.size() / length);
    for (size_t i = 0; i < a.size(); ++i) {
      const size_t block = i / size_t(rule.scale_block);
      const Number scale = decode(rule.scale, scale_a[block]) * decode(rule.scale, scale_b[block]);
      const Number product = decode(rule.a, a[i]) * decode(rule.b, b[i]) * scale;
      if (product.is_zero()) continue;
      Gathered &g = all[i / length];
      g.value = g.value + product.value;
      g.product = std::max(g.product.value_or(product.exponent), product.exponent);
      g.scale = std::max(g.scale.value_or(scale.exponent), scale.exponent);
    }
    return all;
  };
  const Number acc = decode(rule.acc, c);
  std::vector<Number> specials = {acc};
  for (size_t s = 0; s < scale_a.size(); ++s)
    if (const Number scale = decode(rule.scale, scale_a[s]) * decode(rule.scale, scale_b[s]); scale.is_nan())
      specials.push_back(scale);
  if (const auto word = special_sum(rule.acc, specials)) return *word;

  const std::vector<Gathered> sixteens = gather(kGroup);
  std::optional<int> product, scale;
  for (const Gathered &g : sixteens) {
    if (!g.product) continue;
    product = std::max(product.value_or(*g.product), *g.product);
    scale = std::max(scale.value_or(*g.scale), *g.scale);
  }
  if (!product) return acc.is_zero() ? 0 : c;

  Exact sum;
  if (!acc.is_zero() && acc.exponent >= *product) { // everything in C's window
    for (const Gathered &g : sixteens) sum = sum + cut_toward_zero(g.value, acc.exponent - rule.fraction_bits);
    return finish(rule, sum + acc.value);
  }
  const int quantum = *scale - rule.fraction_bits;
  const Exact cut_acc = cut_toward_zero(acc.value, quantum);
  if (shape(rule.scale).mantissa_bits > 0) {
    for (const Gathered &g : gather(4)) sum = sum + cut_toward_zero(g.value, quantum);
    return finish(rule, sum + cut_acc);
  }
  Exact kept; // without what lies below the floor
  const Exact floor = power_of_two(rule.floor - rule.fraction_bits);
  for (const Gathered &g : sixteens) {
    if (!g.product) continue;
    const bool under_c = !acc.is_zero() && acc.exponent >= *g.product;
    const Exact cut =
        cut_toward_zero(g.value, under_c ? std::max(quantum, acc.exponent - rule.fraction_bits) : quantum);
    sum = sum + cut;
    if (*g.scale == *scale || compare(magnitude(cut), floor) >= 0) kept = kept + cut;
  }
  const uint64_t word = finish(rule, sum + cut_acc);
  const bool subnormal = word % 0x80000000 != 0 && word % 0x80000000 < 0x00800000;
  return subnormal ? finish(rule, kept + cut_acc) : word;
}

/// One instruction: groups of 16 products, exact, and the accumulator in one fused sum.
uint64_t grouped(const UnitRule &rule, Codes a, Codes b, Scales scale_a, Scales scale_b, uint64_t c,
                 Accumulation accumulation) {
  if (accumulation == Accumulation::tcgen05_model) return tcgen05_model(rule, a, b, scale_a, scale_b, c);
  std::vector<Number> terms;
  for (size_t start = 0; start < a.size(); start += kGroup) {
    const size_t block = start / size_t(rule.scale_block);
    if (auto group = scaled_group(rule, a.subspan(start, kGroup), b.subspan(start, kGroup), scale_a[block],
                                  scale_b[block], accumulation))
      terms.push_back(*group);
  }
  if (const Number acc = decode(rule.acc, c); !acc.is_zero()) terms.push_back(acc);
  if (accumulation != Accumulation::exact) return fused_sum(rule, terms);
  if (const auto word = special_sum(rule.acc, terms)) return *word;
  Exact sum;
  for (const Number &t : terms) sum = sum + t.value;
  return finish(rule, sum);
}

/// FP8 products computed as FP16 ones, which are exact but have FP16's exponents (an E4M3 subnormal is a
/// normal FP16): one fused sum from zero over k % 4 in {0, 1}, one chained to it over {2, 3}, then an IEEE
/// addition of C.
uint64_t expanded(const UnitRule &rule, Codes a, Codes b, uint64_t c) {
  uint64_t partial = 0;
  for (const bool upper : {false, true}) {
    std::vector<Number> terms;
    for (size_t i = 0; i < a.size(); ++i) {
      if ((i % 4 >= 2) != upper) continue;
      const auto half = [](FormatId from, uint64_t code) {
        return decode(FormatId::f16, convert(FormatId::f16, from, code, Rounding::rn, false));
      };
      if (const Number term = half(rule.a, a[i]) * half(rule.b, b[i]); !term.is_zero()) terms.push_back(term);
    }
    if (const Number acc = decode(rule.acc, partial); !acc.is_zero()) terms.push_back(acc);
    partial = fused_sum(rule, terms);
  }
  return ieee_add(rule.acc, decode(rule.acc, partial), decode(rule.acc, c));
}

void expect_length(const char *what, size_t expected, size_t got) {
  if (expected != got)
    throw Error(std::string("oracle: ") + what + ": expected " + std::to_string(expected) + " codes, got " +
                std::to_string(got));
}

} // namespace

uint64_t dot(const UnitRule &rule, Codes a, Codes b, Scales scale_a, Scales scale_b, uint64_t c,
             Accumulation accumulation) {
  const size_t k = size_t(rule.k), block = size_t(rule.scale_block);
  expect_length("operand B", a.size(), b.size());
  expect_length("operand A, a multiple of K", a.size() / k * k, a.size());
  const size_t bytes = bytes_of(rule.scale);
  expect_length("scales of A", block != 0 ? a.size() / block * bytes : 0, scale_a.size());
  expect_length("scales of B", block != 0 ? a.size() / block * bytes : 0, scale_b.size());
  const size_t scales = block != 0 ? k / block * bytes : 0; // of one instruction
  for (size_t start = 0, s = 0; start < a.size(); start += k, s += scales) {
    const Codes x = a.subspan(start, k), y = b.subspan(start, k);
    const Scales sx = scale_a.subspan(s, scales), sy = scale_b.subspan(s, scales);
    switch (rule.family) {
    case Family::fdpa:
    case Family::exact_sum:
    case Family::st_fdpa: c = dense(rule, x, y, sx, sy, c); break;
    case Family::gst_fdpa: c = grouped(rule, x, y, sx, sy, c, accumulation); break;
    case Family::expanded_fp8: c = expanded(rule, x, y, c); break;
    case Family::fma:
      for (size_t i = 0; i < k; ++i)
        c = fused_multiply_add(x[i], y[i], c);
      break;
    }
  }
  return c;
}

uint64_t convert(FormatId to, FormatId from, uint64_t code, Rounding rounding, bool satfinite) {
  const Number x = decode(from, code);
  const Shape s = shape(to);
  const bool negative = x.negative && s.has_sign;
  if (x.is_nan()) return canonical_nan(to);

  const Direction directions[] = {Direction::nearest_even, Direction::down,
                                  negative ? Direction::down : Direction::up,
                                  negative ? Direction::up : Direction::down, Direction::nearest_away};
  const Direction direction = directions[size_t(rounding)];
  if (s.posit_es >= 0) {
    if (x.is_infinite()) return canonical_nan(to);
    return x.is_zero() ? 0 : s.word(negative, round_posit(s, magnitude(x.value), direction));
  }
  uint64_t mag = x.is_infinite() ? s.largest() + 1 : round_magnitude(s, magnitude(x.value), direction);
  if (mag > s.largest()) {
    const bool inward = !x.is_infinite() && direction == Direction::down;
    mag = satfinite || inward || s.top == Top::number ? s.largest()
                                                      : s.largest() + 1; // which is Inf, or the one NaN
  }
  return s.word(negative, mag);
}

} // namespace nvfp4::oracle
