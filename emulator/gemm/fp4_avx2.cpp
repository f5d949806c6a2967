// SPDX-License-Identifier: Apache-2.0
// FP4 kernels for AVX2 and FMA: 4 rows x 16 columns, two vectors. Compiled with AVX2 flags.
#include "nvfp4/emulator/gemm/fp4_kernels.hpp"

#if defined(__AVX2__) && defined(__FMA__)
#include "nvfp4/emulator/gemm/fp4_simd.hpp"
#include "nvfp4/emulator/simd/avx2.hpp"

namespace nvfp4::gemm {
const Fp4Kernels *fp4_avx2() { return &Fp4Simd<simd::Avx2, 4, 2>::kTable; }
} // namespace nvfp4::gemm
#else
namespace nvfp4::gemm {
const Fp4Kernels *fp4_avx2() { return nullptr; }
} // namespace nvfp4::gemm
#endif
