// SPDX-License-Identifier: Apache-2.0
// Is D what is expected plus an addend, one for all, or one for each column or row, as a bias that the caller
// did not name? Every output says in which interval its addend must lie.
#pragma once
#include "nvfp4/golden/diagnosis/computation.hpp"
#include "nvfp4/golden/diagnosis/structure.hpp"

namespace nvfp4::diagnosis {

/// At most one fact of kind `addend` over outputs that `skip` does not hold, and in `explained` (as long as
/// D) the differing outputs that an FP32 addend gives to the bit, added to the scaled accumulator or fused
/// with its scaling, before the rounding of D. `acc`: (M, N) accumulator words of the reference. Only for
/// beta = 0, accumulators of 32 and 16 bits, and lines of at least 8 outputs; else nothing.
[[nodiscard]] std::vector<Fact> addends_of(const Problem &p, const Computation &reference,
                                           std::span<const uint64_t> acc, std::span<const uint8_t> got,
                                           std::span<const uint8_t> want, const std::vector<bool> &skip,
                                           std::vector<bool> &explained);

} // namespace nvfp4::diagnosis
