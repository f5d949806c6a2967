// SPDX-License-Identifier: Apache-2.0
// Every function of a vector type in one shape: 16 words of three inputs in, 16 words or 16 doubles out,
// however many vectors that takes. Plain data only: files of one instruction set make the tables
// (operation_table.hpp), the test compares what they give with plain C++.
#pragma once
#include <cstdint>

namespace nvfp4::test {

struct SimdInput {
  alignas(64) uint32_t x[16], y[16], z[16];
};
struct SimdOutput {
  alignas(64) uint32_t word[16];
  alignas(64) double wide[16];
};

struct SimdOperation {
  const char *name;
  void (*run)(const SimdInput &, SimdOutput &);
};

struct SimdOperations {
  const SimdOperation *list;
  int count, byte_offset;
  bool embedded_rounding;
  void (*nearest)();
  void (*toward_zero)();
  bool (*inexact)();
  void (*mode_toward_zero)();
};

/// Null when not compiled in.
const SimdOperations *operations_avx2();
const SimdOperations *operations_avx512();
const SimdOperations *operations_neon();
const SimdOperations *operations_neon_dot();

} // namespace nvfp4::test
