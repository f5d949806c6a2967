// SPDX-License-Identifier: Apache-2.0
// Parser and printer of golden text.
#include "nvfp4/golden/text.hpp"

#include "nvfp4/golden/io/file.hpp"

#include <cstring>
#include <algorithm>
#include <span>

namespace nvfp4::golden {
namespace {

constexpr std::string_view kFirstLine = "# nvfp4 golden 1";

std::vector<std::string> split(std::string_view line) {
  std::vector<std::string> parts;
  for (size_t at = 0; at < line.size();) {
    const size_t end = std::min(line.find(' ', at), line.size());
    if (end > at) parts.emplace_back(line.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

} // namespace

std::string TextFile::get(std::string_view key) const {
  for (const auto &[k, v] : header)
    if (k == key) return v;
  return {};
}

std::string TextFile::require(std::string_view key) const {
  const std::string v = get(key);
  if (v.empty()) throw Error(path + ": header has no '" + std::string(key) + "' line");
  return v;
}

size_t TextFile::column(std::string_view name) const {
  const auto it = std::find(columns.begin(), columns.end(), name);
  if (it == columns.end()) throw Error(path + ": no column '" + std::string(name) + "'");
  return size_t(it - columns.begin());
}

TextFile parse_text(std::string_view text, const std::string &path) {
  TextFile file;
  file.path = path;
  size_t number = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(std::min(end + 1, text.size()));
    ++number;
    const std::string where = path + ":" + std::to_string(number) + ": ";
    if (number == 1) {
      if (line != kFirstLine) throw Error(path + ": not a golden text file (its first line must be '" + std::string(kFirstLine) + "')");
    } else if (line.starts_with("# ")) {
      const size_t colon = line.find(": ");
      if (colon == std::string_view::npos) throw Error(where + "a header line is '# key: value'");
      file.header.emplace_back(line.substr(2, colon - 2), line.substr(colon + 2));
      if (file.header.back().first == "columns") file.columns = split(file.header.back().second);
    } else if (!line.empty()) {
      std::vector<std::string> cells = split(line);
      if (cells.empty()) continue;
      if (cells.front().front() == '#') throw Error(where + "a header line starts with '# ', a case does not start with '#'");
      if (cells.size() != file.columns.size())
        throw Error(where + "expected " + std::to_string(file.columns.size()) + " columns, got " +
                    std::to_string(cells.size()));
      file.rows.push_back(std::move(cells));
    }
  }
  if (number == 0) throw Error(path + ": empty file");
  return file;
}

TextFile read_text(const std::string &path) {
  const std::vector<std::byte> bytes = io::read_file(path);
  return parse_text({reinterpret_cast<const char *>(bytes.data()), bytes.size()}, path);
}

std::string format_text(const TextFile &file) {
  std::string out = std::string(kFirstLine) + "\n";
  for (const auto &[k, v] : file.header) out += "# " + k + ": " + v + "\n";
  for (const auto &row : file.rows) {
    for (size_t i = 0; i < row.size(); ++i) out += (i == 0 ? "" : " ") + row[i];
    out += '\n';
  }
  return out;
}

std::vector<uint64_t> parse_hex_words(std::string_view hex, int bits, const std::string &where) {
  const size_t digits = size_t(bits) / 4;
  if (hex.empty() || hex.size() % digits != 0)
    throw Error(where + ": '" + std::string(hex.substr(0, 20)) + "' is not whole words of " + std::to_string(digits) +
                " hex digits");
  std::vector<uint64_t> words(hex.size() / digits);
  for (size_t i = 0; i < hex.size(); ++i) {
    const char c = hex[i];
    const int v = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (v < 0) throw Error(where + ": '" + std::string(1, c) + "' is not a hex digit");
    words[i / digits] = words[i / digits] << 4 | uint64_t(v);
  }
  return words;
}

std::vector<uint8_t> pack_words(const std::vector<uint64_t> &words, int bits) {
  std::vector<uint8_t> bytes((words.size() * size_t(bits) + 7) / 8, 0);
  for (size_t i = 0; i < words.size(); ++i) {
    if (bits == 4) bytes[i / 2] = uint8_t(bytes[i / 2] | words[i] << (i % 2 * 4));
    else std::memcpy(bytes.data() + i * size_t(bits / 8), &words[i], size_t(bits / 8));
  }
  return bytes;
}

std::string hex_word(uint64_t word, int bits) {
  std::string s(size_t(bits) / 4, '0');
  for (size_t i = s.size(); i-- > 0; word >>= 4) s[i] = "0123456789abcdef"[word & 0xF];
  return s;
}

} // namespace nvfp4::golden
