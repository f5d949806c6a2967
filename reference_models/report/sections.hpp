// SPDX-License-Identifier: Apache-2.0
// The parts of the report, each an HTML section; one with nothing to show says so. Internal.
#pragma once
#include "nvfp4/reference_models/report/orderings.hpp"

#include <string>

namespace nvfp4::models {

/// The colour class of a recipe, the same in every chart.
[[nodiscard]] int recipe_color(std::string_view recipe);

using Groups = std::vector<RunGroup>;
[[nodiscard]] std::string loss_section(const Groups &groups);
/// What runs are kept apart by, and which are there twice; empty where neither.
[[nodiscard]] std::string alike_section(const RunGroups &groups);
/// The runs that diverged, at which step, and the last finite loss; empty where none did.
[[nodiscard]] std::string divergence_section(const std::vector<RunData> &runs);
/// Tensors of the diagnostics that held NaN or Inf, by run the first steps; empty where all were finite.
[[nodiscard]] std::string not_finite_section(const std::vector<RunData> &runs);
[[nodiscard]] std::string ordering_section(const std::vector<Ordering> &orderings);
[[nodiscard]] std::string paper_section(const Groups &groups);
[[nodiscard]] std::string kurtosis_section(const Groups &groups);
[[nodiscard]] std::string channel_section(const Groups &groups);
[[nodiscard]] std::string flush_section(const Groups &groups);
/// Measures of outliers that other work uses: residual stream, sinks, gradient spikes, scales at their ends.
[[nodiscard]] std::string outlier_section(const Groups &groups);
[[nodiscard]] std::string attention_section(const Groups &groups);
[[nodiscard]] std::string gate_section(const Groups &groups);
[[nodiscard]] std::string swiglu_section(const Groups &groups);
[[nodiscard]] std::string sensitivity_section(const Groups &groups);
[[nodiscard]] std::string provenance_section(const std::vector<RunData> &runs, const std::string &version);

} // namespace nvfp4::models
