// SPDX-License-Identifier: Apache-2.0
// Text in charts: how wide it is, about, and lines that fit. Internal.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace nvfp4::models {

/// Rough width of text in the charts' 12 px face, of the wider sort.
[[nodiscard]] double text_width(std::string_view text);

/// The lines of a text that may be `width` wide: broken at spaces and after hyphens, else anywhere.
[[nodiscard]] std::vector<std::string> wrapped(std::string_view text, double width);

/// An element with this text at (x, y), the left end of its baseline unless the attributes say otherwise.
[[nodiscard]] std::string text_at(double x, double y, std::string_view text, std::string_view attributes);

/// A chart's title in as many lines as it needs; y is moved below it.
[[nodiscard]] std::string title_lines(std::string_view title, double width, double &y);

} // namespace nvfp4::models
