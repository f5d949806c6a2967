// SPDX-License-Identifier: Apache-2.0
// The table of quantization works and the interleaved measurement.
#include "tools/bench/quantize_suite.hpp"

#include "tools/bench/yardstick.hpp"
#include "tools/environment.hpp"

#include <algorithm>
#include <cstring>
#include <random>

namespace nvfp4::bench {
namespace {

constexpr float kAmax = 5.5f;
constexpr auto kRs = ElementRounding::sr_carry8;
const QuantizeWork kQuantizeWorks[] = {
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
    std::vector<float> v(size_t(kMemoryShape.rows * kMemoryShape.cols));
    std::mt19937 words(1);
    std::normal_distribution<float> normal;
    for (float &e : v) e = normal(words);
    return v;
  }();
  return x;
}

std::vector<float> &target() {
  static std::vector<float> to(matrix().size());
  return to;
}

void copy(size_t size, int threads) {
  const std::vector<float> &from = matrix();
  std::vector<float> &to = target();
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int part = 0; part < threads; ++part) {
    const size_t first = size * size_t(part) / size_t(threads);
    const size_t last = size * size_t(part + 1) / size_t(threads);
    std::memcpy(to.data() + first, from.data() + first, (last - first) * sizeof(float));
  }
}

} // namespace

std::span<const QuantizeWork> quantize_works() { return kQuantizeWorks; }

QuantizeBench::QuantizeBench(const QuantizeWork &work, const MatrixShape &shape, int threads)
    : work_(work), shape_(shape), threads_(threads), options_(work.options) {
  options_.threads = threads;
  options_.isa = tool::asked_isa();
  (void)sample(); // caches, pages
}

QuantizeSample QuantizeBench::sample() {
  const MatrixView<const float> view(matrix().data(), shape_.rows, shape_.cols);
  const Convention &convention = find_convention(work_.convention);
  const double start = now();
  copy(size_t(shape_.rows * shape_.cols), threads_);
  const double middle = now();
  if (work_.fresh)
    out_ = quantize(view, convention, options_);
  else
    quantize_into(out_, view, convention, options_);
  return {middle - start, now() - middle};
}

} // namespace nvfp4::bench
