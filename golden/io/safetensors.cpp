// SPDX-License-Identifier: Apache-2.0
// The safetensors reader and writer. The header is read event by event (no JSON tree), so that a repeated key
// is seen, nesting costs nothing and the first fault found is the one reported.
#include "nvfp4/golden/io/safetensors.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <limits>
#include <set>

namespace nvfp4::io {
namespace {

using nlohmann::json;

constexpr uint64_t header_limit = 100'000'000;
constexpr size_t length_size = 8;
constexpr std::string_view metadata_key = "__metadata__";

/// A header entry as it stands, before its bytes are looked for.
struct Entry : TensorHeader {
  size_t begin = 0, end = 0;     ///< in the data, which follows the header
  std::string unknown_dtype = {}; ///< a dtype that no row of dtype_table has
};

/// Takes the parser's events and knows, from the depth and the last keys, what each must be.
class HeaderReader : public nlohmann::json_sax<json> {
public:
  HeaderReader(const std::string &source, uint64_t data_size) : source_(source), data_size_(data_size) {}

  std::vector<Entry> entries;
  std::map<std::string, std::string> metadata;

  bool null() override { refuse("null"); }
  bool boolean(bool value) override { refuse(value ? "true" : "false"); }
  bool number_integer(number_integer_t value) override { refuse(std::to_string(value)); }
  bool number_float(number_float_t, const string_t &text) override { refuse(printable(text, 40)); }
  bool binary(binary_t &) override { refuse("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (depth_ != 3) refuse(std::to_string(value));
    if (value > uint64_t(std::numeric_limits<int64_t>::max())) refuse(std::to_string(value));
    numbers_.push_back(int64_t(value));
    return true;
  }

  bool string(string_t &text) override {
    if (depth_ == 2 && in_metadata())
      metadata[field_] = text;
    else if (depth_ == 2 && field_ == "dtype")
      set_dtype(entries.back(), text);
    else
      refuse("the string " + in_quotes(text));
    return true;
  }

  bool start_object(size_t) override {
    if (depth_ > 1) refuse("an object");
    if (++depth_ == 2 && !in_metadata()) entries.push_back({{key_, {}, {}}, 0, 0});
    return true;
  }

  bool key(string_t &text) override {
    if (depth_ == 1) fields_.clear();
    if (!(depth_ == 1 ? keys_ : fields_).insert(text).second)
      fail(depth_ == 1 ? "the header has the key " + in_quotes(text) + " twice"
                       : subject() + "the key " + in_quotes(text) + " stands there twice");
    (depth_ == 1 ? key_ : field_) = text;
    if (depth_ == 2 && !in_metadata() && text != "dtype" && text != "shape" && text != "data_offsets")
      fail(subject() + "expected the keys dtype, shape and data_offsets, got " + in_quotes(text));
    return true;
  }

  bool end_object() override {
    if (depth_-- == 2 && !in_metadata())
      for (const char *field : {"dtype", "shape", "data_offsets"})
        if (!fields_.contains(field)) fail(subject() + "the key " + field + " is missing");
    return true;
  }

  bool start_array(size_t) override {
    if (depth_ != 2 || in_metadata() || field_ == "dtype") refuse("an array");
    ++depth_;
    numbers_.clear();
    return true;
  }

  bool end_array() override {
    --depth_;
    Entry &entry = entries.back();
    if (field_ == "shape") {
      entry.shape = numbers_;
      return true;
    }
    if (numbers_.size() != 2)
      fail(subject() + "data_offsets: expected [begin, end], got " + std::to_string(numbers_.size()) +
           " numbers");
    entry.begin = size_t(numbers_[0]);
    entry.end = size_t(numbers_[1]);
    if (entry.begin > entry.end || entry.end > data_size_)
      fail(subject() + "data_offsets: expected begin <= end <= " + std::to_string(data_size_) +
           " (the bytes of data in the file), got " + shape_text(numbers_));
    return true;
  }

  bool parse_error(size_t, const std::string &, const json::exception &error) override {
    std::string_view text = error.what();
    text.remove_prefix(std::min(text.size(), text.find("] ") + 2)); // "[json.exception....] ..."
    fail("the header is not valid JSON: " + printable(text, 300));
  }

private:
  const std::string &source_;
  uint64_t data_size_;
  int depth_ = 0; ///< 1 among tensors, 2 in one tensor or the metadata, 3 in a list of numbers
  std::string key_, field_;
  std::set<std::string> keys_, fields_;
  std::vector<int64_t> numbers_;

  [[nodiscard]] bool in_metadata() const { return key_ == metadata_key; }
  [[nodiscard]] std::string subject() const {
    return in_metadata() ? "metadata: " : "tensor " + in_quotes(key_) + ": ";
  }
  [[noreturn]] void fail(const std::string &reason) const { throw Error(printable(source_) + ": " + reason); }

  /// The value that came is not what has to stand here.
  [[noreturn]] void refuse(const std::string &got) const {
    if (depth_ == 0) fail("expected the header to be a JSON object, got " + got);
    if (in_metadata())
      fail(depth_ == 1 ? "metadata: expected an object of strings, got " + got
                       : "metadata: " + in_quotes(field_) + ": expected a string, got " + got);
    if (depth_ == 1) fail(subject() + "expected an object with dtype, shape and data_offsets, got " + got);
    fail(subject() + field_ + ": expected " +
         (field_ == "dtype" ? "a string"
          : depth_ == 2     ? "an array"
                            : "integers from 0 to 2^63-1") +
         ", got " + got);
  }

  static void set_dtype(Entry &entry, std::string_view text) {
    for (const DTypeInfo &row : dtype_table)
      if (row.safetensors == text) {
        entry.dtype = row.dtype;
        return;
      }
    entry.unknown_dtype = printable(text, 40); // stops nobody who does not ask for this tensor
    if (entry.unknown_dtype.empty()) entry.unknown_dtype = "(empty)";
  }
};

/// Every entry has the bytes of its shape, and together they cover the data without overlap or hole.
void check_layout(const std::vector<Entry> &entries, uint64_t data_size, const std::string &source) {
  std::vector<const Entry *> order;
  for (const Entry &entry : entries) {
    order.push_back(&entry);
    if (!entry.unknown_dtype.empty()) continue; // how many bytes it should have is not known
    const auto expected = byte_count(entry.dtype, entry.shape);
    const auto prefix = message_prefix(source, entry.name);
    const auto shape = "shape " + shape_text(entry.shape);
    if (!expected)
      throw Error(prefix + shape + " of " + std::string(info(entry.dtype).safetensors) +
                  " has more elements than 64 bits can count or no whole number of bytes");
    if (entry.end - entry.begin != *expected)
      throw Error(prefix + shape + " of " + std::string(info(entry.dtype).safetensors) + " needs " +
                  std::to_string(*expected) + " bytes, but its data_offsets span " +
                  std::to_string(entry.end - entry.begin));
  }
  std::ranges::sort(order, {}, [](const Entry *e) { return std::pair(e->begin, e->end); });

  const Entry *last = nullptr;
  for (const Entry *entry : order) {
    const size_t covered = last ? last->end : 0;
    if (entry->begin < covered)
      throw Error(message_prefix(source, entry->name) + "overlaps tensor " + in_quotes(last->name) +
                  ": it begins at byte " + std::to_string(entry->begin) + " of the data, the other ends at " +
                  std::to_string(covered));
    if (entry->begin > covered)
      throw Error(message_prefix(source, entry->name) + "leaves a hole before it: bytes " +
                  std::to_string(covered) + " to " + std::to_string(entry->begin) +
                  " of the data belong to no tensor");
    last = entry;
  }
  const size_t covered = last ? last->end : 0;
  if (covered != data_size)
    throw Error(printable(source) + ": " +
                (last ? "after tensor " + in_quotes(last->name) : "without any tensor") + ", bytes " +
                std::to_string(covered) + " to " + std::to_string(data_size) +
                " of the data belong to no tensor");
}

/// Text as a JSON string. Names are UTF-8 or they cannot be written.
std::string json_string(const std::string &text, std::string_view destination) {
  try {
    return json(text).dump();
  } catch (const json::exception &) {
    throw Error((destination.empty() ? "" : printable(destination) + ": ") + "the name or metadata " +
                in_quotes(text) + " is not valid UTF-8");
  }
}

std::string number_list(std::span<const int64_t> numbers) {
  std::string text;
  for (const int64_t number : numbers) text += (text.empty() ? "" : ",") + std::to_string(number);
  return "[" + text + "]";
}

} // namespace

size_t safetensors_header_size(std::span<const std::byte> start, uint64_t file_size,
                               const std::string &source) {
  const auto fail = [&](const std::string &reason) { throw Error(printable(source) + ": " + reason); };
  const uint64_t there = std::min<uint64_t>(start.size(), file_size); // the file may have shrunk since
  if (there < length_size)
    fail("expected a .safetensors file, which starts with 8 bytes of header length, got " +
         std::to_string(there) + " bytes in all");
  uint64_t size = 0;
  std::memcpy(&size, start.data(), length_size);
  if (size > header_limit)
    fail("expected a .safetensors header of at most 100000000 bytes, got a length of " +
         std::to_string(size) + ": the file is damaged or of another format");
  if (size > file_size - length_size)
    fail("the header should have " + std::to_string(size) + " bytes, but the file ends after " +
         std::to_string(file_size - length_size) + ": it is truncated or of another format");
  return size;
}

SafetensorsIndex parse_safetensors_header(std::string_view text, uint64_t file_size,
                                          const std::string &source) {
  if (!text.starts_with('{'))
    throw Error(printable(source) + ": expected the header to be a JSON object that starts with '{'");
  const size_t before = length_size + text.size(), data_size = file_size - before;
  HeaderReader header(source, data_size);
  json::sax_parse(text, &header);
  check_layout(header.entries, data_size, source);
  SafetensorsIndex index{{}, {}, std::move(header.metadata), {}};
  for (Entry &entry : header.entries) {
    if (!entry.unknown_dtype.empty()) {
      index.unknown[entry.name] = entry.unknown_dtype;
      continue;
    }
    index.offsets.push_back(before + entry.begin);
    index.tensors.push_back(std::move(entry));
  }
  return index;
}

TensorFile parse_safetensors(std::span<const std::byte> bytes, std::string source) {
  const size_t size = safetensors_header_size(bytes, bytes.size(), source);
  const std::string_view text(reinterpret_cast<const char *>(bytes.data()) + length_size, size);
  SafetensorsIndex index = parse_safetensors_header(text, bytes.size(), source);
  TensorFile file{{}, std::move(index.metadata), std::move(source), std::move(index.unknown)};
  for (size_t i = 0; i < index.tensors.size(); ++i) {
    TensorHeader &t = index.tensors[i];
    const auto span = bytes.subspan(index.offsets[i], t.bytes());
    file.tensors.push_back({std::move(t.name), t.dtype, std::move(t.shape), {span.begin(), span.end()}});
  }
  return file;
}

SafetensorsLayout lay_out_safetensors(std::span<const TensorHeader> tensors,
                                      const std::map<std::string, std::string> &metadata,
                                      std::string_view destination) {
  SafetensorsLayout out;
  for (size_t i = 0; i < tensors.size(); ++i) out.order.push_back(i);
  std::ranges::sort(out.order, [&](size_t i, size_t j) {
    const TensorHeader &a = tensors[i], &b = tensors[j];
    const size_t size_a = info(a.dtype).bits, size_b = info(b.dtype).bits;
    return size_a != size_b ? size_a > size_b : a.name < b.name;
  });

  std::set<std::string_view> names;
  std::string header, pairs;
  for (const auto &[key, value] : metadata)
    pairs +=
        (pairs.empty() ? "" : ",") + json_string(key, destination) + ":" + json_string(value, destination);
  if (!pairs.empty()) header += json_string(std::string(metadata_key), destination) + ":{" + pairs + "}";
  size_t offset = 0;
  for (const size_t i : out.order) {
    const TensorHeader &t = tensors[i];
    if (t.name == metadata_key)
      throw Error(message_prefix(destination, t.name) + "the format keeps this name for the metadata");
    if (!names.insert(t.name).second)
      throw Error(message_prefix(destination, t.name) + "expected unique names, got two of these");
    const int64_t offsets[] = {int64_t(offset), int64_t(offset + t.bytes(destination))};
    header += (header.empty() ? "" : ",") + json_string(t.name, destination) + ":{\"dtype\":\"" +
              std::string(info(t.dtype).safetensors) + "\",\"shape\":" + number_list(t.shape) +
              ",\"data_offsets\":" + number_list(offsets) + "}";
    offset = size_t(offsets[1]);
  }
  header = "{" + header + "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  if (header.size() > header_limit)
    throw Error((destination.empty() ? "" : printable(destination) + ": ") +
                "expected names and metadata of at most 100000000 bytes, got " +
                std::to_string(header.size()));
  const uint64_t header_size = header.size();
  out.start.resize(length_size);
  std::memcpy(out.start.data(), &header_size, length_size);
  out.start += header;
  return out;
}

std::vector<std::byte> to_safetensors(const TensorFile &file, std::string_view destination) {
  std::vector<TensorHeader> headers;
  size_t size = 0;
  for (const Tensor &t : file.tensors) {
    t.check(destination);
    headers.push_back({t.name, t.dtype, t.shape});
    size += t.data.size();
  }
  const SafetensorsLayout layout = lay_out_safetensors(headers, file.metadata, destination);
  const auto start = std::as_bytes(std::span(layout.start));
  std::vector<std::byte> out;
  out.reserve(start.size() + size);
  out.assign(start.begin(), start.end());
  for (const size_t i : layout.order)
    out.insert(out.end(), file.tensors[i].data.begin(), file.tensors[i].data.end());
  return out;
}

} // namespace nvfp4::io
