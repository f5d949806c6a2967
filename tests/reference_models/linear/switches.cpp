// SPDX-License-Identifier: Apache-2.0
// Switches of recipes: operands quantized from fprop's decoded copy, corrected scales, and formats without
// hardware, each against the same steps composed by hand.
#include "nvfp4/reference_models/linear/scale_correction.hpp"
#include "tests/reference_models/linear/support.hpp"

#include <algorithm>

namespace nvfp4::test {
namespace {

/// All layers of a variation take its quantized linear.
Recipe switched(const std::string &name) {
  const Recipe r = load_recipe(name);
  return uniform_recipe(name, r.default_linear);
}

/// What an operand decodes to, rotated back, in the tensor's orientation.
Floats decoded(const OperandRecipe &o, const Floats &x, int64_t rows, int64_t cols, Axis axis,
               RandomKey key) {
  const BlockScaled q = quantize({x.data(), rows, cols}, find_convention(o.convention),
                                 {.axis = axis,
                                  .block_rows = o.block_rows,
                                  .rounding = o.rounding,
                                  .key = key,
                                  .hadamard = o.hadamard,
                                  .source = FormatId::bf16});
  return dequantize(q);
}

double relative(const Floats &a, const Floats &b) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    error += (double(a[i]) - double(b[i])) * (double(a[i]) - double(b[i]));
    norm += double(b[i]) * double(b[i]);
  }
  return std::sqrt(error / norm);
}

} // namespace

TEST_CASE("decoded: W of dgrad and x of wgrad are quantized from what fprop's copies decode to",
          "[switches]") {
  constexpr int64_t rows = 48, in = 80, out = 64;
  const StepContext step{3, 1, 0, false};
  Recipe decoded_recipe = switched("nvfp4-decoded"), plain = decoded_recipe;
  LinearRecipe &l = plain.linears.at(plain.default_linear);
  l.dgrad.b.decoded = l.wgrad.b.decoded = false;
  REQUIRE(decoded_recipe.linears.at(plain.default_linear).dgrad.b.decoded);

  Group mine(decoded_recipe, rows, in, {out}), from_tensor(plain, rows, in, {out}),
      by_hand(plain, rows, in, {out});
  for (Group *g : {&mine, &from_tensor}) {
    g->forward(step);
    g->backward(step);
  }
  // the same layer without the switch, whose weight and input are the decoded copies
  by_hand.forward(step);
  const Floats weight =
      in_bf16(decoded({.convention = "te"}, in_bf16(mine.weights[0]), out, in, Axis::row, {}));
  std::ranges::copy(weight, by_hand.weights[0].begin()); // the layer has its address
  by_hand.x = in_bf16(decoded({.convention = "te"}, in_bf16(mine.x), rows, in, Axis::row, {}));
  by_hand.layers->weights_changed();
  by_hand.backward(step);
  CHECK(mine.y == from_tensor.y);
  CHECK(mine.dx == by_hand.dx);
  CHECK(mine.weight_grads == by_hand.weight_grads);
  CHECK(mine.dx != from_tensor.dx);
  CHECK(mine.weight_grads != from_tensor.weight_grads);
  // threads change nothing, and two layers with one input share no copy that is made another way
  Group three(decoded_recipe, rows, in, {out}, 1, false, 3);
  three.forward(step);
  three.backward(step);
  CHECK(three.digest() == mine.digest());
}

TEST_CASE("decoded copies are padded for a rotation as tensors are", "[switches]") {
  const Recipe r = switched("nvfp4-decoded-sr");
  const StepContext step{3, 1, 0, false};
  Group ragged(r, 37, 80, {48}), more(r, 48, 80, {48});
  std::fill(more.x.begin() + 37 * 80, more.x.end(), 0.0f); // normal() gives both the same first words
  std::fill(more.dy[0].begin() + 37 * 48, more.dy[0].end(), 0.0f);
  more.forward(step);
  more.backward(step);
  ragged.forward(step);
  ragged.backward(step);
  CHECK(ragged.weight_grads[0] == more.weight_grads[0]);
}

TEST_CASE("corrected scales give groups their length back, in the mean without a bias", "[switches]") {
  constexpr int64_t rows = 24, k = 304; // two groups of 128 and one of 48
  Floats x = in_bf16(normal(rows * k, 1, 5));
  for (int64_t i = 0; i < 32; ++i) x[size_t(i)] = 0.0f; // blocks of zeros
  x[size_t(2 * k + 7)] = 900.0f;                        // a block at the largest scale
  const Convention &te = find_convention("te");
  for (const bool hadamard : {false, true})
    for (const Axis axis : {Axis::row, Axis::col}) {
      const int64_t c = axis == Axis::row ? k : rows, r = axis == Axis::row ? rows : k;
      Floats data = x;
      if (axis == Axis::col) // the transpose, so that both have the same rows
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t j = 0; j < k; ++j) data[size_t(j * rows + i)] = x[size_t(i * k + j)];
      int64_t padded = r;
      if (hadamard && axis == Axis::col) {
        padded = (r + 15) / 16 * 16;
        data.resize(size_t(padded * c), 0.0f);
      }
      const MatrixView<const float> view(data.data(), padded, c);
      const BlockScaled plain = quantize(view, te, {.axis = axis, .hadamard = hadamard});
      constexpr int kDraws = 200;
      std::vector<double> mean(plain.scales.size(), 0.0);
      int64_t moved = 0;
      for (int d = 0; d < kDraws; ++d) {
        BlockScaled q = plain;
        correct_scales(q, view, {uint64_t(d), 3});
        CHECK(q.codes == plain.codes);
        for (size_t b = 0; b < mean.size(); ++b) {
          mean[b] += double(value_f32(q.scale, q.scales[b])) / kDraws;
          moved += q.scales[b] != plain.scales[b];
          CHECK(std::abs(int(q.scales[b]) - int(plain.scales[b])) <=
                1); // errors of FP4 move a scale by less than a step of it
        }
        BlockScaled again = plain;
        correct_scales(again, view, {uint64_t(d), 3});
        CHECK(again.scales == q.scales);
      }
      CHECK(moved > 0);
      // a group's mean scale is the plain one times sum x^2 / sum x y
      BlockScaled read = plain;
      const Floats y = dequantize(read, {.undo_hadamard = false});
      for (int64_t row = 3; row < plain.rows; ++row) { // not the row with the outlier
        if (hadamard) break; // values after a rotation are compared below, through products
        double squares = 0, along = 0;
        for (int64_t i = 0; i < 128; ++i) {
          const double v = x[size_t(row * k + i)],
                       w = axis == Axis::row ? y[size_t(row * k + i)] : y[size_t(i * plain.rows + row)];
          squares += v * v;
          along += v * w;
        }
        for (int64_t b = 0; b < 8; ++b) {
          const size_t at = size_t(row * plain.scale_cols() + b);
          const double before = double(value_f32(plain.scale, plain.scales[at]));
          CHECK(mean[at] == Approx(before * squares / along).epsilon(0.02));
        }
      }
    }
}

TEST_CASE("block-scaled operands: NVINT4, MXINT8, UE5M3, HiFloat4 and FP32-scaled products are exact sums of decoded values",
          "[switches]") {
  constexpr int64_t rows = 20, in = 96, out = 32;
  const StepContext step{3, 1, 0, false};
  for (const char *name : {"nvint4-hadamard", "mxint8", "ue5m3", "hif4", "ue5m3-graphcore", "ufp4", "mxfp4-macro"}) {
    INFO(name);
    const Recipe r = switched(name);
    Group g(r, rows, in, {out});
    g.forward(step);
    const OperandRecipe &a = g.layers->recipe(0).fprop.a, &b = g.layers->recipe(0).fprop.b;
    CHECK(std::string_view(g.layers->recipe(0).fprop.unit).starts_with("exact:dot."));
    // a rotation of both operands leaves products as they are, so decoded and rotated back they give them
    const Floats x = decoded(a, in_bf16(g.x), rows, in, Axis::row, {}),
                 w = decoded(b, in_bf16(g.weights[0]), out, in, Axis::row, {});
    Floats want(size_t(rows * out));
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < out; ++j) {
        double sum = 0;
        for (int64_t c = 0; c < in; ++c) sum += double(x[size_t(i * in + c)]) * double(w[size_t(j * in + c)]);
        want[size_t(i * out + j)] = float(sum);
      }
    CHECK(relative(g.y[0], want) < 0.003); // BF16 outputs, FP32 accumulation of steps
    CHECK(relative(g.y[0], want) > 0);
    g.backward(step);
    for (const float v : g.weight_grads[0]) CHECK(std::isfinite(v));
  }
}

TEST_CASE("variations whose operands are quantized once are their three products by hand, bit for bit", "[switches]") {
  constexpr int64_t rows = 48, in = 64, out = 48;
  const StepContext step{3, 1, 0, false};
  for (const char *name : {"nvfp4-w1x16", "nvfp4-sr-x", "nvfp4-4over6", "nvint4-hadamard", "mxint8", "ue5m3", "fp4-all-the-way",
                           "nvfp4-wgrad-nvint4", "mxfp4-rht", "hif4", "ue5m3-graphcore", "fouroversix", "ufp4", "mxfp4-macro"}) {
    INFO(name);
    Group g(switched(name), rows, in, {out});
    for (int64_t i = 0; i < in; ++i) g.x[size_t(5 * in + i)] = 0.0f; // zeros, outliers
    g.x[3] = 300.0f;
    g.dy[0][70] = -0.5f;
    const Floats grads_before = g.weight_grads[0];
    g.forward(step);
    g.backward(step);
    const LinearRecipe &l = g.layers->recipe(0);
    const auto product = [&](const GemmRecipe &gemm, Product p, const Floats &a, int64_t a_rows, Axis a_axis, const Floats &b,
                             int64_t b_rows, Axis b_axis, const Floats &c) {
      const auto key = [&](RandomUse use) { return random_key(step.seed, 7, p, use, step.step, 0); };
      const BlockScaled qa = quantize_by_hand(gemm.a, in_bf16(a), a_rows, a_axis, key(RandomUse::operand_a)),
                        qb = quantize_by_hand(gemm.b, in_bf16(b), b_rows, b_axis, key(RandomUse::operand_b));
      const Unit &unit = find_unit(gemm.unit);
      return values_of(GemmPlan(unit, {.beta = c.empty() ? 0.0f : 1.0f, .out = c.empty() ? gemm.output : FormatId::f32})
                           .run(make_operand(unit, Side::a, qa), make_operand(unit, Side::b, qb),
                                {.c = {reinterpret_cast<const uint8_t *>(c.data()), 4 * c.size()}}));
    };
    const Floats &w = g.weights[0], &dy = g.dy[0];
    CHECK(same_bits(g.y[0], product(l.fprop, Product::fprop, g.x, rows, Axis::row, w, out, Axis::row, {})));
    CHECK(same_bits(g.dx, product(l.dgrad, Product::dgrad, dy, rows, Axis::row, w, out, Axis::col, {})));
    CHECK(same_bits(g.weight_grads[0], product(l.wgrad, Product::wgrad, dy, rows, Axis::col, g.x, rows, Axis::col, grads_before)));
  }
}

TEST_CASE("variations round-trip, differ from their bases, and what has no meaning is refused",
          "[switches]") {
  const auto refused = [](Recipe r, const char *expected) {
    std::string what = "accepted";
    try {
      check_recipe(r, "r");
    } catch (const Error &e) {
      what = e.what();
    }
    CHECK_THAT(what, Catch::Contains(expected));
  };
  CHECK(recipe_variations().size() == 30);
  for (const RecipeVariation &v : recipe_variations()) {
    INFO(v.name);
    const Recipe r = load_recipe(std::string(v.name));
    CHECK(r.name == v.name);
    CHECK(r.description == v.description);
    CHECK(parse_recipe(to_json(r), "again") == r);
    Recipe named = r; // something else is other than in the base
    named.name = load_recipe(std::string(v.base)).name;
    named.description = load_recipe(std::string(v.base)).description;
    CHECK_FALSE(named == load_recipe(std::string(v.base)));
    bool exact = false;
    for (const auto &[name, l] : r.linears)
      for (const GemmRecipe *g : {&l.fprop, &l.dgrad, &l.wgrad})
        exact |= g->a.format == OperandFormat::block_scaled || g->a.format == OperandFormat::simulated;
    CHECK(exact == !v.on_hardware);
  }
  Recipe r = load_recipe("nvfp4-decoded");
  LinearRecipe &l = r.linears.at("nvfp4");
  l.fprop.a.rounding = ElementRounding::sr_carry8;
  refused(r,
          "r.linears.nvfp4.wgrad.b: decoded needs a block-scaled format here and in fprop, there to nearest");
  r = load_recipe("nvfp4-decoded");
  r.linears.at("nvfp4").dgrad.a.decoded = true;
  refused(r, "r.linears.nvfp4.dgrad.a: decoded is for W of dgrad (b) and x of wgrad (b)");
  r = load_recipe("nvfp4-eden");
  r.linears.at("nvfp4").wgrad.a.rounding = ElementRounding::sr_exact;
  refused(r, "a scale correction needs nvfp4 in blocks of one row, rounded to nearest");
  r = load_recipe("nvint4-hadamard");
  r.linears.at("nvfp4").fprop.b.convention = "mxint8-ceil";
  r.linears.at("nvfp4").fprop.b.hadamard = true;
  refused(r, "does not take these operands");
  r = load_recipe("hcp");
  r.linears.at("nvfp4").fprop.a.scale_correction = ScaleCorrection::eden;
  refused(r, "Hot-Channel Patch needs nvfp4 operands without a rotation");
}

} // namespace nvfp4::test
