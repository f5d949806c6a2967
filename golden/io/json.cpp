// SPDX-License-Identifier: Apache-2.0
// nlohmann's parser needs no stack, but copying, comparing and writing a tree do: depth is refused on the
// way.
#include "nvfp4/golden/io/json.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <algorithm>

namespace nvfp4::io {
namespace {

using Json = nlohmann::ordered_json;

/// " (line 3)" of byte `at` in a text of several lines.
std::string line_of(std::string_view text, size_t at) {
  if (text.find('\n') == text.npos) return {};
  const std::string_view before = text.substr(0, std::min(text.size(), at));
  return " (line " + std::to_string(1 + std::count(before.begin(), before.end(), '\n')) + ")";
}

} // namespace

Json parse_json(std::string_view text, const std::string &where, const std::string &advice) {
  std::vector<std::vector<std::string>> open; // the keys of the objects around the place
  const auto watch = [&](int depth, Json::parse_event_t event, Json &value) {
    const bool opens =
        event == Json::parse_event_t::object_start || event == Json::parse_event_t::array_start;
    if (opens && depth >= max_json_depth) // of what is around it
      throw Error(where + "expected JSON of at most " + std::to_string(max_json_depth) +
                  " objects and lists within each other, got deeper ones" + advice);
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    if (event == Json::parse_event_t::key) {
      auto &key = value.get_ref<std::string &>();
      if (std::find(open.back().begin(), open.back().end(), key) != open.back().end())
        throw Error(where + "the key " + in_quotes(key) + " stands twice in an object" + advice);
      open.back().push_back(key);
    }
    return true;
  };
  try {
    return Json::parse(text, watch);
  } catch (const Json::parse_error &error) {
    throw Error(where +
                (text.empty()               ? "expected JSON, got nothing"
                 : error.byte > text.size() ? "expected JSON, which breaks off"
                                            : "expected JSON") +
                line_of(text, error.byte) + (text.empty() ? "" : ", got " + in_quotes(text.substr(0, 60))) +
                advice);
  } catch (const Json::out_of_range &error) { // "[...] number overflow parsing '1e400'"
    std::string_view number = error.what();
    number.remove_prefix(std::min(number.find('\''), number.size()));
    throw Error(where + "expected numbers that FP64 can hold, got " +
                in_quotes(number.size() > 2 ? number.substr(1, number.size() - 2) : number) + advice);
  }
}

std::optional<Json> find_json(std::string_view text) {
  try {
    return parse_json(text, "");
  } catch (const Error &) {
    return {};
  }
}

} // namespace nvfp4::io
