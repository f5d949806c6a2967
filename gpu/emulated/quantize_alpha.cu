// SPDX-License-Identifier: Apache-2.0
// The factor that undoes the global scales of two operands, from what their quantization left on the device.
#include "nvfp4/gpu/emulated/quantize_alpha.cuh"

namespace nvfp4::cuda {
namespace {

__global__ void alpha_kernel(const __grid_constant__ AlphaSource source, float alpha, float *out) {
  *out = alpha_of(source, alpha);
}

} // namespace

void global_alpha(const DeviceBlockScaled &a, const DeviceBlockScaled &b, float alpha, float *out,
                  cudaStream_t stream) {
  alpha_kernel<<<1, 1, 0, stream>>>(alpha_source(a, b), alpha, out);
  check_launch("alpha_kernel");
}

} // namespace nvfp4::cuda
