// SPDX-License-Identifier: Apache-2.0
// The GEMM benchmarks: which products, with which operands, and how one is timed beside SGEMM.
#pragma once
#include "nvfp4/emulator/gemm/gemm.hpp"

#include <functional>
#include <span>
#include <string>
#include <vector>

namespace nvfp4::bench {

/// A kind of product: "nvfp4", "mxfp4", "bf16", "fp16", "fp8", "mxfp8".
struct Work {
  const char *name;
  const char *unit;
};
[[nodiscard]] std::span<const Work> works();
/// Throws Error with the list of names.
[[nodiscard]] const Work &find_work(const std::string &name);

struct Shape {
  const char *name; ///< "2048" or the layer's role
  int64_t m, n, k;
};
/// Squares from 256 to `largest`, then the layers of a 340M-parameter GLA (d = 1024) at 2048 tokens.
[[nodiscard]] std::vector<Shape> shapes(int64_t largest);

/// Normal values, quantized with one scale per block where the unit has scales.
struct Operands {
  GemmOperand a, b;
};
[[nodiscard]] Operands make_operands(const Unit &unit, const Shape &shape);

/// Operands that are not normal data: those of the GPU checks and timings (golden/product_operands.hpp), the
/// recorded ones of golden/operands only where `golden_folder` is not empty and the unit is an NVFP4 one.
struct DataClass {
  std::string name; ///< "outliers", "recorded wgrad"
  std::function<GemmOperand(Side)> make;
};
/// Every class for a product of n x n x n.
[[nodiscard]] std::vector<DataClass> data_classes(const Unit &unit, int64_t n,
                                                  const std::string &golden_folder);

/// n normal values for SGEMM.
[[nodiscard]] std::vector<float> normal_values(int64_t n);

/// Medians over interleaved repeats; rates in 1e9 operations per second, ratios are of one repeat each.
struct Timing {
  double rate = 0, sgemm = 0, ratio = 0, ratio_low = 0, ratio_high = 0;
};
/// SGEMM multiplies normal values. sgemm and the ratios are 0 without OpenBLAS.
[[nodiscard]] Timing time_gemm(const Unit &unit, const GemmOperand &a, const GemmOperand &b,
                               const Shape &shape, int threads, int repeats);

} // namespace nvfp4::bench
