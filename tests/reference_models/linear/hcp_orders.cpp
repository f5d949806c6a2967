// SPDX-License-Identifier: Apache-2.0
// The orders of errors that the patch must show on a matrix with planted hot channels: which sides, which k,
// which choice, and that the literal reading of the printed formula fails.
#include "tests/reference_models/linear/hcp_support.hpp"

namespace nvfp4::test {
namespace {

constexpr int64_t kRows = 64, kIn = 256, kOut = 48;

/// X with hot channels of 12 times the amplitude, W with sigma 0.05.
struct Planted {
  Floats x, w;
  std::vector<double> exact;

  Planted(uint64_t seed, int hot)
      : x(normal(kRows * kIn, 1, seed)), w(normal(kOut * kIn, 0.05, seed + 1000)) {
    std::mt19937_64 random(seed + 2000);
    std::vector<size_t> channels(static_cast<size_t>(kIn));
    std::iota(channels.begin(), channels.end(), 0u);
    for (int i = 0; i < hot; ++i) {
      std::swap(channels[size_t(i)], channels[size_t(i) + size_t(random() % uint64_t(kIn - i))]);
      for (size_t r = 0; r < size_t(kRows); ++r) x[r * kIn + channels[size_t(i)]] *= 12;
    }
    x = in_bf16(x);
    w = in_bf16(w);
    exact = exact_product(x, w, kIn);
  }
  /// Error of a layer under a recipe.
  [[nodiscard]] double layer(HcpRecipe hcp) const {
    Recipe recipe = with_hcp(hcp);
    recipe.linears["nvfp4"].fprop.output = FormatId::f32;
    Group g(recipe, kRows, kIn, {kOut});
    g.x = x;
    g.weights[0] = w;
    g.bind(recipe);
    g.forward({});
    return mean_square_error(exact, g.y[0]);
  }
};

struct Errors {
  double activation = 0, weight = 0, both = 0, exact = 0, layer = 0, literal = 0;
};

/// Errors relative to no patch, in double precision from the quantized values; `layer` is the layer itself,
/// whose residuals are in NVFP4. Means of three draws.
Errors measure(int64_t k) {
  Errors e;
  for (const uint64_t seed : {1u, 2u, 3u}) {
    const Planted p(seed, 10);
    Group scored(with_hcp({.k = k}), kRows, kIn, {kOut});
    scored.x = p.x;
    scored.weights[0] = p.w;
    scored.bind(with_hcp({.k = k}));
    scored.forward({});
    const std::vector<int32_t> hot = scored.layers->hot_channels(0).indices;
    const LinearRecipe l = scored.layers->recipe(0);
    const Parts a(l.fprop.a, p.x, kRows), b(l.fprop.b, p.w, kOut);
    const auto gathered = [&](const Floats &x) { return columns_of(x, kIn, hot); };
    const std::vector<double> plain = exact_product(a.value, b.value, kIn);
    const std::vector<double> terms[] = {exact_product(gathered(a.residual), gathered(b.value), k),
                                         exact_product(gathered(a.value), gathered(b.residual), k),
                                         exact_product(gathered(a.residual), gathered(b.residual), k)};
    const double baseline = mean_square_error(p.exact, plain);
    const auto with = [&](std::initializer_list<int> which) {
      std::vector<double> y = plain;
      for (const int t : which)
        for (size_t i = 0; i < y.size(); ++i) y[i] += terms[t][i];
      return mean_square_error(p.exact, y) / baseline / 3;
    };
    e.activation += with({0});
    e.weight += with({1});
    e.both += with({0, 1});
    e.exact += with({0, 1, 2});
    e.literal += with({2});
    e.layer += p.layer({.k = k}) / baseline / 3;
  }
  return e;
}

} // namespace

TEST_CASE("both sides beat one, and NVFP4 residuals are nearly as good as exact ones", "[hcp]") {
  double last = 1;
  for (const int64_t k : {16, 64, 128}) {
    const Errors e = measure(k);
    CAPTURE(k, e.activation, e.weight, e.both, e.exact, e.layer, e.literal);
    CHECK(e.both < e.weight);
    CHECK(e.both < e.activation);
    CHECK(e.weight < e.activation);
    CHECK(e.activation < 1);
    CHECK(e.both == Approx(e.exact).margin(0.01)); // what is left on the hot channels is of second order
    CHECK(e.layer == Approx(e.both).margin(0.03));
    // the printed formula, taken literally, adds R_X R_W alone: nothing is gained, from k = 64 on a little is
    // lost
    CHECK(e.literal > (k < 64 ? 0.998 : 1.0));
    CHECK(e.literal < 1.05);
    CHECK(e.both < last);
    last = e.both;
  }
}

TEST_CASE("layers show the order of sides that the algebra has", "[hcp]") {
  for (const auto kernel : {HcpRecipe::Kernel::single, HcpRecipe::Kernel::dual}) {
    const Planted p(7, 10);
    const auto error = [&](HcpSide side) { return p.layer({.k = 64, .kernel = kernel, .side = side}); };
    CHECK(error(HcpSide::both) < error(HcpSide::weight));
    CHECK(error(HcpSide::weight) < error(HcpSide::activation));
    CHECK(error(HcpSide::activation) < p.layer({.k = 0}));
  }
}

TEST_CASE("chosen channels beat random ones", "[hcp]") {
  double error[4] = {};
  using Choice = HcpRecipe::Choice;
  for (const uint64_t seed : {11u, 12u, 13u}) {
    const Planted p(seed, 6);
    const double baseline = p.layer({.k = 0});
    const Choice choices[] = {Choice::score, Choice::magnitude, Choice::blocks, Choice::random};
    for (size_t i = 0; i < 4; ++i) error[i] += p.layer({.k = 32, .choice = choices[i]}) / baseline / 3;
  }
  CAPTURE(error[0], error[1], error[2], error[3]);
  for (size_t i = 0; i < 3; ++i) CHECK(error[i] < error[3]);
  CHECK(error[3] < 1);
  CHECK(error[0] < 0.8);
}

} // namespace nvfp4::test
