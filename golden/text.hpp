// SPDX-License-Identifier: Apache-2.0
// Golden text files: hex words, one case a line, under a header of "# key: value" lines. The format is described in
// golden/README.md.
#pragma once
#include "nvfp4/emulator/config.hpp"

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace nvfp4::golden {

/// A golden text file. Columns are the blank-separated names of the header's "columns" line.
struct TextFile {
  std::string path; ///< for messages
  std::vector<std::pair<std::string, std::string>> header;
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;

  /// The value of a header key; empty when absent, or Error naming file and key when required.
  [[nodiscard]] std::string get(std::string_view key) const;
  [[nodiscard]] std::string require(std::string_view key) const;
  /// The index of a column; Error naming the file when absent.
  [[nodiscard]] size_t column(std::string_view name) const;
};

/// Parses golden text. Errors name the path and the line.
[[nodiscard]] TextFile parse_text(std::string_view text, const std::string &path);
[[nodiscard]] TextFile read_text(const std::string &path);
[[nodiscard]] std::string format_text(const TextFile &file);

/// Words of `bits` bits each from hex digits, first word first: 1 digit for 4-bit words, 2 for 8, 4, 8, 16.
[[nodiscard]] std::vector<uint64_t> parse_hex_words(std::string_view hex, int bits, const std::string &where);
/// Words as they lie in memory, little endian; 4-bit words two to a byte, the first in the low nibble.
[[nodiscard]] std::vector<uint8_t> pack_words(const std::vector<uint64_t> &words, int bits);
[[nodiscard]] std::string hex_word(uint64_t word, int bits);

} // namespace nvfp4::golden
