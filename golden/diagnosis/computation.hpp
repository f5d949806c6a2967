// SPDX-License-Identifier: Apache-2.0
// One way to compute D from a problem: operands, reduction and epilogue as data. The reference is one such
// record; a mistake is a change to it. evaluate() runs any of them.
#pragma once
#include "nvfp4/golden/diagnosis/problem.hpp"
#include "nvfp4/golden/diagnosis/step.hpp"

namespace nvfp4::diagnosis {

/// What adds up the products.
enum class Arithmetic : uint8_t {
  unit,      ///< the chain of the unit's instructions
  fma_f32,   ///< FP32: acc = fma(a, b, acc) element by element, a and b with their block scales
  block_f32, ///< FP32: acc = fma(exact block sum, sa * sb, acc), for scaled operands
};

/// How accumulators of parts of K become one.
enum class Combine : uint8_t {
  sequential, ///< ((p0 + p1) + p2) + ...
  reversed,   ///< ((pn + pn-1) + ...) + p0
  pairwise,   ///< neighbours first, then neighbours of the sums
  carried,    ///< no sum: each part starts from the rounded accumulator of the one before
};

/// How the products of one output become its accumulator.
struct Reduction {
  Unit unit; ///< a copy: a mistake may change the rule
  Accumulation accumulation = Accumulation::mmasim;
  Finish finish = Finish::as_unit;
  Arithmetic arithmetic = Arithmetic::unit;
  std::vector<int64_t> cuts =
      {}; ///< where K is cut, ascending, multiples of the unit's K inside K; none: one chain
  Combine combine = Combine::sequential;
  FormatId partial = FormatId::f32; ///< each part is rounded to this type before it is added or carried on
  bool round_sums = false;          ///< each sum of parts too
  bool alpha_on_partials = false;   ///< each part is multiplied by alpha before the additions
  bool fused_alpha = false;         ///< with it: sum = fma(alpha, part, sum)
  bool start_from_c = false;        ///< the chain starts from C, not +0
  bool fold_scales = false;         ///< the product of two block scales is rounded to the scale's format

  [[nodiscard]] bool split() const { return !cuts.empty(); }
};

/// Cuts every `slice` elements of K.
[[nodiscard]] std::vector<int64_t> cuts_every(int64_t slice, int64_t k);

struct Epilogue {
  float alpha = 1.0f, beta = 0.0f;
  FormatId round = FormatId::f32, word = FormatId::f32;
  std::vector<float> row_a = {}, row_b = {}; ///< factors per row of D and per column, empty: none
  std::optional<FormatId> round_acc = {};    ///< the accumulator is rounded to this type first
  std::optional<FormatId> round_twice = {};  ///< the result is rounded to this type before `round`
  bool truncate_first = false;               ///< that rounding truncates
  bool drop_sign = false;                    ///< the result's sign is cleared
  bool truncate = false;                     ///< the last rounding truncates
  bool unfused = false;                      ///< alpha * acc + beta * C with three roundings, not an fma
  bool column_major_c = false;               ///< C's buffer is read column by column
  bool column_major_d = false;               ///< D's buffer is written column by column
};

struct Computation {
  std::shared_ptr<const RawOperand> a, b;
  Reduction reduction;
  Epilogue epilogue;
};

/// Whether the operands are what the reduction reads: two mistakes together may not fit.
[[nodiscard]] bool fits(const Computation &c);

/// What the unit and cuBLASLt's epilogue give: the computation that D is compared with.
[[nodiscard]] Computation reference_computation(const Problem &p);

/// Words of the outputs rows x cols (indices into D) in the word type, row-major. Throws Error when an
/// operand does not fit the reduction's unit.
[[nodiscard]] std::vector<uint8_t> evaluate(const Problem &p, const Computation &c,
                                            std::span<const int64_t> rows, std::span<const int64_t> cols);

/// Rows of both operands alone, with C and factors to match: the same mistake on a few outputs. Not for
/// mistakes in the layout of C or D.
struct SmallComputation {
  Problem problem;
  Computation computation;
};
[[nodiscard]] SmallComputation cut_out(const Problem &p, const Computation &c, std::span<const int64_t> rows,
                                       std::span<const int64_t> cols);

/// Joins the accumulators of the parts of one output, in order of K, as the reduction says; `carried` is not
/// joined.
[[nodiscard]] uint64_t join_parts(const Reduction &r, float alpha, std::vector<uint64_t> parts);

/// The word of output (i, j) for an accumulator of format `acc_format`.
[[nodiscard]] uint64_t output_word(const Problem &p, const Epilogue &e, FormatId acc_format, uint64_t acc,
                                   int64_t i, int64_t j);

/// How long evaluate() of `outputs` takes, roughly, in seconds of one thread: more where no vector engine
/// computes it.
[[nodiscard]] double cost(const Computation &c, int64_t outputs);

} // namespace nvfp4::diagnosis
