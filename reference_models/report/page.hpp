// SPDX-License-Identifier: Apache-2.0
// The frame of the page: style, sections, figures, tables. What they say is decided in sections.hpp.
// Internal.
#pragma once
#include "nvfp4/reference_models/report/svg.hpp"

#include <string>
#include <string_view>
#include <vector>

namespace nvfp4::models {

/// A whole document around `body`, which is HTML; the title is text.
[[nodiscard]] std::string page(std::string_view title, std::string_view body);

/// A chart, one sentence on what it shows (text), and a link to its numbers as CSV; empty where the chart is.
[[nodiscard]] std::string figure(const Drawing &chart, std::string_view caption);

/// Figures side by side, two to a row of a wide window, small ones three; empty where all are.
[[nodiscard]] std::string figures(const std::vector<std::string> &list, bool small = false);

/// A section, or its note where there is nothing to show. Heading and notes are text, content is HTML.
[[nodiscard]] std::string section(std::string_view heading, std::string_view introduction,
                                  const std::string &content, std::string_view nothing);

/// A table; cells are HTML. Columns from `numbers_from` on are aligned to the right.
[[nodiscard]] std::string table(const std::vector<std::string> &head,
                                const std::vector<std::vector<std::string>> &rows, size_t numbers_from);

} // namespace nvfp4::models
