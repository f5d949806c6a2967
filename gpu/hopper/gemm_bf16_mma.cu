// SPDX-License-Identifier: Apache-2.0
// BF16 GEMM by mma.sync m16n8k16, for every GPU from sm_80 on.
#include "nvfp4/gpu/hopper/gemm_bf16.hpp"
#include "nvfp4/gpu/hopper/mma_tiles.cuh"

namespace nvfp4::cuda {
namespace {

struct Finish {
  int64_t n;
  float alpha;
  const float *bias;
  Epilogue epilogue;
  float *out;

  __device__ void operator()(int64_t row, int64_t col, uint32_t word) const {
    const bool reads = epilogue.into != Epilogue::Into::overwrite;
    float &to = out[row * n + col];
    to = finish(epilogue, alpha, __uint_as_float(word), reads ? to : 0.0f, bias ? bias + col : nullptr);
  }
};

} // namespace

void gemm_bf16_mma(const uint16_t *a, const uint16_t *b, int64_t m, int64_t n, int64_t k, int64_t lda,
                   int64_t ldb, float alpha, const float *bias, Epilogue epilogue, float *out,
                   cudaStream_t stream) {
  const hopper::Operand left{a, m, k, lda, 2}, right{b, n, k, ldb, 2};
  hopper::check_product("gemm_bf16_mma", left, right, 8);
  if (m == 0 || n == 0) return;
  const hopper::AlignedOperand x(left, stream), y(right, stream);
  hopper::launch_mma<hopper::mma::Bf16K16>(x.get(), y.get(), Finish{n, alpha, bias, epilogue, out}, stream);
}

} // namespace nvfp4::cuda
