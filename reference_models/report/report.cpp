// SPDX-License-Identifier: Apache-2.0
// What the reader sees first: what was run, how short it was, and what came out.
#include "nvfp4/reference_models/report/report.hpp"

#include "nvfp4/emulator/config.hpp"
#include "nvfp4/reference_models/report/page.hpp"
#include "nvfp4/reference_models/report/sections.hpp"

#include <algorithm>
#include <fmt/core.h>

namespace nvfp4::models {
namespace {

/// The step by which the paper sees hot channels settled; shorter runs are called short.
constexpr int64_t kSettled = 10000;

std::string list_of(std::vector<std::string> items) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i)
    out += (i == 0 ? "" : i + 1 == items.size() ? " and " : ", ") + items[i];
  return out;
}

std::string headline(const std::vector<RunData> &runs, const std::vector<RunGroup> &groups) {
  std::vector<std::string> models, recipes;
  const auto add = [](std::vector<std::string> &list, const std::string &item) {
    if (std::find(list.begin(), list.end(), item) == list.end()) list.push_back(item);
  };
  for (const RunGroup &g : groups) add(models, g.model), add(recipes, g.recipe); // in their order
  for (const RunData &r : runs) add(models, r.model), add(recipes, r.recipe);    // and those that diverged
  std::vector<uint64_t> seeds;
  for (const RunData &r : runs) seeds.push_back(r.seed);
  std::sort(seeds.begin(), seeds.end());
  seeds.erase(std::unique(seeds.begin(), seeds.end()), seeds.end());
  const auto plural = [](size_t n, const char *what) {
    return fmt::format("{} {}{}", n, what, n == 1 ? "" : "s");
  };
  if (groups.empty())
    return plural(runs.size(), "run") + (runs.size() == 1 ? ", which diverged." : ", all of which diverged.");
  return fmt::format("{} of {} under {}, {}.", plural(runs.size(), "run"), list_of(models), list_of(recipes),
                     plural(seeds.size(), "seed"));
}

std::string verdicts(const std::vector<Ordering> &orderings) {
  const auto number_of = [&](Verdict v) { return std::ranges::count(orderings, v, &Ordering::verdict); };
  return fmt::format(
      "Of {} orderings, {} held, {} did not, {} are not settled by these seeds, {} were not measured.",
      orderings.size(), number_of(Verdict::held), number_of(Verdict::not_held),
      number_of(Verdict::not_settled), number_of(Verdict::not_measured));
}

} // namespace

std::string make_report(const std::vector<RunData> &runs, const std::string &version) {
  if (runs.empty()) throw Error("report: expected at least one run");
  const RunGroups sorted = sort_runs(runs);
  const std::vector<RunGroup> &groups = sorted.groups;
  const std::vector<Ordering> orderings = judge_orderings(groups);
  int64_t shortest = runs[0].last_step(), longest = 0, tokens = 0;
  size_t unfinished = 0, diverged = 0;
  for (const RunData &r : runs) {
    if (r.diverged) ++diverged;
    shortest = std::min(shortest, r.last_step());
    longest = std::max(longest, r.last_step());
    tokens = std::max(tokens, r.log.empty() ? 0 : r.log.back().tokens);
    unfinished += !r.diverged && r.last_step() < r.planned_steps ? 1 : 0;
  }
  std::string body = "<h1>NVFP4 training report</h1>\n<p>" + escape(headline(runs, groups)) + " " +
                     escape(verdicts(orderings)) + "</p>\n";
  std::string notice;
  if (longest < kSettled)
    notice += fmt::format("These are short runs: {} steps, at most {} tokens. The paper's earliest figures "
                          "are at step 400 and its hot "
                          "channels settle after about 10,000 steps of millions of tokens, so what is seen "
                          "here may be the first phase only. ",
                          shortest == longest
                              ? number_text(double(longest), 9)
                              : number_text(double(shortest), 9) + " to " + number_text(double(longest), 9),
                          number_text(double(tokens), 12));
  if (unfinished > 0)
    notice += fmt::format("{} of {} runs had not reached their last step. ", unfinished, runs.size());
  if (diverged > 0)
    notice += fmt::format("{} of {} runs diverged and are left out of losses, gaps and orderings. ", diverged,
                          runs.size());
  const auto sick =
      std::count_if(runs.begin(), runs.end(), [](const RunData &r) { return !r.not_finite.empty(); });
  if (sick > 0)
    notice += fmt::format("In {} of {} runs measured tensors held NaN or Inf; they are listed below. ", sick,
                          runs.size());
  if (!sorted.differences.empty())
    notice += "Runs that differ in more than recipe and seed are not averaged or compared. ";
  if (!sorted.duplicates.empty())
    notice +=
        fmt::format("{} of {} runs are there twice and left out. ", sorted.duplicates.size(), runs.size());
  if (!notice.empty()) body += "<p class=\"notice\">" + escape(notice) + "</p>\n";
  body += alike_section(sorted) + divergence_section(runs) + not_finite_section(runs) + loss_section(groups) +
          ordering_section(orderings) + paper_section(groups) + kurtosis_section(groups) +
          channel_section(groups) + flush_section(groups) + outlier_section(groups) + attention_section(groups) + gate_section(groups) +
          swiglu_section(groups) + sensitivity_section(groups) + provenance_section(runs, version);
  return page("NVFP4 training report", body);
}

} // namespace nvfp4::models
