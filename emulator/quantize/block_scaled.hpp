// SPDX-License-Identifier: Apache-2.0
// A block-scaled tensor: element codes, block scales, global scale, and what is needed to read them. Plain
// data.
#pragma once
#include "nvfp4/emulator/formats/code_view.hpp"
#include "nvfp4/emulator/formats/block_codes.hpp"
#include "nvfp4/emulator/quantize/scale_layout.hpp"

#include <string>
#include <vector>

namespace nvfp4 {

/// Along which axis of the input the blocks lie.
enum class Axis : uint8_t {
  row, ///< along a row: the "rowwise" copy, (rows, k) = (input rows, input columns)
  col, ///< along a column: the "columnwise" copy, stored transposed: (rows, k) = (input columns, input rows)
};
[[nodiscard]] constexpr auto names_of(Axis) { return enum_names("axis", "row", "col"); }
static_assert(names_of(Axis{}).end_with(Axis::col));

struct BlockScaled {
  std::string convention = {}; ///< name of the row in conventions()
  FormatId element = FormatId::e2m1;
  FormatId scale = FormatId::ue4m3;
  int block = 16;     ///< elements along k that share a scale
  int block_rows = 1; ///< rows that share a scale: 1, or 16 (128) for tiles; each row has its own copy of the scale
  int64_t rows = 0;
  int64_t k = 0;        ///< logical length of a row
  int64_t padded_k = 0; ///< multiple of `block`; the codes of the padding are 0
  Axis axis = Axis::row;
  FormatId source = FormatId::f32; ///< type of the tensor that was quantized
  ScaleLayout layout = ScaleLayout::linear;
  std::vector<uint8_t> codes =
      {}; // (rows, padded_k): FP4 two to a byte, even k in the low nibble; others one byte each, 16 bits two, the low one first
  std::vector<uint8_t> scales = {}; // (rows, scale_cols()), or the same in 128x4 tiles

  float global_amax =
      0.0f; ///< max |x| of what was quantized (after rotation); NaN where the scale was given instead
  float global_encode = 1.0f; ///< S; 1 where the convention has none
  float global_decode = 1.0f; ///< 1 / S, or p; 1 where the convention has none
  std::vector<float> row_amax =
      {};                 // (rows), only for per-row global scales; the three above are then not used
  bool hadamard = false;  ///< the values are rotated along k in groups of 16
  uint16_t sign_mask = 0; ///< of the rotation

  /// Blocks of a row.
  [[nodiscard]] int64_t blocks() const { return padded_k / block; }
  /// Bytes of the scales of a row: one a block, four of HiFloat4.
  [[nodiscard]] int64_t scale_cols() const { return blocks() * scale_bytes(scale); }
  [[nodiscard]] int64_t row_bytes() const { return padded_k * format(element).storage_bits / 8; }
  [[nodiscard]] CodeView row(int64_t r) const {
    return {codes.data() + r * row_bytes(), format(element).storage_bits};
  }
  /// The code of an element of at most 8 bits, and of any.
  [[nodiscard]] uint8_t code(int64_t r, int64_t i) const { return uint8_t(row(r)[i]); }
  [[nodiscard]] uint16_t code_word(int64_t r, int64_t i) const { return uint16_t(row(r)[i]); }
  /// Where a byte of a row's scales lies.
  [[nodiscard]] int64_t scale_at(int64_t r, int64_t byte) const {
    return layout == ScaleLayout::linear ? r * scale_cols() + byte : scale_offset_128x4(r, byte, scale_cols());
  }
  /// The scale of block b of row r, in either layout: its word.
  [[nodiscard]] uint32_t scale_code(int64_t r, int64_t b) const {
    const int bytes = scale_bytes(scale); // four lie side by side in a tile too
    return read_scale(scale, scales.data() + scale_at(r, b * bytes), 0);
  }
  void set_scale(int64_t r, int64_t b, uint32_t word) {
    const int bytes = scale_bytes(scale);
    for (int i = 0; i < bytes; ++i) scales[size_t(scale_at(r, b * bytes + i))] = scale_byte(word, i);
  }
};

} // namespace nvfp4
