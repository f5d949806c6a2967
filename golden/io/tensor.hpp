// SPDX-License-Identifier: Apache-2.0
// A named array as it stands in a file: element type, shape, bytes in C order, little endian. Nothing here
// computes; the arithmetic has its own views of memory.
#pragma once
#include "nvfp4/emulator/config.hpp"

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <optional>
#include <ranges>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace nvfp4::io {

static_assert(std::endian::native == std::endian::little, "files are little endian and are read in place");

enum class DType {
  boolean,
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  u64,
  i64,
  f16,
  bf16,
  f32,
  f64,
  f8_e4m3,
  f8_e5m2,
  f8_e8m0,
  f8_e4m3fnuz,
  f8_e5m2fnuz,
  f6_e2m3,
  f6_e3m2,
  f4,
  c64
};

struct DTypeInfo {
  DType dtype;
  size_t bits;                  ///< of an element; those below 8 stand packed in the file
  std::string_view safetensors; ///< name in a .safetensors header
  std::string_view npy;         ///< descr in a .npy header; empty where NumPy has no such type
};

/// One row for each DType, in its order: the dtypes of safetensors 0.8. F4 is E2M1, two to a byte, the even index in the
/// low nibble (torch.float4_e2m1fn_x2 has half as many elements); how F6 elements are packed is defined nowhere.
inline constexpr DTypeInfo dtype_table[] = {
    {DType::boolean, 8, "BOOL", "|b1"},
    {DType::u8, 8, "U8", "|u1"},
    {DType::i8, 8, "I8", "|i1"},
    {DType::u16, 16, "U16", "<u2"},
    {DType::i16, 16, "I16", "<i2"},
    {DType::u32, 32, "U32", "<u4"},
    {DType::i32, 32, "I32", "<i4"},
    {DType::u64, 64, "U64", "<u8"},
    {DType::i64, 64, "I64", "<i8"},
    {DType::f16, 16, "F16", "<f2"},
    {DType::bf16, 16, "BF16", ""},
    {DType::f32, 32, "F32", "<f4"},
    {DType::f64, 64, "F64", "<f8"},
    {DType::f8_e4m3, 8, "F8_E4M3", ""},
    {DType::f8_e5m2, 8, "F8_E5M2", ""},
    {DType::f8_e8m0, 8, "F8_E8M0", ""},
    {DType::f8_e4m3fnuz, 8, "F8_E4M3FNUZ", ""},
    {DType::f8_e5m2fnuz, 8, "F8_E5M2FNUZ", ""},
    {DType::f6_e2m3, 6, "F6_E2M3", ""},
    {DType::f6_e3m2, 6, "F6_E3M2", ""},
    {DType::f4, 4, "F4", ""},
    {DType::c64, 64, "C64", "<c8"},
};

[[nodiscard]] constexpr const DTypeInfo &info(DType dtype) { return dtype_table[size_t(dtype)]; }

/// The DType whose values a C++ type holds. The 16- and 8-bit floats have none: see Tensor::from_bits.
template <class T> [[nodiscard]] constexpr DType dtype_of() {
  constexpr bool is_signed = std::is_signed_v<T>;
  if constexpr (std::same_as<T, bool>)
    return DType::boolean;
  else if constexpr (std::same_as<T, std::byte>)
    return DType::u8;
  else if constexpr (std::same_as<T, float>)
    return DType::f32;
  else if constexpr (std::same_as<T, double>)
    return DType::f64;
  else {
    static_assert(std::is_integral_v<T> && sizeof(T) <= 8, "no tensor element type for this C++ type");
    if constexpr (sizeof(T) == 1)
      return is_signed ? DType::i8 : DType::u8;
    else if constexpr (sizeof(T) == 2)
      return is_signed ? DType::i16 : DType::u16;
    else if constexpr (sizeof(T) == 4)
      return is_signed ? DType::i32 : DType::u32;
    else
      return is_signed ? DType::i64 : DType::u64;
  }
}

/// Elements of a shape; nothing if a length is negative or the lengths other than 0 overflow int64_t.
[[nodiscard]] std::optional<int64_t> element_count(std::span<const int64_t> shape);
/// Bytes of a tensor; nothing where element_count has nothing, the bits overflow int64_t or are no whole number of
/// bytes.
[[nodiscard]] std::optional<size_t> byte_count(DType dtype, std::span<const int64_t> shape);
/// "[2, 3]".
[[nodiscard]] std::string shape_text(std::span<const int64_t> shape);
/// "model.safetensors: tensor 'w': "; without the file where `source` is empty.
[[nodiscard]] std::string message_prefix(std::string_view source, std::string_view tensor);

/// A tensor without its bytes.
struct TensorHeader {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;

  bool operator==(const TensorHeader &) const = default;
  /// Its size; throws an Error, which names the file `source` if given, unless the lengths make sense.
  [[nodiscard]] size_t bytes(std::string_view source = {}) const;
};

struct Tensor {
  std::string name;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;
  std::vector<std::byte> data;

  bool operator==(const Tensor &) const = default;

  /// The elements. T is the type that holds the values (float for F32, int8_t for I8, ...) or, for the bits
  /// of any dtype, an unsigned integer of its size (the packed bytes of dtypes below 8 bits); anything else is
  /// an Error, which names the file `source` if given.
  template <class T> [[nodiscard]] std::span<const T> as(std::string_view source = {}) const {
    static_assert(!std::same_as<T, bool>, "a byte of a file need not be 0 or 1: read booleans as uint8_t");
    constexpr bool bits = std::unsigned_integral<T> || std::same_as<T, std::byte>;
    check_view(sizeof(T), alignof(T), bits, dtype_of<T>(), source);
    return {reinterpret_cast<const T *>(data.data()), data.size() / sizeof(T)};
  }

  /// Throws an Error unless the lengths make sense and `data` has exactly the bytes of the shape.
  void check(std::string_view source = {}) const;

  /// A tensor of values, whose dtype follows from the C++ type.
  template <std::ranges::contiguous_range R>
  [[nodiscard]] static Tensor from(std::string name, std::vector<int64_t> shape, const R &values) {
    return copy(std::move(name), dtype_of<std::ranges::range_value_t<R>>(), std::move(shape),
                std::as_bytes(std::span(std::ranges::data(values), std::ranges::size(values))));
  }
  /// A tensor of any dtype from its words: uint16_t for BF16, uint8_t for F8_E4M3, ...
  template <std::ranges::contiguous_range R>
  [[nodiscard]] static Tensor from_bits(std::string name, DType dtype, std::vector<int64_t> shape,
                                        const R &words) {
    return copy(std::move(name), dtype, std::move(shape),
                std::as_bytes(std::span(std::ranges::data(words), std::ranges::size(words))));
  }

private:
  void check_view(size_t size, size_t alignment, bool bits, DType wanted, std::string_view source) const;
  [[nodiscard]] static Tensor copy(std::string name, DType dtype, std::vector<int64_t> shape,
                                   std::span<const std::byte> bytes);
};

/// What one file holds.
struct TensorFile {
  std::vector<Tensor> tensors;
  std::map<std::string, std::string> metadata;
  std::string source; ///< where it came from, for messages
  /// Names and dtypes of tensors that were not read because no dtype_table row has their dtype.
  std::map<std::string, std::string> unknown = {};

  /// The tensor of that name, or nullptr.
  [[nodiscard]] const Tensor *find(std::string_view name) const;
  /// The tensor of that name, or an Error that lists the names there are.
  [[nodiscard]] const Tensor &at(std::string_view name) const;
  /// at(name).as<T>(), with the file named in either's Error.
  template <class T> [[nodiscard]] std::span<const T> elements(std::string_view name) const {
    return at(name).as<T>(source);
  }
};

} // namespace nvfp4::io
