// SPDX-License-Identifier: Apache-2.0
// Which runs may be averaged and which compared: groups of runs that are alike in everything that decides
// bits but their seed, in sections that are alike in everything but recipe and seed. What differs is said; a
// run that comes twice is named and left out.
#pragma once
#include "nvfp4/reference_models/report/run_data.hpp"

namespace nvfp4::models {

/// Runs that differ only in their seed, each seed once, at the same step. `model` names the section: the
/// model, and where the runs of a model are not alike what tells them apart, "gla-tiny [steps 400]"; `recipe`
/// the recipe likewise, by its content and by how far its runs got. Where all recipes of a section have
/// +mixers=bf16 behind their names the section says so instead, and they are compared as those before it.
struct RunGroup {
  std::string model, recipe;
  std::vector<const RunData *> runs;
};

struct Duplicate {
  const RunData *run, *kept;
  /// The first step at which the logs have other losses, which runs that are alike do not have; 0: none.
  int64_t differs_at = 0;

  /// One line for people.
  [[nodiscard]] std::string text() const;
};

struct RunGroups {
  std::vector<RunGroup> groups; ///< by model, then recipe as in recipe_order
  std::vector<Duplicate> duplicates;
  /// "gla-tiny: kept apart by steps (400, 800)", for people.
  std::vector<std::string> differences;
};

/// Those that diverged are in no group: they count in no ordering, gap or mean, and are shown by themselves.
[[nodiscard]] RunGroups sort_runs(const std::vector<RunData> &runs);
[[nodiscard]] inline std::vector<RunGroup> group_runs(const std::vector<RunData> &runs) {
  return sort_runs(runs).groups;
}

} // namespace nvfp4::models
