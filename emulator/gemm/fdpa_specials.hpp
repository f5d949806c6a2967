// SPDX-License-Identifier: Apache-2.0
// Outputs of FDPA chains whose rows or columns hold NaN or Inf: they are NaN or Inf, and which one, the
// special elements and what they meet decide. Internal.
#pragma once
#include "nvfp4/emulator/gemm/engine.hpp"

#include <optional>
#include <vector>

namespace nvfp4::gemm {

/// The special elements of some rows of one operand of a job.
class FdpaSpecials {
public:
  /// Rows [first, first + count); only those that RowRange calls special are read.
  void find(const UnitRule &rule, const GemmOperand &operand, int64_t first, int64_t count);

private:
  friend std::optional<uint32_t> special_output(const Job &, const FdpaSpecials &, int64_t,
                                                const FdpaSpecials &, int64_t);
  struct Line {
    bool nan = false;              ///< an element or a scale
    int max = -0x3FFF;             ///< largest exponent of the finite elements, scale included
    std::vector<int64_t> infinite; ///< where along K
  };
  [[nodiscard]] const Line &line(int64_t row) const { return lines_[size_t(row - first_)]; }

  int64_t first_ = 0;
  std::vector<Line> lines_;
};

/// The accumulator word of output (i, j) if its row of A or its row of B holds NaN or Inf and finite terms
/// cannot overflow before; nothing otherwise. a and b have found rows i and j.
[[nodiscard]] std::optional<uint32_t> special_output(const Job &job, const FdpaSpecials &a, int64_t i,
                                                     const FdpaSpecials &b, int64_t j);

} // namespace nvfp4::gemm
