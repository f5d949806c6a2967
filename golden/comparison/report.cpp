// SPDX-License-Identifier: Apache-2.0
// A comparison as one sentence and as JSON.
#include "nvfp4/golden/comparison/compare_files.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace nvfp4::golden {
namespace {

using Json = nlohmann::ordered_json;

std::string count(int64_t n, const char *what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

std::string text(double v) {
  char buffer[40];
  std::snprintf(buffer, sizeof buffer, "%.9g", v);
  return buffer;
}

std::string place(const PartComparison &p) {
  const std::vector<int64_t> index = p.index(p.words.first);
  if (index.size() == 2) return "row " + std::to_string(index[0]) + ", column " + std::to_string(index[1]);
  return "index " + io::shape_text(index);
}

std::string hex(uint64_t word) {
  char buffer[24];
  std::snprintf(buffer, sizeof buffer, "0x%llx", static_cast<unsigned long long>(word));
  return buffer;
}

/// Both values of the first difference; words too where the values read alike, as those of NaN do.
std::string values(const PartComparison &p) {
  const std::string a = text(p.first_a), b = text(p.first_b);
  if (!p.measured || a == b)
    return hex(p.words.first_got) + " against " + hex(p.words.first_want) + (p.measured ? ", both " + a : "");
  return a + " against " + b;
}

std::string first_of(const PartComparison &p) {
  const std::string in = p.name.empty() ? "" : " of " + io::in_quotes(p.name);
  if (!p.unlike.empty()) return io::in_quotes(p.name) + ": " + p.unlike;
  if (p.words.equal())
    return io::in_quotes(p.name) + ": the same values as " + p.a_type + " and as " + p.b_type;
  return "first at " + place(p) + in + ": " + values(p);
}

std::string names(const std::vector<std::string> &list) {
  std::string s;
  for (size_t i = 0; i < std::min<size_t>(list.size(), 3); ++i)
    s += (i == 0 ? "" : ", ") + io::in_quotes(list[i]);
  return s + (list.size() > 3 ? ", ..." : "");
}

std::string nan_note(int64_t n) {
  return n == 0 ? "" : ", " + std::to_string(n) + " NaN among them, with the same bits on both sides";
}

std::string difference_of(const JsonComparison &j) {
  std::string s;
  if (j.differing != 0) {
    const ValueDifference &f = *j.first;
    s = std::to_string(j.differing) + " of " + count(j.values, "value") + ", first " +
        (f.line > 0 ? "in line " + std::to_string(f.line) + ", " : "") + io::in_quotes(f.key) + ": " +
        io::printable(f.a.value_or("nothing"), 60) + " against " + io::printable(f.b.value_or("nothing"), 60);
  }
  if (j.a_lines != j.b_lines)
    s += (s.empty() ? "" : "; ") + count(j.a_lines, "line") + " against " + std::to_string(j.b_lines);
  return s;
}

Json number(double v) { return std::isfinite(v) ? Json(v) : Json(); }

Json to_object(const PartComparison &p) {
  const diagnosis::Comparison &w = p.words;
  Json j = {{"name", p.name},     {"equal", p.equal()},   {"a_type", p.a_type},
            {"b_type", p.b_type}, {"a_shape", p.a_shape}, {"b_shape", p.b_shape}};
  if (!p.unlike.empty()) {
    j["unlike"] = p.unlike;
    return j;
  }
  j.update(Json{{"by_value", p.by_value},
                {"total", w.total},
                {"differing", w.differing},
                {"rows_hit", w.rows_hit},
                {"columns_hit", w.cols_hit},
                {"nan_same", w.nan_same},
                {"nan_other_bits", w.nan_words},
                {"nan_only_a", w.nan_got},
                {"nan_only_b", w.nan_missing},
                {"infinities", w.infinities},
                {"zero_signs", w.zero_signs}});
  if (w.first >= 0)
    j["first"] = {{"index", p.index(w.first)}, {"a_word", w.first_got}, {"b_word", w.first_want}};
  if (!p.measured) return j;
  if (w.first >= 0) {
    j["first"]["a"] = number(p.first_a);
    j["first"]["b"] = number(p.first_b);
  }
  if (!p.by_value) j["max_ulp"] = w.max_ulp;
  j["max_relative"] = number(w.max_relative);
  j["distance"] = number(w.distance);
  return j;
}

Json to_object(const ValueDifference &d) {
  const auto side = [](const std::optional<std::string> &v) {
    return v ? Json::parse(*v, nullptr, false) : Json();
  };
  Json j = {{"key", d.key}, {"a", side(d.a)}, {"b", side(d.b)}};
  if (d.line > 0) j["line"] = d.line;
  return j;
}

Json to_object(const JsonComparison &c) {
  Json j = {{"a_lines", c.a_lines},
            {"b_lines", c.b_lines},
            {"values", c.values},
            {"differing", c.differing},
            {"times", c.times}};
  if (c.first) j["first"] = to_object(*c.first);
  j["keys"] = Json::object();
  for (const auto &[key, d] : c.keys)
    j["keys"][key] = {{"count", d.count}, {"max_relative", number(d.max_relative)}};
  return j;
}

Json to_object(const FileComparison &c) {
  Json j = {{"equal", c.equal()}, {"verdict", verdict_of(c)}, {"a", c.a}, {"b", c.b}};
  if (c.json) j["json"] = to_object(*c.json);
  if (c.files.empty()) {
    j["tensors"] = Json::array();
    for (const PartComparison &p : c.parts) j["tensors"].push_back(to_object(p));
    j["metadata"] = Json::array();
    for (const ValueDifference &d : c.metadata) j["metadata"].push_back(to_object(d));
  } else {
    j["files"] = Json::array();
    for (const FileComparison &f : c.files) j["files"].push_back(to_object(f));
  }
  j["only_a"] = c.only_a;
  j["only_b"] = c.only_b;
  return j;
}

} // namespace

std::string verdict_of(const FileComparison &c) {
  const auto alone = [&] {
    std::string s;
    if (!c.only_a.empty()) s += "; only the first has " + names(c.only_a);
    if (!c.only_b.empty()) s += "; only the second has " + names(c.only_b);
    return s;
  };
  if (!c.files.empty() || c.parts.empty()) {
    if (c.json && c.json->equal())
      return "equal: all " + count(c.json->values - c.json->times, "value") +
             (c.json->a_lines > 1 ? " of " + count(c.json->a_lines, "line") : "");
    if (c.json) return "differ: " + difference_of(*c.json);
    int64_t wrong = 0;
    const FileComparison *first = nullptr;
    for (const FileComparison &f : c.files) {
      if (f.equal()) continue;
      ++wrong;
      if (first == nullptr) first = &f;
    }
    const int64_t all = int64_t(c.files.size());
    if (c.equal())
      return c.files.empty() ? "equal: no tensor on either side"
                             : "equal: all " + count(all, "file") + nan_note(c.nan_same());
    std::string s = "differ: " + std::to_string(wrong) + " of " + count(all, "file");
    if (first != nullptr)
      s += "; " + io::printable(first->a.substr(first->a.rfind('/') + 1)) + " " + verdict_of(*first);
    return s + alone();
  }
  int64_t elements = 0, differing = 0, wrong = 0;
  const PartComparison *first = nullptr;
  for (const PartComparison &p : c.parts) {
    elements += p.words.total;
    differing += p.words.differing;
    if (p.equal()) continue;
    ++wrong;
    if (first == nullptr || (first->words.first < 0 && p.words.first >= 0)) first = &p;
  }
  const int64_t all = int64_t(c.parts.size());
  if (c.equal())
    return "equal: all " + count(elements, "element") + (all > 1 ? " of " + count(all, "tensor") : "") +
           nan_note(c.nan_same());
  std::string s = "differ: ";
  if (all > 1) s += std::to_string(wrong) + " of " + count(all, "tensor") + (differing > 0 ? ", " : "");
  if (differing > 0) s += std::to_string(differing) + " of " + count(elements, "element");
  if (first != nullptr) s += (all > 1 || differing > 0 ? "; " : "") + first_of(*first);
  return s + alone();
}

std::string to_json(const FileComparison &c) {
  return to_object(c).dump(-1, ' ', false, Json::error_handler_t::replace);
}

} // namespace nvfp4::golden
