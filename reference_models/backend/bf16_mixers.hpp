// SPDX-License-Identifier: Apache-2.0
// Token mixers in the arithmetic of tensor cores, for recipes with "mixers": "bf16". What they compute, to
// the last bit, is tensorcore/gla.hpp and tensorcore/attention.hpp; here is what a layer calls on either
// device. All arrays are FP32 words in the backend's memory; q, k, v and grad_o are rounded to BF16, to
// nearest even.
#pragma once
#include "nvfp4/reference_models/bf16_mixers/attention.hpp"
#include "nvfp4/reference_models/bf16_mixers/gla.hpp"

#include <memory>

namespace nvfp4::models {

/// The GLA of one layer with what it keeps between forward and backward.
class Bf16Gla {
public:
  virtual ~Bf16Gla() = default;
  virtual void forward(const float *q, const float *k, const float *v, const float *g, float *o) = 0;
  /// After forward, whose g must still be there.
  virtual void backward(const float *g, const float *grad_o, float *dq, float *dk, float *dv, float *dg) = 0;
};

/// Softmax attention, likewise.
class Bf16Attention {
public:
  virtual ~Bf16Attention() = default;
  virtual void forward(const float *q, const float *k, const float *v, float *o) = 0;
  /// After forward.
  virtual void backward(const float *grad_o, float *dq, float *dk, float *dv) = 0;
};

/// Throws Error, naming caller and unit, unless the unit has the bits of `sm_90:wgmma.k16.f32.bf16`:
/// attention and the GPU have no others.
void require_hopper_bits(const char *caller, const Unit &unit);

/// On the CPU: the definitions themselves, with so many threads and on that instruction set.
[[nodiscard]] std::unique_ptr<Bf16Gla> make_cpu_bf16_gla(const bf16_gla::Shape &shape, const Unit &unit,
                                                         int threads, Isa isa);
[[nodiscard]] std::unique_ptr<Bf16Attention> make_cpu_bf16_attention(const tensorcore::AttentionShape &shape,
                                                                     const Unit &unit, int threads, Isa isa);

} // namespace nvfp4::models
