// SPDX-License-Identifier: Apache-2.0
// What has been published about 4-bit formats and recipes, as rows of data, each judged on what the lab measured. Nothing is
// tuned until it agrees.
#pragma once
#include "nvfp4/reference_models/lab/measures.hpp"
#include "nvfp4/reference_models/report/orderings.hpp"

#include <span>

namespace nvfp4::models {

/// Either an ordering of two measures, `low` below `high`, or a range that `low` lies in (`high` empty).
struct Claim {
  std::string_view text, source;
  std::string_view published; ///< the numbers, or that there are none
  std::string_view low, high = {};
  double from = 0, to = 0;
};
[[nodiscard]] std::span<const Claim> claims();

struct JudgedClaim {
  const Claim *claim = nullptr;
  Verdict verdict = Verdict::not_measured;
  std::string measured = {}; ///< the numbers, or what was missing
};
/// An ordering is held or not held where the 95 % interval of the paired difference leaves out 0, and a range where the mean
/// lies in it, or the interval outside; else not settled.
[[nodiscard]] JudgedClaim judge(const Claim &claim, const Measures &measures);
[[nodiscard]] std::vector<JudgedClaim> judge_claims(const Measures &measures);

} // namespace nvfp4::models
