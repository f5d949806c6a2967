// SPDX-License-Identifier: Apache-2.0
// Linear layers against products composed by hand from quantize, make_operand and GemmPlan, bit for bit.
#include "tests/reference_models/linear/support.hpp"

#include <set>

namespace nvfp4::test {
namespace {

struct Case {
  const char *recipe, *linear;
};

const StepContext kStep{.seed = 5, .step = 3, .micro_batch = 2};

/// The values of x with zero rows up to a multiple of 16, which a rotation along rows needs.
Floats padded(Floats x, int64_t &rows) {
  const int64_t cols = int64_t(x.size()) / rows;
  rows = (rows + 15) / 16 * 16;
  x.resize(size_t(rows * cols));
  return x;
}

void compare(const Recipe &recipe, int64_t rows, int64_t in, std::vector<int64_t> outs, bool bias) {
  Group g(recipe, rows, in, outs, 3, bias);
  const std::vector<Floats> before = g.weight_grads;
  g.forward(kStep);
  g.backward(kStep);
  const Floats x = in_bf16(g.x);
  const auto key = [](uint64_t id, Product p, RandomUse use) { return random_key(5, id, p, use, 3, 2); };
  Floats dx;
  for (size_t i = 0; i < outs.size(); ++i) {
    const LinearRecipe r = g.layers->recipe(i);
    const Floats w = in_bf16(g.weights[i]), dy = in_bf16(g.dy[i]);
    const uint64_t id = 7 + i;
    GemmRecipe fprop = r.fprop;
    if (bias) fprop.output = FormatId::f32;
    Floats y = product_by_hand(fprop, x, rows, Axis::row, key(7, Product::fprop, RandomUse::operand_a), w,
                               outs[i], Axis::row, key(id, Product::fprop, RandomUse::operand_b));
    if (bias) {
      for (size_t e = 0; e < y.size(); ++e) y[e] = y[e] + g.biases[i][e % size_t(outs[i])];
      if (r.fprop.output == FormatId::bf16) round_to_bf16(y);
    }
    CHECK(same_bits(g.y[i], y));
    const Floats d =
        product_by_hand(r.dgrad, dy, rows, Axis::row, key(id, Product::dgrad, RandomUse::operand_a), w,
                        outs[i], Axis::col, key(id, Product::dgrad, RandomUse::operand_b));
    if (i == 0)
      dx = d;
    else
      for (size_t e = 0; e < dx.size(); ++e) dx[e] = dx[e] + d[e];
    int64_t rows_a = rows, rows_b = rows;
    const bool pads = r.wgrad.a.hadamard;
    const Floats dy_t = pads ? padded(dy, rows_a) : dy, x_t = pads ? padded(x, rows_b) : x;
    const Floats dw =
        product_by_hand(r.wgrad, dy_t, rows_a, Axis::col, key(id, Product::wgrad, RandomUse::operand_a), x_t,
                        rows_b, Axis::col, key(7, Product::wgrad, RandomUse::operand_b), before[i]);
    CHECK(same_bits(g.weight_grads[i], dw));
  }
  CHECK(same_bits(g.dx, dx));
}

} // namespace

TEST_CASE("layers are quantize and gemm composed by hand", "[linear]") {
  for (const auto &[name, linear] :
       {Case{"bf16", "bf16"}, Case{"nvfp4-plain", "nvfp4"}, Case{"nvfp4", "nvfp4"}, Case{"nvfp4", "head"},
        Case{"mxfp4-sr-rht", "mxfp4"}, Case{"mxfp8", "mxfp8"}}) {
    CAPTURE(name, linear);
    const Recipe recipe = uniform_recipe(name, linear);
    compare(recipe, 64, 128, {64, 16, 128}, false);
    compare(recipe, 48, 80, {64, 40}, true); // no multiple of the unit's K
    compare(recipe, 20, 16, {24}, false);    // tokens that a rotation must pad
  }
}

TEST_CASE("every rounding, accumulation and output that a recipe may name is what the layer does",
          "[linear]") {
  Recipe recipe = uniform_recipe("nvfp4", "nvfp4");
  LinearRecipe &l = recipe.linears["nvfp4"];
  l.fprop.a.rounding = ElementRounding::sr_exact;
  l.fprop.b = {.format = OperandFormat::nvfp4, .convention = "torchao"};
  l.dgrad.a.rounding = ElementRounding::sr_te;
  l.dgrad.output = FormatId::f32;
  check_recipe(recipe, "test");
  compare(recipe, 32, 64, {48, 32}, false);
}

TEST_CASE("weight gradients rounded to BF16 are added in FP32", "[linear]") {
  Recipe recipe = uniform_recipe("nvfp4", "nvfp4");
  Group once(recipe, 32, 64, {48});
  std::fill(once.weight_grads[0].begin(), once.weight_grads[0].end(), 0.0f);
  recipe.linears["nvfp4"].wgrad.output = FormatId::bf16;
  Group g(recipe, 32, 64, {48});
  const Floats before = g.weight_grads[0];
  for (Group *one : {&once, &g}) {
    one->forward(kStep);
    one->backward(kStep);
  }
  Floats expected = in_bf16(once.weight_grads[0]);
  for (size_t i = 0; i < expected.size(); ++i) expected[i] = before[i] + expected[i];
  CHECK(same_bits(g.weight_grads[0], expected));
}

TEST_CASE("the bits of a layer do not depend on threads or instruction set", "[linear]") {
  for (const char *name : {"fp32", "bf16", "nvfp4", "hcp", "mxfp8"}) {
    CAPTURE(name);
    Recipe recipe = load_recipe(name);
    recipe.rules.clear();
    uint64_t expected = 0;
    const auto digest = [&](int threads, std::optional<Isa> isa = {}) {
      Group g(recipe, 48, 96, {64, 80}, 11, true, threads, isa);
      for (int64_t step = 0; step < 2; ++step) {
        g.forward({.seed = 1, .step = step});
        g.backward({.seed = 1, .step = step});
        g.layers->weights_changed();
      }
      return g.digest();
    };
    expected = digest(1);
    CHECK(digest(2) == expected);
    CHECK(digest(3) == expected);
    for (const Isa isa : kIsas) {
      if (!supported(isa)) continue;
      CAPTURE(to_string(isa));
      CHECK(digest(2, isa) == expected);
    }
  }
}

TEST_CASE("quantized weights are kept until they change", "[linear]") {
  Group g(uniform_recipe("nvfp4", "nvfp4"), 32, 64, {48});
  g.forward({});
  const Floats first = g.y[0];
  for (float &w : g.weights[0]) w = -2 * w;
  g.forward({});
  CHECK(same_bits(g.y[0], first));
  g.layers->weights_changed();
  g.forward({});
  CHECK_FALSE(same_bits(g.y[0], first));
}

TEST_CASE("no two quantizations share random words", "[linear]") {
  std::set<std::pair<uint64_t, uint64_t>> seen;
  size_t count = 0;
  for (uint64_t layer = 0; layer < 40; ++layer)
    for (const Product p : {Product::fprop, Product::dgrad, Product::wgrad})
      for (const RandomUse use : {RandomUse::operand_a, RandomUse::operand_b, RandomUse::channel_choice})
        for (int64_t step = 0; step < 6; ++step)
          for (int64_t micro = 0; micro < 4; ++micro, ++count) {
            const RandomKey k = random_key(42, layer, p, use, step, micro);
            seen.insert({k.seed, k.offset});
          }
  CHECK(seen.size() == count);
  CHECK(random_key(1, 0, Product::fprop, RandomUse::operand_a, 0, 0).seed !=
        random_key(2, 0, Product::fprop, RandomUse::operand_a, 0, 0).seed);
}

} // namespace nvfp4::test
