// SPDX-License-Identifier: Apache-2.0
// Formats that are written rather than listed: against the rows of the table, and against their definitions
// by search over all codes.
#include "nvfp4/emulator/formats/number_format.hpp"
#include "tests/catch.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

using namespace nvfp4;

namespace {

using R = NumberRounding;
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

struct Number {
  double value;
  uint64_t code;
};

/// The finite numbers of a format, each value once (not -0), ascending.
std::vector<Number> numbers_of(const NumberFormat &f) {
  std::vector<Number> all;
  for (uint64_t code = 0; code < uint64_t{1} << f.bits; ++code) {
    const double v = decode_number(f, code);
    if (std::isfinite(v) && !(v == 0 && std::signbit(v))) all.push_back({v, code});
  }
  std::sort(all.begin(), all.end(), [](const Number &x, const Number &y) { return x.value < y.value; });
  return all;
}

/// What the mode makes of x between two neighbours.
double choose(R rounding, const Number &low, const Number &high, double x) {
  const double middle = low.value / 2 + high.value / 2,
               down = std::fabs(low.value) < std::fabs(high.value) ? low.value : high.value,
               away = down == low.value ? high.value : low.value;
  switch (rounding) {
  case R::nearest_even:
    return x < middle ? low.value : x > middle ? high.value : low.code % 2 == 0 ? low.value : high.value;
  case R::nearest_away: return x < middle ? low.value : x > middle ? high.value : away;
  case R::toward_zero: return down;
  case R::upward: return high.value;
  case R::downward: return low.value;
  case R::odd: return low.code % 2 == 1 ? low.value : high.value;
  case R::stochastic: break;
  }
  return kNan;
}

/// Magnitudes spread over the format and beyond, between and beside its numbers.
std::vector<double> inputs_for(const std::vector<Number> &numbers) {
  std::vector<double> all;
  for (size_t i = 0; i + 1 < numbers.size(); i += std::max<size_t>(1, numbers.size() / 300)) {
    const double a = numbers[i].value, b = numbers[i + 1].value, middle = a / 2 + b / 2;
    for (const double x : {a, middle, std::nextafter(middle, a), std::nextafter(middle, b), a + (b - a) / 3,
                           std::nextafter(a, b)})
      all.push_back(x);
  }
  return all;
}

} // namespace

TEST_CASE("a written format rounds as its definition says, in every mode", "[formats][number_format]") {
  for (const char *name :
       {"e2m1:finite", "e3m4", "e4m3:nan", "e4m3:fnuz", "e5m2:fnuz", "e4m3:bias=11:fnuz", "e5m2", "e1m2",
        "e0m3", "e6m9", "e8m3:bias=200", "e5m3:unsigned:nan", "fixed8.6", "fixed4", "fixed12.-3"}) {
    INFO(name);
    const NumberFormat f = parse_number_format(name);
    const std::vector<Number> numbers = numbers_of(f);
    REQUIRE(numbers.size() > 7);
    for (const double x : inputs_for(numbers)) {
      const auto above = std::lower_bound(numbers.begin(), numbers.end(), x,
                                          [](const Number &n, double v) { return n.value < v; });
      REQUIRE(above != numbers.end());
      for (const R rounding :
           {R::nearest_even, R::nearest_away, R::toward_zero, R::upward, R::downward, R::odd}) {
        // two's complement: the parity of a code is that of its magnitude; the lowest code is never written
        if (f.row.encoding == Encoding::twos_complement && x < -numbers.back().value) continue;
        const double want = above->value == x ? x : choose(rounding, *(above - 1), *above, x);
        const double got = decode_number(f, encode_number(f, x, rounding));
        INFO(x << " " << to_string(rounding));
        REQUIRE(got == want);
      }
    }
  }
}

TEST_CASE("written formats that the table has are the table's", "[formats][number_format]") {
  std::mt19937_64 words(5);
  for (const auto &[name, id] : {std::pair("e4m3:nan", FormatId::e4m3),
                                 {"e5m2", FormatId::e5m2},
                                 {"e5m10", FormatId::f16},
                                 {"e8m7", FormatId::bf16},
                                 {"e2m3:finite", FormatId::e2m3},
                                 {"fixed4", FormatId::int4},
                                 {"fixed8.6", FormatId::int8},
                                 {"e5m3:nan:unsigned", FormatId::ue5m3},
                                 {"e1m2:finite", FormatId::e1m2}}) {
    INFO(name);
    const NumberFormat written = parse_number_format(name), listed = parse_number_format(format(id).name);
    CHECK(listed.bits == written.bits);
    for (int i = 0; i < 20000; ++i) {
      const float x = bit_cast<float>(uint32_t(words()));
      for (const bool saturate : {false, true}) {
        const uint64_t want =
            format(id).has_sign || !(x < 0)
                ? encode(id, x, Rounding::nearest_even, saturate ? Overflow::satfinite : Overflow::ieee)
                : 0;
        REQUIRE(encode_number(written, double(x), R::nearest_even, saturate) == want);
        REQUIRE(encode_number(listed, double(x), R::nearest_even, saturate) == want);
      }
    }
  }
}

TEST_CASE("overflow, Inf and NaN of written formats", "[formats][number_format]") {
  const auto code = [](const char *name, double x, R rounding = R::nearest_even, bool saturate = false) {
    return encode_number(parse_number_format(name), x, rounding, saturate);
  };
  CHECK(code("e5m2", 1e9) == 0x7C);
  CHECK(code("e5m2", 1e9, R::toward_zero) == 0x7B);
  CHECK(code("e5m2", 1e9, R::odd) == 0x7B);
  CHECK(code("e5m2", -1e9, R::upward) == 0xFB);
  CHECK(code("e5m2", -1e9, R::downward) == 0xFC);
  CHECK(code("e5m2", 1e9, R::nearest_even, true) == 0x7B);
  CHECK(code("e5m2", kInf, R::toward_zero) == 0x7C);
  CHECK(code("e4m3", 1e9) == 0x7F);
  CHECK(code("e2m1:finite", 1e9) == 0x7);
  CHECK(code("e2m1:finite", -kInf) == 0xF);
  // the codes of ml_dtypes' float8_e4m3fnuz and e5m2fnuz
  CHECK(code("e4m3:fnuz", 240.0) == 0x7F);
  CHECK(code("e4m3:fnuz", 248.0) == 0x80);
  CHECK(code("e4m3:fnuz", 247.9) == 0x7F);
  CHECK(code("e4m3:fnuz", -300.0, R::toward_zero) == 0xFF);
  CHECK(code("e4m3:fnuz", -1e9, R::nearest_even, true) == 0xFF);
  CHECK(code("e4m3:fnuz", -0.0) == 0x00);
  CHECK(code("e4m3:fnuz", -1e-9) == 0x00);
  CHECK(code("e4m3:fnuz", kNan) == 0x80);
  CHECK(std::isnan(decode_number(parse_number_format("e5m2:fnuz"), 0x80)));
  CHECK(decode_number(parse_number_format("e5m2:fnuz"), 0x7F) == 57344.0);
  CHECK(code("e5m3:unsigned", -3.0) == 0);
  CHECK(code("fixed8.6", -2.0) == 0x81); // the lowest is not written
}

TEST_CASE("posits: the values of the standard, and rounding on bit patterns", "[formats][number_format]") {
  const NumberFormat four = parse_number_format("posit4:es=1");
  const double values[] = {0, 1.0 / 16, 0.25, 0.5, 1, 2, 4, 16};
  for (uint64_t c = 0; c < 8; ++c) {
    CHECK(decode_number(four, c) == values[c]);
    if (c > 0) CHECK(decode_number(four, 16 - c) == -values[c]);
  }
  CHECK(std::isnan(decode_number(four, 8)));
  CHECK(decode_number(parse_number_format("posit8:es=0"), 0x7F) == 64.0);
  CHECK(decode_number(parse_number_format("posit16:es=1"), 1) == std::ldexp(1.0, -28));
  CHECK(decode_number(parse_number_format("posit16"), 0x7FFF) == std::ldexp(1.0, 56));
  CHECK(encode_number(parse_number_format("posit32"), 1e300, R::nearest_even) == 0x7FFFFFFF);
  CHECK(encode_number(four, -1e-300, R::nearest_even) == 0xF);
  CHECK(encode_number(four, kInf, R::nearest_even) == 8);
  CHECK(encode_number(four, -0.0, R::nearest_even) == 0);

  // Posit Standard, section 6: between u and w decides the posit of one bit more that lies between them
  for (const char *name : {"posit4:es=1", "posit8:es=0", "posit8:es=2", "posit16:es=1", "posit10:es=3"}) {
    INFO(name);
    const NumberFormat f = parse_number_format(name);
    NumberFormat longer = f;
    ++longer.bits;
    const uint64_t largest = (uint64_t{1} << (f.bits - 1)) - 1;
    for (uint64_t u = 1; u<largest; u += f.bits> 12 ? 37 : 1) {
      const double low = decode_number(f, u), high = decode_number(f, u + 1),
                   v = decode_number(longer, 2 * u + 1);
      REQUIRE(low < v);
      REQUIRE(v < high);
      const auto code = [&](double x) { return encode_number(f, x, R::nearest_even); };
      REQUIRE(code(low) == u);
      REQUIRE(code(v) == (u % 2 == 0 ? u : u + 1));
      REQUIRE(code(std::nextafter(v, 0.0)) == u);
      REQUIRE(code(std::nextafter(v, kInf)) == u + 1);
      REQUIRE(code(-std::nextafter(v, kInf)) == (largest + 1) * 2 - (u + 1));
      REQUIRE(encode_number(f, std::nextafter(high, 0.0), R::toward_zero) == u);
    }
  }
}

TEST_CASE("stochastic rounding goes away as often as the discarded part says", "[formats][number_format]") {
  for (const char *name : {"e4m3", "fixed8.6", "posit8:es=0"}) {
    INFO(name);
    const NumberFormat f = parse_number_format(name);
    const double x = 1.0 + 5.0 / 1024; // 5/128 or 5/16, 5/32 of a step
    int64_t away = 0;
    for (uint64_t r = 0; r < 4096; ++r)
      away += decode_number(f, encode_number(f, -x, R::stochastic, false, uint32_t(r << 20))) != -1.0;
    const double step = -1.0 - decode_number(f, encode_number(f, -x, R::stochastic, false, 0xFFFFFFFFu));
    CHECK(away == int64_t(4096 * (x - 1.0) / step));
  }
}

TEST_CASE("rounding to odd first makes a second rounding innocent", "[formats][number_format]") {
  const NumberFormat wide = parse_number_format("e8m12"), narrow = parse_number_format("bf16");
  std::mt19937_64 words(11);
  int64_t twice_differs = 0;
  for (int i = 0; i < 200000; ++i) {
    // a hair beside the middle of two narrow numbers, which the wide format rounds away
    const double x = 1.0 + double(words() % 128) / 128 + 1.0 / 256 + (double(words() % 5) - 2) / (1 << 20);
    const uint64_t once = encode_number(narrow, x, R::nearest_even);
    CHECK(encode_number(narrow, decode_number(wide, encode_number(wide, x, R::odd)), R::nearest_even) ==
          once);
    twice_differs += encode_number(narrow, decode_number(wide, encode_number(wide, x, R::nearest_even)),
                                   R::nearest_even) != once;
  }
  CHECK(twice_differs > 0);
}

TEST_CASE("what is no format is refused in one line", "[formats][number_format]") {
  const auto refused = [](const char *name, const char *part) {
    INFO(name);
    CHECK_THROWS_WITH(parse_number_format(name), Catch::Contains(part));
  };
  refused("", "expected a format's name");
  refused("float8", "expected a format's name");
  refused("e4", "expected eXmY");
  refused("e99m3", "X from 0 to 10");
  refused("e4m3:", "'' is no option");
  refused("e4m3:bias", "'bias' is no option");
  refused("e4m3:bias=x", "whole number in 'bias=x'");
  refused("e4m3:bias=5000", "between -1000 and 1000");
  refused("e4m3:es=1", "'es=1' is no option");
  refused("e1m2:ieee", "two bits of exponent");
  refused("e10m30", "2 to 32 bits");
  refused("e4m3:fnuz:unsigned", "lacks");
  refused("fixed64", "N from 2 to 32");
  refused("fixed8.x", "expected fixedN");
  refused("posit8:es=9", "is no option");
  refused("ue8m0", "conversions");
  CHECK_THROWS_WITH(encode_number(parse_number_format("posit8"), 1.3, NumberRounding::upward),
                    Catch::Contains("rne, rz and sr"));
}
