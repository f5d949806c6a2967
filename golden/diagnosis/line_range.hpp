// SPDX-License-Identifier: Apache-2.0
// What the outputs of a row or column allow a number behind them to be, a factor or an addend, all together.
// Internal.
#pragma once
#include "nvfp4/golden/diagnosis/problem.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::diagnosis {

struct Range {
  double low = -INFINITY, high = INFINITY;
  int64_t outputs = 0; ///< that say something

  [[nodiscard]] bool empty() const { return !(low <= high); }
  [[nodiscard]] Range with(const Range &o) const {
    return {std::max(low, o.low), std::min(high, o.high), outputs + o.outputs};
  }
};

/// Calls visit(i, j, row-major index) for the outputs of row or column `line` of D that `skip` does not hold,
/// as long as it returns true.
template <class Visit>
void for_line(const Problem &p, const std::vector<bool> &skip, bool rows, int64_t line, Visit visit) {
  for (int64_t y = 0; y < (rows ? p.n() : p.m()); ++y) {
    const int64_t i = rows ? line : y, j = rows ? y : line, at = i * p.n() + j;
    if (!skip[size_t(at)] && !visit(i, j, at)) return;
  }
}

/// The ranges that one(i, j, index) gives, met over a line; left early once they exclude each other.
template <class One>
Range line_range(const Problem &p, const std::vector<bool> &skip, bool rows, int64_t line, One one) {
  Range all;
  for_line(p, skip, rows, line, [&](int64_t i, int64_t j, int64_t at) {
    all = all.with(one(i, j, at));
    return !all.empty();
  });
  return all;
}

} // namespace nvfp4::diagnosis
