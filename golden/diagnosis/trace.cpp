// SPDX-License-Identifier: Apache-2.0
// Collects steps and compares them stage by stage.
#include "nvfp4/golden/diagnosis/trace.hpp"

#include <algorithm>
#include <cstdio>

namespace nvfp4 {
namespace {

template <class... Args> std::string print(const char *pattern, Args... args) {
  char text[256];
  std::snprintf(text, sizeof text, pattern, args...);
  return text;
}

std::string hex(uint64_t word, FormatId acc) {
  return print("%0*llx", format(acc).storage_bits / 4, static_cast<unsigned long long>(word));
}

/// A multiple of 2^lsb on a grid that both sides share. |v| < 2^50, and grids lie less than 64 apart where
/// the largest exponents agree.
__int128 on_grid(int64_t v, int lsb, int common) { return __int128{v} << std::min(lsb - common, 70); }

Parting inside(const Step &x, const Step &y, const Trace &tx) {
  const FormatId acc = tx.rule.acc;
  const std::string words = hex(x.word, acc) + " against " + hex(y.word, acc);
  if ((x.kind == Step::Kind::special) != (y.kind == Step::Kind::special))
    return {Stage::special, x.k, "a NaN or Inf decides on one side only: " + words};
  if (x.kind != y.kind)
    return {Stage::truncation, x.k,
            "terms are cut to an aligned grid on one side, summed exactly on the other: " + words};
  if (x.kind != Step::Kind::fused)
    return {Stage::rounding, x.k, "the same exact value is rounded otherwise: " + words};
  if (x.max_exponent != y.max_exponent)
    return {Stage::alignment, x.k,
            print("terms are aligned to exponent %d against %d: ", x.max_exponent, y.max_exponent) + words};
  if (x.terms != y.terms)
    return {Stage::reduction, x.k, "the steps sum different numbers of terms: " + words};
  const int common = std::min(x.lsb, y.lsb);
  for (int i = 0; i < x.terms; ++i)
    if (on_grid(x.aligned[size_t(i)], x.lsb, common) != on_grid(y.aligned[size_t(i)], y.lsb, common))
      return {Stage::truncation, x.k,
              print("term %d of %d keeps %d against %d bits below the largest exponent: ", i, x.terms,
                    x.max_exponent - x.lsb, y.max_exponent - y.lsb) +
                  words};
  const bool near = x.word - y.word + 1 <= 2 && acc != FormatId::f64;
  return {near ? Stage::rounding : Stage::normalisation, x.k,
          print("the same sum %lld * 2^%d: ", static_cast<long long>(x.sum), x.lsb) + words};
}

} // namespace

Trace trace_dot(const UnitRule &rule, const DotOperands &op, int64_t k, uint64_t c, Accumulation accumulation,
                Finish finish) {
  Trace t;
  t.rule = rule;
  t.word = finish == Finish::as_unit ? dot(rule, op, k, c, accumulation, StepRecorder<AsUnit>(t.steps))
                                     : dot(rule, op, k, c, accumulation, StepRecorder<NearestEven>(t.steps));
  return t;
}

std::string_view to_string(Stage stage) {
  switch (stage) {
  case Stage::alignment: return "alignment";
  case Stage::truncation: return "alignment truncation";
  case Stage::reduction: return "reduction";
  case Stage::normalisation: return "normalisation";
  case Stage::rounding: return "final rounding";
  case Stage::special: return "special values";
  case Stage::epilogue: break;
  }
  return "epilogue";
}

Parting find_parting(const Trace &x, const Trace &y) {
  size_t i = 0, j = 0;
  while (i < x.steps.size() && j < y.steps.size()) {
    const Step &p = x.steps[i], &q = y.steps[j];
    if (p.k == q.k && p.products == q.products) {
      if (p.word != q.word) return inside(p, q, x);
      ++i, ++j;
      continue;
    }
    // steps of different lengths: walk both to where they have consumed the same elements
    const int64_t begin = std::min(p.k, q.k);
    int64_t end_x = p.k + p.products, end_y = q.k + q.products;
    while (end_x != end_y) {
      if (end_x < end_y ? ++i >= x.steps.size() : ++j >= y.steps.size()) break;
      (end_x < end_y ? end_x : end_y) =
          end_x < end_y ? x.steps[i].k + x.steps[i].products : y.steps[j].k + y.steps[j].products;
    }
    if (i >= x.steps.size() || j >= y.steps.size()) break;
    if (x.steps[i].word != y.steps[j].word)
      return {Stage::reduction, begin,
              print("steps of %d against %d products: ", p.products, q.products) +
                  hex(x.steps[i].word, x.rule.acc) + " against " + hex(y.steps[j].word, y.rule.acc)};
    ++i, ++j;
  }
  if (x.word != y.word)
    return {Stage::reduction, -1,
            "the chains have different steps: " + hex(x.word, x.rule.acc) + " against " +
                hex(y.word, y.rule.acc)};
  return {Stage::epilogue, -1, "equal accumulators " + hex(x.word, x.rule.acc)};
}

std::string to_text(const Trace &trace) {
  std::string out;
  for (const Step &s : trace.steps) {
    out += print("k %lld..%lld  ", static_cast<long long>(s.k), static_cast<long long>(s.k + s.products - 1));
    if (s.kind == Step::Kind::fused) {
      out += print("exponent %d, lsb 2^%d, terms", s.max_exponent, s.lsb);
      for (int i = 0; i < s.terms; ++i) out += print(" %lld", static_cast<long long>(s.aligned[size_t(i)]));
      out += print(", %d cut, %.6g lost, sum %lld", s.cut_terms, s.lost, static_cast<long long>(s.sum));
    } else {
      out += s.kind == Step::Kind::wide  ? "exact sum"
             : s.kind == Step::Kind::add ? "addition"
             : s.kind == Step::Kind::fma ? "fma"
                                         : "NaN or Inf";
    }
    out += " -> " + hex(s.word, trace.rule.acc) + "\n";
  }
  return out;
}

} // namespace nvfp4
