// SPDX-License-Identifier: Apache-2.0
// Kernels of networks: ties and NaN in pools, odd sizes, tanh, soft clipping, the 15 levels of weights, and a run that clips.
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/reference_models/images/steps.hpp"
#include "nvfp4/reference_models/train/checkpoint.hpp"
#include "tests/reference_models/images/support.hpp"
#include "tests/temporary_folder.hpp"

namespace nvfp4::test {

TEST_CASE("A pool takes the first of equal values, and NaN", "[images][pool]") {
  const auto backend = make_cpu_backend(1);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  // one channel, 3 x 5: the last row and column have no window
  const Floats x = {1, 2, 0, 0, 9, 2, 2, 0, nan, 9, 9, 9, 9, 9, 9}, dy = {10, 20};
  Floats y(2), dx(15, -1);
  backend->run(MaxPoolForward<float>{1, 3, 5, 1, x.data(), y.data()});
  CHECK(y[0] == 2);
  CHECK(std::isnan(y[1]));
  backend->run(MaxPoolBackward<float>{1, 3, 5, 1, dy.data(), x.data(), dx.data()});
  CHECK(dx == Floats{0, 10, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0});
}

TEST_CASE("tanh is within 2 ulp, odd and bounded", "[images][clip]") {
  double worst = 0;
  bool odd_and_bounded = true;
  for (uint32_t word = 0; word < 0x7F800000; word += 997) {
    const float x = bit_cast<float>(word), got = numerics::tanh(x);
    const double want = std::tanh(double(x));
    const float ulp = std::nextafter(float(want), 2.0f) - float(want);
    worst = std::max(worst, std::fabs(double(got) - want) / double(ulp));
    odd_and_bounded = odd_and_bounded && numerics::tanh(-x) == -got && got <= 1.0f;
  }
  CHECK(odd_and_bounded);
  CHECK(worst < 2);
  CHECK(std::isnan(numerics::tanh(std::numeric_limits<float>::quiet_NaN())));
}

TEST_CASE("Soft clipping and 15 levels, value by value", "[images][clip]") {
  const auto backend = make_cpu_backend(1);
  Floats x = hard(5000, 2, 4);
  Floats clipped = x;
  backend->run(SoftClip<float>{5000, 3.0f, clipped.data()});
  for (size_t i = 0; i < x.size(); ++i) {
    REQUIRE(std::fabs(clipped[i]) <= 3.0f);
    REQUIRE(std::fabs(double(clipped[i]) - 3 * std::tanh(double(x[i]) / 3)) <= 4e-7 * std::fabs(double(clipped[i])));
  }
  // ties go to even, what is too large to the last level, NaN stays
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Floats in = {0.5f, 1.5f, 2.5f, -0.5f, -3.5f, 6.5f, 7.5f, 100, -100, nan, 0};
  Floats out(in.size());
  backend->run(FifteenLevels<float>{int64_t(in.size()), 1.0f, in.data(), out.data()});
  CHECK(Floats(out.begin(), out.begin() + 9) == Floats{0, 2, 2, 0, -4, 6, 7, 7, -7});
  CHECK(std::isnan(out[9]));
  CHECK(out[10] == 0);
  CHECK(fifteen_levels_scale(0) > 0); // weights of 0 stay 0
}

TEST_CASE("A run under tanh-int4 clips the weights after each step, and those alone", "[images][clip]") {
  const TemporaryFolder folder;
  const auto weights = [&](const std::string &recipe, const char *out) {
    ImageOptions o;
    o.widths = "4,8", o.steps = 2, o.batch = 4, o.learning_rate = 20, o.eval_images = 4, o.warmup = 0; // large weights
    o.recipe = recipe, o.out = folder.file(out), o.threads = 1;
    (void)train_images(o);
    const Checkpoint c = read_checkpoint(folder.file(out) + "/checkpoint.safetensors", CheckpointKind::images);
    float largest_weight = 0, largest_other = 0;
    for (size_t i = 0; i < c.tensors.headers().size(); ++i) {
      const std::string &name = c.tensors.headers()[i].name;
      if (name.starts_with("optimizer.") || name.find("running") != name.npos) continue;
      float &largest = c.tensors.headers()[i].shape.size() > 1 ? largest_weight : largest_other;
      for (const float v : as_floats(c.tensors.read(i), "x")) largest = std::max(largest, std::fabs(v));
    }
    return std::pair(largest_weight, largest_other);
  };
  const auto [clipped, other] = weights("tanh-int4", "a");
  CHECK(clipped <= 3);
  CHECK(clipped > 2);
  CHECK(other > 3);
  CHECK(weights("fp32", "b").first > 3);
}

TEST_CASE("Steps without a folder are those of a run, on any thread", "[images][steps]") {
  const TemporaryFolder folder;
  for (const char *recipe : {"hcp", "tanh-int4"}) {
    ImageOptions o;
    o.widths = "8,24", o.hidden = 40, o.steps = 3, o.batch = 4, o.eval_images = 4, o.recipe = recipe, o.threads = 1;
    const std::vector<StepRecord> steps = run_image_steps(o);
    REQUIRE(steps.size() == 3);
    o.out = folder.file(recipe);
    CHECK(train_images(o).parameter_digest == steps.back().digest);
    CHECK(steps[0].digest != steps[1].digest);
    o.threads = 3;
    CHECK(run_image_steps(o) == steps);
    o.seed = 2;
    CHECK(run_image_steps(o).back().digest != steps.back().digest);
  }
  ImageOptions o;
  o.device = "nowhere";
  CHECK_THROWS_AS(run_image_steps(o), Error);
}

} // namespace nvfp4::test
