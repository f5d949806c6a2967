// SPDX-License-Identifier: Apache-2.0
// Where block scales lie in memory: row by row, or in the 128x4 tiles that block-scaled tensor-core
// instructions read. Source: cuBLAS documentation, "1D block scaling factors layout"; CUTLASS
// Sm1xxBlockScaledConfig.
#pragma once
#include "nvfp4/emulator/names.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace nvfp4 {

enum class ScaleLayout : uint8_t {
  linear,      ///< [rows][cols]
  tiled_128x4, ///< rows padded to 128, columns to 4, with zeros; 512 bytes a tile
};
[[nodiscard]] constexpr auto names_of(ScaleLayout) { return enum_names("scale layout", "linear", "128x4"); }
static_assert(names_of(ScaleLayout{}).end_with(ScaleLayout::tiled_128x4));

/// The byte of scale (row, col) in the 128x4 layout of a matrix with that many scale columns.
[[nodiscard]] NVFP4_HD constexpr int64_t scale_offset_128x4(int64_t row, int64_t col, int64_t cols) {
  return ((row / 128) * ((cols + 3) / 4) + col / 4) * 512 + (row % 32) * 16 + (row % 128 / 32) * 4 + col % 4;
}
/// Bytes of that layout, padding included.
[[nodiscard]] NVFP4_HD constexpr int64_t scale_size_128x4(int64_t rows, int64_t cols) {
  return ((rows + 127) / 128) * ((cols + 3) / 4) * 512;
}

/// Linear scales (rows, cols) in the 128x4 layout. Throws Error when the size does not fit.
[[nodiscard]] std::vector<uint8_t> tile_scales(std::span<const uint8_t> linear, int64_t rows, int64_t cols);
/// The way back; the padding is not read. Throws Error when the size does not fit.
[[nodiscard]] std::vector<uint8_t> untile_scales(std::span<const uint8_t> tiled, int64_t rows, int64_t cols);

} // namespace nvfp4
