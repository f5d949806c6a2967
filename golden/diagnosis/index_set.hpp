// SPDX-License-Identifier: Apache-2.0
// Sets of rows or columns in words: "rows 8 to 15", "every 2nd column from 1", "rows 0 to 7 of every 16".
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nvfp4::diagnosis {

/// Ascending, without repetition.
using Indices = std::vector<int64_t>;

/// The indices at which a mask is set.
[[nodiscard]] Indices members(const std::vector<bool> &mask);

/// Runs of neighbours, [first, last] each.
[[nodiscard]] std::vector<std::pair<int64_t, int64_t>> runs_of(const Indices &set);

/// The set of `what` ("row") among n of them. An empty set is "no row".
[[nodiscard]] std::string describe(const Indices &set, int64_t n, std::string_view what);

} // namespace nvfp4::diagnosis
