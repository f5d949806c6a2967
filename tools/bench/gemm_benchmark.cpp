// SPDX-License-Identifier: Apache-2.0
// The GEMM benchmarks for Google Benchmark's runner: gemm/<work>/<shape>/threads:<n> beside sgemm/<shape>/...
// and the peaks. For tables with ratios from interleaved repeats, use `nvfp4 bench`.
#include "tools/bench/gemm_suite.hpp"
#include "tools/bench/yardstick.hpp"
#include "tools/environment.hpp"

#include <benchmark/benchmark.h>
#include <omp.h>

#include <map>

namespace {

using namespace nvfp4;
using namespace nvfp4::bench;

constexpr int64_t kLargest = 2048;

/// Operands of one product, built at first use and kept until another product is asked for.
const Operands &operands(const Unit &unit, const Shape &shape) {
  static std::string key;
  static Operands kept;
  if (const std::string wanted = unit.name() + shape.name; key != wanted) {
    kept = make_operands(unit, shape);
    key = wanted;
  }
  return kept;
}

void rate(benchmark::State &state, const Shape &s) {
  state.counters["ops"] =
      benchmark::Counter(2.0 * double(s.m) * double(s.n) * double(s.k) * double(state.iterations()),
                         benchmark::Counter::kIsRate);
}

void run_gemm(benchmark::State &state, const Work &work, const Shape &shape, int threads) {
  const Unit &unit = find_unit(work.unit);
  const Operands &o = operands(unit, shape);
  GemmOptions options;
  options.threads = threads;
  options.isa = tool::asked_isa();
  const GemmPlan plan(unit, options);
  for (auto _ : state) benchmark::DoNotOptimize(plan.run(o.a, o.b).words.data());
  rate(state, shape);
}

void run_sgemm(benchmark::State &state, const Shape &shape, int threads) {
  const Blas &blas = Blas::instance();
  if (!blas.loaded()) {
    state.SkipWithError("libopenblas.so.0 not found");
    return;
  }
  const std::vector<float> a = normal_values(shape.m * shape.k), b = normal_values(shape.n * shape.k);
  std::vector<float> c(size_t(shape.m * shape.n));
  blas.set_threads(threads);
  for (auto _ : state)
    blas.sgemm(int(shape.m), int(shape.n), int(shape.k), a.data(), b.data(), c.data());
  rate(state, shape);
}

void run_peak(benchmark::State &state, double (*measure)(int), int threads) {
  double best = 0;
  for (auto _ : state) best = std::max(best, measure(threads));
  state.counters["best_G_per_s"] = best;
}

} // namespace

int main(int argc, char **argv) {
  std::vector<int> threads = {1};
  if (omp_get_max_threads() > 1) threads.push_back(omp_get_max_threads());
  for (const int t : threads) {
    const std::string suffix = "/threads:" + std::to_string(t);
    for (const auto &[name, measure] : std::map<std::string, double (*)(int)>{
             {"peak/fma", fma_peak}, {"peak/vnni", vnni_peak}, {"peak/memcpy_bytes", memcpy_rate}})
      benchmark::RegisterBenchmark((name + suffix).c_str(), run_peak, measure, t)->Iterations(1);
    for (const Shape &s : shapes(kLargest)) {
      benchmark::RegisterBenchmark(("sgemm/" + std::string(s.name) + suffix).c_str(), run_sgemm, s, t)
          ->UseRealTime();
      for (const Work &w : works())
        benchmark::RegisterBenchmark(("gemm/" + std::string(w.name) + "/" + s.name + suffix).c_str(),
                                     run_gemm, w, s, t)
            ->UseRealTime();
    }
  }
  benchmark::AddCustomContext("openblas", Blas::instance().core());
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
