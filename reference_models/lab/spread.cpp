// SPDX-License-Identifier: Apache-2.0
// Sums of differences from the exact result, which are small, so that their squares cancel less.
#include "nvfp4/reference_models/lab/spread.hpp"

#include "nvfp4/emulator/config.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::models {

void Spread::add(const Spread &o) {
  squares += o.squares;
  of_mean += o.of_mean;
  variance += o.variance;
  reference += o.reference;
  along += o.along;
  left += o.left;
  not_finite += o.not_finite;
}

double Spread::error() const { return std::sqrt(squares / reference); }
double Spread::bias() const {
  return std::sqrt(std::max(0.0, of_mean - left) / reference);
}
double Spread::of_average(int64_t count) const {
  return std::sqrt(std::max(0.0, of_mean - left + variance / double(count)) / reference);
}
double Spread::deviation() const { return std::sqrt(variance / reference); }
double Spread::gain() const { return along / reference; }

void Draws::add(std::span<const float> draw) {
  if (draw.size() != exact_.size())
    throw Error("expected a draw of " + std::to_string(exact_.size()) + " elements, got " + std::to_string(draw.size()));
  for (size_t i = 0; i < exact_.size(); ++i) {
    const double d = double(draw[i]) - exact_[i];
    sums_[i] += d;
    squares_[i] += d * d;
  }
  ++draws_;
}

Spread Draws::spread() const {
  Spread s;
  if (draws_ == 0) return s;
  const auto n = double(draws_);
  for (size_t i = 0; i < exact_.size(); ++i) {
    if (!std::isfinite(squares_[i]) || !std::isfinite(exact_[i])) {
      ++s.not_finite;
      continue;
    }
    const double mean = sums_[i] / n;
    s.squares += squares_[i] / n;
    s.of_mean += mean * mean;
    if (draws_ > 1) s.variance += std::max(0.0, squares_[i] - n * mean * mean) / (n - 1);
    s.reference += exact_[i] * exact_[i];
    s.along += (mean + exact_[i]) * exact_[i];
  }
  s.left = s.variance / n;
  return s;
}

} // namespace nvfp4::models
