// SPDX-License-Identifier: Apache-2.0
// The shortest true description, from the plainest form to a count.
#include "nvfp4/golden/diagnosis/index_set.hpp"

namespace nvfp4::diagnosis {
namespace {

std::string span_text(std::pair<int64_t, int64_t> run) {
  return run.first == run.second ? std::to_string(run.first)
                                 : std::to_string(run.first) + " to " + std::to_string(run.second);
}

std::string ordinal(int64_t n) {
  const int64_t teen = n % 100;
  const char *end = teen >= 11 && teen <= 13 ? "th" : n % 10 == 1 ? "st" : n % 10 == 2 ? "nd" : n % 10 == 3 ? "rd" : "th";
  return std::to_string(n) + end;
}

} // namespace

Indices members(const std::vector<bool> &mask) {
  Indices set;
  for (size_t i = 0; i < mask.size(); ++i)
    if (mask[i]) set.push_back(int64_t(i));
  return set;
}

std::vector<std::pair<int64_t, int64_t>> runs_of(const Indices &set) {
  std::vector<std::pair<int64_t, int64_t>> runs;
  for (const int64_t i : set)
    if (!runs.empty() && runs.back().second + 1 == i)
      runs.back().second = i;
    else
      runs.emplace_back(i, i);
  return runs;
}

std::string describe(const Indices &set, int64_t n, std::string_view what) {
  const std::string one(what), many = one + "s";
  if (set.empty()) return "no " + one;
  if (int64_t(set.size()) == n && n > 1) return "all " + many;
  const auto runs = runs_of(set);
  if (runs.size() == 1) return (set.size() == 1 ? one : many) + " " + span_text(runs[0]);
  // equal runs at equal distances to the end; the last one may be cut short by it
  const int64_t length = runs[0].second - runs[0].first + 1, period = runs[1].first - runs[0].first;
  bool regular = runs.size() >= 3;
  for (size_t i = 0; regular && i < runs.size(); ++i) {
    const int64_t first = runs[0].first + int64_t(i) * period, last = first + length - 1;
    regular = runs[i].first == first && (runs[i].second == last || (i + 1 == runs.size() && runs[i].second == n - 1));
  }
  regular = regular && runs.back().first + period >= n && runs[0].first < period;
  if (regular && length == 1) return "every " + ordinal(period) + " " + one + " from " + std::to_string(runs[0].first);
  if (regular) return many + " " + span_text(runs[0]) + " of every " + std::to_string(period);
  if (runs.size() <= 4) {
    std::string text = many + " ";
    for (size_t i = 0; i < runs.size(); ++i)
      text += (i == 0 ? "" : i + 1 == runs.size() ? " and " : ", ") + span_text(runs[i]);
    return text;
  }
  return std::to_string(set.size()) + " " + many + " between " + std::to_string(set.front()) + " and " +
         std::to_string(set.back());
}

} // namespace nvfp4::diagnosis
