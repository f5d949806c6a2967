// SPDX-License-Identifier: Apache-2.0
// Quantization to NVFP4 by the hardware's own conversions: the `te` convention, 1x16 blocks along rows. To
// give the bytes of cuda::quantize and emulator/quantize. Compiled and inspected; not yet run.
#pragma once
#include "nvfp4/gpu/blackwell/rbits.hpp"
#include "nvfp4/gpu/emulated/quantize.hpp"

namespace nvfp4::cuda::blackwell {

struct CvtOptions {
  ScaleLayout layout = ScaleLayout::linear;
  /// nearest: cvt.rn.satfinite.e2m1x2 (sm_100a, 103a, 110a, 120a, 121a). sr_carry8: cvt.rs.satfinite.e2m1x4
  /// (sm_100a and 103a), whose order of random bits must be given: device_rbits_map() finds it.
  ElementRounding rounding = ElementRounding::nearest;
  RandomKey key = {}; ///< random bits of element (r, c) are those of index r * cols + c
  RbitsMap rbits = rbits_sm103();
};

/// x (rows, cols) in device memory, `stride` elements from row to row. device_amax: the tensor's maximum in
/// device memory, or null to find it. Nothing is waited for. Throws Error where the device or the build lacks
/// the instructions, or for another rounding.
void quantize_cvt(const float *x, int64_t rows, int64_t cols, int64_t stride, const CvtOptions &options,
                  DeviceBlockScaled &out, cudaStream_t stream, const float *device_amax = nullptr);

/// Runs rbits_probes() on the device. Nothing when no order explains the results; Error without the
/// instruction.
[[nodiscard]] std::optional<RbitsMap> device_rbits_map();

} // namespace nvfp4::cuda::blackwell
