// SPDX-License-Identifier: Apache-2.0
// Reads an operand's share of alpha from its convention.
#include "emulator/quantize/global_alpha.hpp"
#include "emulator/quantize/convention.hpp"

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

} // namespace

float global_alpha(const BlockScaled &a, const BlockScaled &b, float alpha, AlphaRule rule) {
  const Share sa = share(a), sb = share(b);
  if (rule == AlphaRule::sdec_product) return alpha * (sa.decode * sb.decode);
  for (const auto &[q, s] : {std::pair(&a, &sa), std::pair(&b, &sb)})
    if (s->amax != s->amax)
      throw Error("global_alpha: '" + q->convention +
                  "' has no amax (its global scale was given, or its maximum is NaN); use sdec_product");
  const float factor = sa.range * sb.range; // exact: at most 2688 * 2688
  const float product = alpha * sa.amax * sb.amax;
  return rule == AlphaRule::mul_const ? product * (1.0f / factor) : product / factor;
}

} // namespace nvfp4
