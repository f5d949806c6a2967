// SPDX-License-Identifier: Apache-2.0
// The grid of runs with a stand-in for training: what is run, kept, resumed, refused and summed up; and the
// statistics.
#include "tests/golden/io/support.hpp"
#include "tests/temporary_folder.hpp"

#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/reference_models/report/experiment.hpp"
#include "nvfp4/reference_models/train/options.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <unistd.h>

using namespace nvfp4;
using namespace nvfp4::models;
namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

using Folder = test::TemporaryFolder;

Json grid(const Folder &folder) {
  return {{"models", {{{"model", "gla"}, {"size", "tiny"}}, {{"model", "qwen3"}, {"size", "tiny"}}}},
          {"recipes", {"bf16", "nvfp4", "recipes/mine.json"}},
          {"seeds", {1, 2, 3}},
          {"out", (folder.path / "grid").string()},
          {"data", "task:copy"},
          {"steps", 20},
          {"learning_rate", 3e-3}};
}

/// Losses that a pair of seeds tells apart: 2 + seed / 10 in BF16, 1 %, 2 % and 3 % more under nvfp4.
TrainResult result_for(const TrainOptions &o) {
  const double base = 2 + 0.1 * double(o.seed);
  const double loss = o.recipe == "bf16"    ? base
                      : o.recipe == "nvfp4" ? base * (1 + 0.01 * double(o.seed))
                                            : base * 0.99;
  TrainResult r;
  r.steps = o.steps;
  r.final_loss = loss + 1;
  r.smoothed_loss = r.bits_per_byte = loss;
  r.validation_loss = loss + 0.5;
  r.parameter_digest = "digest";
  return r;
}

struct Trainer {
  std::vector<TrainOptions> calls;
  TrainFunction function() {
    return [this](const TrainOptions &o, const std::function<void(const StepReport &)> &step) {
      calls.push_back(o);
      for (int64_t s = 1; s <= 2; ++s) step({s, o.steps, s * 10, 1.0f, 1.0f, 1.0f, 1.0, {}});
      return result_for(o);
    };
  }
};

std::string parse_error(Json json) {
  return io::error_of([&] { (void)parse_experiment(json.dump(), "grid.json"); });
}

} // namespace

TEST_CASE("Student's quantiles are those of the tables") {
  const std::pair<double, double> table[] = {{1, 12.7062},  {2, 4.30265},  {3, 3.18245},
                                             {4, 2.77645},  {5, 2.57058},  {9, 2.26216},
                                             {10, 2.22814}, {30, 2.04227}, {120, 1.97993}};
  for (const auto &[degrees, t] : table) {
    INFO(degrees);
    CHECK(student_t_quantile(0.975, degrees) == Approx(t).epsilon(2e-6));
    CHECK(student_t_quantile(0.025, degrees) == Approx(-t).epsilon(2e-6));
  }
  CHECK(student_t_quantile(0.5, 7) == 0);
  CHECK(student_t_quantile(0.975, 1e7) == Approx(1.959964).epsilon(1e-5));
  CHECK(student_t_quantile(0.75, 1) == Approx(1).epsilon(1e-9)); // Cauchy
}

TEST_CASE("estimates: mean, interval, none for one value") {
  const Estimate e = estimate(std::vector<double>{1, 2, 3, 6});
  CHECK(e.n == 4);
  CHECK(e.mean == 3);
  CHECK(*e.half_width == Approx(3.18245 * std::sqrt(14.0 / 3) / 2).epsilon(1e-5));
  CHECK_FALSE(e.excludes_zero());
  CHECK(estimate(std::vector<double>{5, 6, 7}).excludes_zero());
  CHECK_FALSE(estimate(std::vector<double>{4}).half_width);
  CHECK_FALSE(estimate(std::vector<double>{4}).excludes_zero());
  CHECK(std::isnan(estimate({}).mean));
  CHECK(relative_gap(2.02, 2.0) == Approx(1));
}

TEST_CASE("centred means keep a slope at the start and average at the end") {
  std::vector<double> line;
  for (int i = 0; i < 20; ++i) line.push_back(i);
  const auto smooth = centred_mean(line, 3);
  for (size_t i = 0; i < 17; ++i) CHECK(smooth[i] == Approx(double(i)));
  CHECK(smooth[19] == Approx((16 + 17 + 18 + 19) / 4.0));
  CHECK(centred_mean(line, 0) == line);
  CHECK(centred_mean({}, 3).empty());
}

TEST_CASE("a grid is read, and each mistake in it is named") {
  const Folder folder;
  const Experiment e = parse_experiment(grid(folder).dump(), "grid.json");
  CHECK(e.models.size() == 2);
  CHECK(e.models[1].model == "qwen3");
  CHECK(e.recipes == std::vector<std::string>{"bf16", "nvfp4", "recipes/mine.json"});
  CHECK(e.seeds == std::vector<uint64_t>{1, 2, 3});
  CHECK(e.base.steps == 20);
  CHECK(e.base.learning_rate == 3e-3);
  CHECK(run_folder(e, e.models[0], "recipes/mine.json", 3) == e.out + "/gla-tiny-mine-3");

  const auto with = [&](const char *key, Json value) {
    Json j = grid(folder);
    j[key] = std::move(value);
    return parse_error(j);
  };
  const auto without = [&](const char *key) {
    Json j = grid(folder);
    j.erase(key);
    return parse_error(j);
  };
  io::check_message(with("learning_rat", 1e-3), {"grid.json", "unknown key 'learning_rat'", "learning_rate"});
  io::check_message(with("steps", "many"), {"grid.json", "'steps' takes a whole number", "many"});
  io::check_message(with("steps", 1.5), {"'steps' takes a whole number", "1.5"});
  io::check_message(with("threads", 5000000000), {"'threads'", "5000000000"});
  io::check_message(with("clip", true), {"'clip' takes a number"});
  io::check_message(with("sensitivity", 1), {"'sensitivity' takes true or false"});
  io::check_message(with("seed", 4), {"'seed' is decided by the grid", "'seeds'"});
  io::check_message(with("resume", true), {"'resume' is decided by the grid"});
  io::check_message(with("seeds", Json::array()), {"'seeds'"});
  io::check_message(with("seeds", {1, 2, 1}), {"'seeds'", "1 twice"});
  io::check_message(with("seeds", {-1}), {"in 'seeds'", "-1"});
  io::check_message(with("recipes", {"nvfp4", 3}), {"in 'recipes'", "3"});
  io::check_message(with("recipes", {"a/x.json", "b/x.json"}), {"share the folder", "gla-tiny-x-1"});
  io::check_message(with("models", {{{"model", "gla"}, {"depth", 3}}}), {"unknown key 'depth' in 'models'"});
  io::check_message(with("models", {{{"size", "tiny"}}}), {"lacks 'model'"});
  io::check_message(with("models", {"gla"}), {"object"});
  io::check_message(without("out"), {"'out'"});
  io::check_message(without("models"), {"'models'"});
  io::check_message(io::error_of([] { (void)parse_experiment("{\"a\":", "grid.json"); }),
                    {"grid.json", "expected JSON, which breaks off"});
}

TEST_CASE("a grid runs once, keeps what is finished and resumes what is not") {
  const Folder folder;
  const Experiment e = parse_experiment(grid(folder).dump(), "grid.json");
  Trainer first;
  size_t steps = 0, last_run = 0;
  ExperimentSummary s = run_experiment(
      e, first.function(), [&](size_t run, size_t runs, const TrainOptions &, const StepReport &) {
        ++steps;
        last_run = run;
        CHECK(runs == 18);
      });
  CHECK(first.calls.size() == 18);
  CHECK(steps == 36);
  CHECK(last_run == 17);
  CHECK(first.calls[0].seed == 1);
  CHECK(first.calls[5].seed == 1); // pairs are complete before the next seed
  CHECK(first.calls[6].seed == 2);
  for (const TrainOptions &o : first.calls) {
    CHECK_FALSE(o.resume);
    CHECK(o.steps == 20);
    CHECK(fs::exists(o.out + "/result.json"));
  }

  Trainer second;
  CHECK(summary_json(run_experiment(e, second.function())) == summary_json(s));
  CHECK(second.calls.empty());

  // one run had been stopped: it has a run.json and no result
  const std::string stopped = e.out + "/qwen3-tiny-nvfp4-2";
  fs::remove(stopped + "/result.json");
  std::ofstream(stopped + "/run.json") << "{}";
  Trainer third;
  s = run_experiment(e, third.function());
  REQUIRE(third.calls.size() == 1);
  CHECK(third.calls[0].out == stopped);
  CHECK(third.calls[0].resume);
  CHECK(std::count_if(s.runs.begin(), s.runs.end(), [](const ExperimentRun &r) { return r.kept; }) == 17);

  // other threads are the same run, another learning rate is not
  Experiment other = e;
  other.base.threads = 7;
  Trainer fourth;
  (void)run_experiment(other, fourth.function());
  CHECK(fourth.calls.empty());
  other.base.learning_rate = 1e-3;
  io::check_message(io::error_of([&] { (void)run_experiment(other, fourth.function()); }),
                    {"gla-tiny-bf16-1", "learning_rate", "0.003", "0.001"});
  CHECK(fourth.calls.empty());
}

TEST_CASE("the summary pairs seeds, and gives intervals only where there are some") {
  const Folder folder;
  const Experiment e = parse_experiment(grid(folder).dump(), "grid.json");
  Trainer trainer;
  const ExperimentSummary s = run_experiment(e, trainer.function());
  REQUIRE(s.groups.size() == 6);
  const ExperimentGroup &bf16 = s.groups[0], &nvfp4 = s.groups[1], &mine = s.groups[2];
  CHECK(bf16.smoothed_loss.mean == Approx(2.2));
  CHECK(bf16.smoothed_gap.n == 0);
  CHECK(nvfp4.smoothed_gap.n == 3);
  CHECK(nvfp4.smoothed_gap.mean == Approx(2)); // 1, 2, 3 %
  CHECK(*nvfp4.smoothed_gap.half_width == Approx(4.30265 / std::sqrt(3.0)).epsilon(1e-5));
  CHECK(mine.smoothed_gap.mean == Approx(-1));
  CHECK(nvfp4.final_loss.mean == Approx(nvfp4.smoothed_loss.mean + 1));
  const std::string table = summary_table(s);
  INFO(table);
  CHECK(table.find("+2.000 % +- 2.484") != std::string::npos);
  const Json j = Json::parse(summary_json(s));
  CHECK(j["groups"][1]["smoothed_gap_percent"]["mean"].get<double>() == Approx(2));
  CHECK(j["runs"].size() == 18);
  CHECK(fs::exists(e.out + "/summary.json"));

  Experiment single = e;
  single.seeds = {2};
  single.out += "-single";
  const ExperimentSummary one = run_experiment(single, trainer.function());
  CHECK_FALSE(one.groups[1].smoothed_gap.half_width);
  CHECK(summary_table(one).find("+-") == std::string::npos);
  CHECK(summary_table(one).find("one seed has no confidence interval") != std::string::npos);
  CHECK(Json::parse(summary_json(one))["groups"][1]["smoothed_gap_percent"]["half_width_95"].is_null());
}

TEST_CASE("a run that fails or diverges does not stop the others") {
  const Folder folder;
  const Experiment e = parse_experiment(grid(folder).dump(), "grid.json");
  const auto train = [](const TrainOptions &o, const std::function<void(const StepReport &)> &) {
    if (o.recipe == "nvfp4" && o.seed == 2) throw Error("no such tensor");
    TrainResult r = result_for(o);
    if (o.recipe == "nvfp4") r.smoothed_loss = r.validation_loss = std::nan("");
    return r;
  };
  const ExperimentSummary s = run_experiment(e, train);
  CHECK(s.runs.size() == 18);
  CHECK(s.groups[1].seeds == std::vector<uint64_t>{1, 3});
  const std::string table = summary_table(s);
  INFO(table);
  CHECK(table.find("not finite") != std::string::npos);
  CHECK(table.find("no such tensor") != std::string::npos);
  const Json j = Json::parse(summary_json(s)); // NaN is null, in the file and when it is read again
  CHECK(j["groups"][1]["smoothed_loss"]["mean"].is_null());
  const ExperimentSummary again = run_experiment(e, train);
  CHECK(summary_json(again) == summary_json(s));
}

TEST_CASE("a diverged run is named and counts in no mean and no gap") {
  const Folder folder;
  const Experiment e = parse_experiment(grid(folder).dump(), "grid.json");
  const auto train = [](const TrainOptions &o, const std::function<void(const StepReport &)> &) {
    TrainResult r = result_for(o);
    if ((o.recipe == "nvfp4" && o.seed == 3) || (o.recipe == "bf16" && o.seed == 2)) {
      r.diverged = 17;
      r.final_loss = r.smoothed_loss = r.validation_loss = std::nan("");
      r.last_finite_loss = 6.25;
    }
    return r;
  };
  const ExperimentSummary s = run_experiment(e, train);
  CHECK(s.groups[1].seeds == std::vector<uint64_t>{1, 2});
  CHECK(s.groups[1].diverged == std::vector<uint64_t>{3});
  CHECK(s.groups[1].smoothed_gap.n == 1); // seed 2 has no reference, seed 3 no loss
  CHECK(s.groups[1].smoothed_gap.mean == Approx(1));
  CHECK(s.groups[1].smoothed_loss.mean == Approx((2.1 * 1.01 + 2.2 * 1.02) / 2));
  const std::string table = summary_table(s);
  INFO(table);
  CHECK(table.find("not finite") == std::string::npos);
  CHECK(table.find("DIVERGED at step 17, last finite loss 6.2500: ") != std::string::npos);
  const ExperimentSummary again = run_experiment(e, train); // from result.json
  CHECK(summary_json(again) == summary_json(s));
  CHECK(Json::parse(summary_json(again))["groups"][1]["diverged_seeds"] == Json{3});
}

TEST_CASE("damaged results are refused with file, fault and advice") {
  const Folder folder;
  const Experiment e = parse_experiment(grid(folder).dump(), "grid.json");
  Trainer trainer;
  (void)run_experiment(e, trainer.function());
  const std::string path = e.out + "/gla-tiny-bf16-1/result.json";
  const auto bytes = io::read_file(path);
  const std::string written(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  Json unsealed = Json::parse(written); // what is wrong inside is looked for behind the checksum
  unsealed.erase("checksum");
  const std::string good = unsealed.dump(1);
  const auto refused = [&](const std::string &content, std::vector<std::string> parts) {
    std::ofstream(path) << content;
    parts.insert(parts.end(), {"gla-tiny-bf16-1/result.json", "remove the file to run it again"});
    CAPTURE(content);
    io::check_message(io::error_of([&] { (void)run_experiment(e, trainer.function()); }), parts);
  };
  refused("", {"got nothing"});
  for (const char *key : {"smoothed_loss", "validation_loss", "steps"}) {
    Json j = Json::parse(written);
    j["result"][key] = j["result"][key].get<double>() + 1;
    refused(j.dump(), {"is not as it was written: its checksum is another"});
  }
  refused(good.substr(0, good.size() / 2), {"line ", "breaks off"});
  refused("[]", {"expected a JSON object"});
  for (const char *key : {"steps", "final_loss", "smoothed_loss", "validation_loss", "parameter_digest"}) {
    Json j = Json::parse(good);
    j["result"].erase(key);
    refused(j.dump(), {"result: expected the key", key});
    j["result"][key] = Json::array();
    refused(j.dump(), {"result: ", key, "got []"});
  }
  Json j = Json::parse(good);
  j["options"] = 3;
  refused(j.dump(), {"options: expected a JSON object"});
  j = Json::parse(good);
  j["options"]["steps"] = "many";
  std::ofstream(path) << j.dump();
  io::check_message(io::error_of([&] { (void)run_experiment(e, trainer.function()); }),
                    {"result.json", "'steps' takes a whole number", "; remove the file to run it again"});
}

TEST_CASE("options: every field goes to JSON and back") {
  TrainOptions o;
  o.model = "qwen3";
  o.seed = 0xFFFFFFFFFFFFFFFFull;
  o.epsilon = 1e-15;
  o.warmup = -1;
  o.sensitivity = true;
  TrainOptions back;
  const Json json = options_to_json(o);
  for (const auto &[key, value] : json.items()) CHECK(set_option(back, key, value, ""));
  CHECK(options_to_json(back) == options_to_json(o));
  CHECK(options_to_json(o).size() == 34);
  CHECK_FALSE(set_option(back, "nonsense", 1, ""));
  CHECK(first_difference(o, options_to_json(o)).empty());
  back.threads = 3;
  back.out = "elsewhere";
  CHECK(first_difference(o, options_to_json(back)).empty());
  back.warmup = 5;
  CHECK(first_difference(o, options_to_json(back)) == "warmup: -1 here, 5 there");
}
