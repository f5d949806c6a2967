// SPDX-License-Identifier: Apache-2.0
// The factor that undoes the global scales of two operands, from what their quantization left on the device.
#include "nvfp4/emulator/quantize/global_alpha.hpp"
#include "nvfp4/gpu/emulated/quantize_detail.cuh"

namespace nvfp4::cuda {
namespace {

__global__ void alpha_kernel(Rule rule_a, Rule rule_b, const GlobalScale *a, const GlobalScale *b,
                             float alpha, float *out) {
  // a level per row counts with amax 1, whatever the rows have
  const auto share = [](const Rule &r, const GlobalScale *g) {
    const bool one = r.global != GlobalRule::none && !r.per_row;
    return alpha_share(r, one ? g->amax : 1.0f, one ? g->decode : 1.0f);
  };
  *out = combined_alpha(AlphaRule::by_convention, share(rule_a, a), share(rule_b, b), alpha);
}

} // namespace

void global_alpha(const DeviceBlockScaled &a, const DeviceBlockScaled &b, float alpha, float *out,
                  cudaStream_t stream) {
  for (const DeviceBlockScaled *q : {&a, &b}) (void)global_factor(q->info); // refuses what no unit multiplies
  alpha_kernel<<<1, 1, 0, stream>>>(find_convention(a.info.convention).rule,
                                    find_convention(b.info.convention).rule, a.global(), b.global(), alpha,
                                    out);
  check_launch("alpha_kernel");
}

} // namespace nvfp4::cuda
