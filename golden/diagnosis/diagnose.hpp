// SPDX-License-Identifier: Apache-2.0
// Is a kernel's output what the hardware arithmetic gives, and if not, which mistake explains it? First what
// D looks like, then single mistakes, then two at a time; cheapest first, on samples, then on all outputs.
#pragma once
#include "nvfp4/golden/diagnosis/compare.hpp"
#include "nvfp4/golden/diagnosis/hypothesis.hpp"
#include "nvfp4/golden/diagnosis/structure.hpp"
#include "nvfp4/golden/diagnosis/trace.hpp"

#include <functional>

namespace nvfp4::diagnosis {

struct DiagnoseOptions {
  int64_t sample = 128; ///< rows and columns on which every mistake is tried, all of K each
  double pair_cost =
      5; ///< seconds of one thread, by estimate, that the search for pairs may take; 0: no pairs
  double check_cost = 60; ///< the same for computing all outputs under one explanation
  std::function<void(double)> progress =
      {}; ///< gets the fraction done of each round; what it throws ends the work
};

/// How one mistake, or two together, do.
struct Finding {
  std::string name, title, advice;
  Topic topic = Topic::epilogue;
  int variant = 0;
  int64_t sampled = 0, sampled_equal = 0; ///< outputs on which it was tried last, those of facts left out
  double distance = 0; ///< of D from this mistake's output on the sample, relative (Comparison::distance)
  bool finite = true;  ///< its values are finite wherever D's are; else the distance is over the others
  bool explains_all = false; ///< gives every word of D, those of facts too
  int64_t equal =
      -1; ///< outputs of all of D that it gives, those of facts left out; -1 where that was not computed
  std::string leaves = {};             ///< of a partial explanation: which outputs it does not give
  std::vector<Fact> rest = {};         ///< of a partial explanation: what D looks like beside its outputs
  bool rest_accounts = false;          ///< this and `rest` account for every differing output
  std::optional<Parting> parting = {}; ///< where it leaves the reference at the first differing output
};

struct Report {
  Comparison comparison;        ///< D against the reference
  std::string verdict;          ///< one sentence to act on
  std::vector<Fact> facts = {}; ///< what D looks like
  bool facts_account = false;   ///< facts, without factors, account for every differing output
  bool by_factor = false;       ///< facts, factors included, account for every differing output
  int64_t covered = 0; ///< differing outputs that facts account for, factors aside: left out of what follows
  std::string where = {};           ///< which outputs differ, facts left out
  float alpha = 1.0f;               ///< the accumulator's factor in the reference
  std::string reference_trace = {}; ///< of the first differing output
  int64_t sampled = 0;              ///< outputs of the sample
  int64_t sampled_equal = 0;        ///< of them, those that the reference gives
  std::vector<Finding> candidates =
      {}; ///< give every word of D that no fact accounts for; more than one where they cannot be told apart
  std::vector<Finding> likely =
      {}; ///< give every word of the sample; all outputs would take longer than check_cost
  std::vector<Finding> partial = {}; ///< give notably more words than the reference does, best first
  std::vector<Finding> others = {};  ///< the rest, nearest first; those whose values are not finite last
  std::vector<std::string> no_effect = {}; ///< mistakes that change no bit of the sample
  int64_t tried = 0;                       ///< forms of single mistakes, cuts of K included
  int64_t pairs_tried = 0;                 ///< forms of two together
  std::vector<std::string> next = {};      ///< where nothing explains D: what to capture next
};

/// Compares D (`words`, row-major, of type p.word) with the reference, output by output. Unless they are
/// equal, describes D (structure.hpp, factors.hpp); unless that accounts for all, tries every mistake on a
/// sample of rows and columns, half of them evenly among those with a differing word and half evenly among
/// all: first 16 of each, then `sample` of each for what does no worse there than the reference; then cuts
/// and parts of K (parts.hpp), then pairs. What explains the sample wholly, or else the best one, is verified
/// on all outputs. Throws Error as check_problem().
[[nodiscard]] Report diagnose(const Problem &p, std::span<const uint8_t> words,
                              const DiagnoseOptions &options = {});

/// Where the bits of a mistake part from the reference at output (i, j). Nothing for mistakes in the
/// operands.
[[nodiscard]] std::optional<Parting> locate(const Problem &p, const Computation &mistake, Topic topic,
                                            int64_t i, int64_t j);

/// The accumulator of output (i, j) step by step; for chains of the unit's instructions in one piece.
[[nodiscard]] Trace trace_output(const Computation &c, int64_t i, int64_t j);

/// The report's verdict, from the rest of it.
[[nodiscard]] std::string verdict_of(const Problem &p, const Report &r);
/// What would tell more, where nothing explains D.
[[nodiscard]] std::vector<std::string> next_captures(const Problem &p, const Report &r);

} // namespace nvfp4::diagnosis
