// SPDX-License-Identifier: Apache-2.0
// Hooks of the definition (emulator/tensorcore/fdpa.hpp): what a trace keeps of every step, and the chain with
// another final rounding.
#pragma once
#include "nvfp4/emulator/tensorcore/execute.hpp"

#include <array>
#include <cmath>
#include <vector>

namespace nvfp4 {

/// How a finished sum becomes the accumulator.
enum class Finish : uint8_t {
  as_unit,      ///< as the catalogue says: truncation for FP32 accumulators
  nearest_even, ///< nearest even where the unit truncates
};

/// One fused step (or one addition, or one FP64 fma) of a chain.
struct Step {
  enum class Kind : uint8_t {
    fused,   ///< align, cut, sum, round
    wide,    ///< exact sum (accumulation model `exact`): no alignment, `sum` is not kept
    add,     ///< IEEE addition of two accumulators (expanded FP8)
    fma,     ///< one IEEE fused multiply-add (FP64)
    special, ///< NaN or Inf decided: nothing was aligned
  };
  Kind kind = Kind::special;
  int64_t k = 0;        ///< first element along K
  int products = 0;     ///< elements along K
  int max_exponent = 0; ///< what terms are aligned to, the unit's floor included
  int lsb = 0;          ///< aligned terms and sum count units of 2^lsb
  int terms = 0; ///< scaled groups (FP4) or products in K order, then the accumulator; absent ones are 0
  std::array<int64_t, kMaxLink + 1> aligned; ///< [0, terms) are set
  int cut_terms = 0;                         ///< terms that lost bits in the alignment
  double lost = 0;                           ///< magnitude lost by all terms together, in units of 2^lsb
  int64_t sum = 0;                           ///< before normalisation, exact
  uint64_t word = 0;                         ///< the accumulator after the step
};

/// Rounds to nearest even where the unit truncates.
struct NearestEven : AsUnit {
  [[nodiscard]] uint64_t round(Output output, int64_t sum, int lsb) const {
    if ((output != Output::rz_f32 && output != Output::rz_e8m13) || sum == 0) return round_sum(output, sum, lsb);
    const Format f = format(output == Output::rz_e8m13 ? FormatId::e8m13 : FormatId::f32);
    const uint64_t magnitude = sum < 0 ? uint64_t{0} - uint64_t(sum) : uint64_t(sum);
    const uint64_t code = encode(f, sum < 0, magnitude, lsb, Rounding::nearest_even, Overflow::infinity);
    return code == with_sign(f, true, 0) ? 0 : code;
  }
  [[nodiscard]] uint64_t round(Output, const WideSum &sum) const { return sum.to_f32(Rounding::nearest_even); }
};

/// Keeps every step of a chain; rounds as `Rounded` does.
template <class Rounded> struct StepRecorder : Rounded {
  std::vector<Step> &steps;
  Step current{};
  int64_t start = 0; ///< of the instruction

  explicit StepRecorder(std::vector<Step> &to) : steps(to) {}

  void instruction(int64_t k) { start = k; }
  void wide() { current.kind = Step::Kind::wide; }
  void addition() { current.kind = Step::Kind::add; }
  void fma() { current.kind = Step::Kind::fma; }
  void fused(const SumTerm *terms, int count, int top, int fraction_bits) {
    current.kind = Step::Kind::fused;
    current.max_exponent = top;
    current.lsb = top - fraction_bits;
    current.terms = count;
    for (int i = 0; i < count; ++i) {
      const SumTerm &t = terms[i];
      current.aligned[size_t(i)] = align_term(t, top, fraction_bits);
      current.sum += current.aligned[size_t(i)];
      const int shift = fraction_bits - t.fraction - (top - t.exponent);
      if (t.significand == 0 || shift >= 0) continue;
      const uint64_t cut = shift <= -64 ? t.significand : t.significand & ((uint64_t{1} << -shift) - 1);
      if (cut == 0) continue;
      ++current.cut_terms;
      current.lost += std::ldexp(double(cut), shift);
    }
  }
  void step(int k, int products, uint64_t word) {
    current.k = start + k;
    current.products = products;
    current.word = word;
    steps.push_back(current);
    current = {};
  }
};

/// dot() (execute.hpp) with a final rounding of choice.
[[nodiscard]] inline uint64_t dot_finished(Finish finish, const UnitRule &rule, const DotOperands &op, int64_t k,
                                           uint64_t c, Accumulation accumulation) {
  return finish == Finish::as_unit ? dot(rule, op, k, c, accumulation)
                                   : dot(rule, op, k, c, accumulation, NearestEven());
}

} // namespace nvfp4
