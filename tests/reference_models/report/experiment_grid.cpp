// SPDX-License-Identifier: Apache-2.0
// What a grid can say beyond lists: recipes made from others, a reference, parts for several machines, jobs
// side by side; and how many pairs would tell two recipes apart.
#include "tests/golden/io/support.hpp"
#include "tests/temporary_folder.hpp"

#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/reference_models/family/config.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"
#include "nvfp4/reference_models/report/experiment.hpp"
#include "nvfp4/reference_models/train/options.hpp"

#include <atomic>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <random>
#include <set>
#include <thread>
#include <unistd.h>

using namespace nvfp4;
using namespace nvfp4::models;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

using Folder = test::TemporaryFolder;

Experiment grid(const Folder &folder, const Json &recipes, const Json &more = Json::object()) {
  Json j = {{"models", {{{"model", "gla"}, {"size", "tiny"}}}},
            {"recipes", recipes},
            {"seeds", {1, 2, 3, 4, 5}},
            {"out", folder.path.string()},
            {"data", "task:copy"},
            {"steps", 10}};
  j.update(more);
  return parse_experiment(j.dump(), "grid.json");
}

std::string refusal(const Json &recipe) {
  const Folder folder;
  return io::error_of([&] { (void)grid(folder, {"bf16", recipe}); });
}

TrainResult result(double loss, const TrainOptions &o) {
  TrainResult r;
  r.steps = o.steps;
  r.final_loss = r.smoothed_loss = r.validation_loss = loss;
  r.parameter_digest = "digest";
  return r;
}

} // namespace

TEST_CASE("a recipe of a grid is another one with changes") {
  const Folder folder;
  const Experiment e = grid(
      folder,
      {"bf16",
       "chon",
       {{"name", "chon-no-sr"},
        {"base", "chon"},
        {"change",
         {{"linears",
           {{"nvfp4",
             {{"dgrad", {{"a", {{"rounding", "rne"}}}}}, {"wgrad", {{"a", {{"rounding", "rne"}}}}}}}}}}}},
       {{"name", "hcp-k32-random"},
        {"base", "hcp+mixers=bf16"},
        {"bf16_last", 0},
        {"change",
         {{"linears", {{"nvfp4", {{"hcp", {{"fraction", nullptr}, {"k", 32}, {"choice", "random"}}}}}}}}}}});
  REQUIRE(e.recipes.size() == 4);
  CHECK(recipe_label(e.recipes[1]) == "chon");
  CHECK(recipe_label(e.recipes[2]) == "chon-no-sr");
  CHECK(run_folder(e, e.models[0], e.recipes[3], 4) == e.out + "/gla-tiny-hcp-k32-random-4");
  Recipe expected = load_recipe("chon");
  expected.name = "chon-no-sr";
  expected.linears.at("nvfp4").dgrad.a.rounding = expected.linears.at("nvfp4").wgrad.a.rounding =
      ElementRounding::nearest;
  CHECK(load_recipe(e.recipes[2]) == expected);
  expected = load_recipe("hcp+mixers=bf16");
  expected.name = "hcp-k32-random";
  HcpRecipe &hcp = expected.linears.at("nvfp4").hcp;
  hcp.k = 32;
  hcp.choice = HcpRecipe::Choice::random;
  std::erase_if(expected.rules, [](const RecipeRule &r) { return r.last > 0; });
  CHECK(load_recipe(e.recipes[3]) == expected);
  // a run describes it by its contents
  TrainOptions o = e.base;
  o.recipe = e.recipes[3];
  CHECK(Json::parse(describe_run(o).recipe)["name"] == "hcp-k32-random");

  io::check_message(refusal({{"name", "x"}}), {"grid.json", "in 'recipes'", "expected 'name' and 'base'"});
  io::check_message(refusal({{"name", "x"}, {"base", "chom"}}), {"unknown recipe 'chom'"});
  io::check_message(refusal({{"name", "x"}, {"base", "chon"}, {"fields", 1}}), {"unknown key 'fields'"});
  io::check_message(refusal({{"name", "a/b"}, {"base", "chon"}}), {"'name' takes letters, digits", "a/b"});
  io::check_message(refusal({{"name", "hcp"}, {"base", "chon"}}), {"'hcp' is the name of a built-in recipe"});
  io::check_message(refusal({{"name", 3}, {"base", "chon"}}), {"'name' takes a text, got 3"});
  io::check_message(refusal({{"name", "x"}, {"base", "chon"}, {"change", {{"linear", 1}}}}), {"x", "linear"});
  io::check_message(refusal({{"name", "x"}, {"base", "chon"}, {"change", {{"name", "y"}}}}),
                    {"'name' stands beside"});
  io::check_message(
      refusal(
          {{"name", "x"}, {"base", "chon"}, {"change", {{"linears", {{"nvfp4", {{"hcp", {{"k", 32}}}}}}}}}}),
      {"give 'k' or 'fraction', not both"});
  io::check_message(refusal({{"name", "x"}, {"base", "chon"}, {"bf16_last", "all"}}), {"'bf16_last' takes"});
  io::check_message(refusal({{"name", "x"}, {"base", "mxfp8"}, {"bf16_last", 1}}),
                    {"no linear named \"bf16\""});
}

TEST_CASE("differences are taken to the reference") {
  const Folder folder;
  CHECK(grid(folder, {"nvfp4", "bf16"}).reference == "bf16");
  CHECK(grid(folder, {"nvfp4+mixers=bf16", "bf16+mixers=bf16"}).reference == "bf16+mixers=bf16");
  CHECK(grid(folder, {"nvfp4", "chon"}).reference.empty());
  const Experiment e = grid(folder, {"nvfp4", "chon"}, {{"reference", "chon"}});
  const ExperimentSummary s = run_experiment(
      e, [](const TrainOptions &o, const auto &) { return result(o.recipe == "chon" ? 2 : 2.02, o); });
  CHECK(s.groups[0].validation_gap.n == 5);
  CHECK(s.groups[0].validation_gap.mean == Approx(1));
  CHECK(s.groups[1].validation_gap.n == 0);
  io::check_message(io::error_of([&] {
                      (void)grid(folder, {"bf16"}, {{"reference", "chon"}});
                    }),
                    {"'reference' takes the name of one of the recipes, got \"chon\""});
}

TEST_CASE("parts of a grid are all of it, once each, and the last one sums up") {
  const Folder folder;
  const Experiment e = grid(folder, {"bf16", "nvfp4", "chon"});
  std::multiset<std::string> done;
  ExperimentSummary last;
  for (const int64_t index : {2, 0, 3, 1}) {
    size_t own = 0;
    last = run_experiment(e,
                          [&](const TrainOptions &o, const auto &) {
                            ++own;
                            done.insert(o.out);
                            return result(2 + (o.recipe == "bf16" ? 0 : 0.1) + 0.01 * double(o.seed), o);
                          },
                          {}, {}, {}, {.shard = {index, 4}});
    CHECK(own == (index == 3 ? 3 : 4)); // 15 runs
    const auto missing = std::ranges::count_if(last.runs, &ExperimentRun::missing);
    CHECK(missing == 15 - int64_t(done.size()));
    CHECK((summary_table(last).find("are of other parts and not finished") != std::string::npos) ==
          (missing > 0));
  }
  CHECK(done.size() == 15);
  CHECK(std::set<std::string>(done.begin(), done.end()).size() == 15);
  CHECK(last.groups[1].validation_gap.n == 5);
  Json whole = Json::parse(summary_json(run_experiment(e, [](const TrainOptions &o, const auto &) {
    FAIL("nothing is left to run");
    return result(0, o);
  })));
  CHECK(whole == Json::parse(summary_json(last)));
  // the whole does not start beside a part
  std::string message;
  fs::remove_all(folder.path);
  (void)run_experiment(e,
                       [&](const TrainOptions &o, const auto &) {
                         if (message.empty())
                           message = io::error_of([&] {
                             (void)run_experiment(
                                 e, [](const TrainOptions &, const auto &) { return TrainResult{}; });
                           });
                         return result(2, o);
                       },
                       {}, {}, {}, {.shard = {0, 8}});
  io::check_message(message, {"being written by another process"});
}

TEST_CASE("the part of a process: given, or from its launcher") {
  std::map<std::string, std::string> variables;
  const auto shard = [&](const char *text) {
    const Shard s = parse_shard(text, [&](const char *name) {
      const auto at = variables.find(name);
      return at == variables.end() ? nullptr : at->second.c_str();
    });
    return std::pair(s.index, s.count);
  };
  const auto wrong = [&](const char *text) { return io::error_of([&] { (void)shard(text); }); };
  using Part = std::pair<int64_t, int64_t>;
  CHECK(shard("1/1") == Part{0, 1});
  CHECK(shard("3/7") == Part{2, 7});
  for (const char *text : {"0/3", "4/3", "1", "/", "1/", "a/3", "1/3x", "-1/3", "1/0", ""})
    io::check_message(wrong(text), {"--shard", "expected"});
  io::check_message(wrong("env"),
                    {"expected SLURM_ARRAY_TASK_ID and SLURM_ARRAY_TASK_COUNT, or RANK and WORLD_SIZE"});
  variables = {{"RANK", "3"}, {"WORLD_SIZE", "4"}};
  CHECK(shard("env") == Part{3, 4});
  variables["WORLD_SIZE"] = "3";
  io::check_message(wrong("env"), {"this is part 4 of 3, as RANK and WORLD_SIZE say"});
  variables.erase("WORLD_SIZE");
  io::check_message(wrong("env"), {"expected WORLD_SIZE in the environment"});
  variables = {{"RANK", "3"},
               {"WORLD_SIZE", "4"},
               {"SLURM_ARRAY_TASK_ID", "14"},
               {"SLURM_ARRAY_TASK_COUNT", "3"},
               {"SLURM_ARRAY_TASK_MIN", "10"},
               {"SLURM_ARRAY_TASK_STEP", "2"}};
  CHECK(shard("env") == Part{2, 3});
  variables["SLURM_ARRAY_TASK_ID"] = "9";
  io::check_message(wrong("env"), {"SLURM_ARRAY_TASK_ID", "at least 10", "'9'"});
  variables = {{"SLURM_ARRAY_TASK_ID", "1"}, {"SLURM_ARRAY_TASK_COUNT", "2"}}; // --array=0-1
  CHECK(shard("env") == Part{1, 2});
}

TEST_CASE("jobs run side by side, on the devices in turn, and give the same summary") {
  const Folder folder;
  const Experiment e = grid(folder, {"bf16", "nvfp4", "chon"});
  const auto train = [](const TrainOptions &o, const std::function<void(const StepReport &)> &step) {
    for (int64_t s = 1; s <= 20; ++s) step({s, o.steps, s, 1.0f, 1.0f, 1.0f, 1.0, {}});
    if (o.recipe == "chon" && o.seed == 3) throw Error("no such tensor");
    return result(2 + 0.01 * double(o.seed), o);
  };
  const std::string expected = summary_json(run_experiment(e, train));
  fs::remove_all(folder.path);
  std::atomic<int> running = 0, most = 0;
  std::mutex mutex;
  std::set<std::string> devices;
  size_t steps = 0; // progress is called by one at a time
  const ExperimentSummary s = run_experiment(
      e,
      [&](const TrainOptions &o, const std::function<void(const StepReport &)> &step) {
        const int now = ++running;
        for (int before = most; before < now && !most.compare_exchange_weak(before, now);) {
        }
        {
          const std::lock_guard guard(mutex);
          devices.insert(o.device);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
        struct Leave {
          std::atomic<int> &n;
          ~Leave() { --n; }
        } leave{running};
        return train(o, step);
      },
      [&](size_t, size_t, const TrainOptions &, const StepReport &) { ++steps; }, {}, {},
      {.jobs = 4, .devices = {"cuda:0", "cuda:1"}});
  CHECK(summary_json(s) == expected);
  CHECK(steps == 15 * 20);
  CHECK(most > 1);
  CHECK(most <= 4);
  CHECK(devices == std::set<std::string>{"cuda:0", "cuda:1"});

  // one that is interrupted ends all, and nothing is summed up
  fs::remove_all(folder.path);
  std::atomic<int> started = 0;
  const ExperimentSummary stopped = run_experiment(e,
                                                   [&](const TrainOptions &o, const auto &) {
                                                     TrainResult r = result(2, o);
                                                     r.interrupted = ++started == 3;
                                                     return r;
                                                   },
                                                   {}, {}, {}, {.jobs = 2});
  CHECK(stopped.interrupted);
  CHECK(started < 15);
  CHECK_FALSE(fs::exists(folder.path / "summary.json"));
}

TEST_CASE("how many pairs would settle a difference") {
  // by the definition: the smallest n >= the pairs at hand with t(0.975, n - 1) s / sqrt(n) < |mean|
  const auto definition = [](const std::vector<double> &v) -> std::optional<int64_t> {
    double mean = 0, squares = 0;
    for (const double x : v) mean += x / double(v.size());
    for (const double x : v) squares += (x - mean) * (x - mean);
    const double s = std::sqrt(squares / double(v.size() - 1));
    for (auto n = int64_t(v.size()); n < 3000; ++n)
      if (student_t_quantile(0.975, double(n - 1)) * s / std::sqrt(double(n)) < std::fabs(mean)) return n;
    return {};
  };
  std::mt19937 random(7);
  for (int i = 0; i < 40; ++i) {
    std::vector<double> v(2 + size_t(i) % 5);
    for (double &x : v) x = double(int(random() % 2001) - 1000) / 1000 + 0.4;
    if (const auto expected = definition(v)) {
      INFO(i);
      CHECK(values_to_exclude_zero(estimate(v)) == expected);
    }
  }
  CHECK_FALSE(values_to_exclude_zero(estimate(std::vector<double>{1})));
  CHECK_FALSE(values_to_exclude_zero(estimate(std::vector<double>{1, -1})));
  CHECK_FALSE(values_to_exclude_zero(estimate(std::vector<double>{1, -0.9999})));
  CHECK_FALSE(values_to_exclude_zero(estimate({})));
  CHECK_FALSE(values_to_exclude_zero(estimate(std::vector<double>{1, std::nan("")})));

  const Folder folder;
  const Experiment e = grid(folder, {"bf16", "nvfp4", "chon"});
  const double scatter[] = {0, 0.012, 0.009, 0.011, -0.001, 0.010};
  const ExperimentSummary s = run_experiment(e, [&](const TrainOptions &o, const auto &) {
    const double own = 2 + double(o.seed);
    return result(o.recipe == "bf16" ? own : o.recipe == "nvfp4" ? own + 0.01 : own + scatter[o.seed], o);
  });
  REQUIRE(s.pairs.size() == 3);
  CHECK(s.pairs[0].recipe == "nvfp4");
  CHECK(s.pairs[0].other == "bf16");
  CHECK(s.pairs[0].needed == 5); // settled with those at hand
  CHECK(s.pairs[1].recipe == "chon");
  CHECK(s.pairs[1].difference.mean == Approx(0.0082));
  CHECK(s.pairs[2].other == "nvfp4");
  CHECK_FALSE(s.pairs[2].difference.excludes_zero());
  const std::string table = summary_table(s);
  INFO(table);
  CHECK(table.find("nvfp4 - bf16                        5") != std::string::npos);
  CHECK(table.find("higher") != std::string::npos);
  REQUIRE(s.pairs[2].needed);
  CHECK(table.find("not settled: about " + std::to_string(*s.pairs[2].needed) + " pairs would") !=
        std::string::npos);
  const Json j = Json::parse(summary_json(s))["pairs"];
  CHECK(j[0]["settled"] == true);
  CHECK(j[2]["settled"] == false);
  CHECK(j[2]["pairs_needed"] == *s.pairs[2].needed);
}

TEST_CASE("the grids of the study can be run") {
  size_t grids = 0, models = 0;
  for (const auto &entry : fs::directory_iterator("reference_models/study")) {
    if (entry.path().extension() != ".json") continue;
    INFO(entry.path());
    const auto bytes = io::read_file(entry.path().string());
    const std::string text(reinterpret_cast<const char *>(bytes.data()), bytes.size());
    if (!Json::parse(text).contains("recipes")) {
      ++models;
      continue;
    }
    ++grids;
    const Experiment e = parse_experiment(text, entry.path().string());
    CHECK_FALSE(e.reference.empty());
    for (const ExperimentModel &m : e.models)
      for (const std::string &r : e.recipes) {
        const ModelConfig model = find_model(m.model, m.size, e.base.sizes);
        const Recipe recipe = load_recipe(r).for_family(std::string(model.family->name));
        CHECK_NOTHROW((void)recipe.resolve("attn.o_proj", 0, model.layers));
        if (m.model.ends_with("-27m.json"))
          CHECK(std::fabs(double(parameter_count(model)) / 27.5e6 - 1) < 0.01);
      }
  }
  CHECK(grids == 8);
  CHECK(models == 5);
}
