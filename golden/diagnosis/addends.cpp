// SPDX-License-Identifier: Apache-2.0
// Intervals of the addend by column or row, and the FP32 word in them that gives most of a line.
#include "nvfp4/golden/diagnosis/addends.hpp"

#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/gemm/epilogue.hpp"
#include "nvfp4/golden/diagnosis/line_range.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace nvfp4::diagnosis {
namespace {

constexpr int64_t kFewest = 8;    ///< outputs of a line that must agree
constexpr int64_t kChoosing = 64; ///< outputs of a line that choose among words

bool is_addend(const Range &r) { return r.outputs >= kFewest && !r.empty() && (r.low > 0 || r.high < 0); }

/// The number of the fewest binary digits in [low, high], which does not hold 0.
float shortest(double low, double high) {
  const double middle = low / 2 + high / 2;
  for (int e = std::ilogb(std::max(std::fabs(low), std::fabs(high)));; --e)
    if (const double x = std::ldexp(std::round(std::ldexp(middle, -e)), e);
        (x >= low && x <= high) || x == middle)
      return float(x);
}

class Addends {
public:
  Addends(const Problem &p, const Computation &reference, std::span<const uint64_t> acc,
          std::span<const uint8_t> got, std::span<const uint8_t> want, const std::vector<bool> &skip,
          bool rows)
      : p_(p), epilogue_(reference.epilogue),
        acc_(acc), got_{got.data(), format(p.word).storage_bits}, want_{want.data(),
                                                                        format(p.word).storage_bits},
        skip_(skip), rows_(rows) {
    epilogue_.round = epilogue_.word = FormatId::f32;
    for (int64_t x = 0; x < lines(); ++x)
      ranges_.push_back(
          line_range(p_, skip_, rows_, x, [&](int64_t i, int64_t j, int64_t at) { return one(i, j, at); }));
  }

  [[nodiscard]] int64_t lines() const { return rows_ ? p_.m() : p_.n(); }
  [[nodiscard]] const Range &range(int64_t x) const { return ranges_[size_t(x)]; }
  /// Lines with an addend.
  [[nodiscard]] Indices moved() const {
    Indices v;
    for (int64_t x = 0; x < lines(); ++x)
      if (is_addend(range(x))) v.push_back(x);
    return v;
  }
  enum class Sum : uint8_t {
    single,  ///< alpha * acc + addend in FP32
    fused,   ///< fma(alpha, acc, addend)
    rounded, ///< the output, rounded to its type, + addend
  };
  struct Form {
    float addend = 0;
    Sum sum = Sum::single;
  };
  /// The form that gives most outputs of a line to the bit.
  [[nodiscard]] Form best(int64_t x) const {
    const float middle = float(range(x).low / 2 + range(x).high / 2);
    Form best{middle, Sum::single};
    int64_t most = -1;
    for (const Sum sum : {Sum::single, Sum::fused, Sum::rounded}) {
      if (sum == Sum::fused && !(epilogue_.row_a.empty() && epilogue_.row_b.empty())) continue;
      if (sum == Sum::rounded && p_.round == FormatId::f32) continue;
      // an addend is often a 16-bit number: the shortest one between the ends
      const float plain = shortest(range(x).low, range(x).high);
      if (const int64_t equal = count(x, {plain, sum}, kChoosing, nullptr); equal > most)
        most = equal, best = {plain, sum};
      float b = middle;
      for (int i = 0; i < 8; ++i) b = std::nextafter(b, -INFINITY);
      for (int i = 0; i < 17; ++i, b = std::nextafter(b, INFINITY)) {
        const int64_t equal = count(x, {b, sum}, kChoosing, nullptr);
        // the middle where words cannot be told apart
        const bool nearer = sum == best.sum && std::fabs(b - middle) < std::fabs(best.addend - middle);
        if (equal > most || (equal == most && nearer && best.addend != plain)) most = equal, best = {b, sum};
      }
    }
    return best;
  }
  /// Outputs among the first `length` of a line that a form gives; differing ones are marked.
  int64_t count(int64_t x, Form form, int64_t length, std::vector<bool> *explained) const {
    int64_t equal = 0;
    for_line(p_, skip_, rows_, x, [&](int64_t i, int64_t j, int64_t at) {
      if ((rows_ ? j : i) >= length) return false;
      const float before_it = before(i, j, at);
      const float sum =
          form.sum == Sum::fused
              ? std::fma(epilogue_.alpha, accumulator_value(p_.unit->rule.acc, acc_[size_t(at)]), form.addend)
          : form.sum == Sum::rounded ? value_f32(p_.round, round_output(p_.round, before_it)) + form.addend
                                     : before_it + form.addend;
      const uint64_t code = round_output(p_.round, sum);
      const uint64_t word = p_.round == p_.word ? code
                                                : convert(format(p_.word), format(p_.round), code,
                                                          Rounding::nearest_even, Overflow::ieee);
      equal += word == got_[at] ? 1 : 0;
      if (explained != nullptr && word == got_[at] && got_[at] != want_[at]) (*explained)[size_t(at)] = true;
      return true;
    });
    return equal;
  }

private:
  /// The reference before its last rounding.
  [[nodiscard]] float before(int64_t i, int64_t j, int64_t at) const {
    return bit_cast<float>(uint32_t(output_word(p_, epilogue_, p_.unit->rule.acc, acc_[size_t(at)], i, j)));
  }
  /// The addends that one output allows.
  [[nodiscard]] Range one(int64_t i, int64_t j, int64_t at) const {
    const double d = value(p_.word, got_[at]), v = double(before(i, j, at));
    if (!std::isfinite(d) || !std::isfinite(v)) return {0, -1, 0};
    const Format f = format(p_.round);
    const double least = std::ldexp(1.0, 1 - f.bias - f.mantissa_bits);
    // half a unit of D, and for what was summed half a unit of its own, in FP32 or in D's type
    const double size = std::fabs(d) + std::fabs(v);
    const double slack = std::max(std::ldexp(size, -f.mantissa_bits - 1), least) + std::ldexp(size, -24);
    return {d - v - slack, d - v + slack, 1};
  }

  const Problem &p_;
  diagnosis::Epilogue epilogue_;
  std::span<const uint64_t> acc_;
  CodeView got_, want_;
  const std::vector<bool> &skip_;
  bool rows_;
  std::vector<Range> ranges_;
};

std::string number(double x) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", x);
  return text;
}

} // namespace

std::vector<Fact> addends_of(const Problem &p, const Computation &reference, std::span<const uint64_t> acc,
                             std::span<const uint8_t> got, std::span<const uint8_t> want,
                             const std::vector<bool> &skip) {
  const Addends by_cols(p, reference, acc, got, want, skip, false),
      by_rows(p, reference, acc, got, want, skip, true);
  const Indices cols = by_cols.moved(), rows = by_rows.moved();
  const bool by_row = rows.size() * size_t(p.n()) > cols.size() * size_t(p.m());
  const Addends &of = by_row ? by_rows : by_cols;
  const Indices &moved = by_row ? rows : cols;
  if (2 * int64_t(moved.size()) < of.lines()) return {}; // a few lines agree by chance
  Range joint;
  for (const int64_t x : moved) joint = joint.with(of.range(x));
  const bool one = moved.size() > 1 && is_addend(joint);
  std::vector<bool> explained(size_t(p.m() * p.n()));
  Fact f{"addend", "", {}, {}, 0, -1, 0};
  for (const int64_t x : moved) {
    const Addends::Form form = of.best(x);
    f.addends.push_back(double(form.addend));
    (void)of.count(x, form, by_row ? p.n() : p.m(), &explained);
  }
  for (size_t at = 0; at < explained.size(); ++at) {
    if (explained[at] && f.outputs++ == 0) f.first = int64_t(at);
  }
  if (f.outputs == 0) return {};
  (by_row ? f.rows : f.cols) = moved;
  const std::string what = by_row ? "row" : "column";
  const auto [low, high] = std::minmax_element(f.addends.begin(), f.addends.end());
  const bool all = int64_t(moved.size()) == of.lines();
  const std::string where = all ? "every output" : describe(moved, of.lines(), what);
  f.text = one ? number(joint.low / 2 + joint.high / 2) + " is added to " + where
               : "an addend is on top of " + (all ? "every " + what : describe(moved, of.lines(), what)) +
                     ", one for each " + what + " (" + number(*low) + " to " + number(*high) + "), as a bias";
  return {f};
}

} // namespace nvfp4::diagnosis
