// SPDX-License-Identifier: Apache-2.0
// How each kind of checkpoint stores a quantized weight, as one row of data: which tensors, what they are
// named, who multiplies and who divides, how codes are packed. golden/checkpoint/README.md prints the table
// for people.
#pragma once
#include "nvfp4/emulator/formats/format.hpp"

#include <array>
#include <optional>
#include <span>

namespace nvfp4::checkpoint {

/// What the second-level scale g does. v is an element's value, SF its block scale.
enum class GlobalUse : uint8_t {
  none,
  multiplies, ///< v * (SF * g)
  divides,    ///< v * (SF / g)
  after,      ///< (v * SF) * g: g is applied to a product, outside of the block format
};

/// Where the codes of a row lie.
enum class Packing : uint8_t {
  even_low, ///< byte j: element 2j in the low nibble, 2j + 1 in the high one
  half_low, ///< per block: byte j has element j low, j + half the block high; scale bytes stand before the
            ///< codes
  bytes,    ///< one element a byte
};

/// What a scale covers.
enum class ScaleShape : uint8_t {
  blocks, ///< `block` elements of a row
  dense,  ///< a tensor, a row, or a tile of rows and columns; FP32, BF16 or F16 numbers
};

using TypeNames = std::array<std::string_view, 4>; ///< unused ones are empty

struct Container {
  std::string_view name;
  std::string_view family; ///< whose: containers of a family stand in one checkpoint
  /// What follows the base of a name; empty: no such tensor.
  std::string_view codes = ".weight", scales = ".weight_scale", global = "", input = "";
  TypeNames code_types = {"U8"}, scale_types = {};
  std::optional<FormatId> element = FormatId::e2m1; ///< nothing for INT8, which has no row
  std::optional<FormatId> scale = std::nullopt;     ///< nothing for dense scales
  ScaleShape scale_shape = ScaleShape::blocks;
  int block = 0; ///< elements along a row that share a scale
  Packing packing = Packing::even_low;
  GlobalUse global_use = GlobalUse::none, input_use = GlobalUse::none;
  bool needs_global = false; ///< software that reads it fails without the second-level scale
  /// Row of conventions() that reconstructs values as this container's software does; empty for dense scales.
  std::string_view convention = {};
};

[[nodiscard]] std::span<const Container> containers();
[[nodiscard]] const Container *find_container(std::string_view name);

/// Modules that serving software fuses into one product, by the last part of their names: their second-level
/// scales must be equal.
struct FusedGroup {
  std::array<std::string_view, 3> members;
};
[[nodiscard]] std::span<const FusedGroup> fused_groups();

} // namespace nvfp4::checkpoint
