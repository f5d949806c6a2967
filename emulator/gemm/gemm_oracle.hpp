// SPDX-License-Identifier: Apache-2.0
// The bridge from packed operands to the multiprecision oracle (`--exact`). Internal.
#pragma once
#include "nvfp4/emulator/tensorcore/execute.hpp"

namespace nvfp4 {

/// The chained dot product over k elements from c, computed by the oracle; same arguments and bits as dot().
[[nodiscard]] uint64_t oracle_dot(const UnitRule &rule, const DotOperands &op, int64_t k, Accumulation accumulation,
                                  uint64_t c = 0);

} // namespace nvfp4
