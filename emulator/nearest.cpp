// SPDX-License-Identifier: Apache-2.0
// Optimal string alignment over names in one spelling.
#include "nvfp4/emulator/nearest.hpp"

#include <algorithm>
#include <utility>

namespace nvfp4 {

std::string plain_name(std::string_view name) {
  std::string s;
  for (const char c : name.substr(0, 80)) {
    if (c == ' ' || c == '-' || c == '_') continue;
    s += c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c;
  }
  return s;
}

size_t name_distance(std::string_view left, std::string_view right) {
  const std::string a = plain_name(left), b = plain_name(right);
  std::vector<size_t> before(b.size() + 1), row(b.size() + 1), next(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    next[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      next[j] = std::min({row[j] + 1, next[j - 1] + 1, row[j - 1] + (a[i - 1] != b[j - 1] ? 1 : 0)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        next[j] = std::min(next[j], before[j - 2] + 1);
    }
    std::swap(before, row);
    std::swap(row, next);
  }
  return row[b.size()];
}

std::vector<std::string> nearest_names(std::string_view name, std::span<const std::string> candidates,
                                       size_t most) {
  std::vector<std::pair<size_t, const std::string *>> near;
  const std::string wanted = plain_name(name);
  for (const std::string &c : candidates) {
    const std::string other = plain_name(c);
    const size_t distance = name_distance(name, c), longer = std::max(wanted.size(), other.size());
    // of "mxpf8" for "mxfp8-e4m3"
    const bool near_beginning = wanted.size() >= 4 && name_distance(wanted, other.substr(0, wanted.size())) <= 1;
    const bool begins =
        wanted.size() >= 2 && other.size() >= 2 && (other.starts_with(wanted) || wanted.starts_with(other));
    if (begins || near_beginning || distance <= std::max<size_t>(1, longer / 3)) near.emplace_back(distance, &c);
  }
  std::stable_sort(near.begin(), near.end(), [](const auto &x, const auto &y) { return x.first < y.first; });
  std::vector<std::string> names;
  for (const auto &[distance, c] : near)
    if (names.size() < most && std::find(names.begin(), names.end(), *c) == names.end()) names.push_back(*c);
  return names;
}

std::string suggestion(std::string_view name, std::span<const std::string> candidates, size_t most) {
  const std::vector<std::string> near = nearest_names(name, candidates, most);
  std::string s;
  for (size_t i = 0; i < near.size(); ++i)
    s += std::string(i == 0 ? " (did you mean " : i + 1 == near.size() ? " or " : ", ") + "'" + near[i] + "'";
  return s.empty() ? s : s + "?)";
}

} // namespace nvfp4
