// SPDX-License-Identifier: Apache-2.0
// The few statistics that comparing runs takes: means with Student's interval, paired relative gaps,
// smoothing.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace nvfp4::models {

/// Mean of n values with half the width of its 95 % confidence interval, which n = 1 does not have.
struct Estimate {
  int64_t n = 0;
  double mean = 0;                  ///< NaN for n = 0
  std::optional<double> half_width; ///< t(0.975, n - 1) s / sqrt(n)

  /// The interval leaves out 0. False without an interval.
  [[nodiscard]] bool excludes_zero() const;
};
[[nodiscard]] Estimate estimate(std::span<const double> values);

/// How many values with this mean and scatter give an interval that leaves out 0, at least as many as there
/// are; nothing for fewer than 2 values, for a mean of 0, and above a million.
[[nodiscard]] std::optional<int64_t> values_to_exclude_zero(const Estimate &e);

/// The quantile of Student's distribution: P(T <= t) = p for 0 < p < 1 and `degrees` >= 1.
[[nodiscard]] double student_t_quantile(double p, double degrees);

/// 100 (loss - baseline) / baseline: the gap of one pair in percent of the baseline.
[[nodiscard]] double relative_gap(double loss, double baseline);

/// Mean over the values at most `reach` places away. At the start only as many as lie before count after, so
/// that a steep start is not shifted; at the end the values before go on counting, so that the last mean is
/// not one value.
[[nodiscard]] std::vector<double> centred_mean(std::span<const double> values, int64_t reach);

} // namespace nvfp4::models
