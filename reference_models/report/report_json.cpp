// SPDX-License-Identifier: Apache-2.0
// Writes a report, and what it says for machines.
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/fields/json.hpp"
#include "nvfp4/reference_models/report/report.hpp"
#include "nvfp4/reference_models/train/run_folder.hpp"

namespace nvfp4::models {

WrittenReport write_report(const std::vector<std::string> &folders, const std::string &output,
                           const std::string &version, const std::function<void(double)> &progress) {
  const std::vector<std::string> found = find_runs(folders);
  for (const std::string &folder : found) check_not_of_run(output, folder);
  WrittenReport made;
  for (size_t i = 0; i < found.size(); ++i) {
    made.runs.push_back(read_run(found[i]));
    if (progress) progress(double(i + 1) / double(found.size()));
  }
  const std::string html = make_report(made.runs, version);
  io::write_file_atomically(output, std::as_bytes(std::span(html)));
  made.bytes = html.size();
  made.sorted = sort_runs(made.runs);
  made.orderings = judge_orderings(made.sorted.groups);
  return made;
}

std::string report_json(const WrittenReport &made, const std::string &output) {
  using Json = nlohmann::ordered_json;
  const auto &[runs, sorted, orderings, bytes] = made;
  Json diverged = Json::array(), sick = Json::array();
  for (const RunData &r : runs) {
    for (const NotFinite &n : r.not_finite) {
      Json facts = {{"run", r.folder}};
      facts.update(fields_to_json(kNotFiniteFields, n));
      sick.push_back(std::move(facts));
    }
    if (!r.diverged) continue;
    diverged.push_back({{"run", r.folder},
                        {"step", r.diverged->step},
                        {"last_finite_loss", r.diverged->last_finite_loss},
                        {"last_finite_step", r.diverged->last_finite_step}});
    if (r.diverged->first)
      diverged.back()["not_finite"] = fields_to_json(kNotFiniteFields, *r.diverged->first);
  }
  Json groups = Json::array(), duplicates = Json::array();
  for (const RunGroup &g : sorted.groups) {
    Json seeds = Json::array(), folders_of = Json::array();
    for (const RunData *r : g.runs) seeds.push_back(r->seed), folders_of.push_back(r->folder);
    groups.push_back({{"model", g.model}, {"recipe", g.recipe}, {"seeds", seeds}, {"runs", folders_of}});
  }
  for (const Duplicate &d : sorted.duplicates) {
    duplicates.push_back({{"run", d.run->folder}, {"of", d.kept->folder}});
    if (d.differs_at > 0) duplicates.back()["differs_at_step"] = d.differs_at;
  }
  Json list = Json::array();
  for (const Ordering &x : orderings)
    list.push_back({{"number", x.number},
                    {"claim", x.claim},
                    {"where", x.where},
                    {"verdict", to_string(x.verdict)},
                    {"settled", x.verdict == Verdict::held || x.verdict == Verdict::not_held},
                    {"measured", x.measured},
                    {"paper", x.paper}});
  return Json{{"output", output},
              {"runs", runs.size()},
              {"bytes", bytes},
              {"groups", groups},
              {"differences", sorted.differences},
              {"duplicates", duplicates},
              {"diverged", diverged},
              {"not_finite", sick},
              {"orderings", list}}
      .dump();
}

} // namespace nvfp4::models
