// SPDX-License-Identifier: Apache-2.0
// add_error of block_rule.hpp over whole blocks, one block per vector lane. Included by the files of one
// instruction set each, which pass their vector type V; private to each of them. Internal.
#pragma once
#include "nvfp4/emulator/quantize/kernels.hpp"

namespace nvfp4::quant {
namespace {

/// The sums of one vector of blocks: x[i * kGroup] holds element i of each.
template <class V>
typename V::F error_sums(const ErrorRule &rule, const float *x, typename V::F factor, typename V::F scale) {
  using F = typename V::F;
  F sum = V::broadcast(0.0f);
  for (int i = 0; i < 16; ++i) {
    const F v = V::load(x + i * kGroup);
    const F t = V::min(V::magnitude(V::mul(v, factor)), V::broadcast(6.0f));
    // 2^(e+22), whose ulp is E2M1's step in the binade e >= 0 of t: the sum rounds to it
    const F m = V::as_float(V::add(V::exponent_field(V::max(t, V::broadcast(1.0f))), V::broadcast(22 << 23)));
    const F value = V::with_sign_of(V::sub(V::add(t, m), m), v);
    const F decoded = V::div(V::mul(V::mul(value, scale), V::broadcast(rule.amax)), V::broadcast(rule.range));
    const F d = V::sub(decoded, v);
    sum = !rule.squared ? V::add(sum, V::magnitude(d))
          : rule.fused  ? V::fma(d, d, sum)
                        : V::add(sum, V::mul(d, d));
  }
  return sum;
}

} // namespace
} // namespace nvfp4::quant
