// SPDX-License-Identifier: Apache-2.0
// Prints a report.
#include "nvfp4/golden/diagnosis/report_text.hpp"

#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/tensorcore/unit.hpp"

#include <algorithm>
#include <fmt/format.h>
#include <iterator>
#include <nlohmann/json.hpp>

namespace nvfp4::diagnosis {
namespace {

using Json = nlohmann::ordered_json;

std::string hex(uint64_t word, FormatId type) {
  return fmt::format("{:0{}x}", word, format(type).storage_bits / 4);
}

Json to_json(const Fact &f) {
  const auto ranges = [](const Indices &set) {
    Json j = Json::array();
    for (const auto &[first, last] : runs_of(set)) j.push_back({first, last});
    return j;
  };
  Json j = {{"kind", f.kind}, {"text", f.text}, {"outputs", f.outputs}};
  if (!f.rows.empty()) j["rows"] = ranges(f.rows);
  if (!f.cols.empty()) j["columns"] = ranges(f.cols);
  if (f.kind == "factor") j["factor"] = f.factor;
  if (!f.addends.empty()) j["addends"] = f.addends;
  return j;
}

Json to_json(const Finding &f) {
  Json j = {{"name", f.name},
            {"title", f.title},
            {"advice", f.advice},
            {"topic", to_string(f.topic)},
            {"variant", f.variant},
            {"sampled", f.sampled},
            {"sampled_equal", f.sampled_equal},
            {"finite", f.finite},
            {"explains_all", f.explains_all},
            {"distance", f.distance}};
  if (f.equal >= 0) j["equal"] = f.equal;
  if (!f.leaves.empty()) j["leaves"] = f.leaves;
  if (!f.rest.empty()) {
    j["rest"] = Json::array();
    for (const Fact &fact : f.rest) j["rest"].push_back(to_json(fact));
    j["rest_accounts"] = f.rest_accounts;
  }
  if (f.parting)
    j["stage"] = {{"name", to_string(f.parting->stage)}, {"k", f.parting->k}, {"text", f.parting->text}};
  return j;
}

Json to_json(const std::vector<Finding> &list) {
  Json j = Json::array();
  for (const Finding &f : list) j.push_back(to_json(f));
  return j;
}

double percent(int64_t part, int64_t whole) { return whole == 0 ? 0 : 100.0 * double(part) / double(whole); }

/// A distance, or why there is none.
std::string distance_text(double d) { return d == d ? fmt::format("{:.3g}", d) : "none (no finite pair)"; }

void print_statistics(std::string &out, const Problem &p, const Comparison &c) {
  const int64_t i = c.first / p.n(), j = c.first % p.n();
  fmt::format_to(std::back_inserter(out),
                 "{} of {} outputs differ ({:.3f} %), in {} of {} rows and {} of {} columns\n", c.differing,
                 c.total, percent(c.differing, c.total), c.rows_hit, p.m(), c.cols_hit, p.n());
  fmt::format_to(std::back_inserter(out), "first at ({}, {}): got {} ({:.9g}), want {} ({:.9g})\n", i, j,
                 hex(c.first_got, p.word), value(p.word, c.first_got), hex(c.first_want, p.word),
                 value(p.word, c.first_want));
  if (c.finite_pairs != c.total)
    fmt::format_to(std::back_inserter(out),
                   "not finite on one side or both: {} outputs, left out of the distances below\n",
                   c.total - c.finite_pairs);
  if (c.finite_pairs != 0) {
    fmt::format_to(std::back_inserter(out), "ulp: max {}", c.max_ulp);
    if (c.max_ulp_at >= 0)
      fmt::format_to(std::back_inserter(out), " at ({}, {})", c.max_ulp_at / p.n(), c.max_ulp_at % p.n());
    if (c.mean_ulp == c.mean_ulp)
      fmt::format_to(std::back_inserter(out), ", mean of differing {:.3f}", c.mean_ulp);
    if (c.max_relative == c.max_relative)
      fmt::format_to(std::back_inserter(out), "; max relative error {:.3g}", c.max_relative);
    fmt::format_to(std::back_inserter(out), "; distance {}\n", distance_text(c.distance));
  }
  if (c.nan_got + c.nan_missing + c.nan_words + c.infinities + c.zero_signs != 0)
    fmt::format_to(std::back_inserter(out),
                   "NaN for a number {}, number for NaN {}, other NaN words {}, Inf differences {}, zeros of "
                   "other sign {}\n",
                   c.nan_got, c.nan_missing, c.nan_words, c.infinities, c.zero_signs);
  if (c.finite_pairs == 0) return;
  fmt::format_to(std::back_inserter(out), "\n{:>16}  {:>10}\n", "ulp", "outputs");
  for (int b = 0; b < Comparison::kBins; ++b)
    if (c.bins[size_t(b)] != 0)
      fmt::format_to(std::back_inserter(out), "{:>16}  {:>10}\n", bin_text(b), c.bins[size_t(b)]);
}

void print_finding(std::string &out, const Finding &f) {
  fmt::format_to(std::back_inserter(out), "  {}: {}\n      {}\n", f.name, f.title, f.advice);
  if (!f.leaves.empty()) fmt::format_to(std::back_inserter(out), "      leaves {}\n", f.leaves);
  for (const Fact &fact : f.rest)
    fmt::format_to(std::back_inserter(out), "      beside that {}\n", fact.text);
  if (f.parting) {
    fmt::format_to(std::back_inserter(out), "      parts at: {}", to_string(f.parting->stage));
    if (f.parting->k >= 0) fmt::format_to(std::back_inserter(out), ", k = {}", f.parting->k);
    fmt::format_to(std::back_inserter(out), ": {}\n", f.parting->text);
  }
}

/// Nearest first; those whose values are not finite last.
void print_ranking(std::string &out, const Report &r) {
  std::vector<Finding> all = r.partial;
  all.insert(all.end(), r.others.begin(), r.others.end());
  std::stable_sort(all.begin(), all.end(), [](const Finding &x, const Finding &y) {
    if (x.finite != y.finite) return x.finite;
    return x.distance < y.distance;
  });
  fmt::format_to(
      std::back_inserter(out),
      "\nhow far D is from each mistake, on {} sampled outputs (the expected bits: {} equal)\n{:>10} "
      "{:>9}  mistake\n",
      r.sampled, r.sampled_equal, "distance", "equal");
  constexpr size_t most = 25;
  size_t shown = 0, not_finite = 0;
  for (const Finding &f : all) {
    if (!f.finite) {
      ++not_finite;
    } else if (shown < most) {
      fmt::format_to(std::back_inserter(out), "{:>10.3g} {:>8.2f}%  {}\n", f.distance,
                     percent(f.sampled_equal, f.sampled), f.name);
      ++shown;
    }
  }
  const size_t further = all.size() - shown - not_finite;
  if (further != 0) fmt::format_to(std::back_inserter(out), "{} more are further away", further);
  if (not_finite != 0)
    fmt::format_to(std::back_inserter(out), "{}{} give values that are not finite", further != 0 ? "; " : "",
                   not_finite);
  if (further + not_finite != 0) fmt::format_to(std::back_inserter(out), " (--json names them)\n");
  if (!r.no_effect.empty())
    fmt::format_to(std::back_inserter(out), "{} change no bit of these outputs (--json names them)\n",
                   r.no_effect.size());
}

void print_table(std::string &out, const Problem &p, const Report &r, bool trace) {
  const Comparison &c = r.comparison;
  fmt::format_to(std::back_inserter(out), "{}\n\nunit {} ({}), [{}, {}] {}, K {}, accumulator times {:.9g}\n",
                 r.verdict, p.unit->name(), to_string(p.unit->evidence), p.m(), p.n(), format(p.word).name,
                 p.a.raw.k, r.alpha);
  if (c.equal()) return;
  print_statistics(out, p, c);
  if (trace)
    fmt::format_to(std::back_inserter(out), "\nthe expected accumulator of the first differing output\n{}",
                   r.reference_trace);
  if (!r.facts.empty()) fmt::format_to(std::back_inserter(out), "\nwhat D looks like\n");
  for (const Fact &f : r.facts)
    fmt::format_to(std::back_inserter(out), "  {} ({} differing outputs)\n", f.text, f.outputs);
  if (r.covered == c.differing) return;
  const bool whole = !r.candidates.empty() && r.candidates[0].explains_all;
  const int64_t outputs = c.total - (whole ? 0 : r.covered);
  if (r.covered != 0 && !whole)
    fmt::format_to(std::back_inserter(out), "  these are left out of what follows: {} differ\n", r.where);
  fmt::format_to(std::back_inserter(out), "\n");
  if (!r.candidates.empty()) {
    fmt::format_to(std::back_inserter(out), "diagnosis: {} all {} outputs{}\n",
                   r.candidates.size() == 1 ? "explains" : "each of these explains", outputs,
                   r.covered != 0 && !whole ? " that are left" : "");
    for (const Finding &f : r.candidates) print_finding(out, f);
    return;
  }
  if (!r.likely.empty()) {
    fmt::format_to(std::back_inserter(out),
                   "diagnosis: {} all {} sampled outputs; all {} would take long to compute (--full does)\n",
                   r.likely.size() == 1 ? "explains" : "each of these explains", r.sampled, outputs);
    for (const Finding &f : r.likely) print_finding(out, f);
    return;
  }
  if (r.by_factor) return;
  fmt::format_to(
      std::back_inserter(out),
      "nothing that was tried explains all outputs: {} forms of single mistakes, {} of two together{}\n",
      r.tried, r.pairs_tried, r.partial.empty() ? "" : "; these explain more than the expected bits do");
  for (size_t i = 0; i < r.partial.size() && i < 3; ++i) {
    const Finding &f = r.partial[i];
    if (f.equal >= 0)
      fmt::format_to(std::back_inserter(out), "explains {:.1f} % of outputs (expected bits: {:.1f} %)\n",
                     percent(f.equal, outputs), percent(c.total - c.differing, outputs));
    else
      fmt::format_to(std::back_inserter(out),
                     "explains {:.1f} % of {} sampled outputs (expected bits: {:.1f} %)\n",
                     percent(f.sampled_equal, f.sampled), f.sampled, percent(r.sampled_equal, r.sampled));
    print_finding(out, f);
  }
  print_ranking(out, r);
  if (!r.next.empty()) fmt::format_to(std::back_inserter(out), "\nwhat would tell more\n");
  for (const std::string &n : r.next) fmt::format_to(std::back_inserter(out), "  {}\n", n);
}

} // namespace

std::string report_json(const Problem &p, const Report &r, bool trace) {
  const Comparison &c = r.comparison;
  Json j = {{"verdict", r.verdict},
            {"equal", c.equal()},
            {"m", p.m()},
            {"n", p.n()},
            {"k", p.a.raw.k},
            {"unit", p.unit->name()},
            {"evidence", to_string(p.unit->evidence)},
            {"type", format(p.word).name},
            {"rounded_to", format(p.round).name},
            {"alpha", r.alpha},
            {"outputs", c.total},
            {"differing", c.differing}};
  if (!c.equal()) {
    j["first"] = {{"i", c.first / p.n()},
                  {"j", c.first % p.n()},
                  {"got", hex(c.first_got, p.word)},
                  {"want", hex(c.first_want, p.word)},
                  {"got_value", value(p.word, c.first_got)},
                  {"want_value", value(p.word, c.first_want)}};
    if (trace) j["first"]["trace"] = r.reference_trace;
    j["rows_hit"] = c.rows_hit;
    j["cols_hit"] = c.cols_hit;
    j["max_ulp"] = c.max_ulp;
    j["mean_ulp"] = c.mean_ulp;
    j["max_relative"] = c.max_relative;
    j["distance"] = c.distance; // null: no finite pair
    j["finite_pairs"] = c.finite_pairs;
    j["zero_signs"] = c.zero_signs;
    j["nan"] = {{"got", c.nan_got}, {"missing", c.nan_missing}, {"other_words", c.nan_words}};
    j["infinities"] = c.infinities;
    for (int b = 0; b < Comparison::kBins; ++b)
      if (c.bins[size_t(b)] != 0) j["distribution"][bin_text(b)] = c.bins[size_t(b)];
    j["facts"] = Json::array();
    for (const Fact &f : r.facts) j["facts"].push_back(to_json(f));
    j["covered_by_facts"] = r.covered;
    if (!r.where.empty()) j["where"] = r.where;
    j["sampled"] = r.sampled;
    j["sampled_equal"] = r.sampled_equal;
    j["candidates"] = to_json(r.candidates);
    j["likely"] = to_json(r.likely);
    j["partial"] = to_json(r.partial);
    j["others"] = to_json(r.others);
    j["no_effect"] = r.no_effect;
    j["tried"] = r.tried;
    j["pairs_tried"] = r.pairs_tried;
    j["next"] = r.next;
  }
  return j.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string report_text(const Problem &p, const Report &r, bool trace) {
  std::string out;
  print_table(out, p, r, trace);
  return out;
}

} // namespace nvfp4::diagnosis
