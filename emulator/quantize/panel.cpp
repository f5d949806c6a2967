// SPDX-License-Identifier: Apache-2.0
// Loads panels: pointers into the matrix where it can be read as it is, copies otherwise.
#include "nvfp4/emulator/quantize/panel.hpp"

#include <algorithm>
#include <cstring>

namespace nvfp4::quant {
namespace {

constexpr int kTileSide = 16;

/// Elements of one Philox block and bytes of one element.
struct RandomUnit {
  int elements, bytes;
};
RandomUnit random_unit(const QuantizeOptions &o) {
  return o.rounding == ElementRounding::sr_exact ? RandomUnit{4, 4} : RandomUnit{16, 1};
}

} // namespace

PanelSource::PanelSource(MatrixView<const float> x, const Rule &rule, const QuantizeOptions &options,
                         const Kernels &kernels)
    : x_(x), options_(options), kernels_(kernels) {
  const bool transposed = options.axis == Axis::col;
  shape_ = {transposed ? x.cols : x.rows, transposed ? x.rows : x.cols};
  shape_.group = kGroup * rule.block;
  shape_.strip = transposed || options.block_rows > 1 ? kPanelRows : 1;
  shape_.flat = shape_.strip == 1 && x.stride == x.cols && x.cols % rule.block == 0 && !rule.per_row;
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
    if (options_.hadamard) rotate(x, panel.width / kHadamardSize, to);
    return;
  }
  std::copy_n(x, panel.width, to);
  std::fill(to + panel.width, to + shape_.group, 0.0f);
  if (options_.hadamard) rotate(to, panel.width / kHadamardSize, to);
}

void PanelSource::load_transposed(Panel &panel) const {
  const int whole = panel.rows == kTileSide ? panel.width / kTileSide * kTileSide : 0;
  for (int i = 0; i < whole; i += kTileSide)
    kernels_.transpose(x_.row(panel.first + i) + panel.first_row, x_.stride, panel.buffer + i, kBufferRow);
  for (int r = 0; r < panel.rows; ++r) {
    float *const to = panel.buffer + r * kBufferRow;
    panel.x[r] = to;
    for (int i = whole; i < panel.width; ++i) to[i] = x_(panel.first + i, panel.first_row + r);
    std::fill(to + panel.width, to + shape_.group, 0.0f);
    if (options_.hadamard) rotate(to, panel.width / kHadamardSize, to);
  }
}

void PanelSource::rotate(const float *x, int groups, float *rotated) const {
  const uint32_t left = kernels_.rotate(x, groups, options_.sign_mask, rotated);
  if (left == 0) return;
  for (int g = 0; g < groups; ++g) {
    if ((left >> g & 1) == 0) continue;
    float values[kHadamardSize];
    std::copy_n(rotated + g * kHadamardSize, kHadamardSize, values);
    rotate16(values, options_.sign_mask);
    std::copy_n(values, kHadamardSize, rotated + g * kHadamardSize);
  }
}

void PanelSource::load_random(Panel &panel) const {
  if (options_.axis == Axis::col) {
    for (int i = 0; i < panel.width; i += kTileSide) random_transposed(i, panel);
    for (int r = 0; r < panel.rows; ++r) panel.random[r] = panel.noise + r * kRandomRow;
    return;
  }
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
