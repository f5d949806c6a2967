// SPDX-License-Identifier: Apache-2.0
// What lets one text serve g++, clang++ and nvcc: the host-and-device markers, and the one exception type.
#pragma once
#include <stdexcept>
#include <string>

// NVFP4_INLINE is for what loops call: inlined everywhere, so that files built for different instruction sets
// share no symbol.
#if defined(__CUDACC__)
#define NVFP4_HD __host__ __device__
#define NVFP4_INLINE __host__ __device__ __forceinline__
#else
#define NVFP4_HD
#define NVFP4_INLINE __attribute__((always_inline)) inline
#endif

namespace nvfp4 {

/// A user's mistake or a broken input: says what was expected, what came and what to do, in one line.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

} // namespace nvfp4
