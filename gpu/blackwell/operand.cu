// SPDX-License-Identifier: Apache-2.0
// Brings operands into the shape that Blackwell's tensor cores read: K and rows padded, scales in 128x4
// tiles. Runs on any GPU. Not yet run.
#include "nvfp4/gpu/blackwell/fragments.hpp"
#include "nvfp4/gpu/blackwell/gemm.hpp"

#include <string>

namespace nvfp4::cuda::blackwell {
namespace {

/// One thread per 16 bytes of the padded codes.
__global__ void pad_codes(const uint8_t *from, int64_t rows, int64_t row_bytes, uint8_t *to,
                          int64_t padded_rows, int64_t padded_bytes) {
  const int64_t chunks = padded_bytes / kChunkBytes, i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= padded_rows * chunks) return;
  const int64_t row = i / chunks, first = i % chunks * kChunkBytes;
  uint32_t words[4] = {};
  for (int byte = 0; byte < kChunkBytes; ++byte)
    if (row < rows && first + byte < row_bytes)
      words[byte / 4] |= uint32_t(from[row * row_bytes + first + byte]) << (8 * (byte % 4));
  reinterpret_cast<uint4 *>(to)[i] = make_uint4(words[0], words[1], words[2], words[3]);
}

/// One thread per scale of the padded matrix (padded_rows, padded_cols).
__global__ void tile_scales_kernel(const uint8_t *from, bool tiled, int64_t rows, int64_t cols, uint8_t fill,
                                   uint8_t *to, int64_t padded_rows, int64_t padded_cols) {
  const int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= padded_rows * padded_cols) return;
  const int64_t row = i / padded_cols, col = i % padded_cols;
  const bool inside = row < rows && col < cols;
  to[scale_offset_128x4(row, col, padded_cols)] =
      inside ? from[tiled ? scale_offset_128x4(row, col, cols) : row * cols + col] : fill;
}

int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

std::string shape(const DeviceOperand &x) {
  return "[" + std::to_string(x.rows) + ", " + std::to_string(x.k) + "] " + format(x.format).name;
}

} // namespace

NativeOperand pack_native(const UnitRule &rule, const DeviceOperand &operand, ScaleLayout layout,
                          DeviceBuffer &codes, DeviceBuffer &scales, cudaStream_t stream) {
  NativeOperand n;
  n.rows = operand.rows;
  n.steps = int((operand.padded_k + kStepK - 1) / kStepK);
  n.padded_rows = round_up(operand.rows, kTileRows);
  const int64_t padded_k = round_up(operand.padded_k, kTileK), row_bytes = operand.padded_k / 2;
  n.row_bytes = padded_k / 2;
  if (n.padded_rows == operand.rows && n.row_bytes == row_bytes) {
    n.codes = operand.codes;
  } else {
    codes.reserve(n.padded_rows * n.row_bytes);
    const int64_t threads = n.padded_rows * n.row_bytes / kChunkBytes;
    if (threads > 0) {
      pad_codes<<<blocks_for(threads, 256), 256, 0, stream>>>(
          operand.codes, operand.rows, row_bytes, codes.as<uint8_t>(), n.padded_rows, n.row_bytes);
      check_launch("pad_codes");
    }
    n.codes = codes.as<uint8_t>();
  }
  const int64_t cols = operand.padded_k / rule.scale_block, padded_cols = padded_k / rule.scale_block;
  const uint8_t one = uint8_t(format(rule.scale).one());
  scales.reserve(n.padded_rows * padded_cols);
  const int64_t threads = n.padded_rows * padded_cols;
  if (threads > 0) {
    tile_scales_kernel<<<blocks_for(threads, 256), 256, 0, stream>>>(
        operand.scales, layout == ScaleLayout::tiled_128x4, operand.rows, cols, one, scales.as<uint8_t>(),
        n.padded_rows, padded_cols);
    check_launch("tile_scales_kernel");
  }
  n.scales = scales.as<uint8_t>();
  return n;
}

Product prepare(const char *name, const UnitRule &rule, const DeviceOperand &a, const DeviceOperand &b,
                const GemmOutput &output, Workspace &workspace, cudaStream_t stream, ScaleLayout layout) {
  const std::string who = std::string(name) + ": ";
  if (rule.family != Family::gst_fdpa || rule.k != kStepK ||
      (rule.scale_block != 16 && rule.scale_block != 32))
    throw Error(who + "needs an FP4 unit with a scale per 16 or 32 elements");
  for (const DeviceOperand *x : {&a, &b}) {
    if (x->format != FormatId::e2m1) throw Error(who + "needs e2m1 operands, got " + shape(*x));
    if (x->rows < 0 || x->k < 0 || x->padded_k < x->k || x->padded_k % rule.scale_block != 0)
      throw Error(who + "padded K must be a multiple of " + std::to_string(rule.scale_block) +
                  " and at least K, got " + std::to_string(x->padded_k) + " for " + shape(*x));
    if (x->scales == nullptr && x->rows * x->k > 0) throw Error(who + "both operands need block scales");
  }
  if (a.k != b.k || a.padded_k != b.padded_k)
    throw Error(who + "A and B need the same K and padded K, got " + shape(a) + " and " + shape(b));
  if (!output.accumulators && output.out != FormatId::f32 && output.out != FormatId::bf16 &&
      output.out != FormatId::f16)
    throw Error(who + "cannot write " + format(output.out).name + " output; choose f32, bf16 or f16");
  if (output.beta != 0.0f && output.c == nullptr && !output.accumulators)
    throw Error(who + "beta is not 0, but C is null");
  if (output.start != nullptr)
    throw Error(who + "chains start at +0 here; cuda::gemm continues accumulators");
  return {rule, pack_native(rule, a, layout, workspace.codes_a, workspace.scales_a, stream),
          pack_native(rule, b, layout, workspace.codes_b, workspace.scales_b, stream), output};
}

} // namespace nvfp4::cuda::blackwell
