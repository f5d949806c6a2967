// SPDX-License-Identifier: Apache-2.0
// FDPA kernels for any 64-bit ARM CPU: 8 rows x 16 columns.
#include "nvfp4/emulator/gemm/fdpa_kernels.hpp"

#if defined(__aarch64__)
#include "nvfp4/emulator/gemm/fdpa_simd.hpp"
#include "nvfp4/emulator/simd/neon.hpp"

namespace nvfp4::gemm {
const FdpaKernels *fdpa_neon() { return &FdpaSimd<simd::Neon, 8>::kTable; }
} // namespace nvfp4::gemm
#else
namespace nvfp4::gemm {
const FdpaKernels *fdpa_neon() { return nullptr; }
} // namespace nvfp4::gemm
#endif
