// SPDX-License-Identifier: Apache-2.0
// Charts as inline SVG text: lines, bars, heat maps. Colours are CSS classes (k0..k9, level0..level9) that
// the page defines for light and dark; nothing is loaded and nothing runs.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace nvfp4::models {

/// Text for HTML and SVG: & < > " and ' escaped, control characters dropped.
[[nodiscard]] std::string escape(std::string_view text);

/// "1,250", "0.0123", "-3.4e-05", with a true minus sign; about `digits` significant digits; "not finite" for
/// NaN and Inf.
[[nodiscard]] std::string number_text(double value, int digits = 4);

/// Round values (1, 2 or 5 times a power of ten apart) that lie in [low, high], about `count` of them.
[[nodiscard]] std::vector<double> round_ticks(double low, double high, int count);

struct Point {
  double x = 0, y = 0;
};

/// A chart as the page has it: drawn for a wide window (kWideChart units across, shown at that size or
/// larger) and for a phone (kNarrowChart), and its numbers as CSV. In both no text is smaller than 11 px.
struct Drawing {
  std::string title = {}, wide = {}, narrow = {}, csv = {};
  [[nodiscard]] bool empty() const { return wide.empty(); }
};
inline constexpr double kWideChart = 590, kNarrowChart = 340;

/// A line; points that are not finite interrupt it.
struct Series {
  std::string name = {};  ///< of the line, in the CSV
  std::string label = {}; ///< stands at the line's end, on a phone below the chart; empty: none
  int color = 0;
  std::vector<Point> points = {};
  bool dashed = false;
  bool faint = false; ///< thin and pale: raw data behind a smoothed line
  bool dots = false;  ///< a dot at each point
  bool apart = false; ///< dots that no line joins
};

/// A pale area between two lines.
struct Band {
  std::string name = {}; ///< in the CSV, which says "name, lowest" and "name, highest"
  int color = 0;
  std::vector<std::array<double, 3>> points; ///< x, low, high
};

struct LineChart {
  std::string title = {}, x_label = {}, y_label = {};
  std::vector<Series> series = {};
  std::vector<Band> bands = {};
  std::vector<std::pair<double, std::string>> rules = {}; ///< horizontal lines with a label beside them
  bool with_zero = false;                                 ///< the y axis contains 0
  std::optional<double> y_low = {}, y_high = {};          ///< cut the y axis here
  std::string solid = {}, dashed = {}; ///< what the two strokes mean, for the legend; empty: no legend
};
/// Empty if no series has a finite point. x counts something (steps, layers): its ticks are whole numbers.
[[nodiscard]] Drawing line_chart(const LineChart &chart);

struct Bar {
  std::string label = {}; ///< of the colour, for the legend
  int color = 0;
  double value = 0;
  std::optional<double> half_width = {};
  bool pale = false;
};
struct BarGroup {
  std::string label = {};
  std::vector<Bar> bars = {};
};
/// Horizontal bars with their numbers.
struct BarChart {
  std::string title = {}, x_label = {};
  std::vector<BarGroup> groups = {};
  int digits = 3;
};
[[nodiscard]] Drawing bar_chart(const BarChart &chart);

/// Magnitudes over steps (across) and channels (down), on a logarithmic scale from the median to the maximum.
struct HeatMap {
  std::string title, value_label;
  std::vector<int64_t> steps;
  int64_t channels = 0;
  std::vector<float> values; // (steps, channels)
};
/// At most 96 columns and 128 rows of cells; a cell shows the maximum of what it covers, and so does the CSV.
/// One drawing serves both widths.
[[nodiscard]] Drawing heat_map(const HeatMap &map);

} // namespace nvfp4::models
