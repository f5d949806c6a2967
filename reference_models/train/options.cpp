// SPDX-License-Identifier: Apache-2.0
// JSON types against C++ types: a field takes the type it has, and nothing that would be cut.
#include "nvfp4/reference_models/train/options.hpp"

#include "nvfp4/emulator/config.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <cmath>
#include <type_traits>
#include <utility>

namespace nvfp4::models {
namespace {

using Json = nlohmann::ordered_json;

template <class T> bool assign(T &field, const Json &value) {
  if constexpr (std::is_same_v<T, bool>) {
    if (!value.is_boolean()) return false;
  } else if constexpr (std::is_same_v<T, std::string>) {
    if (!value.is_string()) return false;
  } else if constexpr (std::is_floating_point_v<T>) {
    if (!value.is_number()) return false;
  } else {
    if (!value.is_number_integer()) return false;
    if (value.is_number_unsigned() ? !std::in_range<T>(value.get<uint64_t>())
                                   : !std::in_range<T>(value.get<int64_t>()))
      return false;
  }
  field = value.get<T>();
  return true;
}

template <class T> constexpr const char *type_name() {
  if constexpr (std::is_same_v<T, bool>)
    return "true or false";
  else if constexpr (std::is_same_v<T, std::string>)
    return "a string";
  else if constexpr (std::is_floating_point_v<T>)
    return "a number";
  else
    return std::is_unsigned_v<T> ? "a whole number not below 0" : "a whole number";
}

} // namespace

Json options_to_json(const TrainOptions &options) {
  Json json = Json::object();
  for_each_option(options, [&](const char *name, const auto &field, bool) { json[name] = field; });
  return json;
}

bool set_option(TrainOptions &options, std::string_view key, const Json &value, const std::string &where,
                const std::string &advice) {
  bool found = false;
  for_each_option(options, [&](const char *name, auto &field, bool) {
    if (key != name) return;
    found = true;
    if (!assign(field, value))
      throw Error(where + "'" + name + "' takes " + type_name<std::decay_t<decltype(field)>>() + ", got " +
                  io::printable(value.dump(), 60) + advice);
  });
  return found;
}

std::string first_difference(const TrainOptions &options, const Json &stored, const std::string &where,
                             const std::string &advice) {
  TrainOptions other;
  if (!stored.is_object()) throw Error(where + "expected an object of options" + advice);
  for (const auto &[key, value] : stored.items()) set_option(other, key, value, where, advice);
  const Json here = options_to_json(options), there = options_to_json(other);
  std::string difference;
  for_each_option(options, [&](const char *name, const auto &, bool decides) {
    if (decides && difference.empty() && here[name] != there[name])
      difference = std::string(name) + ": " + io::printable(here[name].dump(), 60) + " here, " +
                   io::printable(there[name].dump(), 60) + " there";
  });
  return difference;
}

} // namespace nvfp4::models
