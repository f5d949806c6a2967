// SPDX-License-Identifier: Apache-2.0
// The oracle against values worked out by hand, published predictions, two stored hardware results and the
// host's own IEEE arithmetic. Everything else is judged by the oracle, so nothing here is taken from the
// emulator's other code.
#include "nvfp4/emulator/oracle/oracle.hpp"
#include "tests/catch.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <random>
#include <string>
#include <utility>
#include <vector>

using namespace nvfp4;
using oracle::convert;
using oracle::dot;
using oracle::Rounding;
using enum FormatId;

namespace {

using Codes = std::vector<uint64_t>;
using Bytes = std::vector<uint8_t>;

UnitRule dense(FormatId element, FormatId acc, Output output, int k, int fraction_bits, int floor) {
  return {Family::fdpa,           element,        element, acc, output, int16_t(k), int16_t(k),
          int16_t(fraction_bits), int16_t(floor), f32,     0};
}

UnitRule scaled(Family family, UnitRule rule, FormatId scale, int block) {
  rule.family = family;
  rule.scale = scale;
  rule.scale_block = int16_t(block);
  return rule;
}

/// m16n8k64 mxf4nvf4 as published: groups of 16, F = 35, floor -139.
UnitRule fp4_unit(int fraction_bits = 35, FormatId scale = ue4m3, int block = 16) {
  return scaled(Family::gst_fdpa, dense(e2m1, f32, Output::rz_f32, 64, fraction_bits, -139), scale, block);
}

UnitRule expanded(FormatId element, FormatId acc, int k = 32) {
  const bool half = acc == f16;
  UnitRule rule = dense(element, acc, half ? Output::rne_f16 : Output::rz_f32, k, 25, half ? -22 : -133);
  rule.family = Family::expanded_fp8;
  rule.link = int16_t(k / 2);
  return rule;
}

const UnitRule kFp64{Family::fma, f64, f64, f64, Output::rne_f64, 4, 1, 0, 0, f32, 0};

uint64_t bits(double x) { return std::bit_cast<uint64_t>(x); }
uint64_t word(float x) { return std::bit_cast<uint32_t>(x); }
uint64_t code(FormatId format, double x) { return convert(format, f64, bits(x), Rounding::rn, false); }
double value(FormatId format, uint64_t c) {
  return std::bit_cast<double>(convert(f64, format, c, Rounding::rn, false));
}
double two(int e) { return std::ldexp(1.0, e); }

/// K elements, the given products x * y first, the rest zeros.
uint64_t products(const UnitRule &rule, std::initializer_list<std::pair<double, double>> pairs, uint64_t c) {
  Codes a(size_t(rule.k), 0), b = a;
  size_t i = 0;
  for (const auto &[x, y] : pairs) a[i] = code(rule.a, x), b[i++] = code(rule.b, y);
  return dot(rule, a, b, {}, {}, c);
}

/// A row of 64 E2M1 codes: hex digits per group of 16, each group padded with zeros.
Codes nibbles(std::initializer_list<std::string> groups) {
  Codes row;
  for (const std::string &group : groups) {
    for (char digit : group) row.push_back(std::stoull(std::string(1, digit), nullptr, 16));
    row.resize((row.size() + 15) / 16 * 16 + (group.empty() ? 16 : 0), 0);
  }
  row.resize(64, 0);
  return row;
}

} // namespace

TEST_CASE("oracle: decoding follows the formats' definitions") {
  const double magnitudes[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  for (uint64_t i = 0; i < 8; ++i) {
    CHECK(value(e2m1, i) == magnitudes[i]);
    CHECK(bits(value(e2m1, i + 8)) == bits(-magnitudes[i]));
  }
  CHECK(value(e3m2, 0x01) == 0.0625);
  CHECK(value(e3m2, 0x1F) == 28);
  CHECK(value(e2m3, 0x01) == 0.125);
  CHECK(value(e2m3, 0x3F) == -7.5);
  CHECK(value(e4m3, 0x01) == two(-9));
  CHECK(value(e4m3, 0x7E) == 448);
  CHECK(std::isnan(value(e4m3, 0x7F)));
  CHECK(std::isnan(value(e4m3, 0xFF)));
  CHECK(value(ue4m3, 0xB8) == 1); // the top bit is ignored
  CHECK(value(e5m2, 0x7B) == 57344);
  CHECK(value(e5m2, 0xFC) == -std::numeric_limits<double>::infinity());
  CHECK(std::isnan(value(e5m2, 0x7D)));
  CHECK(value(ue8m0, 0x00) == two(-127));
  CHECK(value(ue8m0, 0xFE) == two(127));
  CHECK(std::isnan(value(ue8m0, 0xFF)));
  CHECK(value(bf16, 0x0001) == two(-133));
  CHECK(value(f16, 0x0001) == two(-24));
  CHECK(value(tf32, 0x3F801FFF) == 1);        // the low 13 bits are ignored,
  CHECK(std::isinf(value(tf32, 0x7F801FFF))); // so a payload in them is lost
  for (uint64_t c = 0; c < 0x10000; ++c) {    // BF16 is the upper half of a float
    const float x = std::bit_cast<float>(uint32_t(c << 16));
    if (!std::isnan(x)) REQUIRE(bits(value(bf16, c)) == bits(double(x)));
  }
}

TEST_CASE("oracle: conversions round as the instructions do") {
  const auto to_e2m1 = [](double x) { return convert(e2m1, f32, word(float(x)), Rounding::rn, true); };
  const std::pair<double, uint64_t> ties[] = {{.25, 0}, {.75, 2}, {1.25, 2}, {1.75, 4},
                                              {2.5, 4}, {3.5, 6}, {5, 6}};
  for (const auto &[x, c] : ties) {
    CHECK(to_e2m1(x) == c);
    CHECK(to_e2m1(-x) == (c | 8));
    CHECK(value(e2m1, to_e2m1(std::nextafter(float(x), 9.f))) > x);
    CHECK(value(e2m1, to_e2m1(std::nextafter(float(x), 0.f))) < x);
  }
  CHECK(to_e2m1(-0.1) == 0x8);
  CHECK(to_e2m1(1e30) == 0x7);
  CHECK(convert(e2m1, f32, word(-7), Rounding::rn, false) == 0xF); // there is nothing else to overflow to
  CHECK(to_e2m1(-std::numeric_limits<double>::infinity()) == 0xF);

  const auto from_f32 = [](FormatId to, float x, Rounding r, bool s) {
    return convert(to, f32, word(x), r, s);
  };
  using enum Rounding;
  CHECK(from_f32(e4m3, 464, rn, false) == 0x7E); // tie between 448 and the 480 that E4M3 lacks, to even
  CHECK(from_f32(e4m3, 465, rn, false) == 0x7F);
  CHECK(from_f32(e4m3, -465, rn, false) == 0xFF);
  CHECK(from_f32(e4m3, -465, rn, true) == 0xFE);
  CHECK(from_f32(e4m3, 479, rz, false) == 0x7E);
  CHECK(from_f32(e5m2, 61440, rn, false) == 0x7C);
  CHECK(from_f32(e5m2, 61440, rn, true) == 0x7B);
  CHECK(from_f32(f16, 65519, rn, false) == 0x7BFF);
  CHECK(from_f32(f16, 65520, rn, false) == 0x7C00);
  CHECK(from_f32(f16, 1e6f, rz, false) == 0x7BFF);
  CHECK(from_f32(f16, -1e6f, rm, false) == 0xFC00);
  CHECK(from_f32(f16, -1e6f, rp, false) == 0xFBFF);
  CHECK(from_f32(f16, std::numeric_limits<float>::infinity(), rz, false) == 0x7C00);
  CHECK(convert(tf32, f32, 0x3F801000, rna, false) == 0x3F802000); // 1 + 2^-11 is a tie
  CHECK(convert(tf32, f32, 0x3F801000, rn, false) == 0x3F800000);
  CHECK(convert(tf32, f32, 0xBF801000, rm, false) == 0xBF802000);
  CHECK(convert(tf32, f32, 0xBF801000, rp, false) == 0xBF800000);

  CHECK(convert(ue8m0, f32, 0x00000000, rz, true) == 0x00);
  CHECK(convert(ue8m0, f32, 0x00400000, rp, true) == 0x00); // 2^-127
  CHECK(convert(ue8m0, f32, 0x00400001, rp, true) == 0x01);
  CHECK(convert(ue8m0, f32, 0xC0400000, rz, true) == 0x80); // |-3|
  CHECK(convert(ue8m0, f32, 0xC0400000, rp, true) == 0x81);
  CHECK(convert(ue8m0, f32, 0x7F7FFFFF, rp, true) == 0xFE);
  CHECK(convert(ue8m0, f32, 0x7F7FFFFF, rp, false) == 0xFF);
  CHECK(convert(bf16, ue8m0, 0x00, rn, false) == 0x0040);

  const std::pair<FormatId, uint64_t> nans[] = {
      {e2m1, 0x7},   {e3m2, 0x1F},   {e2m3, 0x1F},  {e4m3, 0x7F},      {e5m2, 0x7F},      {ue4m3, 0x7F},
      {ue8m0, 0xFF}, {bf16, 0x7FFF}, {f16, 0x7FFF}, {f32, 0x7FFFFFFF}, {tf32, 0x7FFFE000}};
  for (const auto &[to, nan] : nans)
    for (bool saturate : {false, true}) CHECK(convert(to, f32, 0xFF800001, rn, saturate) == nan);
}

TEST_CASE("oracle: conversions agree with the host's double to float, and return every code") {
  std::mt19937_64 random(7);
  for (int i = 0; i < 20000; ++i) {
    // doubles whose exponents straddle float's range at both ends
    const uint64_t exponent =
        1023 + (random() % 2 ? 110 + random() % 20 : uint64_t(-155 + int(random() % 40)));
    const uint64_t x = (random() & 0x800FFFFFE0000001) | exponent << 52;
    REQUIRE(convert(f32, f64, x, Rounding::rn, false) == word(float(std::bit_cast<double>(x))));
  }
  for (FormatId f : {e2m1, e3m2, e2m3, e4m3, e5m2, ue4m3, ue8m0})
    for (uint64_t c = 0; c < (uint64_t{1} << format(f).code_bits); ++c)
      for (Rounding r : {Rounding::rn, Rounding::rz, Rounding::rp, Rounding::rm, Rounding::rna})
        if (!std::isnan(value(f, c))) REQUIRE(convert(f, f64, bits(value(f, c)), r, false) == c);
}

TEST_CASE("oracle: FP64 is a chain of fused multiply-adds") {
  std::mt19937_64 random(11);
  for (int i = 0; i < 2000; ++i) {
    Codes a, b;
    const auto draw = [&] { // centred exponents, or raw bits that overflow, underflow and hold Inf
      const uint64_t r = random();
      return i % 2 ? r : (r & 0x800FFFFFFFFFFFFF) | (1015 + r % 16) << 52;
    };
    const uint64_t c = draw();
    double expected = std::bit_cast<double>(c);
    bool nan_operand = std::isnan(expected);
    for (int k = 0; k < 4; ++k) {
      a.push_back(draw()), b.push_back(draw());
      nan_operand |= std::isnan(std::bit_cast<double>(a.back())) || std::isnan(std::bit_cast<double>(b.back()));
      expected = std::fma(std::bit_cast<double>(a.back()), std::bit_cast<double>(b.back()), expected);
    }
    const uint64_t d = dot(kFp64, a, b, {}, {}, c);
    if (nan_operand) REQUIRE(std::isnan(std::bit_cast<double>(d)));
    else REQUIRE(d == (std::isnan(expected) ? oracle::kF64Nan : bits(expected)));
  }
  const Codes zero(4, 0), minus(4, bits(-0.0)), tiny(4, 1), minus_tiny(4, bits(-0.0) + 1);
  CHECK(dot(kFp64, zero, minus, {}, {}, bits(-0.0)) == bits(-0.0));
  CHECK(dot(kFp64, zero, zero, {}, {}, bits(-0.0)) == 0);
  CHECK(dot(kFp64, tiny, minus_tiny, {}, {}, 0) == bits(-0.0)); // underflow keeps the sign
}

TEST_CASE("oracle: the floor of e_max, subnormals and signs of dense units") {
  const UnitRule b16 = dense(bf16, f32, Output::rz_f32, 16, 25, -133);
  CHECK(products(b16, {{two(-75), two(-74)}, {-two(-79), two(-79)}}, 0) == 0x00000000);
  const UnitRule ampere = dense(bf16, f32, Output::rz_f32, 16, 25, -132);
  CHECK(products(ampere, {{two(-75), two(-74)}, {-two(-79), two(-79)}}, 0) == 0x00000001);
  CHECK(products(b16, {{two(-75), two(-74)}, {-two(-80), two(-79)}}, 0) == 0x00000001);
  CHECK(products(b16, {{two(127), 1}, {two(127), 1}}, 0) == 0x7F800000); // overflow although truncating
  CHECK(products(b16, {{two(127), 1}, {-two(102), 1}}, word(float(two(127)))) == 0x7F7FFFFF);
  CHECK(products(b16, {{two(127), 1}, {-two(101), 1}}, word(float(two(127)))) == 0x7F800000);

  const UnitRule h = dense(f16, f16, Output::rne_f16, 16, 25, -22);
  const UnitRule wgmma = dense(f16, f16, Output::rne_f16, 16, 25, -133);
  CHECK(products(h, {{two(-12), two(-13)}, {two(-24), two(-23)}}, 0) == 0x0001);
  const UnitRule other = dense(f16, f16, Output::rne_f16, 16, 25, -21);
  CHECK(products(other, {{two(-12), two(-13)}, {two(-24), two(-23)}}, 0) == 0x0000);
  CHECK(products(h, {{two(-12), two(-13)}, {two(-24), two(-24)}}, 0) == 0x0000);
  CHECK(products(wgmma, {{two(-12), two(-13)}, {two(-24), two(-24)}}, 0) == 0x0001);
  CHECK(products(h, {{two(-12), two(-13)}, {two(-20), two(-20)}}, 0x0002) == 0x0002); // C is aligned at 2^-14

  CHECK(products(b16, {{-0.0, 1}, {-0.0, 1}}, 0x80000000) == 0);
  CHECK(products(b16, {{1, 1}, {-1, 1}}, 0x80000000) == 0);
  CHECK(products(h, {{-two(-14), two(-14)}}, 0) == 0x0000); // +0, as on H200
  CHECK(products(wgmma, {{-two(-14), two(-14)}}, 0) == 0x0000);
  CHECK(products(wgmma, {{-two(-12), two(-12)}}, 0) == 0x8001);
}

TEST_CASE("oracle: E8M13 cuts the accumulator") {
  const UnitRule fp8 = dense(e4m3, f32, Output::rz_e8m13, 32, 13, -133);
  CHECK(products(fp8, {}, 0x3F800008) == 0x3F800000);
  CHECK(products(fp8, {{1, 1}, {two(-6), two(-7)}}, 0) == 0x3F800400);
  CHECK(products(fp8, {{1, 1}, {two(-7), two(-7)}}, 0) == 0x3F800000);
  CHECK(products(fp8, {}, 0x80000400) == 0x80000400); // -2^-139, the smallest multiple that is kept
  CHECK(products(fp8, {}, 0x800003FF) == 0x00000000); // cut to an exact zero before the sum
}

TEST_CASE("oracle: special values of dense units") {
  const double inf = std::numeric_limits<double>::infinity(), nan = std::nan("");
  for (const auto &[element, acc, canonical, infinite] :
       {std::tuple{bf16, f32, uint64_t{0x7FFFFFFF}, uint64_t{0x7F800000}},
        std::tuple{f16, f16, uint64_t{0x7FFF}, uint64_t{0x7C00}}}) {
    const UnitRule rule = dense(element, acc, acc == f16 ? Output::rne_f16 : Output::rz_f32, 16, 25, -133);
    const uint64_t sign = acc == f16 ? 0x8000 : 0x80000000;
    CHECK(products(rule, {{nan, 0}}, 0) == canonical);
    CHECK(products(rule, {{-nan, inf}}, 0) == canonical);
    CHECK(products(rule, {{inf, 0}}, 0) == canonical);
    CHECK(products(rule, {{inf, 1}, {inf, -1}}, 0) == canonical);
    CHECK(products(rule, {{inf, 1}}, infinite | sign) == canonical);
    CHECK(products(rule, {}, infinite + 1) == canonical); // signalling NaN
    CHECK(products(rule, {}, infinite | sign) == (infinite | sign));
    CHECK(products(rule, {{-inf, 2}, {1, 1}}, 0) == (infinite | sign));
  }
}

TEST_CASE("oracle: two results stored from hardware") {
  UnitRule tf = dense(tf32, f32, Output::rz_f32, 8, 25, -133); // RTX 5090
  const Codes a{0x40800000, 0x7EFFC000, 0x80800000, 0x00002000,
                0x80800000, 0x3F7FE000, 0x4EFF8000, 0x3F7FE000};
  const Codes b{0x40800000, 0x807F8000, 0xBF802000, 0x80000000,
                0xBF000000, 0x80800000, 0xBF000000, 0xBF7FE000};
  CHECK(dot(tf, a, b, {}, {}, 0x807F8000) == 0xCE7F7FFF);
  tf.fraction_bits = 24;
  CHECK(dot(tf, a, b, {}, {}, 0x807F8000) == 0xCE7F8000);

  UnitRule fp8 = dense(e4m3, f32, Output::rz_e8m13, 32, 13, -133); // Ada or Hopper
  const Codes x{22,  129, 8,   121, 119, 119, 119, 120, 229, 0,   1, 129, 119, 129, 172, 129,
                129, 129, 119, 129, 129, 120, 42,  129, 121, 177, 0, 122, 0,   8,   1,   120};
  const Codes y{119, 1,   205, 120, 253, 121, 129, 121, 120, 119, 0,   120, 91, 121, 8, 129,
                121, 129, 1,   121, 8,   119, 0,   106, 140, 129, 119, 129, 8,  246, 1, 1};
  CHECK(dot(fp8, x, y, {}, {}, 0x80000001) == 0x48262800); // whether 32 products are one link or two
  fp8.link = 16;
  CHECK(dot(fp8, x, y, {}, {}, 0x80000001) == 0x48262800);
  CHECK(dot(dense(e4m3, f32, Output::rz_f32, 32, 25, -133), x, y, {}, {}, 0x80000001) == 0x48262813);
}

TEST_CASE("oracle: directed NVFP4 vectors") {
  struct Vector {
    Codes a, b;
    Bytes sa, sb;
    uint64_t c, d;
  };
  const std::string six(16, '6'), minus(16, 'e');
  const Bytes ones(4, 0x38);
  const Bytes p{0x78, 0x08, 0x38, 0x38}, q{0x78, 0x18, 0x38, 0x38}, r{0x7E, 0x01, 0x38, 0x38};
  const Bytes p3{0x78, 0x08, 0x78, 0x38}, q3{0x78, 0x18, 0x78, 0x38};
  const Vector vectors[] = {
      {nibbles({six, "1"}), nibbles({six, "1"}), p, q, 0xCB800000, 0x00000000},
      {nibbles({six, "1"}), nibbles({six, "2"}), p, q, 0xCB800000, 0x3A000000},
      {nibbles({six, "1", minus}), nibbles({six, "1", six}), p3, q3, 0, 0x39800000},
      {nibbles({"0", "1"}), nibbles({"0", "1"}), r, r, 0, 0x35800000},
      {nibbles({"2a", "1"}), nibbles({"22", "1"}), r, r, 0, 0x00000000},
      {nibbles({six, "1"}), nibbles({six, "1"}), {0x00, 0x01, 0x38, 0x38}, r, 0, 0x35800000},
      {nibbles({"2"}), nibbles({"2"}), {0xB8, 0x38, 0x38, 0x38}, ones, 0, 0x3F800000},
      {nibbles({}), nibbles({}), {0x7F, 0x38, 0x38, 0x38}, ones, 0x3F800000, 0x7FFFFFFF},
      {nibbles({}), nibbles({}), {0xFF, 0x38, 0x38, 0x38}, ones, 0x3F800000, 0x7FFFFFFF},
      {nibbles({"1"}), nibbles({"1"}), ones, ones, 0xCB800000, 0xCB7FFFFF},
      {Codes(64, 7), Codes(64, 7), Bytes(4, 0x7E), Bytes(4, 0x7E), 0, 0x4DDC8000},
      {nibbles({}), nibbles({}), ones, ones, 0x80000000, 0x00000000},
  };
  for (const Vector &v : vectors) {
    CAPTURE(&v - vectors);
    CHECK(dot(fp4_unit(), v.a, v.b, v.sa, v.sb, v.c) == v.d);
  }
  const auto &v1 = vectors[0], &v2 = vectors[1], &v3 = vectors[2], &v5 = vectors[4];
  CHECK(dot(fp4_unit(), v1.a, v1.b, Bytes(4, 0), r, 0x2E800000) ==
        0x2E800000); // zero scales leave e_max alone
  CHECK(dot(fp4_unit(36), v1.a, v1.b, v1.sa, v1.sb, v1.c) == 0x39800000);
  CHECK(dot(fp4_unit(34), v2.a, v2.b, v2.sa, v2.sb, v2.c) == 0);
  CHECK(dot(fp4_unit(), v1.a, v1.b, v1.sa, v1.sb, v1.c, Accumulation::exact) == 0x39800000);
  CHECK(dot(fp4_unit(), v3.a, v3.b, v3.sa, v3.sb, v3.c, Accumulation::nadpe) == 0x39800000);
  CHECK(dot(fp4_unit(), v5.a, v5.b, v5.sa, v5.sb, v5.c, Accumulation::nadpe) == 0x35800000);
  CHECK(dot(fp4_unit(), v5.a, v5.b, v5.sa, v5.sb, v5.c, Accumulation::exact) == 0x35800000);
}

TEST_CASE("oracle: the three accumulations differ where they should") {
  const Bytes ones(4, 0x38);
  const auto at = [&](const Codes &a, const Codes &b, int e, Accumulation how) {
    return dot(fp4_unit(), a, b, ones, ones, word(float(two(e))), how);
  };
  const Codes a = nibbles({"7", "7"}), b = nibbles({"7", "f"}); // 36 - 36 in two groups: product exponent 4
  for (int e = -40; e < -20; ++e) {
    CHECK(at(a, b, e, Accumulation::mmasim) == (e >= -35 ? word(float(two(e))) : 0));
    CHECK(at(a, b, e, Accumulation::nadpe) == (e >= -31 ? word(float(two(e))) : 0));
    CHECK(at(a, b, e, Accumulation::exact) == word(float(two(e))));
  }
  const Codes half = nibbles({"1", "1"}), minus_half = nibbles({"1", "9"}); // 0.5 has exponent 0
  CHECK(at(half, minus_half, -35, Accumulation::nadpe) == word(float(two(-35))));
  CHECK(at(half, minus_half, -36, Accumulation::nadpe) == 0);

  const UnitRule mx = fp4_unit(35, ue8m0, 32); // two scales per operand
  const Codes x(64, 2);
  CHECK(dot(mx, x, x, Bytes{127, 128}, Bytes{127, 129}, 0) == word(32 + 32 * 8));
  CHECK(dot(mx, nibbles({"2", "2"}), x, Bytes{127, 128}, Bytes{127, 129}, 0) == word(2));
  CHECK(dot(mx, x, x, Bytes{127, 255}, Bytes{127, 129}, 0) == 0x7FFFFFFF);
  CHECK(dot(mx, x, x, Bytes{254, 254}, Bytes{127, 127}, 0) == 0x7F800000);
  CHECK(dot(fp4_unit(35, ue8m0, 16), x, x, Bytes{0, 0, 127, 127}, Bytes{127, 127, 127, 127}, 0) == word(32));
}

TEST_CASE("oracle: UE8M0 scales shift exponents") {
  const UnitRule rule = scaled(Family::st_fdpa, dense(e4m3, f32, Output::rz_f32, 32, 25, -133), ue8m0, 32);
  const auto one = code(e4m3, 1);
  CHECK(dot(rule, Codes(32, one), Codes(32, one), Bytes{130}, Bytes{126}, word(1)) == word(32 * 4 + 1));
  CHECK(dot(rule, Codes(32, 0), Codes(32, 0), Bytes{255}, Bytes{127}, 0) == 0x7FFFFFFF);
  CHECK(dot(rule, Codes(32, one), Codes(32, one), Bytes{0}, Bytes{127}, 0) == word(float(two(-122))));
  CHECK(dot(rule, Codes(32, one), Codes(32, one), Bytes{0}, Bytes{0}, 0x80000000) == 0);
  CHECK(dot(rule, Codes(64, one), Codes(64, one), Bytes{127, 128}, Bytes{127, 127}, 0) == word(96));
}

TEST_CASE("oracle: FP8 by way of two FP16 sums and one addition") {
  const UnitRule rule = expanded(e4m3, f32);
  CHECK(products(rule, {}, 0x3F800001) == 0x3F800001); // an addition, not a cut
  CHECK(products(rule, {}, 0x80000000) == 0x00000000); // +0 + -0
  CHECK(products(rule, {{std::nan(""), 0}}, 0) == 0x7FFFFFFF);
  // the last addition rounds to nearest: 2^24 + 3 is a tie, up to the even 2^24 + 4
  CHECK(products(rule, {{1, 1}, {1, 2}}, word(float(two(24)))) == word(float(two(24) + 4)));

  // 2^-18 survives 448 * 448 only in the other half: the halves are {0, 1} and {2, 3} of every four
  for (int k : {16, 32}) {
    Codes a(size_t(k), 0), b = a;
    const auto at = [&](size_t i, double x, double y) { a[i] = code(e4m3, x), b[i] = code(e4m3, y); };
    at(5, 448, 448), at(9, -448, 448), at(2, two(-9), two(-9));
    CHECK(dot(expanded(e4m3, f32, k), a, b, {}, {}, 0) == word(float(two(-18))));
    at(2, 0, 0), at(4, two(-9), two(-9));
    CHECK(dot(expanded(e4m3, f32, k), a, b, {}, {}, 0) == 0);
  }
  const UnitRule h = expanded(e5m2, f16);
  const std::pair<double, double> nothing{0, 0}, below{-two(-16), two(-16)}; // below: a sum too small for FP16
  CHECK(products(h, {nothing, nothing, below}, 0x8000) == 0x0000);           // +0 + -0: the underflow is +0
  CHECK(products(h, {nothing, nothing, below}, 0x0000) == 0x0000);
  CHECK(products(h, {below}, 0x8000) == 0x0000);
  CHECK(products(h, {{std::numeric_limits<double>::infinity(), 1}}, 0xFC00) == 0x7FFF);
}

TEST_CASE("oracle: the order inside a link does not matter, lengths do") {
  std::mt19937_64 random(3);
  const UnitRule rule = dense(e5m2, f32, Output::rz_e8m13, 32, 13, -133);
  for (int i = 0; i < 200; ++i) {
    std::vector<std::pair<uint64_t, uint64_t>> pairs(32);
    for (auto &[x, y] : pairs)
      x = random() % 0x7C | (random() % 2) << 7, y = random() % 0x7C | (random() % 2) << 7;
    const auto run = [&] {
      Codes a, b;
      for (const auto &[x, y] : pairs) a.push_back(x), b.push_back(y);
      return dot(rule, a, b, {}, {}, 0x3F812345);
    };
    const uint64_t first = run();
    std::shuffle(pairs.begin(), pairs.end(), random);
    REQUIRE(run() == first);
  }
  CHECK_THROWS_AS(dot(rule, Codes(32), Codes(64), {}, {}, 0), Error);
  CHECK_THROWS_AS(dot(rule, Codes(33), Codes(33), {}, {}, 0), Error);
  CHECK_THROWS_AS(dot(fp4_unit(), Codes(64), Codes(64), Bytes(4), Bytes(2), 0), Error);
  CHECK(dot(rule, {}, {}, {}, {}, 0x3F812345) == 0x3F812345);
}
