// SPDX-License-Identifier: Apache-2.0
// Reconstructs FP32 values from a block-scaled tensor by the rule of its convention.
#pragma once
#include "nvfp4/emulator/quantize/block_rule.hpp"
#include "nvfp4/emulator/quantize/block_scaled.hpp"

#include <functional>

namespace nvfp4 {

/// The second level of a row: the tensor's, or the row's own. `rule` is that of the tensor's convention.
[[nodiscard]] GlobalScale global_of_row(const BlockScaled &q, const Rule &rule, int64_t row);

struct DequantizeOptions {
  bool undo_hadamard = true; ///< rotate back a rotated tensor, in FP32, one rounding per value
  int threads = 0;           ///< 0: all that OpenMP offers
  std::function<void(double)> progress = {}; ///< gets the fraction done; what it throws ends the work
};

/// Values in the orientation of the tensor that was quantized: (rows, k) for Axis::row, (k, rows) for
/// Axis::col; the padding is left out. Throws Error when sizes do not fit or the tensor lacks what its rule
/// reads. Values are the same words on every machine, but for the sign and payload of a NaN, which are those that its
/// products make.
[[nodiscard]] std::vector<float> dequantize(const BlockScaled &q, const DequantizeOptions &options = {});

} // namespace nvfp4
