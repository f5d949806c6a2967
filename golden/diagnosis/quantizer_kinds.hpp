// SPDX-License-Identifier: Apache-2.0
// What kind of difference each code and each scale is. Internal.
#pragma once
#include "nvfp4/golden/diagnosis/quantizer_making.hpp"

namespace nvfp4::diagnosis {

struct KindsOfDifference {
  std::vector<QuantizerKind> kinds; ///< those that occur
  std::optional<QuantizerDifference> first_code, first_scale;
  int64_t codes = 0, scales = 0;
  /// Every differing code lies under a right scale and is the other of the two codes around its value.
  bool neighbours_only = false;
  std::vector<std::pair<int64_t, int64_t>>
      blocks; ///< some blocks that differ: of each kind, and spread over all
};

/// `want` was made from `x`, which is prepared.
[[nodiscard]] KindsOfDifference kinds_of_difference(const BlockScaled &mine, const BlockScaled &want,
                                                    const Rule &rule, const SourceTensor &x);

} // namespace nvfp4::diagnosis
