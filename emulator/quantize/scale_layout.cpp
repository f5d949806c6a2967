// SPDX-License-Identifier: Apache-2.0
// Copies scales between the two layouts.
#include "nvfp4/emulator/quantize/scale_layout.hpp"

namespace nvfp4 {
namespace {

void check(int64_t expected, size_t got, int64_t rows, int64_t cols) {
  if (rows < 0 || cols < 0 || size_t(expected) != got)
    throw Error("block scales of " + std::to_string(rows) + " x " + std::to_string(cols) + " blocks need " +
                std::to_string(expected) + " bytes in this layout, got " + std::to_string(got));
}

} // namespace

std::vector<uint8_t> tile_scales(std::span<const uint8_t> linear, int64_t rows, int64_t cols) {
  check(rows * cols, linear.size(), rows, cols);
  std::vector<uint8_t> tiled(size_t(scale_size_128x4(rows, cols)), 0);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c)
      tiled[size_t(scale_offset_128x4(r, c, cols))] = linear[size_t(r * cols + c)];
  return tiled;
}

std::vector<uint8_t> untile_scales(std::span<const uint8_t> tiled, int64_t rows, int64_t cols) {
  check(scale_size_128x4(rows, cols), tiled.size(), rows, cols);
  std::vector<uint8_t> linear(size_t(rows * cols));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c)
      linear[size_t(r * cols + c)] = tiled[size_t(scale_offset_128x4(r, c, cols))];
  return linear;
}

} // namespace nvfp4
