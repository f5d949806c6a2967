// SPDX-License-Identifier: Apache-2.0
// The factor that undoes the global scales of two operands, from what their quantization left on the device.
#include "nvfp4/gpu/emulated/quantize_detail.cuh"

namespace nvfp4::cuda {
namespace {

/// An operand's part in alpha, as emulator/quantize/global_alpha.cpp has it.
struct AlphaShare {
  const GlobalScale *global; ///< null: no second level that counts
  float range, decode;
  bool follows_amax;
};

__global__ void alpha_kernel(AlphaShare a, AlphaShare b, float alpha, float *out) {
  const auto amax_of = [](const AlphaShare &s) { return s.global == nullptr ? 1.0f : s.global->amax; };
  const auto decode_of = [](const AlphaShare &s) {
    return s.global == nullptr ? s.decode : s.global->decode;
  };
  const float x = amax_of(a), y = amax_of(b);
  if (!a.follows_amax || !b.follows_amax || x != x || y != y) {
    *out = alpha * (decode_of(a) * decode_of(b));
    return;
  }
  const float factor = a.range * b.range;
  *out = alpha * x * y * (1.0f / factor);
}

AlphaShare share_of(const DeviceBlockScaled &q) {
  const Rule &r = find_convention(q.info.convention).rule;
  if (r.global == GlobalRule::none) return {nullptr, 1.0f, 1.0f, false};
  const float range = 6.0f * r.e4m3_max;
  if (r.per_row) return {nullptr, range, 1.0f / range, r.global == GlobalRule::te};
  return {q.global(), range, 0.0f, r.global == GlobalRule::te};
}

} // namespace

void global_alpha(const DeviceBlockScaled &a, const DeviceBlockScaled &b, float alpha, float *out,
                  cudaStream_t stream) {
  alpha_kernel<<<1, 1, 0, stream>>>(share_of(a), share_of(b), alpha, out);
  check_launch("alpha_kernel");
}

} // namespace nvfp4::cuda
