// SPDX-License-Identifier: Apache-2.0
// Names of enumerators: written once, beside the enumerators; printing, parsing and lists follow. Under an enumeration
// whose values count from 0, in its namespace, write the names in the enumerators' order:
//
//   enum class Evidence : uint8_t { hardware, published, inferred };
//   [[nodiscard]] constexpr auto names_of(Evidence) { return enum_names("evidence", "hardware", "published", "inferred"); }
//   static_assert(names_of(Evidence{}).end_with(Evidence::inferred));
//
// Then to_string(Evidence::published) is "published", parse_enum<Evidence>("published") the enumerator, and
// enumerators<Evidence>() all of them. The assertion fails when an enumerator is added without a name.
#pragma once
#include "nvfp4/emulator/config.hpp"

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace nvfp4 {

/// What an enumeration is called in messages, and the names of its enumerators in order.
template <size_t n> struct EnumNames {
  std::string_view what;
  std::array<std::string_view, n> names;

  [[nodiscard]] constexpr bool end_with(auto last) const { return size_t(last) + 1 == n; }
};

template <class... Names> [[nodiscard]] constexpr EnumNames<sizeof...(Names)> enum_names(std::string_view what, Names... names) {
  return {what, {std::string_view(names)...}};
}

template <class E>
concept NamedEnum = requires(E e) { names_of(e).names; };

/// The name of an enumerator, empty for a value that has none.
template <NamedEnum E> [[nodiscard]] constexpr std::string_view to_string(E e) {
  constexpr auto table = names_of(E{});
  return size_t(e) < table.names.size() ? table.names[size_t(e)] : std::string_view();
}

/// All enumerators in order.
template <NamedEnum E> [[nodiscard]] constexpr auto enumerators() {
  std::array<E, names_of(E{}).names.size()> all{};
  for (size_t i = 0; i < all.size(); ++i) all[i] = E(i);
  return all;
}

/// The enumerator of a name, or nothing.
template <NamedEnum E> [[nodiscard]] constexpr std::optional<E> find_enum(std::string_view name) {
  for (const E e : enumerators<E>())
    if (to_string(e) == name) return e;
  return std::nullopt;
}

/// "a, b or c": the names for help and messages.
template <NamedEnum E> [[nodiscard]] std::string name_list() {
  constexpr auto table = names_of(E{});
  std::string list;
  for (size_t i = 0; i < table.names.size(); ++i)
    list += std::string(i == 0 ? "" : i + 1 == table.names.size() ? " or " : ", ") + std::string(table.names[i]);
  return list;
}

/// The enumerator of a name; throws Error with the names that exist.
template <NamedEnum E> [[nodiscard]] E parse_enum(std::string_view name) {
  if (const std::optional<E> e = find_enum<E>(name)) return *e;
  throw Error("unknown " + std::string(names_of(E{}).what) + " '" + std::string(name) + "'; choose " + name_list<E>());
}

} // namespace nvfp4
