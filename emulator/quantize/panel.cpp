// SPDX-License-Identifier: Apache-2.0
// Loads panels: pointers into the matrix where it can be read as it is, copies otherwise.
#include "nvfp4/emulator/quantize/panel.hpp"

#include <algorithm>
#include <cstring>

namespace nvfp4::quant {
namespace {

constexpr int kTileSide = 16;

} // namespace

void rotate_groups(const Kernels &kernels, const float *x, int groups, uint16_t signs, float *rotated) {
  const uint32_t left = kernels.rotate(x, groups, signs, rotated);
  if (left == 0) return;
  for (int g = 0; g < groups; ++g) {
    if ((left >> g & 1) == 0) continue;
    float values[kHadamardSize];
    std::copy_n(rotated + g * kHadamardSize, kHadamardSize, values);
    rotate16(values, signs);
    std::copy_n(values, kHadamardSize, rotated + g * kHadamardSize);
  }
}

PanelSource::PanelSource(MatrixView<const float> x, const Rule &rule, const QuantizeOptions &options,
                         const Kernels &kernels)
    : x_(x), options_(options), kernels_(kernels) {
  const bool transposed = options.axis == Axis::col;
  shape_ = {transposed ? x.cols : x.rows, transposed ? x.rows : x.cols};
  shape_.group = kGroup * rule.block;
  shape_.strip = transposed || options.block_rows > 1 ? kPanelRows : 1;
  shape_.flat = shape_.strip == 1 && x.stride == x.cols && x.cols % rule.block == 0 && !rule.per_row;
  if (transposed && !rule.per_row) strips_ = kStrips; // strips that are visited one after the other
  if (shape_.flat) {
    shape_.k *= shape_.rows;
    shape_.rows = 1;
  }
}

void PanelSource::load(int64_t strip, int64_t index, Panel &panel) const {
  panel.first_row = strip * shape_.strip;
  panel.rows = int(std::min<int64_t>(shape_.strip, shape_.rows - panel.first_row));
  panel.first = index * shape_.group;
  panel.width = int(std::min<int64_t>(shape_.group, shape_.k - panel.first));
  if (options_.axis == Axis::col) return load_transposed(panel);
  for (int r = 0; r < panel.rows; ++r) load_row(r, panel);
}

void PanelSource::load_row(int r, Panel &panel) const {
  const float *const x = x_.row(panel.first_row + r) + panel.first;
  float *const to = panel.buffer + r * kBufferRow;
  const bool whole = panel.width == shape_.group;
  panel.x[r] = whole && !options_.hadamard ? x : to;
  if (whole) {
    if (options_.hadamard) return rotate(x, panel.width / kHadamardSize, to);
    for (int i = 0; i < panel.width; i += kTileSide) __builtin_prefetch(x + i + kAhead);
    return;
  }
  std::copy_n(x, panel.width, to);
  std::fill(to + panel.width, to + shape_.group, 0.0f);
  if (options_.hadamard) rotate(to, panel.width / kHadamardSize, to);
}

void PanelSource::load_transposed(Panel &panel) const {
  const int64_t strip = panel.first_row / kTileSide, first = strip / strips_ * strips_ * kTileSide;
  if (panel.held_row != first || panel.held_first != panel.first) hold_strips(first, panel);
  float *const held = panel.buffer + (panel.first_row - first) * kBufferRow;
  for (int r = 0; r < panel.rows; ++r) panel.x[r] = held + r * kBufferRow;
}

/// The buffer's row r is output row first_row + r.
void PanelSource::hold_strips(int64_t first_row, Panel &panel) const {
  panel.held_row = first_row;
  panel.held_first = panel.first;
  const int rows = int(std::min<int64_t>(strips_ * kTileSide, shape_.rows - first_row));
  const int tiles = rows / kTileSide, turned = panel.width / kTileSide * kTileSide;
  for (int i = 0; i < turned; i += kTileSide) turn_tiles(first_row, tiles, i, panel);
  for (int r = 0; r < rows; ++r) {
    float *const to = panel.buffer + r * kBufferRow;
    const int done = r < tiles * kTileSide ? turned : 0;
    for (int i = done; i < panel.width; ++i) to[i] = x_(panel.first + i, first_row + r);
    std::fill(to + panel.width, to + shape_.group, 0.0f);
    if (options_.hadamard) rotate(to + done, (panel.width - done) / kHadamardSize, to + done);
  }
}

/// Elements i to i + 16 along k of the first `tiles` strips.
void PanelSource::turn_tiles(int64_t first_row, int tiles, int i, Panel &panel) const {
  constexpr int64_t kTile = kTileSide * kBufferRow;
  const float *const x = x_.row(panel.first + i) + first_row;
  float *const to = panel.buffer + i;
  for (int j = kTileSide; j < 2 * kTileSide && i + j < panel.width; ++j) // each row is in a page of its own
    for (int t = 0; t < tiles; ++t) __builtin_prefetch(x + j * x_.stride + t * kTileSide);
  for (int t = 0; t < tiles; ++t)
    kernels_.transpose(x + t * kTileSide, x_.stride, to + t * kTile, kBufferRow);
  for (int r = 0; options_.hadamard && r < tiles * kTileSide; ++r)
    rotate(to + r * kBufferRow, 1, to + r * kBufferRow);
}

Amax PanelSource::maximum_of(const float *x, int64_t n) const {
  Amax all;
  const uint32_t word = kernels_.amax(x, n);
  if (word <= kInfinity) {
    all.word = word;
    all.number = n > 0;
  } else {
    for (int64_t i = 0; i < n; ++i) all.add(x[i]);
  }
  return all;
}

Amax PanelSource::rotated_maximum(int64_t strip, int64_t index, Panel &panel) const {
  const int64_t first = index * shape_.group;
  if (shape_.strip == 1 && first + shape_.group <= shape_.k) {
    const uint32_t word =
        kernels_.rotated_amax(x_.row(strip) + first, shape_.group / kHadamardSize, options_.sign_mask);
    if (word <= kInfinity) return {word, false, true};
  }
  load(strip, index, panel);
  Amax all;
  for (int r = 0; r < panel.rows; ++r) all.merge(maximum_of(panel.x[r], panel.width));
  return all;
}

Amax PanelSource::rotated_maximum_down(int64_t first) const {
  constexpr int kTiles = 4;
  Amax all;
  for (int64_t c = 0; c < x_.cols; c += kTiles * kTileSide)
    all.merge(rotated_maximum_down(x_.row(first) + c, int(std::min<int64_t>(kTiles, (x_.cols - c) / kTileSide))));
  return all;
}

/// Of tiles that stand side by side; halves where FP32 does not hold all of them.
Amax PanelSource::rotated_maximum_down(const float *x, int tiles) const {
  const uint32_t word = kernels_.rotated_columns_amax(x, x_.stride, tiles, options_.sign_mask);
  if (word <= kInfinity) return {word, false, true};
  if (tiles > 1) {
    Amax all = rotated_maximum_down(x, tiles / 2);
    all.merge(rotated_maximum_down(x + tiles / 2 * kTileSide, tiles - tiles / 2));
    return all;
  }
  alignas(64) float turned[kTileSide * kTileSide];
  kernels_.transpose(x, x_.stride, turned, kTileSide);
  rotate(turned, kTileSide, turned);
  return maximum_of(turned, kTileSide * kTileSide);
}

void PanelSource::load_random(Panel &panel) const {
  if (options_.axis == Axis::col) return random_columns(panel);
  for (int r = 0; r < panel.rows; ++r) random_row(r, panel);
}

/// The elements of a row are neighbours in the random sequence too, from somewhere in a Philox block on.
void PanelSource::random_row(int r, Panel &panel) const {
  const auto [elements, bytes] = random_unit(options_);
  const uint64_t start = uint64_t((panel.first_row + r) * shape_.k + panel.first);
  const int skip = int(start % unsigned(elements));
  const int count = ((skip + shape_.group + elements - 1) / elements + 7) / 8 * 8;
  uint64_t index[kRandomRow / 16];
  for (int i = 0; i < count; ++i) index[i] = start / unsigned(elements) + unsigned(i);
  uint8_t *const to = panel.noise + r * kRandomRow;
  kernels_.philox(options_.key.seed, options_.key.offset, index, count, to);
  panel.random[r] = to + skip * bytes;
}

void PanelSource::random_columns(Panel &panel) const {
  for (int r = 0; r < panel.rows; ++r) panel.random[r] = panel.noise + r * kRandomRow;
  const auto [elements, bytes] = random_unit(options_);
  if (bytes != 1 || shape_.rows % elements != 0) {
    for (int i = 0; i < panel.width; i += kTileSide) random_transposed(i, panel);
    return;
  }
  // every 16 rows are one Philox block
  uint64_t index[kMaxGroupWidth];
  alignas(64) uint8_t drawn[kMaxGroupWidth * kTileSide];
  for (int i = 0; i < shape_.group; ++i)
    index[i] = uint64_t((panel.first + i) * shape_.rows + panel.first_row) / unsigned(elements);
  kernels_.philox(options_.key.seed, options_.key.offset, index, shape_.group, drawn);
  for (int i = 0; i < shape_.group; i += kTileSide)
    kernels_.transpose_bytes(drawn + i * kTileSide, kTileSide, panel.noise + i, kRandomRow);
}

/// 16 elements along k, 16 rows: the rows are what lies together in the random sequence.
void PanelSource::random_transposed(int i, Panel &panel) const {
  const auto [elements, bytes] = random_unit(options_);
  const bool aligned = shape_.rows % elements == 0;
  const int blocks = kTileSide / elements + (aligned ? 0 : 1);
  uint64_t start[kTileSide], index[kTileSide * 5];
  for (int j = 0; j < kTileSide; ++j) {
    start[j] = uint64_t((panel.first + i + j) * shape_.rows + panel.first_row);
    for (int b = 0; b < blocks; ++b) index[j * blocks + b] = start[j] / unsigned(elements) + unsigned(b);
  }
  alignas(64) uint8_t drawn[kTileSide * 5 * 16];
  alignas(64) uint8_t tile[kTileSide * kTileSide * 4];
  kernels_.philox(options_.key.seed, options_.key.offset, index, kTileSide * blocks, drawn);
  const int row_bytes = kTileSide * bytes;
  for (int j = 0; j < kTileSide; ++j)
    std::memcpy(tile + j * row_bytes, drawn + j * blocks * 16 + int(start[j] % unsigned(elements)) * bytes,
                size_t(row_bytes));
  uint8_t *const to = panel.noise + i * bytes;
  if (bytes == 1)
    kernels_.transpose_bytes(tile, row_bytes, to, kRandomRow);
  else
    kernels_.transpose(reinterpret_cast<const float *>(tile), kTileSide, reinterpret_cast<float *>(to),
                       kRandomRow / 4);
}

} // namespace nvfp4::quant
