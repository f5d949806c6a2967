// SPDX-License-Identifier: Apache-2.0
// Rotations of other sizes and signs than quantize() has, against sums written out and products composed by hand.
#include "nvfp4/reference_models/linear/product_recipe.hpp"
#include "nvfp4/reference_models/linear/rotation.hpp"
#include "nvfp4/reference_models/linear/scale_correction.hpp"
#include "tests/reference_models/linear/support.hpp"

#include <bit>
#include <limits>

namespace nvfp4::test {
namespace {

constexpr SignWords kSigns = {0x9E3779B9u, 0x00000000u, 0xFFFFFFFFu, 0x2545F491u};

/// Output j of a group, its terms added one by one.
float term_by_term(const float *x, int size, int j, const SignWords &signs) {
  double sum = 0;
  for (int i = 0; i < size; ++i) {
    const bool negative = ((std::popcount(unsigned(i & j)) & 1) != 0) != (((signs[size_t(i / 32)] >> (i % 32)) & 1) != 0);
    const double v = double(round_to_bf16(x[i]));
    sum += negative ? -v : v;
  }
  return sum == 0 ? 0.0f : round_to_bf16(float(sum * (1.0 / std::sqrt(double(size)))));
}

/// Values that FP64 adds exactly in any order: BF16, within 2^20 of each other.
Floats tame(int64_t n, uint64_t seed) {
  Floats x = in_bf16(normal(n, 1, seed));
  for (float &v : x)
    if (std::abs(v) < 0x1p-16f) v = 0.0f;
  for (size_t i = 0; i < x.size(); i += 37) x[i] *= 16; // outliers
  return x;
}

Recipe with_size(const std::string &name, int size, RotationSigns signs) {
  const Recipe r = load_recipe(name);
  Recipe out = uniform_recipe(name, r.default_linear);
  LinearRecipe &l = out.linears.at(out.default_linear);
  for (OperandRecipe *o : {&l.wgrad.a, &l.wgrad.b}) {
    o->hadamard_size = size;
    o->hadamard_signs = signs;
  }
  return out;
}

} // namespace

TEST_CASE("groups of every size are what their sums say", "[rotation]") {
  for (const int size : {16, 32, 64, 128}) {
    CAPTURE(size);
    const int64_t rows = 3, cols = 2 * size + 5;
    const Floats x = tame(rows * cols, uint64_t(size));
    const Rotated y = rotated(x.data(), rows, cols, Axis::row, size, kSigns);
    REQUIRE(y.rows == rows);
    REQUIRE(y.cols == 3 * size); // filled up with zeros
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t first = 0; first < y.cols; first += size) {
        Floats group(size_t(size), 0.0f);
        for (int i = 0; i < size && first + i < cols; ++i) group[size_t(i)] = x[size_t(r * cols + first + i)];
        for (int j = 0; j < size; ++j)
          CHECK(bit_cast<uint32_t>(y.values[size_t(r * y.cols + first + j)]) ==
                bit_cast<uint32_t>(term_by_term(group.data(), size, j, kSigns)));
      }
    // down columns the same of the transpose
    Floats turned(x.size());
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) turned[size_t(c * rows + r)] = x[size_t(r * cols + c)];
    const Rotated down = rotated(turned.data(), cols, rows, Axis::col, size, kSigns);
    REQUIRE(down.rows == y.cols);
    REQUIRE(down.cols == rows);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < y.cols; ++c)
        CHECK(bit_cast<uint32_t>(down.values[size_t(c * rows + r)]) == bit_cast<uint32_t>(y.values[size_t(r * y.cols + c)]));
  }
}

TEST_CASE("groups of 16 under the fixed signs are quantize()'s", "[rotation]") {
  Floats x = in_bf16(normal(64 * 16, 1, 3));
  x[5] = 1e30f;
  x[40] = -0.0f;
  x[70] = std::numeric_limits<float>::infinity();
  x[100] = std::numeric_limits<float>::quiet_NaN();
  for (int64_t i = 160; i < 176; ++i) x[size_t(i)] = -0.0f;
  const Rotated y = rotated(x.data(), 1, int64_t(x.size()), Axis::row, 16, kFixedSigns);
  for (size_t first = 0; first < x.size(); first += 16) {
    float group[16];
    std::copy_n(x.begin() + int64_t(first), 16, group);
    rotate16(group);
    for (size_t i = 0; i < 16; ++i) CHECK(bit_cast<uint32_t>(y.values[first + i]) == bit_cast<uint32_t>(group[i]));
  }
  for (size_t i = 160; i < 176; ++i) CHECK(bit_cast<uint32_t>(y.values[i]) == 0u);
}

TEST_CASE("signs of a step are a function of seed, step and product", "[rotation]") {
  const auto at = [](uint64_t seed, Product p, int64_t step) { return rotation_signs(RotationSigns::step, seed, p, step); };
  CHECK(at(1, Product::wgrad, 5) == at(1, Product::wgrad, 5));
  CHECK(at(1, Product::wgrad, 5) != at(1, Product::wgrad, 6));
  CHECK(at(1, Product::wgrad, 5) != at(1, Product::dgrad, 5));
  CHECK(at(1, Product::wgrad, 5) != at(2, Product::wgrad, 5));
  CHECK(rotation_signs(RotationSigns::fixed, 1, Product::wgrad, 5) == kFixedSigns);
  CHECK(rotation_signs(RotationSigns::none, 1, Product::wgrad, 5) == SignWords{});
  int ones = 0;
  for (int64_t step = 0; step < 100; ++step)
    for (const uint32_t w : at(7, Product::dgrad, step)) ones += std::popcount(w);
  CHECK(std::abs(ones - 6400) < 240); // three deviations
}

TEST_CASE("a layer's wgrad under other sizes and signs is that of operands rotated by hand", "[rotation]") {
  constexpr int64_t rows = 72, in = 48, out = 32; // 72 tokens fill up to 96, 128
  const StepContext step{9, 4, 0, false};
  for (const int size : {16, 32, 128})
    for (const RotationSigns signs : {RotationSigns::fixed, RotationSigns::none, RotationSigns::step}) {
      CAPTURE(size, to_string(signs));
      Group g(with_size("nvfp4", size, signs), rows, in, {out});
      const Floats grads_before = g.weight_grads[0];
      g.forward(step);
      g.backward(step);
      GemmRecipe gemm = g.layers->recipe(0).wgrad;
      REQUIRE(gemm.a.hadamard_size == size);
      gemm.a.hadamard = gemm.b.hadamard = false; // what follows has the rotated tensors
      const SignWords words = rotation_signs(signs, step.seed, Product::wgrad, step.step);
      const auto turn = [&](const Floats &x, int64_t cols) {
        return rotated(in_bf16(x).data(), rows, cols, Axis::col, size, words);
      };
      const Rotated dy = turn(g.dy[0], out), x = turn(g.x, in);
      const auto key = [&](RandomUse use) { return random_key(step.seed, 7, Product::wgrad, use, step.step, 0); };
      // a size of 16 is quantize()'s own, which pads likewise
      CHECK(g.weight_grads[0] == product_by_hand(gemm, dy.values, dy.rows, Axis::col, key(RandomUse::operand_a), x.values, x.rows,
                                                 Axis::col, key(RandomUse::operand_b), grads_before));
    }
}

TEST_CASE("rotations of dgrad fill up outputs that are no whole number of groups", "[rotation]") {
  constexpr int64_t rows = 16, in = 64, out = 48;
  const StepContext step{9, 4, 0, false};
  Recipe r = uniform_recipe("nvfp4-plain", "nvfp4");
  LinearRecipe &l = r.linears.at("nvfp4");
  for (OperandRecipe *o : {&l.dgrad.a, &l.dgrad.b}) {
    o->hadamard = true;
    o->hadamard_size = 64;
  }
  check_recipe(r, "r");
  Group g(r, rows, in, {out});
  g.backward(step);
  GemmRecipe gemm = g.layers->recipe(0).dgrad;
  gemm.a.hadamard = gemm.b.hadamard = false;
  const Rotated dy = rotated(in_bf16(g.dy[0]).data(), rows, out, Axis::row, 64, kFixedSigns),
                w = rotated(in_bf16(g.weights[0]).data(), out, in, Axis::col, 64, kFixedSigns);
  CHECK(g.dx == product_by_hand(gemm, dy.values, rows, Axis::row, {}, w.values, w.rows, Axis::col, {}));
}

TEST_CASE("MS-EDEN's operands: fprop's decoded copies, rotated in 128 with a step's signs, corrected, by hand", "[rotation]") {
  constexpr int64_t rows = 80, in = 96, out = 48; // none a multiple of 128
  const StepContext step{9, 4, 0, false};
  Group g(uniform_recipe("nvfp4-ms-eden", "nvfp4"), rows, in, {out});
  const Floats grads_before = g.weight_grads[0];
  g.forward(step);
  g.backward(step);
  const LinearRecipe &l = g.layers->recipe(0);
  const auto copy = [&](const Floats &v, int64_t n) { // fprop's, along rows
    const Floats bf16 = in_bf16(v);
    return in_bf16(dequantize(quantize({bf16.data(), n, in}, find_convention("te-4over6-mse"), {.source = FormatId::bf16})));
  };
  const auto made = [&](const Floats &v, int64_t n, Axis axis, Product p, RandomUse use) {
    const Rotated turned = rotated(v.data(), n, int64_t(v.size()) / n, axis, 128, rotation_signs(RotationSigns::step, 9, p, 4));
    const MatrixView<const float> view(turned.values.data(), turned.rows, turned.cols);
    BlockScaled q = quantize(view, find_convention("quartet2-eden"), {.axis = axis, .source = FormatId::bf16});
    correct_scales(q, view, random_key(9, 7, p, use, 4, 0));
    return q;
  };
  const auto product = [&](const GemmRecipe &r, const BlockScaled &a, const BlockScaled &b, const Floats &c) {
    const Unit &unit = find_unit(r.unit);
    return values_of(GemmPlan(unit, {.alpha = global_alpha(a, b, 1.0f, AlphaRule::by_convention),
                                     .beta = c.empty() ? 0.0f : 1.0f,
                                     .out = c.empty() ? r.output : FormatId::f32})
                         .run(pack_by_hand(unit, Side::a, a), pack_by_hand(unit, Side::b, b),
                              {.c = {reinterpret_cast<const uint8_t *>(c.data()), 4 * c.size()}}));
  };
  const Floats x = copy(g.x, rows), w = copy(g.weights[0], out), dy = in_bf16(g.dy[0]);
  CHECK(g.dx == product(l.dgrad, made(dy, rows, Axis::row, Product::dgrad, RandomUse::operand_a),
                        made(w, out, Axis::col, Product::dgrad, RandomUse::operand_b), {}));
  CHECK(g.weight_grads[0] == product(l.wgrad, made(dy, rows, Axis::col, Product::wgrad, RandomUse::operand_a),
                                     made(x, rows, Axis::col, Product::wgrad, RandomUse::operand_b), grads_before));
}

TEST_CASE("rotations that differ, and sizes that there are not, are refused", "[rotation]") {
  const auto refused = [](const std::function<void(LinearRecipe &)> &change, const char *expected) {
    Recipe r = load_recipe("nvfp4");
    change(r.linears.at("nvfp4"));
    CHECK_THROWS_WITH(check_recipe(r, "r"), Catch::Contains(expected));
  };
  refused([](LinearRecipe &l) { l.wgrad.a.hadamard_size = 32; }, "r.linears.nvfp4.wgrad: both operands are rotated alike");
  refused([](LinearRecipe &l) { l.wgrad.b.hadamard_signs = RotationSigns::none; }, "both operands are rotated alike");
  refused([](LinearRecipe &l) { l.wgrad.a.hadamard_size = l.wgrad.b.hadamard_size = 48; },
          "wgrad.a: expected hadamard_size 16, 32, 64 or 128, got 48");
  refused([](LinearRecipe &l) { l.fprop.a.hadamard_signs = RotationSigns::step; }, "fprop.a: hadamard_size and hadamard_signs speak");
  OperandRecipe o{.format = OperandFormat::nvfp4, .convention = "te", .hadamard = true};
  CHECK_FALSE(needs_cpu(o)); // a GPU has any signs, for groups of 16
  o.hadamard_signs = RotationSigns::step;
  CHECK_FALSE(needs_cpu(o));
  o.hadamard_size = 32;
  CHECK(needs_cpu(o));
}

} // namespace nvfp4::test
