// SPDX-License-Identifier: Apache-2.0
// What a quantization did to a tensor: what was not finite, which scales and elements hit the ends of their
// formats, and the noise. Counts only; nothing here decides a bit.
#pragma once
#include "nvfp4/emulator/quantize/quantize.hpp"

#include <vector>

namespace nvfp4 {

/// Of a whole tensor or of one of its block rows (1 row, or block_rows of them for tiles).
struct QuantizeStatistics {
  int64_t elements = 0;
  int64_t nan = 0;             ///< NaN among the input, before a rotation
  int64_t infinity = 0;        ///< Inf among the input
  int64_t blocks = 0;          ///< blocks that share a scale; a tile is one
  int64_t zero_blocks = 0;     ///< blocks of zeros only
  int64_t scale_underflow = 0; ///< scales of value 0 although the block holds a number that is not 0
  int64_t scale_saturated = 0; ///< scales that are the format's largest number
  int64_t scale_nan = 0;       ///< scales that are NaN
  int64_t saturated = 0;       ///< finite elements beyond what the largest code stands for in their block
  int64_t flushed = 0;         ///< finite elements that are not 0 and whose reconstruction is
  double signal = 0.0;         ///< sum of x^2 over the elements with a finite x and a finite reconstruction
  double noise = 0.0;          ///< sum of (x - reconstruction)^2 over the same
  int64_t left_out = 0;        ///< elements that these two sums leave out

  void merge(const QuantizeStatistics &other);
  /// 10 log10(signal / noise) in dB; +Inf without noise, NaN where there is neither.
  [[nodiscard]] double snr_db() const;
  /// Whether a finite input became a NaN scale.
  [[nodiscard]] bool made_nan() const { return scale_nan > 0 && nan == 0 && infinity == 0; }
};

/// Per block row of q, which quantize(x, ..., options) gave; `progress` as in QuantizeOptions. Sums run in
/// the order of the elements, so that they depend on nothing but the arguments. Throws Error where q is not
/// of the shape of x.
[[nodiscard]] std::vector<QuantizeStatistics>
quantize_statistics(MatrixView<const float> x, const BlockScaled &q, int threads = 0,
                    const std::function<void(double)> &progress = {});

/// All of them together.
[[nodiscard]] QuantizeStatistics total(std::span<const QuantizeStatistics> rows);

} // namespace nvfp4
