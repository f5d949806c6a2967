// SPDX-License-Identifier: Apache-2.0
// Sizes, checks and look-up of tensors.
#include "nvfp4/golden/io/tensor.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <algorithm>

namespace nvfp4::io {
namespace {

constexpr bool table_in_order() {
  for (size_t i = 0; i < std::size(dtype_table); ++i)
    if (size_t(dtype_table[i].dtype) != i) return false;
  return std::size(dtype_table) == size_t(DType::c64) + 1;
}
static_assert(table_in_order());

} // namespace

std::optional<int64_t> element_count(std::span<const int64_t> shape) {
  int64_t count = 1;
  bool empty = false;
  for (const int64_t length : shape) {
    if (length < 0) return std::nullopt;
    if (length == 0)
      empty = true;
    else if (__builtin_mul_overflow(count, length, &count))
      return std::nullopt;
  }
  return empty ? 0 : count;
}

std::optional<size_t> byte_count(DType dtype, std::span<const int64_t> shape) {
  const auto count = element_count(shape);
  int64_t bits = 0;
  if (!count) return std::nullopt;
  if (info(dtype).bits % 8 == 0) // byte counts may pass 2^60
    return __builtin_mul_overflow(*count, int64_t(info(dtype).bits / 8), &bits) ? std::nullopt
                                                                                 : std::optional(size_t(bits));
  if (__builtin_mul_overflow(*count, int64_t(info(dtype).bits), &bits) || bits % 8 != 0) return std::nullopt;
  return size_t(bits / 8);
}

std::string shape_text(std::span<const int64_t> shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i == 16) return text + ", ... " + std::to_string(shape.size()) + " lengths]";
    text += (i ? ", " : "") + std::to_string(shape[i]);
  }
  return text + "]";
}

std::string message_prefix(std::string_view source, std::string_view tensor) {
  return (source.empty() ? "" : printable(source) + ": ") + "tensor " + in_quotes(tensor) + ": ";
}

size_t TensorHeader::bytes(std::string_view source) const {
  const auto count = byte_count(dtype, shape);
  if (!count)
    throw Error(message_prefix(source, name) + "shape " + shape_text(shape) +
                " has a negative length, more elements than 64 bits can count, or no whole number of bytes");
  return *count;
}

void Tensor::check(std::string_view source) const {
  const size_t expected = TensorHeader{name, dtype, shape}.bytes(source);
  if (data.size() != expected)
    throw Error(message_prefix(source, name) + "shape " + shape_text(shape) + " of " +
                std::string(info(dtype).safetensors) + " needs " + std::to_string(expected) + " bytes, got " +
                std::to_string(data.size()));
}

void Tensor::check_view(size_t size, size_t alignment, bool bits, DType wanted,
                        std::string_view source) const {
  if (std::max<size_t>(info(dtype).bits, 8) != 8 * size || !(bits || wanted == dtype))
    throw Error(message_prefix(source, name) + "expected elements of type " +
                std::string(info(wanted).safetensors) + ", got " + std::string(info(dtype).safetensors));
  check(source);
  if (reinterpret_cast<uintptr_t>(data.data()) % alignment != 0)
    throw Error(message_prefix(source, name) + "its bytes are not aligned to " + std::to_string(alignment));
}

Tensor Tensor::copy(std::string name, DType dtype, std::vector<int64_t> shape,
                    std::span<const std::byte> bytes) {
  Tensor tensor{std::move(name), dtype, std::move(shape), {bytes.begin(), bytes.end()}};
  tensor.check();
  return tensor;
}

const Tensor *TensorFile::find(std::string_view name) const {
  const auto it = std::ranges::find(tensors, name, &Tensor::name);
  return it == tensors.end() ? nullptr : &*it;
}

const Tensor &TensorFile::at(std::string_view name) const {
  if (const Tensor *tensor = find(name)) return *tensor;
  if (const auto it = unknown.find(std::string(name)); it != unknown.end())
    throw Error(message_prefix(source, name) + "has the dtype " + in_quotes(it->second) +
                ", which this version does not know");
  constexpr size_t shown = 12;
  std::string list;
  for (size_t i = 0; i < std::min(tensors.size(), shown); ++i)
    list += (i ? ", " : "") + in_quotes(tensors[i].name);
  if (tensors.size() > shown) list += " and " + std::to_string(tensors.size() - shown) + " more";
  throw Error((source.empty() ? "" : printable(source) + ": ") + "expected a tensor " + in_quotes(name) +
              ", but the file holds " + (list.empty() ? "none" : list));
}

} // namespace nvfp4::io
