// SPDX-License-Identifier: Apache-2.0
// Quantization beside memcpy of the same matrix, by turns in one run: quantize/<work>/<shape>/threads:<n>.
// Counters are medians: bytes read per second, the same for memcpy, and the median of the ratios of
// neighbours.
#include "tools/bench/quantize_suite.hpp"
#include "tools/bench/yardstick.hpp"
#include "tools/environment.hpp"

#include <benchmark/benchmark.h>
#include <omp.h>
#include <string>

namespace {

using namespace nvfp4;
using namespace nvfp4::bench;

void run(benchmark::State &state, const QuantizeWork &work, const MatrixShape &shape, int threads) {
  QuantizeBench bench(work, shape, threads);
  std::vector<double> own, yardstick, ratio;
  for (auto _ : state) {
    const QuantizeSample s = bench.sample();
    state.SetIterationTime(s.quantize);
    own.push_back(s.quantize);
    yardstick.push_back(s.copy);
    ratio.push_back(s.copy / s.quantize);
  }
  const double gigabytes = bench.bytes() * 1e-9;
  state.counters["GB/s"] = gigabytes / median(own);
  state.counters["memcpy_GB/s"] = gigabytes / median(yardstick);
  state.counters["of_memcpy"] = median(ratio);
}

} // namespace

int main(int argc, char **argv) {
  const int most = omp_get_max_threads();
  const auto add = [](const QuantizeWork &work, const MatrixShape &shape, int threads) {
    const std::string name = "quantize/" + std::string(work.name) + "/" + shape.name + "/threads:";
    benchmark::RegisterBenchmark(
        (name + std::to_string(threads)).c_str(),
        [&work, &shape, threads](benchmark::State &state) { run(state, work, shape, threads); })
        ->UseManualTime()
        ->Iterations(shape.repeats)
        ->Unit(benchmark::kMicrosecond);
  };
  for (const QuantizeWork &work : quantize_works()) {
    add(work, kMemoryShape, 1);
    if (most > 1) add(work, kMemoryShape, most);
    add(work, kCacheShape, 1);
  }
  benchmark::AddCustomContext("isa", to_string(choose_isa(tool::asked_isa())));
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
