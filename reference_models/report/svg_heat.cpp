// SPDX-License-Identifier: Apache-2.0
// Heat maps: one path a level of colour, runs of equal cells merged, so that thousands of cells stay small.
#include "nvfp4/reference_models/report/svg.hpp"

#include "nvfp4/reference_models/report/svg_text.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/core.h>

namespace nvfp4::models {
namespace {

constexpr int kLevels = 10;
constexpr int64_t kMaxColumns = 96, kMaxRows = 128;

/// Cells that show the maximum of what they cover; 0 where nothing finite is.
std::vector<float> reduce(const HeatMap &map, int64_t columns, int64_t rows) {
  std::vector<float> cells(size_t(columns * rows), 0.0f);
  const auto steps = int64_t(map.steps.size());
  for (int64_t s = 0; s < steps; ++s)
    for (int64_t c = 0; c < map.channels; ++c) {
      const float v = map.values[size_t(s * map.channels + c)];
      float &cell = cells[size_t((s * columns / steps) * rows + c * rows / map.channels)];
      if (std::isfinite(v)) cell = std::max(cell, v);
    }
  return cells;
}

/// A line for each row of cells: its first channel, then the cells; above them the first step of each column.
std::string csv_of(const HeatMap &map, const std::vector<float> &cells, int64_t columns, int64_t rows) {
  const auto steps = int64_t(map.steps.size());
  const auto first = [](int64_t cell, int64_t cells_of, int64_t n) {
    return (cell * n + cells_of - 1) / cells_of;
  };
  std::string out = "channel";
  for (int64_t c = 0; c < columns; ++c)
    out += fmt::format(",step {}", map.steps[size_t(first(c, columns, steps))]);
  out += "\n";
  for (int64_t r = 0; r < rows; ++r) {
    out += fmt::format("{}", first(r, rows, map.channels));
    for (int64_t c = 0; c < columns; ++c) out += fmt::format(",{:.4g}", cells[size_t(c * rows + r)]);
    out += "\n";
  }
  return out;
}

} // namespace

Drawing heat_map(const HeatMap &map) {
  const auto steps = int64_t(map.steps.size());
  if (steps == 0 || map.channels == 0) return {};
  const int64_t columns = std::min(steps, kMaxColumns), rows = std::min(map.channels, kMaxRows);
  const std::vector<float> cells = reduce(map, columns, rows);
  std::vector<float> sorted = cells;
  std::sort(sorted.begin(), sorted.end());
  const double high = double(sorted.back());
  if (high <= 0) return {};
  const double low = std::max(double(sorted[(sorted.size() - 1) / 2]), high * 1e-4);
  const double span = high > low ? std::log(high / low) : 1;
  const auto level = [&](float v) {
    return v <= 0 ? 0 : int(std::clamp(std::log(double(v) / low) / span * kLevels, 0.0, double(kLevels - 1)));
  };

  constexpr double width = kNarrowChart, left = 44, plot = 214;
  double top = 0;
  const std::string title = title_lines(map.title, width, top);
  top += 10;
  const double height = std::max(120.0, double(rows) * 1.7), bottom = top + height;
  const double w = plot / double(columns), h = height / double(rows);
  std::vector<std::string> paths(kLevels);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns;) {
      const int l = level(cells[size_t(c * rows + r)]);
      int64_t end = c + 1;
      while (end < columns && level(cells[size_t(end * rows + r)]) == l) ++end;
      if (l > 0) paths[size_t(l)] += fmt::format("M{} {}h{}v1h-{}z", c, r, end - c, end - c);
      c = end;
    }
  std::string out = fmt::format("<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">\n", width,
                                bottom + 44, escape(map.title));
  out += title;
  out += fmt::format("<rect class=\"level0\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{:.1f}\"/>\n", left, top,
                     plot, height);
  out +=
      fmt::format("<g transform=\"translate({} {}) scale({:.5f} {:.5f})\" shape-rendering=\"crispEdges\">\n",
                  left, top, w, h);
  for (int l = 1; l < kLevels; ++l)
    if (!paths[size_t(l)].empty())
      out += fmt::format("<path class=\"level{}\" d=\"{}\"/>\n", l, paths[size_t(l)]);
  out += "</g>\n";

  for (const double t : round_ticks(0, double(map.channels - 1), 5))
    if (t == std::round(t))
      out += fmt::format("<text class=\"tick\" text-anchor=\"end\" x=\"{}\" y=\"{:.1f}\">{}</text>", left - 5,
                         top + (t + 0.5) / double(map.channels) * height + 4, number_text(t));
  const double last_x = left + (double(steps) - 0.5) / double(steps) * plot;
  double free = left - 1; // where the last label ended
  for (int64_t i = 0; i < steps; ++i) {
    const double x = left + (double(i) + 0.5) / double(steps) * plot;
    if (x - 22 < free && i != 0) continue;
    if (i != 0 && i != steps - 1 && last_x - x < 52) continue;
    out += fmt::format("<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1f}\" y=\"{:.1f}\">{}</text>", x,
                       bottom + 14, number_text(double(map.steps[size_t(i)])));
    free = x + 30;
  }
  out += fmt::format("<text class=\"axis\" text-anchor=\"middle\" x=\"{}\" y=\"{:.1f}\">step</text>",
                     left + plot / 2, bottom + 32);
  out += fmt::format("<text class=\"axis\" text-anchor=\"middle\" transform=\"translate(13 {:.1f}) "
                     "rotate(-90)\">channel</text>\n",
                     top + height / 2);
  const double box = 100.0 / kLevels, x0 = left + plot + 16;
  for (int l = 0; l < kLevels; ++l)
    out += fmt::format("<rect class=\"level{}\" x=\"{}\" y=\"{:.1f}\" width=\"12\" height=\"{:.1f}\"/>", l,
                       x0, top + 18 + (kLevels - 1 - l) * box, box + 0.3);
  const auto mark = [&](double fraction) {
    out += fmt::format("<text class=\"tick\" x=\"{}\" y=\"{:.1f}\">{}{}</text>", x0 + 17,
                       top + 22 + (1 - fraction) * 100, fraction == 0 ? "\u2264 " : "",
                       number_text(low * std::exp(span * fraction), 3));
  };
  for (const double f : {0.0, 0.5, 1.0}) mark(f);
  out +=
      fmt::format("<text class=\"axis\" x=\"{}\" y=\"{}\">{}</text>\n", x0, top + 8, escape(map.value_label));
  return {map.title, out + "</svg>\n", {}, csv_of(map, cells, columns, rows)};
}

} // namespace nvfp4::models
