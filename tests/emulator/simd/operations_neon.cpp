// SPDX-License-Identifier: Apache-2.0
// The functions of one instruction set, for the test.
#include "tests/emulator/simd/operations.hpp"

#if defined(__aarch64__)
#include "nvfp4/emulator/simd/neon.hpp"
#include "tests/emulator/simd/operation_table.hpp"

namespace nvfp4::test {
const SimdOperations *operations_neon() { return &OperationTable<simd::Neon>::table; }
} // namespace nvfp4::test
#else
namespace nvfp4::test {
const SimdOperations *operations_neon() { return nullptr; }
} // namespace nvfp4::test
#endif
