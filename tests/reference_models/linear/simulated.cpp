// SPDX-License-Identifier: Apache-2.0
// Simulated operands: what a copy decodes to, in BF16, with and without the mean over tokens kept apart.
#include "nvfp4/reference_models/linear/product_recipe.hpp"
#include "tests/reference_models/linear/support.hpp"

#include <limits>

namespace nvfp4::test {
namespace {

constexpr int64_t kRows = 40, kIn = 80, kOut = 48;

/// Values of a copy along rows, before they are rounded to BF16.
Floats copy_by_hand(const std::string &convention, const Floats &x, int64_t rows, bool mean,
                    ElementRounding rounding = ElementRounding::nearest, RandomKey key = {}) {
  const auto cols = int64_t(x.size()) / rows;
  const Floats means = mean ? means_by_hand(x, rows) : Floats(size_t(cols), 0.0f);
  Floats centred = x;
  for (size_t i = 0; mean && i < centred.size(); ++i) centred[i] -= means[i % size_t(cols)];
  Floats y = dequantize(quantize({centred.data(), rows, cols}, find_convention(convention),
                                 {.rounding = rounding, .key = key, .source = FormatId::bf16}));
  for (size_t i = 0; mean && i < y.size(); ++i) y[i] += means[i % size_t(cols)];
  return y;
}

/// BF16 products, a and b as the function above made them.
Floats bf16_product(const Floats &a, int64_t a_rows, Axis a_axis, const Floats &b, int64_t b_rows, Axis b_axis, FormatId output,
                    const Floats &c = {}) {
  return product_by_hand({.a = {}, .b = {}, .unit = "sm_90:wgmma.k16.f32.bf16", .output = output}, a, a_rows, a_axis, {}, b, b_rows,
                         b_axis, {}, c);
}

} // namespace

TEST_CASE("the mean split of a program that simulates, bit for bit", "[simulated]") {
  const StepContext step{5, 3, 0, false};
  Recipe r = uniform_recipe("nvfp4-mean", "nvfp4");
  Group g(r, kRows, kIn, {kOut});
  for (int64_t i = 0; i < kRows; ++i) { // channels with a mean, an outlier, zeros
    g.x[size_t(i * kIn + 3)] += 30.0f;
    g.x[size_t(i * kIn + 4)] = 0.0f;
    g.dy[0][size_t(i * kOut + 5)] -= 0.01f;
  }
  g.x[7] = 500.0f;
  const Floats grads_before = g.weight_grads[0];
  g.forward(step);
  g.backward(step);
  const Floats x = copy_by_hand("te", in_bf16(g.x), kRows, true), w = copy_by_hand("te", in_bf16(g.weights[0]), kOut, false);
  const RandomKey key = random_key(step.seed, 7, Product::dgrad, RandomUse::operand_a, step.step, 0);
  const Floats dy = copy_by_hand("te", in_bf16(g.dy[0]), kRows, true, ElementRounding::sr_exact, key);
  CHECK(g.y[0] == bf16_product(x, kRows, Axis::row, w, kOut, Axis::row, FormatId::bf16));
  CHECK(g.dx == bf16_product(dy, kRows, Axis::row, w, kOut, Axis::col, FormatId::bf16));
  CHECK(g.weight_grads[0] ==
        bf16_product(dy, kRows, Axis::col, x, kRows, Axis::col, FormatId::f32, grads_before)); // the same copies
  // the mean is what made the difference
  LinearRecipe &l = r.linears.at("nvfp4");
  l.fprop.a.mean = MeanSplit::none;
  Group without(r, kRows, kIn, {kOut});
  without.x = g.x;
  without.bind(r);
  without.forward(step);
  CHECK(without.y != g.y);
}

TEST_CASE("simulated operands of every convention are its decoded values, rotated too", "[simulated]") {
  const StepContext step{5, 3, 0, false};
  for (const Convention &c : conventions()) {
    CAPTURE(c.name);
    Recipe r = uniform_recipe("nvfp4-plain", "nvfp4");
    LinearRecipe &l = r.linears.at("nvfp4");
    for (GemmRecipe *g : {&l.fprop, &l.dgrad, &l.wgrad})
      g->a = g->b = {.format = OperandFormat::simulated, .convention = std::string(c.name), .hadamard = c.can.hadamard};
    check_recipe(r, "r");
    Group g(r, 32, kIn, {kOut});
    g.x[11] = -77.0f;
    g.x[90] = 0.0f;
    g.forward(step);
    const auto values = [&](const Floats &v, int64_t rows) {
      const Floats in = in_bf16(v);
      return dequantize(quantize({in.data(), rows, kIn}, c, {.hadamard = c.can.hadamard, .source = FormatId::bf16}),
                        {.undo_hadamard = false});
    };
    CHECK(g.y[0] == bf16_product(values(g.x, 32), 32, Axis::row, values(g.weights[0], kOut), kOut, Axis::row, FormatId::bf16));
    g.backward(step);
    for (const float v : g.weight_grads[0]) CHECK(std::isfinite(v));
  }
}

TEST_CASE("NaN and Inf of a simulated operand are what its convention makes of them", "[simulated]") {
  for (const char *name : {"te", "amd-fp4", "mxfp8-e4m3"}) {
    CAPTURE(name);
    Recipe r = uniform_recipe("nvfp4-plain", "nvfp4");
    r.linears.at("nvfp4").fprop.a = r.linears.at("nvfp4").fprop.b = {.format = OperandFormat::simulated, .convention = name};
    Group g(r, kRows, kIn, {kOut});
    g.x[3] = std::numeric_limits<float>::quiet_NaN();
    g.x[200] = std::numeric_limits<float>::infinity();
    g.forward({5, 3, 0, false});
    const Floats want = bf16_product(copy_by_hand(name, in_bf16(g.x), kRows, false), kRows, Axis::row,
                                     copy_by_hand(name, in_bf16(g.weights[0]), kOut, false), kOut, Axis::row, FormatId::bf16);
    int64_t numbers = 0, wrong = 0;
    for (size_t i = 0; i < want.size(); ++i) { // of NaN the emulator's epilogue and the layer's keep other words
      numbers += want[i] == want[i];
      wrong += want[i] != want[i] ? g.y[0][i] == g.y[0][i] : bit_cast<uint32_t>(want[i]) != bit_cast<uint32_t>(g.y[0][i]);
    }
    CHECK(wrong == 0);
    CHECK((numbers > kRows * kOut / 2) == (std::string(name) != "te")); // te's global scale is NaN's with an infinite amax
  }
}

TEST_CASE("what a simulated operand cannot be is refused", "[simulated]") {
  const auto refused = [](const std::function<void(LinearRecipe &)> &change, const char *expected) {
    Recipe r = load_recipe("nvfp4-mean");
    change(r.linears.at("nvfp4"));
    CHECK_THROWS_WITH(check_recipe(r, "r"), Catch::Contains(expected));
  };
  refused([](LinearRecipe &l) { l.fprop.b.mean = MeanSplit::kept; }, "fprop.b: mean is over tokens");
  refused([](LinearRecipe &l) { l.fprop.a.hadamard = l.fprop.b.hadamard = true; }, "mean is for simulated operands without a rotation");
  refused([](LinearRecipe &l) { l.dgrad.b.rounding = ElementRounding::sr_exact; }, "is another product's copy as it is");
  refused([](LinearRecipe &l) { l.wgrad.b.convention = "mxfp4"; }, "is another product's copy as it is");
  refused([](LinearRecipe &l) { l.fprop.b.rounding = ElementRounding::sr_exact; }, "would draw other random words");
  refused([](LinearRecipe &l) { l.fprop.a.format = OperandFormat::nvfp4; }, "mean is for simulated operands");
  Recipe r = load_recipe("nvfp4");
  r.linears.at("nvfp4").wgrad.a.decoded = true;
  CHECK_THROWS_WITH(check_recipe(r, "r"), Catch::Contains("wgrad.a: decoded is for W of dgrad (b) and x of wgrad (b)"));
  r = load_recipe("nvfp4");
  r.kv_cache = {.format = OperandFormat::simulated, .convention = "te"};
  CHECK_THROWS_WITH(check_recipe(r, "r"), Catch::Contains("kv_cache.format: what is stored has the format itself"));
  CHECK(needs_cpu(load_recipe("nvfp4-mean").linears.at("nvfp4")));
}

} // namespace nvfp4::test
