// SPDX-License-Identifier: Apache-2.0
// What lets one text serve g++, clang++ and nvcc: the host-and-device marker, and the one exception type.
#pragma once
#include <stdexcept>
#include <string>

#if defined(__CUDACC__)
#define NVFP4_HD __host__ __device__
#else
#define NVFP4_HD
#endif

namespace nvfp4 {

/// A user's mistake or a broken input: says what was expected, what came and what to do, in one line.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

} // namespace nvfp4
