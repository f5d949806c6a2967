// SPDX-License-Identifier: Apache-2.0
// Numbers of runs that a report shows and judges: each is defined here once. "Late" is the last quarter of
// the recorded steps; linear layers of the blocks count, lm_head and the operators inside mixers, which are
// recorded under some recipes only, do not.
#pragma once
#include "nvfp4/reference_models/report/groups.hpp"
#include "nvfp4/reference_models/report/statistics.hpp"
#include "nvfp4/reference_models/report/svg.hpp"

#include <functional>

namespace nvfp4::models {

[[nodiscard]] std::vector<std::string> models_of(const std::vector<RunGroup> &groups);
/// nullptr if there is none.
[[nodiscard]] const RunGroup *find_group(const std::vector<RunGroup> &groups, std::string_view model,
                                         std::string_view recipe);
/// The group whose dynamics stand for a model: bf16 if it was run, else the first.
[[nodiscard]] const RunGroup &reference_group(const std::vector<RunGroup> &groups, std::string_view model);

/// The group whose sensitivity scores count for a model: the reference group if it has any, else the first
/// that has; nullptr without. Scores of several recipes at one seed would not be independent.
[[nodiscard]] const RunGroup *scored_group(const std::vector<RunGroup> &groups, std::string_view model);

[[nodiscard]] double median(std::vector<double> values); ///< NaN without elements; NaN elements are left out
[[nodiscard]] double mean(const std::vector<double> &values);

/// The first late step: three quarters of the recorded steps lie before it.
[[nodiscard]] int64_t late_start(const RunData &run);

using TensorField = double TensorRecord::*;

/// A field over the recorded steps, reduced over layers and operators.
[[nodiscard]] std::vector<Point> over_time(const RunData &run, TensorKind kind, TensorField field,
                                           bool use_median);
/// By layer, late, reduced over operators and steps.
[[nodiscard]] std::vector<Point> by_depth(const RunData &run, TensorKind kind, TensorField field,
                                          bool use_median);
/// Late, reduced over layers and operators; NaN without records.
[[nodiscard]] double late_value(const RunData &run, TensorKind kind, TensorField field, bool use_median);
/// Mean over runs, point by point where all runs have the same x.
[[nodiscard]] std::vector<Point> mean_over_runs(const std::vector<std::vector<Point>> &lines);

/// The residual stream after the blocks, over the recorded steps: its largest value of any block, and the
/// number of massive activations in all of them.
[[nodiscard]] std::vector<Point> largest_activation(const RunData &run);
[[nodiscard]] std::vector<Point> massive_activation_count(const RunData &run);
/// By block, late: the median over the steps of a field of its records.
[[nodiscard]] std::vector<Point> residual_by_depth(const RunData &run, double ResidualRecord::*field);
/// Of the gradient norm over the logged steps.
[[nodiscard]] Spikes gradient_spikes(const RunData &run);

/// The mean over layers of a field of the attention, gate or swiglu records, over the recorded steps.
template <class Record>
[[nodiscard]] std::vector<Point> layer_mean(const std::vector<Record> &records, double Record::*field) {
  std::vector<Point> out;
  for (size_t i = 0; i < records.size();) {
    double sum = 0;
    size_t n = 0;
    const int64_t step = records[i].step;
    for (; i < records.size() && records[i].step == step; ++i, ++n) sum += records[i].*field;
    out.push_back({double(step), sum / double(n)});
  }
  return out;
}

/// Mean of the last third minus mean of the first third of the points; nothing for fewer than 3.
struct Trend {
  double early = 0, late = 0;
};
[[nodiscard]] std::optional<Trend> trend_of(const std::vector<Point> &points);

/// Jaccard of the sets of neighbouring records of an operator's input, mean over operators; x is the later
/// step. `hot` compares the hot sets (1 % of the channels), else the 16 largest channels.
[[nodiscard]] std::vector<Point> persistence(const RunData &run, bool hot);

/// What random sets of that size would give, averaged over the same operators: the expected overlap over the
/// expected union.
[[nodiscard]] double random_persistence(const RunData &run, bool hot);

struct Losses {
  double last = 0, smoothed = 0;    ///< of the last step; mean of the last 10 % of the steps (at least 1)
  std::optional<double> validation; ///< the last that was logged
};
[[nodiscard]] std::optional<Losses> losses_of(const RunData &run);
/// centred_mean over 2.5 % of the logged steps, at least 2, on each side.
[[nodiscard]] std::vector<Point> smoothed_loss(const RunData &run);

/// Pairs of equal seed whose runs ended at the same step.
[[nodiscard]] std::vector<std::pair<const RunData *, const RunData *>> pairs_of(const RunGroup &a,
                                                                                const RunGroup &b);

} // namespace nvfp4::models
