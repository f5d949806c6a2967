// SPDX-License-Identifier: Apache-2.0
// Running a grid: what is kept, what goes on, what is done side by side.
#include "nvfp4/reference_models/report/experiment.hpp"

#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"
#include "nvfp4/reference_models/report/experiment_result.hpp"
#include "nvfp4/reference_models/train/checksums.hpp"
#include "nvfp4/reference_models/train/evaluate.hpp"
#include "nvfp4/reference_models/train/fields.hpp"
#include "nvfp4/reference_models/train/options.hpp"

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <mutex>
#include <thread>

namespace nvfp4::models {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

void write_text(const std::string &path, std::string_view text) {
  io::write_file_atomically(path, std::as_bytes(std::span(text)));
}

} // namespace

Json experiment_result_json(const TrainResult &r) {
  Json json = {{"steps", r.steps},
               {"final_loss", r.final_loss}, // null where not finite
               {"smoothed_loss", r.smoothed_loss},
               {"diverged", r.diverged},
               {"validation_loss", r.validation_loss},
               {"bits_per_byte", r.bits_per_byte},
               {"parameter_digest", r.parameter_digest}};
  if (r.diverged != 0) json["last_finite_loss"] = r.last_finite_loss;
  if (r.not_finite) json["not_finite"] = fields_to_json(kNotFiniteFields, *r.not_finite);
  return json;
}

TrainResult experiment_result_of(const Fields &f) {
  TrainResult r;
  r.steps = f.count("steps", 0);
  r.final_loss = f.real("final_loss");
  r.smoothed_loss = f.real("smoothed_loss");
  r.validation_loss = f.real("validation_loss");
  r.bits_per_byte = f.real("bits_per_byte");
  r.diverged = f.has("diverged") ? f.count("diverged", 0) : 0;
  r.last_finite_loss = f.optional_real("last_finite_loss");
  r.parameter_digest = f.text("parameter_digest");
  if (f.has("not_finite")) r.not_finite = not_finite_of(f.object("not_finite"));
  return r;
}

namespace {

/// The result in the folder if the run there is done. Throws Error if it is another run.
bool finished(const TrainOptions &options, const DescribeFunction &describe, TrainResult &result) {
  const auto refuse = [&](const std::string &difference) {
    if (!difference.empty())
      throw Error(io::printable(options.out) + " holds a run with other options (" + difference +
                  "): give another 'out' or remove the folder");
  };
  if (describe) {
    const RunDescription run = describe(options);
    if (fs::exists(options.out + "/run.json")) refuse(difference_from(run, options.out));
  }
  const std::string path = options.out + "/result.json";
  if (!fs::exists(path)) return false;
  const std::string where = io::printable(path) + ": ", advice = "; remove the file to run it again";
  Json json = parse_json(read_text(path), where, advice);
  check_seal(json, where, advice);
  const Fields file(std::move(json), where, advice);
  refuse(first_difference(options, file.object("options").json(), where, advice));
  result = experiment_result_of(file.object("result"));
  return result.diverged != 0 || result.steps >= options.steps;
}

} // namespace

RunDescription describe_run(const TrainOptions &o) {
  check_options(o);
  const ModelConfig model = find_model(o.model, o.size, o.sizes);
  const std::unique_ptr<DataSource> data = open_data(o.data, o.validation, o.sequence, o.validation_data);
  check_vocabulary(*data, model);
  if (o.device == "cpu") check_memory(model, o.batch, o.sequence, true, o.accumulation);
  return {o, model, to_json(recipe_of_run(o)), data->digest(), data->describe()};
}

std::vector<double> time_steps(TrainOptions t, int64_t steps, const std::string &folder, const TrainFunction &train) {
  t.schedule_steps = schedule_steps(t);
  t.steps = t.checkpoint_every = steps;
  t.out = folder;
  t.eval_every = t.diagnostics_every = 0;
  t.eval_batches = 1;
  t.sensitivity = t.resume = false;
  const double tokens = double(t.batch * t.sequence * t.accumulation);
  std::vector<double> seconds;
  (void)train(t, [&](const StepReport &r) {
    if (r.step > 1 && r.tokens_per_second > 0) seconds.push_back(tokens / r.tokens_per_second);
  });
  return seconds;
}

ExperimentSummary run_experiment(const Experiment &e, const TrainFunction &train,
                                 const ExperimentProgress &progress, const DescribeFunction &describe,
                                 const ExperimentPlan &plan, const ExperimentSettings &settings) {
  ExperimentSummary summary;
  std::vector<size_t> todo;
  for (const uint64_t seed : e.seeds)
    for (const ExperimentModel &m : e.models)
      for (const std::string &recipe : e.recipes) {
        ExperimentRun run{e.base, {}, false, {}};
        run.options.model = m.model;
        run.options.size = m.size;
        run.options.recipe = recipe;
        run.options.seed = seed;
        run.options.out = run_folder(e, m, recipe, seed);
        run.kept =
            finished(run.options, describe, run.result); // refuses a foreign folder before anything is run
        const auto number = int64_t(summary.runs.size());
        run.missing = !run.kept && number % settings.shard.count != settings.shard.index;
        if (!run.kept && !run.missing) todo.push_back(summary.runs.size());
        summary.runs.push_back(std::move(run));
      }
  fs::create_directories(e.out);
  const FolderLock lock(e.out, settings.shard.count > 1);
  if (plan && !plan(summary.runs)) return summary;

  std::mutex mutex; // of all that jobs share
  size_t next = 0;
  const auto one = [&](ExperimentRun &run, size_t number, int job) {
    TrainOptions options = run.options;
    if (!settings.devices.empty()) options.device = settings.devices[size_t(job) % settings.devices.size()];
    options.resume = fs::exists(options.out + "/run.json");
    fs::create_directories(options.out);
    try {
      run.result = train(options, [&](const StepReport &report) {
        const std::lock_guard guard(mutex);
        if (progress) progress(number, summary.runs.size(), options, report);
      });
    } catch (const Error &error) {
      run.failure = error.what();
      return;
    }
    if (run.result.interrupted) return;
    Json json = {{"version", 1},
                 {"options", options_to_json(options)},
                 {"result", experiment_result_json(run.result)}};
    write_text(options.out + "/result.json", sealed(std::move(json)).dump(1) + "\n");
  };
  std::exception_ptr broken; // what is no Error of a run: the disk is full, say
  const auto work = [&](int job) {
    for (;;) {
      size_t number = 0;
      {
        const std::lock_guard guard(mutex);
        if (next == todo.size() || summary.interrupted || broken) return;
        number = todo[next++];
      }
      try {
        one(summary.runs[number], number, job);
      } catch (...) {
        const std::lock_guard guard(mutex);
        broken = std::current_exception();
      }
      const std::lock_guard guard(mutex);
      summary.interrupted |= summary.runs[number].result.interrupted;
    }
  };
  if (settings.jobs <= 1) {
    work(0);
  } else {
    std::vector<std::jthread> jobs;
    for (int job = 0; job < settings.jobs; ++job) jobs.emplace_back(work, job);
  }
  if (broken) std::rethrow_exception(broken);
  if (summary.interrupted) return summary;
  for (ExperimentRun &run : summary.runs) // what other parts have finished meanwhile
    if (run.missing) run.missing = !finished(run.options, describe, run.result);
  summarize(e, summary);
  write_text(e.out + "/summary.json", summary_json(summary));
  return summary;
}

} // namespace nvfp4::models
