// SPDX-License-Identifier: Apache-2.0
// An operand of a GEMM: codes and scales in the layout that the engines read, and with them all that makes a
// product right: rotation, global scales, logical K. What does not fit a unit or the other operand is an
// error here.
#pragma once
#include "nvfp4/emulator/gemm/row_range.hpp"
#include "nvfp4/emulator/quantize/global_alpha.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"

#include <span>
#include <vector>

namespace nvfp4 {

/// Which of a unit's operands: A is (M, K), B is (N, K), D = A B^T.
enum class Side : uint8_t { a, b };

/// Rows [first, last) of an operand that have a global scale of their own.
struct RowsFactor {
  int64_t first, last;
  GlobalFactor factor;
};

/// Made by make_operand(), or by reshape(), filling and seal(). Plain data; the engines read it only when
/// sealed.
struct GemmOperand {
  FormatId format = FormatId::f32;
  FormatId scale = FormatId::ue4m3; ///< meaningful with scale_block != 0
  Family family = Family::fdpa;     ///< of the unit it was made for; decides what `ranges` mean
  int scale_block = 0;              ///< elements per scale, 0 without scales
  int64_t rows = 0;
  int64_t k = 0;                     ///< logical K
  int64_t padded_k = 0;              ///< multiple of the unit's K; the padding has zero codes and scales of 1
  std::vector<uint8_t> codes = {};   // (rows, padded_k), 4-bit codes two to a byte
  std::vector<uint8_t> scales = {};  // (rows, scale_cols()): a byte for each scale_block elements, four of HiFloat4
  std::vector<RowRange> ranges = {}; // (rows): which shortcuts each row allows; empty until sealed

  /// Rows are rows as they are stored. A columnwise copy stands transposed, so that its rows are the input's
  /// columns and K runs over the input's rows: what wgrad multiplies. Not checked beyond K: both kinds meet
  /// in real products.
  Axis axis = Axis::row;
  int hadamard = 0;       ///< size of the groups along K in which values are rotated; 0: not rotated
  uint16_t sign_mask = 0; ///< of the rotation

  GlobalFactor global = {}; ///< of all rows, when `parts` is empty
  std::vector<RowsFactor> parts =
      {}; ///< rows with scales of their own (fused shards, experts), in order, all rows
  std::vector<float> row_factors = {}; // (rows) or none: per-row global scales, which multiply the result

  [[nodiscard]] int64_t row_bytes() const { return padded_k * nvfp4::format(format).storage_bits / 8; }
  [[nodiscard]] CodeView row(int64_t r) const {
    return {codes.data() + r * row_bytes(), nvfp4::format(format).storage_bits};
  }
  [[nodiscard]] int64_t scale_cols() const {
    return scale_block == 0 ? 0 : padded_k / scale_block * scale_bytes(scale);
  }
  [[nodiscard]] const uint8_t *row_scales(int64_t r) const {
    return scale_block == 0 ? nullptr : scales.data() + r * scale_cols();
  }
  [[nodiscard]] bool sealed() const { return int64_t(ranges.size()) == rows; }

  /// Gives it the unit's formats and this shape and forgets scales and rotation. Codes and block scales keep
  /// their memory and are to be written up to logical K: rows of row_bytes() and of scale_cols().
  void reshape(const UnitRule &rule, Side side, int64_t row_count, int64_t k_count);
  /// Pads behind logical K and notes which shortcuts each row allows. threads 0: all.
  void seal(const UnitRule &rule, int threads = 0);

  /// As make_operand() of q, whose scales are linear, into this memory: codes and scales are exchanged with
  /// q's where they need no padding and copied where they do. For callers who know that q fits and fill
  /// operands again and again.
  void adopt(const UnitRule &rule, Side side, BlockScaled &q, int threads = 0);

  /// Takes what q says beside its codes: axis, rotation, global and per-row scales.
  void take_facts(const BlockScaled &q);

  /// Replaces the global scale: `factors` in order, without gap or overlap, over all rows. Throws Error
  /// otherwise, and for an operand with per-row scales.
  void set_parts(std::vector<RowsFactor> factors);
  /// The global scale of a row.
  [[nodiscard]] const GlobalFactor &global_of(int64_t row) const;

private:
  void set_shape(const UnitRule &rule, Side side, int64_t row_count, int64_t k_count);
};

/// From a block-scaled tensor, in either scale layout. Throws Error when the unit takes other elements,
/// scales or blocks, or when sizes do not fit.
[[nodiscard]] GemmOperand make_operand(const Unit &unit, Side side, const BlockScaled &q);

/// A dense row-major matrix of words of one format.
struct DenseView {
  FormatId format;
  int64_t rows, k;
  std::span<const uint8_t> words; // (rows, k); rows of 4-bit codes start at whole bytes
};
/// From dense values, for units without scales: rounded to the unit's element format (nearest even; FP8 and
/// narrower saturate) unless they are of that format already. Throws Error for a unit with scales or when
/// sizes do not fit.
[[nodiscard]] GemmOperand make_operand(const Unit &unit, Side side, const DenseView &dense);

/// Raw codes of the unit's element format: rows of ceil(k * bits / 8) bytes.
struct RawCodes {
  int64_t rows, k;
  std::span<const uint8_t> codes;
};
/// Block scales as they lie in memory, (rows, ceil(k / block)) of scale_bytes() each. Bytes cannot tell their layout: it is the
/// caller's word.
struct RawScales {
  std::span<const uint8_t> scales;
  ScaleLayout layout = ScaleLayout::linear;

  RawScales() = default; ///< of a unit without scales
  RawScales(std::span<const uint8_t> bytes, ScaleLayout how) : scales(bytes), layout(how) {}
};
/// From raw codes. Nothing is known of rotation and global scales: set them where there are any. Throws Error
/// when the sizes do not fit.
[[nodiscard]] GemmOperand make_operand(const Unit &unit, Side side, const RawCodes &raw,
                                       const RawScales &scales = {});

/// Throws Error unless both operands are sealed, made for this unit, of equal logical K and rotated alike.
void check_operands(const Unit &unit, const GemmOperand &a, const GemmOperand &b);

} // namespace nvfp4
