// SPDX-License-Identifier: Apache-2.0
// Numbers that a quantizer may have used, found from what it wrote: another amax, other signs of the
// rotation. Internal.
#pragma once
#include "nvfp4/golden/diagnosis/quantizer_making.hpp"

namespace nvfp4::diagnosis {

/// Values of amax under which the sample has exactly MINE's block scales: the plainest multiple of the
/// source's own, then the ends and the middle of the range that serves. None where the scales contradict each
/// other, or the own amax serves.
[[nodiscard]] std::vector<float> find_amax(const QuantizerProblem &p, const Making &base,
                                           const BlockSample &sample);

/// The sign mask under which the first of `blocks` have MINE's codes and scales, given the stored amax.
[[nodiscard]] std::optional<uint16_t> find_sign_mask(const QuantizerProblem &p, const Making &base,
                                                     const std::vector<std::pair<int64_t, int64_t>> &blocks);

} // namespace nvfp4::diagnosis
