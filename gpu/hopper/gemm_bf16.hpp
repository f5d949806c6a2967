// SPDX-License-Identifier: Apache-2.0
// BF16 GEMMs on the tensor cores themselves. D (M,N) = A (M,K) * B (N,K)^T, every output the chain of
// instructions in increasing K from +0, whatever the shape: never split along K.
#pragma once
#include "nvfp4/emulator/gemm/epilogue.hpp"

#include <cuda_runtime.h>

#include <cstdint>

namespace nvfp4::cuda {

/// wgmma (compute capability 9.0): the accumulators of `sm_90:wgmma.k16.f32.bf16`. a, b: BF16 words in device
/// memory, row r at a + r * lda. bias: (N) in device memory or null. out: (M,N) FP32 words, contiguous; each
/// becomes finish(epilogue, alpha, acc, out, bias). Rows that are not 16-byte aligned are copied first.
/// Asynchronous on `stream`. Throws Error for sizes that do not fit or another GPU.
void gemm_bf16(const uint16_t *a, const uint16_t *b, int64_t m, int64_t n, int64_t k, int64_t lda,
               int64_t ldb, float alpha, const float *bias, Epilogue epilogue, float *out,
               cudaStream_t stream);

/// The same by mma.sync m16n8k16 (compute capability 8.0 and newer): the accumulators of that GPU's
/// `mma.m16n8k16.f32.bf16`.
void gemm_bf16_mma(const uint16_t *a, const uint16_t *b, int64_t m, int64_t n, int64_t k, int64_t lda,
                   int64_t ldb, float alpha, const float *bias, Epilogue epilogue, float *out,
                   cudaStream_t stream);

} // namespace nvfp4::cuda
