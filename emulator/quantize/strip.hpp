// SPDX-License-Identifier: Apache-2.0
// The definition of one block: maximum, scale, codes, for 1 or 16 rows, element by element. The scalar path
// runs it on every block, the vector path where its own arithmetic does not apply. Internal.
#pragma once
#include "nvfp4/emulator/quantize/quantize.hpp"

#include <algorithm>

namespace nvfp4::quant {

inline constexpr int kTile = 16;
inline constexpr int kMaxBlock = 64;

/// Calls add(i, j), sum i += sum j, for the 16 sums of a tile's rows as a tree; the total is sum 0.
template <class Add> void add_rows_as_tree(Add add) {
  for (int half = kTile / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) add(i, i + half);
}

/// One strip of 1 or 16 rows of the output: everything that a block needs to know about its surroundings.
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

  /// Codes of one candidate scale, and their error where four-over-six asks for it.
  float encode(const float (&values)[kTile][kMaxBlock], int64_t first, int width, const BlockScale &scale,
               uint8_t (&codes)[kTile][kMaxBlock]) const {
    float sums[kTile] = {};
    for (int r = 0; r < rows; ++r)
      for (int i = 0; i < width; ++i) {
        const uint32_t bits =
            options.rounding == ElementRounding::nearest ? 0 : random(first_row + r, first + i);
        codes[r][i] = encode_element(rule, values[r][i], element_scale(rule, scale, i), options.rounding, bits);
        if (rule.four_over_six != FourOverSix::off)
          sums[r] = add_error(rule, sums[r], codes[r][i], values[r][i], scale, global.amax);
      }
    if (out.block_rows > 1) add_rows_as_tree([&](int i, int j) { sums[i] = sums[i] + sums[j]; });
    return sums[0];
  }

  /// Block b of the strip; x[r] points at its first value in row r.
  void quantize_block(int64_t b, const float *const *x) const {
    const int64_t first = b * rule.block;
    const int width = int(std::min<int64_t>(rule.block, out.k - first));
    float values[kTile][kMaxBlock];
    Amax amax;
    for (int r = 0; r < rows; ++r)
      for (int i = 0; i < width; ++i) {
        values[r][i] = x[r][i];
        amax.add(values[r][i]);
      }
    const float bmax = amax.value(rule.amax_nan);
    uint8_t codes[kTile][kMaxBlock] = {};
    BlockScale scale = with_exponents(rule, block_scale(rule, bmax, global, options.source), values[0], width);
    const float error = encode(values, first, width, scale, codes);
    if (rule.four_over_six != FourOverSix::off) {
      uint8_t others[kTile][kMaxBlock] = {};
      const BlockScale second = block_scale(rule, bmax, global, options.source, true);
      if (encode(values, first, width, second, others) < error) {
        scale = second;
        std::copy_n(&others[0][0], kTile * kMaxBlock, &codes[0][0]);
      }
    }
    for (int r = 0; r < rows; ++r) store(first_row + r, b, scale.code, codes[r]);
  }

  void store(int64_t r, int64_t b, uint32_t scale, const uint8_t (&codes)[kMaxBlock]) const {
    out.set_scale(r, b, scale);
    const bool nibbles = format(rule.element).storage_bits == 4;
    uint8_t *const to = out.codes.data() + r * out.row_bytes() + b * rule.block / (nibbles ? 2 : 1);
    if (nibbles)
      for (int i = 0; i < rule.block; i += 2) to[i / 2] = uint8_t(codes[i] | codes[i + 1] << 4);
    else
      std::copy_n(codes, rule.block, to);
  }
};

} // namespace nvfp4::quant
