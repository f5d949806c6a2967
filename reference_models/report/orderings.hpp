// SPDX-License-Identifier: Apache-2.0
// The orderings that "Dissecting Outlier Dynamics in LLM NVFP4 Pretraining" (arXiv 2602.02047) reports or
// implies, each judged on the runs at hand: held, not held, not settled by them, or not measured, with the
// numbers. Nothing is tuned until it agrees.
#pragma once
#include "nvfp4/emulator/names.hpp"
#include "nvfp4/reference_models/report/analysis.hpp"

namespace nvfp4::models {

/// Not settled: there is one run or pair only, or the 95 % interval of the difference contains 0.
enum class Verdict : uint8_t { not_measured, held, not_held, not_settled };
[[nodiscard]] constexpr auto names_of(Verdict) {
  return enum_names("verdict", "not measured", "held", "not held", "not settled");
}
static_assert(names_of(Verdict{}).end_with(Verdict::not_settled));

struct Ordering {
  int number = 0;    ///< of the claim, 1 to 9
  std::string claim; ///< what should hold
  std::string where; ///< which model; empty for all
  Verdict verdict = Verdict::not_measured;
  std::string measured; ///< the numbers, or what was missing
  std::string paper;    ///< what the paper states, or that it states no number
};

/// In the order of the claims; one for each model or pair of models where that matters.
[[nodiscard]] std::vector<Ordering> judge_orderings(const std::vector<RunGroup> &groups);

} // namespace nvfp4::models
