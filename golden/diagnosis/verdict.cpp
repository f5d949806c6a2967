// SPDX-License-Identifier: Apache-2.0
// The one sentence that a report begins with, and what to capture next where nothing explains D.
#include "nvfp4/golden/diagnosis/diagnose.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace nvfp4::diagnosis {
namespace {

std::string number(const char *pattern, double x) {
  char text[64];
  std::snprintf(text, sizeof text, pattern, x);
  return text;
}

std::string count(int64_t n, const char *what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

/// Distances that another order of summation or another rounding makes, and nothing else: a few units of
/// FP32, or less than a unit of a 16-bit type.
double rounding_distance(const Problem &p) {
  return std::max(0x1p-18, std::ldexp(1.0, -format(p.round).mantissa_bits - 1));
}

const Finding *nearest(const Report &r) {
  const Finding *best = nullptr;
  for (const auto *list : {&r.partial, &r.others})
    for (const Finding &f : *list)
      if (f.finite && (best == nullptr || f.distance < best->distance)) best = &f;
  return best;
}

} // namespace

std::string verdict_of(const Problem &p, const Report &r) {
  const Comparison &c = r.comparison;
  if (c.equal())
    return "equal: all " + count(c.total, "output") +
           (c.nan_same == 0 ? "" : ", " + std::to_string(c.nan_same) + " of them NaN with the same bits");
  std::string facts;
  for (const Fact &f : r.facts) {
    if (!is_of_values(f)) facts += (facts.empty() ? "" : "; ") + f.text;
  }
  const std::string rest = c.differing == c.total ? "" : ", all other outputs are equal";
  if (r.covered == c.differing) return facts + rest;
  const std::string before = facts.empty() ? "" : facts + "; ";
  const std::string apart = facts.empty() ? "" : " (apart from those outputs)";
  if (!r.candidates.empty()) {
    const bool whole = r.candidates[0].explains_all;
    std::string text = (whole ? "" : before) + r.candidates[0].title;
    if (r.candidates.size() > 1)
      text += " (or one of " + std::to_string(r.candidates.size() - 1) + " more that give the same bits)";
    return text + ": explains all" + (whole ? "" : apart);
  }
  std::string factors;
  for (const Fact &f : r.facts)
    if (is_of_values(f)) factors += (factors.empty() ? "" : "; ") + f.text;
  if (r.by_factor) return before + factors + rest;
  if (!r.likely.empty())
    return before + r.likely[0].title + ": explains all of " + count(r.likely[0].sampled, "sampled output") +
           apart;
  // the distance from the reference on the sample, which facts do not spoil
  const double distance = r.covered == 0 ? c.distance : NAN;
  if (distance <= rounding_distance(p) && c.nan_got + c.nan_missing + c.infinities == 0)
    return "equal but for summation order or rounding: distance " + number("%.2g", distance) + ", at most " +
           count(int64_t(c.max_ulp), "ulp") + "; no order that was tried gives these bits";
  const bool added =
      std::any_of(r.facts.begin(), r.facts.end(), [](const Fact &f) { return f.kind == "addend"; });
  if (added) return before + factors + ", but for rounding: not to the bit everywhere";
  if (!factors.empty()) return before + factors + "; other outputs differ too";
  const Finding *near = nearest(r);
  const bool close = near != nullptr && near->distance <= 2 * rounding_distance(p);
  if (!r.partial.empty() && r.partial[0].equal >= 0) {
    const Finding &f = r.partial[0];
    if (f.rest_accounts) {
      std::string text = before + f.title;
      for (const Fact &fact : f.rest) text += "; then " + fact.text;
      return text + ": together they account for all" + apart;
    }
    if (!close || near->distance < f.distance)
      return before + f.title + ", but not everywhere: leaves " + f.leaves;
  }
  if (close)
    return before + near->title + ", but for summation order or rounding: distance " +
           number("%.2g", near->distance) + " from that, not equal to the bit everywhere";
  if (near != nullptr && std::isfinite(distance) && near->distance <= 0.1 * distance)
    return before + "not explained; nearest: " + near->title + " (distance " +
           number("%.2g", near->distance) + ", from the expected bits " + number("%.2g", distance) + ")";
  const std::string far = std::isfinite(distance) ? ", distance " + number("%.2g", distance) : "";
  return before + "not explained: " + r.where + " differ" + far;
}

std::vector<std::string> next_captures(const Problem &p, const Report &r) {
  std::vector<std::string> next;
  if (!r.candidates.empty() || !r.likely.empty() || r.by_factor || r.covered == r.comparison.differing ||
      (!r.partial.empty() && r.partial[0].rest_accounts))
    return next;
  const std::string k = std::to_string(p.unit->rule.k);
  if (p.a.raw.k > p.unit->rule.k)
    next.push_back("the same kernel with K = " + k +
                   ", one instruction: if that is right, the mistake is in the loop over K");
  if (p.a.raw.block != 0)
    next.push_back(
        "all block scales 1 (0x38 in UE4M3, 0x7f in UE8M0): if that is right, the mistake is in scales");
  next.push_back(
      "A all zero but for one element a row, B the identity: D then shows which element met which");
  if (p.alpha != 1.0f || p.beta != 0.0f || r.alpha != 1.0f)
    next.push_back("alpha 1 and beta 0 with F32 output: if that is right, the mistake is in the epilogue");
  if ((p.a.scaled || p.b.scaled) && !p.a.source && !p.b.source)
    next.push_back("the tensors before quantization (--a-source, --b-source): other quantizers and amaxes "
                   "can then be tried");
  return next;
}

} // namespace nvfp4::diagnosis
