// SPDX-License-Identifier: Apache-2.0
// An inspection as JSON and as a table.
#include "nvfp4/golden/checkpoint/inspection.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <cmath>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

namespace nvfp4::checkpoint {
namespace {

using Json = nlohmann::ordered_json;
using Out = std::back_insert_iterator<std::string>;

template <class... T> void print(Out out, fmt::format_string<T...> text, T &&...values) {
  fmt::format_to(out, text, std::forward<T>(values)...);
}

Json number(double v) {
  return std::isfinite(v) ? Json(v) : Json(std::isnan(v) ? "NaN" : v > 0 ? "Inf" : "-Inf");
}

Json to_json(const Reproduction &r) {
  return {{"convention", r.convention},
          {"amax", r.amax},
          {"block_rows", r.block_rows},
          {"codes_differing", r.codes_differing},
          {"scales_differing", r.scales_differing},
          {"global_equal", r.global_equal}};
}

Json to_json(const Inspection::Line &line) {
  const Weight &w = *line.report.weight;
  Json j = {{"name", w.name},
            {"kind", w.kind()},
            {"shape", w.container ? shape_of(w) : w.codes->shape},
            {"stored_as", w.codes->type}};
  if (w.global && w.decodable) j["global_scale"] = number(global_word(w, 0));
  if (w.decodable)
    if (const auto input = input_word(w, 0)) j["input_scale"] = number(*input);
  if (const auto &v = line.report.values) {
    j["values"] = {{"elements", v->elements},         {"nan", v->nan},
                   {"infinity", v->infinity},         {"zero", v->zero},
                   {"mean", number(v->mean)},         {"rms", number(v->rms)},
                   {"kurtosis", number(v->kurtosis)}, {"amax", number(v->amax)}};
    for (const auto &channel : v->largest)
      j["values"]["largest_channels"].push_back({{"column", channel.column}, {"amax", number(channel.amax)}});
  }
  if (const auto &b = line.report.blocks) {
    j["blocks"] = {{"blocks", b->blocks},
                   {"zero", b->zero_blocks},
                   {"scale_underflow", b->scale_underflow},
                   {"scale_saturated", b->scale_saturated},
                   {"scale_nan", b->scale_nan},
                   {"scale_negative", b->scale_negative},
                   {"zero_codes", b->zero_codes},
                   {"largest_codes", b->largest_codes},
                   {"scale_padding", b->scale_padding}};
    for (const auto &[exponent, count] : b->scale_exponents)
      j["blocks"]["scale_exponents"][std::to_string(exponent)] = count;
  }
  if (const auto &c = line.comparison; c && c->refused.empty()) {
    j["against"] = {{"snr_db", number(c->snr_db)},
                    {"flushed", c->flushed},
                    {"not_finite", c->not_finite},
                    {"equal", Json::array()}};
    for (const Reproduction &r : c->equal) j["against"]["equal"].push_back(to_json(r));
    if (c->closest) j["against"]["closest"] = to_json(*c->closest);
    if (!c->explanation.empty()) j["against"]["explanation"] = c->explanation;
  }
  return j;
}

std::string percent(int64_t part, int64_t of) {
  return of ? fmt::format("{:.3g} %", 100.0 * double(part) / double(of)) : "-";
}

void print_details(Out out, const Inspection::Line &line) {
  if (const auto &v = line.report.values) {
    print(out, "    mean {:.4g}, rms {:.4g}, largest channels", v->mean, v->rms);
    for (const auto &channel : v->largest) print(out, " {} ({:.4g})", channel.column, channel.amax);
    print(out, "\n");
  }
  if (const auto &b = line.report.blocks) {
    print(out,
          "    {} blocks: {} of zeros, {} with scale 0 over codes, {} with the largest scale; {} of the "
          "codes in the others are 0, {} the largest\n",
          b->blocks, b->zero_blocks, b->scale_underflow, b->scale_saturated,
          percent(b->zero_codes, line.report.values->elements),
          percent(b->largest_codes, line.report.values->elements));
    print(out, "    scales by power of two:");
    for (const auto &[exponent, count] : b->scale_exponents) print(out, " 2^{}: {}", exponent, count);
    print(out, "\n");
  }
}

void print_comparison(Out out, const Comparison &c) {
  if (!c.refused.empty()) return;
  print(out, "    SNR {:.2f} dB, {} elements flushed to 0", c.snr_db, c.flushed);
  if (c.not_finite) print(out, ", {} not finite", c.not_finite);
  for (size_t i = 0; i < c.equal.size(); ++i)
    print(out, "{}{}{}", i ? ", " : "; bytes of ", c.equal[i].text(),
          c.equal[i].global_equal ? "" : " (global scale apart)");
  print(out, "\n");
}

} // namespace

std::string to_json(const Checkpoint &c, const Inspection &result) {
  Json j = {{"path", c.path},        {"what", describe(c)},       {"files", c.files},
            {"wrong", result.wrong}, {"findings", Json::array()}, {"weights", Json::array()}};
  for (const Finding &f : result.findings)
    j["findings"].push_back({{"tensor", f.tensor}, {"kind", f.kind}, {"text", f.text}, {"wrong", f.wrong}});
  for (const Inspection::Line &line : result.lines) j["weights"].push_back(to_json(line));
  return j.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string to_text(const Checkpoint &c, const Inspection &result, bool details) {
  std::string text;
  const Out out = std::back_inserter(text);
  print(out, "{}: {}\n\n", io::printable(c.path), describe(c));
  size_t width = 6;
  for (const Inspection::Line &line : result.lines)
    width = std::max(width, io::printable(line.report.weight->name).size());
  print(out, "{:{}}  {:<24}  {:>18}  {:>11}  {:>10}  {:>8}\n", "weight", width, "kind", "shape", "global",
        "amax", "kurtosis");
  for (const Inspection::Line &line : result.lines) {
    const Weight &w = *line.report.weight;
    const auto &v = line.report.values;
    print(out, "{:{}}  {:<24}  {:>18}  {:>11}  {:>10}  {:>8}\n", io::printable(w.name), width,
          io::printable(w.kind()), io::shape_text(w.container ? shape_of(w) : w.codes->shape),
          w.global && w.decodable ? fmt::format("{:.5g}", global_word(w, 0)) : "-",
          v ? fmt::format("{:.4g}", v->amax) : "-",
          v && std::isfinite(v->kurtosis) ? fmt::format("{:.2f}", v->kurtosis) : "-");
    if (details) print_details(out, line);
    if (line.comparison) print_comparison(out, *line.comparison);
  }
  print(out, "\n");
  for (const Finding &f : result.findings)
    print(out, "{}: {}{}\n", f.wrong ? "WRONG" : "note",
          f.tensor.empty() ? "" : io::printable(f.tensor) + " ", f.text);
  if (result.wrong == 0) print(out, "nothing wrong found in {} weights\n", result.lines.size());
  return text;
}

} // namespace nvfp4::checkpoint
