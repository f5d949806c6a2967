// SPDX-License-Identifier: Apache-2.0
// What stochastic draws of a result do around the exact one: error of a draw, bias of their mean, deviation.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace nvfp4::models {

/// Sums over elements; those of several tensors add up. The reference is the exact result e, y a draw, m the draws' mean.
struct Spread {
  double squares = 0;   ///< mean over the draws of |y - e|^2
  double of_mean = 0;   ///< |m - e|^2, which further draws would bring down by `left`
  double variance = 0;  ///< sum over elements of the variance of a draw; 0 for a single draw
  double left = 0;      ///< variance / draws: what of_mean has of it; tensors may have different numbers of draws
  double reference = 0; ///< |e|^2
  double along = 0;     ///< <m, e>
  int64_t not_finite = 0; ///< elements that some draw left not finite; they are in no sum

  void add(const Spread &other);
  // Relative to |e|; NaN where that is 0.
  [[nodiscard]] double error() const;     ///< of one draw
  [[nodiscard]] double bias() const;      ///< of infinitely many draws' mean: sqrt(of_mean - left), at least 0
  [[nodiscard]] double deviation() const; ///< standard deviation of a draw
  [[nodiscard]] double of_average(int64_t count) const; ///< of the mean of so many draws
  /// <m, e> / |e|^2: 1 where the result is as long along the exact one as that; below, it is shrunk.
  [[nodiscard]] double gain() const;
};

/// Takes draws of one tensor one after the other.
class Draws {
public:
  explicit Draws(std::vector<double> exact) : exact_(std::move(exact)), sums_(exact_.size()), squares_(exact_.size()) {}
  void add(std::span<const float> draw);
  [[nodiscard]] Spread spread() const;

private:
  std::vector<double> exact_, sums_, squares_; ///< of y - e
  int64_t draws_ = 0;
};

} // namespace nvfp4::models
