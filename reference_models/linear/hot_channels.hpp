// SPDX-License-Identifier: Apache-2.0
// Choosing the hot channels from scores.
#pragma once
#include "nvfp4/reference_models/recipe/recipe.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace nvfp4::models {

/// HCP's memory of one product of one layer: the hot channels and when they were chosen.
struct HotChannels {
  std::vector<int32_t> indices = {}; ///< in order of score; empty before the first choice
  std::vector<float> scores = {};    ///< of all channels at the last choice
  int64_t chosen_at = -1;            ///< step
};

/// The k channels of the largest scores, largest first; of equal ones the lower index first; NaN last.
[[nodiscard]] std::vector<int32_t> largest_channels(std::span<const float> scores, int64_t k);
/// The channels of the k / 16 blocks of the largest sums of scores, block after block. A ragged last block is
/// never chosen.
[[nodiscard]] std::vector<int32_t> largest_blocks(std::span<const float> scores, int64_t k);

/// Whether a step chooses anew.
[[nodiscard]] bool choice_is_due(const HcpRecipe &recipe, int64_t step);

} // namespace nvfp4::models
