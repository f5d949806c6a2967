// SPDX-License-Identifier: Apache-2.0
// What the model did: softmax, gates, SwiGLU, sensitivity of operators; and where all of this came from.
#include "nvfp4/reference_models/report/page.hpp"
#include "nvfp4/reference_models/report/sections.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/core.h>
#include <map>

namespace nvfp4::models {
namespace {

/// One line a recipe: the mean over layers and seeds of a field of `list`.
template <class Record>
Drawing recipe_lines(LineChart chart, const Groups &groups, const std::string &model,
                     std::vector<Record> RunData::*list, double Record::*field) {
  for (const RunGroup &g : groups) {
    if (g.model != model) continue;
    std::vector<std::vector<Point>> lines;
    for (const RunData *run : g.runs) lines.push_back(layer_mean(run->*list, field));
    const std::vector<Point> line = mean_over_runs(lines);
    if (!line.empty())
      chart.series.push_back({.name = g.recipe,
                              .label = g.recipe + " " + number_text(line.back().y, 3),
                              .color = recipe_color(g.recipe),
                              .points = line});
  }
  return line_chart(chart);
}

LineChart chart_of(const std::string &title, const std::string &model, const char *y) {
  return {.title = title + ", " + model, .x_label = "step", .y_label = y};
}

/// The input width of the MLP, from the weights that were recorded; 0 if none were.
int64_t mlp_width(const RunData &run) {
  for (const TensorRecord &t : run.tensors)
    if (t.op == "mlp.up_proj" && t.kind == TensorKind::weight) return t.channels;
  return 0;
}

} // namespace

std::string attention_section(const Groups &groups) {
  std::string content;
  for (const std::string &model : models_of(groups)) {
    std::vector<std::string> list;
    list.push_back(figure(
        recipe_lines(chart_of("Softmax entropy", model, "entropy, nats"), groups, model, &RunData::attention,
                     &AttentionRecord::entropy),
        "Mean entropy of the attention weights over heads, queries and layers; lower is more selective."));
    list.push_back(figure(recipe_lines(chart_of("Largest logit", model, "q·k / √d, natural units"), groups,
                                       model, &RunData::attention, &AttentionRecord::logit_max),
                          "The largest attention logit of a layer, mean over layers; the paper sees it grow "
                          "from about 4 to about 10."));
    list.push_back(figure(recipe_lines(chart_of("Tails of logits", model, "excess kurtosis"), groups, model,
                                       &RunData::attention, &AttentionRecord::logit_kurtosis),
                          "Excess kurtosis of the attention logits, mean over layers."));
    content += figures(list);
  }
  return section("Softmax attention", "", content, "No run with softmax attention has recorded it.");
}

std::string gate_section(const Groups &groups) {
  std::string content;
  for (const std::string &model : models_of(groups)) {
    std::vector<std::string> list;
    LineChart chart = chart_of("Range of the gate", model, "gk_proj's output, natural units");
    for (const RunGroup &g : groups) {
      if (g.model != model) continue;
      for (const bool low : {true, false}) {
        std::vector<std::vector<Point>> lines;
        for (const RunData *run : g.runs) {
          std::map<int64_t, double> extreme;
          for (const GateRecord &r : run->gates) {
            double &e = extreme.try_emplace(r.step, low ? r.min : r.max).first->second;
            e = low ? std::min(e, r.min) : std::max(e, r.max);
          }
          lines.emplace_back();
          for (const auto &[step, value] : extreme) lines.back().push_back({double(step), value});
        }
        const std::vector<Point> line = mean_over_runs(lines);
        if (!line.empty())
          chart.series.push_back({.name = g.recipe,
                                  .label = g.recipe + " " + number_text(line.back().y, 3),
                                  .color = recipe_color(g.recipe),
                                  .points = line});
      }
    }
    if (!chart.series.empty()) chart.rules.emplace_back(0.0, "λ = 0.958");
    list.push_back(
        figure(line_chart(chart),
               "Smallest and largest pre-activation of the forget gate over layers, mean over seeds; λ = "
               "exp(logsigmoid(x) / 16), so far below 0 forgets and above 0 keeps."));
    list.push_back(figure(recipe_lines(chart_of("Largest magnitude of the gate", model, "max |x|"), groups,
                                       model, &RunData::gates, &GateRecord::top1),
                          "Largest magnitude of gk_proj's output, mean over layers."));
    content += figures(list);
  }
  return section("Gates", "", content, "No run with gates has recorded them.");
}

std::string swiglu_section(const Groups &groups) {
  std::string content;
  for (const std::string &model : models_of(groups)) {
    std::vector<std::string> list;
    LineChart mean_chart = chart_of("SwiGLU alignment", model, "mean |cosine|");
    const int64_t d = mlp_width(*reference_group(groups, model).runs[0]);
    if (d > 0) mean_chart.rules.emplace_back(std::sqrt(2 / (3.141592653589793 * double(d))), "random rows");
    list.push_back(figure(recipe_lines(mean_chart, groups, model, &RunData::swiglu, &SwigluRecord::mean_abs),
                          "Cosine between the rows of W_up and W_gate of a hidden unit, mean magnitude over "
                          "units and layers."));
    list.push_back(
        figure(recipe_lines(chart_of("SwiGLU alignment, 99th percentile", model, "|cosine|"), groups, model,
                            &RunData::swiglu, &SwigluRecord::p99_abs),
               "The 99th percentile over units, mean over layers: the units that are aligned most."));
    content += figures(list);
  }
  return section("SwiGLU", "", content, "No run has recorded the alignment.");
}

std::string sensitivity_section(const Groups &groups) {
  std::vector<std::string> list;
  for (const std::string &model : models_of(groups)) {
    BarChart chart{.title = "Sensitivity, " + model,
                   .x_label = "score: % of loss, normalised by parameters",
                   .digits = 3};
    std::map<std::string, std::vector<double>> scores;
    if (const RunGroup *const g = scored_group(groups, model))
      for (const RunData *run : g->runs)
        for (const SensitivityRecord &s : run->sensitivity)
          scores[s.op + (s.parameters == 0 ? " (the gap itself)" : "")].push_back(s.score);
    std::vector<std::pair<std::string, Estimate>> order;
    for (const auto &[op, values] : scores) order.emplace_back(op, estimate(values));
    std::stable_sort(order.begin(), order.end(),
                     [](const auto &a, const auto &b) { return a.second.mean > b.second.mean; });
    for (const auto &[op, e] : order) chart.groups.push_back({op, {{"here", 3, e.mean, e.half_width}}});
    list.push_back(figure(
        bar_chart(chart),
        "Relative loss that appears when this operator alone, in all layers, is in NVFP4, divided by its "
        "share of "
        "parameters; negative scores and small differences are noise. With several seeds: mean and 95 % "
        "interval over them; BF16 runs where they were scored."));
  }
  return section("Sensitivity of operators",
                 "The paper's order: o_proj first and mlp.down_proj last for GLA, v_proj first and "
                 "mlp.down_proj last for "
                 "softmax attention. Its formula is not public; this one is a choice.",
                 figures(list), "No sensitivity scores: train with --sensitivity.");
}

std::string provenance_section(const std::vector<RunData> &runs, const std::string &version) {
  std::vector<std::vector<std::string>> rows;
  for (const RunData &r : runs) {
    std::string steps = number_text(double(r.last_step()), 9);
    if (r.diverged)
      steps = "diverged at " + steps;
    else if (r.planned_steps > r.last_step())
      steps += " of " + number_text(double(r.planned_steps), 9);
    rows.push_back({escape(r.model), escape(r.recipe), escape(r.data), escape(r.device), escape(r.settings),
                    std::to_string(r.seed), steps,
                    number_text(r.log.empty() ? 0 : double(r.log.back().tokens), 12),
                    number_text(double(r.parameters), 12)});
  }
  return section(
      "Where this comes from", "Written by nvfp4 " + version + " from the records of these runs.",
      table({"model", "recipe", "data", "device", "settings", "seed", "steps", "tokens", "parameters"}, rows,
            5),
      "");
}

} // namespace nvfp4::models
