// SPDX-License-Identifier: Apache-2.0
// The Hot-Channel Patch in layers: against a composition by hand, against exact algebra, its state and its
// choices.
#include "tests/reference_models/linear/hcp_support.hpp"

namespace nvfp4::test {
namespace {

/// The layer's output by hand for channels that are known.
Floats patched_by_hand(const LinearRecipe &l, const Floats &x, int64_t rows, const Floats &w, int64_t outs,
                       const std::vector<int32_t> &hot) {
  const HcpRecipe &h = l.hcp;
  const Unit &unit = find_unit(l.fprop.unit);
  const Parts a(l.fprop.a, x, rows), b(l.fprop.b, w, outs);
  const bool activation = h.side != HcpSide::weight, weight = h.side != HcpSide::activation;
  const auto values = [&](const Parts &p) {
    return h.reblock == HcpRecipe::Reblock::whole_blocks ? p.blocks(hot) : p.segment(p.value, hot);
  };
  GemmOptions options{.alpha = global_alpha(a.q, b.q, 1.0f, AlphaRule::by_convention), .out = l.fprop.output};
  if (h.kernel == HcpRecipe::Kernel::single) {
    std::vector<BlockScaled> left = {a.q}, right = {b.q};
    if (activation) left.push_back(a.segment(a.residual, hot)), right.push_back(values(b));
    if (weight) left.push_back(values(a)), right.push_back(b.segment(b.residual, hot));
    return values_of(
        GemmPlan(unit, options).run(concatenate(unit, Side::a, left), concatenate(unit, Side::b, right)));
  }
  options.out = FormatId::f32;
  Floats y = values_of(
      GemmPlan(unit, options).run(pack_by_hand(unit, Side::a, a.q), pack_by_hand(unit, Side::b, b.q)));
  options.beta = 1;
  for (const bool first : {true, false}) {
    if (first ? !activation : !weight) continue;
    const std::span<const uint8_t> c{reinterpret_cast<const uint8_t *>(y.data()), 4 * y.size()};
    if (h.residual == HcpRecipe::Residual::bf16) {
      const Unit &bf16 = find_unit("sm_90:wgmma.k16.f32.bf16");
      options.alpha = 1;
      y = values_of(
          GemmPlan(bf16, options)
              .run(pack_bf16_by_hand(bf16, Side::a, columns_of(first ? a.residual : a.value, a.q.k, hot),
                                     rows, Axis::row),
                   pack_bf16_by_hand(bf16, Side::b, columns_of(first ? b.value : b.residual, b.q.k, hot),
                                     outs, Axis::row),
                   {.c = c}));
    } else {
      y = values_of(GemmPlan(unit, options)
                        .run(pack_by_hand(unit, Side::a, first ? a.segment(a.residual, hot) : values(a)),
                             pack_by_hand(unit, Side::b, first ? values(b) : b.segment(b.residual, hot)),
                             {.c = c}));
    }
  }
  if (l.fprop.output == FormatId::bf16)
    for (float &v : y) v = round_to_bf16(v);
  return y;
}

} // namespace

TEST_CASE("patched products are quantize and gemm composed by hand", "[hcp]") {
  for (const HcpRecipe::Kernel kernel : {HcpRecipe::Kernel::single, HcpRecipe::Kernel::dual})
    for (const HcpSide side : {HcpSide::activation, HcpSide::weight, HcpSide::both})
      for (const HcpRecipe::Residual residual : {HcpRecipe::Residual::nvfp4, HcpRecipe::Residual::bf16})
        for (const HcpRecipe::Reblock reblock :
             {HcpRecipe::Reblock::requantize, HcpRecipe::Reblock::whole_blocks}) {
          if (residual == HcpRecipe::Residual::bf16 && kernel == HcpRecipe::Kernel::single) continue;
          HcpRecipe h{.k = 32, .kernel = kernel, .side = side, .residual = residual, .reblock = reblock};
          if (reblock == HcpRecipe::Reblock::whole_blocks) h.choice = HcpRecipe::Choice::blocks;
          CAPTURE(int(kernel), int(side), int(residual), int(reblock));
          for (const int64_t in : {128, 88}) {
            Group g(with_hcp(h), 32, in, {48, 40});
            g.forward({});
            for (size_t i = 0; i < 2; ++i) {
              const std::vector<int32_t> &hot = g.layers->hot_channels(i).indices;
              REQUIRE(hot.size() == 32);
              CHECK(same_bits(g.y[i], patched_by_hand(g.layers->recipe(i), in_bf16(g.x), 32,
                                                      in_bf16(g.weights[i]), g.outs[i], hot)));
            }
          }
        }
}

TEST_CASE("no channels: the same bits as without the patch", "[hcp]") {
  Group plain(uniform_recipe("nvfp4", "nvfp4"), 48, 96, {64, 32}, 5, true);
  Group patched(with_hcp({.k = 0}), 48, 96, {64, 32}, 5, true);
  for (Group *g : {&plain, &patched})
    for (int64_t step = 0; step < 2; ++step) {
      g->forward({.step = step});
      g->backward({.step = step});
    }
  CHECK(plain.digest() == patched.digest());
  Group with(with_hcp({}), 48, 96, {64, 32}, 5, true);
  with.forward({.step = 0});
  CHECK_FALSE(same_bits(with.y[0], plain.y[0]));
}

TEST_CASE("all channels with exact residuals leave exactly the second-order term", "[hcp]") {
  // Values on a coarse grid and amax = 2688 / 256: S, p and alpha are powers of two, BF16 holds every
  // residual, and no sum needs more than 24 bits.
  const int64_t rows = 32, in = 32, out = 16;
  Recipe recipe = with_hcp(
      {.k = in, .kernel = HcpRecipe::Kernel::dual, .residual = HcpRecipe::Residual::bf16}, "torchao");
  recipe.linears["nvfp4"].fprop.output = FormatId::f32;
  Group g(recipe, rows, in, {out});
  std::mt19937_64 random(3);
  for (Floats *t : {&g.x, &g.weights[0]}) {
    for (float &v : *t) v = float(int(random() % 33) - 16) / 8.0f;
    (*t)[5] = 10.5f;
  }
  g.forward({});
  const LinearRecipe l = g.layers->recipe(0);
  const Parts a(l.fprop.a, g.x, rows), b(l.fprop.b, g.weights[0], out);
  const std::vector<double> exact = exact_product(g.x, g.weights[0], in);
  const std::vector<double> second = exact_product(a.residual, b.residual, in);
  const std::vector<double> main = exact_product(a.value, b.value, in);
  bool same = true;
  double first_order = 0;
  for (size_t i = 0; i < exact.size(); ++i) {
    same = same && exact[i] - double(g.y[0][i]) == second[i];
    first_order = std::fmax(first_order, std::fabs(exact[i] - main[i] - second[i]));
  }
  CHECK(same);
  CHECK(first_order > 0.1); // there was something to remove
}

TEST_CASE("the single product is the sum of its three parts", "[hcp]") {
  Recipe recipe = with_hcp({.k = 32});
  recipe.accumulation = Accumulation::exact;
  recipe.linears["nvfp4"].fprop.output = FormatId::f32;
  Group g(recipe, 32, 128, {48});
  g.forward({});
  const LinearRecipe l = g.layers->recipe(0);
  const std::vector<int32_t> &hot = g.layers->hot_channels(0).indices;
  const Parts a(l.fprop.a, in_bf16(g.x), 32), b(l.fprop.b, in_bf16(g.weights[0]), 48);
  std::vector<double> sum = exact_product(a.value, b.value, 128);
  double patch = 0;
  for (const auto &[left, right] : {std::pair(a.segment(a.residual, hot), b.segment(b.value, hot)),
                                    std::pair(a.segment(a.value, hot), b.segment(b.residual, hot))}) {
    const std::vector<double> part = exact_product(dequantize(left), dequantize(right), 32);
    for (size_t i = 0; i < sum.size(); ++i) {
      sum[i] += part[i];
      patch = std::fmax(patch, std::fabs(part[i]));
    }
  }
  double worst = 0;
  for (size_t i = 0; i < sum.size(); ++i) worst = std::fmax(worst, std::fabs(sum[i] - double(g.y[0][i])));
  CHECK(patch > 1e-2);
  CHECK(worst < 2e-6); // four truncations to FP32 of sums near 1, and the last bit of alpha
}

TEST_CASE("the patch in dgrad lowers its error, over output channels", "[hcp]") {
  const auto error = [](const Recipe &recipe) {
    Group g(recipe, 64, 64, {128}, 9);
    for (size_t r = 0; r < 64; ++r)
      for (const size_t hot : {3u, 40u, 77u}) g.dy[0][r * 128 + hot] *= 12;
    g.forward({});
    g.backward({});
    Floats w_t(g.weights[0].size());
    for (size_t j = 0; j < 128; ++j)
      for (size_t q = 0; q < 64; ++q) w_t[q * 128 + j] = g.weights[0][j * 64 + q];
    const double e = mean_square_error(exact_product(g.dy[0], w_t, 128), g.dx);
    return std::pair(e, g.layers->hot_channels(0, Product::dgrad).indices.size());
  };
  const auto [plain, none] = error(with_hcp({.k = 64}));
  const auto [patched, channels] = error(with_hcp({.k = 64, .dgrad = true}));
  CHECK(none == 0);
  CHECK(channels == 64);
  CHECK(patched < 0.7 * plain);
}

TEST_CASE("channels are chosen in the first micro-batch of due steps while training", "[hcp]") {
  Group g(with_hcp({.k = 16, .period = 3, .start = 2}), 32, 64, {48});
  const auto chosen_at = [&](const StepContext &step) {
    for (float &v : g.x) v = -1.25f * v; // so that a choice would be another one
    g.x[size_t(step.step) * 3 + 1] *= 30;
    g.forward(step);
    return g.layers->hot_channels(0).chosen_at;
  };
  CHECK(chosen_at({.step = 0}) == -1);
  CHECK(chosen_at({.step = 2, .training = false}) == -1);
  CHECK(chosen_at({.step = 2, .micro_batch = 1}) == -1);
  CHECK(chosen_at({.step = 2}) == 2);
  const std::vector<int32_t> first = g.layers->hot_channels(0).indices;
  CHECK(chosen_at({.step = 3}) == 2);
  CHECK(chosen_at({.step = 5, .micro_batch = 1}) == 2);
  CHECK(g.layers->hot_channels(0).indices == first);
  CHECK(chosen_at({.step = 5}) == 5);
  CHECK(g.layers->hot_channels(0).scores.size() == 64);
}

TEST_CASE("scores are the mean errors of both sides", "[hcp]") {
  Group g(with_hcp({.k = 16}), 40, 48, {32});
  g.forward({});
  const LinearRecipe l = g.layers->recipe(0);
  const Parts a(l.fprop.a, in_bf16(g.x), 40), b(l.fprop.b, in_bf16(g.weights[0]), 32);
  const HotChannels &hot = g.layers->hot_channels(0);
  for (size_t j = 0; j < 48; ++j) {
    double score = 0;
    for (size_t r = 0; r < 40; ++r) score += std::fabs(double(a.residual[r * 48 + j])) / 40;
    for (size_t r = 0; r < 32; ++r) score += std::fabs(double(b.residual[r * 48 + j])) / 32;
    CHECK(double(hot.scores[j]) == Approx(score).epsilon(1e-5));
  }
  for (size_t i = 0; i + 1 < hot.indices.size(); ++i)
    CHECK(hot.scores[size_t(hot.indices[i])] >= hot.scores[size_t(hot.indices[i + 1])]);
  Group magnitude(with_hcp({.k = 16, .choice = HcpRecipe::Choice::magnitude}), 40, 48, {32});
  magnitude.forward({});
  for (size_t j = 0; j < 48; ++j) {
    float largest = 0;
    for (size_t r = 0; r < 40; ++r) largest = std::fmax(largest, std::fabs(in_bf16(g.x)[r * 48 + j]));
    CHECK(magnitude.layers->hot_channels(0).scores[j] == largest);
  }
}

TEST_CASE("equal scores: the lower index first", "[hcp]") {
  CHECK(largest_channels(Floats{1, 3, 3, 2, 3}, 3) == std::vector<int32_t>{1, 2, 4});
  CHECK(largest_channels(Floats{0, 0, 0, 0}, 2) == std::vector<int32_t>{0, 1});
  CHECK(largest_channels(Floats{NAN, 1, NAN, 2}, 3) == std::vector<int32_t>{3, 1, 0});
  CHECK(largest_channels(Floats{1, 2}, 16) == std::vector<int32_t>{1, 0});
  Floats scores(40, 0.0f);
  scores[20] = 1;
  scores[39] = 9; // in the ragged last block
  std::vector<int32_t> expected(16);
  std::iota(expected.begin(), expected.end(), 16);
  CHECK(largest_blocks(scores, 16) == expected);
  std::vector<int32_t> both = expected;
  for (int32_t j = 0; j < 16; ++j) both.push_back(j);
  CHECK(largest_blocks(scores, 32) == both);
}

TEST_CASE("a saved choice continues with the same bits", "[hcp]") {
  const Recipe recipe = with_hcp({.period = 4, .dgrad = true});
  Group g(recipe, 32, 64, {48, 32}), resumed(recipe, 32, 64, {48, 32});
  for (int64_t step = 0; step < 2; ++step) {
    g.forward({.step = step});
    g.backward({.step = step});
  }
  for (size_t i = 0; i < 2; ++i) {
    resumed.layers->set_hot_channels(i, g.layers->hot_channels(i));
    resumed.layers->set_hot_channels(i, g.layers->hot_channels(i, Product::dgrad), Product::dgrad);
    resumed.weight_grads[i] = g.weight_grads[i];
    CHECK(resumed.layers->hot_channels(i).chosen_at == 0);
  }
  for (Group *one : {&g, &resumed}) {
    one->forward({.step = 2});
    one->backward({.step = 2});
  }
  CHECK(g.digest() == resumed.digest());
  Group fresh(recipe, 32, 64, {48, 32});
  fresh.forward({.step = 2});
  CHECK_FALSE(same_bits(fresh.y[0], g.y[0]));
  CHECK_THROWS_WITH(g.layers->set_hot_channels(0, {.indices = {64}}), Catch::Contains("do not fit"));
  CHECK_THROWS_WITH(g.layers->set_hot_channels(0, {.indices = std::vector<int32_t>(32, 1)}),
                    Catch::Contains("do not fit"));
  CHECK_THROWS_WITH(g.layers->set_hot_channels(0, {.indices = {1}, .scores = {1, 2}}),
                    Catch::Contains("do not fit"));
}

TEST_CASE("weights that change between two choices change the patch too", "[hcp]") {
  for (const HcpRecipe::Kernel kernel : enumerators<HcpRecipe::Kernel>()) {
    const Recipe recipe = with_hcp({.k = 16, .period = 10, .kernel = kernel});
    Group g(recipe, 32, 64, {48}), fresh(recipe, 32, 64, {48});
    g.forward({.step = 0});
    REQUIRE(g.layers->hot_channels(0).chosen_at == 0);
    for (Group *one : {&g, &fresh})
      for (size_t i = 0; i < one->weights[0].size(); ++i) one->weights[0][i] *= i % 3 == 0 ? -1.75f : 0.6f;
    g.layers->weights_changed();
    fresh.layers->set_hot_channels(0, g.layers->hot_channels(0));
    for (Group *one : {&g, &fresh}) one->forward({.step = 1});
    INFO(to_string(kernel));
    CHECK(same_bits(g.y[0], fresh.y[0]));
    CHECK(g.layers->hot_channels(0).chosen_at == 0);
  }
}

} // namespace nvfp4::test
