// SPDX-License-Identifier: Apache-2.0
// What a misspelt name may have meant: the nearest of the names that there are, for messages.
#pragma once
#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace nvfp4 {

/// A name as it is compared: at most 80 characters of it, in lower case, without blanks, '-' and '_'.
[[nodiscard]] std::string plain_name(std::string_view name);

/// Insertions, deletions, substitutions and exchanges of neighbours between two plain names.
[[nodiscard]] size_t name_distance(std::string_view a, std::string_view b);

/// At most `most` of the candidates, the nearest first, in their order where equally near. Those that share
/// little with the name (a distance above a third of the longer one, at least 1) are left out, unless one
/// begins with the other, or nearly so.
[[nodiscard]] std::vector<std::string>
nearest_names(std::string_view name, std::span<const std::string> candidates, size_t most = 3);

/// " (did you mean 'te' or 'te213'?)" for a message; empty where no candidate is near.
[[nodiscard]] std::string suggestion(std::string_view name, std::span<const std::string> candidates,
                                     size_t most = 3);

/// The same for rows of a table, with name_of(row) a candidate.
template <class Rows, class NameOf>
[[nodiscard]] std::string suggestion_among(std::string_view name, const Rows &rows, NameOf name_of) {
  std::vector<std::string> names;
  for (const auto &row : rows) names.emplace_back(name_of(row));
  return suggestion(name, names);
}

} // namespace nvfp4
