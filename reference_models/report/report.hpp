// SPDX-License-Identifier: Apache-2.0
// One self-contained HTML page about some runs: what was lost against BF16 and what the tensors looked like
// meanwhile.
#pragma once
#include "nvfp4/reference_models/report/groups.hpp"
#include "nvfp4/reference_models/report/orderings.hpp"

#include <functional>
#include <string>
#include <vector>

namespace nvfp4::models {

/// The page. It loads nothing, runs no script, and follows the reader's light or dark preference.
[[nodiscard]] std::string make_report(const std::vector<RunData> &runs, const std::string &version);

struct WrittenReport {
  std::vector<RunData> runs = {};
  RunGroups sorted = {}; ///< of `runs`, to which it points: a report is moved, not copied
  std::vector<Ordering> orderings = {};
  size_t bytes = 0; ///< of the page

  WrittenReport() = default;
  WrittenReport(WrittenReport &&) = default;
  WrittenReport &operator=(WrittenReport &&) = default;
};
/// Writes the page about the runs in `folders`, or below them, to `output`. `progress` gets the fraction read. Throws Error
/// for what is no run, and where the page would be a file of a run.
[[nodiscard]] WrittenReport write_report(const std::vector<std::string> &folders, const std::string &output,
                                         const std::string &version, const std::function<void(double)> &progress = {});

/// One line of JSON about a page at `output`: its runs in groups, its orderings with their numbers, the runs that diverged.
[[nodiscard]] std::string report_json(const WrittenReport &made, const std::string &output);

} // namespace nvfp4::models
