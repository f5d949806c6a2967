// SPDX-License-Identifier: Apache-2.0
// Steps that are not finite: which tensor is named, that quantization hides none, and that looking changes no
// bit.
#include "nvfp4/reference_models/data/source.hpp"
#include "nvfp4/reference_models/train/evaluate.hpp"
#include "nvfp4/reference_models/train/first_not_finite.hpp"
#include "nvfp4/reference_models/train/training_step.hpp"
#include "tests/catch.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

using namespace nvfp4;
using namespace nvfp4::models;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

/// A tiny model at its initial values, before its first step.
struct Run {
  ModelConfig config;
  std::unique_ptr<DataSource> data = open_data("task:copy,vocab=200", 0.05, 32);
  Session session;
  std::unique_ptr<Optimizer<float>> optimizer;
  StepInput input{1, 1, 2, 2, 32, 1e-3f, {}, {}};

  Run(const std::string &family, const std::string &recipe, double clip = 1.0)
      : config(find_model(family, "tiny")),
        session(make_session("cpu", 1, config, load_recipe(recipe), 2, 32, true)),
        optimizer(std::make_unique<Optimizer<float>>(model().parameters(), AdamWOptions{.clip = clip}, load_recipe(recipe).optimizer)) {
    initialise(model().parameters(), config, 1);
    model().parameters_changed();
    read_micro_batches(*data, input);
  }
  [[nodiscard]] Model<float> &model() const { return *session.model; }
  [[nodiscard]] float *weight(const std::string &name) const { return model().parameters().value(name); }
  [[nodiscard]] StepOutcome step() { return training_step(model(), *optimizer, input); }
};

std::string mixer(const std::string &family) { return family == "qwen3" ? "self_attn." : "attn."; }

} // namespace

TEST_CASE("a healthy step names nothing", "[finite]") {
  for (const char *family : {"gla", "qwen3", "gdn", "gsa", "mamba2"}) {
    Run run(family, "chon");
    for (run.input.step = 1; run.input.step <= 2; ++run.input.step) {
      const StepOutcome outcome = run.step();
      CHECK_FALSE(outcome.not_finite);
      CHECK(std::isfinite(outcome.loss));
    }
  }
}

TEST_CASE("a NaN in a weight that quantization turns into a number is named", "[finite]") {
  for (const std::string family : {"gla", "qwen3", "gdn", "gsa"}) {
    CAPTURE(family);
    Run run(family, "nvfp4");
    const std::string name = "model.layers.0." + mixer(family) + "v_proj.weight";
    const int64_t in = run.config.hidden;
    run.weight(name)[3 * in + 17] = kNan;
    run.model().parameters_changed();
    const StepOutcome outcome = run.step();
    CHECK(std::isfinite(outcome.loss)); // +6 in its place, as hardware has it
    REQUIRE(outcome.not_finite);
    const NotFinite &n = *outcome.not_finite;
    CHECK(n.tensor == name);
    CHECK(n.what == StepTensor::weight);
    CHECK(n.layer == 0);
    CHECK(n.op == "attn.v_proj");
    CHECK(n.first == std::vector<int64_t>{3, 17});
    CHECK((n.nan == 1 && n.inf == 0 && n.step == 1));
    CHECK(n.text() == "step 1: weight of " + name + ": 1 NaN of " + std::to_string(n.shape[0] * n.shape[1]) +
                          ", first at [3, 17]");
    const Evaluation e = evaluate(run.model(), *run.data, 1);
    REQUIRE(e.not_finite);
    CHECK(e.not_finite->tensor == name);
  }
}

TEST_CASE("an infinity in an activation is named where it is made", "[finite]") {
  // the norm's weight times a value above 1e-30 leaves FP32's range; v_proj's copy of it is quantized
  for (const std::string family : {"gla", "qwen3"}) {
    CAPTURE(family);
    Run run(family, "nvfp4");
    const std::string norm = family == "gla" ? "attn_norm" : "input_layernorm";
    run.weight("model.layers.1." + norm + ".weight")[5] = 3e38f;
    run.model().parameters_changed();
    const Evaluation e = evaluate(run.model(), *run.data, 1);
    REQUIRE(e.not_finite);
    CHECK(e.not_finite->tensor == "model.layers.1." + norm);
    CHECK(e.not_finite->step == -1);
    const StepOutcome outcome = run.step();
    REQUIRE(outcome.not_finite);
    const NotFinite &n = *outcome.not_finite;
    CHECK(n.tensor == "model.layers.1." + norm);
    CHECK(n.what == StepTensor::output);
    CHECK(n.layer == 1);
    CHECK(n.product.empty());
    CHECK(n.inf > 0);
    CHECK(n.first.back() == 5);
    CHECK(n.micro_batch == 0);
  }
}

TEST_CASE("a product that overflows is named with its layer", "[finite]") {
  Run run("gla", "bf16");
  for (const char *name : {"model.layers.2.attn_norm.weight", "model.layers.2.attn.q_proj.weight"})
    for (int64_t i = 0; i < run.config.hidden; ++i) run.weight(name)[i] = 1e30f;
  run.model().parameters_changed();
  const StepOutcome outcome = run.step();
  REQUIRE(outcome.not_finite);
  CHECK(outcome.not_finite->tensor == "model.layers.2.attn.q_proj");
  CHECK(outcome.not_finite->op == "attn.q_proj");
  CHECK(outcome.not_finite->product == "fprop");
  CHECK(outcome.not_finite->first[2] == 0);
}

TEST_CASE("gradients that overflow are named in the order of the backward pass", "[finite]") {
  // forward is finite: the gate is 0, and so is what down_proj's large weights meet; its own gradient is dy W
  // up / 2
  for (const char *recipe : {"bf16", "nvfp4"}) {
    CAPTURE(recipe);
    Run run("qwen3", recipe);
    const std::string mlp = "model.layers.1.mlp.";
    const int64_t n = run.config.hidden * run.config.intermediate;
    std::fill_n(run.weight(mlp + "gate_proj.weight"), n, 0.0f);
    std::fill_n(run.weight(mlp + "up_proj.weight"), n, 1e6f);
    std::fill_n(run.weight(mlp + "down_proj.weight"), n, 1e34f);
    run.model().parameters_changed();
    const StepOutcome outcome = run.step();
    CHECK(std::isfinite(outcome.loss));
    REQUIRE(outcome.not_finite);
    CHECK(outcome.not_finite->tensor == mlp + "gate_proj");
    CHECK(outcome.not_finite->what == StepTensor::output_grad);
    CHECK(outcome.not_finite->layer == 1);
    CHECK(outcome.not_finite->shape == std::vector<int64_t>{2, 32, run.config.intermediate});
  }
}

TEST_CASE("what quantization hides from loss and gradients is named all the same", "[finite]") {
  SECTION("in the backward pass") { // inf from down_proj's dgrad, times 0 is NaN, which counts as a number in
                                    // the next
    Run run("qwen3", "nvfp4");
    const std::string mlp = "model.layers.1.mlp.";
    const int64_t n = run.config.hidden * run.config.intermediate;
    for (const char *name : {"gate_proj.weight", "up_proj.weight"})
      std::fill_n(run.weight(mlp + name), n, 0.0f);
    std::fill_n(run.weight(mlp + "down_proj.weight"), n, 3e38f);
    std::fill_n(run.weight("model.norm.weight"), run.config.hidden, 1e4f);
    run.model().parameters_changed();
    const StepOutcome outcome = run.step();
    CHECK(std::isfinite(outcome.loss));
    CHECK(std::isfinite(outcome.gradient_norm));
    REQUIRE(outcome.not_finite);
    CHECK(outcome.not_finite->tensor == mlp + "down_proj");
    CHECK(outcome.not_finite->what == StepTensor::input_grad);
    CHECK(outcome.not_finite->product == "dgrad");
  }
  SECTION("in the forward pass") { // the recurrence overflows, and the norm after it makes NaN of that
    Run run("gla", "nvfp4");
    const std::string mixer_path = "model.layers.0.attn.";
    const auto scale = [&](const char *name, int64_t n, float factor) {
      for (int64_t i = 0; i < n; ++i) run.weight(mixer_path + name)[i] *= factor;
    };
    scale("q_proj.weight", run.config.hidden * run.config.key_dim, 50);
    scale("k_proj.weight", run.config.hidden * run.config.key_dim, 50);
    scale("v_proj.weight", run.config.hidden * run.config.value_dim, 1e38f);
    run.model().parameters_changed();
    const Evaluation e = evaluate(run.model(), *run.data, 1);
    CHECK(std::isfinite(e.loss));
    REQUIRE(e.not_finite);
    CHECK(e.not_finite->tensor == mixer_path + "gla");
    CHECK(e.not_finite->inf > 0);
  }
}

TEST_CASE("moments and updated weights are looked at after the update", "[finite]") {
  SECTION("a square that overflows, though the norm is finite") {
    Run run("gla", "bf16", 0.0); // without clipping
    CHECK(run.optimizer->finite());
    Parameters<float> &p = run.model().parameters();
    p.gradient("model.norm.weight")[7] = 1e25f;
    CHECK(std::isfinite(run.optimizer->step(1, 1e-3f)));
    CHECK_FALSE(run.optimizer->finite());
    CHECK_FALSE(not_finite_parameter(p, StepTensor::updated_weight));
    CHECK_FALSE(not_finite_parameter(p, StepTensor::first_moment));
    const auto n = not_finite_parameter(p, StepTensor::second_moment);
    REQUIRE(n);
    CHECK(n->tensor == "model.norm.weight");
    CHECK(n->first == std::vector<int64_t>{7});
    CHECK(n->inf == 1);
    CHECK_FALSE(run.optimizer->finite()); // and stays so
  }
  SECTION("a learning rate that throws a weight out of range") {
    Run run("gla", "bf16");
    run.input.learning_rate = 3e38f;
    run.weight("model.norm.weight")[2] = -3e38f;
    run.model().parameters_changed();
    StepOutcome outcome = run.step();
    for (int i = 0; i < 3 && !outcome.not_finite; ++i) {
      ++run.input.step;
      outcome = run.step();
    }
    REQUIRE(outcome.not_finite);
    CHECK_FALSE(outcome.not_finite->tensor.empty());
  }
}

TEST_CASE("repeating a sick step changes no bit", "[finite]") {
  // loss, gradients and digest of a step with a NaN, with and without the search
  const auto run_once = [](bool search) {
    Run run("gla", "hcp");
    run.weight("model.layers.0.attn.k_proj.weight")[40] = kNan;
    run.model().parameters_changed();
    const double loss = accumulate_gradients(run.model(), run.input);
    if (search) CHECK(first_not_finite(run.model(), run.input));
    std::vector<uint32_t> words;
    const Parameters<float> &p = run.model().parameters();
    for (int64_t i = 0; i < p.total(); ++i) words.push_back(std::bit_cast<uint32_t>(p.gradients()[i]));
    words.push_back(std::bit_cast<uint32_t>(float(loss)));
    return words;
  };
  CHECK(run_once(true) == run_once(false));
}

TEST_CASE("words of every kind are counted and placed", "[finite]") {
  std::vector<float> x(24, 1.0f);
  CHECK(scan_finite(x).finite());
  CHECK(scan_finite({}).finite());
  x[23] = std::bit_cast<float>(0x7F800001u); // a signalling NaN
  x[10] = -kInf;
  x[11] = std::bit_cast<float>(0xFFFFFFFFu);
  x[0] = std::numeric_limits<float>::max();
  x[1] = std::numeric_limits<float>::denorm_min();
  const auto n = find_not_finite(x, "model.layers.12.self_attn.gk_proj", StepTensor::output, {2, 3, 4});
  REQUIRE(n);
  CHECK((n->nan == 2 && n->inf == 1));
  CHECK(n->first == std::vector<int64_t>{0, 2, 2});
  CHECK(n->layer == 12);
  CHECK(n->op == "attn.gk_proj.1");
  CHECK(n->product == "fprop");
  CHECK(n->text() ==
        "output of model.layers.12.self_attn.gk_proj (fprop): 2 NaN and 1 Inf of 24, first at [0, 2, 2]");
  CHECK(module_place("model.norm.weight").layer == -1);
  CHECK(module_place("lm_head").role == "lm_head");
  CHECK(module_place("model.layers.3").role.empty());
  CHECK(module_place("model.layers.x.mlp").layer == -1);
}

TEST_CASE("one sick element in any chunk of any array is noticed", "[finite]") {
  const auto backend = make_cpu_backend(2);
  FiniteWatch<float> watch(*backend);
  std::vector<std::vector<float>> arrays;
  for (const int64_t n : {1, 31, 4096, 4097, 10000}) arrays.emplace_back(size_t(n), 3e38f);
  const auto all = [&] {
    for (const auto &a : arrays) watch.add(a.data(), int64_t(a.size()));
    for (const auto &a : arrays) watch.add(a.data(), int64_t(a.size())); // more than one launch takes
    return watch.finite();
  };
  CHECK(all());
  for (auto &a : arrays)
    for (const size_t at : {size_t(0), a.size() / 2, a.size() - 1})
      for (const float sick : {kInf, -kInf, kNan, std::bit_cast<float>(0x7F800001u)}) {
        const float old = a[at];
        a[at] = sick;
        CHECK_FALSE(all());
        a[at] = old;
        CHECK(all()); // forgotten
      }
}
