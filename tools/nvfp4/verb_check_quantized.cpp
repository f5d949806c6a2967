// SPDX-License-Identifier: Apache-2.0
// nvfp4 check --quantized: are a quantizer's codes and scales those of a convention, and if not, which step
// of the rule explains them.
#include "tools/nvfp4/verb_check_quantized.hpp"

#include "nvfp4/golden/diagnosis/quantizer_check.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/quantized_file.hpp"
#include "tools/environment.hpp"
#include "tools/nvfp4/numbers.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <charconv>
#include <cmath>
#include <fmt/core.h>
#include <nlohmann/json.hpp>

namespace nvfp4::tool {
namespace {

using namespace diagnosis;
using Json = nlohmann::ordered_json;

uint64_t parse_number(const std::string &what, const std::string &text) {
  uint64_t v = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (error != std::errc() || end != text.data() + text.size())
    throw Error(what + " '" + text.substr(0, 40) + "': expected a whole number");
  return v;
}

QuantizerProblem read_problem(const QuantizedCheck &o, int threads) {
  if (o.source.empty()) throw Error("check --quantized: needs --source, the tensor that was quantized");
  const io::TensorFile file = io::read_tensors(o.mine);
  QuantizerProblem p;
  p.mine = golden::from_file(file);
  p.convention = &find_convention(o.convention.empty() ? p.mine.convention : o.convention);
  const auto meta = [&](const char *key, const std::string &otherwise) {
    const auto it = file.metadata.find(key);
    return it == file.metadata.end() ? otherwise : it->second;
  };
  p.rounding = parse_enum<ElementRounding>(meta("rounding", "rne"));
  p.key = {parse_number(o.mine + ": seed", meta("seed", "0")),
           parse_number(o.mine + ": offset", meta("offset", "0"))};
  p.global_amax = o.amax;
  const io::TensorFile source = io::read_tensors(o.source);
  golden::DenseMatrix m = golden::to_matrix(golden::choose_tensor(source, o.tensor), source.source);
  p.source = {m.rows, m.cols, std::move(m.values)};
  p.threads = threads;
  p.isa = asked_isa();
  return p;
}

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

void print_json(const QuantizerProblem &p, const QuantizerReport &r) {
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
  fmt::print("{}\n", j.dump(-1, ' ', false, Json::error_handler_t::replace));
}

void print_first(const char *what, const char *at, const QuantizerDifference &d) {
  fmt::print("first {} at row {}, {} {}: got 0x{:02x} ({:.9g}), want 0x{:02x} ({:.9g})\n", what, d.row, at,
             d.at, d.got, d.got_value, d.want, d.want_value);
}

void print_text(const QuantizerProblem &p, const QuantizerReport &r) {
  fmt::print("{}\n", verdict_line(r.verdict, r.equal() ? Verdict::good : Verdict::bad));
  if (!r.advice.empty()) fmt::print("{}\n", r.advice);
  fmt::print("\nconvention {} ({}), [{}, {}], {} / {} per {}\n", p.convention->name,
             to_string(p.convention->evidence), p.mine.rows, p.mine.k, format(p.mine.element).name,
             format(p.mine.scale).name, p.mine.block);
  if (r.source_first_bad >= 0)
    fmt::print("the source holds {} NaN and {} Inf, the first at ({}, {})\n", r.source_nan, r.source_infinity,
               r.source_first_bad / p.source.cols, r.source_first_bad % p.source.cols);
  if (r.first_scale) print_first("scale", "block", *r.first_scale);
  if (r.first_code) print_first("code", "column", *r.first_code);
  if (!r.global.empty()) fmt::print("{}\n", r.global);
  if (!r.kinds.empty()) fmt::print("\n{:>12}  kind\n", "count");
  for (const QuantizerKind &k : r.kinds) fmt::print("{:>12}  {}\n", k.count, k.title);
  if (!r.explains.empty()) fmt::print("\nexplains all {} codes and {} scales:\n", r.codes, r.scales);
  for (const QuantizerFinding &f : r.explains) fmt::print("  {}: {}\n", f.name, f.title);
  if (!r.partial.empty()) fmt::print("\nexplains a part:\n");
  for (const QuantizerFinding &f : r.partial)
    fmt::print("  {}: {}\n      leaves {} codes and {} scales\n", f.name, f.title, f.codes_left,
               f.scales_left);
  if (r.codes_differing + r.scales_differing > 0 && r.explains.empty())
    fmt::print("\nruled out, {} of them and of their pairs that can be made: {} presets and steps (--json "
               "names them)\n",
               r.tried, r.ruled_out.size());
}

} // namespace

void add_quantized_options(CLI::App &verb, QuantizedCheck &o) {
  verb.add_option("--quantized", o.mine,
                  "Instead of a product: a quantizer's output, a file as nvfp4 quantize writes it");
  verb.add_option("--source", o.source, "With --quantized: the tensor that was quantized, F32, BF16 or F16");
  verb.add_option("--source-tensor", o.tensor, "Which tensor of the source's file");
  verb.add_option("--convention", o.convention,
                  "With --quantized: what it should be (default: what the file names)");
  add_fp32(verb, "--global-amax", o.amax, "With --quantized: a calibrated amax instead of the source's own",
           0.0f);
}

int check_quantized(const QuantizedCheck &o, int threads, bool json) {
  QuantizerProblem p = read_problem(o, threads);
  Progress progress("check");
  p.progress = [&](double f) { progress.show(f); };
  const QuantizerReport r = check_quantizer(p);
  progress.done();
  json ? print_json(p, r) : print_text(p, r);
  return r.equal() ? kEqual : kMismatch;
}

} // namespace nvfp4::tool
