// SPDX-License-Identifier: Apache-2.0
// The functions of one instruction set, for the test.
#include "tests/emulator/simd/operations.hpp"

#if defined(__AVX2__) && defined(__FMA__)
#include "nvfp4/emulator/simd/avx2.hpp"
#include "tests/emulator/simd/operation_table.hpp"

namespace nvfp4::test {
const SimdOperations *operations_avx2() { return &OperationTable<simd::Avx2>::table; }
} // namespace nvfp4::test
#else
namespace nvfp4::test {
const SimdOperations *operations_avx2() { return nullptr; }
} // namespace nvfp4::test
#endif
