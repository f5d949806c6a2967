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
  for (const std::string &folder : found)
    for (const char *file : kRunFiles)
      if (io::is_same_file(output, folder + "/" + file))
        throw Error(io::printable(output) + ": is a file of the run in " + io::printable(folder) +
                    ": give the page another name");
  std::vector<RunData> runs;
  for (size_t i = 0; i < found.size(); ++i) {
    runs.push_back(read_run(found[i]));
    if (progress) progress(double(i + 1) / double(found.size()));
  }
  const std::string html = make_report(runs, version);
  io::write_file_atomically(output, std::as_bytes(std::span(html)));
  std::vector<Ordering> orderings = judge_orderings(group_runs(runs));
  return {std::move(runs), std::move(orderings), html.size()};
}

std::string report_json(const std::vector<RunData> &runs, const std::vector<Ordering> &orderings,
                        const std::string &output, size_t bytes) {
  using Json = nlohmann::ordered_json;
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
  Json list = Json::array();
  for (const Ordering &x : orderings)
    list.push_back({{"number", x.number},
                    {"claim", x.claim},
                    {"where", x.where},
                    {"verdict", to_string(x.verdict)},
                    {"settled", x.verdict != Verdict::not_measured && !x.weak},
                    {"measured", x.measured},
                    {"paper", x.paper}});
  return Json{{"output", output},     {"runs", runs.size()}, {"bytes", bytes},
              {"diverged", diverged}, {"not_finite", sick},  {"orderings", list}}
      .dump();
}

} // namespace nvfp4::models
