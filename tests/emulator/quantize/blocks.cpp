// SPDX-License-Identifier: Apache-2.0
// Formats whose codes have a meaning in their block alone: HiFloat4's scale words, IF4 and MixFP4 by the scale's flag.
// Each is computed a second time here, in plain FP64 or FP32 and with the oracle's conversions.
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/emulator/oracle/oracle.hpp"
#include "tests/catch.hpp"
#include "tests/emulator/quantize/support.hpp"

#include <algorithm>
#include <array>

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

Matrix hard(int64_t rows, int64_t cols, uint32_t seed) { return test::hard(rows, cols, seed, 60, 12, 9); }

/// x to a number of significant bits, nearest even.
double to_bits(double x, int bits) {
  if (x == 0 || std::isinf(x)) return x;
  int e = 0;
  const double m = std::frexp(x, &e); // in [0.5, 1)
  return std::ldexp(std::nearbyint(std::ldexp(m, bits)), e - bits);
}

struct HiF4Block {
  double scale = 0; ///< E6M2
  int shift[64] = {};
  int steps[64] = {}; ///< signed quarters
};

/// Section 3 of arXiv 2602.11287 as ddddwee1/HiFloat4 computes it, in FP64, where BF16 inputs lose nothing.
HiF4Block hif4_block(const double *x, bool ties_away) {
  HiF4Block b;
  double most = 0;
  for (int i = 0; i < 64; ++i) most = std::max(most, std::fabs(x[i]));
  const double seventh = to_bits(1.0 / 7.0, 8);
  const double wanted = std::clamp(to_bits(most * seventh, 8), 0x1p-48, 49152.0);
  b.scale = to_bits(wanted, 3);
  const double reciprocal = to_bits(1.0 / b.scale, 8);
  for (int i = 0; i < 64; ++i) {
    double eight = 0, four = 0;
    for (int j = i / 8 * 8; j < i / 8 * 8 + 8; ++j) eight = std::max(eight, std::fabs(x[j]));
    for (int j = i / 4 * 4; j < i / 4 * 4 + 4; ++j) four = std::max(four, std::fabs(x[j]));
    const int coarse = eight * reciprocal >= 4 ? 1 : 0;
    const int fine = four * reciprocal / (1 + coarse) >= 2 ? 1 : 0;
    b.shift[i] = coarse + fine;
    const double quarters = std::fabs(x[i]) * reciprocal / (1 << b.shift[i]) * 4;
    const double whole = ties_away ? std::floor(quarters + 0.5) : std::nearbyint(quarters);
    b.steps[i] = int(std::copysign(std::min(whole, 7.0), x[i]));
  }
  return b;
}

float e4(float x) { return value_f32(FormatId::e4m3, oracle::convert(FormatId::e4m3, FormatId::f32, bit_cast<uint32_t>(x), oracle::Rounding::rn, true)); }

/// The value of the nearest of 15 numbers, ties to those of even index; -0 as 0.
float nearest(float y, const std::array<float, 8> &grid) {
  size_t best = 0;
  const double a = std::min(std::fabs(double(y)), double(grid[7]));
  for (size_t i = 1; i < 8; ++i) {
    const double was = std::fabs(a - double(grid[best])), now = std::fabs(a - double(grid[i]));
    if (now < was || (now == was && i % 2 == 0)) best = i;
  }
  return std::copysign(grid[best], y);
}
constexpr std::array<float, 8> kE2m1 = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6}, kWhole = {0, 1, 2, 3, 4, 5, 6, 7};

} // namespace

TEST_CASE("HiFloat4: scale words and codes as computed again in FP64", "[quantize][blocks]") {
  const Matrix m = hard(64, 200, 31);
  for (const bool away : {true, false}) {
    const BlockScaled q = quantize_as(m, away ? "hif4" : "hif4-rne", {.source = FormatId::bf16});
    const std::vector<float> y = dequantize(q);
    REQUIRE(q.padded_k == 256);
    REQUIRE(q.scales.size() == size_t(64 * 4 * 4));
    int64_t wrong = 0, ties = 0;
    std::array<int64_t, 3> shifts{};
    for (int64_t r = 0; r < q.rows; ++r)
      for (int64_t b = 0; b < q.blocks(); ++b) {
        double x[64] = {};
        for (int i = 0; i < 64 && b * 64 + i < q.k; ++i) x[i] = double(m(r, b * 64 + i));
        const HiF4Block want = hif4_block(x, away), other = hif4_block(x, !away);
        const uint32_t word = q.scale_code(r, b);
        wrong += double(value_f32(FormatId::hif4s, word)) != want.scale;
        for (int i = 0; i < 64; ++i) {
          const int shift = int(word >> (8 + i / 8) & 1) + int(word >> (16 + i / 4) & 1);
          const int code = q.code(r, b * 64 + i), steps = code < 8 ? code : 8 - code;
          ++shifts[size_t(shift)];
          wrong += shift != want.shift[i] || steps != want.steps[i];
          ties += want.steps[i] != other.steps[i];
          if (b * 64 + i < q.k)
            wrong += double(y[size_t(r * q.k + b * 64 + i)]) != want.steps[i] * 0.25 * (1 << shift) * want.scale;
        }
      }
    CHECK(wrong == 0);
    CHECK(ties > 20);
    for (const int64_t n : shifts) CHECK(n > 500);
  }
}

TEST_CASE("HiFloat4: words of given blocks", "[quantize][blocks]") {
  Matrix m(1, 64);
  m(0, 0) = 7.0f;   // bf16(7 * 0x1.24p-3) = 0.99609375, so E6M2 = 1, code 0xC0
  m(0, 1) = -0.125f; // element 1 shares two exponents of 1: steps of 1
  m(0, 8) = 1.875f;  // below 2: no exponent, 7.5 steps of 0.25 saturate at 7
  m(0, 16) = 3.5f;   // 2 or more: the exponent of its four only
  m(0, 20) = 0.125f; // half a step
  m(0, 21) = -0.125f;
  m(0, 22) = 0.375f;
  m(0, 24) = 4.0f; // exactly 4: an exponent of its eight, then 4 / 2 is exactly 2: of its four as well
  m(0, 32) = 2.0f;
  m(0, 63) = -0.0f;
  const BlockScaled q = quantize_as(m, "hif4");
  CHECK(q.scale_code(0, 0) == (0xC0u | 9u << 8 | 1u << 16 | 1u << 20 | 1u << 22 | 1u << 24));
  CHECK(hex(q.scales) == "C0095101");
  CHECK(q.code(0, 0) == 7);
  CHECK(q.code(0, 1) == 8);
  CHECK(q.code(0, 8) == 7);
  CHECK(q.code(0, 16) == 7);
  CHECK(q.code(0, 20) == 1); // away from zero
  CHECK(q.code(0, 21) == 9);
  CHECK(q.code(0, 22) == 2);
  CHECK(q.code(0, 24) == 4);
  CHECK(q.code(0, 32) == 4);
  CHECK(q.code(0, 63) == 8);
  const BlockScaled even = quantize_as(m, "hif4-rne");
  CHECK(even.code(0, 20) == 0);
  CHECK(even.code(0, 21) == 8);
  CHECK(even.code(0, 22) == 2);
  CHECK(quantize_as(Matrix(1, 64), "hif4").scale_code(0, 0) == 0); // zeros: the smallest scale, 2^-48

  // NaN and Inf, and the ends of E6M2
  m(0, 5) = std::nanf("");
  CHECK(quantize_as(m, "hif4").code(0, 5) == 7);
  CHECK(quantize_as(m, "hif4").scale_code(0, 0) == q.scale_code(0, 0));
  m(0, 5) = -INFINITY;
  CHECK(quantize_as(m, "hif4").code(0, 5) == 15);
  CHECK(uint8_t(quantize_as(m, "hif4").scale_code(0, 0)) == 0xFE);
  for (float &v : m.x) v = 1e-30f;
  CHECK(uint8_t(quantize_as(m, "hif4").scale_code(0, 0)) == 0x00);
  CHECK(decode(format(FormatId::hif4s), 0xFF).cls == Class::nan);
}

TEST_CASE("E6M2: every code there and back, against the oracle", "[quantize][blocks]") {
  for (uint64_t code = 0; code < 255; ++code) {
    const float v = value_f32(FormatId::hif4s, code);
    CHECK(v == std::ldexp(1.0f + 0.25f * float(code & 3), int(code >> 2) - 48));
    CHECK(encode(FormatId::hif4s, v) == code);
  }
  for (uint64_t word = 0x24000000; word < 0x48000000; word += 0x1235) {
    const uint64_t got = encode(FormatId::hif4s, bit_cast<float>(uint32_t(word)));
    // below 2^-48 the format has code 0, as the oracle
    if (got != oracle::convert(FormatId::hif4s, FormatId::f32, word, oracle::Rounding::rn, true)) {
      FAIL("word " << word);
    }
  }
  CHECK(encode(FormatId::hif4s, 0.0f) == 0);
  CHECK(smallest(FormatId::hif4s) == 0x1p-48f);
  CHECK(largest(FormatId::hif4s) == 49152.0f);
}

TEST_CASE("HiFloat4 in 128x4 tiles, down columns, rotated and stochastic", "[quantize][blocks]") {
  const Matrix m = hard(130, 192, 33);
  const BlockScaled q = quantize_as(m, "hif4"), tiled = quantize_as(m, "hif4", {.layout = ScaleLayout::tiled_128x4});
  CHECK(tiled.scales.size() == size_t(scale_size_128x4(130, 12)));
  CHECK(untile_scales(tiled.scales, 130, 12) == q.scales);
  for (int64_t r = 0; r < q.rows; ++r)
    for (int64_t b = 0; b < q.blocks(); ++b) CHECK(tiled.scale_code(r, b) == q.scale_code(r, b));
  CHECK(dequantize(tiled) == dequantize(q));

  const BlockScaled down = quantize_as(m.transposed(), "hif4", {.axis = Axis::col});
  CHECK(down.codes == q.codes);
  CHECK(down.scales == q.scales);
  const BlockScaled rotated = quantize_as(m, "hif4", {.hadamard = true, .source = FormatId::bf16});
  const std::vector<float> back = dequantize(rotated);
  double noise = 0, signal = 0;
  for (int64_t c = 0; c < 192; ++c) { // row 0 is Gaussian
    noise += std::pow(double(back[size_t(c)]) - double(m(0, c)), 2);
    signal += std::pow(double(m(0, c)), 2);
  }
  CHECK(noise < 0.01 * signal);

  // stochastic rounding is unbiased about the value between its two codes
  Matrix one(512, 64);
  for (float &v : one.x) v = 0.3f;
  for (int64_t r = 0; r < one.rows; ++r) one(r, 0) = 7.0f; // the scale is 1, and this part's exponents are 1
  const BlockScaled s = quantize_as(one, "hif4", {.rounding = ElementRounding::sr_exact, .key = {7, 1}});
  double sum = 0;
  const std::vector<float> y = dequantize(s);
  for (int64_t r = 0; r < one.rows; ++r)
    for (int64_t c = 8; c < 64; ++c) {
      const float v = y[size_t(r * 64 + c)];
      CHECK((v == 0.25f || v == 0.5f));
      sum += double(v);
    }
  CHECK(std::fabs(sum / (512 * 56) - 0.3) < 0.003); // three standard deviations are 0.0018
}

TEST_CASE("Metis' HiFloat4 has hif4's words and other values, and no product", "[quantize][blocks]") {
  const Matrix m = hard(32, 128, 34);
  const BlockScaled a = quantize_as(m, "hif4"), b = quantize_as(m, "hif4-metis");
  CHECK(a.scales == b.scales);
  const std::vector<float> x = dequantize(a), y = dequantize(b);
  int64_t other = 0, wrong = 0;
  for (int64_t r = 0; r < b.rows; ++r)
    for (int64_t i = 0; i < b.k; ++i) {
      const size_t at = size_t(r * b.k + i);
      const uint32_t word = b.scale_code(r, i / 64);
      const float rec = bf16(1.0f / value_f32(FormatId::hif4s, word));
      const int place = int(i % 64), shift = int(word >> (8 + place / 8) & 1) + int(word >> (16 + place / 4) & 1);
      wrong += y[at] != value_f32(FormatId::s1p2, b.code(r, i)) * (float(1 << shift) / rec);
      other += x[at] != y[at];
    }
  CHECK(wrong == 0);
  CHECK(other > 100);
  const Unit &unit = find_unit("exact:hif4");
  CHECK_NOTHROW(make_operand(unit, Side::a, a));
  CHECK_THROWS_WITH(make_operand(unit, Side::a, b), Catch::Contains("no unit multiplies them"));
}

TEST_CASE("IF4 and MixFP4: both candidates of every block computed again", "[quantize][blocks]") {
  Matrix m = hard(64, 160, 41);
  for (int64_t r = 6; r < 64; r += 8) // else all other rows are flushed
    for (int64_t c = 0; c < 160; ++c) m(r, c) *= 0x1p-14f;
  float amax = 0;
  for (const float v : m.x) amax = std::max(amax, std::fabs(v));
  for (const bool if4 : {true, false}) {
    CAPTURE(if4);
    const BlockScaled q = quantize_as(m, if4 ? "if4" : "mixfp4");
    const std::vector<float> y = dequantize(q);
    const float s_enc = 2688.0f / amax, s_dec = 1.0f / s_enc, seventh = 1.0f / 7.0f;
    const float unit = if4 ? bit_cast<float>(0x3F5B6DB7u) : 1.0f; // f32(6 / 7)
    int64_t wrong = 0, flagged = 0;
    for (int64_t r = 0; r < q.rows; ++r)
      for (int64_t b = 0; b < q.blocks(); ++b) {
        const auto x = [&](int i) { return m(r, b * 16 + i); };
        float bmax = 0;
        for (int i = 0; i < 16; ++i) bmax = std::max(bmax, std::fabs(x(i)));
        float values[2][16], sf[2], error[2] = {};
        for (int c = 0; c < 2; ++c) {
          sf[c] = if4      ? e4((bmax / 6.0f) * s_enc)
                  : c == 0 ? e4(bmax * (s_enc * kSixth))
                           : e4(bmax * (s_enc * seventh));
          const float enc = if4 ? (sf[c] == 0 ? 0.0f : 1.0f / (s_dec * sf[c])) : std::min(1.0f / (sf[c] * s_dec), kFltMax);
          for (int i = 0; i < 16; ++i) {
            const float t = x(i) * enc;
            const float v = c == 0 ? nearest(t, kE2m1) : nearest(if4 ? t * bit_cast<float>(0x3F955555u) : t, kWhole);
            values[c][i] = c == 1 && if4 ? v * unit : v;
            float back = (v * sf[c]) * amax;
            if (c == 1) back = back * unit;
            const float d = back / 2688.0f - x(i);
            error[c] += d * d;
          }
        }
        const int won = error[1] < error[0] ? 1 : 0;
        flagged += won;
        const uint32_t word = q.scale_code(r, b);
        wrong += int(word >> 7) != won || value_f32(FormatId::ue4m3, word & 0x7F) != sf[won];
        for (int i = 0; i < 16; ++i) {
          const float v = values[won][i];
          const float want = if4 ? ((v * sf[won]) * amax) / 2688.0f : v * ((sf[won] * amax) * (1.0f / 2688.0f));
          wrong += y[size_t(r * q.k + b * 16 + i)] != want;
          const int code = q.code(r, b * 16 + i);
          const float raw = won == 0 ? value_f32(FormatId::e2m1, uint64_t(code))
                            : if4    ? float(code < 8 ? code : code - 16) * unit
                                     : float(code & 7) * (code < 8 ? 1.0f : -1.0f);
          wrong += raw != v;
        }
      }
    CHECK(wrong == 0);
    CHECK(flagged > 100);
    CHECK(flagged < 64 * 10 - 100);
  }
}

TEST_CASE("IF4 and MixFP4: zeros, NaN, tiles and what is refused", "[quantize][blocks]") {
  for (const char *name : {"if4", "mixfp4"}) {
    CAPTURE(name);
    for (const float v : {0.0f, -0.0f}) {
      Matrix zeros(4, 32);
      for (float &x : zeros.x) x = v;
      const BlockScaled q = quantize_as(zeros, name);
      for (const uint8_t s : q.scales) CHECK(s == 0); // no flag where both are right
      for (const float y : dequantize(q)) CHECK(y == 0.0f);
    }
    Matrix m = hard(40, 48, 42);
    m(3, 5) = std::nanf("");
    m(9, 40) = INFINITY;
    CHECK_NOTHROW(dequantize(quantize_as(m, name)));
    CHECK_THROWS_AS(quantize_as(m, name, {.rounding = ElementRounding::sr_exact}), Error);
    const Matrix plain = hard(40, 48, 43);
    const BlockScaled tile = quantize_as(plain, name, {.block_rows = 16}),
                      turned = quantize_as(plain.transposed(), name, {.axis = Axis::col, .block_rows = 16});
    for (int64_t r = 0; r < 40; ++r)
      for (int64_t b = 0; b < 3; ++b) CHECK(tile.scale_code(r, b) == tile.scale_code(r / 16 * 16, b));
    CHECK(tile.scales == turned.scales);
    CHECK(tile.codes == turned.codes);
  }
}

TEST_CASE("exact units of HiFloat4, IF4 and MixFP4 sum what dequantize gives", "[quantize][blocks]") {
  // in whole units of 2^-72, so that one rounding to FP32 is the whole difference
  const Matrix a = gaussian(12, 64, 51), b = gaussian(9, 64, 52);
  for (const char *name : {"hif4", "hif4-rne", "if4", "mixfp4"}) {
    CAPTURE(name);
    const std::string kind = std::string(name).substr(0, std::string(name).find('-'));
    const Unit &unit = find_unit("exact:" + kind);
    const BlockScaled qa = quantize_as(a, name), qb = quantize_as(b, name);
    const GemmOperand x = make_operand(unit, Side::a, qa), y = make_operand(unit, Side::b, qb);
    std::vector<uint64_t> acc(12 * 9);
    (void)GemmPlan(unit, {}).accumulate(x, y, acc);
    const auto of = [](const BlockScaled &q, int64_t r, int64_t i) {
      const uint32_t word = q.scale_code(r, i / q.block);
      const bool flagged = q.scale == FormatId::ue4m3f && word >> 7 != 0;
      return __int128(std::ldexp(double(element_value(q.element, q.code(r, i), flagged)), 24)) *
             __int128(std::ldexp(double(scale_value(q.scale, word, int(i % q.block))), 12));
    };
    int64_t flags = 0;
    for (int64_t i = 0; i < 12; ++i)
      for (int64_t j = 0; j < 9; ++j) {
        __int128 sum = 0;
        for (int64_t k = 0; k < 64; ++k) sum += of(qa, i, k) * of(qb, j, k);
        CHECK(acc[size_t(i * 9 + j)] == bit_cast<uint32_t>(std::ldexp(float(sum), -72)));
        flags += qa.scale_code(i, 0) >> 7;
      }
    CHECK(flags != 0);
  }
}

TEST_CASE("FP8 under FP32 scales of blocks, tiles, rows and the tensor", "[quantize][blocks]") {
  Matrix m = hard(150, 200, 61);
  m(3, 77) = std::nanf("");
  for (int64_t c = 0; c < 200; ++c) m(9, c) = c % 2 == 0 ? 0.0f : -0.0f;
  const auto most = [&](int64_t r0, int64_t r1, int64_t c0, int64_t c1) {
    float a = 0;
    for (int64_t r = r0; r < std::min<int64_t>(r1, 150); ++r)
      for (int64_t c = c0; c < std::min<int64_t>(c1, 200); ++c)
        if (m(r, c) == m(r, c)) a = std::max(a, std::fabs(m(r, c)));
    return a;
  };
  struct Kind {
    const char *name;
    int rows; ///< of a tile
  };
  for (const Kind &kind : {Kind{"fp8-1x128", 1}, Kind{"fp8-1x128", 128}, Kind{"fp8-token", 1}, Kind{"fp8-tensor", 1}}) {
    CAPTURE(kind.name, kind.rows);
    const std::string name = kind.name;
    const BlockScaled q = quantize_as(m, name, {.block_rows = kind.rows});
    const std::vector<float> y = dequantize(q);
    int64_t wrong = 0, nan = 0;
    for (int64_t r = 0; r < 150; ++r)
      for (int64_t c = 0; c < 200; ++c) {
        const int64_t r0 = r / kind.rows * kind.rows, c0 = c / 128 * 128;
        const float amax = name == "fp8-1x128"   ? most(r0, r0 + kind.rows, c0, c0 + 128)
                           : name == "fp8-token" ? most(r, r + 1, 0, 200)
                                                 : most(0, 150, 0, 200);
        const float least = name == "fp8-1x128" ? 1e-10f / 448.0f : name == "fp8-token" ? 1.0f / (448.0f * 512.0f) : 0.0f;
        const float s = std::max(amax / 448.0f, least);
        const float x = m(r, c), t = name == "fp8-tensor" ? x * (1.0f / s) : x / s;
        const uint64_t code = x != x ? 0x7F
                                     : oracle::convert(FormatId::e4m3, FormatId::f32, bit_cast<uint32_t>(t),
                                                       oracle::Rounding::rn, true);
        wrong += q.scale_code(r, c / 128) != bit_cast<uint32_t>(s) || q.code(r, c) != code;
        const float back = y[size_t(r * 200 + c)];
        nan += back != back;
        wrong += x == x && back != value_f32(FormatId::e4m3, code) * s;
      }
    CHECK(wrong == 0);
    CHECK(nan == 1);
  }
  CHECK_THROWS_AS(quantize_as(m, "fp8-1x128", {.block_rows = 16}), Error);
  CHECK_THROWS_AS(quantize_as(m, "fp8-token", {.block_rows = 128}), Error);
  const Matrix zeros(2, 128);
  for (const char *name : {"fp8-1x128", "fp8-token", "fp8-tensor"})
    for (const uint8_t code : quantize_as(zeros, name).codes) CHECK(code == 0);
  // the product knows of no factor beside the scales
  const BlockScaled token = quantize_as(gaussian(3, 128, 62), "fp8-token");
  CHECK(make_operand(find_unit("exact:fp8-1x128"), Side::a, token).row_factors.empty());
}

TEST_CASE("TetraJet-v2: an FP32 scale of 128 times an E4M3 scale of 16", "[quantize][blocks]") {
  const Matrix m = hard(64, 300, 63);
  const BlockScaled q = quantize_as(m, "tetrajet-v2");
  const std::vector<float> y = dequantize(q);
  int64_t wrong = 0, tiny = 0;
  for (int64_t r = 0; r < 64; ++r)
    for (int64_t b = 0; b < q.blocks(); ++b) {
      float part = 0, bmax = 0;
      for (int64_t c = b / 8 * 128; c < std::min<int64_t>(300, b / 8 * 128 + 128); ++c) part = std::max(part, std::fabs(m(r, c)));
      for (int64_t c = b * 16; c < std::min<int64_t>(300, b * 16 + 16); ++c) bmax = std::max(bmax, std::fabs(m(r, c)));
      const float outer = part == 0 ? 1.0f : (part / 448.0f) / 6.0f, raw = (bmax / outer) / 6.0f;
      const float inner = raw == 0 ? 0x1p-9f : e4(raw), p = outer * inner;
      tiny += inner < 0x1p-6f;
      wrong += q.scale_code(r, b) != bit_cast<uint32_t>(p);
      for (int64_t c = b * 16; c < std::min<int64_t>(300, b * 16 + 16); ++c) {
        const float v = nearest(m(r, c) * (p == 0 ? 0.0f : 1.0f / p), kE2m1);
        wrong += value_f32(FormatId::e2m1, q.code(r, c)) != v || y[size_t(r * 300 + c)] != v * p;
      }
    }
  CHECK(wrong == 0);
  CHECK(tiny > 20);
  CHECK(q.global_decode == 1.0f);
}
