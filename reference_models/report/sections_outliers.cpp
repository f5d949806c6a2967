// SPDX-License-Identifier: Apache-2.0
// Outliers as other work measures them: the residual stream, attention sinks, spikes of the gradient norm,
// and scales at the ends of their range.
#include "nvfp4/reference_models/report/page.hpp"
#include "nvfp4/reference_models/report/sections.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/core.h>

namespace nvfp4::models {
namespace {

using Line = std::function<std::vector<Point>(const RunData &)>;

std::vector<Point> mean_line(const RunGroup &g, const Line &line) {
  std::vector<std::vector<Point>> lines;
  for (const RunData *run : g.runs) lines.push_back(line(*run));
  std::vector<Point> points = mean_over_runs(lines);
  if (std::none_of(points.begin(), points.end(), [](const Point &p) { return std::isfinite(p.y); }))
    points.clear();
  return points;
}

/// The last of a line's numbers, as its label has it; a dash where there is none.
std::string last_of(const std::vector<Point> &line) {
  return line.empty() ? "–" : number_text(line.back().y, 3);
}

Drawing lines_of(LineChart chart, const Groups &groups, const std::string &model, const Line &line,
                 bool dots) {
  bool above = false;
  for (const RunGroup &g : groups) {
    if (g.model != model) continue;
    std::vector<Point> points = mean_line(g, line);
    if (points.empty()) continue;
    chart.series.push_back({.name = g.recipe,
                            .label = g.recipe + " " + last_of(points),
                            .color = recipe_color(g.recipe),
                            .points = std::move(points),
                            .dots = dots});
    for (const Point &p : chart.series.back().points) above |= p.y > 0;
  }
  if (!above) chart.y_high = 1; // nothing but zeros
  return line_chart(chart);
}

std::vector<Point> percent(std::vector<Point> line) {
  for (Point &p : line) p.y *= 100;
  return line;
}

std::vector<Point> sink_share(const RunData &r) {
  return percent(layer_mean(r.attention, &AttentionRecord::sink));
}
std::vector<Point> sink_heads(const RunData &r) {
  return percent(layer_mean(r.attention, &AttentionRecord::sink_heads));
}

struct ScaleCount {
  const char *title;
  double TensorRecord::*field;
  const char *caption;
};
constexpr ScaleCount kScaleCounts[] = {
    {"Scale underflow", &TensorRecord::scale_underflows,
     "Blocks whose scale is 0 over a nonzero element, of all blocks."},
    {"Largest scales", &TensorRecord::largest_scales,
     "Blocks whose scale is the format's largest, above which nothing is left, of all blocks."},
    {"Saturated elements", &TensorRecord::saturated,
     "Elements beyond the largest value of their block, of all elements."},
};
constexpr std::tuple<TensorKind, const char *, int> kKinds[] = {{TensorKind::activation, "activations", 7},
                                                                {TensorKind::weight, "weights", 8},
                                                                {TensorKind::gradient, "gradients", 9}};

Estimate late_percent(const RunGroup &g, TensorKind kind, TensorField field) {
  std::vector<double> values;
  for (const RunData *run : g.runs) values.push_back(100 * late_value(*run, kind, field, false));
  std::erase_if(values, [](double v) { return std::isnan(v); });
  return estimate(values);
}

Drawing scale_bars(const ScaleCount &count, const Groups &groups, const std::string &model) {
  BarChart chart{.title = std::string(count.title) + ", " + model, .x_label = "%"};
  for (const RunGroup &g : groups) {
    if (g.model != model) continue;
    BarGroup bars{g.recipe, {}};
    for (const auto &[kind, name, color] : kKinds)
      if (const Estimate e = late_percent(g, kind, count.field); e.n > 0)
        bars.bars.push_back({name, color, e.mean, e.half_width});
    if (!bars.bars.empty()) chart.groups.push_back(std::move(bars));
  }
  return bar_chart(chart);
}

/// The gradient norms of the runs, a dot at each spike.
Drawing gradient_chart(const Groups &groups, const std::string &model) {
  LineChart chart{.title = "Gradient norm, " + model,
                  .x_label = "step",
                  .y_label = "norm before clipping",
                  .with_zero = true};
  for (const RunGroup &g : groups) {
    if (g.model != model) continue;
    for (const RunData *run : g.runs) {
      const Spikes spikes = gradient_spikes(*run);
      std::vector<Point> all, high;
      for (const LogLine &l : run->log) all.push_back({double(l.step), l.gradient_norm});
      for (const size_t i : spikes.at) high.push_back(all[i]);
      if (std::none_of(all.begin(), all.end(), [](const Point &p) { return std::isfinite(p.y); })) continue;
      const std::string name = g.recipe + ", seed " + std::to_string(run->seed);
      chart.series.push_back({.name = name,
                              .label = run == g.runs.front() ? g.recipe : "",
                              .color = recipe_color(g.recipe),
                              .points = std::move(all),
                              .faint = true});
      if (!high.empty())
        chart.series.push_back({.name = name + ", spikes",
                                .color = recipe_color(g.recipe),
                                .points = std::move(high),
                                .apart = true});
    }
  }
  return line_chart(chart);
}

std::string measure_table(const Groups &groups) {
  std::vector<std::vector<std::string>> rows;
  for (const RunGroup &g : groups) {
    size_t spikes = 0, judged = 0;
    for (const RunData *run : g.runs) {
      const Spikes s = gradient_spikes(*run);
      spikes += s.at.size();
      judged += s.judged;
    }
    const std::vector<Point> largest = mean_line(g, largest_activation),
                             growth = mean_line(g, [](const RunData &r) {
                               return residual_by_depth(r, &ResidualRecord::growth);
                             });
    if (largest.empty() && judged == 0) continue;
    rows.push_back({escape(g.model), escape(g.recipe), last_of(largest), last_of(growth),
                    last_of(mean_line(g, massive_activation_count)), last_of(mean_line(g, sink_share)),
                    last_of(mean_line(g, sink_heads)),
                    judged == 0 ? "–" : fmt::format("{} of {}", spikes, number_text(double(judged), 9)),
                    judged == 0 ? "–" : number_text(100 * double(spikes) / double(judged), 3)});
  }
  if (rows.empty()) return "";
  return table({"model", "recipe", "largest activation", "growth, last block", "massive", "sink share, %",
                "heads with a sink, %", "gradient spikes", "spike score"},
               rows, 2);
}

} // namespace

std::string outlier_section(const Groups &groups) {
  std::string content = measure_table(groups);
  for (const std::string &model : models_of(groups)) {
    const auto chart = [&](const char *title, const char *x, const char *y) {
      return LineChart{.title = title + (", " + model), .x_label = x, .y_label = y, .with_zero = true};
    };
    std::vector<std::string> list;
    list.push_back(
        figure(lines_of(
                   chart("Largest activation by depth", "layer", "max |x|"), groups, model,
                   [](const RunData &r) { return residual_by_depth(r, &ResidualRecord::largest); }, true),
               "Largest magnitude of the residual stream after each block, median over the last "
               "quarter of the recorded steps, mean over seeds."));
    list.push_back(figure(
        lines_of(
            chart("Growth by depth", "layer", "max |x| over that of the block before"), groups, model,
            [](const RunData &r) { return residual_by_depth(r, &ResidualRecord::growth); }, true),
        "The same, over the largest of the block before (of the embedding for block 0). The number is the "
        "table's, of the last block."));
    list.push_back(figure(lines_of(chart("Largest activation over time", "step", "max |x|"), groups, model,
                                   largest_activation, false),
                          "Largest magnitude of the residual stream after any block. The number is the "
                          "table's, of the last record."));
    list.push_back(figure(
        lines_of(chart("Massive activations", "step", "elements"), groups, model, massive_activation_count,
                 false),
        "Elements of the residual stream above 100 and above 1000 times the median magnitude (Sun et al. "
        "2024), all blocks together. The number is the table's, of the last record."));
    list.push_back(figure(
        lines_of(chart("Attention sinks", "step", "%"), groups, model, sink_share, false),
        "Mean probability that later queries give the first token, over heads and layers (Gu et al. 2024). "
        "The number is the table's, of the last record."));
    list.push_back(figure(
        lines_of(chart("Heads with a sink", "step", "%"), groups, model, sink_heads, false),
        "Heads in which that probability is above 30 %, mean over layers. The number is the table's, of the "
        "last record."));
    list.push_back(figure(
        gradient_chart(groups, model),
        "The norm of all gradients before clipping, each run; a dot is a spike: at least seven standard "
        "deviations away from the mean of up to 1000 steps before it."));
    content += figures(list);
    std::vector<std::string> bars;
    for (const ScaleCount &count : kScaleCounts)
      bars.push_back(figure(scale_bars(count, groups, model),
                            std::string(count.caption) +
                                " Mean over layers and operators in the last quarter of the recorded steps; "
                                "whiskers are the 95 % interval over seeds."));
    content += figures(bars);
  }
  return section(
      "Outliers as other work measures them",
      "The definitions are those of the work named below the charts. Spikes of the gradient norm follow the "
      "spike score of OLMo 2 (2025): the share of steps, in percent, that lie at least seven standard "
      "deviations away from the mean of the last 1000; here of those before the step, from the 51st on. "
      "Numbers in the table are means over seeds, spikes are sums over them.",
      content, "No run has recorded its residual stream or more than 50 steps.");
}

} // namespace nvfp4::models
