// SPDX-License-Identifier: Apache-2.0
// Flattens JSON to paths and scalars, and compares those.
#include "nvfp4/golden/comparison/compare_json.hpp"

#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <algorithm>
#include <array>
#include <cmath>

namespace nvfp4::golden {
namespace {

using Json = nlohmann::ordered_json;
using Flat = std::map<std::string, Json>;

constexpr std::array<std::string_view, 1> kTimes = {"tokens_per_s"};

std::string dump(const Json &v) { return v.dump(-1, ' ', false, Json::error_handler_t::replace); }

Json parse(std::string_view text, const std::string &source, int64_t line) {
  return io::parse_json(text,
                        io::printable(source) + (line > 0 ? ": line " + std::to_string(line) : "") + ": ");
}

void flatten(const Json &v, const std::string &path, Flat &out) {
  if (v.is_object() && !v.empty())
    for (const auto &[key, item] : v.items()) flatten(item, path.empty() ? key : path + "." + key, out);
  else if (v.is_array() && !v.empty())
    for (size_t i = 0; i < v.size(); ++i) flatten(v[i], path + "[" + std::to_string(i) + "]", out);
  else
    out[path] = v;
}

Flat flat(const Json &v) {
  Flat out;
  flatten(v, "", out);
  return out;
}

/// different(key, a or null, b or null) for each key whose values are not the same; returns how many keys
/// there are.
template <class Different> int64_t each_difference(const Flat &a, const Flat &b, Different different) {
  int64_t keys = 0;
  auto i = a.begin();
  auto j = b.begin();
  while (i != a.end() || j != b.end()) {
    ++keys;
    const bool left = j == b.end() || (i != a.end() && i->first <= j->first),
               right = i == a.end() || (j != b.end() && j->first <= i->first);
    const Json *x = left ? &(i++)->second : nullptr, *y = right ? &(j++)->second : nullptr;
    // the texts too: 1 is not 1.0, 0.0 is not -0.0
    if (x != nullptr && y != nullptr && *x == *y && dump(*x) == dump(*y)) continue;
    different(left ? std::prev(i)->first : std::prev(j)->first, x, y);
  }
  return keys;
}

std::optional<std::string> text_of(const Json *v) {
  return v == nullptr ? std::nullopt : std::optional(dump(*v));
}

/// The key without the places of arrays, so that all elements of one array are one key.
std::string kind_of(std::string key) {
  for (size_t at; (at = key.find('[')) != std::string::npos;) key.erase(at, key.find(']', at) + 1 - at);
  return key;
}

void add(JsonComparison &c, int64_t line, const Json &a, const Json &b) {
  c.values += each_difference(flat(a), flat(b), [&](const std::string &key, const Json *x, const Json *y) {
    const std::string kind = kind_of(key);
    if (std::find(kTimes.begin(), kTimes.end(), kind) != kTimes.end()) {
      ++c.times;
      return;
    }
    if (c.differing++ == 0) c.first = {line, key, text_of(x), text_of(y)};
    KeyDifference &d = c.keys[kind];
    ++d.count;
    if (x == nullptr || y == nullptr || !x->is_number() || !y->is_number()) return;
    const double p = x->get<double>(), q = y->get<double>();
    if (q != 0) d.max_relative = std::max(d.max_relative, std::fabs(p - q) / std::fabs(q));
  });
}

/// The lines that hold something.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    if (text.find_first_not_of(" \t\r", 0) < end) lines.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

} // namespace

JsonComparison compare_json(std::string_view a_text, std::string_view b_text, bool lines,
                            const std::string &a, const std::string &b) {
  JsonComparison c;
  if (!lines) {
    c.a_lines = c.b_lines = 1;
    add(c, 0, parse(a_text, a, 0), parse(b_text, b, 0));
    return c;
  }
  const std::vector<std::string_view> x = lines_of(a_text), y = lines_of(b_text);
  c.a_lines = int64_t(x.size());
  c.b_lines = int64_t(y.size());
  for (size_t i = 0; i < std::min(x.size(), y.size()); ++i)
    add(c, int64_t(i) + 1, parse(x[i], a, int64_t(i) + 1), parse(y[i], b, int64_t(i) + 1));
  return c;
}

std::vector<ValueDifference> compare_metadata(const std::map<std::string, std::string> &a,
                                              const std::map<std::string, std::string> &b) {
  const auto open = [](const std::string &text) {
    if (!text.starts_with('{') && !text.starts_with('[')) return Json(text);
    return io::find_json(text).value_or(Json(text));
  };
  Flat x, y;
  for (const auto &[key, text] : a) flatten(open(text), key, x);
  for (const auto &[key, text] : b) flatten(open(text), key, y);
  std::vector<ValueDifference> list;
  each_difference(x, y, [&](const std::string &key, const Json *p, const Json *q) {
    list.push_back({0, key, text_of(p), text_of(q)});
  });
  return list;
}

} // namespace nvfp4::golden
