// SPDX-License-Identifier: Apache-2.0
// Two matrices of the same floating-point type, word by word: how many differ, where, and by how much.
#pragma once
#include "nvfp4/emulator/formats/format.hpp"

#include <array>
#include <cstdint>
#include <functional>
#include <span>
#include <string>

namespace nvfp4::diagnosis {

/// Distances in units in the last place: neighbouring values are 1 apart, across zero too; +0 and -0 are 0
/// apart.
struct Comparison {
  int64_t total = 0, differing = 0;
  int64_t first = -1; ///< row-major index of the first differing word, -1 when equal
  uint64_t first_got = 0, first_want = 0;
  int64_t rows_hit = 0, cols_hit = 0; ///< rows and columns with a differing word
  uint64_t max_ulp = 0;               ///< over pairs of finite values
  int64_t max_ulp_at = -1;
  double mean_ulp = 0;     ///< over differing pairs of finite values; NaN where there is none
  double max_relative = 0; ///< |got - want| / |want| over finite pairs with want != 0; NaN where there is none
  int64_t finite_pairs = 0; ///< both values finite; the others are left out of all distances
  double distance = 0; ///< sqrt(sum (got - want)^2 / sum want^2) over finite pairs; NaN where there is none
  int64_t zero_signs = 0;  ///< +0 against -0
  int64_t nan_same = 0;    ///< both NaN, the same bits: equal words
  int64_t nan_words = 0;   ///< both NaN, other bits
  int64_t nan_got = 0;     ///< NaN where a number or Inf is wanted
  int64_t nan_missing = 0; ///< the reverse
  int64_t infinities = 0;  ///< Inf against a finite value or the other Inf
  /// Finite differing pairs by distance: [0] 0 (signs of zero), [1] 1, [2] 2, [3] 3-4, [4] 5-8, ... doubling;
  /// the last one takes all that is larger.
  static constexpr int kBins = 20;
  std::array<int64_t, kBins> bins{};

  [[nodiscard]] bool equal() const { return differing == 0; }
};

/// got and want: (rows, cols) words of `type`, any but tf32 and e8m13; 4-bit codes two to a byte, which needs
/// an even number of them. An unsigned format's unused top bit makes words differ, not values. `progress`
/// gets the fraction done; what it throws ends the work.
[[nodiscard]] Comparison compare(FormatId type, int64_t rows, int64_t cols, std::span<const uint8_t> got,
                                 std::span<const uint8_t> want,
                                 const std::function<void(double)> &progress = {});

/// "1", "2", "3-4", "5-8", ... the range of a bin.
[[nodiscard]] std::string bin_text(int bin);

} // namespace nvfp4::diagnosis
