// SPDX-License-Identifier: Apache-2.0
// D = alpha * A * B^T + beta * C as a chain of tensor-core instructions per output. Operands are packed once, a plan
// binds a unit to options, and run() may use any implementation that gives the same bits.
#pragma once
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/emulator/formats/code_view.hpp"
#include "nvfp4/emulator/gemm/row_range.hpp"

#include <memory>
#include <optional>
#include <span>
#include <vector>

namespace nvfp4 {

/// An operand in the layout the engine reads: rows of codes along K, K padded to the unit's K with zero codes and
/// neutral scales. A is (M, K), B is (N, K).
struct PackedOperand {
  FormatId format = FormatId::f32;
  int64_t rows = 0;
  int64_t k = 0;        ///< logical K
  int64_t padded_k = 0; ///< multiple of the unit's K
  int scale_block = 0;  ///< elements per scale, 0 without scales
  std::vector<uint8_t> codes;  // (rows, padded_k), 4-bit codes two to a byte
  std::vector<uint8_t> scales; // (rows, padded_k / scale_block)
  std::vector<RowRange> ranges; // (rows): which shortcuts each row allows

  [[nodiscard]] int64_t row_bytes() const { return padded_k * nvfp4::format(format).storage_bits / 8; }
  [[nodiscard]] CodeView row(int64_t r) const {
    return {codes.data() + r * row_bytes(), nvfp4::format(format).storage_bits};
  }
  [[nodiscard]] const uint8_t *row_scales(int64_t r) const {
    return scale_block == 0 ? nullptr : scales.data() + r * (padded_k / scale_block);
  }
};

/// Which of a unit's operands is being packed.
enum class Side : uint8_t { a, b };

/// Packs row-major codes (rows, k) and linear scales (rows, ceil(k / block)). `codes` rows hold ceil(k * bits / 8)
/// bytes. Throws Error when the sizes do not fit. A scale of a padded block is 1.0.
[[nodiscard]] PackedOperand pack_operand(const Unit &unit, Side side, int64_t rows, int64_t k,
                                         std::span<const uint8_t> codes, std::span<const uint8_t> scales = {});

struct GemmOptions {
  float alpha = 1.0f;
  float beta = 0.0f;
  FormatId out = FormatId::f32; ///< f32, bf16 or f16; f64 for FP64 units
  Accumulation accumulation = Accumulation::mmasim;
  int threads = 0;     ///< 0: all that OpenMP offers. Threads divide outputs; the bits do not depend on it.
  bool oracle = false; ///< compute with the multiprecision oracle instead (slow)
};

/// D in row-major words of the output format.
struct GemmResult {
  FormatId format = FormatId::f32;
  int64_t m = 0, n = 0;
  std::vector<uint8_t> words; // (m, n)

  [[nodiscard]] float f32(int64_t i, int64_t j) const;
};

/// Receives finished accumulator words of rows [i, i + rows) and columns [j, j + cols): 32-bit words, `stride` apart
/// from row to row. Called concurrently for disjoint outputs.
struct AccumulatorSink {
  void (*store)(const void *context, int64_t i, int64_t j, int64_t rows, int64_t cols, const uint32_t *words,
                int64_t stride);
  const void *context;
};

/// A unit bound to options. Reusable and safe to share between threads.
class GemmPlan {
public:
  /// Throws Error when the output format does not fit the unit.
  GemmPlan(const Unit &unit, const GemmOptions &options);

  /// A (M, K), B (N, K), C (M, N) as FP32 (FP64 for FP64 units) words or empty; C is read only when beta != 0. The
  /// epilogue in FP32 is alpha * acc, or fma(alpha, acc, beta * C) with beta (cuBLASLt's, measured on H200: see
  /// gpu/probes/cublaslt_epilogue.cu); then one rounding to the output.
  /// progress, when given, is called from one thread with the fraction done.
  [[nodiscard]] GemmResult run(const PackedOperand &a, const PackedOperand &b, std::span<const uint8_t> c = {},
                               void (*progress)(double) = nullptr) const;

  /// Accumulator words only (no epilogue): the chain from +0.
  void accumulate(const PackedOperand &a, const PackedOperand &b, std::span<uint64_t> acc,
                  void (*progress)(double) = nullptr) const;
  /// The same for rows [first, first + rows) of A only, handed over as they are finished. For units that accumulate in
  /// FP32 words.
  void accumulate_rows(const PackedOperand &a, const PackedOperand &b, int64_t first, int64_t rows,
                       AccumulatorSink sink) const;

  [[nodiscard]] const Unit &unit() const { return *unit_; }
  [[nodiscard]] const GemmOptions &options() const { return options_; }

private:
  const Unit *unit_;
  GemmOptions options_;
};

/// The epilogue of one output: accumulator word -> output word.
[[nodiscard]] uint64_t epilogue(FormatId acc_format, uint64_t acc, const GemmOptions &options, double c);

} // namespace nvfp4
