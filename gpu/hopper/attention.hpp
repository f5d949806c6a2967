// SPDX-License-Identifier: Apache-2.0
// Softmax attention on Hopper's tensor cores, forward and backward, with the bits of
// reference_models/bf16_mixers/attention.hpp.
#pragma once
#include "nvfp4/reference_models/bf16_mixers/attention.hpp"

#include <cuda_runtime.h>

#include <cstdint>

namespace nvfp4::cuda {

/// All pointers are device memory, 16-byte aligned where they are not null, laid out as the definition has
/// them. o and o32 may be null, not both; lse2 may be null. Asynchronous on `stream`. Throws Error for
/// shapes that the definition refuses, unaligned operands, or a GPU that is not of compute capability 9.0.
void attention_forward(const models::tensorcore::AttentionShape &shape, const uint16_t *q, const uint16_t *k,
                       const uint16_t *v, uint16_t *o, float *o32, float *lse2, cudaStream_t stream);

/// grad_q, grad_k, grad_v: FP32 words. Takes 8 bytes per query row and head of stream-ordered memory. No
/// atomics: the same bits in every run.
void attention_backward(const models::tensorcore::AttentionShape &shape, const uint16_t *q, const uint16_t *k,
                        const uint16_t *v, const uint16_t *o, const float *lse2, const uint16_t *grad_o,
                        float *grad_q, float *grad_k, float *grad_v, cudaStream_t stream);

} // namespace nvfp4::cuda
