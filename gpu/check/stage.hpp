// SPDX-License-Identifier: Apache-2.0
// At which stage of the arithmetic another word for the same dot product parts from the definition's.
#pragma once
#include "nvfp4/golden/diagnosis/trace.hpp"

#include <string>

namespace nvfp4::crosscheck {

/// Looks for a change of the definition (accumulation model, final rounding, kept bits, floor) that gives
/// `got`, and says where its chain parts from dot()'s. One line; says so where no change explains the word.
[[nodiscard]] std::string explain_word(const UnitRule &rule, const DotOperands &op, int64_t k, uint64_t c,
                                       Accumulation accumulation, uint64_t got);

} // namespace nvfp4::crosscheck
