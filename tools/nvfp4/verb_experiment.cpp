// SPDX-License-Identifier: Apache-2.0
// nvfp4 experiment FILE.json: a grid of training runs and its summary.
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/report/experiment.hpp"
#include "nvfp4/reference_models/train/options.hpp"
#include "tools/nvfp4/interrupt.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/train_process.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fmt/core.h>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <unistd.h>

namespace nvfp4::tool {
namespace {

struct Options {
  std::string file, shard;
  std::vector<std::string> devices;
  int jobs = 1;
  bool json = false, forecast_only = false;
};

std::string kind_of(const models::TrainOptions &o) {
  return o.model + " " + o.size + " " + models::recipe_label(o.recipe);
}

/// Time left of a grid. A step's time is that of the runs with its model and recipe so far; for others it is
/// the mean of those that ran, by the numbers of parameters.
class GridClock {
public:
  explicit GridClock(int jobs) : jobs_(jobs) {}
  void plan(const models::RunDescription &run, int64_t steps) {
    Kind &kind = kinds_[kind_of(run.options)];
    kind.size = double(models::parameter_count(run.model));
    kind.left += double(steps);
    steps_ += steps;
  }
  void step(const models::TrainOptions &options) {
    const auto now = std::chrono::steady_clock::now();
    Kind &kind = kinds_[kind_of(options)];
    kind.left = std::max(0.0, kind.left - 1);
    const auto [at, is_first] = last_.try_emplace(options.out, now);
    if (!is_first) {
      kind.seconds += std::chrono::duration<double>(now - at->second).count();
      kind.done += 1;
      at->second = now;
    }
    newest_ = now;
  }
  [[nodiscard]] double seconds_left() const {
    double seconds = 0, work = 0, sum = 0;
    for (const auto &[name, k] : kinds_) seconds += k.seconds, work += k.done * k.size;
    for (const auto &[name, k] : kinds_)
      sum += k.left * (k.done > 0 ? k.seconds / k.done : work > 0 ? seconds / work * k.size : 0);
    return sum / jobs_;
  }
  [[nodiscard]] double elapsed() const { return std::chrono::duration<double>(newest_ - start_).count(); }
  [[nodiscard]] int64_t steps() const { return steps_; }

private:
  struct Kind {
    double size = 0, done = 0, left = 0, seconds = 0; ///< parameters, steps, steps
  };
  int jobs_;
  std::map<std::string, Kind> kinds_;
  std::map<std::string, std::chrono::steady_clock::time_point> last_; ///< step of each run
  int64_t steps_ = 0;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now(), newest_ = start_;
};

/// A folder for runs that are not kept, gone at the end.
struct TemporaryFolder {
  std::filesystem::path path;
  ~TemporaryFolder() {
    std::error_code code;
    std::filesystem::remove_all(path, code);
  }
};

constexpr int64_t kForecastFrom = 100; ///< steps of a run; shorter grids are done sooner than forecast
constexpr int64_t kForecastSteps = 4;  ///< of a calibration; the first one does not count

/// How long a grid will take: the first steps of each model and recipe, as many side by side as there will be
/// runs. Nothing where it is not worth it or was interrupted.
std::optional<std::string> forecast(const std::vector<models::ExperimentRun> &runs, const std::string &folder,
                                    const Options &o, const models::TrainFunction &train) {
  std::map<std::string, std::pair<const models::TrainOptions *, double>> kinds; // and steps to do
  int64_t steps = 0, count = 0;
  for (const models::ExperimentRun &r : runs) {
    if (r.kept || r.missing) continue;
    auto &[options, left] = kinds[kind_of(r.options)];
    options = &r.options;
    left += double(r.options.steps);
    steps += r.options.steps;
    ++count;
    if (r.options.steps < kForecastFrom && !o.forecast_only) return {};
  }
  if (kinds.empty()) return {};
  const TemporaryFolder place{folder + "/.forecast-" + std::to_string(::getpid())};
  const int jobs = int(std::min<int64_t>(o.jobs, count));
  double seconds = 0;
  for (const auto &[name, kind] : kinds) {
    std::mutex mutex;
    std::vector<double> times; // of steps
    std::string failure;
    const auto measure = [&, first = kind.first](int job) {
      models::TrainOptions t = *first;
      if (!o.devices.empty()) t.device = o.devices[size_t(job) % o.devices.size()];
      try {
        const std::vector<double> mine =
            models::time_steps(t, kForecastSteps, (place.path / std::to_string(job)).string(), train);
        const std::lock_guard guard(mutex);
        times.insert(times.end(), mine.begin(), mine.end());
      } catch (const Error &error) {
        const std::lock_guard guard(mutex);
        failure = error.what();
      }
    };
    if (o.jobs == 1) {
      measure(0);
    } else {
      std::vector<std::jthread> threads;
      for (int job = 0; job < jobs; ++job) threads.emplace_back(measure, job);
    }
    std::filesystem::remove_all(place.path);
    if (Interrupt::signal() != 0) return {};
    if (times.empty())
      return fmt::format("no forecast: {} did not get to a second step{}", name,
                         failure.empty() ? "" : ": " + io::printable(failure, 300));
    std::ranges::sort(times);
    seconds += kind.second * times[times.size() / 2] / jobs;
  }
  const std::set<std::string> devices(o.devices.begin(), o.devices.end());
  return fmt::format(
      "forecast {} for {} steps, {:.2f} device-hours, {} side by side: measured on steps 2 to {} of each "
      "model and recipe; validation, diagnostics and checkpoints come on top",
      duration_text(seconds), steps, seconds * double(std::max<size_t>(1, devices.size())) / 3600, jobs,
      kForecastSteps);
}

int experiment(const Options &o) {
  const auto bytes = io::read_file(o.file);
  const models::Experiment e =
      models::parse_experiment({reinterpret_cast<const char *>(bytes.data()), bytes.size()}, o.file);
  models::ExperimentSettings settings{.jobs = o.jobs, .devices = o.devices};
  if (!o.shard.empty())
    settings.shard = models::parse_shard(o.shard, [](const char *name) { return std::getenv(name); });
  for (const std::string &d : o.devices)
    if (d != "cpu" && d != "cuda" &&
        !(d.starts_with("cuda:") && d.size() > 5 &&
          d.find_first_not_of("0123456789", 5) == std::string::npos))
      throw Error("--devices " + io::in_quotes(d) + ": expected cpu, cuda or cuda:N");
  const Interrupt interrupt;
  const bool apart = o.jobs > 1 || !o.devices.empty();
  const auto train = [apart](const models::TrainOptions &options,
                             const std::function<void(const models::StepReport &)> &on_step) {
    const auto stop = [] { return Interrupt::signal() != 0; };
    return apart ? train_in_process(options, on_step, stop) : models::train(options, on_step, stop);
  };
  const bool terminal = isatty(STDERR_FILENO) != 0;
  GridClock clock(o.jobs);
  Progress line("experiment");
  std::map<std::string, models::RunDescription> known; // the seeds of a model and recipe read the same files
  const auto describe = [&](const models::TrainOptions &options) {
    const auto [at, is_new] = known.try_emplace(options.model + "\n" + options.size + "\n" + options.recipe);
    if (is_new) at->second = models::describe_run(options);
    at->second.options = options;
    return at->second;
  };
  const auto plan = [&](const std::vector<models::ExperimentRun> &runs) {
    size_t kept = 0, missing = 0;
    for (const models::ExperimentRun &r : runs) {
      kept += r.kept ? 1 : 0;
      missing += r.missing ? 1 : 0;
      if (!r.kept && !r.missing) clock.plan(describe(r.options), r.options.steps);
    }
    fmt::print(stderr, "nvfp4: experiment: {} runs, {} of them finished before{}; at most {} steps to do\n",
               runs.size(), kept, missing > 0 ? fmt::format(", {} of other parts", missing) : "",
               clock.steps());
    if (const auto text = forecast(runs, e.out, o, train))
      fmt::print(o.forecast_only ? stdout : stderr, "nvfp4: experiment: {}\n", *text);
    return !o.forecast_only && Interrupt::signal() == 0;
  };
  const auto show = [&](size_t run, size_t runs, const models::TrainOptions &options,
                        const models::StepReport &step) {
    clock.step(options);
    const double left = clock.seconds_left();
    if (!terminal) return line.show(clock.elapsed() / (clock.elapsed() + left));
    fmt::print(stderr, "\r\033[Krun {} of {}  {} seed {}  step {} of {}  loss {:.4f}  {} left", run + 1, runs,
               kind_of(options), options.seed, step.step, step.steps, step.loss, duration_text(left));
    std::fflush(stderr);
  };
  const models::ExperimentSummary summary = models::run_experiment(e, train, show, describe, plan, settings);
  line.done();
  if (terminal) fmt::print(stderr, "\r\033[K");
  if (summary.interrupted || Interrupt::signal() != 0) {
    fmt::print("stopped; the same call goes on: nvfp4 experiment {}\n", o.file);
    return Interrupt::exit_code();
  }
  if (o.forecast_only) {
    std::error_code code;
    std::filesystem::remove(e.out, code); // if nothing is in it
    return kEqual;
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

void register_experiment(Command &app, int &exit_code) {
  Command *verb =
      app.add_subcommand("experiment", "A grid of training runs, models x recipes x seeds, with a summary");
  auto o = std::make_shared<Options>();
  verb->add_option("file", o->file, "JSON: models, recipes, seeds, out, and options of nvfp4 train by name")
      ->required();
  verb->add_flag("--json", o->json, "Machine-readable output");
  verb->add_option(
      "--shard", o->shard,
      "Only this part of the runs: I/N, or env: as SLURM_ARRAY_TASK_ID or RANK and WORLD_SIZE say");
  verb->add_option("--jobs", o->jobs, "Runs side by side, each in a process of its own")
      ->capture_default_str()
      ->check(Range{1, 256});
  verb->add_option("--devices", o->devices,
                   "Devices of the jobs in turn: cpu, cuda, cuda:N; default: the grid's")
      ->delimiter(',');
  verb->add_flag("--forecast-only", o->forecast_only,
                 "Measure the first steps, say how long the grid takes, end");
  verb->footer(
      "Finished runs are kept and stopped ones continue, so the same call goes on where it was stopped.\n"
      "Example: {\"models\": [{\"model\": \"gla\", \"size\": \"tiny\"}], \"recipes\": [\"bf16\", \"nvfp4\", "
      "\"chon\"],\n"
      "          \"seeds\": [1, 2, 3], \"data\": \"text.txt\", \"steps\": 400, \"out\": \"runs\"}");
  verb->callback([o, &exit_code] { exit_code = experiment(*o); });
}

} // namespace nvfp4::tool
