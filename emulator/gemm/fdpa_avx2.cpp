// SPDX-License-Identifier: Apache-2.0
// FDPA kernels for AVX2: 4 rows x 32 columns. Compiled with AVX2 flags.
#include "nvfp4/emulator/gemm/fdpa_kernels.hpp"

#if defined(__AVX2__) && defined(__FMA__)
#include "nvfp4/emulator/gemm/fdpa_simd.hpp"
#include "nvfp4/emulator/simd/avx2.hpp"

namespace nvfp4::gemm {
const FdpaKernels *fdpa_avx2() { return &FdpaSimd<simd::Avx2, 4>::kTable; }
} // namespace nvfp4::gemm
#else
namespace nvfp4::gemm {
const FdpaKernels *fdpa_avx2() { return nullptr; }
} // namespace nvfp4::gemm
#endif
