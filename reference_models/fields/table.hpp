// SPDX-License-Identifier: Apache-2.0
// A list of fields as a table of the documentation, in Markdown; tests hold the READMEs against it.
#pragma once
#include "nvfp4/reference_models/fields/json.hpp"

namespace nvfp4::models {

/// | key | option | default | meaning |, a line a field; without the column of options for structs that the
/// command line does not set field by field.
template <class Owner, class List>
[[nodiscard]] std::string field_table(const List &list, const Owner &defaults, bool options) {
  std::string table = options ? "| key | option | default | meaning |\n|---|---|---|---|\n"
                              : "| key | default | meaning |\n|---|---|---|\n";
  each_field(list, [&](const auto &f) {
    using T = std::remove_cvref_t<decltype(defaults.*f.member)>;
    std::string value = value_to_json(defaults.*f.member).dump();
    if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>)
      if (!f.bounds.has(double(defaults.*f.member))) value = R"("")"; // a default that cannot be given
    table += std::string("| `") + f.name + "` |" + (options ? " `" + f.option() + "` |" : "") +
             (value == "\"\"" ? " |" : " `" + value + "` |") + " " + value_names<T>() + f.description();
    if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>)
      if (f.bounds != Bounds{}) table += " (" + type_text<T>(f.bounds) + ")";
    table += " |\n";
  });
  return table;
}

} // namespace nvfp4::models
