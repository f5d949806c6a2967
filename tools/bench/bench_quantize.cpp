// SPDX-License-Identifier: Apache-2.0
// Quantization beside memcpy of the same matrix, by turns in one run: quantize/<work>/threads:<n>. Counters are
// medians: bytes read per second, the same for memcpy, and the median of the ratios of neighbours.
#include "emulator/gemm/isa.hpp"
#include "emulator/quantize/quantize.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace {

using namespace nvfp4;

constexpr int64_t kRows = 4096, kCols = 4096; // 64 MiB: larger than the caches

struct Work {
  const char *name;
  const char *convention;
  QuantizeOptions options = {};
  bool fresh = false; ///< into new memory each time, as quantize() does
};

constexpr float kAmax = 5.5f;
constexpr auto kRs = ElementRounding::sr_carry8;
const Work kWorks[] = {
    {"te", "te"},
    {"te_amax_given", "te", {.global_amax = kAmax}},
    {"te_fresh_memory", "te", {}, true},
    {"te_stochastic", "te", {.rounding = kRs}},
    {"te_stochastic_amax_given", "te", {.rounding = kRs, .global_amax = kAmax}},
    {"te_stochastic_te", "te", {.rounding = ElementRounding::sr_te}},
    {"te_stochastic_exact", "te", {.rounding = ElementRounding::sr_exact}},
    {"te_hadamard", "te", {.hadamard = true}},
    {"te_hadamard_amax_given", "te", {.hadamard = true, .global_amax = kAmax}},
    {"te_columnwise", "te", {.axis = Axis::col}},
    {"te_columnwise_amax_given", "te", {.axis = Axis::col, .global_amax = kAmax}},
    {"te_columnwise_hadamard_stochastic", "te", {.axis = Axis::col, .rounding = kRs, .hadamard = true}},
    {"te_tiles", "te", {.block_rows = 16}},
    {"te_128x4", "te", {.layout = ScaleLayout::tiled_128x4}},
    {"te213", "te213"},
    {"torchao", "torchao"},
    {"modelopt", "modelopt"},
    {"compressed_tensors", "compressed-tensors"},
    {"flashinfer", "flashinfer"},
    {"vllm", "vllm"},
    {"row_scaled", "row-scaled"},
    {"te_4over6", "te-4over6"},
    {"fouroversix", "fouroversix"},
    {"mxfp4", "mxfp4"},
    {"mxfp8_e4m3", "mxfp8-e4m3"},
    {"mxfp8_e5m2_ceil", "mxfp8-e5m2-ceil"},
};

const std::vector<float> &matrix() {
  static const std::vector<float> x = [] {
    std::vector<float> v(size_t(kRows * kCols));
    std::mt19937 words(1);
    std::normal_distribution<float> normal;
    for (float &e : v) e = normal(words);
    return v;
  }();
  return x;
}

double seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> v) {
  std::nth_element(v.begin(), v.begin() + std::ptrdiff_t(v.size() / 2), v.end());
  return v[v.size() / 2];
}

void copy(const std::vector<float> &from, std::vector<float> &to, [[maybe_unused]] int threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; ++part) {
    const size_t first = from.size() * size_t(part) / size_t(threads);
    const size_t last = from.size() * size_t(part + 1) / size_t(threads);
    std::memcpy(to.data() + first, from.data() + first, (last - first) * sizeof(float));
  }
}

void run(benchmark::State &state, const Work &work, int threads) {
  const std::vector<float> &x = matrix();
  static std::vector<float> to(x.size());
  const MatrixView<const float> view(x.data(), kRows, kCols);
  const Convention &convention = find_convention(work.convention);
  QuantizeOptions options = work.options;
  options.threads = threads;
  BlockScaled out;
  const auto quantize_once = [&] {
    if (work.fresh)
      out = quantize(view, convention, options);
    else
      quantize_into(out, view, convention, options);
    benchmark::DoNotOptimize(out.codes.data());
  };
  quantize_once();
  std::vector<double> own, yardstick, ratio;
  for (auto _ : state) {
    const double start = seconds();
    copy(x, to, threads);
    benchmark::DoNotOptimize(to.data());
    const double middle = seconds();
    quantize_once();
    const double end = seconds();
    state.SetIterationTime(end - middle);
    own.push_back(end - middle);
    yardstick.push_back(middle - start);
    ratio.push_back((middle - start) / (end - middle));
  }
  const double bytes = double(x.size() * sizeof(float)) * 1e-9;
  state.counters["GB/s"] = bytes / median(own);
  state.counters["memcpy_GB/s"] = bytes / median(yardstick);
  state.counters["of_memcpy"] = median(ratio);
}

} // namespace

int main(int argc, char **argv) {
  int most = 1;
#ifdef _OPENMP
  most = omp_get_max_threads();
#endif
  for (const Work &work : kWorks)
    for (int threads = 1; threads <= most; threads = threads < most ? std::min(2 * threads, most) : most + 1)
      benchmark::RegisterBenchmark(
          ("quantize/" + std::string(work.name) + "/threads:" + std::to_string(threads)).c_str(),
          [&work, threads](benchmark::State &state) { run(state, work, threads); })
          ->UseManualTime()
          ->Iterations(21)
          ->Unit(benchmark::kMillisecond);
  benchmark::AddCustomContext("isa", to_string(choose_isa()));
  benchmark::AddCustomContext("matrix", std::to_string(kRows) + " x " + std::to_string(kCols) + " FP32");
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  benchmark::RunSpecifiedBenchmarks();
}
