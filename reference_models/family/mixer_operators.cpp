// SPDX-License-Identifier: Apache-2.0
// What is asked of the list of operators inside mixers.
#include "nvfp4/reference_models/family/mixer_operators.hpp"

#include <algorithm>

namespace nvfp4::models {

const MixerOperator *mixer_operator_or_null(std::string_view role) {
  const auto *const at = std::find_if(std::begin(kMixerOperators), std::end(kMixerOperators),
                                      [&](const MixerOperator &o) { return o.role == role; });
  return at == std::end(kMixerOperators) ? nullptr : at;
}

std::vector<std::string> mixer_operator_roles(const ModelFamily &family) {
  std::vector<std::string> roles;
  for (const MixerOperator &o : kMixerOperators)
    if (o.mixer == family.mixer) roles.emplace_back(o.role);
  return roles;
}

const MixerOperator &mixer_operator(MixerKind mixer, std::string_view role) {
  return *std::find_if(std::begin(kMixerOperators), std::end(kMixerOperators),
                       [&](const MixerOperator &o) { return o.mixer == mixer && o.role == role; });
}

std::string mixer_operator_table() {
  std::string table = "| role | families | number | x | w | y | fprop, dgrad, wgrad contract |\n"
                      "|---|---|---|---|---|---|---|\n";
  for (const MixerOperator &o : kMixerOperators) {
    std::string names;
    for (const ModelFamily *f : families())
      if (f->mixer == o.mixer) names.append(names.empty() ? "" : ", ").append(f->name);
    table += "| `" + std::string(o.role) + "` | " + names + " | " + std::to_string(o.number);
    for (const std::string_view part : {o.x, o.w, o.y, o.contractions}) table += " | " + std::string(part);
    table += " |\n";
  }
  return table;
}

} // namespace nvfp4::models
