// SPDX-License-Identifier: Apache-2.0
// The rules of a linear layer as README.md of reference_models states them, written again from there:
// epilogue and bias, dgrads of a group, the Hot-Channel Patch, column sums. quantize() and the accumulators
// of a product are taken from the emulator; decoding, segments, epilogue and sums have loops of their own
// here.
#include "tests/reference_models/linear/hcp_support.hpp"

#include <algorithm>

namespace nvfp4::test {
namespace {

uint32_t word(float x) { return bit_cast<uint32_t>(x); }

/// To BF16, nearest even, of what is not NaN.
float nearest_bf16(float x) {
  const uint32_t w = word(x);
  return bit_cast<float>((w + 0x7FFFu + (w >> 16 & 1)) & 0xFFFF0000u);
}

Floats to_source(Floats x) {
  for (float &v : x) v = nearest_bf16(v);
  return x;
}

Floats transposed(const Floats &x, int64_t cols) {
  Floats out;
  for (int64_t c = 0; c < cols; ++c)
    for (size_t i = size_t(c); i < x.size(); i += size_t(cols)) out.push_back(x[i]);
  return out;
}

float e2m1_value(int code) {
  const float magnitudes[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  return code & 8 ? -magnitudes[code & 7] : magnitudes[code & 7];
}
float e4m3_value(int code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  return exponent == 0 ? std::ldexp(float(mantissa), -9) : std::ldexp(float(8 + mantissa), exponent - 10);
}

enum class Decode { documented, scale_first }; ///< scale_first: another order, which must be told apart

/// The values that the codes stand for, by the formula of the document for the preset.
Floats decoded(const BlockScaled &q, Decode how = Decode::documented) {
  Floats out;
  for (int64_t r = 0; r < q.rows; ++r)
    for (int64_t c = 0; c < q.k; ++c) {
      const int byte = q.codes[size_t(r * (q.padded_k / 2) + c / 2)];
      const float v = e2m1_value(c % 2 == 0 ? byte & 15 : byte >> 4);
      const float sf = e4m3_value(q.scales[size_t(r * (q.padded_k / 16) + c / 16)]);
      const float amax = q.global_amax;
      if (how == Decode::scale_first) {
        const float a = v * sf, b = a * amax;
        out.push_back(b * bit_cast<float>(0x39C30C31u));
      } else if (q.convention == "te") {
        const float a = sf * amax, b = a * bit_cast<float>(0x39C30C31u);
        out.push_back(v * b);
      } else if (q.convention == "fouroversix") {
        const float a = v * sf, b = a * amax;
        out.push_back(b / 1536.0f);
      } else if (q.convention == "torchao") {
        const float p = amax / 2688.0f, b = sf * p;
        out.push_back(v * b);
      } else if (q.convention == "compressed-tensors") {
        const float b = sf / q.global_encode;
        out.push_back(v * b);
      } else {
        REQUIRE(q.convention == "ggml");
        out.push_back(v * sf);
      }
    }
  return out;
}

/// alpha by the document, for two operands of one preset.
float alpha_of(const BlockScaled &a, const BlockScaled &b) {
  if (a.convention == "te") {
    const float product = a.global_amax * b.global_amax;
    return product * (1.0f / 7225344.0f);
  }
  return a.global_decode * b.global_decode;
}

/// Operands side by side, each from the block behind the last one of its neighbour.
GemmOperand joined(const Unit &unit, Side side, const std::vector<BlockScaled> &parts) {
  std::vector<uint8_t> codes, scales;
  int64_t k = 0;
  for (const BlockScaled &p : parts) k += p.padded_k;
  for (int64_t r = 0; r < parts[0].rows; ++r)
    for (const BlockScaled &p : parts) {
      for (int64_t i = 0; i < p.padded_k / 2; ++i) codes.push_back(p.codes[size_t(r * (p.padded_k / 2) + i)]);
      for (int64_t i = 0; i < p.padded_k / 16; ++i)
        scales.push_back(p.scales[size_t(r * (p.padded_k / 16) + i)]);
    }
  return make_operand(unit, side, RawCodes{parts[0].rows, k, codes}, RawScales(scales, ScaleLayout::linear));
}

/// The accumulators of a product.
Floats accumulators(const Unit &unit, const std::vector<BlockScaled> &a, const std::vector<BlockScaled> &b) {
  return values_of(GemmPlan(unit, {}).run(joined(unit, Side::a, a), joined(unit, Side::b, b)));
}

/// Those of the default unit of bf16; a and b are rounded first.
Floats bf16_accumulators(const Floats &a, int64_t a_rows, const Floats &b, int64_t b_rows) {
  const Unit &unit = find_unit("sm_90:wgmma.k16.f32.bf16");
  return values_of(GemmPlan(unit, {}).run(pack_bf16_by_hand(unit, Side::a, to_source(a), a_rows, Axis::row),
                                          pack_bf16_by_hand(unit, Side::b, to_source(b), b_rows, Axis::row)));
}

/// The end of a layer's product: alpha, bias, one rounding. `late`: the bias behind the rounding, which is
/// wrong.
Floats finished(const Floats &acc, float alpha, const Floats &bias, FormatId output, bool late = false) {
  Floats y;
  for (size_t i = 0; i < acc.size(); ++i) {
    float v = alpha * acc[i];
    if (!bias.empty() && !late) v = v + bias[i % bias.size()];
    if (output == FormatId::bf16) v = nearest_bf16(v);
    if (!bias.empty() && late) v = nearest_bf16(v + bias[i % bias.size()]);
    y.push_back(v);
  }
  return y;
}

/// One side of a product: quantized, and the values of the source type that it was made from.
struct Whole {
  BlockScaled main;
  Floats source; ///< (rows, k)
  Floats value = decoded(main);

  /// Hot channels of the residuals or of the values.
  [[nodiscard]] Floats gathered(bool residual, const std::vector<int32_t> &hot) const {
    Floats out;
    for (int64_t r = 0; r < main.rows; ++r)
      for (const int32_t c : hot) {
        const size_t i = size_t(r * main.k + c);
        out.push_back(residual ? source[i] - value[i] : value[i]);
      }
    return out;
  }
  /// The same quantized again, or, of values in whole blocks, with main's codes and scales.
  [[nodiscard]] BlockScaled segment(bool residual, const std::vector<int32_t> &hot, bool whole_blocks) const {
    const Floats x = gathered(residual, hot);
    QuantizeOptions options;
    if (main.convention != "ggml") options.global_amax = main.global_amax;
    BlockScaled q =
        quantize({x.data(), main.rows, int64_t(hot.size())}, find_convention(main.convention), options);
    if (residual || !whole_blocks) return q;
    for (int64_t r = 0; r < main.rows; ++r)
      for (size_t i = 0; i < hot.size(); i += 16) {
        q.scales[size_t(r * (q.padded_k / 16)) + i / 16] =
            main.scales[size_t(r * (main.padded_k / 16) + hot[i] / 16)];
        for (size_t byte = 0; byte < 8; ++byte)
          q.codes[size_t(r * (q.padded_k / 2)) + i / 2 + byte] =
              main.codes[size_t(r * (main.padded_k / 2) + hot[i] / 2) + byte];
      }
    return q;
  }
};

enum class Order { documented, exchanged }; ///< exchanged: the segments in the other order, on both sides

/// A patched product by the document.
Floats patched(const HcpRecipe &h, const Unit &unit, const Whole &a, const Whole &b,
               const std::vector<int32_t> &hot, const Floats &bias, FormatId output,
               Order order = Order::documented) {
  const float alpha = alpha_of(a.main, b.main);
  std::vector<bool> sides; // of each pair of segments: whether a's is the residual
  const bool first = order == Order::documented;
  for (const bool residual_of_a : {first, !first})
    if (h.side == (residual_of_a ? HcpSide::activation : HcpSide::weight) || h.side == HcpSide::both)
      sides.push_back(residual_of_a);
  const bool whole_blocks = h.reblock == HcpRecipe::Reblock::whole_blocks;
  std::vector<BlockScaled> of_a, of_b;
  for (const bool residual_of_a : sides) {
    of_a.push_back(a.segment(residual_of_a, hot, whole_blocks));
    of_b.push_back(b.segment(!residual_of_a, hot, whole_blocks));
  }
  if (h.kernel == HcpRecipe::Kernel::single) {
    of_a.insert(of_a.begin(), a.main);
    of_b.insert(of_b.begin(), b.main);
    return finished(accumulators(unit, of_a, of_b), alpha, bias, output);
  }
  Floats y = accumulators(unit, {a.main}, {b.main});
  for (float &v : y) v = alpha * v;
  for (size_t s = 0; s < sides.size(); ++s) {
    const bool bf16 = h.residual == HcpRecipe::Residual::bf16;
    const Floats more = bf16 ? bf16_accumulators(a.gathered(sides[s], hot), a.main.rows,
                                                 b.gathered(!sides[s], hot), b.main.rows)
                             : accumulators(unit, {of_a[s]}, {of_b[s]});
    for (size_t i = 0; i < y.size(); ++i) y[i] = std::fma(bf16 ? 1.0f : alpha, more[i], y[i]);
  }
  return finished(y, 1.0f, bias, output);
}

/// Column sums by the document: row r into partial sum r mod 32, then halves onto each other.
Floats column_sums(const Floats &x, int64_t cols) {
  Floats sums;
  for (int64_t c = 0; c < cols; ++c) {
    float partial[32] = {};
    for (int64_t r = 0; r < int64_t(x.size()) / cols; ++r)
      partial[r % 32] = partial[r % 32] + x[size_t(r * cols + c)];
    for (const int half : {16, 8, 4, 2, 1})
      for (int l = 0; l < half; ++l) partial[l] = partial[l] + partial[l + half];
    sums.push_back(partial[0]);
  }
  return sums;
}

/// Column by column the mean magnitude of what quantization left.
Floats mean_errors(const Whole &w) {
  Floats errors;
  for (size_t i = 0; i < w.source.size(); ++i) errors.push_back(std::fabs(w.source[i] - w.value[i]));
  Floats means = column_sums(errors, w.main.k);
  for (float &m : means) m = m / float(w.main.rows);
  return means;
}

/// Outliers, a channel and a row of zeros, a channel that the scales flush; all scaled.
void harden(Floats &x, int64_t cols, float scale) {
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t c = i % size_t(cols), r = i / size_t(cols);
    if (c == 5 || r == 3) x[i] = 0;
    if (c == 7 || c == 20) x[i] *= 150;
    if (c == 11) x[i] *= 1e-9f;
    if (c == 12 && r % 2 == 1) x[i] = -0.0f;
    x[i] *= scale;
  }
}

/// Tensors of a layer under hcp whose x is hard, and with them what the document says of both sides.
struct Layer {
  Recipe recipe;
  Group group;
  LinearRecipe linear;

  Layer(Recipe r, int64_t rows, int64_t in, int64_t out, bool bias, float scale)
      : recipe(std::move(r)), group(recipe, rows, in, {out}, 21, bias), linear(group.layers->recipe(0)) {
    harden(group.x, in, scale);
    harden(group.weights[0], in, 1);
    harden(group.dy[0], out, 1);
    group.bind(recipe);
  }
  [[nodiscard]] Whole x() const {
    const Floats source = recipe.source == FormatId::f32 ? group.x : to_source(group.x);
    return {quantize_by_hand(linear.fprop.a, source, group.rows, Axis::row, {}, recipe.source), source};
  }
  [[nodiscard]] Whole weight() const {
    const Floats source = recipe.source == FormatId::f32 ? group.weights[0] : to_source(group.weights[0]);
    return {quantize_by_hand(linear.fprop.b, source, group.outs[0], Axis::row, {}, recipe.source), source};
  }
};

Recipe hcp_recipe(const HcpRecipe &h, const std::string &convention, FormatId output) {
  Recipe r = with_hcp(h, convention);
  r.linears["nvfp4"].fprop.output = output;
  return r;
}

} // namespace

TEST_CASE("a patched product is what the document says", "[rules][hcp]") {
  using Kernel = HcpRecipe::Kernel;
  int exchanged = 0;
  for (const char *convention : {"te", "torchao", "fouroversix", "compressed-tensors", "ggml"})
    for (const HcpSide side : {HcpSide::both, HcpSide::activation, HcpSide::weight})
      for (const Kernel kernel : {Kernel::single, Kernel::dual})
        for (const FormatId output : {FormatId::bf16, FormatId::f32})
          for (const float scale : {1.0f, 0x1p90f, 0x1p-120f}) {
            if (scale != 1.0f && std::string(convention) == "ggml") continue; // no second level
            CAPTURE(convention, int(side), int(kernel), int(output), scale);
            const HcpRecipe h{.k = 32, .kernel = kernel, .side = side};
            Layer l(hcp_recipe(h, convention, output), 24, 88, 40, true, scale);
            l.group.forward({});
            const std::vector<int32_t> hot = l.group.layers->hot_channels(0).indices;
            REQUIRE(hot.size() == 32);
            const Unit &unit = find_unit(l.linear.fprop.unit);
            const auto by_document = [&](Order order) {
              return patched(h, unit, l.x(), l.weight(), hot, l.group.biases[0], output, order);
            };
            CHECK(same_bits(l.group.y[0], by_document(Order::documented)));
            if (side == HcpSide::both && output == FormatId::f32)
              exchanged += same_bits(l.group.y[0], by_document(Order::exchanged)) ? 0 : 1;
          }
  CHECK(exchanged > 10); // the test can tell the order of the segments
}

TEST_CASE("BF16 residuals and whole blocks are what the document says", "[rules][hcp]") {
  using Kernel = HcpRecipe::Kernel;
  const HcpRecipe blocks{
      .k = 32, .choice = HcpRecipe::Choice::blocks, .reblock = HcpRecipe::Reblock::whole_blocks};
  for (HcpRecipe h :
       {HcpRecipe{.k = 32, .kernel = Kernel::dual, .residual = HcpRecipe::Residual::bf16}, blocks})
    for (const HcpSide side : {HcpSide::both, HcpSide::activation, HcpSide::weight}) {
      h.side = side;
      CAPTURE(int(h.residual), int(side));
      Layer l(hcp_recipe(h, "te", FormatId::bf16), 24, 88, 40, true, 1);
      l.group.forward({});
      const std::vector<int32_t> hot = l.group.layers->hot_channels(0).indices;
      REQUIRE(hot.size() == 32);
      CHECK(same_bits(l.group.y[0], patched(h, find_unit(l.linear.fprop.unit), l.x(), l.weight(), hot,
                                            l.group.biases[0], FormatId::bf16)));
    }
}

TEST_CASE("hot channels as many as there are, and scores, are what the document says", "[rules][hcp]") {
  const HcpRecipe h{.fraction = 1};
  const std::pair<const char *, FormatId> cases[] = {
      {"te", FormatId::bf16},   {"torchao", FormatId::bf16},     {"compressed-tensors", FormatId::bf16},
      {"ggml", FormatId::bf16}, {"fouroversix", FormatId::bf16}, {"fouroversix", FormatId::f32},
      {"te", FormatId::f32}};
  for (const auto &[convention, source] : cases) {
    CAPTURE(convention, int(source));
    Recipe recipe = hcp_recipe(h, convention, FormatId::f32);
    recipe.source = source;
    Layer l(recipe, 70, 88, 40, false, 1);
    l.group.forward({});
    const HotChannels &hot = l.group.layers->hot_channels(0);
    REQUIRE(hot.indices.size() == 88); // 88 columns in a segment of 96
    const Whole x = l.x(), w = l.weight();
    const Unit &unit = find_unit(l.linear.fprop.unit);
    CHECK(same_bits(l.group.y[0], patched(h, unit, x, w, hot.indices, {}, FormatId::f32)));
    Floats scores = mean_errors(x);
    const Floats of_weight = mean_errors(w);
    for (size_t j = 0; j < scores.size(); ++j) scores[j] = scores[j] + of_weight[j];
    CHECK(same_bits(hot.scores, scores));
    std::vector<int32_t> order(88);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return scores[size_t(a)] > scores[size_t(b)]; });
    CHECK(hot.indices == order);
    CHECK(scores[5] == 0);                                                 // the channel of zeros
    CHECK_FALSE(same_bits(decoded(x.main, Decode::scale_first), x.value)); // the test can tell the order
  }
}

TEST_CASE("the patch of dgrad: dy as x, the transposed weight as W", "[rules][hcp]") {
  Layer l(hcp_recipe({.k = 32, .dgrad = true}, "te", FormatId::bf16), 24, 88, 72, false, 1);
  const StepContext step{.seed = 5, .step = 50, .micro_batch = 0};
  l.group.forward(step);
  l.group.backward(step);
  const GemmRecipe &g = l.linear.dgrad;
  const Floats dy = to_source(l.group.dy[0]), w = to_source(l.group.weights[0]);
  const Whole a{
      quantize_by_hand(g.a, dy, 24, Axis::row, random_key(5, 7, Product::dgrad, RandomUse::operand_a, 50, 0)),
      dy};
  const Whole b{
      quantize_by_hand(g.b, w, 72, Axis::col, random_key(5, 7, Product::dgrad, RandomUse::operand_b, 50, 0)),
      transposed(w, 88)};
  const std::vector<int32_t> hot = l.group.layers->hot_channels(0, Product::dgrad).indices;
  REQUIRE(hot.size() == 32);
  CHECK(same_bits(l.group.dx, patched(l.linear.hcp, find_unit(g.unit), a, b, hot, {}, g.output)));
}

TEST_CASE("the bias is added in FP32 behind alpha and before the one rounding", "[rules]") {
  for (const char *name : {"nvfp4", "bf16"})
    for (const FormatId output : {FormatId::bf16, FormatId::f32}) {
      CAPTURE(name, int(output));
      Recipe recipe = uniform_recipe(name, name);
      recipe.linears[name].fprop.output = output;
      Layer l(recipe, 24, 88, 40, true, 1);
      l.group.biases[0][2] = 1e6f;
      l.group.biases[0][9] = -0.0f;
      l.group.forward({});
      const GemmRecipe &g = l.linear.fprop;
      const Unit &unit = find_unit(g.unit);
      Floats acc;
      float alpha = 1;
      if (g.a.format == OperandFormat::bf16) {
        acc = bf16_accumulators(l.group.x, 24, l.group.weights[0], 40);
      } else {
        const Whole x = l.x(), w = l.weight();
        acc = accumulators(unit, {x.main}, {w.main});
        alpha = alpha_of(x.main, w.main);
      }
      CHECK(same_bits(l.group.y[0], finished(acc, alpha, l.group.biases[0], output)));
      if (output == FormatId::bf16)
        CHECK_FALSE(same_bits(l.group.y[0], finished(acc, alpha, l.group.biases[0], output, true)));
    }
}

TEST_CASE("gradients: dgrads of a group in its order, weights by one fma, biases by column sums", "[rules]") {
  const StepContext step{.seed = 5, .step = 3, .micro_batch = 2};
  const std::vector<int64_t> outs = {40, 72, 16, 48, 24};
  const int64_t rows = 48, in = 88;
  Recipe recipe = uniform_recipe("nvfp4", "nvfp4");
  recipe.linears["nvfp4"].wgrad.b.rounding = ElementRounding::sr_carry8; // so that x's key counts
  check_recipe(recipe, "test");
  Group g(recipe, rows, in, outs, 31, true);
  harden(g.x, in, 1);
  for (size_t i = 0; i < outs.size(); ++i)
    harden(g.dy[i], outs[i], std::ldexp(1.0f, i % 2 == 0 ? 0 : 17)); // so that sums are rounded
  g.bind(recipe);
  const std::vector<Floats> dw = g.weight_grads, db = g.bias_grads;
  g.forward(step);
  g.backward(step);
  std::vector<Floats> terms;
  for (size_t i = 0; i < outs.size(); ++i) {
    CAPTURE(i);
    const LinearRecipe l = g.layers->recipe(i);
    const auto key = [&](size_t of, Product p, RandomUse use) { return random_key(5, 7 + of, p, use, 3, 2); };
    const Floats dy = to_source(g.dy[i]), w = to_source(g.weights[i]);
    const BlockScaled a =
        quantize_by_hand(l.dgrad.a, dy, rows, Axis::row, key(i, Product::dgrad, RandomUse::operand_a));
    const BlockScaled b = quantize_by_hand(l.dgrad.b, w, outs[i], Axis::col, {});
    terms.push_back(
        finished(accumulators(find_unit(l.dgrad.unit), {a}, {b}), alpha_of(a, b), {}, FormatId::bf16));
    // x is quantized once, with the key of the first layer
    const BlockScaled dy_t =
        quantize_by_hand(l.wgrad.a, dy, rows, Axis::col, key(i, Product::wgrad, RandomUse::operand_a));
    const BlockScaled x_t = quantize_by_hand(l.wgrad.b, to_source(g.x), rows, Axis::col,
                                             key(0, Product::wgrad, RandomUse::operand_b));
    const Floats acc = accumulators(find_unit(l.wgrad.unit), {dy_t}, {x_t});
    Floats weight = dw[i], bias = db[i];
    for (size_t e = 0; e < acc.size(); ++e) weight[e] = std::fma(alpha_of(dy_t, x_t), acc[e], weight[e]);
    CHECK(same_bits(g.weight_grads[i], weight));
    const Floats sums = column_sums(g.dy[i], outs[i]); // of dy as it is, not rounded to BF16
    for (size_t e = 0; e < sums.size(); ++e) bias[e] = bias[e] + sums[e];
    CHECK(same_bits(g.bias_grads[i], bias));
  }
  const auto added = [&](std::vector<size_t> order) {
    Floats dx = terms[order[0]];
    for (size_t i = 1; i < order.size(); ++i)
      for (size_t e = 0; e < dx.size(); ++e) dx[e] = dx[e] + terms[order[i]][e];
    return dx;
  };
  CHECK(same_bits(g.dx, added({0, 1, 2, 3, 4})));
  CHECK_FALSE(same_bits(g.dx, added({4, 3, 2, 1, 0})));
  CHECK_FALSE(same_bits(g.dx, added({0, 1, 2, 4, 3})));
}

TEST_CASE("an f32 layer of a group goes on from the sum before it", "[rules]") {
  const std::vector<std::string> roles = {"attn.q_proj", "attn.k_proj", "attn.v_proj"};
  for (size_t plain = 0; plain < roles.size(); ++plain) {
    CAPTURE(plain);
    Recipe recipe = uniform_recipe("nvfp4", "nvfp4");
    recipe.linears["plain"] = load_recipe("fp32").linears.begin()->second;
    recipe.rules = {{.roles = {roles[plain]}, .use = "plain"}};
    check_recipe(recipe, "test");
    const int64_t rows = 24, in = 88;
    Group g(recipe, rows, in, {40, 24, 32}, 13);
    g.roles = roles;
    g.bind(recipe);
    g.forward({});
    g.backward({});
    Floats dx(g.dx.size(), 0.0f);
    for (size_t i = 0; i < roles.size(); ++i) {
      if (i == plain) {
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t c = 0; c < in; ++c)
            for (int64_t j = 0; j < g.outs[i]; ++j) {
              float &sum = dx[size_t(r * in + c)];
              sum = std::fma(g.dy[i][size_t(r * g.outs[i] + j)], g.weights[i][size_t(j * in + c)], sum);
            }
        continue;
      }
      const GemmRecipe l = g.layers->recipe(i).dgrad;
      const BlockScaled a =
          quantize_by_hand(l.a, to_source(g.dy[i]), rows, Axis::row,
                           random_key(0, 7 + i, Product::dgrad, RandomUse::operand_a, 0, 0));
      const BlockScaled b = quantize_by_hand(l.b, to_source(g.weights[i]), g.outs[i], Axis::col, {});
      const Floats term =
          finished(accumulators(find_unit(l.unit), {a}, {b}), alpha_of(a, b), {}, FormatId::bf16);
      for (size_t e = 0; e < dx.size(); ++e) dx[e] = i == 0 ? term[e] : dx[e] + term[e];
    }
    CHECK(same_bits(g.dx, dx));
  }
}

} // namespace nvfp4::test
