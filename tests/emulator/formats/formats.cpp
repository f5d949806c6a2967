// SPDX-License-Identifier: Apache-2.0
// Codecs: published tables, round trips of every code, conversions against the oracle, stochastic rounding, Philox.
#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/emulator/formats/philox.hpp"
#include "nvfp4/emulator/oracle/oracle.hpp"
#include "tests/catch.hpp"

#include <cmath>
#include <limits>

using namespace nvfp4;

namespace {

float word(uint32_t w) { return bit_cast<float>(w); }

oracle::Rounding oracle_rounding(Rounding r) {
  switch (r) {
  case Rounding::nearest_even: return oracle::Rounding::rn;
  case Rounding::toward_zero: return oracle::Rounding::rz;
  case Rounding::upward: return oracle::Rounding::rp;
  case Rounding::downward: return oracle::Rounding::rm;
  case Rounding::nearest_away: break;
  }
  return oracle::Rounding::rna;
}

} // namespace

TEST_CASE("E2M1: the eight magnitudes and every tie", "[formats]") {
  const double magnitudes[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  for (uint64_t code = 0; code < 16; ++code) {
    const double v = value(FormatId::e2m1, code);
    CHECK(v == (code < 8 ? 1 : -1) * magnitudes[code & 7]);
    CHECK(std::signbit(v) == (code >= 8));
  }
  const std::pair<float, uint64_t> ties[] = {{0.25f, 0}, {0.75f, 2}, {1.25f, 2}, {1.75f, 4}, {2.5f, 4}, {3.5f, 6}, {5.0f, 6}};
  for (const auto &[x, code] : ties) {
    CHECK(encode(FormatId::e2m1, x) == code);
    CHECK(encode(FormatId::e2m1, -x) == (code | 8));
    CHECK(encode(FormatId::e2m1, std::nextafter(x, 10.0f)) == (code % 2 == 0 && x != 0.75f && x != 1.75f && x != 3.5f ? code + 1 : code));
  }
  constexpr float inf = std::numeric_limits<float>::infinity();
  CHECK(encode(FormatId::e2m1, inf) == 7);
  CHECK(encode(FormatId::e2m1, -inf) == 15);
  CHECK(encode(FormatId::e2m1, word(0xFFC00000)) == 7);
  CHECK(encode(FormatId::e2m1, -0.0f) == 8);
  CHECK(encode(FormatId::e2m1, word(0x80000001)) == 8);
}

TEST_CASE("E4M3, E5M2 and E8M0 at their ends", "[formats]") {
  const std::pair<float, uint64_t> e4m3[] = {{0x1p-10f, 0x00}, {word(0x3A800001), 0x01}, {0x1.8p-9f, 0x02}, {448.0f, 0x7E},
                                             {464.0f, 0x7E},   {1e30f, 0x7E},            {1.0625f, 0x38},   {1.1875f, 0x3A}};
  for (const auto &[x, code] : e4m3) CHECK(encode(FormatId::e4m3, x) == code);
  CHECK(encode(FormatId::e4m3, word(0xFF800001)) == 0x7F);
  CHECK(encode(FormatId::e5m2, 61440.0f) == 0x7B);
  CHECK(encode(FormatId::e5m2, 61440.0f, Rounding::nearest_even, Overflow::ieee) == 0x7C);
  CHECK(value(FormatId::ue4m3, 0xB8) == 1.0); // the sign bit is ignored
  const Conversion &rz = find_conversion("cvt.rz.satfinite.ue8m0x2.f32"), &rp = find_conversion("cvt.rp.satfinite.ue8m0x2.f32");
  CHECK(rz(0x00400001) == 0); // a subnormal above 2^-127
  CHECK(rp(0x00400001) == 1);
  CHECK(rp(0x00400000) == 0);
  CHECK(rp(0x7F000001) == 0xFE);
  CHECK(find_conversion("cvt.rp.ue8m0x2.f32")(0x7F000001) == 0xFF);
  CHECK(value(FormatId::ue8m0, 0) == 0x1p-127);
}

TEST_CASE("every code survives decoding and encoding", "[formats]") {
  for (const FormatId id : {FormatId::e2m1, FormatId::e3m2, FormatId::e2m3, FormatId::e4m3, FormatId::e5m2, FormatId::bf16, FormatId::f16}) {
    const Format f = format(id);
    for (uint64_t code = 0; code < uint64_t{1} << f.code_bits; ++code) {
      const double v = value(id, code);
      if (std::isnan(v)) continue;
      for (const Rounding r : {Rounding::nearest_even, Rounding::toward_zero, Rounding::upward, Rounding::downward, Rounding::nearest_away})
        REQUIRE(convert(f, format(FormatId::f64), bit_cast<uint64_t>(v), r, Overflow::ieee) == code);
      if (f.code_bits <= 16) REQUIRE(encode(id, float(v), Rounding::nearest_even, Overflow::ieee) == code);
    }
  }
}

TEST_CASE("conversions equal the oracle around every boundary", "[formats][oracle]") {
  for (const Conversion &c : conversions()) {
    if (c.relu || c.nan != NanRule::canonical) continue;
    const Format from = format(c.from);
    const int bits = from.storage_bits == 4 ? 4 : from.code_bits;
    // every narrow input; of FP32 every exponent with every pattern of the bits that rounding looks at
    const uint64_t inputs = bits <= 16 ? uint64_t{1} << bits : 200000;
    for (uint64_t i = 0; i < inputs; ++i) {
      uint64_t in = i;
      if (bits > 16) {
        const uint64_t r = splitmix64(i);
        const uint32_t low[] = {0, 1, 0x7FFFFF, 0x400000, 0x3FFFFF, 0x400001};
        const int cut = int(r >> 8 & 31) % 24;
        const uint32_t mantissa = uint32_t(r >> 32 & 0x7FFFFF & ~((1u << cut) - 1)) | (low[(r >> 16) % 6] >> (23 - cut) & 0x7FFFFF);
        in = uint32_t(r & 1) << 31 | uint32_t(i % 256) << 23 | mantissa;
      }
      const uint64_t want = oracle::convert(c.to, c.from, in, oracle_rounding(c.rounding), c.overflow == Overflow::satfinite);
      if (c(in) != want) {
        INFO(c.name << " input " << std::hex << in);
        REQUIRE(c(in) == want);
      }
    }
  }
}

TEST_CASE("Philox4x32-10 known answers", "[formats]") { // Random123 kat_vectors
  const PhiloxBlock zero = philox4x32_10({{0, 0, 0, 0}}, 0, 0);
  CHECK((zero.word[0] == 0x6627E8D5 && zero.word[1] == 0xE169C58D && zero.word[2] == 0xBC57AC4C && zero.word[3] == 0x9B00DBD8));
  const PhiloxBlock pi = philox4x32_10({{0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344}}, 0xA4093822, 0x299F31D0);
  CHECK((pi.word[0] == 0xD16CFE09 && pi.word[1] == 0x94FDCCEB && pi.word[2] == 0x5001E420 && pi.word[3] == 0x24126EA1));
  const RandomKey key{0x0123456789ABCDEF, 7};
  for (uint64_t i = 0; i < 64; ++i) {
    CHECK(key.bits8(i) == (key.block(i / 16).word[i % 16 / 4] >> (8 * (i % 4)) & 0xFF));
    CHECK(key.bits32(i) == key.block(i / 4).word[i % 4]);
  }
}

TEST_CASE("stochastic rounding: carry8 is the carry of 8 bits, exact has 32", "[formats]") {
  for (const FormatId id : {FormatId::e2m1, FormatId::e3m2, FormatId::e2m3, FormatId::e4m3, FormatId::e5m2}) {
    const Format f = format(id);
    for (uint64_t code = 0; code + 1 <= f.max_finite_magnitude(); ++code) {
      const double low = value(id, code), step = value(id, code + 1) - low;
      for (int part = 0; part < 256; part += 17) {
        const float x = float(low + step * (part + 0.75) / 256); // the 0.75 lies below the 8 bits and must not matter
        for (uint32_t r8 = 0; r8 < 256; ++r8) {
          const uint64_t want = code + (int(r8) + part >= 256 ? 1 : 0);
          REQUIRE(encode_carry8(id, x, r8) == want);
        }
        const uint64_t threshold = (uint64_t{1} << 32) - ((uint64_t(part) << 24) + (3u << 22));
        REQUIRE(encode_exact_sr(id, x, uint32_t(threshold)) == code + 1);
        REQUIRE(encode_exact_sr(id, x, uint32_t(threshold - 1)) == code);
      }
    }
    CHECK(encode_carry8(id, 1e30f, 0) == f.max_finite_magnitude());
    CHECK(encode_carry8(id, word(0x7FC00000), 0) == canonical_nan(f));
    CHECK(encode_carry8(id, -0.0f, 255) == with_sign(f, true, 0));
  }
  // TransformerEngine's fmaf rounds up one ulp below a multiple of step / 256 (PR #3281's fallback)
  CHECK(encode_te_sr(word(0x3AFFFFFF), 255) == 1);
  CHECK(encode_carry8(FormatId::e2m1, word(0x3AFFFFFF), 255) == 0);
  uint64_t differences = 0;
  for (uint32_t i = 0; i < 200000; ++i) {
    const uint64_t r = splitmix64(i);
    const float x = word(uint32_t(r) % (0x40D00000 - 0x3C000000) + 0x3C000000); // 2^-7 .. 6.5
    differences += encode_te_sr(x, uint32_t(r >> 40 & 255)) != encode_carry8(FormatId::e2m1, x, uint32_t(r >> 40 & 255));
  }
  CHECK(differences == 0); // the case above is too rare to meet by chance
}

TEST_CASE("packed forms and random bits of cvt.rs", "[formats]") {
  CHECK(pack_x2(0xA, 0x5, 4) == 0xA5);
  CHECK(random_bits_x4(RandomByteOrder::straight, 0x44332211, 0) == 0x44);
  CHECK(random_bits_x4(RandomByteOrder::b300_e2m1x4, 0x44332211, 3) == 0x33);
  CHECK(random_bits_x4(RandomByteOrder::b300_e2m1x4, 0x44332201, 2) == 0x80);
  // all random bits set: every inexact element rounds away
  CHECK(cvt_rs_x4(FormatId::e2m1, {0.6f, 1.1f, 2.1f, 4.1f}, 0xFFFFFFFF, RandomByteOrder::straight) == 0x2357);
  CHECK(cvt_rs_x4(FormatId::e2m1, {0.6f, 1.1f, 2.1f, 4.1f}, 0, RandomByteOrder::straight) == 0x1246);
}
