// SPDX-License-Identifier: Apache-2.0
// Runs whose recipe changes or holds something from step to step: interrupted, recorded, evaluated, they have the same bits.
#include "nvfp4/reference_models/train/evaluate.hpp"
#include "nvfp4/reference_models/train/run_folder.hpp"
#include "nvfp4/reference_models/train/steps.hpp"
#include "tests/reference_models/slice/support.hpp"

#include <fstream>

namespace nvfp4::test {
namespace {

/// The patch in all blocks, amaxes held for three steps, forward products in BF16 from half of the run on.
std::string recipe_file(const SliceFolder &folder) {
  Recipe r = load_recipe("hcp");
  const Recipe end = load_recipe("nvfp4-bf16-end");
  r.linears["bf16-forward"] = end.linears.at("bf16-forward");
  r.rules = end.rules;
  r.rules[0].from = 0.5;
  r.amax_period = 3;
  r.name = "changing";
  const std::string path = folder.file("changing.json");
  std::ofstream(path) << to_json(r);
  return path;
}

TrainOptions options(const SliceFolder &folder, const std::string &recipe, const char *out) {
  TrainOptions o;
  o.recipe = recipe;
  o.data = "task:copy,vocab=200";
  o.steps = 8;
  o.batch = 1;
  o.sequence = 32;
  o.accumulation = 2;
  o.eval_batches = 1;
  o.diagnostics_every = 0;
  o.checkpoint_every = 1;
  o.threads = 1;
  o.out = folder.file(out);
  return o;
}

} // namespace

TEST_CASE("a run whose recipe changes goes on with the same bits wherever it was stopped", "[changing]") {
  const SliceFolder folder;
  const std::string recipe = recipe_file(folder);
  TrainOptions o = options(folder, recipe, "whole");
  std::vector<StepReport> reports;
  const TrainResult whole = train(o, [&](const StepReport &r) { reports.push_back(r); });
  struct Stop {};
  for (const int64_t stop : {2, 4, 6}) { // in a period, at the change, behind it
    CAPTURE(stop);
    o = options(folder, recipe, ("broken" + std::to_string(stop)).c_str());
    CHECK_THROWS_AS(train(o,
                          [&](const StepReport &r) {
                            if (r.step == stop) throw Stop{};
                          }),
                    Stop);
    o.resume = true;
    const TrainResult rest = train(o);
    CHECK(rest.parameter_digest == whole.parameter_digest);
    CHECK(rest.validation_loss == whole.validation_loss);
  }
  // each part of what changes is felt
  TrainOptions other = options(folder, "hcp", "plain");
  std::vector<StepReport> plain;
  (void)train(other, [&](const StepReport &r) { plain.push_back(r); });
  CHECK(plain[0].gradient_norm != reports[0].gradient_norm); // the second micro-batch has the first one's amaxes
  // the run's recipe says the step, and what reads its checkpoint finds the last step's layers
  const Checkpoint c = read_checkpoint(folder.file("whole") + "/checkpoint.safetensors");
  const Recipe bound = parse_recipe(c.recipe, "c");
  CHECK(bound.phases() == std::vector<int64_t>{0, 4});
  CHECK(c.state.held_amaxes.contains("0.mlp.up_proj.wgrad.a"));
  CHECK(c.state.held_amaxes.contains("0.mlp.gate_proj.wgrad.b")); // whose copy of x up_proj shares
  CHECK_FALSE(c.state.held_amaxes.contains("0.mlp.up_proj.fprop.a")); // BF16 by now
  // more steps keep the step of the change
  o = options(folder, recipe, "whole");
  o.steps = 10;
  o.schedule_steps = 8;
  o.resume = true;
  (void)train(o);
  CHECK(parse_recipe(read_checkpoint(o.out + "/checkpoint.safetensors").recipe, "c").phases() == std::vector<int64_t>{0, 4});
}

TEST_CASE("recorded steps before, at and behind a change are the trainer's, and are repeated", "[changing]") {
  const SliceFolder folder;
  const std::string recipe = recipe_file(folder);
  TrainOptions o = options(folder, recipe, "run");
  std::vector<StepReport> reports;
  (void)train(o, [&](const StepReport &r) {
    reports.push_back(r);
    if (r.step == 2) std::filesystem::copy(o.out, folder.file("half"), std::filesystem::copy_options::recursive);
  });
  RecordRequest r;
  r.checkpoint = folder.file("half") + "/checkpoint.safetensors";
  r.output = folder.file("s.safetensors");
  r.options = *options_beside(r.checkpoint);
  for (const int64_t step : {3, 4, 5, 6}) {
    CAPTURE(step);
    r.step = step;
    const RecordReport report = record_slice(r);
    const StepReport &trained = reports[size_t(step) - 1];
    CHECK(std::bit_cast<uint32_t>(report.result.loss) == std::bit_cast<uint32_t>(trained.loss));
    CHECK(float(report.result.gradient_norm) == trained.gradient_norm);
    const Slice slice = read_slice(r.output);
    CHECK(replay_identically(slice, {}).mismatches.empty());
    // and by its own recipe, for which channels are asked for and amaxes are the run's
    const Recipe own = parse_recipe(slice.before.recipe, "s");
    for (const bool choose : {false, true}) CHECK(compare_recipes(slice, {{own, choose}}, false, {}).outcomes[0].same_bits);
  }
  // under a recipe that counts from a part of a run, a slice cannot say which step that is
  const Slice slice = read_slice(r.output);
  CHECK_THAT(refusal([&] { (void)compare_recipes(slice, {{load_recipe("nvfp4-bf16-end"), false}}, false, {}); }),
             Catch::Contains("nvfp4-bf16-end") && Catch::Contains("of a run's steps") &&
                 Catch::Contains("with \"from\" as a whole number"));
}

TEST_CASE("channels are chosen for a patch that begins with the recorded step", "[changing]") {
  const SliceFolder folder;
  TrainOptions o = options(folder, "nvfp4", "run");
  o.steps = 2;
  (void)train(o);
  RecordRequest r;
  r.checkpoint = o.out + "/checkpoint.safetensors";
  r.output = folder.file("s.safetensors");
  r.options = *options_beside(r.checkpoint);
  r.step = 3;
  (void)record_slice(r);
  const Slice slice = read_slice(r.output);
  Recipe whole = load_recipe("hcp"); // the patch from step 0 on, and from step 2, counted from 0, on
  whole.rules.clear();
  Recipe late = whole;
  late.linears["before"] = late.linears.at(late.default_linear);
  late.linears["before"].hcp = {};
  late.rules = {{.from = 2, .use = late.default_linear}};
  late.default_linear = "before";
  const Comparison out = compare_recipes(slice, {{whole, true}, {late, true}, {late, false}}, false, {});
  CHECK(std::bit_cast<uint32_t>(out.outcomes[1].loss) == std::bit_cast<uint32_t>(out.outcomes[0].loss));
  CHECK(out.outcomes[1].gradient_norm == out.outcomes[0].gradient_norm);
  CHECK(out.outcomes[2].gradient_norm != out.outcomes[0].gradient_norm); // no patch
}

TEST_CASE("runs of a few steps without a folder change too", "[changing]") {
  StepsOptions o;
  o.data = "task:copy,vocab=200";
  o.recipe = "nvfp4-bf16-end";
  o.steps = 6; // 4.92: from the sixth on
  o.batch = 1;
  o.sequence = 32;
  o.threads = 1;
  const std::vector<StepRecord> changing = run_steps(o);
  o.recipe = "nvfp4";
  const std::vector<StepRecord> plain = run_steps(o);
  for (size_t i = 0; i < 5; ++i) CHECK(changing[i] == plain[i]);
  CHECK(changing[5] != plain[5]);
}

} // namespace nvfp4::test
