// SPDX-License-Identifier: Apache-2.0
// nvfp4 report DIR... -o report.html: one self-contained page about training runs.
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/fields/json.hpp"
#include "nvfp4/reference_models/report/report.hpp"
#include "nvfp4/reference_models/train/run_folder.hpp"
#include "nvfp4/version.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/core.h>
#include <memory>
#include <nlohmann/json.hpp>

namespace nvfp4::tool {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  std::vector<std::string> folders;
  std::string out;
  bool json = false;
};

int report(const Options &o) {
  const std::vector<std::string> folders = models::find_runs(o.folders);
  for (const std::string &folder : folders) models::check_not_of_run(o.out, folder);
  std::vector<models::RunData> runs;
  Progress progress("report");
  for (size_t i = 0; i < folders.size(); ++i) {
    runs.push_back(models::read_run(folders[i]));
    progress.show(double(i + 1) / double(folders.size()));
  }
  const std::string html = models::make_report(runs, NVFP4_VERSION_STRING);
  io::write_file_atomically(o.out, std::as_bytes(std::span(html)));

  const models::RunGroups sorted = models::sort_runs(runs);
  const std::vector<models::Ordering> orderings = models::judge_orderings(sorted.groups);
  if (o.json) {
    Json diverged = Json::array(), sick = Json::array();
    for (const models::RunData &r : runs) {
      for (const models::NotFinite &n : r.not_finite) {
        Json facts = {{"run", r.folder}};
        facts.update(models::fields_to_json(models::kNotFiniteFields, n));
        sick.push_back(std::move(facts));
      }
      if (!r.diverged) continue;
      diverged.push_back({{"run", r.folder},
                          {"step", r.diverged->step},
                          {"last_finite_loss", r.diverged->last_finite_loss},
                          {"last_finite_step", r.diverged->last_finite_step}});
      if (r.diverged->first)
        diverged.back()["not_finite"] = models::fields_to_json(models::kNotFiniteFields, *r.diverged->first);
    }
    Json groups = Json::array(), duplicates = Json::array();
    for (const models::RunGroup &g : sorted.groups) {
      Json seeds = Json::array(), folders_of = Json::array();
      for (const models::RunData *r : g.runs) seeds.push_back(r->seed), folders_of.push_back(r->folder);
      groups.push_back({{"model", g.model}, {"recipe", g.recipe}, {"seeds", seeds}, {"runs", folders_of}});
    }
    for (const models::Duplicate &d : sorted.duplicates) {
      duplicates.push_back({{"run", d.run->folder}, {"of", d.kept->folder}});
      if (d.differs_at > 0) duplicates.back()["differs_at_step"] = d.differs_at;
    }
    Json list = Json::array();
    for (const models::Ordering &x : orderings)
      list.push_back({{"number", x.number},
                      {"claim", x.claim},
                      {"where", x.where},
                      {"verdict", to_string(x.verdict)},
                      {"settled", x.verdict != models::Verdict::not_measured && !x.weak},
                      {"measured", x.measured},
                      {"paper", x.paper}});
    fmt::print("{}\n", Json{{"output", o.out},
                            {"runs", runs.size()},
                            {"bytes", html.size()},
                            {"groups", groups},
                            {"differences", sorted.differences},
                            {"duplicates", duplicates},
                            {"diverged", diverged},
                            {"not_finite", sick},
                            {"orderings", list}}
                           .dump());
    return kEqual;
  }
  for (const models::Ordering &x : orderings)
    fmt::print("{:<13} {} {}{}\n", to_string(x.verdict), x.number, x.claim,
               x.where.empty() ? "" : " (" + x.where + ")");
  for (const std::string &difference : sorted.differences)
    fmt::print("NOT ALIKE     {}\n", io::printable(difference, 2000));
  for (const models::Duplicate &d : sorted.duplicates) fmt::print("DUPLICATE     {}\n", d.text());
  for (const models::RunData &r : runs)
    if (r.diverged)
      fmt::print(
          "DIVERGED      {} at step {}, last finite loss {}: left out of losses, gaps and orderings{}\n",
          io::printable(r.folder), r.diverged->step,
          r.diverged->last_finite_step > 0 ? fmt::format("{:.4f}", r.diverged->last_finite_loss)
                                           : std::string("none"),
          r.diverged->first ? "; first not finite: " + r.diverged->first->text() : "");
  for (const models::RunData &r : runs)
    if (!r.not_finite.empty())
      fmt::print("NOT FINITE    {}: {}{}\n", io::printable(r.folder), r.not_finite.front().text(),
                 r.not_finite.size() > 1 ? fmt::format("; {} more", r.not_finite.size() - 1) : "");
  fmt::print("{}: {} run{}, losses, {} orderings, tensors and their provenance\n", o.out, runs.size(),
             runs.size() == 1 ? "" : "s", orderings.size());
  return kEqual;
}

} // namespace

void register_report(CLI::App &app, int &exit_code) {
  CLI::App *verb =
      app.add_subcommand("report", "One HTML page about training runs: losses, gaps, tensors, orderings");
  auto o = std::make_shared<Options>();
  verb->add_option("folders", o->folders, "Folders of runs, or of experiments")->required();
  verb->add_option("-o,--output", o->out, "The page to write")->required();
  verb->add_flag("--json", o->json, "Machine-readable output: the orderings with their numbers");
  verb->footer("Example: nvfp4 report runs/gla-tiny-bf16-1 runs/gla-tiny-chon-1 -o report.html");
  verb->callback([o, &exit_code] { exit_code = report(*o); });
}

} // namespace nvfp4::tool
