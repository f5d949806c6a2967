// SPDX-License-Identifier: Apache-2.0
// A struct of options as one list of its fields: key, member, what it is for, and what it may be. Reading and
// writing JSON (fields/json.hpp), checking ranges, command lines, help and tables in the documentation follow
// from the list:
//
//   inline constexpr auto kOptionFields = std::tuple{
//       field("steps", &Options::steps, "Optimizer steps", at_least(1)),
//       field("clip", &Options::clip, "Largest gradient norm; 0: off", at_least(0))};
//
//   each_field(kOptionFields, [&](const auto &f) { json[f.name] = options.*f.member; });
#pragma once
#include <limits>
#include <string>
#include <string_view>
#include <tuple>

namespace nvfp4::models {

/// What a number may be: always finite.
struct Bounds {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  bool open_low = false, open_high = false; ///< the bound itself is excluded

  [[nodiscard]] constexpr bool has(double x) const {
    return x >= std::numeric_limits<double>::lowest() && x <= std::numeric_limits<double>::max() &&
           (open_low ? x > low : x >= low) && (open_high ? x < high : x <= high);
  }
  /// " of at least 1", " from 0 to 2^20", " above 0"; empty for all numbers.
  [[nodiscard]] std::string text() const;
  bool operator==(const Bounds &) const = default;
};

constexpr Bounds at_least(double low) { return {.low = low}; }
constexpr Bounds above(double low) { return {.low = low, .open_low = true}; }
constexpr Bounds from_to(double low, double high) { return {.low = low, .high = high}; }
/// low to high, without high.
constexpr Bounds from_below(double low, double high) { return {.low = low, .high = high, .open_high = true}; }
constexpr Bounds between(double low, double high) {
  return {.low = low, .high = high, .open_low = true, .open_high = true};
}

template <class Owner, class T> struct Field {
  const char *name; ///< key in JSON
  T Owner::*member;
  const char *help;                   ///< one line, without a full stop
  Bounds bounds = {};                 ///< of numbers
  unsigned marks = 0;                 ///< what else the owner of the list says of a field, as bits
  const char *flag = nullptr;         ///< on a command line; null: --name, with hyphens
  std::string (*listing)() = nullptr; ///< of the values that a text may have, put before `help`

  [[nodiscard]] constexpr Field marked(unsigned bits) const {
    return {name, member, help, bounds, bits, flag, listing};
  }
  [[nodiscard]] constexpr Field as(const char *command_line) const {
    return {name, member, help, bounds, marks, command_line, listing};
  }
  [[nodiscard]] constexpr Field of(std::string (*values)()) const {
    return {name, member, help, bounds, marks, flag, values};
  }
  [[nodiscard]] std::string option() const {
    if (flag != nullptr) return flag;
    std::string text = "--";
    for (const char *c = name; *c != '\0'; ++c) text += *c == '_' ? '-' : *c;
    return text;
  }
  [[nodiscard]] std::string description() const { return listing != nullptr ? listing() + help : help; }
};

template <class Owner, class T>
constexpr Field<Owner, T> field(const char *name, T Owner::*member, const char *help, Bounds bounds = {}) {
  return {.name = name, .member = member, .help = help, .bounds = bounds};
}
/// For field_names() and the like.
inline constexpr auto kEveryField = [](const auto &) { return true; };

/// Calls visit(field) for each field of a list, in its order.
template <class List, class Visit> constexpr void each_field(const List &list, Visit &&visit) {
  std::apply([&](const auto &...f) { (visit(f), ...); }, list);
}

} // namespace nvfp4::models
