// SPDX-License-Identifier: Apache-2.0
// Description, trial of every hypothesis, ranking and verification.
#include "nvfp4/golden/diagnosis/diagnose.hpp"

#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/golden/diagnosis/addends.hpp"
#include "nvfp4/golden/diagnosis/factors.hpp"
#include "nvfp4/golden/diagnosis/parts.hpp"
#include "nvfp4/golden/diagnosis/sample.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace nvfp4::diagnosis {
namespace {

Indices all_of(int64_t n) {
  Indices v(static_cast<size_t>(n));
  std::iota(v.begin(), v.end(), 0);
  return v;
}

/// Up to `count` of `from`, evenly.
void pick(const Indices &from, int64_t count, Indices &to) {
  const int64_t n = int64_t(from.size());
  for (int64_t i = 0; i < std::min(count, n); ++i) to.push_back(from[size_t(n <= count ? i : i * n / count)]);
}

/// Half evenly among the indices that are hit (the first of them included), the rest evenly among all.
Indices choose(int64_t n, const Indices &hit, int64_t first, int64_t count) {
  if (n <= count) return all_of(n);
  Indices chosen{first};
  pick(hit, count / 2 - 1, chosen);
  pick(all_of(n), count - int64_t(chosen.size()), chosen);
  std::sort(chosen.begin(), chosen.end());
  chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  return chosen;
}

size_t width_of(const Problem &p) { return size_t(format(p.word).storage_bits / 8); }

/// The rows and columns of a sample alone, for what does not read or write by a layout.
struct CutSample {
  SmallComputation base;
  OutputSample sample; ///< the same words, rows and columns counted from 0

  CutSample(const Problem &p, const Computation &reference, const OutputSample &s)
      : base(cut_out(p, reference, s.rows, s.cols)), sample(s) {
    sample.rows = all_of(int64_t(s.rows.size()));
    sample.cols = all_of(int64_t(s.cols.size()));
  }
};

/// A sample with operands whole and cut.
struct At {
  const OutputSample &whole;
  CutSample cut;
};

/// The best variant of a hypothesis; no variants: nothing. What gives fewer words of the small sample than
/// the reference is not tried on the large one.
std::optional<Trial> attempt(const Problem &p, const Computation &reference, const At &small, const At &large,
                             const Hypothesis &h, int64_t &tried) {
  std::optional<Trial> best;
  const int64_t expected = count_equal(small.whole.reference, small.whole.d, width_of(p));
  const bool by_rows = !h.whole && h.topic != Topic::operand && h.topic != Topic::quantizer;
  const bool larger = small.whole.rows != large.whole.rows || small.whole.cols != large.whole.cols;
  for (int variant = 0;; ++variant) {
    Trial t;
    t.first = &h;
    t.variants[0] = variant;
    Computation c = by_rows ? small.cut.base.computation : reference;
    const Problem &of = by_rows ? small.cut.base.problem : p;
    if (!h.apply(of, variant, c)) return best;
    ++tried;
    measure(of, c, by_rows ? small.cut.sample : small.whole, t);
    if (larger && t.finding.sampled_equal >= expected) {
      if (by_rows) {
        Computation more = large.cut.base.computation;
        (void)h.apply(large.cut.base.problem, variant, more);
        measure(large.cut.base.problem, more, large.cut.sample, t);
      } else {
        measure(p, c, large.whole, t);
      }
    }
    if (!best || (t.effect && (!best->effect || nearer(t.finding, best->finding)))) {
      t.describe(of, c);
      best = std::move(t);
    }
  }
}

/// Outputs of all of D that a computation gives, those that facts cover apart.
struct Verified {
  int64_t open = 0, covered = 0;
  std::vector<bool> missed; ///< not given, not covered
  Words given;              ///< every word of the computation
};
Verified verify(const Problem &p, const Computation &c, std::span<const uint8_t> words,
                const std::vector<bool> &covered) {
  const Indices rows = all_of(p.m()), cols = all_of(p.n());
  const size_t width = width_of(p), band = 512;
  Verified v;
  v.missed.assign(covered.size(), false);
  for (size_t first = 0; first < rows.size(); first += band) {
    const size_t count = std::min(band, rows.size() - first), start = first * cols.size();
    const Words some = evaluate(p, c, std::span(rows).subspan(first, count), cols);
    for (size_t o = 0; o < count * cols.size(); ++o) {
      const bool same = std::memcmp(some.data() + o * width, words.data() + (start + o) * width, width) == 0;
      (covered[start + o] ? v.covered : v.open) += same ? 1 : 0;
      v.missed[start + o] = !same && !covered[start + o];
    }
    v.given.insert(v.given.end(), some.begin(), some.end());
  }
  return v;
}

/// "in rows 3 to 7 and all columns": where a mask holds.
std::string place_of(const Problem &p, const std::vector<bool> &mask) {
  std::vector<bool> rows(size_t(p.m())), cols(size_t(p.n()));
  int64_t count = 0, first = -1;
  for (size_t at = 0; at < mask.size(); ++at) {
    if (!mask[at]) continue;
    rows[at / size_t(p.n())] = cols[at % size_t(p.n())] = true;
    if (count++ == 0) first = int64_t(at);
  }
  const Indices r = members(rows), c = members(cols);
  if (count == 0) return "none";
  std::string text = std::to_string(count) + (count == 1 ? " output" : " outputs") + " in " +
                     describe(r, p.m(), "row") + " and " + describe(c, p.n(), "column");
  return text + ", the first at (" + std::to_string(first / p.n()) + ", " + std::to_string(first % p.n()) +
         ")";
}

/// Accumulators of all outputs, FP32 and FP16 words.
std::vector<uint64_t> accumulators(const Problem &p, const Computation &reference) {
  const Unit &unit = reference.reduction.unit;
  const auto operand = [&](const RawOperand &o, Side side) {
    return make_operand(unit, side, RawCodes{o.rows, o.k, o.codes}, RawScales(o.scales, ScaleLayout::linear));
  };
  std::vector<uint64_t> acc(size_t(p.m() * p.n()));
  (void)GemmPlan(unit, {.accumulation = reference.reduction.accumulation, .threads = p.threads, .isa = p.isa})
      .accumulate(operand(*reference.a, Side::a), operand(*reference.b, Side::b), acc);
  return acc;
}

/// Differing outputs of the sample for the searches over K, those that the reference is furthest from first.
std::vector<Probe> probes_of(const Problem &p, const OutputSample &s, size_t most) {
  const CodeView d{s.d.data(), format(p.word).storage_bits},
      want{s.reference.data(), format(p.word).storage_bits};
  std::vector<std::pair<double, int64_t>> by_distance;
  for (int64_t o = 0; o < s.outputs(); ++o)
    if (d[o] != want[o]) {
      const double distance = std::fabs(value(p.word, d[o]) - value(p.word, want[o]));
      by_distance.emplace_back(std::isfinite(distance) ? -distance : 0, o);
    }
  std::stable_sort(by_distance.begin(), by_distance.end(),
                   [](const auto &x, const auto &y) { return x.first < y.first; });
  std::vector<Probe> probes;
  for (size_t i = 0; i < by_distance.size() && probes.size() < most; ++i) {
    const int64_t o = by_distance[i].second, at = s.kept.empty() ? o : s.kept[size_t(o)];
    probes.push_back({s.rows[size_t(at) / s.cols.size()], s.cols[size_t(at) % s.cols.size()], d[o]});
  }
  return probes;
}

/// Parts of K left out or taken twice, as hypotheses.
std::vector<Hypothesis> jump_hypotheses(const std::vector<Jump> &jumps, int64_t k) {
  std::vector<Hypothesis> all;
  for (const Jump &j : jumps) {
    if (j.from == k && j.to == 0) continue; // all of K twice is a factor of 2
    const std::string from = std::to_string(j.from), to = std::to_string(j.to);
    std::string name, title;
    if (j.to == k)
      name = "k-prefix-" + from, title = "only k < " + from + " of " + std::to_string(k) + " is summed";
    else if (j.from == 0)
      name = "k-suffix-" + to, title = "only k >= " + to + " of " + std::to_string(k) + " is summed";
    else if (j.from < j.to)
      name = "k-missing-" + from + "-" + to, title = from + " <= k < " + to + " is not summed";
    else
      name = "k-twice-" + to + "-" + from, title = to + " <= k < " + from + " is summed twice";
    all.push_back({name, title,
                   "Check the loop over K: its end, its stride, and what it does with the last tile.",
                   Topic::operand, [j](const Problem &, int variant, Computation &c) {
                     return variant == 0 && take_k(c, j.from, j.to);
                   }});
  }
  return all;
}

/// D over the reference: by least squares, and the median, which saturated blocks do not move. Over finite
/// pairs.
std::vector<double> ratios_of(FormatId type, const OutputSample &s) {
  const CodeView d{s.d.data(), format(type).storage_bits}, r{s.reference.data(), format(type).storage_bits};
  double dr = 0, rr = 0;
  std::vector<double> ratios;
  for (int64_t o = 0; o < s.outputs(); ++o) {
    const double x = value(type, d[o]), y = value(type, r[o]);
    if (!std::isfinite(x) || !std::isfinite(y) || y == 0) continue;
    dr += x * y;
    rr += y * y;
    ratios.push_back(x / y);
  }
  if (ratios.empty()) return ratios;
  std::nth_element(ratios.begin(), ratios.begin() + long(ratios.size() / 2), ratios.end());
  return {dr / rr, ratios[ratios.size() / 2]};
}

/// Factors, or else addends, over outputs that are not covered: what is decided on values.
std::vector<Fact> value_facts(const Problem &p, const Computation &c, std::span<const uint8_t> words,
                              std::span<const uint8_t> want, const std::vector<bool> &covered) {
  if (p.unit->rule.acc == FormatId::f64 || p.beta != 0.0f) return {};
  const std::vector<uint64_t> acc = accumulators(p, c);
  const std::vector<Fact> factors = factors_of(p, c, acc, words, want, covered);
  return factors.empty() ? addends_of(p, c, acc, words, want, covered) : factors;
}

int64_t outputs_of_values(const std::vector<Fact> &facts) {
  int64_t n = 0;
  for (const Fact &f : facts) n += is_of_values(f) ? f.outputs : 0;
  return n;
}

/// What D looks like beside the outputs of a partial explanation, which are `given`.
void describe_rest(const Problem &p, const Computation &c, std::span<const uint8_t> words, const Words &given,
                   Finding &f) {
  Structure structure = structure_of(p.word, p.m(), p.n(), words, given);
  f.rest = structure.facts;
  const bool plain = c.reduction.arithmetic == Arithmetic::unit && !c.reduction.split() &&
                     !c.reduction.fold_scales && c.reduction.finish == Finish::as_unit &&
                     !c.reduction.start_from_c && !c.epilogue.column_major_d && !c.epilogue.round_acc &&
                     !c.epilogue.round_twice && !c.epilogue.truncate && !c.epilogue.drop_sign;
  if (structure.left != 0 && plain) {
    const std::vector<Fact> facts = value_facts(p, c, words, given, structure.covered);
    f.rest.insert(f.rest.end(), facts.begin(), facts.end());
  }
  f.rest_accounts = outputs_of_values(f.rest) == structure.left;
}

bool whole(const Trial &t) { return t.finding.sampled > 0 && t.finding.sampled_equal == t.finding.sampled; }

} // namespace

Words OutputSample::keep(FormatId type, Words words) const {
  if (kept.empty()) return words;
  const size_t width = size_t(format(type).storage_bits / 8);
  Words some;
  some.reserve(kept.size() * width);
  for (const int64_t at : kept)
    some.insert(some.end(), words.begin() + at * int64_t(width), words.begin() + (at + 1) * int64_t(width));
  return some;
}

int64_t count_equal(const Words &x, std::span<const uint8_t> y, size_t width) {
  int64_t equal = 0;
  for (size_t at = 0; at < x.size(); at += width)
    equal += std::memcmp(x.data() + at, y.data() + at, width) == 0 ? 1 : 0;
  return equal;
}

OutputSample make_sample(const Problem &p, std::span<const uint8_t> d, const Words &reference,
                         const std::vector<bool> &covered, int64_t count) {
  const size_t width = width_of(p);
  std::vector<bool> rows(size_t(p.m())), cols(size_t(p.n()));
  int64_t first = -1;
  for (int64_t at = 0; at < p.m() * p.n(); ++at)
    if (!covered[size_t(at)] &&
        std::memcmp(d.data() + size_t(at) * width, reference.data() + size_t(at) * width, width) != 0) {
      rows[size_t(at / p.n())] = cols[size_t(at % p.n())] = true;
      if (first < 0) first = at;
    }
  OutputSample s;
  if (first < 0) return s;
  s.rows = choose(p.m(), members(rows), first / p.n(), count);
  s.cols = choose(p.n(), members(cols), first % p.n(), count);
  bool some_covered = false;
  for (const int64_t i : s.rows)
    for (const int64_t j : s.cols) some_covered = some_covered || covered[size_t(i * p.n() + j)];
  const auto gather = [&](std::span<const uint8_t> from) {
    Words out;
    for (const int64_t i : s.rows)
      for (const int64_t j : s.cols) {
        const uint8_t *at = from.data() + size_t(i * p.n() + j) * width;
        out.insert(out.end(), at, at + width);
      }
    return out;
  };
  if (some_covered)
    for (size_t r = 0; r < s.rows.size(); ++r)
      for (size_t c = 0; c < s.cols.size(); ++c)
        if (!covered[size_t(s.rows[r] * p.n() + s.cols[c])]) s.kept.push_back(int64_t(r * s.cols.size() + c));
  s.d = s.keep(p.word, gather(d));
  s.reference = s.keep(p.word, gather(reference));
  return s;
}

bool Trial::apply(const Problem &p, Computation &c) const {
  return first->apply(p, variants[0], c) &&
         (second == nullptr || (second->apply(p, variants[1], c) && fits(c)));
}

void Trial::describe(const Problem &p, const Computation &c) {
  const auto title = [&](const Hypothesis &h, int variant) {
    return h.title + (h.detail ? ": " + h.detail(p, variant, c) : "");
  };
  finding.name = first->name;
  finding.title = title(*first, variants[0]);
  finding.advice = first->advice;
  finding.topic = first->topic;
  finding.variant = variants[0];
  if (second == nullptr) return;
  finding.name += " + " + second->name;
  finding.title += "; and " + title(*second, variants[1]);
  if (second->advice != first->advice) finding.advice += " " + second->advice;
}

bool nearer(const Finding &x, const Finding &y) {
  const auto share = [](const Finding &f) {
    return double(f.sampled_equal) / double(std::max<int64_t>(f.sampled, 1));
  };
  if (x.finite != y.finite) return x.finite;
  if (share(x) != share(y)) return share(x) > share(y);
  return x.distance < y.distance;
}

void measure(const Problem &p, const Computation &c, const OutputSample &s, Trial &t) {
  const Words words = s.keep(p.word, evaluate(p, c, s.rows, s.cols));
  t.effect = words != s.reference;
  t.finding.sampled = s.outputs();
  t.finding.sampled_equal = count_equal(words, s.d, width_of(p));
  const Comparison x = compare(p.word, 1, s.outputs(), words, s.d);
  t.finding.distance = x.distance;
  t.finding.finite = x.nan_got == 0 && x.infinities == 0;
}

Report diagnose(const Problem &p, std::span<const uint8_t> words, const DiagnoseOptions &options) {
  check_problem(p, words);
  Report report;
  const Computation reference = reference_computation(p);
  report.alpha = reference.epilogue.alpha;
  const Words want = evaluate(p, reference, all_of(p.m()), all_of(p.n()));
  report.comparison = compare(p.word, p.m(), p.n(), words, want);
  if (report.comparison.equal()) {
    report.verdict = verdict_of(p, report);
    return report;
  }
  Structure structure = structure_of(p.word, p.m(), p.n(), words, want);
  report.facts = structure.facts;
  report.covered = report.comparison.differing - structure.left;
  const auto finish = [&] {
    report.next = next_captures(p, report);
    report.verdict = verdict_of(p, report);
    return report;
  };
  const auto trace_at = [&](int64_t at) {
    report.reference_trace = to_text(trace_output(reference, at / p.n(), at % p.n()));
  };
  trace_at(report.comparison.first);
  // an accumulator that overflows explains Inf, scales that are read as NaN the NaN that tensor cores make
  const CodeView d{words.data(), format(p.word).storage_bits};
  const uint64_t made = (uint64_t{1} << (format(p.word).storage_bits - 1)) - 1;
  const bool overflow = std::any_of(structure.facts.begin(), structure.facts.end(), [&](const Fact &f) {
    return f.kind == "infinity" || (f.kind == "nan" && d[f.first] == made);
  });
  report.facts_account = structure.left == 0;
  if (report.facts_account && !overflow) return finish();
  if (report.facts_account) {
    structure.covered.assign(structure.covered.size(), false);
    structure.left = report.comparison.differing;
    report.covered = 0;
  }

  if (!report.facts_account) {
    const std::vector<Fact> facts = value_facts(p, reference, words, want, structure.covered);
    report.facts.insert(report.facts.end(), facts.begin(), facts.end());
  }
  std::vector<bool> open(structure.covered.size());
  int64_t first = -1;
  const size_t width = width_of(p);
  for (size_t at = 0; at < open.size(); ++at) {
    open[at] = !structure.covered[at] &&
               std::memcmp(words.data() + at * width, want.data() + at * width, width) != 0;
    if (open[at] && first < 0) first = int64_t(at);
  }
  trace_at(first);
  report.where = place_of(p, open);

  const OutputSample s = make_sample(p, words, want, structure.covered, std::max<int64_t>(options.sample, 4));
  const OutputSample small =
      make_sample(p, words, want, structure.covered, std::min<int64_t>(options.sample, 16));
  report.sampled = s.outputs();
  report.sampled_equal = count_equal(s.reference, s.d, width);

  std::vector<Hypothesis> all = hypotheses(p);
  add_amax_hypotheses(p, ratios_of(p.word, s), all);
  std::vector<Trial> trials;
  const At at_small{small, {p, reference, small}}, at_large{s, {p, reference, s}};
  for (size_t h = 0; h < all.size(); ++h) {
    if (options.progress) options.progress(double(h) / double(all.size()));
    if (all[h].by_parts) continue;
    std::optional<Trial> t = attempt(p, reference, at_small, at_large, all[h], report.tried);
    if (!t) continue;
    if (t->effect)
      trials.push_back(std::move(*t));
    else
      report.no_effect.push_back(all[h].name);
  }
  // cuts and parts of K
  const std::vector<Probe> probes = probes_of(p, s, 12);
  const std::vector<Hypothesis> jumps = jump_hypotheses(fit_jumps(p, reference, probes, 4), p.a.raw.k);
  const auto try_fitted = [&](const Hypothesis &h, int variant) {
    Trial t;
    t.first = &h;
    t.variants[0] = variant;
    Computation c = reference;
    if (!h.apply(p, variant, c)) return;
    measure(p, c, s, t);
    t.describe(p, c);
    if (t.effect) trials.push_back(std::move(t));
  };
  for (const Hypothesis &h : jumps) try_fitted(h, 0);
  std::vector<std::vector<int64_t>> cuts;
  for (const Fitted &f : fit_parts(p, reference, all, probes, 64)) {
    // one form of a mistake is enough where it gives the whole sample
    if (!trials.empty() && trials.back().first == f.hypothesis && whole(trials.back())) continue;
    Computation c = reference;
    (void)f.hypothesis->apply(p, f.variant, c);
    // an uneven cut that is an even one, or a promotion, has a better name
    if (f.hypothesis->name.rfind("split-at", 0) == 0 &&
        std::find(cuts.begin(), cuts.end(), c.reduction.cuts) != cuts.end())
      continue;
    cuts.push_back(c.reduction.cuts);
    try_fitted(*f.hypothesis, f.variant);
  }
  const auto order = [](const Trial &x, const Trial &y) { return nearer(x.finding, y.finding); };
  std::stable_sort(trials.begin(), trials.end(), order);
  // factors that account for all that is left are plainer than two mistakes together
  report.by_factor = outputs_of_values(report.facts) == structure.left;
  if (options.pair_cost > 0 && !report.by_factor && !report.facts_account &&
      std::none_of(trials.begin(), trials.end(), whole)) {
    std::vector<Trial> pairs = find_pairs(p, reference, small, s, all, trials, options.pair_cost,
                                          report.pairs_tried, options.progress);
    trials.insert(trials.begin(), std::make_move_iterator(pairs.begin()),
                  std::make_move_iterator(pairs.end()));
  }
  const int64_t outputs = report.comparison.total - report.covered;
  for (size_t t = 0; t < trials.size(); ++t) {
    Finding &f = trials[t].finding;
    // a few words are equal by chance: what is offered gives a twentieth of those that differ
    const bool better = f.finite && f.sampled == report.sampled &&
                        20 * (f.sampled_equal - report.sampled_equal) > report.sampled - report.sampled_equal;
    if (whole(trials[t]) || (t == 0 && better)) {
      Computation c = reference;
      (void)trials[t].apply(p, c);
      if (cost(c, p.m() * p.n()) <= options.check_cost) {
        const Verified v = verify(p, c, words, structure.covered);
        f.equal = v.open;
        if (f.equal != outputs) f.leaves = place_of(p, v.missed);
        if (better && f.equal != outputs) describe_rest(p, c, words, v.given, f);
        f.explains_all = f.equal == outputs && v.covered == report.covered;
      }
      f.parting =
          trials[t].second != nullptr ? std::nullopt : locate(p, c, f.topic, first / p.n(), first % p.n());
    }
    (f.equal == outputs                ? report.candidates
     : whole(trials[t]) && f.equal < 0 ? report.likely
     : better                          ? report.partial
                                       : report.others)
        .push_back(std::move(f));
  }
  if (report.facts_account && report.candidates.empty()) { // then nothing is left to explain
    report.covered = report.comparison.differing;
    report.likely.clear();
    report.partial.clear();
    report.others.clear();
  }
  std::stable_sort(report.candidates.begin(), report.candidates.end(),
                   [](const Finding &x, const Finding &y) { return x.explains_all > y.explains_all; });
  return finish();
}

Trace trace_output(const Computation &c, int64_t i, int64_t j) {
  const Unit &unit = c.reduction.unit;
  const auto row = [&](const RawOperand &o, Side side, int64_t r) {
    const auto at = [r](const auto &v, int64_t n) { return std::span(v).subspan(size_t(r * n), size_t(n)); };
    return make_operand(unit, side, RawCodes{1, o.k, at(o.codes, o.row_bytes())},
                        RawScales(at(o.scales, o.scale_cols()), ScaleLayout::linear));
  };
  const GemmOperand a = row(*c.a, Side::a, i), b = row(*c.b, Side::b, j);
  return trace_dot(unit.rule, {a.row(0), b.row(0), a.row_scales(0), b.row_scales(0)}, a.padded_k, 0,
                   c.reduction.accumulation, c.reduction.finish);
}

std::optional<Parting> locate(const Problem &p, const Computation &mistake, Topic topic, int64_t i,
                              int64_t j) {
  if (topic == Topic::operand || topic == Topic::quantizer) return std::nullopt;
  if (topic == Topic::epilogue && !mistake.reduction.start_from_c)
    return Parting{Stage::epilogue, -1, "equal accumulators"};
  const Computation reference = reference_computation(p);
  const Reduction &r = mistake.reduction;
  if (r.start_from_c) return Parting{Stage::reduction, 0, "the chain starts from C"};
  if (r.arithmetic != Arithmetic::unit)
    return Parting{Stage::reduction, -1, "FP32 additions take the place of the fused steps"};
  if (r.fold_scales) return Parting{Stage::reduction, 0, "block scales are rounded before the step"};
  if (r.split())
    return Parting{Stage::reduction, r.cuts.front(),
                   r.combine == Combine::carried ? "the accumulator is rounded there"
                                                 : "a new partial sum starts there"};
  if (mistake.a->format != reference.a->format)
    return Parting{Stage::reduction, -1, "another instruction on other operands"};
  if (*mistake.a != *reference.a) return Parting{Stage::reduction, 0, "the same steps in another order"};
  return find_parting(trace_output(reference, i, j), trace_output(mistake, i, j));
}

} // namespace nvfp4::diagnosis
