// SPDX-License-Identifier: Apache-2.0
// Unpacks codes for the oracle.
#include "nvfp4/emulator/gemm/gemm_oracle.hpp"

#include "nvfp4/emulator/oracle/oracle.hpp"

#include <vector>

namespace nvfp4 {

uint64_t oracle_dot(const UnitRule &rule, const DotOperands &op, int64_t k, Accumulation accumulation, uint64_t c) {
  std::vector<uint64_t> a, b;
  for (int64_t i = 0; i < k; ++i) {
    a.push_back(op.a[i]);
    b.push_back(op.b[i]);
  }
  std::vector<uint8_t> scale_a, scale_b;
  for (int64_t s = 0; s < rule.scale_row(k); ++s) {
    scale_a.push_back(op.scale_a[s]);
    scale_b.push_back(op.scale_b[s]);
  }
  return oracle::dot(rule, a, b, scale_a, scale_b, c, accumulation);
}

} // namespace nvfp4
