// SPDX-License-Identifier: Apache-2.0
// Sampling, trial of every hypothesis, ranking and verification.
#include "nvfp4/golden/diagnosis/diagnose.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace nvfp4::diagnosis {
namespace {

using Index = std::vector<int64_t>;
using Words = std::vector<uint8_t>;

Index all_of(int64_t n) {
  Index v(static_cast<size_t>(n));
  std::iota(v.begin(), v.end(), 0);
  return v;
}

/// Up to `count` of `from`, evenly.
void pick(const Index &from, int64_t count, Index &to) {
  const int64_t n = int64_t(from.size());
  for (int64_t i = 0; i < std::min(count, n); ++i) to.push_back(from[size_t(n <= count ? i : i * n / count)]);
}

/// Half evenly among the indices that are hit (the first of them included), the rest evenly among all.
Index choose(int64_t n, const Index &hit, int64_t first, int64_t count) {
  if (n <= count) return all_of(n);
  Index chosen{first};
  pick(hit, count / 2 - 1, chosen);
  pick(all_of(n), count - int64_t(chosen.size()), chosen);
  std::sort(chosen.begin(), chosen.end());
  chosen.erase(std::unique(chosen.begin(), chosen.end()), chosen.end());
  return chosen;
}

struct Sample {
  Index rows, cols;
  Words d, reference; // (rows, cols)
};

Words gather(FormatId type, int64_t n, std::span<const uint8_t> words, const Index &rows, const Index &cols) {
  const size_t width = size_t(format(type).storage_bits / 8);
  Words out;
  out.reserve(rows.size() * cols.size() * width);
  for (const int64_t i : rows)
    for (const int64_t j : cols) {
      const uint8_t *at = words.data() + size_t(i * n + j) * width;
      out.insert(out.end(), at, at + width);
    }
  return out;
}

int64_t count_equal(const Words &x, std::span<const uint8_t> y, size_t width) {
  int64_t equal = 0;
  for (size_t at = 0; at < x.size(); at += width)
    equal += std::equal(x.begin() + long(at), x.begin() + long(at + width), y.begin() + long(at)) ? 1 : 0;
  return equal;
}

Sample make_sample(const Problem &p, std::span<const uint8_t> d, const Words &reference, int64_t first,
                   int64_t count) {
  const size_t width = size_t(format(p.word).storage_bits / 8);
  std::vector<bool> rows(size_t(p.m())), cols(size_t(p.n()));
  for (int64_t i = 0; i < p.m(); ++i)
    for (int64_t j = 0; j < p.n(); ++j) {
      const size_t at = size_t(i * p.n() + j) * width;
      if (std::memcmp(d.data() + at, reference.data() + at, width) != 0)
        rows[size_t(i)] = cols[size_t(j)] = true;
    }
  const auto hit = [](const std::vector<bool> &set) {
    Index v;
    for (size_t i = 0; i < set.size(); ++i)
      if (set[i]) v.push_back(int64_t(i));
    return v;
  };
  Sample s;
  s.rows = choose(p.m(), hit(rows), first / p.n(), count);
  s.cols = choose(p.n(), hit(cols), first % p.n(), count);
  s.d = gather(p.word, p.n(), d, s.rows, s.cols);
  s.reference = gather(p.word, p.n(), reference, s.rows, s.cols);
  return s;
}

/// A finding with the computation that it stands for.
struct Trial {
  Finding finding;
  Computation computation;
  bool effect = false;
};

bool nearer(const Trial &x, const Trial &y) {
  const auto share = [](const Finding &f) {
    return double(f.sampled_equal) / double(std::max<int64_t>(f.sampled, 1));
  };
  const Finding &p = x.finding, &q = y.finding;
  if (share(p) != share(q)) return share(p) > share(q);
  const bool np = p.distance != p.distance, nq = q.distance != q.distance;
  return np != nq ? nq : p.distance < q.distance;
}

void measure(const Problem &p, const Computation &c, const Sample &s, Trial &t) {
  const Words words = evaluate(p, c, s.rows, s.cols);
  t.effect = words != s.reference;
  t.finding.sampled = int64_t(s.rows.size() * s.cols.size());
  t.finding.sampled_equal = count_equal(words, s.d, size_t(format(p.word).storage_bits / 8));
  t.finding.distance = compare(p.word, int64_t(s.rows.size()), int64_t(s.cols.size()), words, s.d).distance;
}

/// The best variant of what `apply` does to the reference; no variants: nothing. What gives fewer words of
/// the small sample than the reference is not tried on the large one.
template <class Apply>
std::optional<Trial> attempt(const Problem &p, const Computation &reference, const Sample &small,
                             const Sample &large, Apply apply) {
  std::optional<Trial> best;
  const int64_t expected = count_equal(small.reference, small.d, size_t(format(p.word).storage_bits / 8));
  for (int variant = 0;; ++variant) {
    Trial t;
    t.computation = reference;
    if (!apply(variant, t.computation)) return best;
    t.finding.variant = variant;
    measure(p, t.computation, small, t);
    if (t.finding.sampled_equal >= expected && &small != &large) measure(p, t.computation, large, t);
    if (!best || (t.effect && (!best->effect || nearer(t, *best)))) best = std::move(t);
  }
}

void describe(const Hypothesis &h, Finding &f) {
  f.name = h.name;
  f.title = h.title;
  f.advice = h.advice;
  f.topic = h.topic;
}

/// Two mistakes together, of those that change something.
std::vector<Trial> try_pairs(const Problem &p, const Computation &reference, const Sample &small,
                             const Sample &large, const std::vector<Hypothesis> &all,
                             const std::vector<bool> &effective, void (*progress)(double)) {
  std::vector<Trial> found;
  for (size_t x = 0; x < all.size(); ++x) {
    if (progress != nullptr) progress(double(x) / double(all.size()));
    for (size_t y = x + 1; effective[x] && y < all.size(); ++y) {
      if (!effective[y]) continue;
      std::optional<Trial> t = attempt(p, reference, small, small, [&](int variant, Computation &c) {
        return all[x].apply(p, 0, c) && all[y].apply(p, variant, c);
      });
      if (!t || t->finding.sampled_equal != t->finding.sampled) continue;
      measure(p, t->computation, large, *t);
      if (t->finding.sampled_equal != t->finding.sampled) continue;
      describe(all[x], t->finding);
      t->finding.name += " + " + all[y].name;
      t->finding.title += "; and " + all[y].title;
      t->finding.advice += " " + all[y].advice;
      found.push_back(std::move(*t));
    }
  }
  return found;
}

/// The constant c with D = c * reference on nearly all of the sample, if there is one.
std::optional<double> constant_factor(FormatId type, const Sample &s) {
  const CodeView x{s.d.data(), format(type).storage_bits}, y{s.reference.data(), format(type).storage_bits};
  std::vector<double> ratios;
  for (int64_t i = 0; i < int64_t(s.rows.size() * s.cols.size()); ++i) {
    const double d = value(type, x[i]), r = value(type, y[i]);
    if (r != 0 && d != 0 && std::isfinite(d / r)) ratios.push_back(d / r);
  }
  if (ratios.size() < 8) return std::nullopt;
  std::nth_element(ratios.begin(), ratios.begin() + long(ratios.size() / 2), ratios.end());
  const double c = ratios[ratios.size() / 2],
               slack = 4 * std::ldexp(std::fabs(c), -format(type).mantissa_bits);
  const auto near =
      std::count_if(ratios.begin(), ratios.end(), [&](double r) { return std::fabs(r - c) <= slack; });
  const bool is_one = std::fabs(c - 1) <= slack / std::fabs(c);
  return !is_one && near >= int64_t(ratios.size()) * 9 / 10 ? std::optional(c) : std::nullopt;
}

/// Words of all of D that a computation gives.
int64_t verify(const Problem &p, const Computation &c, std::span<const uint8_t> words) {
  const Index rows = all_of(p.m()), cols = all_of(p.n());
  const size_t width = size_t(format(p.word).storage_bits / 8), band = 512;
  int64_t equal = 0;
  for (size_t first = 0; first < rows.size(); first += band) {
    const size_t count = std::min(band, rows.size() - first), bytes = cols.size() * width;
    equal += count_equal(evaluate(p, c, std::span(rows).subspan(first, count), cols),
                         words.subspan(first * bytes, count * bytes), width);
  }
  return equal;
}

} // namespace

Report diagnose(const Problem &p, std::span<const uint8_t> words, const DiagnoseOptions &options) {
  check_problem(p, words);
  Report report;
  const Computation reference = reference_computation(p);
  report.alpha = reference.epilogue.alpha;
  const Words want = evaluate(p, reference, all_of(p.m()), all_of(p.n()));
  report.comparison = compare(p.word, p.m(), p.n(), words, want);
  const int64_t first = report.comparison.first;
  if (first < 0) return report;
  const int64_t i = first / p.n(), j = first % p.n();
  report.reference_trace = to_text(trace_output(reference, i, j));

  const Sample s = make_sample(p, words, want, first, std::max<int64_t>(options.sample, 4));
  const Sample small = make_sample(p, words, want, first, std::min<int64_t>(options.sample, 16));
  const size_t width = size_t(format(p.word).storage_bits / 8);
  report.sampled = int64_t(s.rows.size() * s.cols.size());
  report.sampled_equal = count_equal(s.reference, s.d, width);
  report.factor = constant_factor(p.word, s);

  const std::vector<Hypothesis> all = hypotheses(p);
  std::vector<bool> effective(all.size());
  std::vector<Trial> trials;
  for (size_t h = 0; h < all.size(); ++h) {
    std::optional<Trial> t =
        attempt(p, reference, small, s, [&](int v, Computation &c) { return all[h].apply(p, v, c); });
    if (options.progress != nullptr) options.progress(double(h + 1) / double(all.size()));
    if (!t) continue;
    effective[h] = t->effect;
    describe(all[h], t->finding);
    if (t->effect)
      trials.push_back(std::move(*t));
    else
      report.no_effect.push_back(all[h].name);
  }
  std::stable_sort(trials.begin(), trials.end(), nearer);
  const auto whole = [](const Trial &t) { return t.finding.sampled_equal == t.finding.sampled; };
  if (options.pairs && std::none_of(trials.begin(), trials.end(), whole)) {
    std::vector<Trial> pairs = try_pairs(p, reference, small, s, all, effective, options.progress);
    trials.insert(trials.begin(), std::make_move_iterator(pairs.begin()),
                  std::make_move_iterator(pairs.end()));
  }
  for (size_t t = 0; t < trials.size(); ++t) {
    Finding &f = trials[t].finding;
    const bool better = f.sampled == report.sampled && f.sampled_equal > report.sampled_equal;
    if (whole(trials[t]) || (t == 0 && better)) {
      f.equal = verify(p, trials[t].computation, words);
      f.parting = locate(p, trials[t].computation, f.topic, i, j);
    }
    (f.explains(report.comparison.total) ? report.candidates
     : better                            ? report.partial
                                         : report.others)
        .push_back(std::move(f));
  }
  return report;
}

Trace trace_output(const Computation &c, int64_t i, int64_t j) {
  const Unit &unit = c.chain.unit;
  const auto row = [&](const RawOperand &o, Side side, int64_t r) {
    const auto at = [r](const auto &v, int64_t n) { return std::span(v).subspan(size_t(r * n), size_t(n)); };
    return make_operand(unit, side, RawCodes{1, o.k, at(o.codes, o.row_bytes())},
                        RawScales(at(o.scales, o.blocks()), ScaleLayout::linear));
  };
  const GemmOperand a = row(*c.a, Side::a, i), b = row(*c.b, Side::b, j);
  return trace_dot(unit.rule, {a.row(0), b.row(0), a.row_scales(0), b.row_scales(0)}, a.padded_k, 0,
                   c.chain.accumulation, c.chain.finish);
}

std::optional<Parting> locate(const Problem &p, const Computation &mistake, Topic topic, int64_t i,
                              int64_t j) {
  if (topic == Topic::operand || topic == Topic::quantizer) return std::nullopt;
  if (topic == Topic::epilogue && !mistake.chain.start_from_c)
    return Parting{Stage::epilogue, -1, "equal accumulators"};
  const Computation reference = reference_computation(p);
  const Chain &chain = mistake.chain;
  if (chain.start_from_c) return Parting{Stage::reduction, 0, "the chain starts from C"};
  if (chain.arithmetic != Arithmetic::unit)
    return Parting{Stage::reduction, -1, "FP32 additions take the place of the fused steps"};
  if (chain.slice != 0 && chain.slice < mistake.a->k)
    return Parting{Stage::reduction, -1,
                   "partial sums over " + std::to_string(chain.slice) + " elements of K are added in FP32"};
  if (mistake.a->format != reference.a->format)
    return Parting{Stage::reduction, -1, "another instruction on other operands"};
  if (*mistake.a != *reference.a) return Parting{Stage::reduction, 0, "the same steps in another order"};
  return find_parting(trace_output(reference, i, j), trace_output(mistake, i, j));
}

} // namespace nvfp4::diagnosis
