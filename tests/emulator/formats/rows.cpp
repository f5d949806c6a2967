// SPDX-License-Identifier: Apache-2.0
// Formats as rows: what follows from a row for every format of the table, and rows that the table does not have
// (integers, other splits of exponent and mantissa) through the same decode and encode.
#include "nvfp4/emulator/formats/number_format.hpp"
#include "nvfp4/emulator/oracle/oracle.hpp"
#include "nvfp4/golden/cases/element.hpp"
#include "tests/catch.hpp"

#include <cmath>
#include <limits>
#include <vector>

using namespace nvfp4;

namespace {

// expressible, not in use: ids are those of formats of the same width, nothing below reads them
constexpr Format kE1M2 = format(FormatId::e1m2);
constexpr Format kE3M0{FormatId::e2m1, "e3m0", 4, 4, 3, 0, 0, 3, Specials::finite_only, true};
constexpr Format kInt4{FormatId::e2m1, "int4", 4, 4, 0, 3, 0, -2, Specials::finite_only, true, Encoding::twos_complement};
constexpr Format kInt8{FormatId::e4m3, "int8", 8, 8, 0, 7, 0, -6, Specials::finite_only, true, Encoding::twos_complement};
/// OCP MX 1.0, 5.3.4: two's complement with an implied scale of 2^-6.
constexpr Format kMxInt8{FormatId::e4m3, "mxint8", 8, 8, 0, 7, 0, 0, Specials::finite_only, true, Encoding::twos_complement};
constexpr Format kUe4m4{FormatId::ue8m0, "ue4m4", 8, 8, 4, 4, 0, 7, Specials::nan_only, false};

double value_of(const Format &f, uint64_t code) {
  return bit_cast<double>(convert(format(FormatId::f64), f, code, Rounding::nearest_even, Overflow::ieee));
}
uint64_t code_of(const Format &f, double x) {
  return convert(f, format(FormatId::f64), bit_cast<uint64_t>(x), Rounding::nearest_even, Overflow::satfinite);
}

/// Every number comes back as its code; halfway between neighbours the even code wins, beside it the nearer one.
void check_row(const Format &f, size_t numbers) {
  INFO(f.name);
  std::vector<double> values;
  for (uint64_t m = 0; m <= f.max_finite_magnitude(); ++m) values.push_back(value_of(f, m));
  CHECK(values.size() == numbers);
  for (uint64_t m = 0; m < values.size(); ++m)
    for (const bool negative : {false, true}) {
      if (negative && !f.has_sign) continue;
      const double sign = negative ? -1 : 1;
      CHECK(code_of(f, sign * values[m]) == with_sign(f, negative, m));
      CHECK(value_of(f, with_sign(f, negative, m)) == sign * values[m]);
      if (m + 1 == values.size()) continue;
      const double middle = (values[m] + values[m + 1]) / 2;
      CHECK(code_of(f, sign * middle) == with_sign(f, negative, m + m % 2));
      CHECK(code_of(f, sign * std::nextafter(middle, 0.0)) == with_sign(f, negative, m));
      CHECK(code_of(f, sign * std::nextafter(middle, 1e9)) == with_sign(f, negative, m + 1));
    }
  CHECK(code_of(f, 1e30) == f.max_finite_magnitude());
  CHECK(code_of(f, std::numeric_limits<double>::infinity()) == f.max_finite_magnitude());
  if (f.has_sign) CHECK(code_of(f, -1e30) == with_sign(f, true, f.max_finite_magnitude()));
  CHECK(value_of(f, f.one()) == 1.0);
}

} // namespace

TEST_CASE("rows of formats that nothing uses yet round and read back", "[formats][rows]") {
  check_row(kE1M2, 8);
  CHECK(value_of(kE1M2, 7) == 3.5);
  check_row(kE3M0, 8);
  CHECK(value_of(kE3M0, 7) == 16.0);
  check_row(kInt4, 8);
  check_row(kInt8, 128);
  check_row(kMxInt8, 128);
  CHECK(value_of(kMxInt8, 127) == 127.0 / 64);
  check_row(kUe4m4, 255);
}

TEST_CASE("integers are two's complement, the lowest code is read and never written", "[formats][rows]") {
  for (int i = -127; i <= 127; ++i) CHECK(code_of(kInt8, i) == uint8_t(i));
  CHECK(value_of(kInt8, 0x80) == -128.0);
  CHECK(value_of(kInt4, 0x8) == -8.0);
  CHECK(code_of(kInt8, -128.0) == 0x81);
  CHECK(code_of(kInt4, -0.25) == 0); // no negative zero
  CHECK(code_of(kInt4, -2.5) == 0xE);
  CHECK(code_of(kInt4, -3.5) == 0xC);
}

TEST_CASE("one, largest and smallest follow from the row of every format", "[formats][rows]") {
  for (int i = 0; i < kFormatCount; ++i) {
    const FormatId id = FormatId(i);
    INFO(format(id).name);
    CHECK(value(id, format(id).one()) == 1.0);
    CHECK(find_format(format(id).name) == id);
  }
  CHECK(format(FormatId::ue4m3).one() == 0x38);
  CHECK(format(FormatId::ue8m0).one() == 127);
  CHECK(largest(FormatId::e2m1) == 6.0f);
  CHECK(largest(FormatId::ue4m3) == 448.0f);
  CHECK(smallest(FormatId::ue4m3) == 0x1p-9f);
  CHECK(smallest_normal(FormatId::ue4m3) == 0x1p-6f);
}

TEST_CASE("UE5M3: 8 unsigned bits, NaN at 0xFF, 114688 at 0xFE", "[formats][rows]") {
  const Format f = format(FormatId::ue5m3);
  check_row(f, 255);
  CHECK(f.one() == 0x78);
  CHECK(largest(FormatId::ue5m3) == 114688.0f);
  CHECK(smallest(FormatId::ue5m3) == 0x1p-17f);
  CHECK(smallest_normal(FormatId::ue5m3) == 0x1p-14f);
  CHECK(decode(f, 0xFF).cls == Class::nan);
  CHECK(encode(FormatId::ue5m3, std::numeric_limits<float>::quiet_NaN()) == 0xFF);
  // above all UE4M3 and below its smallest, by reference and oracle
  for (uint32_t w = 0; w < 0x7F800000; w += 0x1235) {
    const uint64_t got = convert(f, format(FormatId::f32), w, Rounding::nearest_even, Overflow::satfinite);
    if (got != oracle::convert(FormatId::ue5m3, FormatId::f32, w, oracle::Rounding::rn, true)) {
      FAIL("word " << w);
    }
  }
}

TEST_CASE("posit rows are the written posits, by the oracle and by the generator of inputs too", "[formats][rows]") {
  struct Row {
    FormatId id;
    golden::cases::Element element;
    const char *written;
  };
  using golden::cases::Element;
  for (const Row &row : {Row{FormatId::p4e1, Element::p4e1, "posit4:es=1"}, Row{FormatId::p8e0, Element::p8e0, "posit8:es=0"},
                         Row{FormatId::p16e1, Element::p16e1, "posit16:es=1"}}) {
    const Format f = format(row.id);
    const NumberFormat written = parse_number_format(row.written), named = parse_number_format(f.name);
    CHECK(named.bits == written.bits);
    CHECK(named.posit_exponent == written.posit_exponent);
    const golden::cases::ElementFormat &input = golden::cases::format_of(row.element);
    CHECK(std::string(input.name) == f.name);
    const uint64_t codes = uint64_t{1} << f.code_bits, nar = codes / 2;
    int64_t wrong = 0;
    for (uint64_t code = 0; code < codes; ++code) {
      const double x = value(row.id, code), want = decode_number(written, code), of_input = golden::cases::decode(input, code);
      const auto same = [](double a, double b) { return a == b || (a != a && b != b); };
      wrong += !same(x, want) || !same(of_input, want);
      wrong += code != nar && value_of(f, code) != want;
      wrong += !same(bit_cast<double>(oracle::convert(FormatId::f64, row.id, code, oracle::Rounding::rn, false)), want);
      uint64_t back = 0;
      wrong += code != nar && (!golden::cases::encode_exact(input, want, back) || back != code);
    }
    CHECK(wrong == 0);
    // FP32 words about every code, every tie of the pattern, and beyond both ends
    for (uint64_t code = 1; code < nar; ++code) {
      const double here = value(row.id, code);
      const NumberFormat finer = parse_number_format("posit" + std::to_string(f.code_bits + 1) + ":es=" + std::to_string(f.posit_exponent()));
      for (const double about : {here, decode_number(finer, 2 * code + 1), here * 1.37})
        for (const float x : {float(about), std::nextafter(float(about), 0.0f), std::nextafter(float(about), 1e30f)})
          for (const float signed_x : {x, -x}) {
            const uint32_t word = bit_cast<uint32_t>(signed_x);
            const uint64_t nearest = encode(row.id, signed_x);
            wrong += nearest != encode_number(written, double(signed_x), NumberRounding::nearest_even);
            wrong += convert(f, format(FormatId::f32), word, Rounding::toward_zero, Overflow::satfinite) !=
                     encode_number(written, double(signed_x), NumberRounding::toward_zero);
            for (int r = 0; r < 5; ++r)
              wrong += convert(f, format(FormatId::f32), word, Rounding(r), Overflow::ieee) !=
                       oracle::convert(row.id, FormatId::f32, word, oracle::Rounding(r), false);
          }
    }
    CHECK(wrong == 0);
    for (const float x : {0x1p-149f, 0x1p-40f, 1e30f, 0x1p100f}) {
      CHECK(encode(row.id, x) == (x < 1.0f ? 1 : nar - 1)); // never zero, never NaR
      CHECK(encode(row.id, -x) == codes - (x < 1.0f ? 1 : nar - 1));
    }
    const float inf = std::numeric_limits<float>::infinity();
    for (const float x : {inf, -inf, std::nanf("")}) CHECK(encode(row.id, x) == nar);
    CHECK(encode(row.id, -0.0f) == 0);
    CHECK_FALSE(f.of_elements());
  }
  CHECK(value(FormatId::p16e1, 0x5800) == 3.0); // 0 10 1 100...: 2^1 * 1.5
  CHECK(largest(FormatId::p8e0) == 64.0f);
  CHECK(smallest(FormatId::p16e1) == 0x1p-28f);
}
