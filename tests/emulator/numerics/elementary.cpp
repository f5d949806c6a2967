// SPDX-License-Identifier: Apache-2.0
// The elementary functions against the C library in extended precision, their special values, and a few of
// their words, so that every compiler and instruction set is held to the same bits.
#include "nvfp4/emulator/numerics/elementary.hpp"
#include "nvfp4/emulator/numerics/reduce.hpp"
#include "nvfp4/emulator/numerics/trigonometry.hpp"
#include "tests/catch.hpp"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

namespace num = nvfp4::numerics;

namespace {

using Exact = long double;
constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN(),
                kMax = std::numeric_limits<float>::max();

Exact exact_sigmoid(Exact x) { return x >= 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x)); }
Exact exact_softplus(Exact x) { return x >= 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x)); }

/// |got - want| in units of the spacing of FP32 at want; infinite where only one of them is beyond FP32.
double ulps(float got, Exact want) {
  const auto nearest = float(want);
  if (std::isinf(nearest) || std::isinf(got)) return got == nearest ? 0 : double(INFINITY);
  int exponent;
  std::frexp(want, &exponent);
  if (want == 0) exponent = -200;
  return double(std::fabs(Exact(got) - want) / std::ldexp(Exact(1), std::max(exponent - 24, -149)));
}

/// The worst error over every stride-th float in [low, high].
template <class F, class G> double worst(F f, G exact, float low, float high, uint32_t stride) {
  double most = 0;
  for (uint64_t w = 0; w < 0x1'0000'0000; w += stride) {
    const auto x = std::bit_cast<float>(uint32_t(w));
    if (!(x >= low && x <= high)) continue;
    const double error = ulps(f(x), exact(Exact(x)));
    if (!(error <= most)) most = error; // NaN too
    if (std::isnan(error)) return error;
  }
  return most;
}

uint32_t word(float x) { return std::bit_cast<uint32_t>(x); }

constexpr auto f_exp = [](float x) { return num::exp(x); };
constexpr auto f_log = [](float x) { return num::log(x); };
constexpr auto f_log1p = [](float x) { return num::log1p(x); };
constexpr auto f_sigmoid = [](float x) { return num::sigmoid(x); };
constexpr auto f_logsigmoid = [](float x) { return num::logsigmoid(x); };
constexpr auto f_softplus = [](float x) { return num::softplus(x); };
constexpr auto f_silu = [](float x) { return num::silu(x); };

} // namespace

TEST_CASE("exp is within 1.02 units in the last place, log within 0.83") {
  const double e = worst(
      f_exp, [](Exact x) { return std::exp(x); }, -kMax, kMax, 997);
  const double l = worst(
      f_log, [](Exact x) { return std::log(x); }, 0.0f, kMax, 997);
  CHECK(e < 1.02);
  CHECK(l < 0.83);
  CHECK(ulps(num::exp(-0x1.782f42p+2f), std::exp(-0x1.782f42p+2L)) > 1.01); // the worst of all floats
  // every float where exp is used most: softmax's (-1, 0]
  CHECK(worst(
            f_exp, [](Exact x) { return std::exp(x); }, -1.0f, -0.5f, 3) < 1.02);
}

TEST_CASE("sigmoid, logsigmoid and softplus are within 2.9, silu within 3.7") {
  const double p = worst(
      f_log1p, [](Exact x) { return std::log1p(x); }, 0.0f, kMax, 4999);
  const double s = worst(f_sigmoid, exact_sigmoid, -kMax, kMax, 4999);
  const double g = worst(
      f_logsigmoid, [](Exact x) { return -exact_softplus(-x); }, -kMax, kMax, 4999);
  const double t = worst(f_softplus, exact_softplus, -kMax, kMax, 4999);
  const double u = worst(
      f_silu, [](Exact x) { return x * exact_sigmoid(x); }, -87.0f, kMax, 4999);
  CHECK(p < 2.9);
  CHECK(s < 2.9);
  CHECK(g < 2.9);
  CHECK(t < 2.9);
  CHECK(u < 3.7);
  CHECK(ulps(num::silu(-0x1.7d1f5p+2f), -0x1.7d1f5p+2L * exact_sigmoid(-0x1.7d1f5p+2L)) > 3.6); // the worst
  // below -87 the factor sigmoid(x) is subnormal: absolute error of |x| half spacings
  for (float x = -87.0f; x > -120.0f; x -= 0.01f)
    CHECK(std::fabs(Exact(num::silu(x)) - Exact(x) * exact_sigmoid(Exact(x))) <= Exact(-x) * 0x1p-149L);
}

TEST_CASE("special values") {
  CHECK(num::exp(0.0f) == 1.0f);
  CHECK(num::exp(-0.0f) == 1.0f);
  CHECK(num::exp(kInf) == kInf);
  CHECK(num::exp(-kInf) == 0.0f);
  CHECK(num::exp(-104.0f) == 0.0f);
  CHECK(num::exp(-1e30f) == 0.0f);
  CHECK(num::exp(-103.5f) == std::numeric_limits<float>::denorm_min());
  CHECK(num::exp(88.72283f) < kInf);
  CHECK(num::exp(88.72285f) == kInf);
  CHECK(num::exp(1e30f) == kInf);
  CHECK(num::exp(1e-45f) == 1.0f);
  CHECK(std::isnan(num::exp(kNan)));
  CHECK(std::isnan(num::exp(-kNan)));

  CHECK(num::log(1.0f) == 0.0f);
  CHECK(num::log(0.0f) == -kInf);
  CHECK(num::log(-0.0f) == -kInf);
  CHECK(num::log(kInf) == kInf);
  CHECK(std::isnan(num::log(-1.0f)));
  CHECK(std::isnan(num::log(-kInf)));
  CHECK(std::isnan(num::log(-1e-40f)));
  CHECK(std::isnan(num::log(kNan)));

  CHECK(num::sigmoid(0.0f) == 0.5f);
  CHECK(num::sigmoid(kInf) == 1.0f);
  CHECK(num::sigmoid(-kInf) == 0.0f);
  CHECK(std::isnan(num::sigmoid(kNan)));
  CHECK(num::logsigmoid(kInf) == 0.0f);
  CHECK(num::logsigmoid(-kInf) == -kInf);
  CHECK(num::logsigmoid(-120.0f) == -120.0f);
  CHECK(std::isnan(num::logsigmoid(kNan)));
  CHECK(num::softplus(kInf) == kInf);
  CHECK(num::softplus(-kInf) == 0.0f);
  CHECK(std::isnan(num::softplus(kNan)));
  CHECK(num::silu(0.0f) == 0.0f);
  CHECK(num::silu(kMax) == kMax);
  CHECK(num::silu(-kMax) == 0.0f);
  CHECK(num::silu_derivative(0.0f) == 0.5f);
  CHECK(num::silu_derivative(100.0f) == 1.0f);
  CHECK(num::silu_derivative(-200.0f) == 0.0f);
}

TEST_CASE("exp does not step back around its ends and where its reduction changes") {
  const auto rising = [](float from, float to) {
    float last = num::exp(from);
    for (float x = from; x < to; x = std::nextafter(x, kInf)) {
      const float y = num::exp(x);
      if (y < last) return false;
      last = y;
    }
    return true;
  };
  CHECK(rising(88.5f, 89.5f));
  CHECK(rising(-105.0f, -103.0f)); // ends at the smallest subnormals
  CHECK(rising(-87.4f, -87.3f));   // normal to subnormal
  CHECK(rising(0.3464f, 0.3468f)); // ln 2 / 2
  CHECK(rising(-0.3468f, -0.3464f));
  CHECK(rising(-1.0f, -0.999f));
}

TEST_CASE("the words of the elementary functions") {
  struct Row {
    float x;
    uint32_t exp, log, sigmoid, logsigmoid, softplus, silu;
  };
  const Row rows[] = {
      {1.0f, 0x402DF854, 0x00000000, 0x3F3B26A8, 0xBEA063D6, 0x3FA818F6, 0x3F3B26A8},
      {-1.0f, 0x3EBC5AB2, 0x00000000, 0x3E89B2B1, 0xBFA818F6, 0x3EA063D6, 0xBE89B2B1},
      {0.1f, 0x3F8D763E, 0xC0135D8E, 0x3F066509, 0xBF24F72F, 0x3F3E90C9, 0x3D57080F},
      {-0.3f, 0x3F3DA643, 0xBF9A1BC8, 0x3ED9E2AB, 0xBF5AB706, 0x3F0DEA39, 0xBE02BB34},
      {2.5f, 0x4142EB7F, 0x3F6A9208, 0x3F6C948F, 0xBDA190F1, 0x40250C88, 0x4013DCD9},
      {-5.0f, 0x3BDCC9FF, 0x3FCE0210, 0x3BDB4FB4, 0xC0A03703, 0x3BDC0C6D, 0xBD0911D0},
      {16.0f, 0x4B07975F, 0x40317218, 0x3F7FFFFE, 0xB3F1AADD, 0x41800000, 0x417FFFFE},
      {-20.0f, 0x310DA433, 0x403FBA14, 0x310DA433, 0xC1A00000, 0x310DA433, 0xB3310D40},
      {50.0f, 0x638C881F, 0x407A5E96, 0x3F800000, 0x9B692BEB, 0x42480000, 0x42480000},
      {-80.0f, 0x05BFECBA, 0x408C3990, 0x05BFECBA, 0xC2A00000, 0x05BFECBA, 0x88EFE7E8},
      {88.0f, 0x7EF882B7, 0x408F4658, 0x3F800000, 0x8041EDC4, 0x42B00000, 0x42B00000},
      {-88.0f, 0x0041EDC4, 0x408F4658, 0x0041EDC4, 0xC2B00000, 0x0041EDC4, 0x83354DDB},
      {-95.0f, 0x00000F64, 0x4091B95C, 0x00000F64, 0xC2BE0000, 0x00000F64, 0x8005B61C},
      {-103.0f, 0x00000001, 0x40944FB3, 0x00000001, 0xC2CE0000, 0x00000001, 0x80000067},
      {1e-05f, 0x3F800054, 0xC13834F1, 0x3F00002A, 0xBF3171C4, 0x3F31726C, 0x36A7C5E3},
      {-3e-39f, 0x3F800000, 0xC2B16788, 0x3F000000, 0xBF317218, 0x3F317218, 0x80105564},
      {1e+20f, 0x7F800000, 0x423834F1, 0x3F800000, 0x00000000, 0x60AD78EC, 0x60AD78EC},
  };
  for (const Row &r : rows) {
    CAPTURE(r.x);
    CHECK(word(num::exp(r.x)) == r.exp);
    CHECK(word(num::log(std::fabs(r.x))) == r.log);
    CHECK(word(num::sigmoid(r.x)) == r.sigmoid);
    CHECK(word(num::logsigmoid(r.x)) == r.logsigmoid);
    CHECK(word(num::softplus(r.x)) == r.softplus);
    CHECK(word(num::silu(r.x)) == r.silu);
  }
  // and of many: an FNV-1a hash over 100,000 floats
  const auto hash = [](auto f) {
    uint64_t h = 0xcbf29ce484222325;
    for (uint32_t i = 0; i < 100'000; ++i) {
      const auto x = std::bit_cast<float>(i * 42'949u + (i % 2) * 0x80000000u);
      const float y = std::isfinite(x) ? f(x) : 0.0f;
      h = (h ^ (std::isnan(y) ? 0x7FC00000u : word(y))) * 0x100000001b3;
    }
    return h;
  };
  CHECK(hash(f_exp) == 0x635c33215180d005);
  CHECK(hash(f_log) == 0x47fcd7ffeae79fe1);
  CHECK(hash(f_sigmoid) == 0x9674121adaf609b0);
  CHECK(hash(f_logsigmoid) == 0xb18acff681aabfc3);
  CHECK(hash(f_softplus) == 0xad483d68ff46cd66);
  CHECK(hash(f_silu) == 0xf337967399774257);
}

TEST_CASE("sine and cosine") {
  std::mt19937_64 engine(1);
  Exact most = 0;
  const auto check = [&](double x) {
    const num::SinCos y = num::sin_cos(x);
    most = std::max(
        {most, std::fabs(Exact(y.sin) - std::sin(Exact(x))), std::fabs(Exact(y.cos) - std::cos(Exact(x)))});
  };
  for (int i = 0; i < 400'000; ++i) {
    const double u = double(engine() >> 11) * 0x1p-52 - 1;
    check(u);
    check(u * 10);
    check(u * 1e4);
    check(u * 1e6);
  }
  for (int i = -1000; i < 1000; ++i) check(i * 0.78539816339744830962);
  CHECK(most < 1e-14L);
  CHECK(num::sin_cos(0.0).sin == 0.0);
  CHECK(num::sin_cos(0.0).cos == 1.0);
}

TEST_CASE("a butterfly adds the lanes as a warp does") {
  std::mt19937_64 engine(2);
  for (int trial = 0; trial < 1000; ++trial) {
    float p[num::kLanes], lanes[num::kLanes];
    for (int l = 0; l < num::kLanes; ++l) p[l] = lanes[l] = float(double(engine() >> 11) * 0x1p-52 - 1);
    for (int mask = num::kLanes / 2; mask > 0; mask /= 2) {
      float next[num::kLanes];
      for (int l = 0; l < num::kLanes; ++l) next[l] = lanes[l] + lanes[l ^ mask];
      std::memcpy(lanes, next, sizeof lanes);
    }
    const float sum = num::butterfly_sum(p);
    for (const float lane : lanes) REQUIRE(word(lane) == word(sum));
  }
}
