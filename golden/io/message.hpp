// SPDX-License-Identifier: Apache-2.0
// Makes text that came from outside fit to stand in a one-line message: names, paths, snatches of a broken
// header.
#pragma once
#include "nvfp4/emulator/config.hpp"

#include <cstddef>
#include <string>
#include <string_view>

namespace nvfp4::io {

/// What the operating system refused, as opposed to what a file holds.
struct SystemError : Error {
  using Error::Error;
};

/// The text with control characters, quotes, backslashes and malformed UTF-8 written as \xNN, and cut to
/// about `limit` bytes. The result is one line of valid UTF-8.
[[nodiscard]] std::string printable(std::string_view text, size_t limit = 1000);

/// printable() between single quotes, short enough for a list.
[[nodiscard]] std::string in_quotes(std::string_view text);

/// Whether all of the text is well-formed UTF-8.
[[nodiscard]] bool is_utf8(std::string_view text);

/// What the operating system says about an errno.
[[nodiscard]] std::string errno_text(int code);

} // namespace nvfp4::io
