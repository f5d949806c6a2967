// SPDX-License-Identifier: Apache-2.0
// FP4 kernels for any 64-bit ARM CPU: 4 rows x 8 columns, two vectors.
#include "nvfp4/emulator/gemm/fp4_kernels.hpp"

#if defined(__aarch64__)
#include "nvfp4/emulator/gemm/fp4_simd.hpp"
#include "nvfp4/emulator/simd/neon.hpp"

namespace nvfp4::gemm {
const Fp4Kernels *fp4_neon() { return &Fp4Simd<simd::Neon, 4, 2>::kTable; }
} // namespace nvfp4::gemm
#else
namespace nvfp4::gemm {
const Fp4Kernels *fp4_neon() { return nullptr; }
} // namespace nvfp4::gemm
#endif
