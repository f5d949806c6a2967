// SPDX-License-Identifier: Apache-2.0
// Which cut of K, or which part of it, explains a few outputs: chains over all pairs of ends are computed once, so that
// thousands of ways to cut and join cost a table look-up each.
#pragma once
#include "nvfp4/golden/diagnosis/hypothesis.hpp"

namespace nvfp4::diagnosis {

/// An output with the word that the kernel gave.
struct Probe {
  int64_t i, j;
  uint64_t word;
};

/// A mistake whose variant gives every probe.
struct Fitted {
  const Hypothesis *hypothesis;
  int variant;
};

/// Tries every variant of those hypotheses that only cut K and join the parts (Hypothesis::by_parts), plainest first, up
/// to `most` that fit. Probes should be outputs that the reference does not give. Empty for chains whose steps are not
/// the unit's.
[[nodiscard]] std::vector<Fitted> fit_parts(const Problem &p, const Computation &reference,
                                            const std::vector<Hypothesis> &all, const std::vector<Probe> &probes,
                                            size_t most);

/// A part of K that is left out (from < to) or added again (from > to): the chain runs over [0, from), then [to, K).
struct Jump {
  int64_t from, to; ///< multiples of the unit's K, or K's end
};

/// Every jump that gives all probes, at most `most`, ends of K first.
[[nodiscard]] std::vector<Jump> fit_jumps(const Problem &p, const Computation &reference,
                                          const std::vector<Probe> &probes, size_t most);

} // namespace nvfp4::diagnosis
