// SPDX-License-Identifier: Apache-2.0
// The .npy reader and writer, with a parser for just the Python that NumPy writes:
// {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
#include "nvfp4/golden/io/npy.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <algorithm>

namespace nvfp4::io {
namespace {

constexpr size_t rank_limit =
    64; // NumPy 2's own; it also keeps every header we write within format 1.0's 64 KiB

struct Header {
  std::optional<DType> dtype;
  std::optional<bool> fortran_order;
  std::optional<std::vector<int64_t>> shape;
};

[[noreturn]] void refuse(std::string_view source, const std::string &reason) {
  throw Error(message_prefix(source, "data") + reason);
}

/// A cursor over the header's text. Each member takes one piece of the grammar or throws.
class HeaderParser {
public:
  HeaderParser(std::string_view text, std::string_view source) : rest_(text), source_(source) {}

  Header parse() {
    Header header;
    expect('{');
    while (!take('}')) {
      const std::string_view key = quoted_string();
      expect(':');
      if (key == "descr")
        set(header.dtype, key, dtype());
      else if (key == "fortran_order")
        set(header.fortran_order, key, boolean());
      else if (key == "shape")
        set(header.shape, key, shape());
      else
        refuse(source_, "npy header: expected the keys descr, fortran_order and shape, got " + in_quotes(key));
      if (take(',')) continue;
      expect('}');
      break;
    }
    skip_space();
    if (!rest_.empty()) refuse(source_, "npy header: expected its end, got " + next());
    if (!header.dtype) refuse(source_, "npy header: the key descr is missing");
    if (!header.fortran_order) refuse(source_, "npy header: the key fortran_order is missing");
    if (!header.shape) refuse(source_, "npy header: the key shape is missing");
    return header;
  }

private:
  std::string_view rest_, source_;

  template <class T> void set(std::optional<T> &field, std::string_view key, T value) {
    if (field) refuse(source_, "npy header: the key " + std::string(key) + " stands there twice");
    field = std::move(value);
  }

  void skip_space() { rest_.remove_prefix(std::min(rest_.size(), rest_.find_first_not_of(" \t\r\n"))); }

  /// What stands at the cursor, for messages.
  [[nodiscard]] std::string next() const {
    return rest_.empty() ? "the end of the header" : in_quotes(rest_.substr(0, 20));
  }

  bool take(char wanted) {
    skip_space();
    if (rest_.empty() || rest_[0] != wanted) return false;
    rest_.remove_prefix(1);
    return true;
  }

  void expect(char wanted) {
    if (!take(wanted)) refuse(source_, std::string("npy header: expected ") + wanted + ", got " + next());
  }

  std::string_view quoted_string() {
    skip_space();
    if (rest_.empty() || (rest_[0] != '\'' && rest_[0] != '"'))
      refuse(source_, "npy header: expected a quoted string, got " + next());
    const size_t end = rest_.find(rest_[0], 1);
    if (end == std::string_view::npos) refuse(source_, "npy header: a string without an end: " + next());
    const std::string_view text = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    return text;
  }

  DType dtype() {
    skip_space();
    if (rest_.starts_with('['))
      refuse(source_, "npy header: expected an array of numbers, got a structured dtype: " + next());
    const std::string_view text = quoted_string();
    std::string known;
    for (const DTypeInfo &row : dtype_table) {
      if (row.npy.empty()) continue;
      // A single byte has no order: NumPy writes '|u1' and reads '<u1' as well.
      if (text == row.npy || (row.bits == 8 && text.starts_with('<') && text.substr(1) == row.npy.substr(1)))
        return row.dtype;
      known += (known.empty() ? "" : " ") + std::string(row.npy);
    }
    std::string hint;
    if (text.starts_with('>')) hint = " (big endian: save with astype('<...'))";
    if (text.find('V') != text.npos) hint = " (raw bytes, as bfloat16 arrays are saved: use .safetensors)";
    refuse(source_, "descr: expected one of " + known + ", got " + in_quotes(text) + hint);
  }

  bool boolean() {
    skip_space();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (!rest_.starts_with(word)) continue;
      rest_.remove_prefix(word.size());
      return value;
    }
    refuse(source_, "fortran_order: expected True or False, got " + next());
  }

  int64_t length() {
    skip_space();
    const std::string at = next();
    int64_t value = 0;
    size_t digits = 0;
    for (; digits < rest_.size() && rest_[digits] >= '0' && rest_[digits] <= '9'; ++digits)
      if (__builtin_mul_overflow(value, 10, &value) ||
          __builtin_add_overflow(value, rest_[digits] - '0', &value))
        refuse(source_, "shape: expected lengths below 2^63, got " + at);
    if (digits == 0) refuse(source_, "shape: expected a non-negative integer, got " + at);
    rest_.remove_prefix(digits);
    if (rest_.starts_with('L')) rest_.remove_prefix(1); // Python 2 wrote long integers so
    return value;
  }

  /// A tuple: (), (2,), (2, 3), (2, 3,). In Python "(2)" is a number.
  std::vector<int64_t> shape() {
    std::vector<int64_t> lengths;
    bool comma = false;
    expect('(');
    while (!take(')')) {
      if (!lengths.empty() && !comma) refuse(source_, "shape: expected , or ), got " + next());
      if (lengths.size() == rank_limit) refuse(source_, "shape: expected at most 64 dimensions, got more");
      lengths.push_back(length());
      comma = take(',');
    }
    if (lengths.size() == 1 && !comma) refuse(source_, "shape: expected a tuple such as (2,), got a number");
    return lengths;
  }
};

/// Bytes of an array whose first index runs fastest, rearranged so that its last does.
std::vector<std::byte> to_c_order(std::span<const std::byte> bytes, std::span<const int64_t> shape,
                                  size_t size) {
  // Lengths of 1 do not matter, and without them there are at most 62.
  std::vector<size_t> lengths, strides;
  size_t stride = size;
  for (const int64_t length : shape) {
    if (length == 1) continue;
    lengths.push_back(size_t(length));
    strides.push_back(stride);
    stride *= size_t(length);
  }
  std::vector<std::byte> out(bytes.size());
  std::vector<size_t> index(lengths.size());
  size_t from = 0;
  for (size_t to = 0; to < out.size(); to += size) {
    std::memcpy(&out[to], &bytes[from], size);
    for (size_t d = lengths.size(); d-- > 0;) {
      from += strides[d];
      if (++index[d] < lengths[d]) break;
      from -= strides[d] * lengths[d];
      index[d] = 0;
    }
  }
  return out;
}

} // namespace

NpyHeader parse_npy_header(std::span<const std::byte> bytes, size_t file_size, std::string_view source) {
  const std::string_view text(reinterpret_cast<const char *>(bytes.data()), bytes.size());
  constexpr size_t version_end = npy_magic.size() + 2;
  if (text.size() < version_end || !text.starts_with(npy_magic))
    refuse(source, "expected a .npy file, which starts with \\x93NUMPY and a version, got " +
                     in_quotes(text.substr(0, 8)));
  const auto major = uint8_t(text[version_end - 2]), minor = uint8_t(text[version_end - 1]);
  if (major < 1 || major > 3 || minor != 0)
    refuse(source,
         "expected npy version 1.0, 2.0 or 3.0, got " + std::to_string(major) + "." + std::to_string(minor));

  const size_t length_size = major == 1 ? 2 : 4;
  if (text.size() < version_end + length_size)
    refuse(source, "the file ends within the length of the npy header");
  uint32_t header_size = 0;
  std::memcpy(&header_size, bytes.data() + version_end, length_size);
  const auto rest = text.substr(version_end + length_size);
  if (header_size > rest.size())
    refuse(source, "the npy header should have " + std::to_string(header_size) +
                     " bytes, but the file ends after " + std::to_string(rest.size()));

  Header header = HeaderParser(rest.substr(0, header_size), source).parse();
  const size_t data_offset = version_end + length_size + header_size, data_size = file_size - data_offset;
  const auto expected = byte_count(*header.dtype, *header.shape);
  if (!expected)
    refuse(source, "shape " + shape_text(*header.shape) + " has more elements than 64 bits can count");
  if (data_size != *expected)
    refuse(source, (data_size < *expected ? "truncated: shape " : "trailing data: shape ") +
                     shape_text(*header.shape) + " of " + std::string(info(*header.dtype).npy) + " needs " +
                     std::to_string(*expected) + " bytes after the header, got " + std::to_string(data_size));
  return {*header.dtype, *header.fortran_order, std::move(*header.shape), data_offset};
}

Tensor parse_npy(std::span<const std::byte> bytes, std::string_view source) {
  NpyHeader header = parse_npy_header(bytes, bytes.size(), source);
  const auto data = bytes.subspan(header.data_offset);
  Tensor tensor{"data", header.dtype, std::move(header.shape), {}};
  if (header.fortran_order)
    tensor.data = to_c_order(data, tensor.shape, info(tensor.dtype).bits / 8);
  else
    tensor.data.assign(data.begin(), data.end());
  return tensor;
}

std::vector<std::byte> to_npy(const Tensor &tensor, std::string_view destination) {
  tensor.check(destination);
  const DTypeInfo &type = info(tensor.dtype);
  const std::string prefix = message_prefix(destination, tensor.name);
  if (type.npy.empty())
    throw Error(prefix + ".npy has no type for " + std::string(type.safetensors) + ": use .safetensors");
  if (tensor.shape.size() > rank_limit)
    throw Error(prefix + ".npy holds at most 64 dimensions, got " + std::to_string(tensor.shape.size()));

  std::string lengths;
  for (const int64_t length : tensor.shape) lengths += (lengths.empty() ? "" : ", ") + std::to_string(length);
  if (tensor.shape.size() == 1) lengths += ",";
  std::string text =
      "{'descr': '" + std::string(type.npy) + "', 'fortran_order': False, 'shape': (" + lengths + "), }";

  // NumPy asks for data aligned to 64, with a newline as the header's last byte.
  constexpr size_t before = npy_magic.size() + 4;
  text.resize((before + text.size() + 1 + 63) / 64 * 64 - before - 1, ' ');
  text += '\n';
  std::string start(npy_magic);
  start += {'\x01', '\x00', char(text.size() & 0xFF), char(text.size() >> 8)};
  start += text;

  const auto head = std::as_bytes(std::span(start));
  std::vector<std::byte> out;
  out.reserve(head.size() + tensor.data.size());
  out.insert(out.end(), head.begin(), head.end());
  out.insert(out.end(), tensor.data.begin(), tensor.data.end());
  return out;
}

} // namespace nvfp4::io
