// SPDX-License-Identifier: Apache-2.0
// Networks: gradients against differences in FP64, FP32 against FP64, evaluation, what is not finite, presets.
#include "nvfp4/reference_models/images/network.hpp"
#include "nvfp4/reference_models/train/optimizer.hpp"
#include "tests/reference_models/images/support.hpp"
#include "tests/reference_models/kernels/support.hpp"

namespace nvfp4::test {
namespace {

/// Odd sizes, two convolutions a block, a hidden layer.
ImageConfig small() {
  ImageConfig c;
  c.height = 11, c.width = 9, c.channels = 3, c.classes = 5;
  c.widths = {6, 7}, c.convolutions = 2, c.hidden = 13;
  return c;
}

struct Batch {
  Floats pixels;
  std::vector<int32_t> labels;

  Batch(const ImageConfig &c, int64_t n, uint64_t seed) {
    Random random(seed);
    pixels = random.values<float>(n * c.height * c.width * c.channels, -2, 2);
    for (int64_t i = 0; i < n; ++i) labels.push_back(int32_t(random.below(c.classes)));
  }
};

template <class T> std::vector<T> values(Parameters<T> &p, const T *slab) {
  return to_host(p.backend(), slab, p.total());
}

/// Norms and biases that are not 1 and 0.
template <class T> void disturb(ImageNetwork<T> &network) {
  Random random(5);
  Parameters<T> &p = network.parameters();
  for (const ParameterSpec &spec : p.list()) {
    if (spec.decay || spec.name.find("running") != std::string::npos) continue;
    std::vector<T> v = to_host(p.backend(), p.value(spec.name), spec.count());
    for (T &x : v) x += T(random.uniform(-0.3, 0.3));
    p.backend().upload(p.value(spec.name), v.data(), v.size() * sizeof(T));
  }
  network.parameters_changed();
}

} // namespace

TEST_CASE("Gradients of a network agree with differences in FP64", "[images][network]") {
  const ImageConfig c = small();
  const auto backend = make_double_backend(2);
  ImageNetwork<double> network(*backend, nullptr, c, load_image_recipe("fp32"), 4, true);
  network.initialise(3);
  disturb(network);
  const Batch batch(c, 4, 8);
  network.set_images(batch.pixels, batch.labels);
  const StepContext step;
  (void)network.forward(step);
  network.backward(step);
  Parameters<double> &p = network.parameters();
  Random random(2);
  int64_t checked = 0;
  for (const ParameterSpec &spec : p.list()) {
    const auto gradient = to_host(*backend, p.gradient(spec.name), spec.count());
    if (spec.name.find("running") != std::string::npos) {
      CHECK(largest(gradient) == 0);
      continue;
    }
    const double length = std::sqrt(dot(gradient, gradient));
    REQUIRE(length > 0);
    double *const at = p.value(spec.name);
    const std::vector<double> start = to_host(*backend, at, spec.count());
    for (int trial = 0; trial < 3; ++trial) {
      std::vector<double> direction = random.values(spec.count());
      const double norm = std::sqrt(dot(direction, direction));
      const double measured = derivative(
          [&](double t) {
            for (size_t i = 0; i < start.size(); ++i) at[i] = start[i] + t * direction[i] / norm;
            network.parameters_changed();
            return network.forward(step).loss / 4;
          },
          1e-5); // small: ReLU and pooling have kinks
      for (size_t i = 0; i < start.size(); ++i) at[i] = start[i];
      network.parameters_changed();
      CAPTURE(spec.name, trial, measured, dot(direction, gradient) / norm, length);
      CHECK(std::fabs(measured - dot(direction, gradient) / norm) < 2e-6 * length);
      ++checked;
    }
  }
  CHECK(checked == 3 * 17);
}

TEST_CASE("FP32 gradients of a network are those of FP64", "[images][network]") {
  const ImageConfig c = small();
  const auto exact = make_double_backend(2);
  const auto backend = make_cpu_backend(2);
  ImageNetwork<double> a(*exact, nullptr, c, load_image_recipe("fp32"), 6, true);
  ImageNetwork<float> b(*backend, nullptr, c, load_image_recipe("fp32"), 6, true);
  const Batch batch(c, 6, 11);
  const auto run = [&](auto &network) {
    network.initialise(4);
    disturb(network);
    network.set_images(batch.pixels, batch.labels);
    const ImageOutcome outcome = network.forward({});
    network.backward({});
    return outcome;
  };
  const ImageOutcome x = run(a), y = run(b);
  CHECK(std::fabs(x.loss - y.loss) < 1e-5);
  CHECK(x.correct == y.correct);
  for (const ParameterSpec &spec : a.parameters().list()) {
    const auto want = to_host(*exact, a.parameters().gradient(spec.name), spec.count());
    const auto got = to_host(*backend, b.parameters().gradient(spec.name), spec.count());
    CAPTURE(spec.name);
    CHECK(difference(got, want) < 2e-5);
    CHECK(difference(to_host(*backend, b.parameters().value(spec.name), spec.count()),
                     to_host(*exact, a.parameters().value(spec.name), spec.count())) < 1e-5); // running ones too
  }
}

TEST_CASE("A network learns under every recipe, the same words on any thread and instruction set", "[images][network]") {
  ImageConfig c = small();
  c.height = 16, c.width = 16;
  const Batch batch(c, 8, 21);
  for (const char *name : {"bf16", "nvfp4", "hcp", "chon", "mxfp4-sr-rht", "mxfp8", "nvint4", "tanh-int4", "tanh-nvint4"}) {
    std::string first;
    double before = 0, after = 0;
    for (const auto &[threads, isa] : {std::pair(1, std::optional<Isa>(Isa::scalar)), {3, std::nullopt}, {2, Isa::scalar}}) {
      const auto backend = make_cpu_backend(threads, isa);
      const auto engine = make_cpu_operand_engine(threads, isa);
      const Recipe recipe = load_image_recipe(name);
      ImageNetwork<float> network(*backend, engine.get(), c, recipe, 8, true);
      Optimizer<float> optimizer(network.parameters(), {.weight_decay = 0, .clip = 0.5}, {});
      network.initialise(1);
      network.set_images(batch.pixels, batch.labels);
      for (int64_t step = 1; step <= 6; ++step) {
        const StepContext context{.seed = 9, .step = step - 1};
        const double loss = network.forward(context).loss;
        (step == 1 ? before : after) = loss;
        network.backward(context);
        optimizer.step(step, 0.01f);
        network.parameters_changed();
      }
      CHECK(network.finite());
      if (first.empty()) first = optimizer.digest(6);
      CAPTURE(name, threads);
      CHECK(optimizer.digest(6) == first);
    }
    CAPTURE(name, before, after);
    CHECK(after < 0.8 * before);
  }
}

TEST_CASE("Evaluation uses the running means and variances, image by image", "[images][network]") {
  const ImageConfig c = small();
  const auto backend = make_cpu_backend(1);
  ImageNetwork<float> network(*backend, nullptr, c, load_image_recipe("fp32"), 4, true);
  network.initialise(1);
  disturb(network);
  const Batch batch(c, 4, 2);
  network.set_images(batch.pixels, batch.labels);
  for (int i = 0; i < 5; ++i) (void)network.forward({});
  (void)network.forward({.training = false});
  const std::vector<float> all = network.logits();
  const int64_t size = c.height * c.width * c.channels;
  for (int64_t i = 0; i < 4; ++i) {
    network.set_images(std::span(batch.pixels).subspan(size_t(i * size), size_t(size)), std::span(batch.labels).subspan(size_t(i), 1));
    (void)network.forward({.training = false});
    const std::vector<float> one = network.logits();
    CHECK(same_words(one, {all.begin() + long(i * c.classes), all.begin() + long((i + 1) * c.classes)}));
  }
  (void)network.forward({});
  CHECK_FALSE(same_words(network.logits(), {all.begin() + long(3 * c.classes), all.end()})); // of one image: its own mean
}

TEST_CASE("The first tensor of a network that is not finite is named", "[images][network]") {
  const ImageConfig c = small();
  const auto backend = make_cpu_backend(1);
  const auto engine = make_cpu_operand_engine(1);
  ImageNetwork<float> network(*backend, engine.get(), c, load_image_recipe("nvfp4"), 4, true);
  network.initialise(1);
  Batch batch(c, 4, 2);
  network.set_images(batch.pixels, batch.labels);
  (void)network.forward({});
  network.backward({});
  CHECK(network.finite());
  CHECK_FALSE(network.first_not_finite());
  batch.pixels[7] = std::numeric_limits<float>::quiet_NaN(); // the convolution makes a number of it
  network.set_images(batch.pixels, batch.labels);
  (void)network.forward({});
  CHECK_FALSE(network.finite());
  REQUIRE(network.first_not_finite());
  CHECK(network.first_not_finite()->tensor == "images");
  batch.pixels[7] = 0;
  network.set_images(batch.pixels, batch.labels);
  const float inf = std::numeric_limits<float>::infinity();
  network.parameters().backend().upload(network.parameters().value("features.1.0.norm.bias") + 2, &inf, sizeof inf);
  (void)network.forward({});
  CHECK_FALSE(network.finite());
  CHECK(network.first_not_finite()->tensor == "features.1.0.norm.bias");
}

TEST_CASE("Presets of networks have the parameters that the documents say", "[images][network]") {
  CHECK(parameter_count(image_preset("tiny")) == 33946);
  CHECK(parameter_count(image_preset("small")) == 814826);
  CHECK(parameter_count(image_preset("cifar")) == 3251018 - 1408); // arXiv 2603.13931 has biases before its norms, too
  CHECK(image_config_from_json(to_json(image_preset("small")), "x") == image_preset("small"));
  ImageConfig flat = image_preset("tiny");
  flat.height = 4;
  CHECK_THROWS_WITH(check(flat), Catch::Contains("too small for 3 blocks"));
  flat = image_preset("tiny");
  flat.widths = {};
  CHECK_THROWS_WITH(check(flat), Catch::Contains("1 to 16 blocks"));
  CHECK_THROWS_WITH(image_preset("huge"), Catch::Contains("expected tiny, small or cifar"));
  CHECK_THROWS_WITH(image_config_from_json(R"({"widths": [1.5]})", "f"), Catch::Contains("a list of whole numbers"));
}

TEST_CASE("Recipes of convolutional networks: names, rules of families, what is refused", "[images][recipes]") {
  CHECK(load_image_recipe("chon").resolve("conv", 0, 4) == load_image_recipe("hcp").resolve("conv", 0, 4));
  CHECK(load_image_recipe("tanh-int4").soft_clip == 3);
  CHECK(load_image_recipe("tanh-int4").resolve("lm_head", 4, 4).weights == WeightLevels::int4_tensor); // all layers
  CHECK(load_image_recipe("nvint4").resolve("conv", 0, 4).fprop.unit == "exact:dot.k64.f32.int4.ue4m3.block16");
  CHECK(parse_image_recipe(to_json(load_image_recipe("tanh-nvint4")), "x") == load_image_recipe("tanh-nvint4"));
  CHECK_THROWS_WITH(load_image_recipe("tanh-int"), Catch::Contains("did you mean") && Catch::Contains("tanh-int4"));
  CHECK_THROWS_WITH(load_image_recipe("nvfp4+mixers=bf16"), Catch::Contains("speaks of mixers"));
  for (const char *name : {"nvfp4-bf16-end", "nvfp4-held-amax"})
    CHECK_THROWS_WITH(parse_image_recipe(to_json(load_recipe(name)), "r"), Catch::Contains("from step to step"));
  for (const char *name : {"nvfp4-rht128", "nvfp4-new-signs", "nvfp4-mean", "averis"})
    CHECK_THROWS_WITH(parse_image_recipe(to_json(load_recipe(name)), "r"), Catch::Contains("simulated operands or other rotations"));
  CHECK_THROWS_WITH(load_image_recipe("tanh-int4").for_family("gla"), Catch::Contains("use nvfp4 cnn"));
}

} // namespace nvfp4::test
