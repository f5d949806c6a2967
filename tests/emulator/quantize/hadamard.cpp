// SPDX-License-Identifier: Apache-2.0
// The rotation: its matrix, its exactness against wide integers, its inverse, and how quantize() applies it.
#include "tests/catch.hpp"
#include "tests/emulator/quantize/support.hpp"

#include <limits>

using namespace nvfp4;
using namespace nvfp4::test;

TEST_CASE("the rows of the rotation matrix", "[quantize]") {
  const uint16_t expected[16] = {0x0000, 0xAAAA, 0xCCCC, 0x9999, 0xF0F0, 0xA5A5, 0xC3C3, 0x6969,
                                 0x00FF, 0xAA55, 0xCC33, 0x9966, 0xF00F, 0xA55A, 0x3CC3, 0x9669};
  for (int i = 0; i < 16; ++i) {
    uint16_t row = 0;
    float unit[16] = {};
    unit[i] = 1.0f;
    rotate16(unit);
    for (int j = 0; j < 16; ++j) {
      if (hadamard_negative(kHadamardSigns, i, j)) row = uint16_t(row | 1 << j);
      CHECK(unit[j] == (hadamard_negative(kHadamardSigns, i, j) ? -0.25f : 0.25f));
    }
    CHECK(row == expected[i]);
  }
}

TEST_CASE("sums are exact whatever the range, then rounded once", "[quantize]") {
  std::mt19937 words(11);
  for (int round = 0; round < 2000; ++round) {
    float x[16], y[16];
    const int spread = 1 + round % 120;
    for (int i = 0; i < 16; ++i) {
      const int significand = int(words() % 511) - 255;
      x[i] = y[i] = std::ldexp(float(significand), int(words() % uint32_t(2 * spread)) - spread);
    }
    const bool narrow = detail::sums_exactly_in_double(x);
    detail::hadamard16(y);
    for (int j = 0; j < 16; ++j) {
      detail::ExactSum sum;
      long double approximate = 0; // exact too while the range fits its 64 bits
      for (int i = 0; i < 16; ++i) {
        const bool negative = hadamard_negative(0, i, j);
        const Decoded d = decode(format(FormatId::f32), bit_cast<uint32_t>(x[i]));
        if (d.cls != Class::zero)
          sum.add(d.negative != negative, uint32_t(d.significand), d.exponent - 23 + 149);
        approximate += negative ? -static_cast<long double>(x[i]) : static_cast<long double>(x[i]);
      }
      const float exact = sum.round(-2);
      CHECK(bit_cast<uint32_t>(y[j]) == bit_cast<uint32_t>(exact));
      if (narrow) CHECK(y[j] == static_cast<float>(approximate / 4));
    }
  }
  // 2^100 and -2^100 leave the small terms, which double precision would have lost.
  float x[16] = {0x1p100f, -0x1p100f, 0x1p-40f, 0x1p-41f};
  CHECK(!detail::sums_exactly_in_double(x));
  detail::hadamard16(x);
  CHECK(x[0] == 0x1.8p-42f);
  CHECK(x[1] == 0x1p99f);
  // Rounding of a sum with a bit far below: up only because of it.
  float y[16] = {0x1p0f, 0x1p-24f, 0x1p-100f};
  detail::hadamard16(y);
  CHECK(y[0] == 0.25f * std::nextafter(1.0f, 2.0f));
  CHECK(y[3] == 0.25f * std::nextafter(1.0f, 0.0f));
  float w[16] = {0x1p54f, 1.0f, -0x1p54f};
  CHECK(!detail::sums_exactly_in_double(w));
  detail::hadamard16(w);
  CHECK(w[0] == 0.25f);
  float z[16] = {-0.0f, 0.0f, -0.0f};
  detail::hadamard16(z);
  for (const float v : z) CHECK(bit_cast<uint32_t>(v) == 0);
}

TEST_CASE("the input is taken in BF16", "[quantize]") {
  float x[16] = {1.0f + 0x1p-9f, -1.0f};
  rotate16(x);
  CHECK(x[0] == 0.0f);
}

TEST_CASE("infinities and NaN spread over their group", "[quantize]") {
  float x[16] = {1.0f, std::numeric_limits<float>::infinity()};
  rotate16(x);
  for (int j = 0; j < 16; ++j)
    CHECK(x[j] == (j % 2 == 0 ? 1.0f : -1.0f) * std::numeric_limits<float>::infinity());
  x[3] = std::numeric_limits<float>::quiet_NaN();
  rotate16(x);
  for (const float v : x) CHECK(bit_cast<uint32_t>(v) == 0x7FFFFFFF); // BF16's NaN, read back
}

TEST_CASE("the inverse undoes the rotation", "[quantize]") {
  const Matrix m = gaussian(64, 16, 5);
  for (int64_t r = 0; r < m.rows; ++r) {
    float x[16], exact[16];
    for (int i = 0; i < 16; ++i)
      x[i] = exact[i] = float(int(m(r, i) * 64) % 8); // sums of 7 bits: no rounding anywhere
    rotate16(x);
    rotate16_back(x);
    for (int i = 0; i < 16; ++i) CHECK(x[i] == exact[i]);
  }
}

TEST_CASE("quantize rotates along k, rounds to BF16 and takes its amax afterwards", "[quantize]") {
  const Matrix m = gaussian(32, 48, 6, FormatId::f32);
  for (const Axis axis : {Axis::row, Axis::col}) {
    Matrix rotated = axis == Axis::row ? m : m.transposed();
    if (axis == Axis::col && rotated.cols % 16 != 0) continue;
    for (int64_t r = 0; r < rotated.rows; ++r)
      for (int64_t i = 0; i < rotated.cols; i += 16) {
        float g[16];
        std::copy_n(&rotated(r, i), 16, g);
        rotate16(g);
        std::copy_n(g, 16, &rotated(r, i));
      }
    const BlockScaled q = quantize_as(m, "te", {.axis = axis, .hadamard = true});
    const BlockScaled p = quantize_as(rotated, "te");
    CHECK((q.codes == p.codes));
    CHECK((q.scales == p.scales));
    CHECK(q.global_amax == p.global_amax);
    CHECK(q.hadamard);
    // Back in the original orientation, near the original; as stored when not asked to undo.
    const std::vector<float> back = dequantize(q), stored = dequantize(q, {.undo_hadamard = false});
    double error = 0, power = 0;
    for (size_t i = 0; i < back.size(); ++i) {
      error += double(back[i] - m.x[i]) * double(back[i] - m.x[i]);
      power += double(m.x[i]) * double(m.x[i]);
    }
    CHECK(error / power < 0.02);
    const std::vector<float> plain = dequantize(p);
    for (int64_t r = 0; r < q.rows; ++r)
      for (int64_t i = 0; i < q.k; ++i)
        CHECK(
            (stored[size_t(axis == Axis::row ? r * q.k + i : i * q.rows + r)] == plain[size_t(r * q.k + i)]));
  }
}
