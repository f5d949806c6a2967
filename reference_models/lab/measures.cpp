// SPDX-License-Identifier: Apache-2.0
// Looking numbers up.
#include "nvfp4/reference_models/lab/measures.hpp"

#include <cmath>

namespace nvfp4::models {

const Measures::Values *Measures::find(std::string_view name) const {
  const auto at = values_.find(name);
  return at == values_.end() ? nullptr : &at->second;
}

Estimate Measures::estimate(std::string_view name) const {
  Values finite;
  if (const Values *const all = find(name))
    for (const double v : *all)
      if (std::isfinite(v)) finite.push_back(v);
  return models::estimate(finite);
}

Estimate Measures::difference(std::string_view a, std::string_view b) const {
  const Values *const x = find(a), *const y = find(b);
  Values differences;
  for (size_t i = 0; x && y && i < std::min(x->size(), y->size()); ++i)
    if (std::isfinite((*x)[i]) && std::isfinite((*y)[i])) differences.push_back((*x)[i] - (*y)[i]);
  return models::estimate(differences);
}

std::vector<std::string> Measures::between(std::string_view prefix, std::string_view suffix) const {
  std::vector<std::string> out;
  for (auto at = values_.lower_bound(prefix); at != values_.end() && at->first.starts_with(prefix); ++at) {
    const std::string_view name = at->first;
    if (name.size() >= prefix.size() + suffix.size() && name.ends_with(suffix))
      out.emplace_back(name.substr(prefix.size(), name.size() - prefix.size() - suffix.size()));
  }
  return out;
}

} // namespace nvfp4::models
