// SPDX-License-Identifier: Apache-2.0
// FP4 kernels for 64-bit ARM CPUs with SDOT: 4 rows x 16 columns, four vectors. Compiled with +dotprod.
#include "nvfp4/emulator/gemm/fp4_kernels.hpp"

#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
#include "nvfp4/emulator/gemm/fp4_simd.hpp"
#include "nvfp4/emulator/simd/neon.hpp"

namespace nvfp4::gemm {
const Fp4Kernels *fp4_neon_dot() { return &Fp4Simd<simd::Neon, 4, 4>::kTable; }
} // namespace nvfp4::gemm
#else
namespace nvfp4::gemm {
const Fp4Kernels *fp4_neon_dot() { return nullptr; }
} // namespace nvfp4::gemm
#endif
