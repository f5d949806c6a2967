// SPDX-License-Identifier: Apache-2.0
// nvfp4 experiment FILE.json: a grid of training runs and its summary.
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/reference_models/report/experiment.hpp"
#include "tools/nvfp4/interrupt.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <cstdio>
#include <fmt/core.h>
#include <memory>
#include <unistd.h>

namespace nvfp4::tool {
namespace {

struct Options {
  std::string file;
  bool json = false;
};

void show_step(size_t run, size_t runs, const models::TrainOptions &options, const models::StepReport &step) {
  static const bool terminal = isatty(STDERR_FILENO) != 0;
  if (!terminal) return;
  std::fprintf(stderr,
               "\r\033[Krun %zu of %zu  %s %s %s seed %llu  step %lld of %lld  loss %.4f  %.0f tokens/s",
               run + 1, runs, options.model.c_str(), options.size.c_str(), options.recipe.c_str(),
               static_cast<unsigned long long>(options.seed), static_cast<long long>(step.step),
               static_cast<long long>(step.steps), double(step.loss), step.tokens_per_second);
  if (step.step == step.steps) std::fprintf(stderr, "\r\033[K");
  std::fflush(stderr);
}

int experiment(const Options &o) {
  const auto bytes = io::read_file(o.file);
  const models::Experiment e =
      models::parse_experiment({reinterpret_cast<const char *>(bytes.data()), bytes.size()}, o.file);
  const Interrupt interrupt;
  const auto train = [](const models::TrainOptions &options,
                        const std::function<void(const models::StepReport &)> &on_step) {
    return models::train(options, on_step, [] { return Interrupt::signal() != 0; });
  };
  const models::ExperimentSummary summary = models::run_experiment(e, train, show_step, models::describe_run);
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
