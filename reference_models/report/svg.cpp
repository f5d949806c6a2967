// SPDX-License-Identifier: Apache-2.0
// Lines and bars: scales, ticks, labels that keep out of each other's way. Heat maps are in svg_heat.cpp.
#include "nvfp4/reference_models/report/svg.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/core.h>
#include <limits>

namespace nvfp4::models {
namespace {

constexpr double kWidth = 600, kHeight = 300;

/// Rough width of text in the page's 12 px face.
double text_width(std::string_view text) {
  double width = 0;
  for (const char c : text)
    if ((static_cast<unsigned char>(c) & 0xC0) != 0x80)
      width += c == '.' || c == ',' || c == ' ' || c == 'i' || c == 'l' ? 3.8
               : c == '%' || c == 'm'                                   ? 11.5
                                                                        : 7.2;
  return width;
}

struct Range {
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

struct Axis {
  double low, high, from, to;
  [[nodiscard]] double at(double v) const { return from + (v - low) / (high - low) * (to - from); }
};

std::string text(double x, double y, std::string_view what, std::string_view attributes) {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, attributes, escape(what));
}

std::string line(double x1, double y1, double x2, double y2, std::string_view css) {
  return fmt::format("<line class=\"{}\" x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\"/>\n", css,
                     x1, y1, x2, y2);
}

std::string open_svg(double height, std::string_view title) {
  return fmt::format("<svg viewBox=\"0 0 {:.0f} {:.0f}\" role=\"img\" aria-label=\"{}\">\n", kWidth, height,
                     escape(title)) +
         text(0, 14, title, "class=\"title\"");
}

struct EndLabel {
  double y;
  std::string text;
  int color;
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

std::string path_of(const Series &s, const Axis &x, const Axis &y) {
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

std::string legend_item(double &x, double y, std::string_view label, std::string_view swatch) {
  std::string out = fmt::format("<g transform=\"translate({:.1f} {:.1f})\">{}</g>", x, y, swatch);
  out += text(x + 24, y + 4, label, "class=\"label\"");
  x += 34 + text_width(label);
  return out;
}

} // namespace

std::string escape(std::string_view in) {
  std::string out;
  for (const char c : in) switch (c) {
    case '&': out += "&amp;"; break;
    case '<': out += "&lt;"; break;
    case '>': out += "&gt;"; break;
    case '"': out += "&quot;"; break;
    case '\'': out += "&#39;"; break;
    default: out += static_cast<unsigned char>(c) < 0x20 || c == 0x7F ? ' ' : c;
    }
  return out;
}

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

std::string line_chart(const LineChart &chart) {
  Range xs, ys;
  for (const Series &s : chart.series)
    for (const Point &p : s.points)
      if (std::isfinite(p.y)) xs.add(p.x), ys.add(p.y);
  if (ys.empty()) return {};
  for (const Band &b : chart.bands)
    for (const auto &p : b.points) ys.add(p[1]), ys.add(p[2]);
  for (const auto &rule : chart.rules) ys.add(rule.first);
  if (chart.with_zero) ys.add(0);
  const bool from_zero = chart.with_zero && ys.low == 0;
  ys.widen(0.06);
  if (from_zero) ys.low = 0;
  if (chart.y_low) ys.low = *chart.y_low;
  if (chart.y_high) ys.high = std::max(*chart.y_high, ys.low + 1e-9);
  if (xs.low == xs.high) xs.widen(0.5);

  const double legend = chart.solid.empty() ? 0 : 20;
  double label_width = 0;
  for (const Series &s : chart.series) label_width = std::max(label_width, text_width(s.label));
  const double top = 42 + legend, bottom = kHeight - 44, left = 58;
  const double right = kWidth - std::min(200.0, label_width + 14);
  const Axis x{xs.low, xs.high, left, right}, y{ys.low, ys.high, bottom, top};

  std::string out = open_svg(kHeight, chart.title) + text(0, 32, chart.y_label, "class=\"axis\"");
  if (legend > 0) {
    double at = left;
    out += legend_item(at, 50, chart.solid, "<path class=\"line ink\" d=\"M0 0H18\"/>");
    out += legend_item(at, 50, chart.dashed, "<path class=\"line ink dash\" d=\"M0 0H18\"/>");
  }
  for (const double t : round_ticks(ys.low, ys.high, 5)) {
    out += line(left, y.at(t), right, y.at(t), "grid");
    out += text(left - 6, y.at(t) + 4, number_text(t), "class=\"tick\" text-anchor=\"end\"");
  }
  for (const double t : round_ticks(xs.low, xs.high, 6)) {
    if (chart.whole_x && t != std::round(t)) continue;
    out += line(x.at(t), bottom, x.at(t), bottom + 4, "rule");
    out += text(x.at(t), bottom + 17, number_text(t), "class=\"tick\" text-anchor=\"middle\"");
  }
  out += line(left, bottom, right, bottom, "rule");
  out += text((left + right) / 2, kHeight - 8, chart.x_label, "class=\"axis\" text-anchor=\"middle\"");

  // a nested svg cuts what leaves the plot and keeps the coordinates
  out += fmt::format("<svg x=\"{0:.1f}\" y=\"{1:.1f}\" width=\"{2:.1f}\" height=\"{3:.1f}\" "
                     "viewBox=\"{0:.1f} {1:.1f} {2:.1f} {3:.1f}\">\n",
                     left - 4, top - 4, right - left + 8, bottom - top + 8);
  for (const Band &b : chart.bands) {
    std::string d;
    for (const auto &p : b.points)
      d += fmt::format("{}{:.1f} {:.1f}", d.empty() ? "M" : "L", x.at(p[0]), y.at(p[2]));
    for (auto p = b.points.rbegin(); p != b.points.rend(); ++p)
      d += fmt::format("L{:.1f} {:.1f}", x.at((*p)[0]), y.at((*p)[1]));
    if (!d.empty()) out += fmt::format("<path class=\"band k{}\" d=\"{}Z\"/>\n", b.color, d);
  }
  std::vector<EndLabel> labels;
  for (const auto &rule : chart.rules)
    out += line(left, y.at(rule.first), right, y.at(rule.first), "reference");
  for (const Series &s : chart.series) {
    out += fmt::format("<path class=\"line k{}{}{}\" d=\"{}\"/>\n", s.color, s.faint ? " faint" : "",
                       s.dashed ? " dash" : "", path_of(s, x, y));
    if (s.dots || s.points.size() == 1)
      for (const Point &p : s.points)
        if (std::isfinite(p.y))
          out += fmt::format("<circle class=\"dot k{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2.6\"/>", s.color,
                             x.at(p.x), y.at(p.y));
    if (s.label.empty()) continue;
    const auto last =
        std::find_if(s.points.rbegin(), s.points.rend(), [](const Point &p) { return std::isfinite(p.y); });
    if (last != s.points.rend())
      labels.push_back({std::clamp(y.at(last->y), top, bottom) + 4, s.label, s.color});
  }
  for (const auto &[value, label] : chart.rules)
    out += text(left + 4, y.at(value) - 4, label, "class=\"note\"");
  out += "</svg>\n";
  spread(labels, top + 4, bottom + 4, 14);
  for (const EndLabel &l : labels)
    out += text(right + 7, l.y, l.text, fmt::format("class=\"label ink{}\"", l.color));
  return out + "</svg>\n";
}

std::string bar_chart(const BarChart &chart) {
  Range xs;
  xs.add(0);
  double group_width = 0, height = 56;
  bool any = false;
  std::vector<const Bar *> legend;
  for (const BarGroup &g : chart.groups) {
    group_width = std::max(group_width, text_width(g.label));
    height += 8 + 17 * double(g.bars.size());
    for (const Bar &b : g.bars) {
      any |= std::isfinite(b.value);
      xs.add(b.value + b.half_width.value_or(0));
      xs.add(b.value - b.half_width.value_or(0));
      if (std::none_of(legend.begin(), legend.end(), [&](const Bar *l) { return l->label == b.label; }))
        legend.push_back(&b);
    }
  }
  if (!any) return {};
  const bool with_legend = legend.size() > 1;
  height += (with_legend ? 20 : 0) + 38;
  if (xs.low == xs.high) xs.high = 1;
  const double left = std::clamp(group_width + 12, 60.0, 220.0), right = kWidth - 64;
  const Axis x{xs.low, xs.high, left + (xs.low < 0 ? 60 : 0), right};
  std::string out = open_svg(height, chart.title);
  double at = 0, y = 36;
  if (with_legend) {
    for (const Bar *b : legend)
      out +=
          legend_item(at, y, b->label,
                      fmt::format("<rect class=\"bar k{}{}\" x=\"4\" y=\"-5\" width=\"14\" height=\"10\"/>",
                                  b->color, b->pale ? " pale" : ""));
    y += 20;
  }
  const double top = y, bottom = height - 38;
  for (const double t : round_ticks(xs.low, xs.high, 5)) {
    out += line(x.at(t), top, x.at(t), bottom, "grid");
    out += text(x.at(t), bottom + 14, number_text(t), "class=\"tick\" text-anchor=\"middle\"");
  }
  out += text((x.from + x.to) / 2, height - 6, chart.x_label, "class=\"axis\" text-anchor=\"middle\"");
  for (const BarGroup &g : chart.groups) {
    y += 8;
    out += text(left - 8, y + 17 * double(g.bars.size()) / 2 + 3, g.label,
                "class=\"label\" text-anchor=\"end\"");
    for (const Bar &b : g.bars) {
      if (std::isfinite(b.value)) {
        const double from = x.at(std::min(0.0, b.value)), to = x.at(std::max(0.0, b.value));
        out += fmt::format(
            "<rect class=\"bar k{}{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"13\"/>", b.color,
            b.pale ? " pale" : "", from, y, std::max(0.8, to - from));
        double end = b.value < 0 ? from : to;
        if (b.half_width) {
          const double low = x.at(b.value - *b.half_width), high = x.at(b.value + *b.half_width);
          out += line(low, y + 6.5, high, y + 6.5, "whisker") + line(low, y + 3, low, y + 10, "whisker") +
                 line(high, y + 3, high, y + 10, "whisker");
          end = b.value < 0 ? low : high;
        }
        out += text(b.value < 0 ? end - 5 : end + 5, y + 10.5, number_text(b.value, chart.digits),
                    b.value < 0 ? "class=\"tick\" text-anchor=\"end\"" : "class=\"tick\"");
      } else {
        out += text(x.at(0) + 5, y + 10.5, "not finite", "class=\"tick\"");
      }
      y += 17;
    }
  }
  out += line(x.at(0), top, x.at(0), bottom, "rule");
  return out + "</svg>\n";
}

} // namespace nvfp4::models
