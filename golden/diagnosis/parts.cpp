// SPDX-License-Identifier: Apache-2.0
// Tables of partial chains.
#include "nvfp4/golden/diagnosis/parts.hpp"

#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/gemm/epilogue.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::diagnosis {
namespace {

/// The two rows of an output, by instruction.
struct Line {
  GemmOperand a, b;
  int64_t step, steps;
  const UnitRule *rule;
  Accumulation model;

  Line(const Computation &c, const Probe &probe)
      : step(c.reduction.unit.rule.k), rule(&c.reduction.unit.rule), model(c.reduction.accumulation) {
    const Unit &unit = c.reduction.unit;
    const auto row = [&](const RawOperand &o, Side side, int64_t r) {
      return make_operand(unit, side, RawCodes{1, o.k, std::span(o.codes).subspan(size_t(r * o.row_bytes()), size_t(o.row_bytes()))},
                          RawScales(std::span(o.scales).subspan(size_t(r * o.scale_cols()), size_t(o.scale_cols())),
                                    ScaleLayout::linear));
    };
    a = row(*c.a, Side::a, probe.i);
    b = row(*c.b, Side::b, probe.j);
    steps = a.padded_k / step;
  }
  [[nodiscard]] uint64_t run(int64_t s, uint64_t start) const {
    const int64_t scales = rule->scale_row(s * step);
    const auto from = [&](const GemmOperand &o) { return rule->scale_block == 0 ? nullptr : o.row_scales(0) + scales; };
    return dot(*rule, {a.row(0).from(s * step), b.row(0).from(s * step), from(a), from(b)}, step, start, model);
  }
  /// The value of a step alone, for estimates.
  [[nodiscard]] double value_of(int64_t s) const { return value(rule->acc, run(s, 0)); }
};

/// Words of the chains [s, e) of one output, s < e <= steps.
class PartTable {
public:
  explicit PartTable(const Line &line) : steps_(line.steps) {
    words_.resize(size_t(steps_ * (steps_ + 1) / 2));
#pragma omp parallel for schedule(dynamic) if (steps_ > 64)
    for (int64_t s = 0; s < steps_; ++s) {
      uint64_t acc = 0;
      for (int64_t e = s + 1; e <= steps_; ++e) words_[index(s, e)] = acc = line.run(e - 1, acc);
    }
  }
  [[nodiscard]] uint64_t operator()(int64_t s, int64_t e) const { return words_[index(s, e)]; }

private:
  [[nodiscard]] size_t index(int64_t s, int64_t e) const { return size_t(s * steps_ - s * (s - 1) / 2 + (e - s - 1)); }
  int64_t steps_;
  std::vector<uint64_t> words_;
};

/// More steps than this would need tables of gigabytes.
constexpr int64_t kMostSteps = 2048;

bool plain(const Computation &c) {
  return c.reduction.arithmetic == Arithmetic::unit && !c.reduction.start_from_c && !c.reduction.split();
}

} // namespace

std::vector<Fitted> fit_parts(const Problem &p, const Computation &reference, const std::vector<Hypothesis> &all,
                              const std::vector<Probe> &probes, size_t most) {
  std::vector<Fitted> found;
  if (!plain(reference) || probes.empty()) return found;
  const int64_t step = reference.reduction.unit.rule.k;
  if ((reference.a->k + step - 1) / step > kMostSteps) return found;
  std::vector<PartTable> tables;
  for (const Probe &probe : probes) tables.emplace_back(Line(reference, probe));
  const FormatId acc = reference.reduction.unit.rule.acc;
  const auto gives = [&](const Computation &c, size_t t, std::vector<uint64_t> &parts) {
    const Reduction &r = c.reduction;
    parts.clear();
    const int64_t steps = (c.a->k + step - 1) / step;
    for (size_t i = 0; i <= r.cuts.size(); ++i)
      parts.push_back(tables[t](i == 0 ? 0 : r.cuts[i - 1] / step, i == r.cuts.size() ? steps : r.cuts[i] / step));
    Epilogue e = c.epilogue;
    if (r.alpha_on_partials) e.alpha = 1.0f;
    return output_word(p, e, acc, join_parts(r, c.epilogue.alpha, parts), probes[t].i, probes[t].j) == probes[t].word;
  };
  std::vector<uint64_t> parts;
  for (const Hypothesis &h : all) {
    if (!h.by_parts) continue;
    Computation c = reference;
    size_t of_this = 0;
    for (int variant = 0; found.size() < most && of_this < 4; ++variant) {
      c.reduction = reference.reduction;
      if (!h.apply(p, variant, c)) break;
      bool fits = true;
      for (size_t t = 0; fits && t < probes.size(); ++t) fits = gives(c, t, parts);
      if (!fits) continue;
      found.push_back({&h, variant});
      ++of_this;
    }
  }
  return found;
}

std::vector<Jump> fit_jumps(const Problem &p, const Computation &reference, const std::vector<Probe> &probes,
                            size_t most) {
  std::vector<Jump> found;
  if (!plain(reference) || probes.empty()) return found;
  std::vector<Line> lines;
  for (const Probe &probe : probes) lines.emplace_back(reference, probe);
  const int64_t steps = lines[0].steps, step = lines[0].step, k = reference.a->k;
  if (steps < 2 || steps > kMostSteps) return found;
  const FormatId acc = reference.reduction.unit.rule.acc;
  std::vector<std::vector<uint64_t>> prefixes; // the word after s steps
  for (const Line &line : lines) {
    std::vector<uint64_t> words(size_t(steps) + 1);
    for (int64_t s = 0; s < steps; ++s) words[size_t(s) + 1] = line.run(s, words[size_t(s)]);
    prefixes.push_back(std::move(words));
  }
  const auto gives = [&](size_t t, Jump j) {
    uint64_t word = prefixes[t][size_t(j.from)];
    for (int64_t s = j.to; s < steps; ++s) word = lines[t].run(s, word);
    return output_word(p, reference.epilogue, acc, word, probes[t].i, probes[t].j) == probes[t].word;
  };
  // an estimate of the first two probes excludes nearly all
  struct Estimate {
    std::vector<double> sums; ///< over the first s steps
    double target, slack;
    bool known;
  };
  std::vector<Estimate> estimates;
  for (size_t t = 0; t < std::min<size_t>(probes.size(), 2); ++t) {
    Estimate e{std::vector<double>(size_t(steps) + 1), 0, 0, false};
    double size = 0;
    for (int64_t s = 0; s < steps; ++s) {
      const double v = lines[t].value_of(s);
      e.sums[size_t(s) + 1] = e.sums[size_t(s)] + v;
      size += std::fabs(v);
    }
    const double alpha = double(reference.epilogue.alpha), d = value(p.word, probes[t].word);
    const bool direct = reference.epilogue.beta == 0.0f && reference.epilogue.row_a.empty() &&
                        reference.epilogue.row_b.empty() && alpha != 0;
    e.target = d / alpha;
    e.slack = std::ldexp(std::fabs(e.target), -format(p.round).mantissa_bits) +
              size * (acc == FormatId::f16 ? 0x1p-6 : 0x1p-16);
    e.known = direct && std::isfinite(e.target) && std::isfinite(size);
    estimates.push_back(std::move(e));
  }
  const auto possible = [&](Jump j) {
    for (const Estimate &e : estimates)
      if (e.known && !(std::fabs(e.sums[size_t(j.from)] + e.sums[size_t(steps)] - e.sums[size_t(j.to)] - e.target) <= e.slack))
        return false;
    return true;
  };
  const auto try_jump = [&](Jump j) {
    if (j.from == j.to || found.size() >= most || !possible(j)) return;
    for (size_t t = 0; t < probes.size(); ++t)
      if (!gives(t, j)) return;
    found.push_back({std::min(j.from * step, k), std::min(j.to * step, k)});
  };
  for (int64_t s = 1; s < steps; ++s) try_jump({s, steps}); // a prefix
  for (int64_t s = 1; s < steps; ++s) try_jump({0, s});     // a suffix
  for (int64_t s = 1; s <= steps; ++s)
    for (int64_t e = 0; e < steps; ++e) try_jump({s, e});
  return found;
}

} // namespace nvfp4::diagnosis
