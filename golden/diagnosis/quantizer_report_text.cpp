// SPDX-License-Identifier: Apache-2.0
// Prints a report about a quantizer.
#include "nvfp4/golden/diagnosis/report_text.hpp"

#include <cmath>
#include <fmt/format.h>
#include <iterator>
#include <nlohmann/json.hpp>

namespace nvfp4::diagnosis {
namespace {

using Json = nlohmann::ordered_json;

Json number(double v) {
  return std::isfinite(v) ? Json(v) : Json(std::isnan(v) ? "NaN" : v > 0 ? "Inf" : "-Inf");
}

Json to_json(const QuantizerDifference &d, const char *at) {
  return {{"row", d.row},
          {at, d.at},
          {"got", d.got},
          {"want", d.want},
          {"got_value", number(d.got_value)},
          {"want_value", number(d.want_value)}};
}

Json to_json(const std::vector<QuantizerFinding> &list) {
  Json j = Json::array();
  for (const QuantizerFinding &f : list)
    j.push_back({{"name", f.name},
                 {"title", f.title},
                 {"preset", f.preset},
                 {"codes_left", f.codes_left},
                 {"scales_left", f.scales_left}});
  return j;
}

void print_first(std::string &out, const char *what, const char *at, const QuantizerDifference &d) {
  fmt::format_to(std::back_inserter(out),
                 "first {} at row {}, {} {}: got 0x{:02x} ({:.9g}), want 0x{:02x} ({:.9g})\n", what, d.row,
                 at, d.at, d.got, d.got_value, d.want, d.want_value);
}

} // namespace

std::string report_json(const QuantizerProblem &p, const QuantizerReport &r) {
  Json j = {{"equal", r.equal()},
            {"verdict", r.verdict},
            {"advice", r.advice},
            {"convention", p.convention->name},
            {"evidence", to_string(p.convention->evidence)},
            {"codes", r.codes},
            {"codes_differing", r.codes_differing},
            {"scales", r.scales},
            {"scales_differing", r.scales_differing},
            {"global", r.global},
            {"source", {{"nan", r.source_nan}, {"infinity", r.source_infinity}, {"zero", r.source_zero}}}};
  if (r.source_first_bad >= 0)
    j["source"]["first_not_finite"] = {r.source_first_bad / p.source.cols,
                                       r.source_first_bad % p.source.cols};
  if (r.first_code) j["first_code"] = to_json(*r.first_code, "column");
  if (r.first_scale) j["first_scale"] = to_json(*r.first_scale, "block");
  j["kinds"] = Json::object();
  for (const QuantizerKind &k : r.kinds) j["kinds"][k.name] = k.count;
  j["explains"] = to_json(r.explains);
  j["partial"] = to_json(r.partial);
  j["ruled_out"] = r.ruled_out;
  j["tried"] = r.tried;
  return j.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string report_text(const QuantizerProblem &p, const QuantizerReport &r) {
  std::string out;
  fmt::format_to(std::back_inserter(out), "{}\n", r.verdict);
  if (!r.advice.empty()) fmt::format_to(std::back_inserter(out), "{}\n", r.advice);
  fmt::format_to(std::back_inserter(out), "\nconvention {} ({}), [{}, {}], {} / {} per {}\n",
                 p.convention->name, to_string(p.convention->evidence), p.mine.rows, p.mine.k,
                 format(p.mine.element).name, format(p.mine.scale).name, p.mine.block);
  if (r.source_first_bad >= 0)
    fmt::format_to(std::back_inserter(out), "the source holds {} NaN and {} Inf, the first at ({}, {})\n",
                   r.source_nan, r.source_infinity, r.source_first_bad / p.source.cols,
                   r.source_first_bad % p.source.cols);
  if (r.first_scale) print_first(out, "scale", "block", *r.first_scale);
  if (r.first_code) print_first(out, "code", "column", *r.first_code);
  if (!r.global.empty()) fmt::format_to(std::back_inserter(out), "{}\n", r.global);
  if (!r.kinds.empty()) fmt::format_to(std::back_inserter(out), "\n{:>12}  kind\n", "count");
  for (const QuantizerKind &k : r.kinds)
    fmt::format_to(std::back_inserter(out), "{:>12}  {}\n", k.count, k.title);
  if (!r.explains.empty())
    fmt::format_to(std::back_inserter(out), "\nexplains all {} codes and {} scales:\n", r.codes, r.scales);
  for (const QuantizerFinding &f : r.explains)
    fmt::format_to(std::back_inserter(out), "  {}: {}\n", f.name, f.title);
  if (!r.partial.empty()) fmt::format_to(std::back_inserter(out), "\nexplains a part:\n");
  for (const QuantizerFinding &f : r.partial)
    fmt::format_to(std::back_inserter(out), "  {}: {}\n      leaves {} codes and {} scales\n", f.name,
                   f.title, f.codes_left, f.scales_left);
  if (r.codes_differing + r.scales_differing > 0 && r.explains.empty())
    fmt::format_to(
        std::back_inserter(out),
        "\nruled out, {} of them and of their pairs that can be made: {} presets and steps (--json "
        "names them)\n",
        r.tried, r.ruled_out.size());
  return out;
}

} // namespace nvfp4::diagnosis
