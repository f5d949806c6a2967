// SPDX-License-Identifier: Apache-2.0
// Chunkwise gated linear attention on Hopper's tensor cores, whose every output word is the one that
// reference_models/bf16_mixers/gla.hpp defines with the unit `sm_90:mma.m16n8k16.f32.bf16`.
#pragma once
#include "nvfp4/reference_models/bf16_mixers/gla.hpp"

#include <cuda_runtime.h>

namespace nvfp4::cuda {

/// Inputs in device memory, laid out as in the definition, 16-byte aligned.
struct GlaInputs {
  const uint16_t *q, *k, *v; ///< BF16
  const float *g;
};

/// What forward keeps for backward, and what backward adds: one piece of device memory that the caller owns,
/// 16-byte aligned, of gla_workspace_bytes().
struct GlaWorkspace {
  float *decay;
  uint16_t *q_decayed, *k_decayed, *scores, *states;
  uint16_t *state_grads; ///< null without backward
  float *score_grads;    ///< null without backward
};
[[nodiscard]] int64_t gla_workspace_bytes(const models::bf16_gla::Shape &shape, bool backward);
[[nodiscard]] GlaWorkspace gla_workspace(const models::bf16_gla::Shape &shape, void *memory, bool backward);

/// o in FP32 or rounded to BF16: one of the two is not null. Asynchronous on `stream`. Throws Error for a
/// shape that the definition refuses, a pointer that is not aligned, or a GPU of another compute capability
/// than 9.0.
void gla_forward(const models::bf16_gla::Shape &shape, const GlaInputs &in, const GlaWorkspace &work,
                 float *o, uint16_t *o_bf16, cudaStream_t stream);

/// FP32, as the inputs.
struct GlaGradients {
  float *dq, *dk, *dv, *dg;
};

/// After gla_forward of the same inputs with the same workspace. grad_o: BF16, as v.
void gla_backward(const models::bf16_gla::Shape &shape, const GlaInputs &in, const uint16_t *grad_o,
                  const GlaWorkspace &work, const GlaGradients &out, cudaStream_t stream);

} // namespace nvfp4::cuda
