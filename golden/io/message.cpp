// SPDX-License-Identifier: Apache-2.0
// Escaping for messages: one small UTF-8 scanner decides what may be shown as it is.
#include "nvfp4/golden/io/message.hpp"

#include <cstdint>
#include <system_error>

namespace nvfp4::io {
namespace {

/// The well-formed UTF-8 character that a text starts with; of length 0 if there is none.
struct Character {
  uint32_t code = 0;
  size_t length = 0;
};

Character first_character(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? uint8_t(text[i]) : uint8_t(0); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4) return {};
  uint32_t code = lead & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {};
    code = code << 6 | (byte(i) & 0x3Fu);
  }
  constexpr uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = code >= 0xD800 && code <= 0xDFFF;
  return code < smallest[length] || code > 0x10FFFF || surrogate ? Character{} : Character{code, length};
}

/// The length of the first character if it can stand in quotes on one line, else 0.
size_t showable_prefix(std::string_view text) {
  const auto [code, length] = first_character(text);
  const bool control = code < 0x20 || (code >= 0x7F && code < 0xA0),
             separator = code == 0x2028 || code == 0x2029;
  return control || separator || code == '\'' || code == '\\' ? 0 : length;
}

} // namespace

std::string printable(std::string_view text, size_t limit) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  while (!text.empty()) {
    if (out.size() >= limit) return out + "...";
    const size_t length = showable_prefix(text);
    if (length > 0) {
      out += text.substr(0, length);
    } else {
      const auto byte = uint8_t(text[0]);
      out += {'\\', 'x', digits[byte >> 4], digits[byte & 15]};
    }
    text.remove_prefix(length > 0 ? length : 1);
  }
  return out;
}

bool is_utf8(std::string_view text) {
  while (!text.empty()) {
    const size_t length = first_character(text).length;
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string in_quotes(std::string_view text) { return "'" + printable(text, 100) + "'"; }

std::string errno_text(int code) { return std::generic_category().message(code); }

} // namespace nvfp4::io
