// SPDX-License-Identifier: Apache-2.0
// FP4 kernels for AVX-512 VNNI: 8 rows x 16 columns. Compiled with AVX-512 flags.
#include "nvfp4/emulator/gemm/fp4_kernels.hpp"

#if defined(__AVX512F__) && defined(__AVX512VNNI__)
#include "nvfp4/emulator/gemm/fp4_simd.hpp"
#include "nvfp4/emulator/simd/avx512.hpp"

namespace nvfp4::gemm {
const Fp4Kernels *fp4_avx512() { return &Fp4Simd<simd::Avx512, 8, 1>::kTable; }
} // namespace nvfp4::gemm
#else
namespace nvfp4::gemm {
const Fp4Kernels *fp4_avx512() { return nullptr; }
} // namespace nvfp4::gemm
#endif
