// SPDX-License-Identifier: Apache-2.0
// FDPA kernels for AVX-512: 8 rows x 64 columns. Compiled with AVX-512 flags.
#include "nvfp4/emulator/gemm/fdpa_kernels.hpp"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VNNI__)
#include "nvfp4/emulator/gemm/fdpa_simd.hpp"
#include "nvfp4/emulator/simd/avx512.hpp"

namespace nvfp4::gemm {
const FdpaKernels *fdpa_avx512() { return &FdpaSimd<simd::Avx512, 8>::kTable; }
} // namespace nvfp4::gemm
#else
namespace nvfp4::gemm {
const FdpaKernels *fdpa_avx512() { return nullptr; }
} // namespace nvfp4::gemm
#endif
