// SPDX-License-Identifier: Apache-2.0
// The search: the convention itself, one step from it, two; on a sample of blocks, and what fits there on
// all.
#include "nvfp4/golden/diagnosis/quantizer_check.hpp"

#include "nvfp4/golden/diagnosis/index_set.hpp"
#include "nvfp4/golden/diagnosis/quantizer_kinds.hpp"
#include "nvfp4/golden/diagnosis/quantizer_parameters.hpp"
#include "nvfp4/golden/diagnosis/quantizer_steps.hpp"
#include "nvfp4/golden/diagnosis/structure.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>

namespace nvfp4::diagnosis {
namespace {

constexpr int64_t kWholeTensor = 1 << 14;  // elements up to which no sample is taken
constexpr int64_t kPairsOfWhole = 1 << 16; // and up to which pairs are tried where a sample cannot be
constexpr size_t kMostExplanations = 12;

Making base_making(const QuantizerProblem &p) {
  Making m;
  m.rule = p.convention->rule;
  m.can = p.convention->can;
  QuantizeOptions &o = m.options;
  o.axis = p.mine.axis;
  o.block_rows = p.mine.block_rows;
  o.rounding = p.rounding;
  o.key = p.key;
  o.hadamard = p.mine.hadamard;
  if (o.hadamard) o.sign_mask = p.mine.sign_mask;
  o.source = p.mine.source;
  o.global_amax = p.global_amax;
  return m;
}

class Search {
public:
  Search(const QuantizerProblem &p, Making base)
      : p_(p), base_(std::move(base)), prepared_(prepare(p, base_)) {
    made_ = make(p_, base_, prepared_);
    if (!made_)
      throw Error("convention '" + std::string(p.convention->name) +
                  "' cannot make a tensor with these options; name another with --convention");
    given_scale();
    differences_ = kinds_of_difference(p_.mine, *made_, base_.rule, prepared_);
    const bool random = base_.options.rounding != ElementRounding::nearest;
    const int64_t elements = p.mine.rows * p.mine.k;
    if (elements > kWholeTensor && !random) blocks_ = differences_.blocks;
    pairs_ = !random || elements <= kPairsOfWhole;
  }

  [[nodiscard]] const BlockScaled &made() const { return *made_; }
  [[nodiscard]] const KindsOfDifference &differences() const { return differences_; }

  void run(QuantizerReport &report) {
    steps_ = quantizer_steps(p_, base_);
    for (const float amax : find_amax(p_, base_, sample_of(base_)))
      steps_.push_back({"amax-found", amax_text(amax), StepPart::source,
                        [amax](Making &m) { m.options.global_amax = amax; }});
    singles(report);
    if (report.explains.empty() && find_signs_worth_it()) {
      if (const std::optional<uint16_t> mask = find_sign_mask(p_, base_, differences_.blocks)) {
        steps_.push_back({"rotation-signs", "the source is rotated with sign mask " + std::to_string(*mask),
                          StepPart::source, [mask](Making &m) {
                            m.options.hadamard = true;
                            m.options.sign_mask = *mask;
                          }});
        singles(report, steps_.size() - 1);
      }
    }
    if (report.explains.empty() && pairs_) all_pairs(report);
    keep_best(report);
    for (const QuantizerStep &s : steps_) report.ruled_out.push_back(s.name);
    for (const QuantizerFinding &f : report.explains)
      std::erase_if(report.ruled_out, [&](const std::string &name) { return name == f.name; });
    report.tried = tried_;
  }

private:
  struct Candidate {
    Making making;
    QuantizerFinding finding;
    Leftover left; // on the sample
  };

  /// A file whose amax is not known carries the caller's scale.
  void given_scale() {
    const bool unknown = std::isnan(p_.mine.global_amax) && !std::isnan(made_->global_amax);
    if (!unknown || base_.rule.per_row) return;
    Making given = base_;
    given.options.global_scale =
        stores_decode(base_.rule) ? p_.mine.global_decode : p_.mine.global_encode;
    if (std::optional<BlockScaled> q = make(p_, given, prepared_)) {
      base_ = given;
      made_ = std::move(q);
    }
  }

  [[nodiscard]] std::string amax_text(float amax) const {
    char text[160];
    std::snprintf(text, sizeof text, "the global scale is that of amax %.9g, %.9g times the source's own",
                  double(amax), double(amax) / double(made_->global_amax));
    return text;
  }
  [[nodiscard]] bool find_signs_worth_it() const {
    return base_.can.hadamard && base_.options.block_rows == 1 && p_.mine.k % 16 == 0 && !base_.rule.per_row;
  }

  const BlockScaled &read(const Making &m) {
    if (m.reading == nullptr) return p_.mine;
    const auto [at, fresh] = readings_.try_emplace(m.reading);
    if (fresh) m.reading(p_.mine, at->second);
    return at->second;
  }
  const BlockSample &sample_of(const Making &m) {
    for (const auto &[making, sample] : samples_)
      if (prepare_alike(making, m)) return sample;
    samples_.emplace_back(m, take_sample(p_, prepare_alike(m, base_) ? prepared_ : prepare(p_, m), blocks_));
    return samples_.back().second;
  }
  /// Nothing where it cannot be made in MINE's shape.
  std::optional<Leftover> on_sample(const Making &m) {
    const BlockSample &sample = sample_of(m);
    const std::optional<BlockScaled> q = make(p_, m, sample.x);
    if (!q || q->block != p_.mine.block) return std::nullopt;
    ++tried_;
    return compare_blocks(read(m), sample, *q);
  }
  std::optional<Leftover> on_all(const Making &m) {
    const BlockSample whole{{}, true, {}};
    const std::optional<BlockScaled> q =
        prepare_alike(m, base_) ? make(p_, m, prepared_) : make(p_, m, prepare(p_, m));
    if (!q || q->rows != p_.mine.rows || q->k != p_.mine.k) return std::nullopt;
    return compare_blocks(read(m), whole, *q);
  }

  void consider(const Making &m, const std::string &name, const std::string &title, bool preset,
                QuantizerReport &report) {
    const std::optional<Leftover> left = on_sample(m);
    if (!left) return;
    QuantizerFinding f{name, title, preset, 0, 0};
    if (left->none() && report.explains.size() < kMostExplanations + conventions().size()) {
      const std::optional<Leftover> all = on_all(m);
      if (!all) return;
      f.codes_left = all->codes;
      f.scales_left = all->scales;
      if (all->none()) report.explains.push_back(f);
    }
    best_.push_back({m, f, *left});
    if (best_.size() > 64) trim();
  }
  void trim() {
    std::stable_sort(best_.begin(), best_.end(), [](const Candidate &a, const Candidate &b) {
      return a.left.codes + 16 * a.left.scales < b.left.codes + 16 * b.left.scales;
    });
    best_.resize(std::min<size_t>(best_.size(), 8));
  }

  void singles(QuantizerReport &report, size_t from = 0) {
    for (size_t i = from; i < steps_.size(); ++i) {
      if (p_.progress) p_.progress(double(i) / double(steps_.size()));
      Making m = base_;
      steps_[i].apply(m);
      consider(m, steps_[i].name, steps_[i].title, steps_[i].part == StepPart::preset, report);
    }
    std::stable_sort(
        report.explains.begin(), report.explains.end(),
        [](const QuantizerFinding &a, const QuantizerFinding &b) { return a.preset > b.preset; });
  }

  void all_pairs(QuantizerReport &report) {
    for (size_t i = 0; i < steps_.size(); ++i) {
      const double left = double(steps_.size() - i) / double(steps_.size()); // the later, the fewer partners
      if (p_.progress) p_.progress(1 - left * left);
      for (size_t j = i + 1; j < steps_.size(); ++j) {
        const QuantizerStep &a = steps_[i], &b = steps_[j];
        const bool rules = a.part == StepPart::rule && b.part == StepPart::rule;
        if (rules ? a.field == b.field : a.part == b.part) continue;
        Making m = base_;
        a.apply(m);
        b.apply(m);
        consider(m, a.name + " + " + b.name, a.title + ", and " + b.title, false, report);
        if (report.explains.size() >= kMostExplanations) return;
      }
    }
  }

  /// What leaves less than half of the differences, on the whole tensor.
  void keep_best(QuantizerReport &report) {
    if (!report.explains.empty()) return;
    trim();
    for (Candidate &c : best_) {
      if (report.partial.size() == 3) break;
      const std::optional<Leftover> all = on_all(c.making);
      if (!all || 2 * (all->codes + 16 * all->scales) > differences_.codes + 16 * differences_.scales)
        continue;
      c.finding.codes_left = all->codes;
      c.finding.scales_left = all->scales;
      report.partial.push_back(c.finding);
    }
    std::stable_sort(report.partial.begin(), report.partial.end(),
                     [](const QuantizerFinding &a, const QuantizerFinding &b) {
                       return a.codes_left + 16 * a.scales_left < b.codes_left + 16 * b.scales_left;
                     });
  }

  const QuantizerProblem &p_;
  Making base_;
  SourceTensor prepared_;
  std::optional<BlockScaled> made_;
  KindsOfDifference differences_;
  std::vector<std::pair<int64_t, int64_t>> blocks_;
  bool pairs_ = true;
  std::vector<QuantizerStep> steps_;
  std::vector<std::pair<Making, BlockSample>> samples_;
  std::map<Reading, BlockScaled> readings_;
  std::vector<Candidate> best_;
  int64_t tried_ = 0;
};

bool same_word(float a, float b) {
  return bit_cast<uint32_t>(a) == bit_cast<uint32_t>(b) || (a != a && b != b);
}

/// How the stored second level differs; empty where it does not. `alike`: MINE stores it as the convention
/// does.
std::string global_difference(const BlockScaled &mine, const BlockScaled &want, bool alike) {
  char text[200];
  for (size_t r = 0; r < want.row_amax.size(); ++r) {
    const float got = r < mine.row_amax.size() ? mine.row_amax[r] : bit_cast<float>(0x7FC00000u);
    if (same_word(got, want.row_amax[r])) continue;
    std::snprintf(text, sizeof text, "amax of row %zu is %.9g, want %.9g", r, double(got),
                  double(want.row_amax[r]));
    return text;
  }
  if (!want.row_amax.empty()) return {};
  const struct {
    const char *name;
    float got, want;
  } words[] = {{"amax", mine.global_amax, want.global_amax},
               {"encode scale", mine.global_encode, want.global_encode},
               {"decode scale", mine.global_decode, want.global_decode}};
  for (const auto &w : words) {
    if (same_word(w.got, w.want) || (!alike && &w != &words[0])) continue;
    const char *relation = same_word(w.got, 1.0f / w.want) ? ": the reciprocal" : "";
    std::snprintf(text, sizeof text, "the global %s is %.9g, want %.9g (%.6g times)%s", w.name, double(w.got),
                  double(w.want), double(w.got) / double(w.want), relation);
    return text;
  }
  return {};
}

std::string counts_text(const QuantizerReport &r) {
  return std::to_string(r.codes_differing) + " of " + std::to_string(r.codes) + " codes and " +
         std::to_string(r.scales_differing) + " of " + std::to_string(r.scales) + " scales differ";
}

/// What to print in the kernel next, with the value that it should have.
std::string next_capture(const QuantizerProblem &p, const Search &search, const QuantizerReport &r) {
  char text[240];
  if (r.first_scale) {
    std::snprintf(
        text, sizeof text,
        "Capture the maximum of block (%lld, %lld), the global scale and the block scale before it is "
        "rounded: the convention gives code 0x%02x there under amax %.9g.",
        static_cast<long long>(r.first_scale->row), static_cast<long long>(r.first_scale->at),
        unsigned(r.first_scale->want), double(search.made().global_amax));
    return text;
  }
  if (!r.first_code)
    return "Write the global scale as the convention '" + std::string(p.convention->name) + "' has it.";
  std::snprintf(text, sizeof text,
                "Capture what element (%lld, %lld) is multiplied with and the product before it is rounded: "
                "its scale is "
                "right and the convention gives code 0x%x.",
                static_cast<long long>(r.first_code->row), static_cast<long long>(r.first_code->at),
                unsigned(r.first_code->want));
  return text;
}

/// Rows and blocks that hold a difference, unless they are all; and what can be said of scales, or of codes
/// under right scales, from their words alone.
std::string pattern_text(const BlockScaled &mine, const BlockScaled &want, const QuantizerReport &r) {
  const int64_t blocks = mine.blocks();
  std::vector<bool> rows(size_t(mine.rows)), cols(static_cast<size_t>(blocks));
  std::vector<uint8_t> scales;
  for (int64_t i = 0; i < mine.rows; ++i)
    for (int64_t b = 0; b < blocks; ++b) {
      for (int byte = 0; byte < scale_bytes(mine.scale); ++byte)
        scales.push_back(scale_byte(mine.scale_code(i, b), byte));
      bool differs = mine.scale_code(i, b) != want.scale_code(i, b);
      for (int64_t k = b * mine.block; !differs && k < std::min(mine.k, (b + 1) * mine.block); ++k)
        differs = mine.code_word(i, k) != want.code_word(i, k);
      if (differs) rows[size_t(i)] = cols[size_t(b)] = true;
    }
  const Indices hit_rows = members(rows), hit_cols = members(cols);
  std::string text;
  if (int64_t(hit_rows.size()) < mine.rows || int64_t(hit_cols.size()) < blocks)
    text = "; all in " + describe(hit_rows, mine.rows, "row") + " and " + describe(hit_cols, blocks, "block");
  const bool of_scales = r.scales_differing != 0;
  const Structure s = of_scales
                          ? structure_of(mine.scale, mine.rows, blocks, scales, want.scales)
                          : structure_of(mine.element, mine.rows, mine.padded_k, mine.codes, want.codes);
  for (const Fact &f : s.facts)
    if (!f.rows.empty() || f.kind.find("moved") != std::string::npos)
      text += std::string("; ") + (of_scales ? "scales: " : "codes: ") + f.text;
  return text;
}

void conclude(const QuantizerProblem &p, const Search &search, QuantizerReport &r) {
  const std::string name = "convention '" + std::string(p.convention->name) + "'";
  const int64_t elements = p.source.rows * p.source.cols;
  if (r.equal()) {
    r.verdict = "equal: all " + std::to_string(r.codes) + " codes, all " + std::to_string(r.scales) +
                " scales and the global scale are those of " + name;
    if (elements == 0 || r.source_nan + r.source_infinity + r.source_zero == elements)
      r.verdict += "; but the source has no finite number other than 0, so this compares next to nothing";
    return;
  }
  if (r.codes_differing == 0 && r.scales_differing == 0) {
    r.verdict = "all codes and scales are those of " + name + ", but " + r.global;
    r.advice = "Mend the stored global scale; the quantizer itself is right.";
    return;
  }
  if (!r.explains.empty()) {
    r.verdict = counts_text(r) + "; all of it is explained: " + r.explains.front().title;
    r.advice = r.explains.front().preset ? "Compare with that convention, or change the quantizer to '" +
                                               std::string(p.convention->name) + "'."
                                         : "Undo that in the quantizer, or describe the file accordingly.";
    return;
  }
  constexpr int64_t many = 100; // one in that many: a few such codes have other causes
  if (search.differences().neighbours_only && r.codes_differing * many >= r.codes) {
    r.verdict = counts_text(r) +
                "; every scale is right and every such code is the other neighbour of its value, as "
                "stochastic rounding makes them (which random words cannot be told)";
    r.advice = "Round to nearest, or quantize with the same --rounding and --seed on both sides.";
    return;
  }
  const auto most = std::max_element(r.kinds.begin(), r.kinds.end(),
                                     [](const auto &a, const auto &b) { return a.count < b.count; });
  r.verdict = counts_text(r) +
              "; no preset and no one or two steps explain all of it; most frequent: " + most->title + " (" +
              std::to_string(most->count) + ")" + pattern_text(p.mine, search.made(), r);
  r.advice = next_capture(p, search, r);
}

} // namespace

QuantizerReport check_quantizer(const QuantizerProblem &p) {
  const BlockScaled &q = p.mine;
  const bool transposed = q.axis == Axis::col;
  const int64_t rows = transposed ? q.k : q.rows, cols = transposed ? q.rows : q.k;
  if (p.source.rows != rows || p.source.cols != cols)
    throw Error("the source is " + std::to_string(p.source.rows) + " x " + std::to_string(p.source.cols) +
                ", the quantized tensor was made from " + std::to_string(rows) + " x " +
                std::to_string(cols) +
                (p.source.rows == cols && p.source.cols == rows ? ": it has the other axis" : ""));
  const Rule &rule = p.convention->rule;
  if (rule.element != q.element || rule.scale != q.scale || rule.block != q.block)
    throw Error("convention '" + std::string(p.convention->name) + "' has " + format(rule.element).name +
                " / " + format(rule.scale).name + " per " + std::to_string(rule.block) +
                ", the quantized tensor " + format(q.element).name + " / " + format(q.scale).name + " per " +
                std::to_string(q.block));
  QuantizerReport r;
  for (size_t i = 0; i < p.source.values.size(); ++i) {
    const float v = p.source.values[i];
    r.source_nan += std::isnan(v);
    r.source_infinity += std::isinf(v);
    r.source_zero += v == 0.0f;
    if (!std::isfinite(v) && r.source_first_bad < 0) r.source_first_bad = int64_t(i);
  }
  Search search(p, base_making(p));
  const KindsOfDifference &d = search.differences();
  r.codes = q.rows * q.k;
  r.scales = q.rows * q.blocks();
  r.codes_differing = d.codes;
  r.scales_differing = d.scales;
  r.first_code = d.first_code;
  r.first_scale = d.first_scale;
  r.kinds = d.kinds;
  r.global = global_difference(q, search.made(), find_convention(q.convention).rule.global == rule.global);
  if (r.codes_differing + r.scales_differing > 0) search.run(r);
  conclude(p, search, r);
  return r;
}

} // namespace nvfp4::diagnosis
