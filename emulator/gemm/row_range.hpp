// SPDX-License-Identifier: Apache-2.0
// What the engine must know of an operand's row before it may take a shortcut: the range of its exponents and
// whether it holds NaN or Inf. Computed once, at packing.
#pragma once
#include <cstdint>

namespace nvfp4 {

struct GemmOperand;
struct UnitRule;

/// Exponents of one row. For FP4: of the scales, over groups of 16 that hold a non-zero code under a non-zero
/// scale. Otherwise: exponent fields of the non-zero finite elements, plus their scale's exponent where there
/// are scales. A row without any has min > max.
struct RowRange {
  int16_t min = 0x3FFF;
  int16_t max = -0x3FFF;
  bool special = false;   ///< an element is NaN or Inf
  bool scale_nan = false; ///< a scale is NaN
  bool idle_scales = false; ///< FP4: a group of zeros has a scale above `max`

  [[nodiscard]] bool empty() const { return min > max; }
};

/// The range of one row of a packed operand.
[[nodiscard]] RowRange row_range(const UnitRule &rule, const GemmOperand &operand, int64_t row);

} // namespace nvfp4
