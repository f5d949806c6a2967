// SPDX-License-Identifier: Apache-2.0
// What the kernels read: up to 16 output rows by 16 blocks of a matrix that may have to be transposed,
// rotated or padded, and the random bits that belong to it. Knows nothing of conventions. Internal.
#pragma once
#include "nvfp4/emulator/quantize/kernels.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"

namespace nvfp4::quant {

inline constexpr int kPanelRows = 16;
inline constexpr int kMaxGroupWidth = kGroup * 32; // elements of 16 blocks
inline constexpr int kBufferRow = kMaxGroupWidth + 16;
inline constexpr int kStrips = 4; // of columns that are read at once: whole lines of every row
inline constexpr int kRandomRow = 4 * kMaxGroupWidth + 256;

/// Elements of one Philox block and bytes of one element.
struct RandomUnit {
  int elements, bytes;
};
[[nodiscard]] inline RandomUnit random_unit(const QuantizeOptions &o) {
  return o.rounding == ElementRounding::sr_exact ? RandomUnit{4, 4} : RandomUnit{16, 1};
}

/// rotate16 on `groups` groups (at most 32), by the definition where the kernels leave one.
void rotate_groups(const Kernels &kernels, const float *x, int groups, uint16_t signs, float *rotated);

struct Panel {
  int64_t first_row = 0; ///< of the output
  int rows = 0;
  int64_t first = 0; ///< element along k
  int width = 0;     ///< elements that exist; the rest of the group is +0
  const float *x[kPanelRows];
  const uint8_t *random[kPanelRows]; ///< as Encode reads them

  alignas(64) float buffer[kStrips * kPanelRows * kBufferRow];
  int64_t held_row = -1, held_first = -1; ///< the strips of columns in it: the first row, the element along k
  alignas(64) uint8_t noise[kPanelRows * kRandomRow];
};

/// How the output is cut. A dense matrix of whole blocks is one long row: no block sees a row's end.
struct PanelShape {
  int64_t rows = 0, k = 0;
  bool flat = false;
  int strip = 1; ///< rows of a panel
  int group = 0; ///< elements along k of a panel

  [[nodiscard]] int64_t strips() const { return (rows + strip - 1) / strip; }
  [[nodiscard]] int64_t panels() const { return (k + group - 1) / group; } ///< of a strip
};

/// In which order panels are visited: along a strip, or, where rows of the output are columns in memory,
/// across the strips, so that neighbours in memory follow each other.
struct PanelWalk {
  int64_t strips, panels;
  bool across;

  [[nodiscard]] int64_t lines() const { return across ? panels : strips; }
  [[nodiscard]] int64_t length() const { return across ? strips : panels; }
};

class PanelSource {
public:
  PanelSource(MatrixView<const float> x, const Rule &rule, const QuantizeOptions &options,
              const Kernels &kernels);
  [[nodiscard]] const PanelShape &shape() const { return shape_; }

  [[nodiscard]] PanelWalk walk() const {
    return {shape_.strips(), shape_.panels(), options_.axis == Axis::col};
  }

  /// Values only, without random bits.
  void load(int64_t strip, int64_t index, Panel &panel) const;
  void load(const PanelWalk &walk, int64_t line, int64_t at, Panel &panel) const {
    load(walk.across ? at : line, walk.across ? line : at, panel);
  }
  /// The largest of the rotated panel that load() would give, without the panel where that can be.
  [[nodiscard]] Amax rotated_maximum(int64_t strip, int64_t index, Panel &panel) const;
  /// The same of the values that rows [first, first + 16) of the input give down its columns.
  [[nodiscard]] Amax rotated_maximum_down(int64_t first) const;
  /// Whether all of the input is in rows for rotated_maximum_down().
  [[nodiscard]] bool rotates_down() const {
    return options_.hadamard && options_.axis == Axis::col && x_.rows % kHadamardSize == 0 &&
           x_.cols % kHadamardSize == 0;
  }
  /// The largest of n floats.
  [[nodiscard]] Amax maximum_of(const float *x, int64_t n) const;
  /// The random bits of a panel that was loaded.
  void load_random(Panel &panel) const;

private:
  [[nodiscard]] Amax rotated_maximum_down(const float *x, int tiles) const;
  void load_row(int r, Panel &panel) const;
  void load_transposed(Panel &panel) const;
  void hold_strips(int64_t first_row, Panel &panel) const;
  void turn_tiles(int64_t first_row, int tiles, int i, Panel &panel) const;
  void random_row(int r, Panel &panel) const;
  void random_columns(Panel &panel) const;
  void random_transposed(int i, Panel &panel) const;
  void rotate(const float *x, int groups, float *rotated) const {
    rotate_groups(kernels_, x, groups, options_.sign_mask, rotated);
  }

  MatrixView<const float> x_;
  const QuantizeOptions &options_;
  const Kernels &kernels_;
  PanelShape shape_;
  int strips_ = 1; ///< of columns that are read at once
};

} // namespace nvfp4::quant
