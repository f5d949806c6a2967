// SPDX-License-Identifier: Apache-2.0
// Conventions of systems beside NVIDIA's, each computed a second time here from its formulas, with the oracle's
// conversions: Graphcore, Metis, Quartet II, fouroversix' static scales, ALTO, UFP4.
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/emulator/oracle/oracle.hpp"
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/statistics.hpp"
#include "tests/catch.hpp"
#include "tests/emulator/quantize/support.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <functional>
#include <limits>
#include <set>

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

Matrix hard(int64_t rows, int64_t cols, uint32_t seed) { return test::hard(rows, cols, seed, 30, 8, 5); }

float nearest(FormatId f, float x) {
  return value_f32(f, oracle::convert(f, FormatId::f32, bit_cast<uint32_t>(x), oracle::Rounding::rn, true));
}

/// One block by hand: its scale's value, and what an element is rounded from.
struct Block {
  float scale;
  std::function<float(float)> scaled;
};

/// Compares codes, scales and what they decode to, and says how many scales had a property.
void compare(const char *name, const Matrix &m, const std::function<Block(float bmax, float amax, float part)> &block,
             const std::function<float(float v, float scale, float amax, float part)> &decoded, FormatId element = FormatId::e2m1,
             bool minus_zero = true) {
  INFO(name);
  const Convention &c = find_convention(name);
  const BlockScaled q = quantize_as(m, name, {.source = FormatId::bf16});
  const std::vector<float> y = dequantize(q);
  float amax = 0;
  for (const float v : m.x) amax = std::max(amax, std::fabs(v));
  int64_t wrong_scales = 0, wrong_codes = 0, wrong_values = 0;
  std::set<uint32_t> scales;
  for (int64_t r = 0; r < m.rows; ++r)
    for (int64_t b = 0; b < q.blocks(); ++b) {
      const int64_t first = b * q.block, last = std::min(m.cols, first + q.block);
      float bmax = 0, part = 0;
      for (int64_t i = first; i < last; ++i) bmax = std::max(bmax, std::fabs(m(r, i)));
      for (int64_t i = first / 128 * 128; i < std::min(m.cols, first / 128 * 128 + 128); ++i) part = std::max(part, std::fabs(m(r, i)));
      const Block want = block(bmax, amax, part);
      scales.insert(q.scale_code(r, b));
      wrong_scales += bit_cast<uint32_t>(value_f32(c.rule.scale, q.scale_code(r, b))) != bit_cast<uint32_t>(want.scale);
      for (int64_t i = first; i < last; ++i) {
        const float scaled = want.scaled(m(r, i));
        const float v = !minus_zero && scaled == 0 ? 0.0f : nearest(element, scaled);
        wrong_codes += bit_cast<uint32_t>(value_f32(element, q.code(r, i))) != bit_cast<uint32_t>(v);
        wrong_values += bit_cast<uint32_t>(y[size_t(r * m.cols + i)]) != bit_cast<uint32_t>(decoded(v, want.scale, amax, part));
      }
    }
  CHECK(wrong_scales == 0);
  CHECK(wrong_codes == 0);
  CHECK(wrong_values == 0);
  CHECK(scales.size() > 20); // the data reach many scales
}

} // namespace

TEST_CASE("Graphcore's UE5M3: te's steps, scales to 61440, 1 for a scale of 0", "[quantize][systems]") {
  const auto level = [](float amax) { return 2688.0f / amax; };
  compare(
      "ue5m3-graphcore", hard(64, 300, 1),
      [&](float bmax, float amax, float) {
        const float s = level(amax), p = 1.0f / s, sixth = 1.0f / 6.0f;
        float sf = nearest(FormatId::ue5m3g, std::min(bmax * (s * sixth), 61440.0f));
        if (sf == 0) sf = 1.0f;
        const float inverse = 1.0f / (sf * p);
        return Block{sf, [inverse](float x) { return x * inverse; }};
      },
      [&](float v, float sf, float amax, float) { return (v * sf) * (1.0f / level(amax)); }, FormatId::e2m1, false);
  // a held amax that is too small: scales go on to 61440, where E4M3's stop at 448
  const Matrix m = gaussian(4, 64, 3, FormatId::bf16, 100.0f);
  const BlockScaled wide = quantize_as(m, "ue5m3-graphcore", {.global_amax = 2.0f}), narrow = quantize_as(m, "te", {.global_amax = 2.0f});
  float most = 0, most_narrow = 0;
  for (const uint8_t s : wide.scales) most = std::max(most, value_f32(FormatId::ue5m3g, s));
  for (const uint8_t s : narrow.scales) most_narrow = std::max(most_narrow, value_f32(FormatId::ue4m3, s));
  CHECK(most > 10000.0f);
  CHECK(most_narrow == 448.0f);
  const BlockScaled beyond = quantize_as(m, "ue5m3-graphcore", {.global_amax = 1e-3f});
  CHECK(std::ranges::all_of(beyond.scales, [](uint8_t s) { return value_f32(FormatId::ue5m3g, s) == 61440.0f; }));
}

TEST_CASE("Metis: elements see the scale before it is rounded", "[quantize][systems]") {
  compare(
      "metis-nvfp4", hard(64, 300, 5),
      [](float bmax, float amax, float) {
        const float s = bmax / 6.0f + 1e-9f, p = (amax / 6.0f + 1e-9f) / 448.0f;
        return Block{nearest(FormatId::e4m3, s / p), [s](float x) { return x / s; }};
      },
      [](float v, float sf, float amax, float) { return v * (sf * ((amax / 6.0f + 1e-9f) / 448.0f)); }, FormatId::e2m1, false);
  const Matrix m = gaussian(64, 256, 6);
  const BlockScaled q = quantize_as(m, "metis-nvfp4"), te = quantize_as(m, "te");
  int64_t other = 0;
  for (size_t i = 0; i < q.codes.size(); ++i) other += q.codes[i] != te.codes[i];
  CHECK(other > 400); // a scale that was rounded moves elements over ties
}

TEST_CASE("Quartet II: scales with headroom for a correction", "[quantize][systems]") {
  const float top = float(6.0 / (17.0 / 16.0 * 0.93));
  const auto level = [top](float amax) { return (amax / 256.0f) / top; };
  compare(
      "quartet2-eden", hard(64, 300, 7),
      [&](float bmax, float amax, float) {
        const float p = level(amax);
        float sf = nearest(FormatId::e4m3, (bmax / top) / p);
        if (sf == 0) sf = 1.0f;
        return Block{sf, [d = sf * p](float x) { return x / d; }};
      },
      [&](float v, float sf, float amax, float) { return (v * sf) * level(amax); });
  const Matrix m = gaussian(16, 256, 8);
  for (const uint8_t s : quantize_as(m, "quartet2-eden").scales) CHECK(value_f32(FormatId::ue4m3, s) <= 256.0f);
}

TEST_CASE("fouroversix: static scales, and those for unbiased stochastic rounding", "[quantize][systems]") {
  for (const auto &system : {std::pair("fouroversix-static", 6.0f), {"fouroversix-unbiased", float(6.0 * 16.0 / 17.0)}}) {
    const char *const name = system.first; // clang 14 captures no structured bindings
    const float top = system.second, range = top * 448.0f;
    compare(
        name, hard(64, 300, 9),
        [range, top](float bmax, float amax, float) {
          const float e = range / amax, d = 1.0f / e, sf = nearest(FormatId::e4m3, (bmax / top) * e);
          const float factor = sf == 0 ? 0.0f : 1.0f / (sf * d);
          return Block{sf, [factor](float x) { return x * factor; }};
        },
        [range](float v, float sf, float amax, float) { return ((v * sf) * amax) / range; }, FormatId::e2m1, false);
  }
  // nothing saturates where the top leaves room for a scale rounded down by a seventeenth
  const Matrix m = gaussian(64, 256, 10);
  const BlockScaled q = quantize_as(m, "fouroversix-unbiased");
  const std::vector<float> y = dequantize(q);
  float worst = 0;
  for (size_t i = 0; i < y.size(); ++i)
    if (std::fabs(y[i]) == 6 * std::fabs(y[i]) / 6) worst = std::max(worst, std::fabs(m.x[i]) - std::fabs(y[i]));
  CHECK(worst < 1.0f);
}

TEST_CASE("ALTO's exponents, UOS and macro blocks", "[quantize][systems]") {
  const auto power = [](int e) { return std::ldexp(1.0f, e); };
  const auto even = [](float bmax) { return int((bit_cast<uint32_t>(bmax) + (1u << 21)) >> 23) - 127 - 2; };
  compare(
      "mxfp4-alto", hard(64, 300, 11),
      [&](float bmax, float, float) {
        const float sf = power(std::max(-126, even(bmax)));
        return Block{sf, [sf](float x) { return x / sf; }};
      },
      [](float v, float sf, float, float) { return v * sf; });
  compare(
      "mxfp4-uos", hard(64, 300, 12),
      [&](float bmax, float, float) {
        int e = -127;
        while (power(e) < bmax / 7.25f) ++e;
        return Block{power(e), [e](float x) { return float(std::ldexp(double(x), -e)); }};
      },
      [](float v, float sf, float, float) { return v * sf; });
  const auto macro = [](float part) {
    const uint32_t word = bit_cast<uint32_t>(6.0f / std::max(part, 1e-12f));
    return bit_cast<float>((word & 0x007F8000u) | 0x3F800000u);
  };
  compare(
      "mxfp4-macro", hard(64, 300, 13),
      [&](float bmax, float, float part) {
        const float m = macro(part);
        const int e = std::max(-126, even(bf16(bmax * m)));
        return Block{power(e) / m, [m, e](float x) { return float(std::ldexp(double(bf16(x * m)), -e)); }};
      },
      [](float v, float sf, float, float) { return v * sf; });
  // the maximum of each 128 comes near 6 or 3 times a power of two: less error than MXFP4's power alone
  const Matrix m = gaussian(64, 1024, 14);
  const auto error = [&](const char *name) {
    const std::vector<float> y = dequantize(quantize_as(m, name, {.source = FormatId::bf16}));
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += (double(y[i]) - double(m.x[i])) * (double(y[i]) - double(m.x[i]));
    return sum;
  };
  CHECK(error("mxfp4-macro") < error("mxfp4-alto"));
}

TEST_CASE("a macro block with a NaN takes 1.5, whatever the bits of the NaN", "[quantize][systems]") {
  const Rule &rule = find_convention("mxfp4-macro").rule;
  // of a CPU, of a GPU, of upstream's own: quotients of NaN keep these or not
  for (const uint32_t word : {0x7FC00000u, 0x7FFFFFFFu, 0xFFC00000u, 0xFFFFFFFFu, 0x7FC12345u, 0x7F800001u, 0xFFABCDEFu}) {
    CAPTURE(word);
    const GlobalScale g = global_from_amax(rule, bit_cast<float>(word), FormatId::f32);
    CHECK(bit_cast<uint32_t>(g.encode) == 0x3FC00000u);
    CHECK(bit_cast<uint32_t>(g.decode) == bit_cast<uint32_t>(1.0f / 1.5f));
    // of a scale that is one: the factor that the quotient's quiet NaN gave
    CHECK(detail::scale_factor(rule, 0, bit_cast<float>(word), g) == 1.5f * 0x1p-129f);
  }
  Matrix m = hard(32, 300, 21);
  const Matrix plain = m;
  const uint32_t nans[] = {0x7FC00000u, 0xFFC12345u, 0x7FFFFFFFu, 0xFFFFFFFFu};
  for (int64_t r = 0; r < m.rows; r += 2) m(r, 128 + r) = bit_cast<float>(nans[r / 2 % 4]); // in the second part
  for (int64_t r = 1; r < m.rows; r += 4) m(r, 17) = r % 8 == 1 ? INFINITY : -INFINITY;
  const BlockScaled q = quantize_as(m, "mxfp4-macro", {.source = FormatId::bf16}),
                    whole = quantize_as(plain, "mxfp4-macro", {.source = FormatId::bf16});
  int64_t wrong = 0, compared = 0;
  for (int64_t r = 0; r < m.rows; r += 2)
    for (int64_t b = 0; b < q.blocks(); ++b) {
      const int64_t first = b * 32, last = std::min(m.cols, first + 32);
      if (b < 4 || b >= 8) { // other parts of the row know nothing of it
        wrong += q.scale_code(r, b) != whole.scale_code(r, b);
        continue;
      }
      if (b == 4 + r / 32) continue; // the NaN's own block has a NaN scale
      float bmax = 0;
      for (int64_t i = first; i < last; ++i) bmax = std::max(bmax, std::fabs(m(r, i)));
      const int e = std::max(-126, int((bit_cast<uint32_t>(bf16(bmax * 1.5f)) + (1u << 21)) >> 23) - 127 - 2);
      wrong += bit_cast<float>(q.scale_code(r, b)) != std::ldexp(1.0f, e) / 1.5f;
      for (int64_t i = first; i < last; ++i, ++compared)
        wrong += value_f32(FormatId::e2m1, q.code(r, i)) != nearest(FormatId::e2m1, float(std::ldexp(double(bf16(m(r, i) * 1.5f)), -e)));
    }
  CHECK(wrong == 0);
  CHECK(compared > 1000);
}

TEST_CASE("elements are divided where the name of their scaling says so", "[quantize][systems]") {
  int64_t over = 0;
  for (const Scaling s : enumerators<Scaling>()) {
    const std::string name(to_string(s));
    CAPTURE(name);
    // a power of two: its inverse multiplies
    const bool says = name.starts_with("x / ") && s != Scaling::exponent_normal;
    CHECK(divides(s) == says);
    CHECK(detail::meet(Rule{.scaling = s}, 6.0f, 2.0f) == (says ? 3.0f : 12.0f));
    over += divides(s);
  }
  CHECK(over == 5);
}

TEST_CASE("p is the word of conventions that have no S", "[quantize][systems]") {
  const Matrix m = hard(32, 300, 23);
  for (const char *name : {"torchao", "modelopt", "alto-nvfp4", "metis-nvfp4", "quartet2-eden"}) {
    CAPTURE(name);
    CHECK(stores_decode(find_convention(name).rule));
    const BlockScaled own = quantize_as(m, name), given = quantize_as(m, name, {.global_scale = own.global_decode});
    CHECK(own.global_encode == 1.0f);
    CHECK((given.codes == own.codes));
    CHECK((given.scales == own.scales));
    CHECK(given.global_decode == own.global_decode);
  }
  for (const char *name : {"te", "fouroversix-static", "ue5m3-graphcore", "tetrajet-v2", "mxfp4-macro", "row-scaled"})
    CHECK_FALSE(stores_decode(find_convention(name).rule));
}

TEST_CASE("UFP4: an even grid under FP32 scales", "[quantize][systems]") {
  compare(
      "ufp4", hard(64, 300, 15),
      [](float bmax, float, float) {
        const float sf = bmax / 3.5f, factor = sf == 0 ? 0.0f : 1.0f / sf;
        return Block{sf, [factor](float x) { return x * factor; }};
      },
      [](float v, float sf, float, float) { return v * sf; }, FormatId::e1m2);
}

TEST_CASE("Graphcore's stochastic rounding: the middles of 256 intervals, each in one FP32 addition", "[quantize][systems]") {
  std::mt19937 words(17);
  std::vector<float> values = {0.0f, -0.0f, 0.25f, 0.5f, 1.75f, 2.0f, 2.5f, 3.9999998f, 4.0f, 5.0f, 5.9999995f, 6.0f, 1e30f, 1e-30f, -0.1f};
  for (int i = 0; i < 4000; ++i) values.push_back(std::ldexp(float(int(words() % 0x1000000) - 0x800000), -21 - int(words() % 12)));
  const float grid[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  int64_t wrong = 0, ups = 0;
  for (const float x : values)
    for (uint32_t r = 0; r < 256; ++r) {
      const float a = std::min(std::fabs(x), 6.0f);
      int low = 0;
      while (low < 6 && grid[low + 1] <= a) ++low;
      const float step = grid[low + 1] - grid[low], delta = (a - grid[low]) / step; // exact: powers of two
      const bool up = a < 6 && delta + float(2 * r + 1) / 512.0f >= 1.0f;
      const float want = std::copysign(a >= 6 ? 6.0f : grid[low + (up ? 1 : 0)], x);
      ups += up;
      wrong += bit_cast<uint32_t>(value_f32(FormatId::e2m1, encode_mid8_sr(x, r))) != bit_cast<uint32_t>(want);
    }
  CHECK(wrong == 0);
  CHECK(ups > 100000);
  CHECK(value_f32(FormatId::e2m1, encode_mid8_sr(std::nanf(""), 3)) == 6.0f);
  // a mean without carry8's half step: 0.3 lies 0.6 of a step from 0
  double mid = 0, cut = 0;
  for (uint32_t r = 0; r < 256; ++r) {
    mid += double(value_f32(FormatId::e2m1, encode_mid8_sr(0.3f, r))) / 256;
    cut += double(value_f32(FormatId::e2m1, encode_carry8(FormatId::e2m1, 0.3f, r))) / 256;
  }
  CHECK(std::fabs(mid - 0.3) <= 0.5 / 512);
  CHECK(cut <= mid);
  CHECK_THROWS_WITH(quantize_as(gaussian(2, 64, 1), "nvint4", {.rounding = ElementRounding::sr_mid8}), Catch::Contains("sr_mid8"));
}

TEST_CASE("INT16 products are exact sums of whole numbers", "[quantize][systems]") {
  const Unit &unit = find_unit("exact:dot.k32.f32.int16");
  std::mt19937 words(19);
  constexpr int64_t rows = 3, k = 96;
  std::vector<uint8_t> a(size_t(2 * rows * k)), b(a.size());
  std::vector<int64_t> x, y;
  for (auto *v : {&x, &y}) {
    std::vector<uint8_t> &bytes = v == &x ? a : b;
    for (size_t i = 0; i < size_t(rows * k); ++i) {
      const int64_t n = int64_t(words() % 65535) - 32767;
      v->push_back(n);
      bytes[2 * i] = uint8_t(n & 0xFF);
      bytes[2 * i + 1] = uint8_t(n >> 8 & 0xFF);
    }
  }
  const GemmResult d = multiply(unit, make_operand(unit, Side::a, RawCodes{rows, k, a}), make_operand(unit, Side::b, RawCodes{rows, k, b}));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < rows; ++j) {
      float want = 0; // each step of 32 exact, rounded once to FP32
      for (int64_t first = 0; first < k; first += 32) {
        long double sum = want;
        for (int64_t n = first; n < first + 32; ++n) sum += (long double)(x[size_t(i * k + n)] * y[size_t(j * k + n)]);
        want = float(sum);
      }
      CHECK(d.f32(i, j) == want);
    }
  CHECK(value_f32(FormatId::int16, 0x8001) == -32767.0f);
  CHECK(encode(FormatId::int16, 1e9f) == 0x7FFF);
  CHECK(encode(FormatId::int16, -2.5f) == 0xFFFE);
}

TEST_CASE("dynamic fixed point is whole numbers under the exponent of the tensor's maximum", "[quantize][systems]") {
  const Convention &dfp = find_convention("dfp16");
  for (const int shift : {0, -3, 40, -100, -120}) {
    Matrix m = gaussian(5, 70, 31);
    for (float &v : m.x) v = std::ldexp(v, shift);
    m.x[9] = -0.0f;
    m.x[11] = std::ldexp(2.5f, shift - 30); // to 0
    float amax = 0;
    for (const float v : m.x) amax = std::max(amax, std::fabs(v));
    const int exponent = std::max(std::ilogb(amax) - 14, -127);
    for (const Axis axis : {Axis::row, Axis::col}) {
      const BlockScaled q = quantize(m.view(), dfp, {.axis = axis});
      CHECK(q.scales == std::vector<uint8_t>(size_t(q.rows * q.scale_cols()), uint8_t(exponent + 127)));
      CHECK(q.codes.size() == size_t(2 * q.rows * q.padded_k));
      const std::vector<float> back = dequantize(q);
      int64_t wrong = 0;
      for (int64_t r = 0; r < 5; ++r)
        for (int64_t c = 0; c < 70; ++c) {
          const float x = m.x[size_t(r * 70 + c)];
          const auto i = int64_t(std::nearbyint(std::ldexp(double(x), -exponent))); // no result beyond 32767 here
          const uint16_t word = axis == Axis::row ? q.code_word(r, c) : q.code_word(c, r);
          wrong += int16_t(word) != i;
          wrong += back[size_t(r * 70 + c)] != float(std::ldexp(double(i), exponent));
        }
      CHECK(wrong == 0);
    }
  }
  // ties to even, the ends, what is no number
  Matrix ends(1, 32);
  ends.x = std::vector<float>(32, 0.0f);
  ends.x[0] = 32767.9f; // rounds to 32768, which is not written
  ends.x[1] = -32767.9f;
  ends.x[2] = 2.5f;
  ends.x[3] = 3.5f;
  ends.x[4] = -2.5f;
  ends.x[5] = std::nanf("");
  const BlockScaled q = quantize(ends.view(), dfp);
  CHECK(q.scales == std::vector<uint8_t>{127});
  const std::vector<int> want = {32767, -32767, 2, 4, -2, 32767};
  for (size_t i = 0; i < want.size(); ++i) CHECK(int16_t(q.code_word(0, int64_t(i))) == want[i]);
  CHECK(total(quantize_statistics(ends.view(), q)).saturated == 2);
  ends.x[7] = std::numeric_limits<float>::infinity();
  CHECK(quantize(ends.view(), dfp).scales == std::vector<uint8_t>{0xFF});
  // stochastic rounding goes up as often as the discarded part says
  Matrix half(1, 4096);
  half.x = std::vector<float>(4096, 100.25f);
  half.x[0] = 20000.0f;
  const BlockScaled s = quantize(half.view(), dfp, {.rounding = ElementRounding::sr_exact, .key = {3, 4}});
  int64_t ups = 0;
  for (int64_t i = 1; i < 4096; ++i) ups += s.code_word(0, i) == 101;
  CHECK(std::abs(double(ups) / 4095 - 0.25) < 0.03);
  // and its product is that of the whole numbers
  const Matrix a = gaussian(4, 64, 32), b = gaussian(3, 64, 33);
  const BlockScaled qa = quantize(a.view(), dfp), qb = quantize(b.view(), dfp);
  const Unit &unit = find_unit("exact:dfp16");
  const GemmResult d = multiply(unit, make_operand(unit, Side::a, qa), make_operand(unit, Side::b, qb));
  for (int64_t i = 0; i < 4; ++i)
    for (int64_t j = 0; j < 3; ++j) {
      float sum = 0;
      for (int64_t first = 0; first < 64; first += 32) {
        long double step = sum;
        for (int64_t k = first; k < first + 32; ++k)
          step += std::ldexp((long double)(int16_t(qa.code_word(i, k))) * int16_t(qb.code_word(j, k)), int(qa.scales[0]) + int(qb.scales[0]) - 254);
        sum = float(step);
      }
      CHECK(d.f32(i, j) == sum);
    }
}
