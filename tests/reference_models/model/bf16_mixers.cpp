// SPDX-License-Identifier: Apache-2.0
// Models whose mixers run as on tensor cores ("mixers": "bf16"): near the FP32 mixers, the same bits on any
// number of threads, from a checkpoint and from a slice, and refused where there is no definition.
#include "nvfp4/reference_models/train/steps.hpp"
#include "nvfp4/reference_models/train/trainer.hpp"
#include "nvfp4/reference_models/train/training_step.hpp"
#include "tests/reference_models/slice/support.hpp"

#include <cmath>
#include <fstream>

namespace nvfp4::test {
namespace {

/// qwen3 or qwen2.5 with the smallest heads that attention on tensor cores takes.
ModelConfig wide_heads(const std::string &family) {
  return find_model(family, "tiny", "layers=2,heads=2,kv_heads=1,key_dim=128,value_dim=128");
}

ModelConfig model_of(const std::string &family) {
  return family == "gla" ? find_model("gla", "tiny") : wide_heads(family);
}

/// The first step of a model of its own.
struct FirstStep {
  Session session;
  double loss = 0;

  FirstStep(const ModelConfig &config, const std::string &recipe, int threads = 1)
      : session(make_session("cpu", threads, config, load_recipe(recipe), 2, 100, true)) {
    const std::unique_ptr<DataSource> data = open_data("task:copy,vocab=200", 0.05, 100);
    StepInput input{1, 5, 1, 2, 100, 1e-3f, {}, {}};
    read_micro_batches(*data, input);
    initialise(session.model->parameters(), config, 3);
    session.model->parameters_changed();
    loss = accumulate_gradients(*session.model, input);
  }

  [[nodiscard]] std::vector<float> gradient(const ParameterSpec &p) const {
    return to_host(*session.backend, session.model->parameters().gradient(p.name), p.count());
  }
};

double norm(const std::vector<float> &x) {
  double sum = 0;
  for (const float v : x) sum += double(v) * double(v);
  return std::sqrt(sum);
}

StepsOptions steps_of(const std::string &model, const std::string &recipe, int threads = 1) {
  StepsOptions o;
  o.model = model;
  o.recipe = recipe;
  o.steps = 3;
  o.batch = 2;
  o.sequence = 80; // a ragged second chunk
  o.threads = threads;
  return o;
}

} // namespace

TEST_CASE("mixers are a field of the recipe and a suffix of its name", "[mixers]") {
  CHECK(load_recipe("chon").mixers == FormatId::f32);
  const Recipe r = load_recipe("chon+mixers=bf16");
  CHECK(r.mixers == FormatId::bf16);
  CHECK(r.name == "chon+mixers=bf16");
  CHECK(parse_recipe(to_json(r), "again") == r);
  CHECK(load_recipe("chon+mixers=f32").mixers == FormatId::f32);
  const SliceFolder folder;
  const std::string path = folder.file("r.json");
  std::ofstream(path) << to_json(load_recipe("nvfp4"));
  CHECK(load_recipe(path + "+mixers=bf16").mixers == FormatId::bf16);

  CHECK_THAT(refusal([] { (void)load_recipe("chon+mixers=fp8"); }), Catch::Contains("+mixers=bf16"));
  CHECK_THAT(refusal([] { (void)load_recipe("chom+mixers=bf16"); }),
             Catch::Contains("unknown recipe 'chom'"));
  std::string json = to_json(r);
  json.replace(json.find("\"mixers\": \"bf16\""), 16, "\"mixers\": \"f16\"");
  CHECK_THAT(refusal([&] { (void)parse_recipe(json, "r.json"); }),
             Catch::Contains("r.json: 'mixers' takes one of bf16, f32"));
  Recipe fp8 = load_recipe("fp32+mixers=bf16"); // of whose linear layers none reads the unit
  fp8.units.at("bf16") = "sm_90:wgmma.k32.f32.e4m3";
  CHECK_THAT(refusal([&] { check_recipe(fp8, "r"); }),
             Catch::Contains("r.mixers.unit: sm_90:wgmma.k32.f32.e4m3 does not take"));
}

TEST_CASE("gradients under BF16 mixers are near those of FP32 mixers, and not the same", "[mixers]") {
  for (const std::string family : {"gla", "qwen3", "qwen2.5"}) {
    const ModelConfig config = model_of(family);
    const FirstStep want(config, "fp32"), got(config, "fp32+mixers=bf16");
    CAPTURE(family, want.loss, got.loss);
    CHECK(std::fabs(got.loss - want.loss) < 1e-4 * want.loss);
    size_t differing = 0;
    for (const ParameterSpec &p : parameter_list(config)) {
      const std::vector<float> a = want.gradient(p), b = got.gradient(p);
      std::vector<float> error(a.size());
      for (size_t i = 0; i < a.size(); ++i) error[i] = a[i] - b[i];
      CAPTURE(p.name, norm(a), norm(error));
      // recipe bf16, whose linear layers round as often, differs by up to 0.04
      CHECK(norm(error) <= 0.02 * norm(a));
      differing += norm(error) > 0;
    }
    CHECK(differing > parameter_list(config).size() / 2);
  }
}

TEST_CASE("BF16 mixers have the same bits on any number of threads", "[mixers]") {
  const SliceFolder folder;
  struct Golden {
    const char *family, *recipe, *digest;
  };
  // of parameters and moments after three steps
  const Golden all[] = {{"gla", "bf16+mixers=bf16", "735dd28902825c2a"},
                        {"gla", "chon+mixers=bf16", "5efa9715d2012681"},
                        {"qwen3", "nvfp4+mixers=bf16", "ef16925106de51be"},
                        {"qwen2.5", "bf16+mixers=bf16", "3096212cb2805143"}};
  for (const Golden &g : all) {
    CAPTURE(g.family, g.recipe);
    const std::string path = folder.file((std::string(g.family) + ".json").c_str());
    std::ofstream(path) << to_json(model_of(g.family));
    const std::vector<StepRecord> one = run_steps(steps_of(path, g.recipe, 1));
    CHECK(one.back().digest == g.digest);
    for (const int threads : {2, 3}) CHECK(run_steps(steps_of(path, g.recipe, threads)) == one);
    const std::string plain = std::string(g.recipe).substr(0, std::string(g.recipe).find('+'));
    CHECK(run_steps(steps_of(path, plain)) != one);
  }
}

TEST_CASE("a run with BF16 mixers continues with the same bits", "[mixers]") {
  const SliceFolder folder;
  TrainOptions o;
  o.recipe = "chon+mixers=bf16";
  o.data = "task:copy,vocab=200";
  o.steps = 6;
  o.batch = 2;
  o.sequence = 48;
  o.eval_batches = 1;
  o.diagnostics_every = 0;
  o.checkpoint_every = 3;
  o.threads = 1;
  o.out = folder.file("whole");
  const TrainResult whole = train(o);
  o.out = folder.file("broken");
  struct Stop {};
  CHECK_THROWS_AS(train(o,
                        [](const StepReport &r) {
                          if (r.step == 4) throw Stop{};
                        }),
                  Stop);
  o.resume = true;
  int64_t first = 0;
  const TrainResult rest = train(o, [&](const StepReport &r) { first = first == 0 ? r.step : first; });
  CHECK(first == 4);
  CHECK(rest.parameter_digest == whole.parameter_digest);
  CHECK(rest.validation_loss == whole.validation_loss);
}

TEST_CASE("a slice under BF16 mixers is repeated bit for bit", "[mixers]") {
  const SliceFolder folder;
  RecordRequest r = small_request(folder, "gla", "bf16+mixers=bf16");
  r.taps = {"layers.1.attn.o_proj.input"};
  r.gradients = true;
  record_slice(r);
  const Slice slice = read_slice(r.output);
  for (const int threads : {1, 2}) CHECK(replay_identically(slice, {"cpu", threads}).mismatches.empty());
}

TEST_CASE("attention statistics are those of the logits before BF16", "[mixers]") {
  const ModelConfig config = wide_heads("qwen3");
  FirstStep want(config, "fp32"), got(config, "fp32+mixers=bf16");
  const auto a = want.session.model->attention_moments(0), b = got.session.model->attention_moments(0);
  REQUIRE(a.size() == 4);
  REQUIRE(b.size() == 4);
  for (size_t i = 0; i < a.size(); ++i) { // the first block has the same q and k
    CHECK(a[i].entropy == b[i].entropy);
    CHECK(a[i].largest == b[i].largest);
    CHECK(a[i].z4 == b[i].z4);
  }
}

TEST_CASE("BF16 mixers are refused where they are not defined", "[mixers]") {
  const auto session = [](const ModelConfig &config, const Recipe &recipe) {
    return refusal([&] { (void)make_session("cpu", 1, config, recipe, 1, 16, true); });
  };
  const Recipe chon = load_recipe("chon+mixers=bf16");
  CHECK_THAT(session(find_model("gdn", "tiny"), chon),
             Catch::StartsWith("recipe 'chon+mixers=bf16' has mixers in bf16: ") &&
                 Catch::Contains("not for gdn"));
  CHECK_THAT(session(find_model("qwen3", "tiny", "heads=1,kv_heads=1,key_dim=24,value_dim=24"), chon),
             Catch::StartsWith("recipe 'chon+mixers=bf16'") && Catch::Contains("got batch 1") &&
                 Catch::Contains("dim 24"));
  CHECK_THAT(session(find_model("gla", "tiny", "key_dim=96"), chon), Catch::Contains("got 24 and 32"));
  Recipe other = chon;
  other.units.at("bf16") = "sm_80:mma.m16n8k16.f32.bf16"; // GLA takes any unit, attention one
  CHECK(session(find_model("gla", "tiny"), other) == "accepted");
  CHECK_THAT(session(wide_heads("qwen3"), other),
             Catch::Contains("sm_90:wgmma.k16.f32.bf16, got sm_80:mma.m16n8k16.f32.bf16"));
  const auto twin = make_double_backend(1);
  CHECK_THAT(refusal([&] {
               const Model<double> model(*twin, nullptr, find_model("gla", "tiny"),
                                         load_recipe("fp32+mixers=bf16"), 1, 16, true);
             }),
             Catch::Contains("double precision"));
}

} // namespace nvfp4::test
