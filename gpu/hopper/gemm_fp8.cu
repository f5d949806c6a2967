// SPDX-License-Identifier: Apache-2.0
// FP8 GEMM by wgmma m64n128k32 and m64n256k32, all four combinations of E4M3 and E5M2.
#include "nvfp4/gpu/hopper/gemm_fp8.hpp"

#include "nvfp4/emulator/config.hpp"
#include "nvfp4/gpu/hopper/gemm_tiles.cuh"

namespace nvfp4::cuda {

void gemm_fp8(FormatId format_a, FormatId format_b, const uint8_t *a, const uint8_t *b, int64_t m, int64_t n,
              int64_t k, int64_t lda, int64_t ldb, float alpha, const float *bias, Epilogue epilogue,
              float *out, cudaStream_t stream) {
  for (const FormatId f : {format_a, format_b})
    if (f != FormatId::e4m3 && f != FormatId::e5m2)
      throw Error(std::string("gemm_fp8: operands must be e4m3 or e5m2, got ") + format(f).name);
  const hopper::Operand left{a, m, k, lda, 1}, right{b, n, k, ldb, 1};
  hopper::check_product("gemm_fp8", left, right, 9);
  const hopper::AlignedOperand x(left, stream), y(right, stream);
  const hopper::Product p{m, n, 0, 0, alpha, bias, epilogue, out};
  const bool e5_a = format_a == FormatId::e5m2, e5_b = format_b == FormatId::e5m2;
  if (e5_a)
    e5_b ? hopper::launch<hopper::E5m2>(x.get(), y.get(), p, stream)
         : hopper::launch<hopper::E5m2E4m3>(x.get(), y.get(), p, stream);
  else
    e5_b ? hopper::launch<hopper::E4m3E5m2>(x.get(), y.get(), p, stream)
         : hopper::launch<hopper::E4m3>(x.get(), y.get(), p, stream);
}

} // namespace nvfp4::cuda
