// SPDX-License-Identifier: Apache-2.0
// Is D what is expected times a factor, one for all or one for each of some ranges of rows or columns?
// Decided exactly: every output says in which interval its alpha must lie.
#pragma once
#include "nvfp4/golden/diagnosis/computation.hpp"
#include "nvfp4/golden/diagnosis/structure.hpp"

namespace nvfp4::diagnosis {

/// Facts of kind `factor` over outputs that `skip` does not hold, at most 64 ranges; each counts the
/// differing outputs that the factor, as one FP32 alpha, gives to the bit. `acc`: (M, N) accumulator words of
/// the reference, of 32 or 16 bits; beta must be 0.
[[nodiscard]] std::vector<Fact> factors_of(const Problem &p, const Computation &reference,
                                           std::span<const uint64_t> acc, std::span<const uint8_t> got,
                                           std::span<const uint8_t> want, const std::vector<bool> &skip);

} // namespace nvfp4::diagnosis
