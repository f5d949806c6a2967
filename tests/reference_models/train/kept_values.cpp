// SPDX-License-Identifier: Apache-2.0
// What an optimizer keeps: roundings against the codec's, a step put together by hand, runs that go on.
#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/reference_models/kernels/kept_values.hpp"
#include "nvfp4/reference_models/train/run_folder.hpp"
#include "nvfp4/reference_models/train/steps.hpp"
#include "tests/reference_models/slice/support.hpp"

#include <fstream>
#include <random>

namespace nvfp4::test {
namespace {

struct Row {
  StateFormat name;
  FormatId id;
  KeptFormat kept;
};
constexpr Row kRows[] = {{StateFormat::f16, FormatId::f16, {10, -14, 65504.0f}},
                         {StateFormat::e4m3, FormatId::e4m3, {3, -6, 448.0f}},
                         {StateFormat::e5m2, FormatId::e5m2, {2, -14, 57344.0f}},
                         {StateFormat::bf16, FormatId::bf16, {7, -126, 0.0f}}};

/// The largest power of two, by trying, that leaves amax at most the format's largest.
float scale_by_hand(const Row &row, float amax) {
  if (row.kept.most == 0.0f || amax == 0.0f) return 1.0f;
  int e = -126;
  while (e < 126 && std::ldexp(double(amax), e + 1) <= double(row.kept.most)) ++e;
  return std::ldexp(1.0f, e);
}

float value_by_hand(const Row &row, float scale, float x) {
  return float(value(row.id, encode(row.id, x * scale)) / double(scale));
}

std::vector<float> by_hand(StateFormat format, const float *x, int64_t n) {
  std::vector<float> out(x, x + n);
  for (const Row &row : kRows) {
    if (row.name != format) continue;
    float amax = 0;
    for (const float v : out) amax = std::max(amax, std::fabs(v));
    const float scale = scale_by_hand(row, amax);
    for (float &v : out) v = value_by_hand(row, scale, v);
  }
  return out;
}

bool same(const std::vector<float> &a, const float *b) {
  return std::memcmp(a.data(), b, a.size() * sizeof(float)) == 0;
}

} // namespace

TEST_CASE("kept values are the codec's under the largest power of two that holds the tensor", "[kept]") {
  std::mt19937_64 random(5);
  const auto any = [&] { return bit_cast<float>(uint32_t(random())); };
  for (const Row &row : kRows) {
    CAPTURE(format(row.id).name);
    REQUIRE((row.kept.most == 0.0f || row.kept.most == largest(row.id)));
    for (int i = 0; i < 20000; ++i) {
      float amax = std::fabs(any());
      if (i % 5 == 0) amax = std::ldexp(row.kept.most == 0.0f ? 1.0f : row.kept.most, int(random() % 40) - 20); // where scales change
      if (i % 10 == 0) amax = std::nextafter(amax, INFINITY);
      if (!std::isfinite(amax)) continue;
      const float scale = kept_scale(row.kept, amax);
      REQUIRE(scale == scale_by_hand(row, amax));
      float x = any();
      if (i % 2 == 0) x = std::ldexp(amax, -int(random() % 24)) * (random() % 2 == 0 ? 1.0f : -0.8125f);
      if (i % 7 == 0) x = std::ldexp(std::trunc(std::ldexp(x, 30)), -30);
      if (!(std::fabs(x) <= amax)) x = i % 3 == 0 ? amax : -0.0f;
      REQUIRE(bit_cast<uint32_t>(kept_value(row.kept, scale, x)) == bit_cast<uint32_t>(value_by_hand(row, scale, x)));
    }
    CHECK(kept_scale(row.kept, 0.0f) == 1.0f);
    CHECK(kept_scale(row.kept, INFINITY) == 0.0f);
  }
}

TEST_CASE("a step keeps what its recipe says, tensor by tensor", "[kept]") {
  const ModelConfig c = preset(find_family("gla"), "tiny");
  const auto backend = make_cpu_backend(2);
  OptimizerRecipe kept;
  SECTION("FP8-LM's") { kept = {StateFormat::e4m3, StateFormat::e4m3, StateFormat::f16, StateFormat::f16}; }
  SECTION("BF16") { kept = {StateFormat::f32, StateFormat::bf16, StateFormat::bf16, StateFormat::bf16}; }
  SECTION("others") { kept = {StateFormat::e5m2, StateFormat::f32, StateFormat::e5m2, StateFormat::f32}; }
  Parameters<float> plain(*backend, c, true), ours(*backend, c, true);
  std::mt19937_64 random(3);
  std::normal_distribution<float> normal;
  for (Parameters<float> *p : {&plain, &ours}) initialise(*p, c, 1);
  Optimizer<float> reference(plain, {}, {}), optimizer(ours, {}, kept);
  for (int64_t step = 1; step <= 2; ++step) {
    for (const ParameterSpec &s : ours.list()) {
      const float size = std::exp(2.0f * normal(random));
      for (int64_t i = 0; i < s.count(); ++i) ours.gradient(s.name)[i] = size * normal(random) * (i % 50 == 3 ? 0.0f : 1.0f);
      const std::vector<float> rounded =
          s.decay ? by_hand(kept.gradient, ours.gradient(s.name), s.count())
                  : std::vector<float>(ours.gradient(s.name), ours.gradient(s.name) + s.count());
      std::copy(rounded.begin(), rounded.end(), plain.gradient(s.name));
    }
    optimizer.keep_gradients();
    REQUIRE(std::memcmp(ours.gradients(), plain.gradients(), size_t(ours.total()) * sizeof(float)) == 0);
    CHECK(optimizer.step(step, 0.01f) == reference.step(step, 0.01f));
    for (const ParameterSpec &s : ours.list()) {
      CAPTURE(s.name);
      const auto one = [&](StateFormat format, float *by_reference, const float *got) {
        const std::vector<float> want = by_hand(format, by_reference, s.count());
        CHECK(same(want, got));
        std::copy(want.begin(), want.end(), by_reference); // the next step starts from it
      };
      one(kept.first_moment, plain.first_moment(s.name), ours.first_moment(s.name));
      one(kept.second_moment, plain.second_moment(s.name), ours.second_moment(s.name));
      one(s.decay ? kept.weight : StateFormat::f32, plain.value(s.name), ours.value(s.name));
    }
  }
  // what is not finite is not hidden
  const std::string &name = ours.list().front().name;
  ours.gradient(name)[0] = std::numeric_limits<float>::infinity();
  optimizer.keep_gradients();
  CHECK_FALSE(std::isfinite(optimizer.gradient_norm()));
}

TEST_CASE("a run that keeps FP8 goes on with the same bits, and feels it", "[kept]") {
  const SliceFolder folder;
  TrainOptions o;
  o.recipe = "fp8-optimizer";
  o.data = "task:copy,vocab=200";
  o.steps = 4;
  o.batch = 2;
  o.sequence = 32;
  o.eval_batches = 1;
  o.diagnostics_every = 0;
  o.checkpoint_every = 1;
  o.threads = 1;
  o.out = folder.file("whole");
  const TrainResult whole = train(o);
  struct Stop {};
  o.out = folder.file("broken");
  CHECK_THROWS_AS(train(o, [](const StepReport &r) { if (r.step == 2) throw Stop{}; }), Stop);
  o.resume = true;
  o.threads = 2;
  CHECK(train(o).parameter_digest == whole.parameter_digest);
  o.resume = false;
  o.recipe = "fp8-gradients";
  o.out = folder.file("gradients");
  const std::string gradients = train(o).parameter_digest;
  CHECK(gradients != whole.parameter_digest);
  Recipe r = load_recipe("fp8-gradients");
  r.optimizer = {};
  r.name = "products";
  std::ofstream(folder.file("products.json")) << to_json(r);
  o.recipe = folder.file("products.json");
  o.out = folder.file("products");
  CHECK(train(o).parameter_digest != gradients);
}

TEST_CASE("steps without files, slices and their replays keep the same", "[kept]") {
  const SliceFolder folder;
  StepsOptions o;
  o.steps = 3;
  o.batch = 2;
  o.sequence = 32;
  o.threads = 1;
  o.recipe = "bf16";
  const std::string plain = run_steps(o).back().digest;
  for (const char *recipe : {"fp8-gradients", "fp8-optimizer", "bf16-optimizer"}) {
    CAPTURE(recipe);
    o.recipe = recipe;
    CHECK(run_steps(o).back().digest != plain);
  }
  const RecordRequest r = small_request(folder, "gla", "fp8-optimizer");
  (void)record_slice(r);
  const Slice slice = parse_slice(io::read_tensors(r.output), "s");
  CHECK(replay_identically(slice, {"cpu", 1}).mismatches.empty());
  const Comparison c = compare_recipes(slice, {{load_recipe("fp8-optimizer")}, {load_recipe("bf16")}}, false, {"cpu", 1});
  REQUIRE(c.outcomes.size() == 2);
  CHECK(c.outcomes[0].same_bits);
  CHECK_FALSE(c.outcomes[1].same_bits);
}

TEST_CASE("what an optimizer keeps is read strictly", "[kept]") {
  std::string json = to_json(load_recipe("fp8-optimizer"));
  CHECK(parse_recipe(json, "r") == load_recipe("fp8-optimizer"));
  const size_t at = json.find("\"second_moment\": \"f16\"");
  REQUIRE(at != std::string::npos);
  const auto refused = [](const std::string &text) {
    try {
      (void)parse_recipe(text, "r");
    } catch (const Error &e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  CHECK(refused(std::string(json).replace(at, 22, "\"second_moment\": \"e3m4\"")).find("r.optimizer: 'second_moment'") == 0);
  CHECK(refused(std::string(json).replace(at, 22, "\"third_moment\": \"f16\"")).find("r.optimizer: unknown key 'third_moment'") == 0);
}

} // namespace nvfp4::test
