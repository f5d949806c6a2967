// SPDX-License-Identifier: Apache-2.0
// Reads an operand's share of alpha from its convention.
#include "nvfp4/emulator/quantize/global_alpha.hpp"
#include "nvfp4/emulator/quantize/convention.hpp"

namespace nvfp4 {
namespace {

struct Share {
  float amax = 1.0f;
  float range = 1.0f; // 6 M
  float decode = 1.0f;
};

Share share(const BlockScaled &q) {
  const Rule &r = find_convention(q.convention).rule;
  if (r.global == GlobalRule::none) return {};
  const float range = 6.0f * r.e4m3_max;
  if (r.per_row) return {1.0f, range, 1.0f / range};
  return {q.global_amax, range, q.global_decode};
}

/// Whether an amax says all: a scale that the caller gave, or that is computed in another type, is not 6M / amax.
bool follows_amax(const BlockScaled &q) {
  const GlobalRule rule = find_convention(q.convention).rule.global;
  return rule == GlobalRule::te && q.global_amax == q.global_amax;
}

} // namespace

float global_alpha(const BlockScaled &a, const BlockScaled &b, float alpha, AlphaRule rule) {
  const Share sa = share(a), sb = share(b);
  if (rule == AlphaRule::by_convention)
    rule = follows_amax(a) && follows_amax(b) ? AlphaRule::mul_const : AlphaRule::sdec_product;
  if (rule == AlphaRule::sdec_product) return alpha * (sa.decode * sb.decode);
  for (const auto &[q, s] : {std::pair(&a, &sa), std::pair(&b, &sb)})
    if (!follows_amax(*q) && find_convention(q->convention).rule.global != GlobalRule::none)
      throw Error("alpha rule mul_const or div: the global scale of '" + q->convention +
                  "' is not a function of its amax alone; use sdec_product");
  const float factor = sa.range * sb.range; // exact: at most 2688 * 2688
  const float product = alpha * sa.amax * sb.amax;
  return rule == AlphaRule::mul_const ? product * (1.0f / factor) : product / factor;
}

} // namespace nvfp4
