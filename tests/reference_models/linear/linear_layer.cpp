// SPDX-License-Identifier: Apache-2.0
// Layers whose memory comes with each call, against the group of one member that a model has, and what ranks
// agree on.
#include "nvfp4/reference_models/linear/linear_layer.hpp"
#include "tests/reference_models/linear/hcp_support.hpp"

#include <limits>

namespace nvfp4::test {
namespace {

std::shared_ptr<LayerDevice> cpu_device(int threads = 1) {
  auto device = std::make_shared<LayerDevice>();
  device->backend = make_cpu_backend(threads);
  device->engine = make_cpu_operand_engine(threads);
  return device;
}

LinearLayer layer_like(const Group &g, const Recipe &recipe) {
  return {cpu_device(), {"attn.q_proj", 0, 4, 7, g.in, g.outs[0]}, recipe};
}

/// A channel of outliers, a row of zeros, a NaN and an infinity.
void harden(Floats &x, int64_t cols) {
  for (size_t i = 0; i < x.size(); ++i) {
    if (int64_t(i) % cols == 3) x[i] *= 200;
    if (int64_t(i) / cols == 1) x[i] = 0;
  }
  x[7] = std::numeric_limits<float>::quiet_NaN();
  x[9] = -std::numeric_limits<float>::infinity();
}

/// The first or second half of the rows.
Floats half(const Floats &x, bool second) {
  const auto middle = x.begin() + int64_t(x.size() / 2);
  return second ? Floats(middle, x.end()) : Floats(x.begin(), middle);
}

} // namespace

TEST_CASE("a layer without memory of its own has the bits of a group", "[linear][layer]") {
  const StepContext step{.seed = 5, .step = 3, .micro_batch = 2};
  for (const char *name : {"fp32", "bf16", "nvfp4-plain", "nvfp4", "hcp", "mxfp4-sr-rht", "mxfp8"}) {
    CAPTURE(name);
    Recipe recipe = load_recipe(name);
    recipe.rules.clear();
    if (std::string_view(name) == "hcp") recipe.linears["nvfp4"].hcp.dgrad = true;
    for (const auto &[rows, in, out] : {std::array<int64_t, 3>{64, 128, 48}, {20, 80, 40}, {3, 16, 24}}) {
      Group g(recipe, rows, in, {out}, 3, true);
      harden(g.x, in);
      harden(g.dy[0], out);
      for (Floats *sum : {&g.weight_grads[0], &g.bias_grads[0]}) std::fill(sum->begin(), sum->end(), 0.0f);
      LinearLayer layer = layer_like(g, recipe);
      std::vector<int32_t> hot, hot_dgrad;
      if (layer.channels(Product::fprop) > 0) {
        const StepContext first{.seed = 5, .step = 0};
        g.forward(first);
        g.backward(first);
        g.layers->weights_changed();
        std::fill(g.weight_grads[0].begin(), g.weight_grads[0].end(), 0.0f);
        std::fill(g.bias_grads[0].begin(), g.bias_grads[0].end(), 0.0f);
        CHECK(layer.choice_is_due(0));
        CHECK_FALSE(layer.choice_is_due(3));
        const Floats scores = layer.scores(Product::fprop, first, g.x.data(), rows, g.weights[0].data());
        const Floats scores_dgrad =
            layer.scores(Product::dgrad, first, g.dy[0].data(), rows, g.weights[0].data());
        CHECK(same_bits(scores, g.layers->hot_channels(0).scores));
        CHECK(same_bits(scores_dgrad, g.layers->hot_channels(0, Product::dgrad).scores));
        hot = layer.select(Product::fprop, scores);
        hot_dgrad = layer.select(Product::dgrad, scores_dgrad);
        CHECK(hot == g.layers->hot_channels(0).indices);
        CHECK(hot_dgrad == g.layers->hot_channels(0, Product::dgrad).indices);
        CHECK(int64_t(hot.size()) == layer.channels(Product::fprop));
      }
      g.forward(step);
      g.backward(step);
      Floats y(g.y[0].size()), dx(g.dx.size()), dw(g.weights[0].size()), db(g.biases[0].size());
      layer.forward(step, {g.x.data(), rows, g.weights[0].data(), g.biases[0].data(), hot}, y.data());
      CHECK(same_bits(y, g.y[0]));
      const LayerInput input{g.x.data(), rows, g.weights[0].data(), nullptr, hot_dgrad};
      layer.backward(step, input, g.dy[0].data(), {dx.data(), dw.data(), db.data()});
      CHECK(same_bits(dx, g.dx));
      CHECK(same_bits(dw, g.weight_grads[0]));
      CHECK(same_bits(db, g.bias_grads[0]));
      // each gradient alone, and other weights at the same place
      Floats only(dx.size()), only_w(dw.size());
      layer.backward(step, input, g.dy[0].data(), {.x = only.data()});
      layer.backward(step, input, g.dy[0].data(), {.weight = only_w.data()});
      CHECK(same_bits(only, dx));
      CHECK(same_bits(only_w, dw));
      for (float &w : g.weights[0]) w = -3 * w;
      Floats other(y.size());
      layer.forward(step, {g.x.data(), rows, g.weights[0].data(), g.biases[0].data(), hot}, other.data());
      CHECK_FALSE(same_bits(other, y));
    }
  }
}

TEST_CASE("a gradient that is not wanted does not change another", "[linear]") {
  const Recipe recipe = uniform_recipe("nvfp4", "nvfp4");
  Group all(recipe, 32, 64, {48, 32}), some(recipe, 32, 64, {48, 32});
  LinearWeight<float> memory = some.layers->members()[0];
  memory.weight_grad = nullptr;
  some.layers->set_memory(0, memory);
  const Floats before = some.weight_grads[0];
  for (Group *g : {&all, &some}) {
    g->forward({});
    g->backward({});
  }
  CHECK(same_bits(some.weight_grads[0], before));
  CHECK_FALSE(same_bits(all.weight_grads[0], before));
  CHECK(same_bits(some.weight_grads[1], all.weight_grads[1]));
  CHECK(same_bits(some.dx, all.dx));
}

TEST_CASE("a weight takes the random words of the step's first micro-batch", "[linear][layer]") {
  Recipe recipe = uniform_recipe("nvfp4", "nvfp4");
  LinearRecipe &l = recipe.linears["nvfp4"];
  l.fprop.b = {.format = OperandFormat::nvfp4, .convention = "te", .rounding = ElementRounding::sr_exact};
  check_recipe(recipe, "test");
  Group g(recipe, 32, 64, {48});
  LinearLayer layer = layer_like(g, recipe);
  const auto y = [&](StepContext step) {
    Floats out(g.y[0].size());
    layer.forward(step, {g.x.data(), 32, g.weights[0].data()}, out.data());
    return out;
  };
  const Floats first = y({.seed = 2, .step = 1});
  CHECK(same_bits(first, y({.seed = 2, .step = 1, .micro_batch = 3})));
  CHECK_FALSE(same_bits(first, y({.seed = 2, .step = 2})));
}

TEST_CASE("with all ranks' amax a row has the same bits however rows are spread", "[linear][layer]") {
  Recipe recipe = uniform_recipe("nvfp4-plain", "nvfp4");
  recipe.amax = AmaxScope::all_ranks;
  CHECK(parse_recipe(to_json(recipe), "test") == recipe);
  const int64_t rows = 64, in = 96, out = 32;
  Group whole(recipe, rows, in, {out});
  whole.x[5] = 300; // in the first half
  whole.dy[0].back() = 1;
  whole.forward({});
  whole.backward({});
  Floats both[2], both_alone[2];
  for (const bool alone : {false, true}) {
    // a rank's amaxes in the order in which they are asked for
    std::vector<Floats> own;
    for (const int pass : {0, 1}) {
      for (const bool second : {false, true}) {
        LinearLayer layer = layer_like(whole, recipe);
        size_t calls = 0;
        const Reduce reduce = [&](std::span<float> values) {
          const size_t at = calls++;
          if (pass == 0 && !second) own.emplace_back(values.begin(), values.end());
          if (pass == 0)
            for (size_t i = 0; i < values.size(); ++i) own[at][i] = std::fmax(own[at][i], values[i]);
          std::copy(own[at].begin(), own[at].end(), values.begin());
        };
        const Reduce none = {};
        const Reduce &how = alone ? none : reduce;
        const Floats x = half(whole.x, second), dy = half(whole.dy[0], second);
        Floats y(dy.size()), dx(x.size()), dw(whole.weights[0].size());
        layer.forward({}, {x.data(), rows / 2, whole.weights[0].data()}, y.data(), how);
        layer.backward({}, {x.data(), rows / 2, whole.weights[0].data()}, dy.data(), {dx.data(), dw.data()},
                       how);
        CHECK(calls == (alone ? 0 : 2));
        if (pass == 0) continue;
        Floats *const to = alone ? both_alone : both;
        to[0].insert(to[0].end(), y.begin(), y.end());
        to[1].insert(to[1].end(), dx.begin(), dx.end());
      }
    }
  }
  CHECK(same_bits(both[0], whole.y[0]));
  CHECK(same_bits(both[1], whole.dx));
  CHECK_FALSE(same_bits(both_alone[0], whole.y[0]));
  CHECK_FALSE(same_bits(both_alone[1], whole.dx));
}

TEST_CASE("scores and shapes that a layer cannot have are refused", "[linear][layer]") {
  const Recipe recipe = uniform_recipe("nvfp4", "nvfp4");
  Group g(recipe, 16, 32, {16});
  LinearLayer layer = layer_like(g, recipe);
  CHECK(layer.channels(Product::fprop) == 0);
  CHECK_THROWS_AS(layer.scores(Product::fprop, {}, g.x.data(), 16, g.weights[0].data()), Error);
  const std::vector<int32_t> hot = {1};
  CHECK_THROWS_AS(layer.forward({}, {g.x.data(), 16, g.weights[0].data(), nullptr, hot}, g.y[0].data()),
                  Error);
  CHECK_THROWS_AS(LinearLayer(cpu_device(), {"lm_head", 0, 0, 0, 0, 16}, recipe), Error);
}

} // namespace nvfp4::test
