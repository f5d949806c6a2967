// SPDX-License-Identifier: Apache-2.0
// Loads tiles of columns, draws their random bits, and turns finished codes and scales, an eighth of the data.
#include "nvfp4/emulator/quantize/columns.hpp"

#include "nvfp4/emulator/quantize/panel.hpp"

#include <algorithm>
#include <cstring>

namespace nvfp4::quant {
namespace {

constexpr int kRotatedTiles = 4; ///< that share a look at the inexact flag

} // namespace

void ColumnSource::place(int64_t down, int64_t across, ColumnBand &band) const {
  band.row = down * kGroup * block_;
  band.rows = std::min<int64_t>(kGroup * block_, x_.rows - band.row);
  band.column = across * kBandColumns;
  band.columns = std::min<int64_t>(kBandColumns, x_.cols - band.column);
}

void ColumnSource::load(int b, ColumnBand &band) const {
  const int64_t row = band.row + b * block_;
  const int whole = row + block_ <= x_.rows ? int(band.columns / kGroup) : 0;
  const float *const x = x_.row(row) + band.column;
  if (options_.hadamard)
    for (int t = 0; t < whole; t += kRotatedTiles)
      for (int i = 0; i < block_; i += kHadamardSize)
        rotate(x + i * x_.stride + kGroup * t, std::min(kRotatedTiles, whole - t), band.tiles[t] + kGroup * i);
  for (int t = 0; t < tiles(band); ++t) {
    float *const tile = band.tiles[t];
    const bool ready = t >= whole || options_.hadamard;
    if (t >= whole) copy(b, t, band);
    // each row is in a page of its own: the next block's rows are asked for ahead
    if (t < whole && row + 2 * block_ <= x_.rows)
      for (int i = block_; i < 2 * block_; ++i) __builtin_prefetch(x + i * x_.stride + kGroup * t, 0, 2);
    kernels_.column_amax(ready ? tile : x + kGroup * t, ready ? kGroup : x_.stride, block_, tile, band.amax[t]);
  }
}

/// 16 rows of tiles that stand side by side; halves where FP32 does not hold all of them.
void ColumnSource::rotate(const float *x, int tiles, float *to) const {
  constexpr int64_t kTile = kColumnRows * kGroup;
  if (kernels_.rotate_columns(x, x_.stride, tiles, options_.sign_mask, to, kTile)) return;
  if (tiles > 1) {
    const int half = tiles / 2;
    rotate(x, half, to);
    return rotate(x + kGroup * half, tiles - half, to + kTile * half);
  }
  rotate_turned(x, x_.stride, to);
}

/// A tile by rows, where some may need FP64 or the definition.
void ColumnSource::rotate_turned(const float *x, int64_t stride, float *to) const {
  alignas(64) float turned[kGroup * kHadamardSize];
  kernels_.transpose(x, stride, turned, kHadamardSize);
  rotate_groups(kernels_, turned, kGroup, options_.sign_mask, turned);
  kernels_.transpose(turned, kHadamardSize, to, kGroup);
}

/// A tile that the matrix does not fill.
void ColumnSource::copy(int b, int tile, ColumnBand &band) const {
  float *const to = band.tiles[tile];
  const int64_t row = band.row + b * block_, column = band.column + kGroup * tile;
  const int64_t rows = std::min<int64_t>(block_, x_.rows - row), columns = std::min<int64_t>(kGroup, x_.cols - column);
  std::fill_n(to, block_ * kGroup, 0.0f);
  for (int64_t i = 0; i < rows; ++i) std::copy_n(x_.row(row + i) + column, columns, to + kGroup * i);
  for (int64_t i = 0; options_.hadamard && i < rows; i += kHadamardSize) rotate_turned(to + kGroup * i, kGroup, to + kGroup * i);
}

/// The columns of a row are neighbours in the random sequence, from somewhere in a Philox block on.
void ColumnSource::load_random(int b, ColumnBand &band) const {
  const auto [elements, bytes] = random_unit(options_);
  const uint64_t first = uint64_t((band.row + b * block_) * x_.cols + band.column), step = uint64_t(x_.cols);
  const bool whole = step % unsigned(elements) == 0; // rows begin with a Philox block
  const int count = kBandColumns / elements + (whole ? 0 : 1);
  uint64_t index[kColumnRows * (kBandColumns / 4 + 1)];
  for (int i = 0; i < block_; ++i) {
    const uint64_t of_row = (first + unsigned(i) * step) / unsigned(elements);
    for (int j = 0; j < count; ++j) index[i * count + j] = of_row + unsigned(j);
  }
  alignas(64) uint8_t drawn[sizeof(band.random) + kColumnRows * 16];
  kernels_.philox(options_.key.seed, options_.key.offset, index, block_ * count, whole ? band.random : drawn);
  if (whole) return;
  const int64_t stride = kBandColumns * bytes;
  for (int i = 0; i < block_; ++i)
    std::memcpy(band.random + i * stride,
                drawn + i * count * 16 + int64_t((first + unsigned(i) * step) % unsigned(elements)) * bytes, size_t(stride));
}

void ColumnSource::ask_for_output(int b, const ColumnBand &band, const BlockScaled &out) const {
  const int bits = format(element_).storage_bits, exist = blocks(band);
  const int64_t width = exist * block_ * bits / 8;
  for (int64_t c = band.columns * b / exist; c < band.columns * (b + 1) / exist; ++c) {
    const uint8_t *const codes = out.codes.data() + (band.column + c) * out.row_bytes() + band.row * bits / 8;
    for (int64_t byte = 0; byte < width; byte += 64) __builtin_prefetch(codes + byte, 1, 2);
    __builtin_prefetch(codes + width - 1, 1, 2);
    __builtin_prefetch(out.scales.data() + (band.column + c) * out.scale_cols() + band.row / block_, 1, 2);
  }
}

void ColumnSource::store(const ColumnBand &band, BlockScaled &out) const {
  const int bits = format(element_).storage_bits, exist = blocks(band);
  const int64_t width = exist * block_ * bits / 8, first = band.row * bits / 8, first_block = band.row / block_;
  for (int64_t c = 0; c < band.columns; c += kGroup) {
    const int64_t rows = std::min<int64_t>(kGroup, band.columns - c);
    uint8_t *const scales = out.scales.data() + (band.column + c) * out.scale_cols() + first_block;
    uint8_t *const codes = out.codes.data() + (band.column + c) * out.row_bytes() + first;
    const bool whole = rows == kGroup;
    alignas(64) uint8_t turned[kGroup * 64];
    if (whole && exist == kGroup) {
      kernels_.transpose_bytes(band.scales[0] + c, kBandColumns, scales, out.scale_cols());
    } else {
      kernels_.transpose_bytes(band.scales[0] + c, kBandColumns, turned, kGroup);
      for (int64_t r = 0; r < rows; ++r) std::copy_n(turned + r * kGroup, exist, scales + r * out.scale_cols());
    }
    for (int64_t byte = 0; byte < width; byte += 64) {
      const float *const words = reinterpret_cast<const float *>(band.codes[byte / 4] + c);
      if (whole && byte + 64 <= width) {
        kernels_.transpose(words, kBandColumns, reinterpret_cast<float *>(codes + byte), out.row_bytes() / 4);
        continue;
      }
      kernels_.transpose(words, kBandColumns, reinterpret_cast<float *>(turned), kGroup);
      for (int64_t r = 0; r < rows; ++r)
        std::copy_n(turned + r * 64, std::min<int64_t>(64, width - byte), codes + byte + r * out.row_bytes());
    }
  }
}

} // namespace nvfp4::quant
