// SPDX-License-Identifier: Apache-2.0
// Writes the tables as JSON.
#include "nvfp4/golden/catalogue_json.hpp"

#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"

#include <nlohmann/json.hpp>

namespace nvfp4::golden {
namespace {

using Json = nlohmann::ordered_json;

Json unit_json(const Unit &u) {
  const UnitRule &r = u.rule;
  Json j = {{"unit", u.name()},
            {"arch", u.arch},
            {"instruction", u.instruction},
            {"family", to_string(r.family)},
            {"a", format(r.a).name},
            {"b", format(r.b).name},
            {"accumulator", format(r.acc).name},
            {"k", r.k},
            {"products_per_step", r.link},
            {"alignment_bits", r.fraction_bits},
            {"floor", r.floor},
            {"output", to_string(r.output)}};
  if (r.family == Family::fma) {
    j.erase("alignment_bits");
    j.erase("floor");
  }
  if (r.scale_block != 0) {
    j["scale"] = format(r.scale).name;
    j["scale_block"] = r.scale_block;
  }
  if (r.family == Family::gst_fdpa) j["accumulation_models"] = names_of(Accumulation{}).names;
  j["evidence"] = to_string(u.evidence);
  j["source"] = u.source;
  return j;
}

bool has(std::string_view name, const std::string &match) {
  return name.find(match) != std::string_view::npos;
}

} // namespace

std::string units_json(const std::string &match) {
  Json list = Json::array();
  for (const Unit &u : catalogue())
    if (has(u.name(), match)) list.push_back(unit_json(u));
  return list.dump(1);
}

std::string conversions_json(const std::string &match) {
  Json list = Json::array();
  for (const Conversion &c : conversions())
    if (has(c.name, match))
      list.push_back({{"conversion", c.name}, {"to", format(c.to).name}, {"from", format(c.from).name}});
  return list.dump(1);
}

std::string conventions_json(const std::string &match) {
  Json list = Json::array();
  for (const Convention &c : conventions())
    if (has(c.name, match))
      list.push_back({{"convention", c.name},
                      {"element", format(c.rule.element).name},
                      {"scale", format(c.rule.scale).name},
                      {"block", c.rule.block},
                      {"evidence", to_string(c.evidence)},
                      {"versions", c.versions},
                      {"source", c.source}});
  return list.dump(1);
}

} // namespace nvfp4::golden
