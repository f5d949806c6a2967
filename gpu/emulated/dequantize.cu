// SPDX-License-Identifier: Apache-2.0
// What a block-scaled tensor on the device means: the loops of emulator/quantize/dequantize.cpp, a thread for
// each 16 elements of a row, and its scales row by row.
#include "nvfp4/emulator/quantize/hadamard.hpp"
#include "nvfp4/gpu/emulated/quantize_detail.cuh"

#include <algorithm>

namespace nvfp4::cuda {
namespace {

constexpr int kThreads = 256;

struct Reading {
  Rule rule;
  int64_t rows, k, padded_k;
  bool tiled_scales, transposed, rotated, per_row;
  uint16_t signs;
  const uint8_t *codes, *scales;
  const GlobalScale *globals;

  [[nodiscard]] NVFP4_HD int64_t scale_cols() const { return padded_k / rule.block; }
  [[nodiscard]] NVFP4_HD uint8_t scale(int64_t r, int64_t b) const {
    return scales[tiled_scales ? scale_offset_128x4(r, b, scale_cols()) : r * scale_cols() + b];
  }
};

Reading reading_of(const DeviceBlockScaled &q) {
  const BlockScaled &info = q.info;
  return {.rule = find_convention(info.convention).rule,
          .rows = info.rows,
          .k = info.k,
          .padded_k = info.padded_k,
          .tiled_scales = info.layout == ScaleLayout::tiled_128x4,
          .transposed = info.axis == Axis::col,
          .rotated = info.hadamard,
          .per_row = q.per_row,
          .signs = info.sign_mask,
          .codes = q.codes.as<uint8_t>(),
          .scales = q.scales.as<uint8_t>(),
          .globals = q.global()};
}

__global__ void values_kernel(const __grid_constant__ Reading q, float *out) {
  const int64_t groups = (q.k + kHadamardSize - 1) / kHadamardSize, step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t t = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; t < q.rows * groups; t += step) {
    // neighbours write side by side: along a row, or down the rows of a transposed tensor
    const int64_t r = q.transposed ? t % q.rows : t / groups,
                  first = (q.transposed ? t / q.rows : t % groups) * kHadamardSize;
    const GlobalScale global = q.globals[q.per_row ? r : 0];
    const CodeView codes{q.codes + r * q.padded_k * format(q.rule.element).storage_bits / 8,
                         format(q.rule.element).storage_bits};
    const int width = int(min(int64_t(kHadamardSize), q.k - first));
    float values[kHadamardSize] = {};
    for (int i = 0; i < width; ++i)
      values[i] =
          decode_element(q.rule, uint8_t(codes[first + i]), q.scale(r, (first + i) / q.rule.block), global);
    if (q.rotated) rotate16_back(values, q.signs);
    for (int i = 0; i < width; ++i)
      out[q.transposed ? (first + i) * q.rows + r : r * q.k + first + i] = values[i];
  }
}

__global__ void scales_kernel(const __grid_constant__ Reading q, uint8_t *out) {
  const int64_t cols = q.scale_cols(), step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t t = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; t < q.rows * cols; t += step)
    out[t] = q.scale(t / cols, t % cols);
}

/// Blocks of threads that go through n items.
unsigned grid_for(int64_t n) { return unsigned(std::min<int64_t>(1 << 20, (n + kThreads - 1) / kThreads)); }

} // namespace

void dequantize(const DeviceBlockScaled &q, bool undo_hadamard, float *out, cudaStream_t stream) {
  Reading reading = reading_of(q);
  reading.rotated = reading.rotated && undo_hadamard;
  const int64_t groups = (reading.k + kHadamardSize - 1) / kHadamardSize;
  if (reading.rows * groups == 0) return;
  values_kernel<<<grid_for(reading.rows * groups), kThreads, 0, stream>>>(reading, out);
  check_launch("values_kernel");
}

void linear_scales(const DeviceBlockScaled &q, uint8_t *out, cudaStream_t stream) {
  const Reading reading = reading_of(q);
  const int64_t scales = reading.rows * reading.scale_cols();
  if (scales == 0) return;
  scales_kernel<<<grid_for(scales), kThreads, 0, stream>>>(reading, out);
  check_launch("scales_kernel");
}

} // namespace nvfp4::cuda
