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
  bool by_parts = false; ///< only cuts K and joins the parts: found by a table (parts.hpp), not tried one by one
  bool whole = false;    ///< reads C or a source, or writes D, by a layout: cannot be made on a part of the outputs
  /// What a variant did, to follow the title; null: the title says it all.
  std::function<std::string(const Problem &, int variant, const Computation &)> detail = {};
};

/// Every mistake that could have been made in this problem. Those whose bits equal the reference's are in it
/// too.
[[nodiscard]] std::vector<Hypothesis> hypotheses(const Problem &p);

/// "A", "B", "A and B" and ":a", ":b", ":ab" for sides 1, 2, 3.
[[nodiscard]] const char *side_name(int sides);
[[nodiscard]] const char *side_key(int sides);
/// `pattern` with % filled in.
[[nodiscard]] std::string fill_in(const char *pattern, std::string_view what);

/// The parts of the table.
void add_operand_hypotheses(const Problem &p, std::vector<Hypothesis> &out);
void add_scale_hypotheses(const Problem &p, std::vector<Hypothesis> &out);
void add_part_hypotheses(const Problem &p, std::vector<Hypothesis> &out);
void add_quantizer_hypotheses(const Problem &p, std::vector<Hypothesis> &out);
/// Quantization under another amax, for operands with a source. `ratios`: estimates of D over what is expected.
void add_amax_hypotheses(const Problem &p, const std::vector<double> &ratios, std::vector<Hypothesis> &out);
void add_chain_hypotheses(const Problem &p, std::vector<Hypothesis> &out);
void add_epilogue_hypotheses(const Problem &p, std::vector<Hypothesis> &out);

/// Edits the operands of `sides` (1: A, 2: B, 3: both) in copies; false where `edit` refuses one.
template <class Edit> bool edit_operands(Computation &c, int sides, Edit edit) {
  for (const int side : {1, 2}) {
    if ((sides & side) == 0) continue;
    auto &operand = side == 1 ? c.a : c.b;
    RawOperand changed = *operand;
    if (!edit(changed)) return false;
    operand = std::make_shared<const RawOperand>(std::move(changed));
  }
  return true;
}

/// The chain runs over [0, from), then [to, K) of both operands: multiples of the unit's K, or K's end.
[[nodiscard]] bool take_k(Computation &c, int64_t from, int64_t to);

} // namespace nvfp4::diagnosis
