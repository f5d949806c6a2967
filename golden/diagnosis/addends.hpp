// SPDX-License-Identifier: Apache-2.0
// Is D what is expected plus an addend, one for all, or one for each column or row, as a bias that the caller
// did not name? Every output says in which interval its addend must lie.
#pragma once
#include "nvfp4/golden/diagnosis/computation.hpp"
#include "nvfp4/golden/diagnosis/structure.hpp"

namespace nvfp4::diagnosis {

/// At most one fact of kind `addend` over outputs that `skip` does not hold, for lines of at least 8 of them;
/// it counts the differing outputs that FP32 addends give to the bit: added to the scaled accumulator, fused
/// with its scaling, or added to the rounded output. `acc`: (M, N) accumulator words of the reference, of 32
/// or 16 bits; beta must be 0.
[[nodiscard]] std::vector<Fact> addends_of(const Problem &p, const Computation &reference,
                                           std::span<const uint64_t> acc, std::span<const uint8_t> got,
                                           std::span<const uint8_t> want, const std::vector<bool> &skip);

} // namespace nvfp4::diagnosis
