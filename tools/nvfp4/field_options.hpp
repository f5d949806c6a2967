// SPDX-License-Identifier: Apache-2.0
// Command-line options from a list of fields: flag, help and default of each.
#pragma once
#include "nvfp4/reference_models/fields/field.hpp"
#include "tools/nvfp4/command.hpp"

namespace nvfp4::tool {

/// Adds the fields for which pick(field) holds, bound to `owner`; added(field, option) is called for each.
template <class Owner, class List, class Pick, class Added>
void add_fields(Command &verb, const List &list, Owner &owner, Pick &&pick, Added &&added) {
  models::each_field(list, [&](const auto &f) {
    if (!pick(f)) return;
    auto &member = owner.*f.member;
    if constexpr (std::is_same_v<std::remove_reference_t<decltype(member)>, bool>)
      added(f, verb.add_flag(f.option(), member, f.description()));
    else
      added(f, verb.add_option(f.option(), member, f.description())->capture_default_str());
  });
}

} // namespace nvfp4::tool
