// SPDX-License-Identifier: Apache-2.0
// Convolutions against linear layers on the matrix of patches written out: the same words under every recipe, for shapes
// of one part and of several, of any stride, with values of every size, NaN and Inf.
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "tests/reference_models/images/support.hpp"
#include "tests/reference_models/linear/forwarding_engine.hpp"

#include <tuple>

namespace nvfp4::test {
namespace {

struct Case {
  ConvolutionShape shape;
  int64_t images;
};

const Case kCases[] = {
    {{.height = 5, .width = 7, .channels = 3, .outputs = 5}, 2},
    {{.height = 8, .width = 8, .channels = 16, .outputs = 32}, 2}, // K = 144: panels of 64, 64, 16
    {{.height = 9, .width = 6, .channels = 20, .outputs = 7}, 3},
    {{.height = 27, .width = 25, .channels = 4, .outputs = 3}, 2}, // 1350 rows: two parts, the last ragged
    {{.height = 9, .width = 7, .channels = 8, .outputs = 12, .stride = 2}, 2},
    {{.height = 33, .width = 35, .channels = 6, .outputs = 9, .kernel = 5, .padding = 2}, 1}, // two parts
    {{.height = 6, .width = 6, .channels = 17, .outputs = 16, .kernel = 1, .padding = 0}, 2},
    {{.height = 6, .width = 8, .channels = 3, .outputs = 4, .kernel = 2, .stride = 2, .padding = 0}, 2},
};

struct Layer {
  ConvolutionShape s;
  int64_t images;
  Floats x, dy, w, bias, dw, dbias;

  Layer(const Case &c, uint64_t seed)
      : s(c.shape), images(c.images), x(hard(images * s.pixels() * s.channels, 1, seed)),
        dy(hard(images * s.out_pixels() * s.outputs, 1e-3, seed + 1)), w(hard(s.outputs * s.patch(), 0.05, seed + 2)),
        bias(hard(s.outputs, 0.3, seed + 3)), dw(hard(s.outputs * s.patch(), 1e-3, seed + 4)), dbias(size_t(s.outputs), 0.25f) {}
  LinearWeight<float> weight() {
    return {.role = "conv", .layer = 1, .layers = 9, .in = s.patch(), .out = s.outputs, .weight = w.data(), .bias = bias.data(),
            .weight_grad = dw.data(), .bias_grad = dbias.data(), .id = 37};
  }
};

struct Results {
  Floats y, dx, dw, dbias;
  std::vector<int32_t> hot;
  Floats scores = {}; ///< of all columns of patches
};

Results by_parts(Layer l, const Recipe &recipe, const StepContext &step, int threads = 1, std::optional<Isa> isa = {}) {
  const auto backend = make_cpu_backend(threads, isa);
  const auto engine = make_cpu_operand_engine(threads, isa);
  Convolution<float> c(*backend, engine.get(), l.s, l.weight(), recipe);
  Results r{Floats(size_t(l.images * l.s.out_pixels() * l.s.outputs)), Floats(l.x.size()), {}, {}, {}};
  c.forward(step, l.x.data(), l.images, r.y.data());
  c.backward(step, l.x.data(), l.images, l.dy.data(), r.dx.data());
  r.dw = l.dw, r.dbias = l.dbias, r.hot = c.hot_channels().indices, r.scores = c.hot_channels().scores;
  return r;
}

/// The amax that a convention takes of a whole matrix, where it has a global scale.
std::optional<float> amax_of(const OperandRecipe &o, const Recipe &recipe, const Floats &x, int64_t cols) {
  if (o.convention.empty()) return {};
  const Convention &c = find_convention(o.convention);
  if (c.rule.global == GlobalRule::none) return {};
  Floats rounded = x;
  if (recipe.source == FormatId::bf16)
    for (float &v : rounded) v = round_to_bf16(v);
  return quantize({rounded.data(), int64_t(x.size()) / cols, cols}, c, {.hadamard = o.hadamard, .source = recipe.source}).global_amax;
}

Results written_out(Layer l, const Recipe &recipe, const StepContext &step) {
  const auto backend = make_cpu_backend(1);
  const auto engine = make_cpu_operand_engine(1);
  const Floats of_x = patches(l.s, l.x, l.images), of_dy = patches(l.s, l.dy, l.images, true);
  const int64_t rows = l.images * l.s.out_pixels(), back_rows = l.images * l.s.pixels();
  Results r{Floats(size_t(rows * l.s.outputs)), Floats(l.x.size()), {}, {}, {}};
  LinearGroup<float> forward(*backend, engine.get(), {l.weight()}, recipe);
  float *const y[] = {r.y.data()};
  forward.forward(step, of_x.data(), rows, y);
  const float *const dy[] = {l.dy.data()};
  forward.backward(step, of_x.data(), rows, dy, nullptr);
  r.dw = l.dw, r.dbias = l.dbias, r.hot = forward.hot_channels(0).indices, r.scores = forward.hot_channels(0).scores;

  Floats turned; // (tap, output, channel)
  for (int64_t t = 0; t < l.s.taps(); ++t)
    for (int64_t o = 0; o < l.s.outputs; ++o)
      for (int64_t c = 0; c < l.s.channels; ++c) turned.push_back(l.w[size_t((o * l.s.taps() + t) * l.s.channels + c)]);
  LinearWeight<float> m = l.weight();
  m.in = l.s.channels, m.out = l.s.turned_patch(), m.weight = turned.data();
  m.bias = nullptr, m.weight_grad = nullptr, m.bias_grad = nullptr;
  LinearGroup<float> back(*backend, engine.get(), {m}, recipe);
  const std::optional<float> amax = amax_of(back.recipe(0).dgrad.a, recipe, of_dy, m.out);
  // all rows at once where rounding draws nothing; parts of 1024 rows have words of their own
  const bool draws = back.recipe(0).dgrad.a.rounding != ElementRounding::nearest;
  const int64_t each = draws ? 1024 : back_rows;
  for (int64_t first = 0; first < back_rows; first += each) {
    const float *const from[] = {of_dy.data() + first * m.out};
    if (draws) back.set_amax(from[0], amax);
    StepContext own = step;
    own.training = false, own.part = uint64_t(first / each);
    back.backward(own, nullptr, std::min(each, back_rows - first), from, r.dx.data() + first * m.in);
    back.set_amax(from[0], {});
  }
  return r;
}

void check_equal(const Results &a, const Results &b) {
  CHECK(same_words(a.y, b.y));
  CHECK(same_words(a.dx, b.dx));
  CHECK(same_words(a.dw, b.dw));
  CHECK(same_words(a.dbias, b.dbias));
  CHECK(a.hot == b.hot);
  CHECK(same_words(a.scores, b.scores));
}

std::vector<std::string> all_recipes() {
  std::vector<std::string> names;
  for (const std::string_view name : builtin_recipes()) names.emplace_back(name);
  names.emplace_back("nvint4");
  return names;
}

} // namespace

TEST_CASE("A convolution has the words of a linear layer on the patches written out", "[images][convolution]") {
  for (const std::string &name : all_recipes()) {
    const Recipe recipe = everywhere(name);
    uint64_t seed = 10;
    for (const Case &c : kCases) {
      CAPTURE(name, c.shape.height, c.shape.channels, c.shape.kernel, c.shape.stride);
      const Layer layer(c, ++seed);
      const StepContext step{.seed = 7, .step = 50, .micro_batch = 0, .training = true}; // hot channels are due
      check_equal(by_parts(layer, recipe, step), written_out(layer, recipe, step));
    }
  }
}

TEST_CASE("So has it where pixels, gradients or filters are not finite", "[images][convolution]") {
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  for (const std::string &name : all_recipes()) {
    const Recipe recipe = everywhere(name);
    for (const Case &c : {kCases[0], kCases[1], kCases[3]})
      for (int kind = 0; kind < 4; ++kind) {
        CAPTURE(name, c.shape.channels, kind);
        Layer layer(c, 90);
        if (kind == 0) layer.x[layer.x.size() / 2] = nan, layer.dy[3] = nan;
        if (kind == 1) layer.x[5] = -inf, layer.dy[layer.dy.size() - 2] = inf;
        if (kind == 2) layer.w[11] = nan, layer.x[0] = inf;
        if (kind == 3) std::fill(layer.x.begin(), layer.x.end(), nan), std::fill(layer.dy.begin(), layer.dy.end(), 0.0f);
        const StepContext step{.seed = 3, .step = 4, .micro_batch = 0, .training = true};
        check_equal(by_parts(layer, recipe, step), written_out(layer, recipe, step));
      }
  }
}

TEST_CASE("A convolution's words do not depend on threads or the instruction set", "[images][convolution]") {
  for (const char *name : {"nvfp4", "hcp", "mxfp4-sr-rht", "bf16", "nvint4"}) {
    const Recipe recipe = everywhere(name);
    const Layer layer(kCases[3], 5);
    const StepContext step{.seed = 1, .step = 0, .micro_batch = 0, .training = true};
    const Results one = by_parts(layer, recipe, step, 1, Isa::scalar);
    for (const Isa isa : kIsas)
      for (const int threads : {2, 3}) {
        if (!supported(isa)) continue;
        CAPTURE(name, threads, int(isa));
        check_equal(by_parts(layer, recipe, step, threads, isa), one);
      }
  }
}

TEST_CASE("Stochastic rounding draws other words in the second part", "[images][convolution]") {
  // all rows alike: the second part would repeat the first one's words if its number did not count
  Case c{{.height = 32, .width = 32, .channels = 16, .outputs = 16, .kernel = 1, .padding = 0}, 2};
  Layer layer(c, 1);
  for (size_t i = 0; i < layer.dy.size(); ++i) layer.dy[i] = 1e-3f * float(i % 16) + 1e-4f;
  const Recipe recipe = everywhere("nvfp4");
  const Results r = by_parts(layer, recipe, {.seed = 1, .step = 3, .micro_batch = 0, .training = false});
  const auto half = r.dx.size() / 2;
  CHECK_FALSE(same_words(Floats(r.dx.begin(), r.dx.begin() + long(half)), Floats(r.dx.begin() + long(half), r.dx.end())));
}

TEST_CASE("Weights of 15 levels: what the products see, in all three of them", "[images][convolution]") {
  Recipe recipe = everywhere("tanh-int4");
  Layer layer(kCases[1], 77);
  Layer rounded = layer;
  float amax = 0;
  for (const float w : layer.w) amax = std::max(amax, std::fabs(w));
  const float scale = (amax + 1e-8f) / 7.0f;
  std::vector<bool> seen(15);
  for (float &w : rounded.w) {
    const float level = std::nearbyint(w / scale); // ties to even
    REQUIRE(std::fabs(level) <= 7);
    seen[size_t(int(level) + 7)] = true;
    w = level * scale;
  }
  CHECK(seen[0] + seen[14] > 0);
  const StepContext step{.seed = 3};
  check_equal(by_parts(layer, recipe, step), by_parts(rounded, everywhere("fp32"), step));
  CHECK_FALSE(same_words(by_parts(layer, everywhere("fp32"), step).y, by_parts(layer, recipe, step).y));
}

TEST_CASE("A convolution finds amaxes of all patches where a convention has one for the tensor", "[images][convolution]") {
  struct Counting : ForwardingEngine {
    mutable int64_t asked = 0;
    float global_amax(const Operand &q) const override { return ++asked, ForwardingEngine::global_amax(q); }
  };
  for (const char *name : {"nvfp4", "mxfp4-macro", "mxfp8"}) {
    CAPTURE(name);
    const auto backend = make_cpu_backend(1);
    Counting engine;
    Layer l(kCases[0], 3);
    const Recipe recipe = everywhere(to_json(load_recipe(name)));
    Convolution<float> c(*backend, &engine, l.s, l.weight(), recipe);
    Floats y(size_t(l.images * l.s.out_pixels() * l.s.outputs)), dx(l.x.size());
    c.forward({.seed = 3}, l.x.data(), l.images, y.data());
    c.backward({.seed = 3}, l.x.data(), l.images, l.dy.data(), dx.data());
    CHECK((engine.asked > 0) == (std::string_view(name) == "nvfp4")); // parts of rows and blocks have their own
  }
}

TEST_CASE("What a convolution cannot be is refused in one line", "[images][convolution]") {
  const auto backend = make_cpu_backend(1);
  const auto engine = make_cpu_operand_engine(1);
  const auto make = [&](ConvolutionShape s, const Recipe &recipe) {
    Floats w(size_t(std::max<int64_t>(1, s.outputs * s.patch())));
    Convolution<float>(*backend, engine.get(), s, {.role = "conv", .weight = w.data()}, recipe);
  };
  const ConvolutionShape good{.height = 6, .width = 6, .channels = 4, .outputs = 4};
  CHECK_NOTHROW(make(good, everywhere("nvfp4")));
  for (const auto &change : std::vector<void (*)(ConvolutionShape &)>{
           [](ConvolutionShape &s) { s.stride = 4; }, [](ConvolutionShape &s) { s.padding = 3; },
           [](ConvolutionShape &s) { s.channels = 0; }, [](ConvolutionShape &s) { s.kernel = 9, s.padding = 0; },
           [](ConvolutionShape &s) { s.kernel = 2, s.stride = 2, s.padding = 0, s.height = 7; }}) {
    ConvolutionShape s = good;
    change(s);
    CHECK_THROWS_WITH(make(s, everywhere("fp32")), Catch::Contains("whose patches cover its images"));
  }
  Recipe patched = everywhere("hcp");
  patched.linears.at("nvfp4").hcp.dgrad = true;
  CHECK_THROWS_WITH(make(good, patched), Catch::Contains("drop hcp.dgrad"));
  Recipe drawn = everywhere("nvfp4");
  drawn.linears.at("nvfp4").wgrad.b.rounding = ElementRounding::sr_te;
  CHECK_THROWS_WITH(make(good, drawn), Catch::Contains("use rne there"));
}

} // namespace nvfp4::test
