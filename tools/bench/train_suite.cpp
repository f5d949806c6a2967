// SPDX-License-Identifier: Apache-2.0
// Recipes take turns, step by step, so that a busy machine slows all of them alike.
#include "tools/bench/train_suite.hpp"
#include "nvfp4/reference_models/train/training_step.hpp"
#include "tools/bench/profiling.hpp"
#include "tools/bench/yardstick.hpp"
#include "tools/environment.hpp"

#include <algorithm>
#include <array>
#include <memory>

namespace nvfp4::bench {
namespace {

using namespace nvfp4::models;

struct Runner {
  Profile profile;
  std::unique_ptr<Backend<float>> cpu, backend;
  std::unique_ptr<OperandEngine> cpu_engine, engine;
  std::unique_ptr<Model<float>> model;
  std::unique_ptr<Optimizer<float>> optimizer;
  StepInput input;

  Runner(const TrainShape &shape, const ModelConfig &config, const std::string &recipe, int threads)
      : cpu(make_cpu_backend(threads, tool::asked_isa())), backend(std::make_unique<ProfilingBackend>(*cpu, profile)),
        cpu_engine(make_cpu_operand_engine(threads, tool::asked_isa())),
        engine(std::make_unique<ProfilingEngine>(*cpu_engine, profile)),
        model(std::make_unique<Model<float>>(*backend, engine.get(), config, load_recipe(recipe), shape.batch,
                                             shape.sequence, true)),
        optimizer(std::make_unique<Optimizer<float>>(model->parameters(), AdamWOptions{}, load_recipe(recipe).optimizer)),
        input{1, 1, 1, shape.batch, shape.sequence, 1e-3f, {}, {}} {
    initialise(model->parameters(), config, 1);
    model->parameters_changed();
  }

  double run(const DataSource &data) {
    const double begin = now();
    read_micro_batches(data, input);
    training_step(*model, *optimizer, input);
    (void)optimizer->digest(input.step++);
    return now() - begin;
  }
};

/// Seconds of the step's matrix products in SGEMM: three for each linear layer and the head.
double sgemm_step(const ModelConfig &config, int64_t rows, int threads) {
  const Blas &blas = Blas::instance();
  if (!blas.loaded()) return 0;
  blas.set_threads(threads);
  std::vector<std::array<int64_t, 2>> weights;
  int64_t largest = 0;
  for (const ParameterSpec &p : parameter_list(config)) {
    if (p.shape.size() != 2 || (!config.tie && p.name.find("embed") != std::string::npos)) continue;
    weights.push_back({p.shape[0], p.shape[1]});
    largest = std::max({largest, p.count(), rows * p.shape[0], rows * p.shape[1]});
  }
  std::vector<float> a(size_t(largest), 0.5f), b(size_t(largest), 0.25f), c(static_cast<size_t>(largest));
  const double begin = now();
  for (const auto &[n, k] : weights) {
    blas.sgemm(int(rows), int(n), int(k), a.data(), b.data(), c.data());
    blas.sgemm(int(rows), int(k), int(n), a.data(), b.data(), c.data());
    blas.sgemm(int(n), int(k), int(rows), a.data(), b.data(), c.data());
  }
  return now() - begin;
}

} // namespace

std::vector<TrainTiming> time_training(const TrainShape &shape, const std::vector<std::string> &recipes,
                                       int threads, int repeats,
                                       const std::function<void(double)> &progress) {
  const ModelConfig config = find_model(shape.model, shape.size);
  const std::unique_ptr<DataSource> data = open_data("task:copy,vocab=200", 0.05, shape.sequence);
  std::vector<std::unique_ptr<Runner>> runners;
  for (const std::string &recipe : recipes) {
    runners.push_back(std::make_unique<Runner>(shape, config, recipe, threads));
    for (int i = 0; i < 2; ++i) runners.back()->run(*data);
    runners.back()->profile.clear();
  }
  const int64_t rows = shape.batch * shape.sequence;
  std::vector<std::vector<double>> seconds(recipes.size()), ratios(recipes.size());
  for (int i = 0; i < repeats; ++i)
    for (size_t r = 0; r < runners.size(); ++r) {
      progress((i + double(r) / double(runners.size())) / repeats);
      const double sgemm = sgemm_step(config, rows, threads);
      seconds[r].push_back(runners[r]->run(*data));
      ratios[r].push_back(sgemm / seconds[r].back());
    }
  std::vector<TrainTiming> out;
  for (size_t r = 0; r < runners.size(); ++r) {
    TrainTiming t;
    t.recipe = recipes[r];
    t.threads = threads;
    std::sort(seconds[r].begin(), seconds[r].end());
    const auto tokens = double(rows);
    t.tokens_per_second = tokens / median(seconds[r]);
    t.low = tokens / seconds[r][seconds[r].size() * 3 / 4];
    t.high = tokens / seconds[r][seconds[r].size() / 4];
    t.sgemm_ratio = median(ratios[r]);
    double total = 0, known = 0;
    for (const double s : seconds[r]) total += s;
    for (const auto &[name, s] : runners[r]->profile) {
      t.profile.emplace_back(name, 1e3 * s / repeats);
      known += s;
    }
    t.profile.emplace_back("everything else", 1e3 * (total - known) / repeats);
    std::sort(t.profile.begin(), t.profile.end(),
              [](const auto &a, const auto &b) { return a.second > b.second; });
    out.push_back(std::move(t));
  }
  return out;
}

} // namespace nvfp4::bench
