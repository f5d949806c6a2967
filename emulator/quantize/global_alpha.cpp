// SPDX-License-Identifier: Apache-2.0
// Reads an operand's share of alpha from its convention.
#include "nvfp4/emulator/quantize/global_alpha.hpp"

namespace nvfp4 {
namespace {

struct Share {
  float amax = 1.0f;
  float range = 1.0f; // 6 M
  float decode = 1.0f;
};

Share share(const GlobalFactor &f) {
  if (f.convention == nullptr) return {1.0f, 1.0f, f.decode};
  const Rule &r = f.convention->rule;
  if (r.global == GlobalRule::none) return {};
  const float range = 6.0f * r.e4m3_max;
  if (r.per_row) return {1.0f, range, 1.0f / range};
  return {f.amax, range, f.decode};
}

/// Whether there is no second level at all.
bool neutral(const GlobalFactor &f) {
  return f.convention == nullptr ? f.decode == 1.0f : f.convention->rule.global == GlobalRule::none;
}

/// Whether an amax says all: a scale that the caller gave, or that is computed in another type, is not 6M /
/// amax.
bool follows_amax(const GlobalFactor &f) {
  return f.convention != nullptr && f.convention->rule.global == GlobalRule::te && f.amax == f.amax;
}

} // namespace

GlobalFactor global_factor(const BlockScaled &q) {
  if (q.convention.empty()) return {nullptr, 1.0f, q.global_decode};
  return {&find_convention(q.convention), q.global_amax, q.global_decode};
}

float global_alpha(const GlobalFactor &a, const GlobalFactor &b, float alpha, AlphaRule rule) {
  const Share sa = share(a), sb = share(b);
  if (rule == AlphaRule::by_convention)
    rule = follows_amax(a) && follows_amax(b) ? AlphaRule::mul_const : AlphaRule::sdec_product;
  if (rule == AlphaRule::sdec_product) return alpha * (sa.decode * sb.decode);
  for (const GlobalFactor *f : {&a, &b})
    if (!follows_amax(*f) && !neutral(*f))
      throw Error("alpha rule mul_const or div: the global scale of '" +
                  std::string(f->convention == nullptr ? "a given scale" : f->convention->name) +
                  "' is not a function of its amax alone; use sdec_product");
  const float factor = sa.range * sb.range; // exact: at most 2688 * 2688
  const float product = alpha * sa.amax * sb.amax;
  return rule == AlphaRule::mul_const ? product * (1.0f / factor) : product / factor;
}

float global_alpha(const BlockScaled &a, const BlockScaled &b, float alpha, AlphaRule rule) {
  return global_alpha(global_factor(a), global_factor(b), alpha, rule);
}

} // namespace nvfp4
