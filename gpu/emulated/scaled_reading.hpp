// SPDX-License-Identifier: Apache-2.0
// A block-scaled tensor as kernels read it, in the loops of emulator/quantize/dequantize.cpp: the GPU's text,
// tested on the CPU.
#pragma once
#include "nvfp4/emulator/formats/code_view.hpp"
#include "nvfp4/emulator/quantize/block_rule.hpp"
#include "nvfp4/emulator/quantize/hadamard.hpp"
#include "nvfp4/emulator/quantize/scale_layout.hpp"

namespace nvfp4::cuda {

struct ScaledReading {
  Rule rule;
  int64_t rows, k, padded_k;
  bool tiled_scales, transposed, rotated, per_row;
  uint16_t signs;
  const uint8_t *codes, *scales;
  const GlobalScale *globals; ///< one, or (rows)

  [[nodiscard]] NVFP4_HD int64_t scale_cols() const { return padded_k / rule.block * scale_bytes(rule.scale); }
  /// Where a byte of a row's scales lies.
  [[nodiscard]] NVFP4_HD int64_t scale_at(int64_t r, int64_t byte) const {
    return tiled_scales ? scale_offset_128x4(r, byte, scale_cols()) : r * scale_cols() + byte;
  }
  [[nodiscard]] NVFP4_HD uint32_t scale(int64_t r, int64_t b) const {
    return read_scale(rule.scale, scales + scale_at(r, b * scale_bytes(rule.scale)), 0);
  }
  /// Groups of 16 elements of all rows, the last of a row perhaps shorter.
  [[nodiscard]] NVFP4_HD int64_t groups() const { return rows * row_groups(); }
  [[nodiscard]] NVFP4_HD int64_t row_groups() const { return (k + kHadamardSize - 1) / kHadamardSize; }

  /// Writes the values of group t of groups() to `out`, (rows, k), or (k, rows) of a transposed tensor.
  /// Groups with following numbers write side by side: along a row, or down the rows.
  NVFP4_HD void write_group(int64_t t, float *out) const {
    const int64_t r = transposed ? t % rows : t / row_groups(),
                  first = (transposed ? t / rows : t % row_groups()) * kHadamardSize;
    const GlobalScale global = globals[per_row ? r : 0];
    const int bits = format(rule.element).storage_bits;
    const CodeView row{codes + r * padded_k * bits / 8, bits};
    const int width = k - first < kHadamardSize ? int(k - first) : kHadamardSize;
    float values[kHadamardSize] = {};
    for (int i = 0; i < width; ++i)
      values[i] = decode_element(rule, uint32_t(row[first + i]), scale(r, (first + i) / rule.block),
                                 int((first + i) % rule.block), global);
    if (rotated) rotate16_back(values, signs);
    for (int i = 0; i < width; ++i) out[transposed ? (first + i) * rows + r : r * k + first + i] = values[i];
  }
};

} // namespace nvfp4::cuda
