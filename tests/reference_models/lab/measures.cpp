// SPDX-License-Identifier: Apache-2.0
// Numbers by name and their intervals; draws of a result around the exact one; claims and what decides them.
#include "tests/catch.hpp"

#include "nvfp4/emulator/formats/philox.hpp"
#include "nvfp4/reference_models/lab/claims.hpp"
#include "nvfp4/reference_models/lab/spread.hpp"

#include <cmath>
#include <limits>
#include <set>

using namespace nvfp4;
using namespace nvfp4::models;

namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Measures measures(std::initializer_list<std::pair<const char *, std::vector<double>>> list) {
  Measures m;
  for (const auto &[name, values] : list)
    for (const double v : values) m.add(name, v);
  return m;
}

} // namespace

TEST_CASE("measures: draws pair by their place, and what is no number is left out of pairs and means") {
  const Measures m = measures({{"a", {1, 2, kNan, 4}}, {"b", {3, kNan, 5, 5}}, {"p/x/error", {1}}, {"p/yy/error", {1}}, {"p/x/bias", {1}}});
  CHECK(m.mean("a") == Approx(7.0 / 3));
  CHECK(m.estimate("a").n == 3);
  CHECK(m.difference("b", "a").n == 2);
  CHECK(m.difference("b", "a").mean == Approx(1.5));
  CHECK(m.difference("b", "none").n == 0);
  CHECK(std::isnan(m.mean("none")));
  CHECK(m.between("p/", "/error") == std::vector<std::string>{"x", "yy"});
  CHECK(m.between("p/x/error", "/error").empty());
}

TEST_CASE("draws: an unbiased one has deviation alone, a shrunk one bias and gain, and pooling keeps both") {
  // e = 1, 2, ..., draws e + 1 and e - 1 in turn
  std::vector<double> exact(64);
  for (size_t i = 0; i < exact.size(); ++i) exact[i] = double(i + 1);
  double norm = 0;
  for (const double e : exact) norm += e * e;
  constexpr int kDraws = 400;
  const RandomKey key{7, 0};
  Draws fair(exact), shrunk(exact), fixed(exact);
  for (int d = 0; d < kDraws; ++d) {
    std::vector<float> y(exact.size()), z(exact.size());
    for (size_t i = 0; i < y.size(); ++i) {
      y[i] = float(exact[i]) + ((key.bits8(uint64_t(d) * y.size() + i) & 1) != 0 ? 1.0f : -1.0f);
      z[i] = 0.75f * float(exact[i]);
    }
    fair.add(y);
    if (d < 3) shrunk.add(z);
    if (d < 1) fixed.add(z);
  }
  const Spread a = fair.spread(), b = shrunk.spread(), c = fixed.spread();
  CHECK(a.error() == Approx(std::sqrt(64 / norm)).epsilon(1e-6));
  CHECK(a.deviation() == Approx(std::sqrt(64 / norm)).epsilon(0.01));
  CHECK(a.bias() < 0.3 * a.deviation());
  CHECK(a.gain() == Approx(1).epsilon(0.01));
  for (const Spread &s : {b, c}) {
    CHECK(s.bias() == Approx(0.25));
    CHECK(s.error() == Approx(0.25));
    CHECK(s.deviation() == 0);
    CHECK(s.gain() == Approx(0.75));
  }
  CHECK(a.of_average(1) == Approx(a.error()).epsilon(0.02));
  CHECK(a.of_average(100) == Approx(std::hypot(a.bias(), a.deviation() / 10)).epsilon(0.02));
  CHECK(c.of_average(100) == Approx(0.25));
  // a tensor with one draw beside one with many: the bias of the first is no deviation of the second
  Spread both = a;
  both.add(c);
  CHECK(both.bias() == Approx(0.25 / std::sqrt(2.0)).epsilon(0.01));
  CHECK(both.deviation() == Approx(a.deviation() / std::sqrt(2.0)).epsilon(1e-6));
}

TEST_CASE("draws: two draws say as much of the bias as many do, on average") {
  double sum = 0;
  const RandomKey key{9, 0};
  constexpr int kTensors = 4000;
  for (int t = 0; t < kTensors; ++t) {
    Draws two(std::vector<double>{10.0});
    for (int d = 0; d < 2; ++d) {
      const std::vector<float> y = {(key.bits8(uint64_t(2 * t + d)) & 1) != 0 ? 13.0f : 9.0f}; // mean 11, deviation 2
      two.add(y);
    }
    const Spread s = two.spread();
    sum += s.of_mean - s.left; // before the root, which is not taken below 0
  }
  CHECK(sum / kTensors == Approx(1).margin(0.15));
}

TEST_CASE("draws: elements that are not finite are counted and in no sum; sizes must agree") {
  const float inf = std::numeric_limits<float>::infinity(), nan = std::numeric_limits<float>::quiet_NaN();
  Draws d(std::vector<double>{1, 2, 3, kNan});
  d.add(std::vector<float>{1, inf, 3, 0});
  d.add(std::vector<float>{1, 2, nan, 0});
  const Spread s = d.spread();
  CHECK(s.not_finite == 3);
  CHECK(s.error() == 0);
  CHECK(s.reference == 1);
  CHECK_THROWS_AS(d.add(std::vector<float>{1}), Error);
  CHECK(std::isnan(Draws({}).spread().error()));
}

TEST_CASE("claims: an ordering needs an interval without 0, a range the mean in it or the interval outside") {
  const Claim order{.text = "", .source = "", .published = "", .low = "low", .high = "high"};
  CHECK(judge(order, measures({{"low", {1, 2, 3}}, {"high", {2, 3.1, 3.9}}})).verdict == Verdict::held);
  CHECK(judge(order, measures({{"high", {1, 2, 3}}, {"low", {2, 3.1, 3.9}}})).verdict == Verdict::not_held);
  CHECK(judge(order, measures({{"low", {1, 2, 3}}, {"high", {2, 1, 4}}})).verdict == Verdict::not_settled);
  CHECK(judge(order, measures({{"low", {1}}, {"high", {2}}})).verdict == Verdict::not_settled);
  CHECK(judge(order, measures({{"low", {1, 2}}})).verdict == Verdict::not_measured);
  CHECK(judge(order, measures({{"low", {1, 2}}})).measured == "needs high");
  CHECK(judge(order, measures({{"low", {1, kNan}}, {"high", {kNan, 2}}})).verdict == Verdict::not_measured);
  const Claim range{.text = "", .source = "", .published = "", .low = "x", .from = 1, .to = 2};
  CHECK(judge(range, measures({{"x", {1.4, 1.5, 1.6}}})).verdict == Verdict::held);
  CHECK(judge(range, measures({{"x", {2.9, 3.0, 3.1}}})).verdict == Verdict::not_held);
  CHECK(judge(range, measures({{"x", {0.1, 0.11, 0.12}}})).verdict == Verdict::not_held);
  CHECK(judge(range, measures({{"x", {1.5, 3.0}}})).verdict == Verdict::not_settled);
  CHECK(judge(range, measures({{"x", {5}}})).verdict == Verdict::not_settled); // no interval
  CHECK(judge(range, measures({{"x", {kNan}}})).measured == "x has no number");
}

TEST_CASE("every claim has a source, what was published, and either another measure or a range") {
  std::set<std::string_view> texts;
  for (const Claim &c : claims()) {
    INFO(c.text);
    CHECK(texts.insert(c.text).second);
    CHECK_FALSE(c.source.empty());
    CHECK_FALSE(c.published.empty());
    CHECK_FALSE(c.low.empty());
    CHECK(c.high.empty() == (c.from < c.to));
  }
}
