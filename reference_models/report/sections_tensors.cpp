// SPDX-License-Identifier: Apache-2.0
// What the tensors looked like: tails, hot channels and how long they stay, flushed elements, noise.
#include "nvfp4/reference_models/report/page.hpp"
#include "nvfp4/reference_models/report/sections.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::models {
namespace {

using Line = std::function<std::vector<Point>(const RunData &)>;

/// One line a recipe, the mean over its seeds.
void add_recipes(LineChart &chart, const Groups &groups, const std::string &model, const Line &line,
                 bool dashed, bool dots) {
  for (const RunGroup &g : groups) {
    if (g.model != model) continue;
    std::vector<std::vector<Point>> lines;
    for (const RunData *run : g.runs) lines.push_back(line(*run));
    std::vector<Point> points = mean_over_runs(lines);
    if (std::none_of(points.begin(), points.end(), [](const Point &p) { return std::isfinite(p.y); }))
      continue;
    chart.series.push_back(
        {.name = g.recipe + (chart.dashed.empty() ? "" : ", " + (dashed ? chart.dashed : chart.solid)),
         .label = dashed ? "" : g.recipe + " " + number_text(points.back().y, 3),
         .color = recipe_color(g.recipe),
         .points = std::move(points),
         .dashed = dashed,
         .dots = dots});
  }
}

/// Activations drawn through, weights dashed.
Drawing two_kinds(LineChart chart, const Groups &groups, const std::string &model,
                  const std::function<std::vector<Point>(const RunData &, TensorKind)> &line, bool dots) {
  chart.solid = "activations";
  chart.dashed = "weights";
  add_recipes(
      chart, groups, model, [&](const RunData &r) { return line(r, TensorKind::weight); }, true, dots);
  add_recipes(
      chart, groups, model, [&](const RunData &r) { return line(r, TensorKind::activation); }, false, dots);
  return line_chart(chart);
}

/// The operators whose inputs are shown as heat maps: of the last layer that has them.
std::vector<const ChannelHistory *> shown_channels(const RunData &run) {
  std::vector<const ChannelHistory *> shown;
  for (const char *op : {"attn.q_proj", "attn.o_proj", "mlp.down_proj"}) {
    const ChannelHistory *last = nullptr;
    for (const ChannelHistory &h : run.channels)
      if (h.op == op && h.layer >= 0) last = &h;
    if (last) shown.push_back(last);
  }
  return shown;
}

std::string heat_of(const RunData &run, const ChannelHistory &h) {
  return figure(heat_map({h.op + ", layer " + std::to_string(h.layer) + ", " + run.recipe, "max |x|",
                          run.channel_steps, h.channels, h.max}),
                "Largest magnitude of each input channel over the tokens of a step: " + run.model +
                    ", seed " + std::to_string(run.seed) + ".");
}

} // namespace

std::string kurtosis_section(const Groups &groups) {
  std::string content;
  for (const std::string &model : models_of(groups)) {
    std::vector<std::string> list;
    const auto chart = [&](const char *title, const char *x) {
      return LineChart{.title = title + (", " + model), .x_label = x, .y_label = "excess kurtosis"};
    };
    list.push_back(figure(
        two_kinds(
            chart("Tails by depth", "layer"), groups, model,
            [](const RunData &r, TensorKind k) { return by_depth(r, k, &TensorRecord::kurtosis, true); },
            true),
        "Per-tensor excess kurtosis, median over the operators of a layer, in the last quarter of the "
        "recorded steps; "
        "0 is Gaussian."));
    list.push_back(figure(
        two_kinds(
            chart("Tails over time", "step"), groups, model,
            [](const RunData &r, TensorKind k) { return over_time(r, k, &TensorRecord::kurtosis, true); },
            false),
        "Per-tensor excess kurtosis, median over layers and operators."));
    LineChart blocks = chart("Spikes in 16x16 blocks", "step");
    blocks.with_zero = true;
    list.push_back(figure(
        two_kinds(
            blocks, groups, model,
            [](const RunData &r, TensorKind k) { return over_time(r, k, &TensorRecord::block_max, false); },
            false),
        "The largest excess kurtosis of any 16x16 block of a tensor, mean over layers and operators; one "
        "spike alone "
        "in a block gives 251, so blocks do not compare with whole tensors."));
    content += figures(list);
  }
  return section("Tails",
                 "Excess kurtosis of the tensors before quantization: how much heavier their tails are than "
                 "a Gaussian's.",
                 content, "No diagnostics of tensors in these runs.");
}

std::string channel_section(const Groups &groups) {
  std::string content;
  for (const std::string &model : models_of(groups)) {
    std::vector<std::string> list;
    for (const bool hot : {true, false}) {
      LineChart chart{.title = std::string(hot ? "Persistence of the hot sets, "
                                               : "Persistence of the 16 largest channels, ") +
                               model,
                      .x_label = "step",
                      .y_label = "Jaccard index with the record before"};
      add_recipes(
          chart, groups, model, [&](const RunData &r) { return persistence(r, hot); }, false, false);
      const double chance = random_persistence(*reference_group(groups, model).runs[0], hot);
      if (std::isfinite(chance) && !chart.series.empty()) chart.rules.emplace_back(chance, "chance");
      chart.y_low = 0;
      chart.y_high = 1.02;
      list.push_back(
          figure(line_chart(chart), hot ? "How much of an operator's hot set (1 % of its input channels, at "
                                          "least 1) is still hot at the "
                                          "next record, mean over layers and operators; 1 means unchanged."
                                        : "The same for the 16 largest input channels of each operator."));
    }
    std::vector<std::string> heat;
    for (const char *recipe : {"bf16", "nvfp4", "chon"}) {
      const RunGroup *const g = find_group(groups, model, recipe);
      if (!g) continue;
      for (const ChannelHistory *h : shown_channels(*g->runs[0])) heat.push_back(heat_of(*g->runs[0], *h));
    }
    content += figures(list) + figures(heat, true);
  }
  return section("Hot channels",
                 "Which input channels of an operator have the largest magnitudes, and for how long. Sets of "
                 "neighbouring records are "
                 "compared, so few records mean many steps between them. In the maps the colours are "
                 "logarithmic, from the median to "
                 "the maximum, and a channel that stays hot is a horizontal line.",
                 content, "No channel magnitudes in these runs.");
}

std::string flush_section(const Groups &groups) {
  std::string content;
  for (const std::string &model : models_of(groups)) {
    std::vector<std::string> list;
    BarChart bars{.title = "Flushed to zero, " + model, .x_label = "nonzero elements that become 0, %"};
    BarChart noise{.title = "Quantization noise, " + model, .x_label = "signal to noise, dB"};
    for (const RunGroup &g : groups) {
      if (g.model != model) continue;
      BarGroup ftz{g.recipe, {}}, snr{g.recipe, {}};
      for (const auto &[kind, name, color] :
           {std::tuple{TensorKind::activation, "activations", 7},
            std::tuple{TensorKind::weight, "weights", 8}, std::tuple{TensorKind::gradient, "gradients", 9}}) {
        std::vector<double> a, b;
        for (const RunData *run : g.runs) {
          a.push_back(100 * late_value(*run, kind, &TensorRecord::ftz, false));
          b.push_back(late_value(*run, kind, &TensorRecord::snr_db, false));
        }
        const auto add = [&, n = name, c = color](BarGroup &group, std::vector<double> values) {
          std::erase_if(values, [](double v) { return std::isnan(v); });
          const Estimate e = estimate(values);
          if (e.n > 0) group.bars.push_back({n, c, e.mean, e.half_width});
        };
        add(ftz, a);
        add(snr, b);
      }
      if (!ftz.bars.empty()) bars.groups.push_back(std::move(ftz));
      if (!snr.bars.empty()) noise.groups.push_back(std::move(snr));
    }
    const std::string what = " Mean over layers and operators in the last quarter of the recorded steps; "
                             "whiskers are the 95 % interval over seeds.";
    list.push_back(figure(bar_chart(bars), "Share of nonzero elements that quantization sends to zero, on "
                                           "the main operand: what a residual puts "
                                           "back does not count." +
                                               what));
    list.push_back(figure(bar_chart(noise),
                          "Signal to quantization noise of the operands; 6 dB halve the error." + what));
    LineChart time{.title = "Flushing over time, " + model,
                   .x_label = "step",
                   .y_label = "nonzero elements that become 0, %"};
    time.with_zero = true;
    list.push_back(figure(two_kinds(
                              time, groups, model,
                              [](const RunData &r, TensorKind k) {
                                auto line = over_time(r, k, &TensorRecord::ftz, false);
                                for (Point &p : line) p.y *= 100;
                                return line;
                              },
                              false),
                          "The same share over the run, mean over layers and operators."));
    content += figures(list);
  }
  return section("Flushing and noise",
                 "Operands are measured rounded to nearest in the format that the recipe gives them, or in "
                 "NVFP4 where it keeps them "
                 "in higher precision, so that recipes compare. Activations and gradients have blocks along "
                 "the features.",
                 content, "No diagnostics of tensors in these runs.");
}

} // namespace nvfp4::models
