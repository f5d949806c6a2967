// SPDX-License-Identifier: Apache-2.0
// nvfp4 experiment FILE.json: a grid of training runs and its summary.
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/reference_models/report/experiment.hpp"
#include "tools/nvfp4/interrupt.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fmt/core.h>
#include <map>
#include <memory>
#include <unistd.h>

namespace nvfp4::tool {
namespace {

struct Options {
  std::string file;
  bool json = false;
};

/// Time left of a grid. A step's time is that of the runs with its model and recipe so far; for others it is
/// the mean of those that ran, by the numbers of parameters.
class GridClock {
public:
  void plan(const models::RunDescription &run, int64_t steps) {
    Kind &kind = kinds_[key(run.options)];
    kind.size = double(models::parameter_count(run.model));
    kind.left += double(steps);
    steps_ += steps;
  }
  void step(const models::TrainOptions &options) {
    const auto now = std::chrono::steady_clock::now();
    Kind &kind = kinds_[key(options)];
    kind.seconds += std::chrono::duration<double>(now - last_).count();
    kind.done += 1;
    kind.left = std::max(0.0, kind.left - 1);
    last_ = now;
  }
  [[nodiscard]] double seconds_left() const {
    double seconds = 0, work = 0, sum = 0;
    for (const auto &[name, k] : kinds_) seconds += k.seconds, work += k.done * k.size;
    for (const auto &[name, k] : kinds_)
      sum += k.left * (k.done > 0 ? k.seconds / k.done : work > 0 ? seconds / work * k.size : 0);
    return sum;
  }
  [[nodiscard]] double elapsed() const { return std::chrono::duration<double>(last_ - start_).count(); }
  [[nodiscard]] int64_t steps() const { return steps_; }

private:
  struct Kind {
    double size = 0, done = 0, left = 0, seconds = 0; ///< parameters, steps, steps
  };
  static std::string key(const models::TrainOptions &o) { return o.model + " " + o.size + " " + o.recipe; }

  std::map<std::string, Kind> kinds_;
  int64_t steps_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), last_ = start_;
};

int experiment(const Options &o) {
  const auto bytes = io::read_file(o.file);
  const models::Experiment e =
      models::parse_experiment({reinterpret_cast<const char *>(bytes.data()), bytes.size()}, o.file);
  const Interrupt interrupt;
  const auto train = [](const models::TrainOptions &options,
                        const std::function<void(const models::StepReport &)> &on_step) {
    return models::train(options, on_step, [] { return Interrupt::signal() != 0; });
  };
  const bool terminal = isatty(STDERR_FILENO) != 0;
  GridClock clock;
  Progress line("experiment");
  std::map<std::string, models::RunDescription> known; // the seeds of a model and recipe read the same files
  const auto describe = [&](const models::TrainOptions &options) {
    const auto [at, is_new] = known.try_emplace(options.model + "\n" + options.size + "\n" + options.recipe);
    if (is_new) at->second = models::describe_run(options);
    at->second.options = options;
    return at->second;
  };
  const auto plan = [&](const std::vector<models::ExperimentRun> &runs) {
    size_t kept = 0;
    for (const models::ExperimentRun &r : runs)
      if (r.kept)
        ++kept;
      else
        clock.plan(describe(r.options), r.options.steps);
    fmt::print(stderr, "nvfp4: experiment: {} runs, {} of them finished before; at most {} steps to do\n",
               runs.size(), kept, clock.steps());
  };
  const auto show = [&](size_t run, size_t runs, const models::TrainOptions &options,
                        const models::StepReport &step) {
    clock.step(options);
    const double left = clock.seconds_left();
    if (!terminal) return line.show(clock.elapsed() / (clock.elapsed() + left));
    fmt::print(stderr, "\r\033[Krun {} of {}  {} {} {} seed {}  step {} of {}  loss {:.4f}  {} left", run + 1,
               runs, options.model, options.size, options.recipe, options.seed, step.step, step.steps,
               step.loss, duration_text(left));
    std::fflush(stderr);
  };
  const models::ExperimentSummary summary = models::run_experiment(e, train, show, describe, plan);
  line.done();
  if (terminal) fmt::print(stderr, "\r\033[K");
  if (summary.interrupted) {
    fmt::print("stopped; the same call goes on: nvfp4 experiment {}\n", o.file);
    return Interrupt::exit_code();
  }
  fmt::print("{}", o.json ? models::summary_json(summary) : models::summary_table(summary));
  std::string first;
  size_t failed = 0, kept = 0;
  for (const models::ExperimentRun &r : summary.runs) {
    kept += r.kept ? 1 : 0;
    if (r.failure.empty()) continue;
    if (failed++ == 0) first = r.options.out + ": " + r.failure;
  }
  if (!o.json)
    fmt::print("{} runs, {} of them finished before; summary in {}/summary.json\n", summary.runs.size(), kept,
               e.out);
  if (failed > 0) {
    std::fflush(stdout);
    throw Error(fmt::format("{} of {} runs failed; the first: {}", failed, summary.runs.size(), first));
  }
  return kEqual;
}

} // namespace

void register_experiment(CLI::App &app, int &exit_code) {
  CLI::App *verb =
      app.add_subcommand("experiment", "A grid of training runs, models x recipes x seeds, with a summary");
  auto o = std::make_shared<Options>();
  verb->add_option("file", o->file, "JSON: models, recipes, seeds, out, and options of nvfp4 train by name")
      ->required();
  verb->add_flag("--json", o->json, "Machine-readable output");
  verb->footer(
      "Finished runs are kept and stopped ones continue, so the same call goes on where it was stopped.\n"
      "Example: {\"models\": [{\"model\": \"gla\", \"size\": \"tiny\"}], \"recipes\": [\"bf16\", \"nvfp4\", "
      "\"chon\"],\n"
      "          \"seeds\": [1, 2, 3], \"data\": \"text.txt\", \"steps\": 400, \"out\": \"runs\"}");
  verb->callback([o, &exit_code] { exit_code = experiment(*o); });
}

} // namespace nvfp4::tool
