// SPDX-License-Identifier: Apache-2.0
// Lines and bars: scales, ticks, labels that keep out of each other's way. Heat maps are in svg_heat.cpp.
#include "nvfp4/reference_models/report/svg.hpp"

#include "nvfp4/reference_models/report/svg_text.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/core.h>
#include <limits>

namespace nvfp4::models {
namespace {

struct Interval {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void add(double v) {
    if (!std::isfinite(v)) return;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  [[nodiscard]] bool empty() const { return !(low <= high); }
  /// A little air above and below; never of no height.
  void widen(double fraction) {
    const double air = high > low ? (high - low) * fraction : std::max(std::fabs(high) * 0.1, 1e-9);
    low -= air;
    high += air;
  }
};

struct AxisScale {
  double low, high, from, to;
  [[nodiscard]] double at(double v) const { return from + (v - low) / (high - low) * (to - from); }
};

std::string line(double x1, double y1, double x2, double y2, std::string_view css) {
  return fmt::format("<line class=\"{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", css,
                     x1, y1, x2, y2);
}

std::string svg_of(double width, double height, std::string_view title, const std::string &content) {
  return fmt::format("<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">\n", width, height,
                     escape(title)) +
         content + "</svg>\n";
}

struct EndLabel {
  double y;
  std::string text, css;
};

/// Moves labels apart to `gap`, keeping their order and staying between top and bottom.
void spread(std::vector<EndLabel> &labels, double top, double bottom, double gap) {
  std::stable_sort(labels.begin(), labels.end(),
                   [](const EndLabel &a, const EndLabel &b) { return a.y < b.y; });
  double least = top;
  for (EndLabel &l : labels) {
    l.y = std::max(l.y, least);
    least = l.y + gap;
  }
  double most = bottom;
  for (auto l = labels.rbegin(); l != labels.rend(); ++l) {
    l->y = std::min(l->y, most);
    most = l->y - gap;
  }
}

std::string path_of(const Series &s, const AxisScale &x, const AxisScale &y) {
  std::string d;
  bool pen_down = false;
  for (const Point &p : s.points) {
    if (!std::isfinite(p.x) || !std::isfinite(p.y)) {
      pen_down = false;
      continue;
    }
    d += fmt::format("{}{:.1f} {:.1f}", pen_down ? "L" : "M", x.at(p.x), y.at(p.y));
    pen_down = true;
  }
  return d;
}

struct LegendItem {
  std::string label, swatch; ///< the swatch is 18 wide and centred on y = 0
};

/// From left to right in as many rows as they need; y is moved below them.
std::string legend(const std::vector<LegendItem> &items, double left, double right, double &y) {
  if (items.empty()) return {};
  std::string out;
  double x = left;
  for (const LegendItem &item : items) {
    const double width = 24 + text_width(item.label);
    if (x > left && x + width > right) x = left, y += 18;
    out += fmt::format("<g transform=\"translate({:.1f} {:.1f})\">{}</g>", x, y + 9, item.swatch);
    out += text_at(x + 24, y + 13, item.label, "class=\"label\"");
    x += width + 12;
  }
  y += 20;
  return out;
}

/// A field of a CSV line.
std::string csv_field(std::string_view value) {
  if (value.find_first_of(",\"\n") == std::string_view::npos) return std::string(value);
  std::string out = "\"";
  for (const char c : value) out += c == '"' ? "\"\"" : std::string(1, c);
  return out + "\"";
}

std::string csv_of(const LineChart &chart) {
  std::string out = "line," + csv_field(chart.x_label) + "," + csv_field(chart.y_label) + "\n";
  for (const Series &s : chart.series)
    for (const Point &p : s.points)
      out += fmt::format("{},{:g},{:.9g}\n", csv_field(s.name.empty() ? s.label : s.name), p.x, p.y);
  for (const Band &b : chart.bands)
    for (const int side : {1, 2})
      for (const auto &p : b.points)
        out += fmt::format("{},{:g},{:.9g}\n", csv_field(b.name + (side == 1 ? ", lowest" : ", highest")),
                           p[0], p[size_t(side)]);
  for (const auto &[value, label] : chart.rules) out += fmt::format("{},,{:.9g}\n", csv_field(label), value);
  return out;
}

std::string csv_of(const BarChart &chart) {
  std::string out = "group,bar," + csv_field(chart.x_label) + ",half width of the interval\n";
  for (const BarGroup &g : chart.groups)
    for (const Bar &b : g.bars)
      out += fmt::format("{},{},{:.9g},{}\n", csv_field(g.label), csv_field(b.label), b.value,
                         b.half_width ? fmt::format("{:.9g}", *b.half_width) : "");
  return out;
}

} // namespace

std::string number_text(double value, int digits) {
  if (!std::isfinite(value)) return "not finite";
  if (value == 0) return "0";
  std::string out;
  const double magnitude = std::fabs(value);
  const int before = int(std::floor(std::log10(magnitude))) + 1;
  if (before > 12 || before < -4)
    out = fmt::format("{:.{}g}", magnitude, digits);
  else {
    out = fmt::format("{:.{}f}", magnitude, std::max(0, digits - before));
    if (out.find('.') != std::string::npos) {
      out.erase(out.find_last_not_of('0') + 1);
      if (out.back() == '.') out.pop_back();
    }
    const size_t whole = std::min(out.find('.'), out.size());
    for (size_t i = whole; i > 3;) out.insert(i -= 3, ",");
  }
  return (value < 0 ? "\u2212" : "") + out;
}

std::vector<double> round_ticks(double low, double high, int count) {
  // a range of a few ulps, as means of equal values leave it, has no ticks that doubles can tell apart
  if (!(high - low > 1e-12 * std::max(std::fabs(low), std::fabs(high)))) return {low};
  const double raw = (high - low) / std::max(1, count), power = std::pow(10.0, std::floor(std::log10(raw)));
  const double step = power * (raw / power < 1.5 ? 1 : raw / power < 3.5 ? 2 : raw / power < 7.5 ? 5 : 10);
  std::vector<double> ticks;
  for (double i = std::ceil(low / step - 1e-9); i * step <= high + step * 1e-9; ++i)
    ticks.push_back(i * step);
  return ticks;
}

namespace {

/// What the axes of a line chart span.
struct Intervals {
  Interval x, y;
};

Intervals ranges_of(const LineChart &chart) {
  Intervals r;
  for (const Series &s : chart.series)
    for (const Point &p : s.points)
      if (std::isfinite(p.y)) r.x.add(p.x), r.y.add(p.y);
  if (r.y.empty()) return r;
  for (const Band &b : chart.bands)
    for (const auto &p : b.points) r.y.add(p[1]), r.y.add(p[2]);
  for (const auto &rule : chart.rules) r.y.add(rule.first);
  if (chart.with_zero) r.y.add(0);
  const bool from_zero = chart.with_zero && r.y.low == 0;
  r.y.widen(0.06);
  if (from_zero) r.y.low = 0;
  if (chart.y_low) r.y.low = *chart.y_low;
  if (chart.y_high) r.y.high = std::max(*chart.y_high, r.y.low + 1e-9);
  if (r.x.low == r.x.high) r.x.widen(0.5);
  return r;
}

std::string stroke(int color, bool dashed) {
  return fmt::format("<path class=\"line k{}{}\" d=\"M0 0H18\"/>", color, dashed ? " dash" : "");
}

/// Lines, bands and rules, cut at the plot's edge: a nested svg does that and keeps the coordinates.
std::string plot_of(const LineChart &chart, const AxisScale &x, const AxisScale &y) {
  std::string out = fmt::format("<svg x=\"{0:.1f}\" y=\"{1:.1f}\" width=\"{2:.1f}\" height=\"{3:.1f}\" "
                                "viewBox=\"{0:.1f} {1:.1f} {2:.1f} {3:.1f}\">\n",
                                x.from - 4, y.to - 4, x.to - x.from + 8, y.from - y.to + 8);
  for (const Band &b : chart.bands) {
    std::string d;
    for (const auto &p : b.points)
      d += fmt::format("{}{:.1f} {:.1f}", d.empty() ? "M" : "L", x.at(p[0]), y.at(p[2]));
    for (auto p = b.points.rbegin(); p != b.points.rend(); ++p)
      d += fmt::format("L{:.1f} {:.1f}", x.at((*p)[0]), y.at((*p)[1]));
    if (!d.empty()) out += fmt::format("<path class=\"band k{}\" d=\"{}Z\"/>\n", b.color, d);
  }
  for (const auto &rule : chart.rules)
    out += line(x.from, y.at(rule.first), x.to, y.at(rule.first), "reference");
  for (const Series &s : chart.series) {
    if (!s.apart)
      out += fmt::format("<path class=\"line k{}{}{}\" d=\"{}\"/>\n", s.color, s.faint ? " faint" : "",
                         s.dashed ? " dash" : "", path_of(s, x, y));
    if (s.dots || s.apart || s.points.size() == 1)
      for (const Point &p : s.points)
        if (std::isfinite(p.y))
          out += fmt::format("<circle class=\"dot k{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.6\"/>", s.color,
                             x.at(p.x), y.at(p.y));
  }
  return out + "</svg>\n";
}

/// Labels stand beside the ends of their lines, or in a legend below a narrow chart.
std::string draw(const LineChart &chart, const Intervals &range, double width) {
  const bool beside = width >= kWideChart;
  double header = 0;
  std::string out = title_lines(chart.title, width, header);
  for (const std::string &l : wrapped(chart.y_label, width))
    out += text_at(0, header + 13, l, "class=\"axis\""), header += 16;
  if (!chart.solid.empty()) {
    header += 4;
    out += legend({{chart.solid, "<path class=\"line ink\" d=\"M0 0H18\"/>"},
                   {chart.dashed, "<path class=\"line ink dash\" d=\"M0 0H18\"/>"}},
                  beside ? 58 : 0, width, header);
  }
  double label_width = 0;
  for (const Series &s : chart.series) label_width = std::max(label_width, text_width(s.label));
  for (const auto &rule : chart.rules) label_width = std::max(label_width, text_width(rule.second));
  const double top = header + 10, bottom = top + 206, left = 58;
  const double right = beside ? width - std::min(210.0, label_width + 14) : width - 12;
  const AxisScale x{range.x.low, range.x.high, left, right}, y{range.y.low, range.y.high, bottom, top};

  for (const double t : round_ticks(range.y.low, range.y.high, 5)) {
    out += line(left, y.at(t), right, y.at(t), "grid");
    out += text_at(left - 6, y.at(t) + 4, number_text(t), "class=\"tick\" text-anchor=\"end\"");
  }
  for (const double t : round_ticks(range.x.low, range.x.high, beside ? 6 : 4)) {
    if (t != std::round(t)) continue;
    out += line(x.at(t), bottom, x.at(t), bottom + 4, "rule");
    out += text_at(x.at(t), bottom + 17, number_text(t, 9), "class=\"tick\" text-anchor=\"middle\"");
  }
  out += line(left, bottom, right, bottom, "rule");
  out += text_at((left + right) / 2, bottom + 36, chart.x_label, "class=\"axis\" text-anchor=\"middle\"");
  out += plot_of(chart, x, y);

  double end = bottom + 44;
  std::vector<EndLabel> labels;
  std::vector<LegendItem> items;
  for (const Series &s : chart.series) {
    const auto last =
        std::find_if(s.points.rbegin(), s.points.rend(), [](const Point &p) { return std::isfinite(p.y); });
    if (s.label.empty() || last == s.points.rend()) continue;
    labels.push_back(
        {std::clamp(y.at(last->y), top, bottom) + 4, s.label, fmt::format("label ink{}", s.color)});
    items.push_back({s.label, stroke(s.color, s.dashed)});
  }
  for (const auto &[value, label] : chart.rules) {
    labels.push_back({std::clamp(y.at(value), top, bottom) + 4, label, "axis"});
    items.push_back({label, "<path class=\"reference\" d=\"M0 0H18\"/>"});
  }
  if (beside) {
    spread(labels, top + 4, std::max(bottom + 4, top + 4 + 14 * double(labels.size() - 1)), 14);
    for (const EndLabel &l : labels) {
      out += text_at(right + 7, l.y, l.text, fmt::format("class=\"{}\"", l.css));
      end = std::max(end, l.y + 6);
    }
  } else {
    out += legend(items, 0, width, end);
  }
  return svg_of(width, end, chart.title, out);
}

/// Nothing where no bar has a finite value.
Interval range_of(const BarChart &chart) {
  Interval xs;
  bool any = false;
  xs.add(0);
  for (const BarGroup &g : chart.groups)
    for (const Bar &b : g.bars) {
      any |= std::isfinite(b.value);
      xs.add(b.value + b.half_width.value_or(0));
      xs.add(b.value - b.half_width.value_or(0));
    }
  if (xs.low == xs.high) xs.high = 1;
  return any ? xs : Interval{};
}

std::string draw(const BarChart &chart, const Interval &xs, double width) {
  double group_width = 0;
  std::vector<LegendItem> items;
  for (const BarGroup &g : chart.groups) {
    group_width = std::max(group_width, text_width(g.label));
    for (const Bar &b : g.bars)
      if (std::none_of(items.begin(), items.end(), [&](const LegendItem &l) { return l.label == b.label; }))
        items.push_back(
            {b.label, fmt::format("<rect class=\"bar k{}{}\" x=\"4\" y=\"-5\" width=\"14\" height=\"10\"/>",
                                  b.color, b.pale ? " pale" : "")});
  }
  const double left = std::clamp(group_width + 12, 60.0, width * 0.37), right = width - 64;
  const AxisScale x{xs.low, xs.high, left + (xs.low < 0 ? 60 : 0), right};
  double y = 0;
  std::string out = title_lines(chart.title, width, y);
  y += 4;
  if (items.size() > 1) out += legend(items, 0, width, y);

  std::string bars;
  const double top = y;
  for (const BarGroup &g : chart.groups) {
    y += 8;
    const std::vector<std::string> name = wrapped(g.label, left - 10);
    const double height = 17 * double(std::max(g.bars.size(), name.size()));
    double at = y + (height - 15 * double(name.size())) / 2 + 11;
    for (const std::string &l : name)
      bars += text_at(left - 8, at, l, "class=\"label\" text-anchor=\"end\""), at += 15;
    at = y;
    y += height;
    for (const Bar &b : g.bars) {
      if (std::isfinite(b.value)) {
        const double from = x.at(std::min(0.0, b.value)), to = x.at(std::max(0.0, b.value));
        bars += fmt::format(
            "<rect class=\"bar k{}{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"13\"/>", b.color,
            b.pale ? " pale" : "", from, at, std::max(0.8, to - from));
        double end = b.value < 0 ? from : to;
        if (b.half_width) {
          const double low = x.at(b.value - *b.half_width), high = x.at(b.value + *b.half_width);
          bars += line(low, at + 6.5, high, at + 6.5, "whisker") +
                  line(low, at + 3, low, at + 10, "whisker") + line(high, at + 3, high, at + 10, "whisker");
          end = b.value < 0 ? low : high;
        }
        bars += text_at(b.value < 0 ? end - 5 : end + 5, at + 10.5, number_text(b.value, chart.digits),
                        b.value < 0 ? "class=\"tick\" text-anchor=\"end\"" : "class=\"tick\"");
      } else {
        bars += text_at(x.at(0) + 5, at + 10.5, "not finite", "class=\"tick\"");
      }
      at += 17;
    }
  }
  for (const double t : round_ticks(xs.low, xs.high, width >= kWideChart ? 5 : 3)) {
    out += line(x.at(t), top, x.at(t), y, "grid");
    out += text_at(x.at(t), y + 14, number_text(t), "class=\"tick\" text-anchor=\"middle\"");
  }
  out += text_at((x.from + x.to) / 2, y + 32, chart.x_label, "class=\"axis\" text-anchor=\"middle\"");
  out += bars + line(x.at(0), top, x.at(0), y, "rule");
  return svg_of(width, y + 38, chart.title, out);
}

} // namespace

Drawing line_chart(const LineChart &chart) {
  const Intervals range = ranges_of(chart);
  if (range.y.empty()) return {};
  return {chart.title, draw(chart, range, kWideChart), draw(chart, range, kNarrowChart), csv_of(chart)};
}

Drawing bar_chart(const BarChart &chart) {
  const Interval range = range_of(chart);
  if (range.empty()) return {};
  return {chart.title, draw(chart, range, kWideChart), draw(chart, range, kNarrowChart), csv_of(chart)};
}

} // namespace nvfp4::models
