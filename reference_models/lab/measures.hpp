// SPDX-License-Identifier: Apache-2.0
// What the lab measured: numbers by name, each with one value per draw of the data (a batch, a seed), so that differences
// pair and have intervals. README.md lists the names.
#pragma once
#include "nvfp4/reference_models/report/statistics.hpp"

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace nvfp4::models {

class Measures {
public:
  using Values = std::vector<double>;

  /// Appends the value of the next draw.
  void add(const std::string &name, double value) { values_[name].push_back(value); }
  /// Takes all of `other`, whose names are others.
  void merge(const Measures &other) { values_.insert(other.values_.begin(), other.values_.end()); }

  /// nullptr where nothing of that name was measured.
  [[nodiscard]] const Values *find(std::string_view name) const;
  /// Over the values that are numbers; n = 0 where there are none.
  [[nodiscard]] Estimate estimate(std::string_view name) const;
  /// The mean, NaN where there is none.
  [[nodiscard]] double mean(std::string_view name) const { return estimate(name).mean; }
  /// Draw by draw a - b, where both are numbers.
  [[nodiscard]] Estimate difference(std::string_view a, std::string_view b) const;
  /// What stands between `prefix` and `suffix` in the names that have both, in their order.
  [[nodiscard]] std::vector<std::string> between(std::string_view prefix, std::string_view suffix) const;
  [[nodiscard]] const std::map<std::string, Values, std::less<>> &all() const { return values_; }

private:
  std::map<std::string, Values, std::less<>> values_;
};

} // namespace nvfp4::models
