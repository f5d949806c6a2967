// SPDX-License-Identifier: Apache-2.0
// Mistakes by name: each is a change to the reference computation. Rows of data over the engine of
// computation.hpp.
#pragma once
#include "nvfp4/golden/diagnosis/computation.hpp"

#include <functional>

namespace nvfp4::diagnosis {

/// What kind of thing went wrong. Only `chain` mistakes have a stage inside the dot product.
enum class Topic : uint8_t { operand, quantizer, chain, epilogue };
[[nodiscard]] std::string_view to_string(Topic topic);

struct Hypothesis {
  std::string name;   ///< stable, for machines: "nibbles-swapped:a"
  std::string title;  ///< what the kernel did: "the nibbles of A are swapped"
  std::string advice; ///< what to do, one sentence
  Topic topic;
  /// Makes the mistake in a computation that starts as the reference. Variants 0, 1, ... are forms of one
  /// mistake that differ in bits (orders of multiplications, say); false: no such variant, or it cannot be
  /// made here.
  std::function<bool(const Problem &, int variant, Computation &)> apply;
};

/// Every mistake that could have been made in this problem. Those whose bits equal the reference's are in it
/// too.
[[nodiscard]] std::vector<Hypothesis> hypotheses(const Problem &p);

/// The parts of the table.
void add_operand_hypotheses(const Problem &p, std::vector<Hypothesis> &out);
void add_quantizer_hypotheses(const Problem &p, std::vector<Hypothesis> &out);
void add_chain_hypotheses(const Problem &p, std::vector<Hypothesis> &out);
void add_epilogue_hypotheses(const Problem &p, std::vector<Hypothesis> &out);

} // namespace nvfp4::diagnosis
