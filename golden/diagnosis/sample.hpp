// SPDX-License-Identifier: Apache-2.0
// A sample of outputs, and how a computation does on it. Private to diagnose.cpp and pairs.cpp.
#pragma once
#include "nvfp4/golden/diagnosis/compare.hpp"
#include "nvfp4/golden/diagnosis/diagnose.hpp"

namespace nvfp4::diagnosis {

using Words = std::vector<uint8_t>;

/// Outputs rows x cols but those that facts account for.
struct OutputSample {
  Indices rows, cols;
  std::vector<int64_t> kept; ///< positions in rows x cols; empty: all
  Words d, reference;        ///< words of those kept
  [[nodiscard]] int64_t outputs() const { return kept.empty() ? int64_t(rows.size() * cols.size()) : int64_t(kept.size()); }
  /// Of words over rows x cols, those kept.
  [[nodiscard]] Words keep(FormatId type, Words words) const;
};

[[nodiscard]] int64_t count_equal(const Words &x, std::span<const uint8_t> y, size_t width);

/// Up to `count` rows and columns.
[[nodiscard]] OutputSample make_sample(const Problem &p, std::span<const uint8_t> d, const Words &reference,
                                 const std::vector<bool> &covered, int64_t count);

/// A hypothesis, or two, in some variant, and how it does.
struct Trial {
  const Hypothesis *first = nullptr, *second = nullptr;
  int variants[2] = {0, 0};
  Finding finding = {};
  bool effect = false;

  /// Makes it in a computation that starts as the reference.
  [[nodiscard]] bool apply(const Problem &p, Computation &c) const;
  /// Fills in names and titles.
  void describe(const Problem &p, const Computation &c);
};

/// What comes first is the better explanation.
[[nodiscard]] bool nearer(const Finding &x, const Finding &y);

void measure(const Problem &p, const Computation &c, const OutputSample &s, Trial &t);

/// Two mistakes together that give every word of the sample, at most a few; counts forms tried.
[[nodiscard]] std::vector<Trial> find_pairs(const Problem &p, const Computation &reference, const OutputSample &small,
                                            const OutputSample &large, const std::vector<Hypothesis> &all,
                                            const std::vector<Trial> &singles, double budget, int64_t &tried,
                                            const std::function<void(double)> &progress);

} // namespace nvfp4::diagnosis
