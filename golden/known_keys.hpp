// SPDX-License-Identifier: Apache-2.0
// Refuses a JSON object with a key that nobody reads: a misspelt option must not pass for one that was left
// out. Internal.
#pragma once
#include "nvfp4/emulator/config.hpp"

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace nvfp4::golden {

/// Throws Error naming `where` and the key.
template <class Json>
void check_known_keys(const Json &object, std::initializer_list<std::string_view> known,
                      const std::string &where) {
  for (const auto &item : object.items()) {
    if (std::find(known.begin(), known.end(), item.key()) != known.end()) continue;
    std::string names;
    for (const std::string_view name : known) names.append(names.empty() ? "" : ", ").append(name);
    throw Error(where + ": unknown key '" + item.key().substr(0, 40) + "'; known are " + names);
  }
}

} // namespace nvfp4::golden
