// SPDX-License-Identifier: Apache-2.0
// A dot product with its inside turned out, and the stage at which two such chains part.
#pragma once
#include "nvfp4/golden/diagnosis/step.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace nvfp4 {

/// Every step of one dot product, in the order in which the hardware takes them.
struct Trace {
  UnitRule rule{};
  std::vector<Step> steps;
  uint64_t word = 0; ///< the last accumulator; c where there are no steps
};

/// Traces dot(rule, op, k, c, accumulation), whose word the trace ends in. k: a multiple of rule.k.
[[nodiscard]] Trace trace_dot(const UnitRule &rule, const DotOperands &op, int64_t k, uint64_t c = 0,
                              Accumulation accumulation = Accumulation::mmasim,
                              Finish finish = Finish::as_unit);

/// Where two computations of the same output first give different words.
enum class Stage : uint8_t {
  alignment,     ///< the largest exponent, to which terms are aligned
  truncation,    ///< the bits that the alignment keeps
  reduction,     ///< the order or grouping of sums: steps, splits, additions
  normalisation, ///< same sum, words more than one unit apart
  rounding,      ///< same sum, neighbouring words: the final rounding
  special,       ///< NaN or Inf on one side only
  epilogue,      ///< equal accumulators, unequal outputs
};
[[nodiscard]] std::string_view to_string(Stage stage);

struct Parting {
  Stage stage = Stage::epilogue;
  int64_t k = -1;   ///< first element of the step that parts, -1 for the epilogue
  std::string text; ///< what differs, one line
};

/// The first step in which two traces over the same operands differ.
[[nodiscard]] Parting find_parting(const Trace &x, const Trace &y);

/// The trace as text, one line a step.
[[nodiscard]] std::string to_text(const Trace &trace);

} // namespace nvfp4
