// SPDX-License-Identifier: Apache-2.0
// Quantization on the device: the bytes of emulator/quantize for every convention and option, from and to
// device memory.
#pragma once
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/gpu/device/device.hpp"
#include "nvfp4/gpu/emulated/gemm.hpp"

#include <span>

namespace nvfp4::cuda {

/// A block-scaled tensor in device memory. Its description is a BlockScaled without its vectors; codes and
/// scales lie as documented there. Reusing one over calls reuses its memory.
struct DeviceBlockScaled {
  BlockScaled info;     ///< codes, scales, row_amax and the three global words are not set here
  DeviceBuffer codes;   ///< (rows, padded_k)
  DeviceBuffer scales;  ///< (rows, padded_k / block), or 128x4 tiles
  DeviceBuffer globals; ///< GlobalScale: one, or one per row where the convention scales rows
  DeviceBuffer maxima;  ///< scratch: maxima of the tensor or of rows; zeros but within a call
  DeviceBuffer left;    ///< scratch: blocks that the definition computes
  bool per_row = false;

  /// What a product reads; the scales must be linear.
  [[nodiscard]] DeviceOperand operand() const {
    return {info.element, info.rows, info.k, info.padded_k, codes.as<uint8_t>(), scales.as<uint8_t>()};
  }
  [[nodiscard]] const GlobalScale *global() const { return globals.as<GlobalScale>(); }
  /// The same tensor in host memory; waits for the stream.
  [[nodiscard]] BlockScaled download(cudaStream_t stream) const;
};

/// What is done to x before anything else.
struct Intake {
  bool round_to_bf16 = false; ///< NaN becomes 0x7FFF0000
  int64_t zero_rows = 0;      ///< rows of +0 after those of x, which need not be there; for Axis::col
};

/// Quantizes x (rows, cols), `stride` elements from row to row, on the stream. Options are
/// emulator/quantize's with the same refusals; `threads` is not read. device_amax, when given, is the amax in
/// device memory (options.global_amax and global_scale must be empty then). Nothing is waited for.
void quantize(const float *x, int64_t rows, int64_t cols, int64_t stride, const Convention &convention,
              const QuantizeOptions &options, DeviceBlockScaled &out, cudaStream_t stream,
              const float *device_amax = nullptr, const Intake &intake = {});

/// Arguments of quantize(), which `out`, x and the convention outlive.
struct QuantizeRequest {
  const float *x;
  int64_t rows, cols, stride;
  const Convention *convention;
  QuantizeOptions options;
  Intake intake;
  DeviceBlockScaled *out;
};
/// Quantizes tensors that do not depend on each other, as quantize() would one by one; those of at most 2^17
/// elements in whole blocks, scales in the linear layout, share launches, up to 16 of them: one finds levels,
/// one for each rule and rounding makes codes, one does over what is left. Returns how many went that way.
/// The others use `maxima` and `left` for what each tensor has of its own in quantize().
int64_t quantize_all(std::span<const QuantizeRequest> requests, DeviceBuffer &maxima, DeviceBuffer &left,
                     cudaStream_t stream);

/// emulator/quantize/dequantize.hpp's values to `out`, FP32 in the orientation of what was quantized. NaN has
/// the GPU's word. Nothing is checked: q is quantize()'s, or of its form.
void dequantize(const DeviceBlockScaled &q, bool undo_hadamard, float *out, cudaStream_t stream);

/// Scales in the linear layout, (rows, padded_k / block), to `out`.
void linear_scales(const DeviceBlockScaled &q, uint8_t *out, cudaStream_t stream);

/// Writes emulator/quantize/global_alpha.hpp's factor of two operands to device memory, from their
/// device-resident globals, by the rule that their conventions imply (AlphaRule::by_convention).
void global_alpha(const DeviceBlockScaled &a, const DeviceBlockScaled &b, float alpha, float *out,
                  cudaStream_t stream);

/// max |x| of a matrix into *out on the device, NaN elements ignored, as TransformerEngine takes it.
void amax(const float *x, int64_t rows, int64_t cols, int64_t stride, float *out, DeviceBuffer &scratch,
          cudaStream_t stream);

} // namespace nvfp4::cuda
