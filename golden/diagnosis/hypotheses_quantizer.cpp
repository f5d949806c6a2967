// SPDX-License-Identifier: Apache-2.0
// Other quantizers: what the product would be, had the operands been made from their sources by another
// convention.
#include "nvfp4/golden/diagnosis/hypothesis.hpp"

#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"

namespace nvfp4::diagnosis {
namespace {

/// A way to quantize an operand anew; the rest stays as the operand says.
struct Recipe {
  std::string convention = {}; ///< empty: the operand's own
  bool other_block_rows = false, other_hadamard = false;
};

/// Nothing where the recipe has no meaning for this operand or gives another element, scale or block.
std::optional<BlockScaled> requantize(const ProblemOperand &o, const Recipe &recipe) {
  if (!o.source || !o.scaled) return std::nullopt;
  const BlockScaled &q = *o.scaled;
  const Convention &convention =
      find_convention(recipe.convention.empty() ? q.convention : recipe.convention);
  const Rule &rule = convention.rule;
  if (rule.element != q.element || rule.scale != q.scale || rule.block != q.block) return std::nullopt;
  if (rule.per_row || !q.row_amax.empty()) return std::nullopt; // its epilogue is another one
  QuantizeOptions options;
  options.axis = q.axis;
  options.block_rows = recipe.other_block_rows ? (q.block_rows == 1 ? 16 : 1) : q.block_rows;
  options.hadamard = q.hadamard != recipe.other_hadamard;
  if (q.hadamard) options.sign_mask = q.sign_mask;
  options.source = q.source;
  try {
    return quantize({o.source->values.data(), o.source->rows, o.source->cols}, convention, options);
  } catch (const Error &) { // a combination that the convention excludes
    return std::nullopt;
  }
}

bool apply_recipe(const Problem &p, const Recipe &recipe, int sides, Computation &c) {
  std::optional<BlockScaled> a = p.a.scaled, b = p.b.scaled;
  for (const int side : {1, 2}) {
    if ((sides & side) == 0) continue;
    std::optional<BlockScaled> q = requantize(side == 1 ? p.a : p.b, recipe);
    if (!q) return false;
    (side == 1 ? c.a : c.b) = std::make_shared<const RawOperand>(raw_operand(*q));
    (side == 1 ? a : b) = std::move(q);
  }
  try {
    c.epilogue.alpha = global_alpha(*a, *b, p.alpha, p.alpha_rule);
  } catch (const Error &) { // the caller's rule does not fit the other convention's scale
    c.epilogue.alpha = global_alpha(*a, *b, p.alpha, AlphaRule::sdec_product);
  }
  return true;
}

} // namespace

void add_quantizer_hypotheses(const Problem &p, std::vector<Hypothesis> &out) {
  if (!p.a.scaled || !p.b.scaled) return;
  const int given = (p.a.source ? 1 : 0) | (p.b.source ? 2 : 0);
  const char *names[] = {"", "A", "B", "A and B"}, *keys[] = {"", ":a", ":b", ":ab"};
  const auto add = [&](const Recipe &recipe, const std::string &name, const std::string &what) {
    for (int sides = 1; sides <= 3; ++sides) {
      if ((sides & given) != sides) continue;
      out.push_back({name + keys[sides],
                     std::string(names[sides]) + (sides == 3 ? " are" : " is") + " quantized " + what,
                     "Quantize as the tensor that the kernel is given, or compare with a file made that way.",
                     Topic::quantizer, [recipe, sides](const Problem &q, int variant, Computation &c) {
                       return variant == 0 && apply_recipe(q, recipe, sides, c);
                     }});
    }
  };
  for (const Convention &convention : conventions())
    add({std::string(convention.name)}, "quantizer:" + std::string(convention.name),
        "by convention '" + std::string(convention.name) + "'");
  add({.other_block_rows = true}, "quantizer-tiles", "with the other of 1x16 and 16x16 blocks");
  add({.other_hadamard = true}, "quantizer-hadamard",
      "with the Hadamard rotation only where the file has none, or the reverse");
}

} // namespace nvfp4::diagnosis
