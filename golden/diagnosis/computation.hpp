// SPDX-License-Identifier: Apache-2.0
// One way to compute D from a problem: operands, chain and epilogue as data. The reference is one such
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

/// How partial accumulators of slices along K become one.
enum class Combine : uint8_t {
  sequential, ///< ((p0 + p1) + p2) + ...
  reversed,   ///< ((pn + pn-1) + ...) + p0
  pairwise,   ///< neighbours first, then neighbours of the sums
};

struct Chain {
  Unit unit; ///< a copy: a mistake may change the rule
  Accumulation accumulation = Accumulation::mmasim;
  Finish finish = Finish::as_unit;
  Arithmetic arithmetic = Arithmetic::unit;
  int64_t slice = 0; ///< K of one partial accumulator, a multiple of the unit's K; 0: one chain
  Combine combine = Combine::sequential;
  bool alpha_on_partials = false; ///< each partial is multiplied by alpha before the additions
  bool start_from_c = false;      ///< the chain starts from C, not +0
};

struct Epilogue {
  float alpha = 1.0f, beta = 0.0f;
  FormatId round = FormatId::f32, word = FormatId::f32;
  std::vector<float> row_a = {}, row_b = {}; ///< factors per row of D and per column, empty: none
  std::optional<FormatId> round_acc = {};    ///< the accumulator is rounded to this type first
  std::optional<FormatId> round_twice = {};  ///< the result is rounded to this type before `round`
  bool truncate = false;                     ///< the last rounding truncates
  bool unfused = false;                      ///< alpha * acc + beta * C with three roundings, not an fma
  bool column_major_c = false;               ///< C's buffer is read column by column
  bool column_major_d = false;               ///< D's buffer is written column by column
};

struct Computation {
  std::shared_ptr<const RawOperand> a, b;
  Chain chain;
  Epilogue epilogue;
};

/// What the unit and cuBLASLt's epilogue give: the computation that D is compared with.
[[nodiscard]] Computation reference_computation(const Problem &p);

/// Words of the outputs rows x cols (indices into D) in the word type, row-major. Throws Error when an
/// operand does not fit the chain's unit.
[[nodiscard]] std::vector<uint8_t> evaluate(const Problem &p, const Computation &c,
                                            std::span<const int64_t> rows, std::span<const int64_t> cols);

} // namespace nvfp4::diagnosis
