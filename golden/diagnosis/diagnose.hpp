// SPDX-License-Identifier: Apache-2.0
// Is a kernel's output what the hardware arithmetic gives, and if not, which mistake explains it?
#pragma once
#include "nvfp4/golden/diagnosis/compare.hpp"
#include "nvfp4/golden/diagnosis/hypothesis.hpp"
#include "nvfp4/golden/diagnosis/trace.hpp"

namespace nvfp4::diagnosis {

struct DiagnoseOptions {
  int64_t sample = 128; ///< rows and columns on which every mistake is tried, all of K each
  bool pairs = false;   ///< where no single mistake explains D, try two at a time
  void (*progress)(double) = nullptr;
};

/// How one mistake does.
struct Finding {
  std::string name, title, advice;
  Topic topic = Topic::epilogue;
  int variant = 0;
  int64_t sampled = 0, sampled_equal = 0; ///< outputs on which it was tried last
  double distance = 0; ///< of D from this mistake's output on the sample, relative (Comparison::distance)
  int64_t equal = -1;  ///< outputs of all of D that it gives, -1 where that was not computed
  std::optional<Parting> parting = {}; ///< where it leaves the reference at the first differing output

  /// Whether it gives every word of D.
  [[nodiscard]] bool explains(int64_t outputs) const { return equal == outputs; }
};

struct Report {
  Comparison comparison;            ///< D against the reference
  float alpha = 1.0f;               ///< the accumulator's factor in the reference
  std::string reference_trace = {}; ///< of the first differing output
  int64_t sampled = 0;              ///< outputs of the sample
  int64_t sampled_equal = 0;        ///< of them, those that the reference gives
  std::vector<Finding> candidates =
      {};                            ///< give every word of D; more than one where they cannot be told apart
  std::vector<Finding> partial = {}; ///< give more words of the sample than the reference does, best first
  std::vector<Finding> others = {};  ///< the rest, nearest first
  std::vector<std::string> no_effect = {}; ///< mistakes that change no bit of the sample
  std::optional<double> factor = {};       ///< D is, to FP32 accuracy, this constant times the reference
};

/// Compares D (`words`, row-major, of type p.word) with the reference, output by output. Unless they are
/// equal, tries every mistake on a sample of rows and columns, half of them evenly among those with a
/// differing word and half evenly among all: first 16 of each, then `sample` of each for what does no worse
/// there than the reference. What explains the sample wholly, or else the best one, is verified on all
/// outputs. Throws Error as check_problem().
[[nodiscard]] Report diagnose(const Problem &p, std::span<const uint8_t> words,
                              const DiagnoseOptions &options = {});

/// Where the bits of a mistake part from the reference at output (i, j). Nothing for mistakes in the
/// operands.
[[nodiscard]] std::optional<Parting> locate(const Problem &p, const Computation &mistake, Topic topic,
                                            int64_t i, int64_t j);

/// The accumulator of output (i, j) step by step; for chains of the unit's instructions in one piece.
[[nodiscard]] Trace trace_output(const Computation &c, int64_t i, int64_t j);

} // namespace nvfp4::diagnosis
