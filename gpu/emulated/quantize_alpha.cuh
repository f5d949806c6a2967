// SPDX-License-Identifier: Apache-2.0
// The factor that undoes the global scales of two operands, in a kernel.
#pragma once
#include "nvfp4/emulator/quantize/global_alpha.hpp"
#include "nvfp4/gpu/emulated/quantize_detail.cuh"

namespace nvfp4::cuda {

struct AlphaSource {
  Rule rule_a, rule_b;
  const GlobalScale *a, *b;
};
[[nodiscard]] inline AlphaSource alpha_source(const DeviceBlockScaled &a, const DeviceBlockScaled &b) {
  for (const DeviceBlockScaled *q : {&a, &b}) (void)global_factor(q->info); // refuses what no unit multiplies
  return {find_convention(a.info.convention).rule, find_convention(b.info.convention).rule, a.global(),
          b.global()};
}

[[nodiscard]] __device__ inline float alpha_of(const AlphaSource &s, float alpha) {
  // a level per row counts with amax 1, whatever the rows have
  const auto share = [](const Rule &r, const GlobalScale *g) {
    const bool one = has_tensor_level(r);
    return alpha_share(r, one ? g->amax : 1.0f, one ? g->decode : 1.0f);
  };
  return combined_alpha(AlphaRule::by_convention, share(s.rule_a, s.a), share(s.rule_b, s.b), alpha);
}

} // namespace nvfp4::cuda
