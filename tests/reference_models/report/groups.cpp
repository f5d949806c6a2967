// SPDX-License-Identifier: Apache-2.0
// Which runs are averaged: those that are alike in everything that decides bits but the seed, each once.
#include "tests/golden/io/support.hpp"
#include "tests/temporary_folder.hpp"

#include "nvfp4/reference_models/family/config.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"
#include "nvfp4/reference_models/report/analysis.hpp"
#include "nvfp4/reference_models/report/report.hpp"
#include "nvfp4/reference_models/train/options.hpp"

#include <filesystem>
#include <fstream>
#include <unistd.h>

using namespace nvfp4;
using namespace nvfp4::models;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

/// What a run is made of; its losses are 2 + seed / 10.
struct Made {
  TrainOptions options = [] {
    TrainOptions o;
    o.steps = 10;
    o.data = "text.txt";
    return o;
  }();
  ModelConfig model = preset(find_family("gla"), "tiny");
  Json recipe;
  std::string sha = std::string(64, 'a');
  int64_t reached = 10;
  double loss = 0; ///< more

  explicit Made(uint64_t seed, const char *name = "nvfp4") {
    options.seed = seed;
    recipe = Json::parse(to_json(load_recipe(name)));
  }
};

struct Folders : test::TemporaryFolder {
  int number = 0;
  std::vector<RunData> runs;

  void add(const Made &m) {
    const fs::path dir = path / ("run-" + std::to_string(++number));
    fs::create_directories(dir);
    std::ofstream(dir / "run.json") << Json{
        {"version", 1},
        {"model", Json::parse(to_json(m.model))},
        {"recipe", m.recipe},
        {"options", options_to_json(m.options)},
        {"data", {{"description", "text"}, {"sha256", m.sha}}},
        {"parameters", 1}}.dump();
    std::ofstream log(dir / "log.jsonl");
    for (int64_t step = 1; step <= m.reached; ++step)
      log << Json{{"step", step}, {"loss", 2 + 0.1 * double(m.options.seed) + m.loss}}.dump() << "\n";
    log.close();
    runs.push_back(read_run(dir.string()));
  }
};

} // namespace

TEST_CASE("what changes no bit is one group", "[groups]") {
  Folders f;
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    Made m(seed);
    m.options.threads = int(seed);
    m.options.device = seed == 2 ? "cuda" : "cpu";
    m.options.out = "somewhere/" + std::to_string(seed);
    m.options.checkpoint_every = int64_t(seed);
    m.options.data = seed == 3 ? "elsewhere/text.txt" : "text.txt";
    m.options.model = seed == 1 ? "gla" : "./copy.json"; // its content is the same
    m.options.resume = seed == 1;
    if (seed == 2) m.options.schedule_steps = 10; // as many as there are steps
    f.add(m);
  }
  const RunGroups g = sort_runs(f.runs);
  REQUIRE(g.groups.size() == 1);
  CHECK(g.groups[0].model == "gla-tiny");
  CHECK(g.groups[0].recipe == "nvfp4");
  CHECK(g.groups[0].runs.size() == 3);
  CHECK(g.duplicates.empty());
  CHECK(g.differences.empty());
}

TEST_CASE("whatever decides bits keeps runs apart, and is named", "[groups]") {
  const auto [change, named] = GENERATE(table<std::function<void(Made &)>, std::string>(
      {{[](Made &m) { m.options.steps = 20; }, "steps"},
       {[](Made &m) { m.options.schedule_steps = 20; }, "schedule_steps"},
       {[](Made &m) { m.options.learning_rate = 2e-3; }, "learning_rate"},
       {[](Made &m) { m.options.schedule = "wsd"; }, "schedule"},
       {[](Made &m) { m.options.batch = 8; }, "batch"},
       {[](Made &m) { m.options.accumulation = 2; }, "accumulation"},
       {[](Made &m) { m.options.epsilon = 1e-9; }, "epsilon"},
       {[](Made &m) { m.options.validation = 0.1; }, "validation"},
       {[](Made &m) { m.options.eval_batches = 1; }, "eval_batches"},
       {[](Made &m) { m.sha = std::string(64, 'b'); }, "data"},
       {[](Made &m) { m.model.norm_epsilon = 1e-5; }, "model norm_epsilon"},
       {[](Made &m) { m.model.layers = 3; }, "model layers"}}));
  CAPTURE(named);
  Folders f;
  for (uint64_t seed = 1; seed <= 2; ++seed)
    for (const char *recipe : {"bf16", "nvfp4"}) f.add(Made(seed, recipe));
  Made other(3);
  change(other);
  f.add(other);
  const RunGroups g = sort_runs(f.runs);
  REQUIRE(g.groups.size() == 3);
  size_t alone = 0, together = 0;
  for (const RunGroup &group : g.groups) {
    CHECK(group.model.find("gla-tiny [") == 0);
    CHECK(group.model.find(named) != std::string::npos);
    alone += group.runs.size() == 1 && group.runs[0]->seed == 3 ? 1 : 0;
    together += group.runs.size() == 2 ? 1 : 0;
  }
  CHECK(alone == 1);
  CHECK(together == 2);
  REQUIRE(g.differences.size() == 1);
  CHECK(g.differences[0].find("gla-tiny: kept apart by ") == 0);
  CHECK(g.differences[0].find(named + " (") != std::string::npos);
  // nothing is compared across: the odd run has no reference
  for (const RunGroup &group : g.groups)
    if (group.runs.size() == 1) CHECK(find_group(g.groups, group.model, "bf16") == nullptr);
  const std::string page = make_report(f.runs, "test");
  CHECK(page.find("What is not averaged") != std::string::npos);
  CHECK(page.find("differ in more than recipe and seed") != std::string::npos);
}

TEST_CASE("recipes of one name and other contents are two", "[groups]") {
  Folders f;
  f.add(Made(1, "chon"));
  f.add(Made(2, "chon"));
  Made other(3, "chon");
  Recipe changed = load_recipe("chon");
  for (auto &[name, linear] : changed.linears)
    if (linear.hcp.enabled) linear.hcp.period += 1;
  other.recipe = Json::parse(to_json(changed));
  f.add(other);
  const RunGroups g = sort_runs(f.runs);
  REQUIRE(g.groups.size() == 2);
  for (const RunGroup &group : g.groups) {
    CHECK(group.model == "gla-tiny"); // one section: both have the same reference
    CHECK(group.recipe.find("chon [linears ") == 0);
    CHECK(group.recipe.find("period ") != std::string::npos);
  }
  REQUIRE(g.differences.size() == 1);
  CHECK(g.differences[0].find("gla-tiny under chon: kept apart by linears ") == 0);
}

TEST_CASE("fields that an older release did not write count as their defaults", "[groups]") {
  Folders f;
  f.add(Made(1));
  Made old(2);
  old.recipe.erase("mixers");
  f.add(old);
  CHECK(sort_runs(f.runs).groups.size() == 1);
}

TEST_CASE("runs that got to other steps are not averaged", "[groups]") {
  Folders f;
  f.add(Made(1));
  f.add(Made(2));
  Made going(3);
  going.reached = 4;
  f.add(going);
  const RunGroups g = sort_runs(f.runs);
  REQUIRE(g.groups.size() == 2);
  CHECK(g.groups[0].recipe == "nvfp4 [step reached 10]");
  CHECK(g.groups[0].runs.size() == 2);
  CHECK(g.groups[1].recipe == "nvfp4 [step reached 4]");
}

TEST_CASE("a run that is there twice is named and counts once", "[groups]") {
  Folders f;
  f.add(Made(1));
  f.add(Made(2));
  f.add(Made(1));
  Made another(2);
  another.loss = 0.25; // what no bit-exact repetition has
  f.add(another);
  const RunGroups g = sort_runs(f.runs);
  REQUIRE(g.groups.size() == 1);
  CHECK(g.groups[0].runs == std::vector<const RunData *>{f.runs.data(), &f.runs[1]});
  REQUIRE(g.duplicates.size() == 2);
  CHECK(g.duplicates[0].run == &f.runs[2]);
  CHECK(g.duplicates[0].kept == f.runs.data());
  CHECK(g.duplicates[0].differs_at == 0);
  CHECK(g.duplicates[0].text().find("run-3: the same run as ") != std::string::npos);
  CHECK(g.duplicates[1].differs_at == 1);
  CHECK(g.duplicates[1].text().find("BUT their losses differ from step 1 on") != std::string::npos);
  const std::string page = make_report(f.runs, "test");
  CHECK(page.find("2 of 4 runs are there twice and left out") != std::string::npos);
  CHECK(page.find("run-3: the same run as") != std::string::npos);
}

TEST_CASE("names that would be equal are numbered", "[groups]") {
  Folders f;
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    Made m(seed);
    m.options.epsilon = 1e-8 * double(seed); // the fourth difference and later ones are not in the name
    m.options.clip = seed == 1 ? 0.5 : 1;
    m.options.beta1 = seed == 1 ? 0.8 : 0.9;
    m.options.beta2 = seed == 1 ? 0.8 : 0.9;
    f.add(m);
  }
  const RunGroups g = sort_runs(f.runs);
  REQUIRE(g.groups.size() == 3);
  CHECK(g.groups[0].model != g.groups[1].model);
  CHECK(g.groups[1].model != g.groups[2].model);
  CHECK(g.groups[2].model.find(", no. 2]") != std::string::npos);
}

TEST_CASE("recipes that all have their mixers in BF16 are compared under their own names", "[groups]") {
  Folders f;
  for (uint64_t seed = 1; seed <= 2; ++seed)
    for (const char *name : {"chon+mixers=bf16", "bf16+mixers=bf16", "nvfp4+mixers=bf16"}) {
      Made m(seed, name);
      m.loss = name[0] == 'b' ? 0 : 0.01 * double(seed);
      f.add(m);
    }
  RunGroups g = sort_runs(f.runs);
  REQUIRE(g.groups.size() == 3);
  CHECK(g.groups[0].recipe == "bf16"); // in the order of recipes
  CHECK(g.groups[1].recipe == "nvfp4");
  CHECK(g.groups[2].recipe == "chon");
  CHECK(g.groups[0].model == "gla-tiny, mixers in BF16");
  CHECK(reference_group(g.groups, "gla-tiny, mixers in BF16").recipe == "bf16");
  CHECK(g.differences.empty());
  // beside one whose mixers are FP32 they keep their names, so that nothing is taken for the other
  f.add(Made(1, "bf16"));
  g = sort_runs(f.runs);
  REQUIRE(g.groups.size() == 4);
  CHECK(g.groups[0].model == "gla-tiny");
  CHECK(find_group(g.groups, "gla-tiny", "bf16")->runs.size() == 1);
  CHECK(find_group(g.groups, "gla-tiny", "bf16+mixers=bf16")->runs.size() == 2);
}
