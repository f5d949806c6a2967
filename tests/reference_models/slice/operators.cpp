// SPDX-License-Identifier: Apache-2.0
// Errors of single operators against sums written out here, and operators that another program recorded.
#include "nvfp4/emulator/formats/codec.hpp"
#include "tests/reference_models/slice/support.hpp"

#include <array>
#include <cmath>
#include <limits>
#include <random>

namespace nvfp4::test {
namespace {

constexpr int64_t kRows = 32, kIn = 48, kOut = 64;

std::vector<float> values(int64_t n, uint64_t seed, float hot = 1.0f) {
  std::mt19937_64 random(seed);
  std::vector<float> out(static_cast<size_t>(n));
  for (float &v : out) v = float(int(random() % 4001) - 2000) / 1000.0f;
  for (size_t i = 0; i < out.size(); i += 37) out[i] *= hot;
  return out;
}

float rounded(float x) {
  return value_f32(FormatId::bf16, encode(FormatId::bf16, x, Rounding::nearest_even, Overflow::ieee));
}

struct Operands {
  std::vector<float> x = values(kRows * kIn, 1, 6), w = values(kOut * kIn, 2), dy = values(kRows * kOut, 3),
                     bias = values(kOut, 4);
  std::unique_ptr<Backend<float>> backend = make_cpu_backend(1);
  std::unique_ptr<OperandEngine> engine = make_cpu_operand_engine(1);

  [[nodiscard]] OperatorInput input() const {
    OperatorInput o;
    o.weight.role = "attn.q_proj";
    o.weight.layers = 8;
    o.weight.in = kIn;
    o.weight.out = kOut;
    o.weight.weight = w.data(); // the CPU's memory is the host's
    o.weight.bias = bias.data();
    o.rows = kRows;
    o.input = x.data();
    o.output_grad = dy.data();
    return o;
  }
};

const OperatorError &of(const std::vector<OperatorError> &errors, Product p) {
  for (const OperatorError &e : errors)
    if (e.product == p) return e;
  throw Error("no such product");
}

io::Tensor bf16_tensor(const std::string &name, std::vector<int64_t> shape,
                       const std::vector<float> &values_) {
  std::vector<uint16_t> words;
  for (const float v : values_) words.push_back(bf16_word(v));
  return io::Tensor::from_bits(name, io::DType::bf16, std::move(shape), words);
}

} // namespace

TEST_CASE("errors are sums over the outputs against the FP64 product", "[slice]") {
  const Operands d;
  const Recipe recipe = load_recipe("nvfp4").for_family("gla");
  OperatorMeter meter(*d.backend, *d.engine, {recipe, load_recipe("bf16").for_family("gla")});
  const StepContext step{5, 3, 0, false};
  meter.measure(d.input(), step);
  const auto errors = meter.errors(0, true);
  REQUIRE(errors.size() == 3);
  CHECK(errors[0].format == "nvfp4");

  // the same products by hand
  OperatorInput o = d.input();
  std::vector<float> y(kRows * kOut), dx(kRows * kIn), dw(kOut * kIn);
  o.weight.weight_grad = dw.data();
  LinearGroup<float> layer(*d.backend, d.engine.get(), {o.weight}, recipe);
  float *const out[] = {y.data()};
  const float *const grads[] = {d.dy.data()};
  layer.forward(step, d.x.data(), kRows, out);
  layer.backward(step, d.x.data(), kRows, grads, dx.data());
  double error[3] = {}, norm[3] = {};
  const auto add = [&](int p, double exact, float got) {
    error[p] += (double(got) - exact) * (double(got) - exact);
    norm[p] += exact * exact;
  };
  const auto at = [](const std::vector<float> &m, int64_t cols, int64_t r, int64_t c) {
    return double(rounded(m[size_t(r * cols + c)]));
  };
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t n = 0; n < kOut; ++n) {
      double sum = double(d.bias[size_t(n)]);
      for (int64_t k = 0; k < kIn; ++k) sum += at(d.x, kIn, r, k) * at(d.w, kIn, n, k);
      add(0, sum, y[size_t(r * kOut + n)]);
    }
  for (int64_t r = 0; r < kRows; ++r)
    for (int64_t k = 0; k < kIn; ++k) {
      double sum = 0;
      for (int64_t n = 0; n < kOut; ++n) sum += at(d.dy, kOut, r, n) * at(d.w, kIn, n, k);
      add(1, sum, dx[size_t(r * kIn + k)]);
    }
  for (int64_t n = 0; n < kOut; ++n)
    for (int64_t k = 0; k < kIn; ++k) {
      double sum = 0;
      for (int64_t r = 0; r < kRows; ++r) sum += at(d.dy, kOut, r, n) * at(d.x, kIn, r, k);
      add(2, sum, dw[size_t(n * kIn + k)]);
    }
  for (int p = 0; p < 3; ++p) {
    const ErrorSums &sums = of(errors, Product(p)).sums;
    CHECK(sums.against_exact == Approx(error[p]).epsilon(1e-9));
    CHECK(sums.exact == Approx(norm[p]).epsilon(1e-9));
    CHECK(sums.relative_to_exact() == Approx(std::sqrt(error[p] / norm[p])).epsilon(1e-9));
    CHECK(of(meter.errors(1, true), Product(p)).sums.relative_to_bf16() == 0);
  }
  CHECK(signal_to_noise(0.1) == Approx(20.0));
  CHECK(std::isinf(signal_to_noise(0)));
}

TEST_CASE("a recipe with HCP chooses channels on the operands, or takes the known ones", "[slice]") {
  const Operands d;
  const Recipe hcp = load_recipe("hcp").for_family("gla");
  const StepContext late{5, 37, 0, false}; // no choice is due there
  const auto error = [&](const Recipe &recipe, std::optional<HotChannels> hot) {
    OperatorMeter meter(*d.backend, *d.engine, {recipe});
    OperatorInput input = d.input();
    input.hot = std::move(hot);
    meter.measure(input, late);
    return of(meter.errors(0, false), Product::fprop);
  };
  const OperatorError plain = error(load_recipe("nvfp4").for_family("gla"), {}), chosen = error(hcp, {});
  CHECK(chosen.format == "nvfp4+hcp");
  CHECK(chosen.sums.against_exact < plain.sums.against_exact);
  std::vector<int32_t> indices(16);
  for (size_t i = 0; i < 16; ++i) indices[i] = int32_t(3 * i);
  const OperatorError given = error(hcp, HotChannels{indices, {}, 0});
  CHECK(given.sums.against_exact != chosen.sums.against_exact);
  CHECK(given.sums.against_exact < plain.sums.against_exact);
  // of another number of channels: not of this recipe
  CHECK(error(hcp, HotChannels{{1, 2}, {}, 0}).sums.against_exact == chosen.sums.against_exact);
}

TEST_CASE("operators of another program", "[slice]") {
  const Operands d;
  io::TensorFile file;
  const std::string q = "model.layers.2.self_attn.q_proj", head = "lm_head",
                    up = "transformer.h.0.mlp.up_proj";
  for (const std::string &path : {q, head, up}) {
    file.tensors.push_back(bf16_tensor("input/" + path, {2, kRows / 2, kIn}, d.x));
    file.tensors.push_back(bf16_tensor("weight/" + path, {kOut, kIn}, d.w));
    if (path != up) file.tensors.push_back(io::Tensor::from("output_grad/" + path, {kRows, kOut}, d.dy));
  }
  file.tensors.push_back(io::Tensor::from("bias/" + q, {kOut}, d.bias));
  const OperatorFile operators = parse_operators(file, "f");
  CHECK(operators.family == "qwen3");
  CHECK(operators.layers == 3);
  REQUIRE(operators.operators.size() == 3);
  CHECK(operators.operators[0].role == "mlp.up_proj");
  CHECK(operators.operators[0].layer == 0);
  CHECK(operators.operators[0].output_grad.empty());
  CHECK(operators.operators[1].role == "attn.q_proj");
  CHECK(operators.operators[1].layer == 2);
  CHECK(operators.operators[1].rows == kRows);
  CHECK(operators.operators[2].role == "lm_head");
  CHECK(operators.operators[2].layer == 3);
  const Comparison c = compare_recipes(operators, {{load_recipe("nvfp4")}, {load_recipe("chon")}}, false, {});
  CHECK(c.operators == 3);
  REQUIRE(c.errors[0].size() == 1 + 3 + 3); // fprop alone without a gradient
  CHECK(c.errors[0][0].format == "nvfp4");
  CHECK(c.errors[1][0].format == "nvfp4+hcp");
  CHECK(c.errors[0][1].format == "bf16"); // the last block of three
  // BF16 operands are what FP32 ones are rounded to
  OperatorMeter meter(*d.backend, *d.engine, {load_recipe("nvfp4").for_family("qwen3")});
  OperatorInput input = d.input();
  input.weight.role = "mlp.up_proj";
  input.weight.layers = 3;
  input.weight.bias = nullptr;
  input.output_grad = nullptr;
  meter.measure(input, {});
  CHECK(c.errors[0][0].sums.against_exact == meter.errors(0, false).at(0).sums.against_exact);

  file.metadata = {{"format", "pt"}, {"family", "gla"}, {"layers", "24"}};
  CHECK(parse_operators(file, "f").layers == 24);
  CHECK(parse_operators(file, "f").family == "gla");
  CHECK(
      compare_recipes(parse_operators(file, "f"), {{load_recipe("nvfp4")}}, false, {}).errors[0][1].format ==
      "nvfp4");
  const auto refused = [&](const auto &change) {
    io::TensorFile bad = file;
    change(bad);
    return refusal([&] { (void)parse_operators(bad, "f"); });
  };
  const auto says = [](const std::string &text) { return Catch::Contains(text); };
  CHECK_THAT(refused([](io::TensorFile &f) { f.metadata["layers"] = "2"; }), says("at least 3"));
  CHECK_THAT(refused([](io::TensorFile &f) { f.tensors[1].name = "weights/x"; }),
             says("got tensor 'weights/x'"));
  CHECK_THAT(refused([&](io::TensorFile &f) { f.tensors[1].name = "weight/other"; }),
             says("expected tensor 'weight/" + q));
  CHECK_THAT(refused([](io::TensorFile &f) { f.tensors[0].shape = {kRows * kIn}; }),
             says("expected shape [..., 48]"));
  CHECK_THAT(refused([](io::TensorFile &f) { f.tensors[1].shape = {kOut * kIn}; }),
             says("expected shape [out, in]"));
  CHECK_THAT(refused([&](io::TensorFile &f) {
               f.tensors.back() = io::Tensor::from("bias/" + q, {kOut - 1}, values(kOut - 1, 1));
             }),
             says("expected shape [64]"));
  CHECK_THAT(refused([&](io::TensorFile &f) {
               f.tensors[2] = io::Tensor::from("output_grad/" + q, {16, kOut}, values(16 * kOut, 1));
             }),
             says("expected 32 rows"));
  CHECK_THAT(refused([&](io::TensorFile &f) {
               f.tensors[2] =
                   io::Tensor::from("output_grad/" + q, {kRows, kOut}, std::vector<int32_t>(kRows * kOut));
             }),
             says("expected F32, BF16 or F16"));
  CHECK_THAT(refused([](io::TensorFile &f) { f.tensors.clear(); }), says("got no tensors"));
}

TEST_CASE("a layer that is not finite is named, and hides no other", "[slice]") {
  const std::vector<Recipe> recipes = {load_recipe("nvfp4").for_family("gla")};
  Operands healthy, sick;
  const StepContext step{5, 3, 0, false};
  OperatorMeter alone(*healthy.backend, *healthy.engine, recipes), both(*sick.backend, *sick.engine, recipes);
  alone.measure(healthy.input(), step);
  both.measure(healthy.input(), step);
  OperatorInput second = sick.input();
  second.weight.layer = 1;
  const auto names = [&](size_t i) { return both.not_finite(0).at(i).text(); };
  // what is sick, which products are left out, and how it is said
  struct Case {
    std::vector<float> *tensor;
    float value;
    std::array<bool, 3> out;
    const char *text;
  };
  const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  const Case c =
      GENERATE_REF(Case{&sick.x,
                        nan,
                        {true, false, true},
                        "input of model.layers.1.attn.q_proj: 1 NaN of 1536, first at [0, 5]"},
                   Case{&sick.w,
                        -inf,
                        {true, true, false},
                        "weight of model.layers.1.attn.q_proj: 1 Inf of 3072, first at [0, 5]"},
                   Case{&sick.dy,
                        inf,
                        {false, true, true},
                        "output_grad of model.layers.1.attn.q_proj: 1 Inf of 2048, first at [0, 5]"},
                   Case{&sick.bias,
                        nan,
                        {true, false, false},
                        "weight of model.layers.1.attn.q_proj.bias: 1 NaN of 64, first at [5]"});
  (*c.tensor)[5] = c.value;
  both.measure(second, step);
  const auto pooled = both.errors(0, false), expected = alone.errors(0, false), layers = both.errors(0, true);
  for (const Product p : enumerators<Product>()) {
    CAPTURE(to_string(p));
    const bool out = c.out[size_t(p)];
    const OperatorError &all = of(pooled, p);
    CHECK(all.not_finite_layers == std::vector<int64_t>(out ? 1 : 0, 1));
    CHECK(all.layers == 2);
    CHECK(std::isfinite(all.sums.relative_to_exact()));
    if (out) CHECK(all.sums.relative_to_exact() == of(expected, p).sums.relative_to_exact());
    for (const OperatorError &e : layers) {
      if (e.product != p) continue;
      CHECK(std::isnan(e.sums.relative_to_exact()) == (out && e.layer == 1));
      CHECK(std::isnan(signal_to_noise(e.sums.relative_to_bf16())) == (out && e.layer == 1));
    }
  }
  REQUIRE(both.not_finite(0).size() == 1);
  CHECK(names(0) == c.text);
  CHECK(alone.not_finite(0).empty());
}

TEST_CASE("a product that overflows in finite operands is named with its product", "[slice]") {
  Operands d;
  for (float &v : d.x) v *= 1e20f;
  for (float &v : d.w) v *= 1e20f;
  OperatorMeter meter(*d.backend, *d.engine, {load_recipe("nvfp4").for_family("gla")});
  meter.measure(d.input(), {5, 3, 0, false});
  const auto errors = meter.errors(0, false);
  CHECK(std::isnan(of(errors, Product::fprop).sums.relative_to_exact()));
  CHECK(std::isfinite(of(errors, Product::dgrad).sums.relative_to_exact()));
  REQUIRE_FALSE(meter.not_finite(0).empty());
  CHECK(meter.not_finite(0)[0].product == "fprop");
  CHECK(meter.not_finite(0)[0].what == StepTensor::output);
}

TEST_CASE("an error against nothing is infinite, not zero", "[slice]") {
  const double inf = std::numeric_limits<double>::infinity();
  ErrorSums s{.against_bf16 = 0, .bf16 = 0, .against_exact = 2, .exact = 0, .outputs = 4};
  CHECK(s.relative_to_bf16() == 0);
  CHECK(s.relative_to_exact() == inf);
  CHECK(signal_to_noise(0) == inf);
  CHECK(signal_to_noise(inf) == -inf);
  s.exact = s.against_bf16 = std::nan("");
  CHECK(std::isnan(s.relative_to_exact()));
  CHECK(std::isnan(s.relative_to_bf16()));
  CHECK(std::isnan(ErrorSums{}.relative_to_exact()));
}

} // namespace nvfp4::test
