// SPDX-License-Identifier: Apache-2.0
// Fields as JSON: a field takes the type it has, nothing that would be cut, and nothing outside its bounds.
#pragma once
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/reference_models/fields/field.hpp"

#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>

namespace nvfp4::models {

/// "true or false", "a whole number of at least 1", ...: what a field takes.
template <class T> [[nodiscard]] std::string type_text(const Bounds &bounds) {
  if constexpr (std::is_same_v<T, bool>) {
    return "true or false";
  } else if constexpr (std::is_same_v<T, std::string>) {
    return "a text";
  } else if constexpr (std::is_floating_point_v<T>) {
    return "a number" + bounds.text();
  } else {
    return "a whole number" + (std::is_unsigned_v<T> && bounds == Bounds{} ? at_least(0) : bounds).text();
  }
}

/// Sets `out`, unless the value is of another type or out of bounds: then false.
template <class T>
[[nodiscard]] bool take_value(T &out, const nlohmann::ordered_json &value, const Bounds &bounds = {}) {
  if constexpr (std::is_same_v<T, bool>) {
    if (!value.is_boolean()) return false;
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!value.is_string()) return false;
  } else {
    if constexpr (std::is_floating_point_v<T>) {
      if (!value.is_number()) return false;
    } else {
      if (!value.is_number_integer()) return false;
      if (value.is_number_unsigned() ? !std::in_range<T>(value.get<uint64_t>())
                                     : !std::in_range<T>(value.get<int64_t>()))
        return false;
    }
    if (!bounds.has(value.get<double>())) return false;
  }
  out = value.get<T>();
  return true;
}

/// A value for a message: JSON on one line, cut.
[[nodiscard]] std::string shown(const nlohmann::ordered_json &value);

/// All fields of a list, in its order.
template <class Owner, class List>
[[nodiscard]] nlohmann::ordered_json fields_to_json(const List &list, const Owner &owner) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  each_field(list, [&](const auto &f) { json[f.name] = owner.*f.member; });
  return json;
}

/// Sets the field `key`; false if the list has none of that name. A wrong type or a number out of bounds is
/// an Error that starts with `where` and ends with `advice`.
template <class Owner, class List>
bool set_field(const List &list, Owner &owner, std::string_view key, const nlohmann::ordered_json &value,
               const std::string &where, const std::string &advice = {}) {
  bool found = false;
  each_field(list, [&](const auto &f) {
    if (key != f.name) return;
    found = true;
    if (!take_value(owner.*f.member, value, f.bounds))
      throw Error(where + "'" + f.name + "' takes " +
                  type_text<std::remove_reference_t<decltype(owner.*f.member)>>(f.bounds) + ", got " +
                  shown(value) + advice);
  });
  return found;
}

/// "a, b, c": the keys of a list for which pick(field) holds.
template <class List, class Pick> [[nodiscard]] std::string field_names(const List &list, Pick &&pick) {
  std::string names;
  each_field(list, [&](const auto &f) {
    if (pick(f)) names.append(names.empty() ? "" : ", ").append(f.name);
  });
  return names;
}

/// Throws Error for the first number that is outside its bounds, naming the field as the command line does.
template <class Owner, class List> void check_bounds(const List &list, const Owner &owner) {
  each_field(list, [&](const auto &f) {
    using T = std::remove_cvref_t<decltype(owner.*f.member)>;
    if constexpr (std::is_arithmetic_v<T> && !std::is_same_v<T, bool>)
      if (!f.bounds.has(double(owner.*f.member)))
        throw Error("expected for " + f.option() + " " + type_text<T>(f.bounds) + ", got " +
                    nlohmann::ordered_json(owner.*f.member).dump());
  });
}

} // namespace nvfp4::models
