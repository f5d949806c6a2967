// SPDX-License-Identifier: Apache-2.0
// What a report says, for machines.
#include "nvfp4/reference_models/fields/json.hpp"
#include "nvfp4/reference_models/report/report.hpp"

namespace nvfp4::models {

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
