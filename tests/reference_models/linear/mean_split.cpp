// SPDX-License-Identifier: Apache-2.0
// A mean that is quantized by itself: two products in fprop and dgrad, four in wgrad, composed by hand.
#include "nvfp4/reference_models/linear/linear_layer.hpp"
#include "nvfp4/reference_models/linear/product_recipe.hpp"
#include "tests/reference_models/linear/support.hpp"

namespace nvfp4::test {
namespace {

constexpr int64_t kRows = 40, kIn = 80, kOut = 48; // tokens no multiple of 16, of an odd number of blocks
const StepContext kStep{5, 3, 1, false};

/// An operand of a product with the factor of its global scale.
struct Packed {
  GemmOperand operand;
  GlobalFactor global;
};

RandomKey key_of(Product product, RandomUse use) {
  return random_key(kStep.seed, 7, product, use, kStep.step, kStep.micro_batch);
}

Packed packed(const BlockScaled &q, Side side, const Unit &unit) {
  GemmOperand facts;
  facts.take_facts(q);
  return {pack_by_hand(unit, side, q), facts.global};
}

Floats less_means(Floats x, int64_t rows) {
  const Floats means = means_by_hand(x, rows);
  for (size_t i = 0; i < x.size(); ++i) x[i] -= means[i % means.size()];
  return x;
}

/// Q(x - mean), x (rows, cols).
Packed residual(const OperandRecipe &recipe, const Floats &x, int64_t rows, Axis axis, RandomKey key, Side side, const Unit &unit) {
  return packed(quantize_by_hand(recipe, less_means(x, rows), rows, axis, key), side, unit);
}

/// Q(mean), one row.
BlockScaled quantized_mean(const OperandRecipe &recipe, const Floats &x, int64_t rows, RandomKey key) {
  key.offset |= uint64_t{1} << 63;
  return quantize_by_hand(recipe, means_by_hand(x, rows), 1, Axis::row, key);
}

/// Its transpose times a row of ones: (channels, tokens), every block of a channel with the channel's code and its block's scale.
Packed along_tokens(const BlockScaled &mean, int64_t tokens, Side side, const Unit &unit) {
  const int64_t padded = (tokens + 15) / 16 * 16;
  std::vector<uint8_t> codes(size_t(mean.k * padded / 2), 0), scales;
  for (int64_t c = 0; c < mean.k; ++c) {
    for (int64_t t = 0; t < tokens; ++t)
      codes[size_t((c * padded + t) / 2)] |= uint8_t(mean.code(0, c) << (4 * (t % 2)));
    for (int64_t b = 0; b < padded / 16; ++b) scales.push_back(mean.scales[size_t(c / 16)]);
  }
  GemmOperand facts;
  facts.take_facts(mean);
  return {make_operand(unit, side, RawCodes{mean.k, padded, codes}, RawScales(scales, ScaleLayout::linear)), facts.global};
}

/// fma(alpha, a b^T, c); without c alpha a b^T.
Floats product(const Unit &unit, const Packed &a, const Packed &b, const Floats &c) {
  const GemmOptions options{.alpha = global_alpha(a.global, b.global, 1.0f, AlphaRule::by_convention),
                            .beta = c.empty() ? 0.0f : 1.0f,
                            .out = FormatId::f32};
  const std::span<const uint8_t> words{reinterpret_cast<const uint8_t *>(c.data()), 4 * c.size()};
  return values_of(GemmPlan(unit, options).run(a.operand, b.operand, {.c = words}));
}

/// 1 Q(mean) Q(W)^T, its one row for all tokens, then Q(residual) Q(W)^T; a bias; BF16.
Floats split_by_hand(const GemmRecipe &g, const Floats &data, const Floats &weight, Axis axis, Product which,
                     const Floats &bias = {}) {
  const Unit &unit = find_unit(g.unit);
  const RandomKey key = key_of(which, RandomUse::operand_a);
  const Packed w = packed(quantize_by_hand(g.b, weight, kOut, axis, {}), Side::b, unit);
  const Floats row = product(unit, packed(quantized_mean(g.a, data, kRows, key), Side::a, unit), w, {});
  Floats sum;
  for (int64_t t = 0; t < kRows; ++t) sum.insert(sum.end(), row.begin(), row.end());
  sum = product(unit, residual(g.a, data, kRows, Axis::row, key, Side::a, unit), w, sum);
  for (size_t i = 0; i < sum.size(); ++i) sum[i] = round_to_bf16(bias.empty() ? sum[i] : sum[i] + bias[i % bias.size()]);
  return sum;
}

Group group_with_means(const Recipe &recipe, std::vector<int64_t> outs = {kOut}, bool bias = false, int threads = 1) {
  Group g(recipe, kRows, kIn, std::move(outs), 1, bias, threads);
  for (int64_t i = 0; i < kRows; ++i) {
    for (int64_t c = 0; c < kIn; ++c) g.x[size_t(i * kIn + c)] += c == 3 ? 30.0f : float(c % 7) - 3.0f;
    g.x[size_t(i * kIn + 4)] = 0.0f;
    for (int64_t c = 0; c < kOut; ++c) g.dy[0][size_t(i * kOut + c)] += c % 5 == 0 ? -0.003f : 0.0004f;
  }
  return g;
}

} // namespace

TEST_CASE("Averis' products of residuals and means, bit for bit", "[mean_split]") {
  const Recipe r = uniform_recipe("averis", "nvfp4");
  const LinearRecipe l = r.resolve("attn.q_proj", 0, 4);
  Group g = group_with_means(r, {kOut}, true);
  Floats grads = g.weight_grads[0];
  g.forward(kStep);
  g.backward(kStep);
  const Floats x = in_bf16(g.x), w = in_bf16(g.weights[0]), dy = in_bf16(g.dy[0]);
  CHECK(same_bits(g.y[0], split_by_hand(l.fprop, x, w, Axis::row, Product::fprop, g.biases[0])));
  CHECK(same_bits(g.dx, split_by_hand(l.dgrad, dy, w, Axis::col, Product::dgrad)));

  const Unit &unit = find_unit(l.wgrad.unit);
  const RandomKey of_dy = key_of(Product::wgrad, RandomUse::operand_a), of_x = key_of(Product::wgrad, RandomUse::operand_b);
  const Packed d_r = residual(l.wgrad.a, dy, kRows, Axis::col, of_dy, Side::a, unit),
               d_m = along_tokens(quantized_mean(l.wgrad.a, dy, kRows, of_dy), kRows, Side::a, unit),
               x_r = residual(l.wgrad.b, x, kRows, Axis::col, of_x, Side::b, unit),
               x_m = along_tokens(quantized_mean(l.wgrad.b, x, kRows, of_x), kRows, Side::b, unit);
  for (const auto &[a, b] : {std::pair(&d_r, &x_r), {&d_m, &x_r}, {&d_r, &x_m}, {&d_m, &x_m}}) grads = product(unit, *a, *b, grads);
  CHECK(same_bits(g.weight_grads[0], grads));
}

TEST_CASE("the order of a split wgrad's sum, and each of its four products, can be seen", "[mean_split]") {
  const Recipe r = uniform_recipe("averis", "nvfp4");
  const LinearRecipe l = r.resolve("attn.q_proj", 0, 4);
  Group g = group_with_means(r);
  const Floats before = g.weight_grads[0];
  g.backward(kStep);
  const Floats x = in_bf16(g.x), dy = in_bf16(g.dy[0]);
  const Unit &unit = find_unit(l.wgrad.unit);
  const RandomKey of_dy = key_of(Product::wgrad, RandomUse::operand_a);
  const Packed d_r = residual(l.wgrad.a, dy, kRows, Axis::col, of_dy, Side::a, unit),
               d_m = along_tokens(quantized_mean(l.wgrad.a, dy, kRows, of_dy), kRows, Side::a, unit),
               x_r = residual(l.wgrad.b, x, kRows, Axis::col, {}, Side::b, unit),
               x_m = along_tokens(quantized_mean(l.wgrad.b, x, kRows, {}), kRows, Side::b, unit);
  const std::pair<const Packed *, const Packed *> pairs[] = {{&d_r, &x_r}, {&d_m, &x_r}, {&d_r, &x_m}, {&d_m, &x_m}};
  const auto sum = [&](std::initializer_list<int> order) {
    Floats all = before;
    for (const int i : order) all = product(unit, *pairs[i].first, *pairs[i].second, all);
    return all;
  };
  CHECK(same_bits(g.weight_grads[0], sum({0, 1, 2, 3})));
  for (const auto &other : {std::initializer_list<int>{0, 2, 1, 3}, {1, 0, 2, 3}, {0, 1, 3, 2}, {0, 1, 2}, {0, 1, 3}, {0, 2, 3}, {1, 2, 3}})
    CHECK_FALSE(same_bits(g.weight_grads[0], sum(other)));
}

TEST_CASE("a split mean does not depend on threads, on layers that share x, or on who calls", "[mean_split]") {
  const Recipe r = uniform_recipe("averis", "nvfp4");
  Group one = group_with_means(r, {kOut, 32}, true), two = group_with_means(r, {kOut, 32}, true, 2), alone = group_with_means(r, {kOut}, true);
  for (Group *g : {&one, &two, &alone}) {
    g->forward(kStep);
    g->backward(kStep);
  }
  CHECK(one.digest() == two.digest());
  CHECK(same_bits(one.y[0], alone.y[0]));
  CHECK(same_bits(one.weight_grads[0], alone.weight_grads[0]));
  // a second step on the same group, as its temporaries hold other things now
  Group fresh = group_with_means(r, {kOut, 32}, true);
  StepContext next = kStep;
  next.step = 4;
  one.weight_grads = fresh.weight_grads;
  one.bias_grads = fresh.bias_grads;
  one.bind(r);
  for (Group *g : {&one, &fresh}) {
    g->forward(next);
    g->backward(next);
  }
  CHECK(one.digest() == fresh.digest());
  // a caller's layer, whose x has a number
  auto device = std::make_shared<LayerDevice>();
  device->backend = make_cpu_backend(1);
  device->engine = make_cpu_operand_engine(1);
  LinearLayer layer(device, {"attn.q_proj", 0, 4, 7, kIn, kOut}, r);
  for (int call = 0; call < 2; ++call) {
    Floats y(size_t(kRows * kOut));
    layer.forward(kStep, {.x = alone.x.data(), .rows = kRows, .weight = alone.weights[0].data(), .bias = alone.biases[0].data(), .contents = 9},
                  y.data());
    CHECK(same_bits(y, alone.y[0]));
  }
}

TEST_CASE("where channels have a mean, taking it apart leaves errors that all tokens share, and its words are its own",
          "[mean_split]") {
  const auto errors = [](const char *name) { // as they vary from token to token
    Group g = group_with_means(uniform_recipe(name, "nvfp4"));
    g.forward(kStep);
    std::vector<double> e = exact_product(in_bf16(g.x), in_bf16(g.weights[0]), kIn);
    for (size_t i = 0; i < e.size(); ++i) e[i] = double(g.y[0][i]) - e[i];
    double sum = 0;
    for (int64_t c = 0; c < kOut; ++c) {
      double mean = 0;
      for (int64_t t = 0; t < kRows; ++t) mean += e[size_t(t * kOut + c)] / kRows;
      for (int64_t t = 0; t < kRows; ++t) sum += (e[size_t(t * kOut + c)] - mean) * (e[size_t(t * kOut + c)] - mean);
    }
    return sum;
  };
  const double split = errors("averis"), plain = errors("nvfp4-plain");
  INFO(split << " with the split, " << plain << " without");
  CHECK(split < 0.5 * plain);
  const RandomKey key = key_of(Product::dgrad, RandomUse::operand_a);
  CHECK(key_of_mean(key).seed == key.seed);
  CHECK(key_of_mean(key).offset == (key.offset | 0x8000000000000000u));
}

TEST_CASE("what a quantized mean cannot go with is refused", "[mean_split]") {
  const auto refused = [](const std::function<void(Recipe &)> &change, const char *expected) {
    Recipe r = load_recipe("averis");
    change(r);
    CHECK_THROWS_WITH(check_recipe(r, "r"), Catch::Contains(expected));
  };
  const auto in_linear = [&](const std::function<void(LinearRecipe &)> &change, const char *expected) {
    refused([&](Recipe &r) { change(r.linears.at("nvfp4")); }, expected);
  };
  const char *const needs = "mean quantized needs nvfp4 in blocks of one row, without rotation, decoded and scale_correction";
  in_linear([](LinearRecipe &l) { l.fprop.b.mean = MeanSplit::quantized; }, "fprop.b: mean is over tokens");
  in_linear([](LinearRecipe &l) { l.dgrad.b.mean = MeanSplit::quantized; }, "dgrad.b: mean is over tokens");
  in_linear([](LinearRecipe &l) { l.fprop.a.block_rows = 16; }, needs);
  in_linear([](LinearRecipe &l) { l.wgrad.a.hadamard = l.wgrad.b.hadamard = true; }, needs);
  in_linear([](LinearRecipe &l) { l.wgrad.b.decoded = true; }, needs);
  in_linear([](LinearRecipe &l) { l.dgrad.a.rounding = ElementRounding::nearest, l.dgrad.a.scale_correction = ScaleCorrection::eden; },
            needs);
  in_linear([](LinearRecipe &l) { l.fprop.a.format = OperandFormat::mxfp4, l.fprop.a.convention = "mxfp4"; }, needs);
  in_linear([](LinearRecipe &l) { l.wgrad.b.mean = MeanSplit::none, l.wgrad.b.decoded = true; },
            "decoded needs a block-scaled format here and in fprop, there to nearest, without rotation, correction and mean");
  in_linear([](LinearRecipe &l) { l.wgrad.output = FormatId::bf16; }, "wgrad.output: products of a quantized mean are added");
  in_linear([](LinearRecipe &l) { l.hcp.enabled = true; }, "hcp: the Hot-Channel Patch does not go with a quantized mean");
  refused([](Recipe &r) { r.amax_period = 50; }, "a quantized mean has an amax of its own");
  refused([](Recipe &r) { r.mixer_rules = {{.roles = {"attn.qk"}, .use = "nvfp4"}}; }, "quantizes a mean by itself, which is for linear layers");
  refused([](Recipe &r) { r.kv_cache = r.linears.at("nvfp4").fprop.a; }, "scale_correction and mean");
  CHECK(needs_cpu(load_recipe("averis").linears.at("nvfp4")));
}

} // namespace nvfp4::test
