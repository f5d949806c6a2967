// SPDX-License-Identifier: Apache-2.0
// Reports as `nvfp4 check` gives them: text for people, one line of JSON for machines.
#pragma once
#include "nvfp4/golden/diagnosis/diagnose.hpp"
#include "nvfp4/golden/diagnosis/quantizer_check.hpp"

namespace nvfp4::diagnosis {

/// trace: with the expected accumulator of the first differing output, step by step. The text ends with a
/// newline, the JSON does not.
[[nodiscard]] std::string report_text(const Problem &p, const Report &r, bool trace = false);
[[nodiscard]] std::string report_json(const Problem &p, const Report &r, bool trace = false);

[[nodiscard]] std::string report_text(const QuantizerProblem &p, const QuantizerReport &r);
[[nodiscard]] std::string report_json(const QuantizerProblem &p, const QuantizerReport &r);

} // namespace nvfp4::diagnosis
