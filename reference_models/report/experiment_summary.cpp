// SPDX-License-Identifier: Apache-2.0
// Pairs of runs, and what they say: a table for people, JSON for programs.
#include "nvfp4/reference_models/report/experiment.hpp"

#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/report/experiment_result.hpp"

#include <cmath>
#include <filesystem>
#include <fmt/core.h>

namespace nvfp4::models {
namespace {

using Json = nlohmann::ordered_json;
namespace fs = std::filesystem;

Json estimate_json(const Estimate &e) {
  return {
      {"n", e.n}, {"mean", e.mean}, {"half_width_95", e.half_width ? Json(*e.half_width) : Json(nullptr)}};
}

/// "2.7131 +- 0.0042 (3)".
std::string estimate_text(const Estimate &e, const char *unit, bool sign) {
  if (e.n == 0) return "-";
  if (!std::isfinite(e.mean)) return "not finite";
  const std::string mean =
      sign ? fmt::format("{:+.3f}{}", e.mean, unit) : fmt::format("{:.4f}{}", e.mean, unit);
  return e.half_width ? mean + (sign ? fmt::format(" +- {:.3f}", *e.half_width)
                                     : fmt::format(" +- {:.4f}", *e.half_width))
                      : mean;
}

/// "+0.00412 +- 0.00130".
std::string difference_text(const Estimate &e) {
  if (e.n == 0) return "-";
  if (!std::isfinite(e.mean)) return "not finite";
  return fmt::format("{:+.5f}", e.mean) + (e.half_width ? fmt::format(" +- {:.5f}", *e.half_width) : "");
}

/// What the seeds say of two recipes, and how many would say it.
std::string verdict_text(const ExperimentPair &p) {
  if (p.difference.n == 0) return "no pairs";
  if (!std::isfinite(p.difference.mean)) return "";
  if (p.difference.n < 2) return "not settled: needs 2 pairs at least";
  if (p.difference.excludes_zero()) return p.difference.mean > 0 ? "higher" : "lower";
  return p.needed ? fmt::format("not settled: about {} pairs would, if it goes on so", *p.needed)
                  : std::string("not settled: more than a million pairs would be needed");
}

} // namespace

void summarize(const Experiment &e, ExperimentSummary &summary) {
  const auto find = [&](const ExperimentModel &m, const std::string &recipe,
                        uint64_t seed) -> const TrainResult * {
    for (const ExperimentRun &r : summary.runs)
      if (r.options.model == m.model && r.options.size == m.size &&
          recipe_label(r.options.recipe) == recipe && r.options.seed == seed && r.failure.empty() &&
          !r.missing)
        return &r.result;
    return nullptr;
  };
  std::vector<std::string> recipes;
  for (const std::string &recipe : e.recipes) recipes.push_back(recipe_label(recipe));
  for (const ExperimentModel &m : e.models) {
    for (const std::string &recipe : recipes) {
      ExperimentGroup g{m, recipe, {}, {}, {}, {}, {}, {}, {}};
      std::vector<double> last, smoothed, validation, smoothed_gap, validation_gap;
      for (const uint64_t seed : e.seeds) {
        const TrainResult *const r = find(m, recipe, seed), *const reference = find(m, e.reference, seed);
        if (!r) continue;
        if (r->diverged != 0) {
          g.diverged.push_back(seed);
          continue;
        }
        g.seeds.push_back(seed);
        last.push_back(r->final_loss);
        smoothed.push_back(r->smoothed_loss);
        validation.push_back(r->validation_loss);
        if (!reference || reference->diverged != 0 || recipe == e.reference) continue;
        smoothed_gap.push_back(relative_gap(r->smoothed_loss, reference->smoothed_loss));
        validation_gap.push_back(relative_gap(r->validation_loss, reference->validation_loss));
      }
      g.final_loss = estimate(last);
      g.smoothed_loss = estimate(smoothed);
      g.validation_loss = estimate(validation);
      g.smoothed_gap = estimate(smoothed_gap);
      g.validation_gap = estimate(validation_gap);
      summary.groups.push_back(std::move(g));
    }
    for (size_t i = 0; i < recipes.size(); ++i)
      for (size_t j = 0; j < i; ++j) {
        std::vector<double> differences;
        for (const uint64_t seed : e.seeds) {
          const TrainResult *const a = find(m, recipes[i], seed), *const b = find(m, recipes[j], seed);
          if (a && b && a->diverged == 0 && b->diverged == 0)
            differences.push_back(a->validation_loss - b->validation_loss);
        }
        const Estimate d = estimate(differences);
        summary.pairs.push_back({m, recipes[i], recipes[j], d, values_to_exclude_zero(d)});
      }
  }
}

std::string summary_table(const ExperimentSummary &s) {
  std::string text =
      fmt::format("{:<16} {:<14} {:>5} {:>20} {:>20} {:>20} {:>20} {:>20}\n", "model", "recipe", "seeds",
                  "final loss", "smoothed loss", "validation loss", "gap to bf16", "validation gap");
  bool intervals = false;
  for (const ExperimentGroup &g : s.groups) {
    intervals |= g.smoothed_loss.half_width.has_value();
    text += fmt::format(
        "{:<16} {:<14} {:>5} {:>20} {:>20} {:>20} {:>20} {:>20}\n", g.model.model + "-" + g.model.size,
        g.recipe, g.seeds.size(), estimate_text(g.final_loss, "", false),
        estimate_text(g.smoothed_loss, "", false), estimate_text(g.validation_loss, "", false),
        estimate_text(g.smoothed_gap, " %", true), estimate_text(g.validation_gap, " %", true));
  }
  text += intervals ? "Losses in nats per token; +- is the 95 % confidence interval over seeds (Student's "
                      "t); gaps pair "
                      "runs of the same seed.\n"
                    : "Losses in nats per token; one seed has no confidence interval; gaps pair runs of the "
                      "same seed.\n";
  if (!s.pairs.empty())
    text += fmt::format("\n{:<16} {:<30} {:>6} {:>24}\n", "model", "validation loss, paired", "pairs",
                        "difference");
  for (const ExperimentPair &p : s.pairs)
    text += fmt::format("{:<16} {:<30} {:>6} {:>24}  {}\n", p.model.model + "-" + p.model.size,
                        p.recipe + " - " + p.other, p.difference.n, difference_text(p.difference),
                        verdict_text(p));
  for (const ExperimentRun &r : s.runs)
    if (r.failure.empty() && !r.missing && r.result.diverged != 0)
      text += fmt::format("DIVERGED at step {}, last finite loss {}: {} is left out of losses and gaps{}\n",
                          r.result.diverged,
                          std::isfinite(r.result.last_finite_loss)
                              ? fmt::format("{:.4f}", r.result.last_finite_loss)
                              : std::string("unknown"),
                          io::printable(r.options.out),
                          r.result.not_finite ? "; first not finite: " + r.result.not_finite->text() : "");
  size_t missing = 0;
  for (const ExperimentRun &r : s.runs) missing += r.missing ? 1 : 0;
  if (missing > 0)
    text += fmt::format("{} of {} runs are of other parts and not finished\n", missing, s.runs.size());
  for (const ExperimentRun &r : s.runs)
    if (!r.failure.empty()) text += "failed: " + io::printable(r.options.out) + ": " + r.failure + "\n";
  return text;
}

std::string summary_json(const ExperimentSummary &s) {
  Json runs = Json::array(), groups = Json::array(), pairs = Json::array();
  for (const ExperimentRun &r : s.runs) {
    Json run = {{"folder", fs::path(r.options.out).filename().string()},
                {"model", r.options.model},
                {"size", r.options.size},
                {"recipe", recipe_label(r.options.recipe)},
                {"seed", r.options.seed}};
    if (r.missing)
      run["missing"] = true;
    else if (r.failure.empty())
      run["result"] = experiment_result_json(r.result);
    else
      run["failure"] = r.failure;
    runs.push_back(std::move(run));
  }
  for (const ExperimentGroup &g : s.groups)
    groups.push_back({{"model", g.model.model},
                      {"size", g.model.size},
                      {"recipe", g.recipe},
                      {"seeds", g.seeds},
                      {"diverged_seeds", g.diverged},
                      {"final_loss", estimate_json(g.final_loss)},
                      {"smoothed_loss", estimate_json(g.smoothed_loss)},
                      {"validation_loss", estimate_json(g.validation_loss)},
                      {"smoothed_gap_percent", estimate_json(g.smoothed_gap)},
                      {"validation_gap_percent", estimate_json(g.validation_gap)}});
  for (const ExperimentPair &p : s.pairs) {
    Json pair = {{"model", p.model.model},
                 {"size", p.model.size},
                 {"recipe", p.recipe},
                 {"other", p.other},
                 {"validation_difference", estimate_json(p.difference)},
                 {"settled", p.difference.excludes_zero()}};
    if (p.needed) pair["pairs_needed"] = *p.needed;
    pairs.push_back(std::move(pair));
  }
  return Json{{"version", 1}, {"groups", groups}, {"pairs", pairs}, {"runs", runs}}.dump(1) + "\n";
}

} // namespace nvfp4::models
