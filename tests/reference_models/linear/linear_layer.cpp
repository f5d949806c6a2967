// SPDX-License-Identifier: Apache-2.0
// Layers whose memory comes with each call, against the group of one member that a model has, and what ranks
// agree on.
#include "nvfp4/reference_models/linear/linear_layer.hpp"
#include "tests/reference_models/linear/hcp_support.hpp"

#include <limits>
#include <numeric>

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

namespace {
/// y, dx and dW of four layers of one input, the second of other formats and with stochastic rounding of x,
/// one after the other as a framework calls them. number(i) says what x holds.
std::vector<Floats> siblings(Recipe first, Recipe second, const std::function<uint64_t(int)> &number,
                             const std::shared_ptr<LayerDevice> &device) {
  constexpr int64_t rows = 40, in = 96, out = 32;
  const StepContext step{.seed = 5, .step = 3};
  std::vector<Floats> results;
  std::vector<Group> groups;
  std::vector<LinearLayer> layers;
  for (int i = 0; i < 4; ++i) {
    const Recipe &recipe = i == 1 ? second : first;
    groups.emplace_back(recipe, rows, in, std::vector<int64_t>{out}, uint64_t(3 + i));
    if (i > 0) groups[size_t(i)].x = groups[0].x;
    layers.emplace_back(device, LayerPlace{"attn.q_proj", 0, 4, uint64_t(7 + i), in, out}, recipe);
  }
  harden(groups[0].x, in);
  for (Group &g : groups) g.x = groups[0].x;
  for (int i = 0; i < 4; ++i) {
    const Group &g = groups[size_t(i)];
    results.emplace_back(rows * out);
    layers[size_t(i)].forward(
        step, {.x = g.x.data(), .rows = rows, .weight = g.weights[0].data(), .contents = number(i)},
        results.back().data());
  }
  for (int i = 4; i-- > 0;) {
    const Group &g = groups[size_t(i)];
    Floats dx(rows * in), dw(out * in);
    layers[size_t(i)].backward(
        step, {.x = g.x.data(), .rows = rows, .weight = g.weights[0].data(), .contents = number(i)},
        g.dy[0].data(), {.x = dx.data(), .weight = dw.data()});
    results.push_back(dx);
    results.push_back(dw);
  }
  return results;
}
} // namespace

TEST_CASE("layers that are told to share their input have the bits of those that are not",
          "[linear][layer]") {
  for (const char *name : {"bf16", "nvfp4", "mxfp4-sr-rht", "mxfp8"})
    for (const bool random : {false, true}) {
      CAPTURE(name, random);
      Recipe first = load_recipe(name), second = load_recipe("nvfp4");
      first.rules.clear();
      second.rules.clear();
      if (random)
        for (Recipe *r : {&first, &second})
          for (auto &[use, l] : r->linears)
            for (OperandRecipe *o : {&l.fprop.a, &l.wgrad.b})
              if (!o->convention.empty())
                o->rounding =
                    o->format == OperandFormat::mxfp8 ? ElementRounding::sr_exact : ElementRounding::sr_te;
      const auto plain = siblings(
          first, second, [](int) { return 0; }, cpu_device());
      const auto shared = siblings(
          first, second, [](int) { return 9; }, cpu_device());
      const auto apart = siblings(
          first, second, [](int i) { return uint64_t(1 + i); }, cpu_device());
      REQUIRE(plain.size() == 12);
      for (size_t i = 0; i < plain.size(); ++i) {
        CAPTURE(i);
        CHECK(same_bits(shared[i], plain[i]));
        CHECK(same_bits(apart[i], plain[i]));
      }
    }
}

TEST_CASE("what layers share is quantized once, and again where anything differs", "[linear][layer]") {
  const std::unique_ptr<OperandEngine> engine = make_cpu_operand_engine(1);
  DataCopies copies(*engine);
  const Unit &unit = find_unit("sm_100:tcgen05.k64.f32.mxf4nvf4.ue4m3.block16"),
             &other = find_unit("sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16");
  OperandRecipe recipe{.format = OperandFormat::nvfp4, .convention = "te"};
  const QuantizeTask task{nullptr, &recipe, FormatId::bf16, &unit, nullptr, 32, 64, Axis::row, {1, 2}, true};
  const auto fills = [&](uint64_t contents, const QuantizeTask &t) {
    bool fill = false;
    (void)copies.find(contents, t, fill);
    return fill;
  };
  CHECK(fills(1, task));
  CHECK_FALSE(fills(1, task));
  bool fill = true;
  Operand &same = copies.find(1, task, fill);
  CHECK(&same == &copies.find(1, task, fill));
  QuantizeTask changed = task;
  changed.key = {1, 3};
  CHECK_FALSE(fills(1, changed)); // nearest: no words are drawn
  OperandRecipe stochastic = recipe;
  stochastic.rounding = ElementRounding::sr_te;
  changed.recipe = &stochastic;
  CHECK(fills(1, changed));
  changed.key = {1, 4};
  CHECK(fills(1, changed));
  copies.clear();
  CHECK(fills(1, task));
  CHECK(fills(2, task));
  const auto differs = [&](auto &&change) {
    QuantizeTask t = task;
    change(t);
    copies.clear();
    return fills(1, task) && fills(1, t);
  };
  CHECK(differs([](QuantizeTask &t) { t.source = FormatId::f32; }));
  CHECK(differs([&](QuantizeTask &t) { t.unit = &other; }));
  CHECK(differs([](QuantizeTask &t) { t.rows = 31; }));
  CHECK(differs([](QuantizeTask &t) { t.cols = 80; }));
  CHECK(differs([](QuantizeTask &t) { t.axis = Axis::col; }));
  OperandRecipe rotated = recipe;
  rotated.hadamard = true;
  CHECK(differs([&](QuantizeTask &t) { t.recipe = &rotated; }));
}

TEST_CASE("a layer takes the channels of each call", "[linear][layer]") {
  Recipe recipe = load_recipe("hcp");
  recipe.rules.clear();
  constexpr int64_t rows = 32, in = 128, out = 48;
  Group g(recipe, rows, in, {out}, 3);
  harden(g.x, in);
  LinearLayer layer = layer_like(g, recipe);
  std::vector<int32_t> first(size_t(layer.channels(Product::fprop))), second = first;
  for (size_t i = 0; i < first.size(); ++i) first[i] = int32_t(2 * i), second[i] = int32_t(2 * i + 1);
  const auto y_of = [&](LinearLayer &l, const std::vector<int32_t> &channels) {
    Floats y(rows * out);
    l.forward({}, {.x = g.x.data(), .rows = rows, .weight = g.weights[0].data(), .channels = channels},
              y.data());
    return y;
  };
  const Floats before = y_of(layer, first);
  for (const auto &channels : {second, first, {}, second}) {
    LinearLayer fresh = layer_like(g, recipe);
    CHECK(same_bits(y_of(layer, channels), y_of(fresh, channels)));
  }
  CHECK_FALSE(same_bits(y_of(layer, second), before));
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

TEST_CASE("a layer refuses a patch that comes or goes with the step, and takes what else changes", "[linear][layer]") {
  Recipe recipe = load_recipe("hcp");
  recipe.rules.clear();
  recipe.linears["plain"] = load_recipe("nvfp4-plain").linears.at("nvfp4");
  recipe.rules = {{.roles = {"attn.*"}, .from = 10, .use = "plain"}};
  const auto made = [&](const char *role) { return LinearLayer(cpu_device(), {role, 0, 4, 7, 32, 16}, recipe); };
  const auto refusal = [&](const char *role) -> std::string {
    try {
      (void)made(role);
    } catch (const Error &error) {
      return error.what();
    }
    return {};
  };
  CHECK_THAT(refusal("attn.q_proj"), Catch::Contains("changes the Hot-Channel Patch of attn.q_proj at step 10"));
  CHECK(refusal("mlp.up_proj").empty()); // no rule speaks of it
  std::swap(recipe.default_linear, recipe.rules[0].use);
  CHECK_THAT(refusal("attn.q_proj"), Catch::Contains("changes the Hot-Channel Patch of attn.q_proj at step 10"));
  // formats may change: channels are those of any step, whatever step was called last
  recipe.linears["plain"].hcp = recipe.linears.at(recipe.rules[0].use).hcp;
  LinearLayer layer = made("attn.q_proj");
  CHECK(layer.channels(Product::fprop) == layer.recipe().hcp.channels(32));
  CHECK(layer.choice_is_due(50));
  Group g(recipe, 16, 32, {16});
  std::vector<int32_t> hot(size_t(layer.channels(Product::fprop)));
  std::iota(hot.begin(), hot.end(), 0);
  Floats early(g.y[0].size()), late(early.size());
  layer.forward({.step = 9}, {g.x.data(), 16, g.weights[0].data(), nullptr, hot}, early.data());
  layer.forward({.step = 10}, {g.x.data(), 16, g.weights[0].data(), nullptr, hot}, late.data());
  CHECK(layer.channels(Product::fprop) == int64_t(hot.size()));
}

} // namespace nvfp4::test
