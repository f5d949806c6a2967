// SPDX-License-Identifier: Apache-2.0
// The definition of one block: maximum, scale, codes, for 1 or 16 rows, element by element. The scalar path
// runs it on every block, the vector path where its own arithmetic does not apply. Internal.
#pragma once
#include "nvfp4/emulator/quantize/quantize.hpp"

#include <algorithm>

namespace nvfp4::quant {

inline constexpr int kTile = 16;
inline constexpr int kMaxBlock = 128;
inline constexpr int kMaxRows = 128; ///< of a tile

/// Calls add(i, j), sum i += sum j, for the 16 sums of a tile's rows as a tree; the total is sum 0.
template <class Add> void add_rows_as_tree(Add add) {
  for (int half = kTile / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) add(i, i + half);
}

/// One strip of the output, 1 row or those of a tile: everything that a block needs to know about its surroundings.
struct Strip {
  const Rule &rule;
  const QuantizeOptions &options;
  const GlobalScale &global;
  BlockScaled &out;
  int64_t first_row;
  int rows;

  [[nodiscard]] uint32_t random(int64_t r, int64_t i) const {
    const int64_t index = options.axis == Axis::row ? r * out.k + i : i * out.rows + r;
    if (options.rounding == ElementRounding::sr_exact) return options.key.bits32(uint64_t(index));
    return options.key.bits8(uint64_t(index));
  }

  /// The code of x, element i of row r of the block that starts at `first`.
  [[nodiscard]] uint16_t code(int r, int64_t first, int i, float x, const BlockScale &scale) const {
    const uint32_t bits = options.rounding == ElementRounding::nearest ? 0 : random(first_row + r, first + i);
    return encode_element_word(rule, x, element_scale(rule, scale, i), options.rounding, bits);
  }

  /// The error of a candidate scale.
  [[nodiscard]] float error(const float *const *x, int64_t first, int width, const BlockScale &scale) const {
    float sums[kTile] = {};
    for (int r = 0; r < rows; ++r)
      for (int i = 0; i < width; ++i)
        sums[r] = add_error(rule, sums[r], uint8_t(code(r, first, i, x[r][i], scale)), x[r][i], scale, global.amax);
    if (out.block_rows > 1) add_rows_as_tree([&](int i, int j) { sums[i] = sums[i] + sums[j]; });
    return sums[0];
  }

  /// The level of the part of a row that block b lies in; x points at the block.
  [[nodiscard]] GlobalScale level_of_part(const float *x, int64_t first) const {
    const int64_t from = first / rule.outer_block * rule.outer_block;
    Amax amax;
    for (int64_t i = from; i < std::min(out.k, from + rule.outer_block); ++i) amax.add(x[i - first]);
    return global_from_amax(rule, amax.value(rule.amax_nan), options.source);
  }

  /// Block b of the strip; x[r] points at its first value in row r, within the whole row.
  void quantize_block(int64_t b, const float *const *x) const {
    const int64_t first = b * rule.block;
    const int width = int(std::min<int64_t>(rule.block, out.k - first));
    Amax amax;
    for (int r = 0; r < rows; ++r)
      for (int i = 0; i < width; ++i) amax.add(x[r][i]);
    const float bmax = amax.value(rule.amax_nan);
    const GlobalScale level = rule.outer_block == 0 ? global : level_of_part(x[0], first);
    BlockScale scale = with_exponents(rule, block_scale(rule, bmax, level, options.source), x[0], width);
    if (rule.four_over_six != FourOverSix::off) {
      const BlockScale second = block_scale(rule, bmax, level, options.source, true);
      if (error(x, first, width, second) < error(x, first, width, scale)) scale = second;
    }
    for (int r = 0; r < rows; ++r) {
      uint16_t codes[kMaxBlock] = {};
      for (int i = 0; i < width; ++i) codes[i] = code(r, first, i, x[r][i], scale);
      store(first_row + r, b, scale.code, codes);
    }
  }

  void store(int64_t r, int64_t b, uint32_t scale, const uint16_t (&codes)[kMaxBlock]) const {
    out.set_scale(r, b, scale);
    const int bits = format(rule.element).storage_bits;
    uint8_t *const to = out.codes.data() + r * out.row_bytes() + b * rule.block * bits / 8;
    for (int i = 0; i < rule.block; ++i) {
      if (bits == 4 && i % 2 == 0) to[i / 2] = uint8_t(codes[i] | codes[i + 1] << 4);
      if (bits == 8) to[i] = uint8_t(codes[i]);
      if (bits == 16) to[2 * i] = uint8_t(codes[i]), to[2 * i + 1] = uint8_t(codes[i] >> 8);
    }
  }
};

} // namespace nvfp4::quant
