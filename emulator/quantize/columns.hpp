// SPDX-License-Identifier: Apache-2.0
// Blocks that are columns of the matrix, taken as they stand: tiles of one block's rows by 16 columns, their
// random bits, and the codes on their way to the rows of the output. Knows nothing of conventions. Internal.
#pragma once
#include "nvfp4/emulator/quantize/block_scaled.hpp"
#include "nvfp4/emulator/quantize/kernels.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"

namespace nvfp4::quant {

inline constexpr int kBandColumns = 256; ///< of the matrix that are worked on together
inline constexpr int kBandTiles = kBandColumns / kGroup;
inline constexpr int kColumnRows = 32; ///< of the longest block

/// A thread's memory. A band is kGroup blocks of rows by kBandColumns columns.
struct ColumnBand {
  int64_t row = 0, rows = 0;   ///< of the matrix, in the band
  int64_t column = 0, columns = 0;

  /// Tile t of the block that was loaded: (block, kGroup), +0 where the matrix ends.
  alignas(64) float tiles[kBandTiles][kColumnRows * kGroup];
  alignas(64) uint32_t amax[kBandTiles][kGroup];
  /// The random bits of the block's rows: (block, kBandColumns), of as many bytes as each element has.
  alignas(64) uint8_t random[kColumnRows * kBandColumns * 4];

  alignas(64) uint32_t codes[kColumnRows / 4 * kGroup][kBandColumns]; ///< words of EncodeColumns
  alignas(64) uint8_t scales[kGroup][kBandColumns];
  uint32_t again[kGroup][kBandTiles]; ///< a bit for each column that the definition must redo
};

class ColumnSource {
public:
  ColumnSource(MatrixView<const float> x, const Rule &rule, const QuantizeOptions &options, const Kernels &kernels)
      : x_(x), options_(options), kernels_(kernels), block_(rule.block), element_(rule.element) {}

  /// Bands down and across the matrix.
  [[nodiscard]] int64_t down() const { return (x_.rows + kGroup * block_ - 1) / (kGroup * block_); }
  [[nodiscard]] int64_t across() const { return (x_.cols + kBandColumns - 1) / kBandColumns; }

  void place(int64_t down, int64_t across, ColumnBand &band) const;
  [[nodiscard]] int blocks(const ColumnBand &band) const { return int((band.rows + block_ - 1) / block_); }
  [[nodiscard]] int tiles(const ColumnBand &band) const { return int((band.columns + kGroup - 1) / kGroup); }

  /// The tiles of block b of the band and their maxima.
  void load(int b, ColumnBand &band) const;
  /// Its random bits, for stochastic rounding.
  void load_random(int b, ColumnBand &band) const;
  /// Asks for the memory of a share of the band's rows of the output, as many as block b is of its blocks: each is in
  /// a page of its own.
  void ask_for_output(int b, const ColumnBand &band, const BlockScaled &out) const;
  /// Codes and scales to where they belong in the output.
  void store(const ColumnBand &band, BlockScaled &out) const;

private:
  void rotate(const float *x, int tiles, float *to) const;
  void rotate_turned(const float *x, int64_t stride, float *to) const;
  void copy(int b, int tile, ColumnBand &band) const;

  MatrixView<const float> x_;
  const QuantizeOptions &options_;
  const Kernels &kernels_;
  int block_;
  FormatId element_;
};

} // namespace nvfp4::quant
