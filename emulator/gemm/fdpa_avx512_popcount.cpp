// SPDX-License-Identifier: Apache-2.0
// FDPA kernels for AVX-512 with VPOPCNTDQ: 8 rows x 64 columns. Compiled with flags for both.
#include "nvfp4/emulator/gemm/fdpa_kernels.hpp"

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VNNI__) &&     \
    defined(__AVX512VPOPCNTDQ__)
#include "nvfp4/emulator/gemm/fdpa_simd.hpp"
#include "nvfp4/emulator/simd/avx512.hpp"

namespace nvfp4::gemm {
const FdpaKernels *fdpa_avx512_popcount() { return &FdpaSimd<simd::Avx512Popcount, 8>::kTable; }
} // namespace nvfp4::gemm
#else
namespace nvfp4::gemm {
const FdpaKernels *fdpa_avx512_popcount() { return nullptr; }
} // namespace nvfp4::gemm
#endif
