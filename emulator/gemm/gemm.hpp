// SPDX-License-Identifier: Apache-2.0
// The product: D = epilogue(chain of tensor-core instructions over A and B^T, from zero or from an
// accumulator). The definition is dot() per output; any engine that gives the same bits may run, and the
// result says which one did.
#pragma once
#include "nvfp4/emulator/cpu/isa.hpp"
#include "nvfp4/emulator/gemm/operand.hpp"

#include <functional>
#include <memory>

namespace nvfp4 {

struct GemmOptions {
  float alpha = 1.0f; ///< the caller's; the operands' global scales come on top
  float beta = 0.0f;
  FormatId out = FormatId::f32; ///< f32, bf16 or f16; f64 for FP64 units
  Accumulation accumulation = Accumulation::mmasim;
  int threads = 0;     ///< 0: all that OpenMP offers. Threads divide outputs; the bits do not depend on it.
  std::optional<Isa> isa = {}; ///< instead of the best that the CPU has; changes no bit
  bool oracle = false; ///< compute with the multiprecision oracle instead (slow)
  AlphaRule alpha_rule = AlphaRule::by_convention; ///< how the operands' global scales meet
  /// A grouped product: how many rows of A each group has. B is (groups * N, K), group g's block at row g *
  /// N; the output is (M, N), where group g's rows of A met its block of B. Empty: one product.
  std::vector<int64_t> groups = {};
  /// Called from the calling thread with the fraction done. What it throws ends the work and leaves run().
  std::function<void(double)> progress = {};
};

/// What an output meets beside A and B. Empty: left out. C and `start` are read as raw words.
struct GemmInputs {
  std::span<const uint8_t> start =
      {}; ///< (M, N) in the unit's accumulator format: where chains start; else at +0
  std::span<const uint8_t> c = {};  ///< (M, N) FP32 (FP64 for FP64 units); read, and then needed, with beta
  std::span<const float> bias = {}; ///< (columns of D)
  std::span<const float> row_factors = {};    ///< (M)
  std::span<const float> column_factors = {}; ///< (columns of D)
};

/// What computed the chains.
enum class GemmEngine : uint8_t {
  definition, ///< dot(), output by output
  oracle,     ///< multiprecision
  fp4_vector, ///< vector kernels for FP4, fp4_engine.cpp
  fdpa_vector, ///< vector kernels for the fused dot-product-add, fdpa_engine.cpp
  exact_vector ///< exact sums in doubles, exact_engine.cpp
};
[[nodiscard]] constexpr const char *to_string(GemmEngine e) {
  return e == GemmEngine::definition   ? "definition"
         : e == GemmEngine::oracle     ? "oracle"
         : e == GemmEngine::fp4_vector ? "fp4"
         : e == GemmEngine::fdpa_vector ? "fdpa"
                                        : "exact";
}

struct GemmReport {
  GemmEngine engine = GemmEngine::definition;
  Isa isa = Isa::scalar; ///< of a vector engine
  int64_t by_definition =
      0; ///< outputs that the definition computed, alone or because a vector engine could not prove them
};

/// D in row-major words of the output format.
struct GemmResult {
  FormatId format = FormatId::f32;
  int64_t m = 0, n = 0;
  std::vector<uint8_t> words; // (m, n)
  GemmReport report = {};

  [[nodiscard]] float f32(int64_t i, int64_t j) const;
};

/// Receives finished accumulator words of rows [i, i + rows) and columns [j, j + cols): 32-bit words,
/// `stride` apart from row to row. Called concurrently for disjoint outputs.
struct AccumulatorSink {
  void (*store)(const void *context, int64_t i, int64_t j, int64_t rows, int64_t cols, const uint32_t *words,
                int64_t stride);
  const void *context;
};

/// A unit bound to options, both owned. Reusable and safe to share between threads.
class GemmPlan {
public:
  /// Throws Error when the output format does not fit the unit.
  GemmPlan(const Unit &unit, GemmOptions options);

  /// A (M, K), B (N, K) or, grouped, (groups * N, K). The epilogue of one output, in this order
  /// (epilogue.hpp):
  ///   alpha * acc, or fma(alpha, acc, beta * C) with beta; alpha includes the global scales of its row of A
  ///   and of B; times the factor: per-row global scales of A times those of B, or the caller's row times
  ///   column factor; plus bias; one rounding to the output type.
  /// Throws Error when operands or inputs do not fit, and for combinations that no source defines: factors
  /// with beta, the caller's factors with per-row global scales.
  [[nodiscard]] GemmResult run(const GemmOperand &a, const GemmOperand &b, const GemmInputs &in = {}) const;

  /// Throws what run() would throw, before a chain is computed.
  void check(const GemmOperand &a, const GemmOperand &b, const GemmInputs &in = {}) const;

  /// Accumulator words only (no epilogue): (M, N) chains from `start`, one word each, or from +0. Not
  /// grouped.
  GemmReport accumulate(const GemmOperand &a, const GemmOperand &b, std::span<uint64_t> acc,
                        std::span<const uint64_t> start = {}) const;
  /// The same from +0 for rows [first, first + rows) of A only, handed over as they are finished. For units
  /// that accumulate in FP32 words.
  GemmReport accumulate_rows(const GemmOperand &a, const GemmOperand &b, int64_t first, int64_t rows,
                             AccumulatorSink sink) const;

  [[nodiscard]] const Unit &unit() const { return *unit_; }
  [[nodiscard]] const GemmOptions &options() const { return options_; }

private:
  std::shared_ptr<const Unit> unit_; ///< a copy, or the catalogue's own row, which lasts
  GemmOptions options_;
};

/// One product, with a plan of its own.
[[nodiscard]] inline GemmResult multiply(const Unit &unit, const GemmOperand &a, const GemmOperand &b,
                                         const GemmOptions &options = {}, const GemmInputs &in = {}) {
  return GemmPlan(unit, options).run(a, b, in);
}

} // namespace nvfp4
