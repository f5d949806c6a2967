// SPDX-License-Identifier: Apache-2.0
// The launches that GLA's forward and backward consist of. All pointers are device memory; layouts as in
// reference_models/bf16_mixers/gla.hpp. Sizes were checked by the caller.
#pragma once
#include "nvfp4/reference_models/bf16_mixers/gla.hpp"

#include <cuda_runtime.h>

namespace nvfp4::cuda::gla {

using models::bf16_gla::Shape;

/// Decayed operands and scores, one block a chunk. Blocks of scores above the diagonal are not written.
struct Prepare {
  Shape shape;
  const uint16_t *q, *k;
  const float *g;
  uint16_t *q_decayed, *k_decayed, *scores;
  float *decay;
};
void launch(const Prepare &p, cudaStream_t stream);

/// The pass over a sequence's chunks: writes the rounded state, then state = decay state + x^T y. Forward: x
/// = k_decayed, y = v in increasing order; backward: x = q_decayed, y = grad_o in decreasing order.
struct States {
  Shape shape;
  const uint16_t *x, *y;
  const float *decay;
  uint16_t *states;
  bool backward;
};
void launch(const States &p, cudaStream_t stream);

/// out = scale (x state + A y), or with A^T for backward's dv. One of the two outputs is given.
struct Outputs {
  Shape shape;
  const uint16_t *x, *states, *scores, *y;
  float *out;
  uint16_t *out_bf16;
  bool backward;
};
void launch(const Outputs &p, cudaStream_t stream);

/// score_grads = grad_o v^T on and below the diagonal; blocks above it are not written.
struct ScoreGrads {
  Shape shape;
  const uint16_t *v, *grad_o;
  float *score_grads;
};
void launch(const ScoreGrads &p, cudaStream_t stream);

/// dq, dk, dg. One block a chunk and 64 channels of the key.
struct InputGrads {
  Shape shape;
  const uint16_t *q, *k, *v, *grad_o;
  const float *g;
  const uint16_t *states, *state_grads;
  const float *score_grads;
  float *dq, *dk, *dg;
};
void launch(const InputGrads &p, cudaStream_t stream);

} // namespace nvfp4::cuda::gla
