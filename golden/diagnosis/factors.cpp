// SPDX-License-Identifier: Apache-2.0
// Intervals of alpha by row or column, joined where they meet.
#include "nvfp4/golden/diagnosis/factors.hpp"

#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/gemm/epilogue.hpp"
#include "nvfp4/golden/diagnosis/line_range.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace nvfp4::diagnosis {
namespace {

/// Lines that share an alpha.
struct Cluster {
  Range alpha;
  Indices lines;
};

constexpr int64_t kFewest = 8; ///< outputs that must agree before a factor is believed
constexpr size_t kMostClusters = 64;

/// Known constants that a factor may be.
struct Constant {
  double value;
  const char *text;
};
constexpr Constant kConstants[] = {{6, "6, the largest E2M1 value"},
                                   {448, "448, the largest E4M3 value"},
                                   {6 * 448.0, "6 * 448"},
                                   {6 * 256.0, "6 * 256"},
                                   {36, "6 * 6"},
                                   {448 * 448.0, "448 * 448"},
                                   {2688 * 2688.0, "(6 * 448)^2"}};

std::string factor_text(double f, const Problem &p) {
  char text[64];
  std::snprintf(text, sizeof text, "%.7g", f);
  std::string s = text;
  const auto is = [&](double v) { return v != 0 && std::fabs(f / v - 1) < 1e-6; };
  int exponent = 0;
  if (is(-1)) return s + " (the sign is turned)";
  if (std::frexp(std::fabs(f), &exponent) == 0.5)
    return s + " (2^" + std::to_string(exponent - 1) +
           ": a scale's exponent bias, or a power of two left out)";
  for (const Constant &c : kConstants) {
    if (is(c.value)) return s + " (" + c.text + ")";
    if (is(1 / c.value)) return s + " (1 / (" + c.text + "))";
  }
  if (p.a.scaled && p.b.scaled && p.a.scaled->row_amax.empty() && p.b.scaled->row_amax.empty()) {
    const double a = double(p.a.scaled->global_decode), b = double(p.b.scaled->global_decode);
    for (const auto &[v, name] :
         {std::pair(a, "A's global scale"), std::pair(b, "B's global scale"),
          std::pair(a * b, "both global scales"), std::pair(a / b, "A's global scale over B's")}) {
      if (is(v)) return s + " (" + name + ")";
      if (is(1 / v)) return s + " (1 / " + name + ")";
    }
  }
  return s;
}

class Factors {
public:
  Factors(const Problem &p, const Computation &reference, std::span<const uint64_t> acc,
          std::span<const uint8_t> got, std::span<const uint8_t> want, const std::vector<bool> &skip)
      : p_(p), reference_(reference), acc_(acc),
        bits_(format(p.word).storage_bits), got_{got.data(), bits_}, want_{want.data(), bits_}, skip_(skip),
        round_(format(p.round)) {}

  /// Clusters of rows or of columns, none where fewer than kFewest outputs agree.
  [[nodiscard]] std::vector<Cluster> clusters(bool rows) const {
    std::vector<Cluster> all;
    const int64_t lines = rows ? p_.m() : p_.n();
    for (int64_t x = 0; x < lines; ++x) {
      const Range i =
          line_range(p_, skip_, rows, x, [&](int64_t r, int64_t c, int64_t at) { return one(r, c, at); });
      if (i.empty() || i.outputs == 0) continue;
      const auto fits =
          std::find_if(all.begin(), all.end(), [&](const Cluster &c) { return !c.alpha.with(i).empty(); });
      if (fits != all.end()) {
        fits->alpha = fits->alpha.with(i);
        fits->lines.push_back(x);
      } else if (all.size() < 4 * kMostClusters) {
        all.push_back({i, {x}});
      }
    }
    // lines of few outputs agree by chance: there a factor has to hold for many of them
    const int64_t length = rows ? p_.n() : p_.m();
    std::erase_if(all, [&](const Cluster &c) {
      return c.alpha.outputs < kFewest || (length < 4 && 4 * int64_t(c.lines.size()) < lines);
    });
    return all;
  }

  /// What makes a cluster's outputs: another alpha, or a factor on the finished results.
  struct Form {
    double factor = 1;
    float alpha = 0; ///< 0: the factor comes after the epilogue
  };
  /// The form that gives most outputs of a cluster to the bit.
  [[nodiscard]] Form best_form(const Cluster &c, bool rows) const {
    const float own = reference_.epilogue.alpha;
    if (double(own) >= c.alpha.low && double(own) <= c.alpha.high) return {1, own};
    Form best{(c.alpha.low + c.alpha.high) / 2 / double(own), 0};
    int64_t most = -1;
    Cluster some = c; // forms differ on most outputs: a part of them tells
    const size_t enough = size_t(65536 / std::max<int64_t>(1, rows ? p_.n() : p_.m()) + 1);
    if (some.lines.size() > enough) some.lines.resize(enough);
    const auto better = [&](Form f) {
      const int64_t equal = count(some, rows, f, nullptr);
      if (equal > most) most = equal, best = f;
    };
    const double middle = (c.alpha.low + c.alpha.high) / 2;
    // the plainest factor that the interval holds, where outputs cannot tell it from others
    const double power = std::copysign(std::exp2(std::round(std::log2(std::fabs(middle / double(own))))),
                                       middle / double(own));
    if (const double plain = power * double(own); plain >= c.alpha.low && plain <= c.alpha.high) {
      better({power, float(plain)});
      better({power, 0});
    }
    better({double(float(middle / double(own))), 0});
    const float low = std::nextafter(float(c.alpha.low), -INFINITY),
                high = std::nextafter(float(c.alpha.high), INFINITY);
    // few words lie between; of many, those in the middle
    float x = float(middle);
    for (int i = 0; i < 8 && x > low; ++i) x = std::nextafter(x, -INFINITY);
    for (int i = 0; i < 17 && x <= high; ++i, x = std::nextafter(x, INFINITY))
      better({double(x) / double(own), x});
    return best;
  }

  /// Outputs of a cluster that a form gives; differing ones are marked.
  int64_t count(const Cluster &c, bool rows, Form form, std::vector<bool> *explained) const {
    diagnosis::Epilogue e = reference_.epilogue;
    e.alpha = form.alpha;
    const FormatId acc = p_.unit->rule.acc;
    int64_t equal = 0;
    for (const int64_t x : c.lines)
      for_line(p_, skip_, rows, x, [&](int64_t i, int64_t j, int64_t at) {
        const uint64_t word = form.alpha != 0
                                  ? output_word(p_, e, acc, acc_[size_t(at)], i, j)
                                  : encode(p_.word, float(form.factor) * float(value(p_.word, want_[at])),
                                           Rounding::nearest_even, Overflow::ieee);
        equal += word == got_[at] ? 1 : 0;
        if (explained != nullptr && word == got_[at] && got_[at] != want_[at])
          (*explained)[size_t(at)] = true;
        return true;
      });
    return equal;
  }

private:
  /// The alphas that one output allows.
  [[nodiscard]] Range one(int64_t i, int64_t j, int64_t at) const {
    const double d = value(p_.word, got_[at]);
    double a = double(accumulator_value(p_.unit->rule.acc, acc_[size_t(at)]));
    const diagnosis::Epilogue &e = reference_.epilogue;
    const bool factors = !e.row_a.empty() || !e.row_b.empty();
    if (factors)
      a *= double(joint_factor(e.row_a.empty() ? nullptr : &e.row_a[size_t(i)],
                               e.row_b.empty() ? nullptr : &e.row_b[size_t(j)]));
    const double smallest = std::ldexp(1.0, round_.exponent_bits == 5 ? -13 : -125);
    if (!std::isfinite(d) || !std::isfinite(a) || a == 0 || std::fabs(d) < smallest) return {};
    // half a unit of the output, and FP32's for a factor that came before or after another rounding
    const double slack =
        std::ldexp(std::fabs(d), -round_.mantissa_bits - 1) + std::ldexp(std::fabs(d), factors ? -22 : -23);
    const double x = (d - slack) / a, y = (d + slack) / a;
    return {std::min(x, y), std::max(x, y), 1};
  }

  const Problem &p_;
  const Computation &reference_;
  std::span<const uint64_t> acc_;
  int bits_;
  CodeView got_, want_;
  const std::vector<bool> &skip_;
  Format round_;
};

int64_t lines_of(const std::vector<Cluster> &clusters) {
  int64_t n = 0;
  for (const Cluster &c : clusters) n += int64_t(c.lines.size());
  return n;
}

} // namespace

std::vector<Fact> factors_of(const Problem &p, const Computation &reference, std::span<const uint64_t> acc,
                             std::span<const uint8_t> got, std::span<const uint8_t> want,
                             const std::vector<bool> &skip) {
  std::vector<Fact> facts;
  std::vector<bool> explained(size_t(p.m() * p.n()));
  if (reference.epilogue.alpha == 0.0f) return facts;
  const Factors of(p, reference, acc, got, want, skip);
  const std::vector<Cluster> by_cols = of.clusters(false), by_rows = of.clusters(true);
  const double share_cols = double(lines_of(by_cols)) / double(p.n()),
               share_rows = double(lines_of(by_rows)) / double(p.m());
  // the side that accounts for more lines, then the one with fewer factors
  const bool rows = share_rows != share_cols ? share_rows > share_cols : by_rows.size() < by_cols.size();
  const std::vector<Cluster> &best = rows ? by_rows : by_cols;
  if (best.size() > kMostClusters) return facts;
  const int64_t lines = rows ? p.m() : p.n();
  for (const Cluster &c : best) {
    const auto form = of.best_form(c, rows);
    const double factor = form.factor;
    if (std::fabs(factor - 1) < 1e-6) continue;
    const std::vector<bool> before = explained;
    (void)of.count(c, rows, form, &explained);
    Fact f{"factor", "", {}, {}, 0, -1, factor};
    for (size_t at = 0; at < explained.size(); ++at) f.outputs += explained[at] && !before[at] ? 1 : 0;
    if (f.outputs == 0) continue;
    (rows ? f.rows : f.cols) = c.lines;
    const bool all = int64_t(c.lines.size()) == lines;
    f.text =
        (all ? "D is "
             : describe(c.lines, lines, rows ? "row" : "column") + (c.lines.size() == 1 ? " is " : " are ")) +
        factor_text(factor, p) + " times what is expected";
    facts.push_back(std::move(f));
  }
  return facts;
}

} // namespace nvfp4::diagnosis
