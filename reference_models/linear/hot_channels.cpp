// SPDX-License-Identifier: Apache-2.0
// Selection with a fixed order among equals.
#include "nvfp4/reference_models/linear/hot_channels.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace nvfp4::models {

std::vector<int32_t> largest_channels(std::span<const float> scores, int64_t k) {
  std::vector<int32_t> order(scores.size());
  std::iota(order.begin(), order.end(), 0);
  const auto count = std::min(k, int64_t(scores.size()));
  const auto weight = [&](int32_t j) {
    const float s = scores[size_t(j)];
    return s == s ? s : -INFINITY;
  };
  std::partial_sort(order.begin(), order.begin() + count, order.end(), [&](int32_t a, int32_t b) {
    return weight(a) != weight(b) ? weight(a) > weight(b) : a < b;
  });
  order.resize(size_t(count));
  return order;
}

std::vector<int32_t> largest_blocks(std::span<const float> scores, int64_t k) {
  std::vector<float> sums(scores.size() / 16, 0.0f);
  for (size_t b = 0; b < sums.size(); ++b)
    for (size_t i = 0; i < 16; ++i) sums[b] += scores[16 * b + i];
  std::vector<int32_t> channels;
  for (const int32_t block : largest_channels(sums, k / 16))
    for (int32_t i = 0; i < 16; ++i) channels.push_back(16 * block + i);
  return channels;
}

bool choice_is_due(const HcpRecipe &recipe, int64_t step) {
  return recipe.enabled && step >= recipe.start && (step - recipe.start) % recipe.period == 0;
}

} // namespace nvfp4::models
