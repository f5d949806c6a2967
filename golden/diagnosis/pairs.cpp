// SPDX-License-Identifier: Apache-2.0
// Two mistakes at once. Operands are edited whole once and cut to a few rows, on which chains and epilogues are cheap.
#include "nvfp4/golden/diagnosis/parts.hpp"
#include "nvfp4/golden/diagnosis/sample.hpp"

#include <algorithm>
#include <numeric>

namespace nvfp4::diagnosis {
namespace {

constexpr size_t kMostFound = 4;
constexpr int kMostVariants = 6; ///< of one mistake in a pair
constexpr int64_t kSmallOperands = int64_t{1} << 17; ///< elements of A and B up to which two edits of one operand are tried

bool of_operand(const Hypothesis &h) { return h.topic == Topic::operand || h.topic == Topic::quantizer; }

/// A mistake in the operands, made, on the rows of the probe alone.
struct Edited {
  const Trial *trial;
  SmallComputation small;
};

class Search {
public:
  Search(const Problem &p, const Computation &reference, const OutputSample &small, const OutputSample &large, double budget,
         int64_t &tried)
      : p_(p), reference_(reference), large_(large), budget_(budget), tried_(tried), width_(size_t(format(p.word).storage_bits / 8)) {
    // few rows and columns of the small sample, the first included
    OutputSample s = small;
    const auto thin = [](Indices &v) {
      Indices few;
      for (size_t i = 0; i < std::min<size_t>(v.size(), 6); ++i) few.push_back(v[i * v.size() / std::min<size_t>(v.size(), 6)]);
      return few;
    };
    rows_ = thin(s.rows), cols_ = thin(s.cols);
    for (size_t r = 0; r < rows_.size(); ++r)
      for (size_t c = 0; c < cols_.size(); ++c) {
        const int64_t x = std::find(s.rows.begin(), s.rows.end(), rows_[r]) - s.rows.begin(),
                      y = std::find(s.cols.begin(), s.cols.end(), cols_[c]) - s.cols.begin(),
                      at = x * int64_t(s.cols.size()) + y;
        const auto kept = std::find(s.kept.begin(), s.kept.end(), at);
        if (!s.kept.empty() && kept == s.kept.end()) continue;
        const int64_t o = s.kept.empty() ? at : kept - s.kept.begin();
        positions_.push_back(int64_t(r * cols_.size() + c));
        d_.insert(d_.end(), s.d.begin() + o * int64_t(width_), s.d.begin() + (o + 1) * int64_t(width_));
      }
    base_ = cut_out(p_, reference_, rows_, cols_);
    all_rows_.resize(rows_.size()), all_cols_.resize(cols_.size());
    std::iota(all_rows_.begin(), all_rows_.end(), 0);
    std::iota(all_cols_.begin(), all_cols_.end(), 0);
  }

  [[nodiscard]] bool more() const { return found.size() < kMostFound && spent_ < budget_ && !d_.empty(); }
  [[nodiscard]] const SmallComputation &base() const { return base_; }
  [[nodiscard]] SmallComputation small(const Computation &c) const { return cut_out(p_, c, rows_, cols_); }

  /// Whether a computation on the probe rows gives D there.
  bool gives(const Problem &small, const Computation &c) {
    if (!fits(c)) return false;
    ++tried_;
    spent_ += 5e-5 + cost(c, int64_t(rows_.size() * cols_.size()));
    const Words words = evaluate(small, c, all_rows_, all_cols_);
    for (size_t o = 0; o < positions_.size(); ++o)
      if (std::memcmp(words.data() + size_t(positions_[o]) * width_, d_.data() + o * width_, width_) != 0) return false;
    return true;
  }
  void spend(double seconds) { spent_ += seconds; }

  /// Every variant of `second` on top of what `on` has made.
  void add(const Hypothesis &first, int variant, const SmallComputation &on, const Hypothesis &second) {
    for (int v = 0; v < kMostVariants && more(); ++v) {
      Computation c = on.computation;
      if (!second.apply(on.problem, v, c)) return;
      if (gives(on.problem, c)) confirm(first, variant, second, v);
    }
  }

  /// On the large sample, with whole operands.
  void confirm(const Hypothesis &first, int variant, const Hypothesis &second, int second_variant) {
    Trial t;
    t.first = &first, t.second = &second;
    t.variants[0] = variant, t.variants[1] = second_variant;
    Computation c = reference_;
    if (!t.apply(p_, c)) return;
    measure(p_, c, large_, t);
    spent_ += cost(c, large_.outputs());
    if (t.finding.sampled_equal != t.finding.sampled) return;
    t.describe(p_, c);
    found.push_back(std::move(t));
  }

  [[nodiscard]] std::vector<Probe> probes(size_t most) const {
    std::vector<Probe> all;
    const CodeView d{d_.data(), int(width_ * 8)};
    for (size_t o = 0; o < positions_.size() && all.size() < most; ++o)
      all.push_back({positions_[o] / int64_t(cols_.size()), positions_[o] % int64_t(cols_.size()), d[int64_t(o)]});
    return all;
  }

  std::vector<Trial> found;

private:
  const Problem &p_;
  const Computation &reference_;
  const OutputSample &large_;
  double budget_, spent_ = 0;
  int64_t &tried_;
  size_t width_;
  Indices rows_, cols_, all_rows_, all_cols_;
  std::vector<int64_t> positions_;
  Words d_;
  SmallComputation base_;
};

bool one_side(const Hypothesis &h, char side) {
  return h.name.size() > 2 && h.name[h.name.size() - 2] == ':' && h.name.back() == side;
}

} // namespace

std::vector<Trial> find_pairs(const Problem &p, const Computation &reference, const OutputSample &small, const OutputSample &large,
                              const std::vector<Hypothesis> &all, const std::vector<Trial> &singles, double budget,
                              int64_t &tried, const std::function<void(double)> &progress) {
  Search search(p, reference, small, large, budget, tried);
  std::vector<const Trial *> chains, epilogues, operands;
  for (const Trial &t : singles) {
    if (t.first->whole || t.first->by_parts) continue;
    (of_operand(*t.first) ? operands : t.first->topic == Topic::chain ? chains : epilogues).push_back(&t);
  }
  const auto say = [&](double f) {
    if (progress) progress(f);
  };
  const auto made = [&](const Trial &t) {
    SmallComputation s = search.base();
    (void)t.first->apply(s.problem, t.variants[0], s.computation);
    return s;
  };
  // the cheap ones first: both after the operands are read
  for (size_t x = 0; x < epilogues.size() && search.more(); ++x) {
    const SmallComputation on = made(*epilogues[x]);
    for (size_t y = 0; y < epilogues.size(); ++y)
      if (x != y) search.add(*epilogues[x]->first, epilogues[x]->variants[0], on, *epilogues[y]->first);
  }
  for (size_t x = 0; x < chains.size() && search.more(); ++x)
    for (int variant = 0; variant < kMostVariants; ++variant) {
      SmallComputation on = search.base();
      if (!chains[x]->first->apply(on.problem, variant, on.computation)) break;
      for (const Trial *y : epilogues) search.add(*chains[x]->first, variant, on, *y->first);
    }
  const double steps = double(p.a.raw.k) / double(reference.reduction.unit.rule.k), table = steps * steps * 2e-6;
  std::vector<Edited> edited;
  for (size_t x = 0; x < operands.size() && search.more(); ++x) {
    say(double(x) / double(operands.size()));
    const Trial &t = *operands[x];
    Computation c = reference;
    if (!t.apply(p, c)) continue;
    edited.push_back({&t, search.small(c)});
    search.spend(1e-9 * double(c.a->rows * c.a->k + c.b->rows * c.b->k));
    const SmallComputation &on = edited.back().small;
    for (const Trial *y : epilogues) search.add(*t.first, t.variants[0], on, *y->first);
    for (const Trial *y : chains) search.add(*t.first, t.variants[0], on, *y->first);
    if (table < 0.2 && on.computation.reduction.unit.rule.scale_block == on.computation.a->block) {
      for (const Fitted &f : fit_parts(on.problem, on.computation, all, search.probes(6), 1))
        search.confirm(*t.first, t.variants[0], *f.hypothesis, f.variant);
      search.spend(table);
    }
    if (p.m() * p.a.raw.k + p.n() * p.a.raw.k > kSmallOperands) continue;
    for (const Trial *y : operands) {
      if (y == &t || !search.more()) continue;
      Computation both = c;
      if (y->first->apply(p, y->variants[0], both)) {
        const SmallComputation s = search.small(both);
        if (search.gives(s.problem, s.computation)) search.confirm(*t.first, t.variants[0], *y->first, y->variants[0]);
      }
    }
  }
  // one in A, another in B
  for (const Edited &x : edited)
    for (const Edited &y : edited) {
      if (!one_side(*x.trial->first, 'a') || !one_side(*y.trial->first, 'b') || !search.more()) continue;
      SmallComputation s = x.small;
      s.computation.b = y.small.computation.b;
      if (search.gives(s.problem, s.computation))
        search.confirm(*x.trial->first, x.trial->variants[0], *y.trial->first, y.trial->variants[0]);
    }
  return std::move(search.found);
}

} // namespace nvfp4::diagnosis
