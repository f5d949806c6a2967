// SPDX-License-Identifier: Apache-2.0
// Losses: the table, the curves, the gap to BF16; the orderings; the paper's numbers beside ours.
#include "nvfp4/reference_models/report/page.hpp"
#include "nvfp4/reference_models/report/sections.hpp"

#include <algorithm>
#include <cmath>
#include <fmt/core.h>
#include <map>

namespace nvfp4::models {
namespace {

constexpr size_t kRawPoints = 400; ///< of a faint line

std::string fixed(double value, int decimals) {
  if (!std::isfinite(value)) return "not finite";
  return fmt::format("{}{:.{}f}", value < 0 ? "−" : "", std::fabs(value), decimals);
}

std::string cell(const Estimate &e, int decimals, const char *unit = "") {
  if (e.n == 0) return "–";
  if (!std::isfinite(e.mean)) return "not finite";
  std::string out = fixed(e.mean, decimals);
  if (e.half_width) out += fmt::format(" ± {:.{}f}", *e.half_width, decimals);
  return out + unit;
}

struct GroupLosses {
  Estimate last, smoothed, validation, gap, validation_gap;
};

GroupLosses losses_of_group(const RunGroup &g, const RunGroup *reference) {
  std::vector<double> last, smoothed, validation, gap, validation_gap;
  for (const RunData *run : g.runs)
    if (const auto l = losses_of(*run)) {
      last.push_back(l->last);
      smoothed.push_back(l->smoothed);
      if (l->validation) validation.push_back(*l->validation);
    }
  if (reference && reference != &g)
    for (const auto &[x, y] : pairs_of(g, *reference)) {
      const auto a = losses_of(*x), b = losses_of(*y);
      if (!a || !b) continue;
      gap.push_back(relative_gap(a->smoothed, b->smoothed));
      if (a->validation && b->validation)
        validation_gap.push_back(relative_gap(*a->validation, *b->validation));
    }
  return {estimate(last), estimate(smoothed), estimate(validation), estimate(gap), estimate(validation_gap)};
}

std::string loss_table(const Groups &groups) {
  std::vector<std::vector<std::string>> rows;
  for (const RunGroup &g : groups) {
    const RunGroup *const reference = find_group(groups, g.model, "bf16");
    const GroupLosses l = losses_of_group(g, reference);
    std::string seeds;
    for (const RunData *run : g.runs) seeds += (seeds.empty() ? "" : ", ") + std::to_string(run->seed);
    rows.push_back({escape(g.model), escape(g.recipe), escape(seeds), cell(l.last, 4), cell(l.smoothed, 4),
                    cell(l.validation, 4), &g == reference ? "baseline" : cell(l.gap, 3, " %"),
                    &g == reference ? "baseline" : cell(l.validation_gap, 3, " %")});
  }
  return table(
      {"model", "recipe", "seeds", "last step", "smoothed", "validation", "gap to BF16", "gap, validation"},
      rows, 3);
}

Drawing loss_chart(const Groups &groups, const std::string &model) {
  LineChart chart{.title = "Training loss, " + model, .x_label = "step", .y_label = "loss, nats per token"};
  for (const bool raw : {true, false})
    for (const RunGroup &g : groups) {
      if (g.model != model) continue;
      const int color = recipe_color(g.recipe);
      std::vector<std::vector<Point>> smooth;
      for (const RunData *run : g.runs) {
        smooth.push_back(smoothed_loss(*run));
        if (!raw) continue;
        Series s{.name = g.recipe + ", seed " + std::to_string(run->seed), .color = color, .faint = true};
        const size_t stride = std::max<size_t>(1, run->log.size() / kRawPoints);
        for (size_t i = 0; i < run->log.size(); i += stride)
          s.points.push_back({double(run->log[i].step), run->log[i].loss});
        chart.series.push_back(std::move(s));
      }
      if (raw) continue;
      const std::vector<Point> line = mean_over_runs(smooth);
      if (line.empty()) continue;
      const Estimate smoothed = losses_of_group(g, nullptr).smoothed; // as in the table
      chart.series.push_back({.name = g.recipe + ", smoothed",
                              .label = g.recipe + " " + fixed(smoothed.mean, 4),
                              .color = color,
                              .points = line});
    }
  return line_chart(chart);
}

Drawing gap_chart(const Groups &groups, const std::string &model) {
  const RunGroup *const reference = find_group(groups, model, "bf16");
  if (!reference) return {};
  LineChart chart{
      .title = "Gap to BF16, " + model, .x_label = "step", .y_label = "gap of the smoothed loss, % of BF16"};
  double low = 0, high = 0;
  for (const RunGroup &g : groups) {
    if (g.model != model || &g == reference) continue;
    std::vector<std::vector<Point>> lines;
    for (const auto &[x, y] : pairs_of(g, *reference)) {
      const auto a = smoothed_loss(*x), b = smoothed_loss(*y);
      std::vector<Point> line;
      const size_t skip = a.size() / 20; // the first steps fall steeply, and a gap there says nothing
      for (size_t i = skip; i < std::min(a.size(), b.size()); ++i)
        if (a[i].x == b[i].x) line.push_back({a[i].x, relative_gap(a[i].y, b[i].y)});
      lines.push_back(std::move(line));
    }
    const std::vector<Point> line = mean_over_runs(lines);
    if (line.empty()) continue;
    const int color = recipe_color(g.recipe);
    if (lines.size() > 1) {
      Band band{g.recipe, color, {}};
      std::map<double, std::array<double, 3>> range;
      for (const auto &l : lines)
        for (const Point &p : l) {
          auto &r = range.try_emplace(p.x, std::array{p.x, p.y, p.y}).first->second;
          r[1] = std::min(r[1], p.y);
          r[2] = std::max(r[2], p.y);
        }
      for (const auto &[x, r] : range)
        if (std::isfinite(r[1]) && std::isfinite(r[2])) band.points.push_back(r);
      chart.bands.push_back(std::move(band));
    }
    for (size_t i = line.size() / 5; i < line.size(); ++i)
      if (std::isfinite(line[i].y)) low = std::min(low, line[i].y), high = std::max(high, line[i].y);
    chart.series.push_back({.name = g.recipe,
                            .label = g.recipe + " " + fixed(losses_of_group(g, reference).gap.mean, 3) + " %",
                            .color = color,
                            .points = line});
  }
  if (chart.series.empty()) return {};
  chart.rules.emplace_back(0.0, "BF16");
  const double air = std::max(0.15 * (high - low), 0.02);
  chart.y_low = low - air;
  chart.y_high = high + air;
  return line_chart(chart);
}

} // namespace

int recipe_color(std::string_view recipe) {
  recipe = recipe.substr(0, recipe.find(" [")); // what tells groups apart
  constexpr std::string_view known[] = {"fp32",    "bf16",        "nvfp4",        "chon", "hcp",
                                        "post-qk", "nvfp4-plain", "mxfp4-sr-rht", "mxfp8"};
  return int(std::find(std::begin(known), std::end(known), recipe) - std::begin(known));
}

std::string loss_section(const Groups &groups) {
  std::string content;
  bool intervals = false, pairs = false;
  for (const RunGroup &g : groups) intervals |= g.runs.size() > 1;
  for (const std::string &model : models_of(groups)) {
    std::vector<std::string> list;
    list.push_back(figure(
        loss_chart(groups, model),
        "The bold lines are means over 5 % of the steps around each, averaged over seeds; the faint lines "
        "are the loss of each step of each run. The numbers are those of the table: means of the last 10 % "
        "of "
        "the steps."));
    const Drawing gap = gap_chart(groups, model);
    pairs |= !gap.empty();
    list.push_back(figure(
        gap,
        "How far the smoothed loss lies above that of the BF16 run of the same seed, mean over seeds; the "
        "pale band reaches from the lowest to the highest seed. The numbers are those of the table, over the "
        "last 10 % "
        "of the steps."));
    content += figures(list);
  }
  std::string note = "Losses in nats per token. Smoothed is the mean of the last 10 % of the steps. Gaps are "
                     "relative to the BF16 run "
                     "of the same seed and length.";
  note += intervals
              ? " ± is the 95 % confidence interval over seeds (Student's t); a row with one seed has none."
              : " There is one seed for each recipe, so there are no confidence intervals: a gap of a few "
                "tenths of a "
                "percent may be chance.";
  if (!pairs) note += " Without a BF16 run of the same model and seed there is no gap.";
  return section("Loss", note, groups.empty() ? "" : loss_table(groups) + content, "No losses were logged.");
}

std::string alike_section(const RunGroups &groups) {
  std::vector<std::vector<std::string>> rows;
  for (const std::string &difference : groups.differences) rows.push_back({"not alike", escape(difference)});
  for (const Duplicate &d : groups.duplicates) rows.push_back({"twice", escape(d.text())});
  if (rows.empty()) return {};
  return section(
      "What is not averaged",
      "Means, intervals and gaps are over runs that are alike in everything that decides their bits "
      "but the seed, each once. What tells others apart stands in brackets behind their names.",
      table({"", "runs"}, rows, 2), "");
}

std::string divergence_section(const std::vector<RunData> &runs) {
  std::vector<std::vector<std::string>> rows;
  for (const RunData &r : runs) {
    if (!r.diverged) continue;
    const Divergence &d = *r.diverged;
    rows.push_back({escape(r.model), escape(r.recipe), std::to_string(r.seed),
                    number_text(double(d.step), 9) + " of " + number_text(double(r.planned_steps), 9),
                    d.last_finite_step > 0 ? fmt::format("{:.4f}", d.last_finite_loss) : "none",
                    d.last_finite_step > 0 ? number_text(double(d.last_finite_step), 9) : "–",
                    d.first ? escape(d.first->text()) : "–"});
  }
  if (rows.empty()) return {};
  return section(
      "Diverged runs",
      "Something stopped being finite, and training with it. These runs count in no loss, gap, "
      "ordering or chart of this page.",
      table({"model", "recipe", "seed", "diverged at step", "last finite loss", "of step", "first tensor"},
            rows, 2),
      "");
}

std::string not_finite_section(const std::vector<RunData> &runs) {
  constexpr size_t kShown = 8; // of a run
  std::vector<std::vector<std::string>> rows;
  for (const RunData &r : runs)
    for (size_t i = 0; i < std::min(r.not_finite.size(), kShown); ++i)
      rows.push_back({escape(r.model), escape(r.recipe), std::to_string(r.seed),
                      escape(r.not_finite[i].text() +
                             (i + 1 == kShown && r.not_finite.size() > kShown
                                  ? " (" + std::to_string(r.not_finite.size() - kShown) + " more)"
                                  : ""))});
  if (rows.empty()) return {};
  return section(
      "Not finite",
      "These tensors held NaN or Inf when they were measured. Their kurtosis and noise are missing in the "
      "figures, and their largest channels and flushed elements are those of their other elements.",
      table({"model", "recipe", "seed", "tensor"}, rows, 4), "");
}

std::string ordering_section(const std::vector<Ordering> &orderings) {
  std::vector<std::vector<std::string>> rows;
  for (const Ordering &o : orderings) {
    const char *const css = o.verdict == Verdict::held          ? "held"
                            : o.verdict == Verdict::not_held    ? "failed"
                            : o.verdict == Verdict::not_settled ? "open"
                                                                : "absent";
    const std::string verdict = fmt::format("<span class=\"{}\">{}</span>", css, to_string(o.verdict));
    rows.push_back({std::to_string(o.number),
                    escape(o.claim) +
                        (o.where.empty() ? "" : "<br/><span class=\"soft\">" + escape(o.where) + "</span>"),
                    verdict, escape(o.measured), escape(o.paper)});
  }
  return section("Orderings, as they came out",
                 "Statements of arXiv 2602.02047 as orderings that a small run can contradict. Formulas that "
                 "the paper leaves open are "
                 "choices, named where they matter. Not settled: there is one run or pair, or the 95 % "
                 "interval of the difference "
                 "contains 0.",
                 rows.empty() ? "" : table({"", "claim", "came out", "measured here", "the paper"}, rows, 99),
                 "Nothing to judge.");
}

std::string paper_section(const Groups &groups) {
  std::vector<std::vector<std::string>> rows;
  for (const std::string &model : models_of(groups)) {
    const RunGroup &g = reference_group(groups, model);
    const RunData &first = *g.runs[0];
    const PaperFigures paper = first.paper();
    const auto gap = [&](const char *recipe, std::string_view stated) {
      const RunGroup *const group = find_group(groups, model, recipe), *const bf16 =
                                                                           find_group(groups, model, "bf16");
      if (!group || !bf16) return;
      const GroupLosses l = losses_of_group(*group, bf16);
      rows.push_back({escape(model), fmt::format("loss gap of {}, training / validation", recipe),
                      std::string(stated.empty() ? "not known for this family" : stated),
                      cell(l.gap, 3, " %") + " / " + cell(l.validation_gap, 3, " %")});
    };
    gap("nvfp4", paper.nvfp4_gap);
    gap("chon", paper.chon_gap);
    const double weight = late_value(first, TensorKind::weight, &TensorRecord::kurtosis, true);
    if (std::isfinite(weight) && !paper.weight_kurtosis.empty())
      rows.push_back({escape(model), "late excess kurtosis of weights (here: median over operators)",
                      std::string(paper.weight_kurtosis), number_text(weight, 3)});
    if (first.has(MixerKind::gla) && !first.gates.empty()) {
      double low = INFINITY, high = -INFINITY;
      for (const RunGroup &each : groups)
        if (each.model == model)
          for (const RunData *run : each.runs)
            for (const GateRecord &r : run->gates) low = std::fmin(low, r.min), high = std::fmax(high, r.max);
      rows.push_back({escape(model), "range of gk_proj's pre-activations", "about −120 to 80",
                      number_text(low, 3) + " to " + number_text(high, 3)});
    }
    const auto logits = layer_mean(first.attention, &AttentionRecord::logit_max);
    if (first.has(MixerKind::attention) && !logits.empty())
      rows.push_back({escape(model), "largest logit, first and last record (here: mean over layers)",
                      "from about 4 to about 10 (Fig. 7)",
                      number_text(logits.front().y, 3) + " to " + number_text(logits.back().y, 3)});
    for (const SensitivityRecord &s : first.sensitivity) {
      const std::string_view score = s.op == paper.most_sensitive    ? paper.most_score
                                     : s.op == paper.least_sensitive ? paper.least_score
                                                                     : std::string_view();
      if (!score.empty())
        rows.push_back({escape(model),
                        "sensitivity of " + escape(s.op) + " (compare the order, not the value)",
                        std::string(score) + " (Table 3)", number_text(s.score, 3)});
    }
  }
  return section("Beside the paper's numbers",
                 "The paper trained models of 340 M to 7 B parameters on tens of billions of tokens; its "
                 "numbers are given to show the "
                 "scale, not as a target. Those in tables and figures are taken from published notes on the "
                 "paper, since its full text "
                 "was not at hand.",
                 rows.empty() ? "" : table({"model", "quantity", "the paper", "here"}, rows, 99),
                 "No quantity that the paper states was measured in these runs.");
}

} // namespace nvfp4::models
