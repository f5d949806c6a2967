// SPDX-License-Identifier: Apache-2.0
// The one reader of JSON that anybody may have written: trees that are not too deep to be copied and shown,
// without repeated keys, numbers that FP64 can hold, and one line of what is wrong. Internal.
#pragma once
#include <nlohmann/json.hpp>

#include <optional>
#include <string>
#include <string_view>

namespace nvfp4::io {

/// Objects and lists within each other; what is ours has at most 8.
inline constexpr int max_json_depth = 64;

/// Parses a whole file or a line. An Error opens with `where` ("runs/a/run.json: "), says what was expected,
/// in which line (of a text of several) and what came, and ends with `advice` ("; remove the file").
[[nodiscard]] nlohmann::ordered_json parse_json(std::string_view text, const std::string &where,
                                                const std::string &advice = {});

/// The same; nothing where parse_json would throw.
[[nodiscard]] std::optional<nlohmann::ordered_json> find_json(std::string_view text);

} // namespace nvfp4::io
