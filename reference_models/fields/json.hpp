// SPDX-License-Identifier: Apache-2.0
// Fields as JSON: a field takes the type it has, nothing that would be cut, and nothing outside its bounds.
#pragma once
#include "nvfp4/emulator/formats/format.hpp"
#include "nvfp4/emulator/names.hpp"
#include "nvfp4/golden/io/message.hpp"
#include "nvfp4/reference_models/fields/field.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <type_traits>
#include <utility>
#include <vector>

namespace nvfp4::models {

/// The formats that a FormatId among the fields may be: those of tensors outside of products.
inline constexpr FormatId kTensorFormats[] = {FormatId::bf16, FormatId::f32};

/// The names of an enumeration's values: "a, b, c"; empty for other types.
template <class T> [[nodiscard]] std::string value_names() {
  std::string names;
  const auto add = [&](std::string_view name) { names.append(names.empty() ? "" : ", ").append(name); };
  if constexpr (std::is_same_v<T, FormatId>)
    for (const FormatId id : kTensorFormats) add(format(id).name);
  else if constexpr (NamedEnum<T>)
    for (const T value : enumerators<T>()) add(to_string(value));
  return names;
}

/// "true or false", "a whole number of at least 1", ...: what a field takes.
template <class T> [[nodiscard]] std::string type_text(const Bounds &bounds) {
  if constexpr (std::is_enum_v<T>) {
    return "one of " + value_names<T>();
  } else if constexpr (std::is_same_v<T, bool>) {
    return "true or false";
  } else if constexpr (std::is_same_v<T, std::string>) {
    return "a text";
  } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    return "a list of texts";
  } else if constexpr (std::is_same_v<T, std::vector<int64_t>>) {
    return "a list of whole numbers";
  } else if constexpr (std::is_floating_point_v<T>) {
    return "a number" + bounds.text();
  } else {
    return "a whole number" + (std::is_unsigned_v<T> && bounds == Bounds{} ? at_least(0) : bounds).text();
  }
}

/// A field's value as JSON.
template <class T> [[nodiscard]] nlohmann::ordered_json value_to_json(const T &value) {
  if constexpr (std::is_same_v<T, FormatId>)
    return format(value).name;
  else if constexpr (std::is_enum_v<T>)
    return to_string(value);
  else
    return value;
}

/// Sets `out`, unless the value is of another type or out of bounds: then false.
template <class T>
[[nodiscard]] bool take_value(T &out, const nlohmann::ordered_json &value, const Bounds &bounds = {}) {
  using Json = nlohmann::ordered_json;
  if constexpr (std::is_same_v<T, FormatId>) {
    for (const FormatId id : kTensorFormats)
      if (value.is_string() && value.get_ref<const std::string &>() == format(id).name) {
        out = id;
        return true;
      }
    return false;
  } else if constexpr (std::is_enum_v<T>) {
    const auto found = value.is_string() ? find_enum<T>(value.get_ref<const std::string &>()) : std::nullopt;
    if (found) out = *found;
    return found.has_value();
  } else if constexpr (std::is_same_v<T, bool>) {
    if (!value.is_boolean()) return false;
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!value.is_string()) return false;
  } else if constexpr (std::is_same_v<T, std::vector<std::string>>) {
    const auto is_text = [](const Json &item) { return item.is_string(); };
    if (!value.is_array() || value.empty() || !std::all_of(value.begin(), value.end(), is_text)) return false;
  } else if constexpr (std::is_same_v<T, std::vector<int64_t>>) {
    const auto is_count = [](const Json &item) { return item.is_number_integer(); };
    if (!value.is_array() || !std::all_of(value.begin(), value.end(), is_count)) return false;
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
  if constexpr (!std::is_enum_v<T>) {
    out = value.get<T>();
    return true;
  }
}

/// A value for a message: JSON on one line, cut.
[[nodiscard]] std::string shown(const nlohmann::ordered_json &value);

/// All fields of a list, in its order; those marked `optional` only where they are not as in Owner().
template <class Owner, class List>
[[nodiscard]] nlohmann::ordered_json fields_to_json(const List &list, const Owner &owner,
                                                    unsigned optional = 0) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  const Owner defaults{};
  each_field(list, [&](const auto &f) {
    if ((f.marks & optional) == 0 || !(owner.*f.member == defaults.*f.member))
      json[f.name] = value_to_json(owner.*f.member);
  });
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

/// Sets the fields that an object has. Errors, which start with `where`: no object; a key of `required` that
/// is not there; a key that is neither a field's nor in `others`, which the caller reads.
template <class Owner, class List>
void read_fields(const List &list, Owner &owner, const nlohmann::ordered_json &object,
                 const std::string &where, const std::vector<std::string> &required = {},
                 const std::vector<std::string> &others = {}) {
  if (!object.is_object()) throw Error(where + "expected an object, got " + shown(object));
  for (const std::string &key : required)
    if (!object.contains(key)) throw Error(where + "expected the key '" + key + "'");
  for (const auto &[key, value] : object.items()) {
    if (std::find(others.begin(), others.end(), key) != others.end()) continue;
    if (set_field(list, owner, key, value, where)) continue;
    std::string names = field_names(list, kEveryField);
    for (const std::string &other : others) names.append(names.empty() ? "" : ", ").append(other);
    throw Error(where + "unknown key " + io::in_quotes(key) + "; expected " + names);
  }
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
