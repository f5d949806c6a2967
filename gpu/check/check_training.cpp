// SPDX-License-Identifier: Apache-2.0
// Training steps on both devices: loss words and digests of parameters and moments, step after step. And
// where a step's time goes.
#include "nvfp4/gpu/check/activity.hpp"
#include "nvfp4/gpu/check/training.hpp"
#include "nvfp4/gpu/device/timeline.hpp"
#include "nvfp4/gpu/models/session.hpp"
#include "nvfp4/reference_models/images/steps.hpp"
#include "nvfp4/reference_models/train/training_step.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <thread>

namespace nvfp4::crosscheck {
namespace {

using namespace models;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Operations of the linear layers (gpu/models/operand_engine.cu).
bool of_linear_layers(std::string_view operation) {
  return operation.ends_with(" product") || operation.starts_with("BF16 product") ||
         operation == "quantize" || operation == "prepare FP4" || operation == "pack BF16" ||
         operation == "patch" || operation == "round" || operation.starts_with("column ");
}

void print_activity(const Activity &ran, const std::map<std::string, cuda::Timeline::Entry> &entries,
                    int steps, double seconds) {
  if (!ran.known) {
    std::printf("  launches are not known: libcupti was not found, or is in use (LD_LIBRARY_PATH)\n");
    return;
  }
  const int64_t kernels = ran.kernels();
  const double busy = ran.busy([](std::string_view) { return true; }), sum = ran.kernel_seconds();
  std::printf("  %lld launches and %lld copies a step; kernels take %.3f ms, the GPU is busy for %.3f ms; a "
              "step is %.2f times its kernels\n",
              static_cast<long long>(kernels / steps),
              static_cast<long long>((int64_t(ran.spans.size()) - kernels) / steps), 1e3 * sum / steps,
              1e3 * busy / steps, seconds * steps / sum);
  double by_events = 0;
  for (const auto &[name, entry] : entries)
    if (of_linear_layers(name)) by_events += entry.milliseconds;
  const double unknown = ran.busy([](std::string_view operation) { return operation.empty(); });
  std::printf("  linear layers: the GPU is busy for %.3f ms, %.3f ms by events; not known whose: %.3f ms\n",
              1e3 * ran.busy(of_linear_layers) / steps, by_events / steps, 1e3 * unknown / steps);
}

/// The `most` kernels that take longest.
void print_kernels(const Activity &ran, int steps, int most) {
  struct Time {
    uint64_t ns = 0;
    int64_t count = 0;
  };
  std::map<std::pair<std::string_view, std::string_view>, Time> times; // by operation and name
  for (const Activity::Span &s : ran.spans)
    if (s.kernel) {
      Time &t = times[{s.operation, s.name}];
      t.ns += s.end - s.start;
      ++t.count;
    }
  std::vector<std::pair<std::pair<std::string_view, std::string_view>, Time>> sorted(times.begin(), times.end());
  std::sort(sorted.begin(), sorted.end(), [](const auto &a, const auto &b) { return a.second.ns > b.second.ns; });
  sorted.resize(std::min(sorted.size(), size_t(most)));
  for (const auto &[key, t] : sorted)
    std::printf("  kernel %9.3f ms a step  %6.1f times  %-22.*s %.*s\n", double(t.ns) * 1e-6 / steps, double(t.count) / steps,
                int(key.first.size()), key.first.data(), int(std::min<size_t>(key.second.size(), 150)), key.second.data());
}

/// Loss words and digests of a run's steps on both devices, and its line.
Tally compare_steps(const std::string &name, const std::vector<StepRecord> &gpu, double gpu_seconds,
                    const std::vector<StepRecord> &cpu, double cpu_seconds) {
  Tally t;
  if (gpu.size() != cpu.size()) t.mismatch(name + ": another number of steps");
  for (size_t i = 0; i < std::min(cpu.size(), gpu.size()); ++i) {
    t.values += 2;
    char text[240];
    std::snprintf(text, sizeof text, "%s, step %zu: loss GPU %08x, CPU %08x; digest GPU %s, CPU %s", name.c_str(), i + 1,
                  gpu[i].loss, cpu[i].loss, gpu[i].digest.c_str(), cpu[i].digest.c_str());
    if (gpu[i].loss != cpu[i].loss) t.mismatch(text);
    if (gpu[i].digest != cpu[i].digest) t.mismatch(text);
  }
  char what[160];
  std::snprintf(what, sizeof what, "train %s, %zu steps (GPU %.1f s, CPU %.1f s)", name.c_str(), cpu.size(), gpu_seconds,
                cpu_seconds);
  t.print(what);
  return t;
}

} // namespace

Tally check_training(const std::vector<StepsOptions> &runs, int cpu_threads,
                     std::vector<TrainingRun> *records) {
  cuda::register_cuda_device();
  // the CPU's runs go on beside the GPU's
  std::vector<TrainingRun> all(runs.size());
  std::vector<std::exception_ptr> failures(runs.size());
  std::vector<std::thread> threads;
  const unsigned together =
      std::max(1u, std::thread::hardware_concurrency() / unsigned(std::max(1, cpu_threads)));
  std::atomic<size_t> next{0};
  for (unsigned i = 0; i < together; ++i)
    threads.emplace_back([&] {
      for (size_t r = next++; r < runs.size(); r = next++) try {
          StepsOptions o = runs[r];
          o.device = "cpu";
          o.threads = cpu_threads;
          const Clock::time_point start = Clock::now();
          all[r].cpu = run_steps(o);
          all[r].cpu_seconds = seconds_since(start);
        } catch (...) {
          failures[r] = std::current_exception();
        }
    });
  std::exception_ptr failure;
  for (size_t r = 0; r < runs.size(); ++r) try {
      all[r].options = runs[r];
      StepsOptions o = runs[r];
      o.device = "cuda";
      const Clock::time_point start = Clock::now();
      all[r].gpu = run_steps(o);
      all[r].gpu_seconds = seconds_since(start);
    } catch (...) {
      failure = std::current_exception();
    }
  for (std::thread &t : threads) t.join();
  if (failure) std::rethrow_exception(failure);
  Tally total;
  for (size_t r = 0; r < runs.size(); ++r) {
    if (failures[r]) std::rethrow_exception(failures[r]);
    const TrainingRun &run = all[r];
    const StepsOptions &o = run.options;
    const Tally t = compare_steps(o.model + " " + o.size + " " + o.recipe, run.gpu, run.gpu_seconds, run.cpu, run.cpu_seconds);
    total.add(t);
  }
  if (records != nullptr) *records = std::move(all);
  return total;
}

Tally check_image_training(int64_t steps, int cpu_threads) {
  cuda::register_cuda_device();
  std::vector<std::string> recipes = {"fp32", "bf16", "nvfp4", "hcp", "mxfp8"};
  for (const std::string_view name : image_recipes()) recipes.emplace_back(name);
  Tally total;
  for (const std::string &recipe : recipes) {
    ImageOptions o;
    o.widths = "8,24"; // ragged blocks
    o.hidden = 40;
    o.recipe = recipe;
    o.steps = steps;
    o.batch = 8;
    o.threads = cpu_threads;
    const auto timed = [&o](const char *device, double &seconds) {
      o.device = device;
      const Clock::time_point start = Clock::now();
      std::vector<StepRecord> records = run_image_steps(o);
      seconds = seconds_since(start);
      return records;
    };
    double cpu_seconds = 0, gpu_seconds = 0;
    const std::vector<StepRecord> cpu = timed("cpu", cpu_seconds), gpu = timed("cuda", gpu_seconds);
    total.add(compare_steps("cnn " + o.widths + " " + recipe, gpu, gpu_seconds, cpu, cpu_seconds));
  }
  return total;
}

void profile_training(const StepsOptions &o, int timed, int kernels, int64_t after) {
  cuda::Timeline timeline;
  cuda::register_cuda_device(&timeline);
  const ModelConfig config = find_model(o.model, o.size);
  const std::unique_ptr<DataSource> data = open_data(o.data, 0.05, o.sequence);
  timeline.start();
  const Recipe recipe = load_recipe(o.recipe);
  Session session = make_session("cuda", 0, config, recipe, o.batch, o.sequence, true);
  Model<float> &model = *session.model;
  Optimizer<float> optimizer(model.parameters(), {}, recipe.optimizer);
  initialise(model.parameters(), config, o.seed);
  model.parameters_changed();
  StepInput input{1, o.seed, 1, o.batch, o.sequence, float(o.learning_rate), {}, {}};
  float loss = 0;
  const auto one = [&] {
    read_micro_batches(*data, input);
    const float found = training_step(model, optimizer, input).loss;
    ++input.step;
    return found;
  };
  const auto several = [&](int steps) { // seconds a step
    cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    const Clock::time_point start = Clock::now();
    for (int i = 0; i < steps; ++i) loss = one();
    cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    return seconds_since(start) / steps;
  };
  one(); // allocates, and chooses hot channels
  for (int64_t i = 0; i < after; ++i) one();
  timeline.listen(false);
  const double first = several(1);
  const double seconds = several(std::clamp(int(0.2 / first), timed, 50)); // small models for long enough
  std::printf("profile %s %s %s, batch %lld x %lld: %.4f s a step, %.0f tokens/s, loss %.5f\n",
              o.model.c_str(), o.size.c_str(), o.recipe.c_str(), static_cast<long long>(o.batch),
              static_cast<long long>(o.sequence), seconds, double(o.batch * o.sequence) / seconds,
              double(loss));
  Activity ran;
  if (start_activity()) {
    timeline.observe(end_operation);
    for (int i = 0; i < timed; ++i) loss = one();
    timeline.observe(nullptr);
    ran = stop_activity();
  }
  timeline.listen(true);
  timeline.start();
  several(timed);
  const auto entries = timeline.read();
  print_activity(ran, entries, timed, seconds);
  std::vector<std::pair<std::string, cuda::Timeline::Entry>> sorted(entries.begin(), entries.end());
  std::sort(sorted.begin(), sorted.end(),
            [](const auto &a, const auto &b) { return a.second.milliseconds > b.second.milliseconds; });
  for (size_t i = 0; i < std::min<size_t>(sorted.size(), 18); ++i)
    std::printf("  %-24s %9.3f ms a step  %6lld times\n", sorted[i].first.c_str(),
                sorted[i].second.milliseconds / timed,
                static_cast<long long>(sorted[i].second.count / timed));
  print_kernels(ran, timed, kernels);
  std::fflush(stdout);
  cuda::register_cuda_device();
}

} // namespace nvfp4::crosscheck
