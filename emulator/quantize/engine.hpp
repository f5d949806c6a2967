// SPDX-License-Identifier: Apache-2.0
// The vector path of quantize(): the same bits as strip.hpp, 16 blocks at a time. README.md explains it.
// Internal.
#pragma once
#include "nvfp4/emulator/quantize/columns.hpp"
#include "nvfp4/emulator/quantize/panel.hpp"

namespace nvfp4::quant {

/// One call of quantize() on the kernels of one instruction set.
class Engine {
public:
  Engine(MatrixView<const float> x, const Rule &rule, const QuantizeOptions &options, int threads);

  /// Whether this rule and these options have kernels here. If not, nothing else may be called.
  [[nodiscard]] bool covers() const { return encode_ != nullptr; }

  /// Whether run() takes blocks as columns of the matrix as they stand, and not as rows of panels.
  [[nodiscard]] bool in_columns() const {
    return covers() && options_.axis == Axis::col && options_.block_rows == 1 && !rule_.per_row;
  }

  /// Over the tensor, after rotation.
  [[nodiscard]] Amax maximum() const;

  /// Fills codes and scales of `out`, whose vectors have their sizes; for row scales row_amax as well.
  void run(const GlobalScale &global, BlockScaled &out) const;

private:
  /// A global scale and what the kernels want to know about it.
  struct Level {
    GlobalScale global;
    ScaleSteps steps;
    bool usable;
  };
  [[nodiscard]] Level level(const GlobalScale &global) const;
  void row_levels(const PanelSource &source, int64_t strip, Panel &panel, Level *levels,
                  BlockScaled &out) const;
  /// Scale codes and factors for kGroup maxima; blocks to redo. errors_of(weigh, factors, values, sums) adds up the
  /// errors of a candidate of four-over-six.
  template <class ErrorsOf>
  uint32_t choose_scales(const Level &level, const uint32_t *words, float *factors, uint8_t *scales,
                         ErrorsOf errors_of) const;
  /// The same for row r of a panel and the rows below it that share their scales.
  uint32_t choose_scales(const Panel &panel, int r, int rows, const Level &level, const uint32_t *words,
                         float *factors, uint8_t *scales) const;
  void quantize_rows(const Panel &panel, const Level *own, const Level &shared, BlockScaled &out) const;
  void quantize_tiles(const Panel &panel, const Level &level, BlockScaled &out) const;
  void store_row(const Panel &panel, int r, const float *factors, const uint8_t *scales,
                 BlockScaled &out) const;
  void run_columns(const Level &level, BlockScaled &out) const;
  void quantize_band(const ColumnSource &source, const Level &level, ColumnBand &band, BlockScaled &out) const;
  void redo_columns(const ColumnSource &source, const Level &level, ColumnBand &band, BlockScaled &out) const;
  /// By the definition: `rows` rows from r on, one bit per block.
  void redo(const Panel &panel, int r, int rows, uint32_t blocks, const GlobalScale &global,
            BlockScaled &out) const;

  MatrixView<const float> x_;
  const Rule &rule_;
  const QuantizeOptions &options_;
  int threads_;
  const Kernels *kernels_ = nullptr;
  Encode encode_ = nullptr;
  EncodeColumns encode_columns_ = nullptr;
};

} // namespace nvfp4::quant
