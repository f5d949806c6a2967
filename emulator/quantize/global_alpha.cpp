// SPDX-License-Identifier: Apache-2.0
// Reads an operand's share of alpha from its convention.
#include "nvfp4/emulator/quantize/global_alpha.hpp"

namespace nvfp4 {
namespace {

/// Whether there is no second level at all.
bool neutral(const GlobalFactor &f) {
  return f.convention == nullptr ? f.decode == 1.0f : !has_level(f.convention->rule);
}

AlphaShare share(const GlobalFactor &f, AlphaRule rule) {
  const AlphaShare s = f.convention == nullptr ? AlphaShare{.decode = f.decode}
                                               : alpha_share(f.convention->rule, f.amax, f.decode);
  const bool reads_amax = rule == AlphaRule::mul_const || rule == AlphaRule::div;
  if (reads_amax && !s.follows_amax && !neutral(f))
    throw Error("alpha rule mul_const or div: the global scale of '" +
                std::string(f.convention == nullptr ? "a given scale" : f.convention->name) +
                "' is not a function of its amax alone; use sdec_product");
  return s;
}

} // namespace

GlobalFactor global_factor(const BlockScaled &q) {
  if (q.convention.empty()) return {nullptr, 1.0f, q.global_decode};
  const Convention &c = find_convention(q.convention);
  if (c.rule.decoding == Decoding::bf16_reciprocal)
    throw Error("convention '" + q.convention +
                "' decodes by reciprocals in BF16, which are not the values of its scales: no unit multiplies them; "
                "dequantize first, or quantize as hif4");
  return {&c, q.global_amax, q.global_decode};
}

float global_alpha(const GlobalFactor &a, const GlobalFactor &b, float alpha, AlphaRule rule) {
  return combined_alpha(rule, share(a, rule), share(b, rule), alpha);
}

float global_alpha(const BlockScaled &a, const BlockScaled &b, float alpha, AlphaRule rule) {
  return global_alpha(global_factor(a), global_factor(b), alpha, rule);
}

} // namespace nvfp4
