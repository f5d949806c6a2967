// SPDX-License-Identifier: Apache-2.0
// Mistakes, or choices, that cut K: split-K of 2 to 64 parts, equal or not, joined in any order and type; promotion;
// uneven cuts as stream-K makes them; alpha on every part. Data for the table search of parts.hpp.
#include "nvfp4/golden/diagnosis/hypothesis.hpp"

#include <algorithm>

namespace nvfp4::diagnosis {
namespace {

/// How parts are joined.
struct Join {
  const char *text;
  Combine combine;
  FormatId partial;
  bool round_sums, alpha, fused_alpha;
};
constexpr Join kJoins[] = {
    {"", Combine::sequential, FormatId::f32, false, false, false},
    {"added pairwise", Combine::pairwise, FormatId::f32, false, false, false},
    {"added from the last to the first", Combine::reversed, FormatId::f32, false, false, false},
    {"each multiplied by alpha first", Combine::sequential, FormatId::f32, false, true, false},
    {"added by fma(alpha, part, sum)", Combine::sequential, FormatId::f32, false, true, true},
    {"each multiplied by alpha first, added from the last to the first", Combine::reversed, FormatId::f32, false, true, false},
    {"each multiplied by alpha first, added pairwise", Combine::pairwise, FormatId::f32, false, true, false},
    {"stored in BF16", Combine::sequential, FormatId::bf16, false, false, false},
    {"stored in BF16, added from the last to the first", Combine::reversed, FormatId::bf16, false, false, false},
    {"stored in BF16, added pairwise", Combine::pairwise, FormatId::bf16, false, false, false},
    {"added in BF16", Combine::sequential, FormatId::bf16, true, false, false},
    {"added in BF16 from the last to the first", Combine::reversed, FormatId::bf16, true, false, false},
    {"multiplied by alpha and added in BF16", Combine::sequential, FormatId::bf16, true, true, false},
    {"multiplied by alpha and stored in BF16", Combine::sequential, FormatId::bf16, false, true, false},
    {"multiplied by alpha and stored in BF16, added from the last to the first", Combine::reversed, FormatId::bf16, false, true, false},
    {"stored in FP16", Combine::sequential, FormatId::f16, false, false, false},
    {"stored in FP16, added from the last to the first", Combine::reversed, FormatId::f16, false, false, false},
    {"stored in FP16, added pairwise", Combine::pairwise, FormatId::f16, false, false, false},
    {"added in FP16", Combine::sequential, FormatId::f16, true, false, false},
    {"added in FP16 from the last to the first", Combine::reversed, FormatId::f16, true, false, false},
    {"multiplied by alpha and added in FP16", Combine::sequential, FormatId::f16, true, true, false},
    {"multiplied by alpha and stored in FP16", Combine::sequential, FormatId::f16, false, true, false},
    {"multiplied by alpha and stored in FP16, added from the last to the first", Combine::reversed, FormatId::f16, false, true, false},
};
constexpr int kJoinCount = int(std::size(kJoins));

bool join(const Join &how, Computation &c) {
  Reduction &r = c.reduction;
  if (r.unit.rule.acc != FormatId::f32 && (how.alpha || how.partial != FormatId::f32)) return false;
  r.combine = how.combine;
  r.partial = how.partial;
  r.round_sums = how.round_sums;
  r.alpha_on_partials = how.alpha;
  r.fused_alpha = how.fused_alpha;
  return true;
}

int64_t steps_of(const Computation &c) { return (c.a->k + c.reduction.unit.rule.k - 1) / c.reduction.unit.rule.k; }

/// Ends of `ways` parts of `steps` instructions, by instruction.
using Cut = int64_t (*)(int64_t steps, int64_t ways, int64_t part);
constexpr Cut kCuts[] = {
    [](int64_t steps, int64_t ways, int64_t part) { return (steps + ways - 1) / ways * part; },         // ceil
    [](int64_t steps, int64_t ways, int64_t part) { return steps / ways * part + std::min(part, steps % ways); }, // first longer
    [](int64_t steps, int64_t ways, int64_t part) { return steps / ways * part; },                      // last longer
    [](int64_t steps, int64_t ways, int64_t part) { return steps * part / ways; },                      // spread
};
constexpr int kCutCount = int(std::size(kCuts));

/// Cuts (by instruction) in the computation. False unless they are ascending and inside K; a cut at the end is dropped.
bool cut(Computation &c, const std::vector<int64_t> &at) {
  const int64_t steps = steps_of(c), step = c.reduction.unit.rule.k;
  int64_t before = 0;
  for (const int64_t s : at) {
    if (s <= before) return false;
    if (s >= steps) break;
    c.reduction.cuts.push_back(s * step);
    before = s;
  }
  return !c.reduction.cuts.empty();
}

/// Variants of a family of cuts times the joins; joins and cuts that are impossible are skipped, not the end. A computation
/// that cannot be made is given as one that parts() would refuse: no cuts, the reference.
bool equal_parts(int ways, int variant, Computation &c) {
  if (variant >= kJoinCount * kCutCount || steps_of(c) < ways) return false;
  const auto ends = [&](int form) {
    std::vector<int64_t> at;
    for (int64_t part = 1; part < ways; ++part) at.push_back(kCuts[form](steps_of(c), ways, part));
    return at;
  };
  const int form = variant % kCutCount;
  const std::vector<int64_t> at = ends(form);
  for (int other = 0; other < form; ++other)
    if (ends(other) == at) return true; // made already
  if (!cut(c, at) || int(c.reduction.cuts.size()) != ways - 1 || !join(kJoins[variant / kCutCount], c)) c.reduction.cuts.clear();
  return true;
}

bool every(int64_t slice, int variant, Computation &c) {
  if (variant >= kJoinCount || slice % c.reduction.unit.rule.k != 0 || slice >= c.a->k) return false;
  c.reduction.cuts = cuts_every(slice, c.a->k);
  if (!join(kJoins[variant], c)) c.reduction.cuts.clear();
  return true;
}

bool one_cut(int variant, Computation &c) {
  const int64_t steps = steps_of(c), at = 1 + variant / kJoinCount;
  if (at >= steps) return false;
  if (!cut(c, {at}) || !join(kJoins[variant % kJoinCount], c)) c.reduction.cuts.clear();
  return true;
}

/// Joins of three or more uneven parts: those of kernels that are known.
constexpr int kFewJoins = 4;

bool two_cuts(int variant, Computation &c) {
  const int64_t inner = steps_of(c) - 1, pair = variant / kFewJoins;
  if (inner < 2 || pair >= inner * inner) return false;
  if (!cut(c, {1 + pair / inner, 1 + pair % inner}) || !join(kJoins[variant % kFewJoins], c)) c.reduction.cuts.clear();
  return true;
}

bool three_cuts(int variant, Computation &c) {
  const int64_t inner = steps_of(c) - 1, triple = variant / 2;
  if (inner < 3 || inner > 63 || triple >= inner * inner * inner) return false;
  if (!cut(c, {1 + triple / inner / inner, 1 + triple / inner % inner, 1 + triple % inner}) ||
      !join(kJoins[variant % 2 == 0 ? 0 : 2], c))
    c.reduction.cuts.clear();
  return true;
}

std::string cuts_text(const Computation &c, const Join &how) {
  std::string text = "cut at ";
  const std::vector<int64_t> &cuts = c.reduction.cuts;
  for (size_t i = 0; i < cuts.size() && i < 8; ++i) text += (i == 0 ? "" : ", ") + std::to_string(cuts[i]);
  return text + (cuts.size() > 8 ? ", ..." : "") + (*how.text == 0 ? "" : std::string("; partial sums are ") + how.text);
}

} // namespace

void add_part_hypotheses(const Problem &, std::vector<Hypothesis> &out) {
  const char *advice = "Run with split-K = 1 to get the bits of one chain, or accept these as the bits of a split kernel.";
  const auto add = [&](std::string name, std::string title, auto apply, auto join_of) {
    out.push_back({std::move(name), std::move(title), advice, Topic::chain, apply, true, false,
                   [join_of](const Problem &, int variant, const Computation &c) { return cuts_text(c, *join_of(variant)); }});
  };
  for (int ways = 2; ways <= 64; ++ways)
    add("split-k-" + std::to_string(ways),
        "K is split in " + std::to_string(ways) + " parts whose sums are added",
        [ways](const Problem &, int v, Computation &c) { return equal_parts(ways, v, c); },
        [](int v) { return &kJoins[v / kCutCount]; });
  for (const int64_t slice : {32, 64, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096})
    add("k-promotion-" + std::to_string(slice),
        "the accumulator is added to another register every " + std::to_string(slice) + " elements of K",
        [slice](const Problem &, int v, Computation &c) { return every(slice, v, c); }, [](int v) { return &kJoins[v]; });
  add("split-at-1", "K is cut once, unevenly, as stream-K cuts it",
      [](const Problem &, int v, Computation &c) { return one_cut(v, c); }, [](int v) { return &kJoins[v % kJoinCount]; });
  add("split-at-2", "K is cut twice, unevenly, as stream-K cuts it",
      [](const Problem &, int v, Computation &c) { return two_cuts(v, c); }, [](int v) { return &kJoins[v % kFewJoins]; });
  add("split-at-3", "K is cut three times, unevenly",
      [](const Problem &, int v, Computation &c) { return three_cuts(v, c); },
      [](int v) { return &kJoins[v % 2 == 0 ? 0 : 2]; });
}

} // namespace nvfp4::diagnosis
