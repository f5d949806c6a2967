// SPDX-License-Identifier: Apache-2.0
// When the FDPA kernels give the definition's bits, on the exponents of operands' rows. The proof is in
// README.md. Not for files of one instruction set: these functions are inline. Internal.
#pragma once
#include "nvfp4/emulator/gemm/fdpa_kernels.hpp"
#include "nvfp4/emulator/gemm/row_range.hpp"

#include <algorithm>

namespace nvfp4::gemm {

/// Products are at most 2^(kHighest + 2): sums of any length here stay far below 2^127.
inline constexpr int kHighest = 80;

/// Whether the kernels give the bits of an output: products exact in FP32, alignment at or above
/// kAlignmentFloor.
[[nodiscard]] inline bool vouched(const RowRange &x, const RowRange &y) {
  if (x.special || y.special || x.scale_nan || y.scale_nan) return false;
  return x.empty() || y.empty() || (x.min + y.min >= kAlignmentFloor && x.max + y.max <= kHighest);
}

/// The same for the accumulator that a chain continues: the kernels never align below 2^(kAlignmentFloor -
/// F), so what is smaller than a normal sum there, or near overflow, is left to the definition.
[[nodiscard]] inline bool start_vouched(uint32_t start) {
  const uint32_t magnitude = start & 0x7FFFFFFF;
  return magnitude == 0 || (magnitude >= uint32_t(127 - 100) << 23 && magnitude < uint32_t(127 + 100) << 23);
}

inline void merge(RowRange &into, const RowRange &r) {
  into.min = std::min(into.min, r.min);
  into.max = std::max(into.max, r.max);
  into.special = into.special || r.special;
  into.scale_nan = into.scale_nan || r.scale_nan;
}

} // namespace nvfp4::gemm
