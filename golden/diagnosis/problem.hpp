// SPDX-License-Identifier: Apache-2.0
// What a kernel was asked to compute: unit, operands as they lie in memory, scalars, output type. Plain data.
#pragma once
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/emulator/quantize/block_scaled.hpp"
#include "nvfp4/emulator/quantize/global_alpha.hpp"

#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace nvfp4::diagnosis {

/// An operand without padding to any unit: buffers that a layout mistake can be made on.
struct RawOperand {
  FormatId format = FormatId::f32;
  FormatId scale = FormatId::ue4m3;
  int block = 0; ///< elements per scale, 0 without scales
  int64_t rows = 0, k = 0;
  std::vector<uint8_t> codes;  // (rows, ceil(k * bits / 8)), 4-bit codes two to a byte
  std::vector<uint8_t> scales; // (rows, scale_cols()), linear

  [[nodiscard]] int bits() const { return nvfp4::format(format).storage_bits; }
  [[nodiscard]] int64_t row_bytes() const { return (k * bits() + 7) / 8; }
  [[nodiscard]] int64_t blocks() const { return block == 0 ? 0 : (k + block - 1) / block; }
  /// Bytes of a row's scales.
  [[nodiscard]] int64_t scale_cols() const { return block == 0 ? 0 : blocks() * scale_bytes(scale); }
  /// The scale of element i of row r, as a word.
  [[nodiscard]] uint32_t scale_of(int64_t r, int64_t i) const {
    return read_scale(scale, scales.data() + r * scale_cols(), i / block);
  }
  [[nodiscard]] CodeView row(int64_t r) const { return {codes.data() + r * row_bytes(), bits()}; }
  [[nodiscard]] uint64_t code(int64_t r, int64_t i) const { return row(r)[i]; }
  void set(int64_t r, int64_t i, uint64_t code);
  bool operator==(const RawOperand &) const = default;
};

/// The codes of a quantized tensor with linear scales; k is its padded_k.
[[nodiscard]] RawOperand raw_operand(const BlockScaled &q);
/// The codes of a packed operand without the padding.
[[nodiscard]] RawOperand raw_operand(const GemmOperand &p);

/// A tensor before it was quantized.
struct SourceTensor {
  int64_t rows = 0, cols = 0;
  std::vector<float> values;
};

struct ProblemOperand {
  RawOperand raw;
  std::optional<BlockScaled> scaled;  ///< set for quantized operands
  std::optional<SourceTensor> source; ///< when the caller has it: allows to try other quantizers
};

struct Problem {
  const Unit *unit = nullptr;
  Accumulation accumulation = Accumulation::mmasim;
  ProblemOperand a, b;
  float alpha = 1.0f; ///< the caller's; global scales come on top
  float beta = 0.0f;
  AlphaRule alpha_rule = AlphaRule::by_convention;
  std::vector<uint8_t> c = {};    ///< (M, N) F32 words (F64 for FP64 units); may be given without beta
  FormatId round = FormatId::f32; ///< type to which the epilogue rounds
  FormatId word = FormatId::f32;  ///< type of the words of D: `round` or wider
  int threads = 0;
  std::optional<Isa> isa = {}; ///< instead of the best that the CPU has

  [[nodiscard]] int64_t m() const { return a.raw.rows; }
  [[nodiscard]] int64_t n() const { return b.raw.rows; }
};

/// Throws Error unless unit, operands, C and types fit together and `words` is a D of that size.
void check_problem(const Problem &p, std::span<const uint8_t> words);

/// The factor of the accumulator: alpha, times the global scales of two quantized operands.
[[nodiscard]] float total_alpha(const Problem &p);

} // namespace nvfp4::diagnosis
