// SPDX-License-Identifier: Apache-2.0
// FP8 GEMMs on Hopper's wgmma. D (M,N) = A (M,K) * B (N,K)^T, every output the chain of instructions in
// increasing K from +0 in the tensor core's own 14-bit accumulator: no promotion, never split along K.
#pragma once
#include "nvfp4/emulator/formats/format.hpp"
#include "nvfp4/emulator/gemm/epilogue.hpp"

#include <cuda_runtime.h>

#include <cstdint>

namespace nvfp4::cuda {

/// Compute capability 9.0: the accumulators of `sm_90:wgmma.k32.f32.FORMAT_A.FORMAT_B`; each format is e4m3
/// or e5m2. a, b: bytes in device memory, row r at a + r * lda. Else as gemm_bf16().
void gemm_fp8(FormatId format_a, FormatId format_b, const uint8_t *a, const uint8_t *b, int64_t m, int64_t n,
              int64_t k, int64_t lda, int64_t ldb, float alpha, const float *bias, Epilogue epilogue,
              float *out, cudaStream_t stream);

} // namespace nvfp4::cuda
