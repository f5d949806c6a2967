// SPDX-License-Identifier: Apache-2.0
// BF16 GEMM by wgmma m64n128k16 and m64n256k16.
#include "nvfp4/gpu/hopper/gemm_bf16.hpp"

#include "nvfp4/gpu/hopper/gemm_tiles.cuh"

namespace nvfp4::cuda {

void gemm_bf16(const uint16_t *a, const uint16_t *b, int64_t m, int64_t n, int64_t k, int64_t lda,
               int64_t ldb, float alpha, const float *bias, Epilogue epilogue, float *out,
               cudaStream_t stream) {
  const hopper::Operand left{a, m, k, lda, 2}, right{b, n, k, ldb, 2};
  hopper::check_product("gemm_bf16", left, right, 9);
  const hopper::AlignedOperand x(left, stream), y(right, stream);
  hopper::launch<hopper::Bf16>(x.get(), y.get(), {m, n, 0, 0, alpha, bias, epilogue, out}, stream);
}

} // namespace nvfp4::cuda
