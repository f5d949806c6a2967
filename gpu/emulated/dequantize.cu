// SPDX-License-Identifier: Apache-2.0
// What a block-scaled tensor on the device means, a thread for each 16 elements of a row, and its scales row
// by row.
#include "nvfp4/gpu/emulated/quantize.hpp"
#include "nvfp4/gpu/emulated/scaled_reading.hpp"

#include <algorithm>

namespace nvfp4::cuda {
namespace {

constexpr int kThreads = 256;

ScaledReading reading_of(const DeviceBlockScaled &q) {
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

__global__ void values_kernel(const __grid_constant__ ScaledReading q, float *out) {
  const int64_t step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t t = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; t < q.groups(); t += step)
    q.write_group(t, out);
}

__global__ void scales_kernel(const __grid_constant__ ScaledReading q, uint8_t *out) {
  const int64_t cols = q.scale_cols(), step = int64_t(gridDim.x) * blockDim.x;
  for (int64_t t = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; t < q.rows * cols; t += step)
    out[t] = q.scales[q.scale_at(t / cols, t % cols)];
}

/// Blocks of threads that go through n items.
unsigned grid_for(int64_t n) { return unsigned(std::min<int64_t>(1 << 20, (n + kThreads - 1) / kThreads)); }

} // namespace

void dequantize(const DeviceBlockScaled &q, bool undo_hadamard, float *out, cudaStream_t stream) {
  ScaledReading reading = reading_of(q);
  reading.rotated = reading.rotated && undo_hadamard;
  if (reading.groups() == 0) return;
  values_kernel<<<grid_for(reading.groups()), kThreads, 0, stream>>>(reading, out);
  check_launch("values_kernel");
}

void linear_scales(const DeviceBlockScaled &q, uint8_t *out, cudaStream_t stream) {
  const ScaledReading reading = reading_of(q);
  const int64_t scales = reading.rows * reading.scale_cols();
  if (scales == 0) return;
  scales_kernel<<<grid_for(scales), kThreads, 0, stream>>>(reading, out);
  check_launch("scales_kernel");
}

} // namespace nvfp4::cuda
