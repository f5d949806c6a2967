// SPDX-License-Identifier: Apache-2.0
// What a quantizer can do otherwise, as rows: presets, fields of the rule, source, layout. Internal.
#pragma once
#include "nvfp4/golden/diagnosis/quantizer_making.hpp"

namespace nvfp4::diagnosis {

/// What a step changes. Two steps of one part exclude each other, except in the rule.
enum class StepPart : uint8_t { preset, rule, source, elements, scales, reading };

struct QuantizerStep {
  std::string name;  ///< stable: "preset:te213", "rule:order:(bmax / 6) * S", "nibbles-swapped"
  std::string title; ///< what MINE does: "the nibbles of a byte are swapped"
  StepPart part;
  std::function<void(Making &)> apply;
  std::string field = {}; ///< of a rule's step
};

/// Every step that can be taken from the base; those with a number that must be found first come from
/// quantizer_parameters.hpp.
[[nodiscard]] std::vector<QuantizerStep> quantizer_steps(const QuantizerProblem &p, const Making &base);

} // namespace nvfp4::diagnosis
