// SPDX-License-Identifier: Apache-2.0
// Lays rows and columns of operands into the panels that the FDPA kernels read (fdpa_kernels.hpp). Internal;
// not for files of one instruction set.
#pragma once
#include "nvfp4/emulator/gemm/fdpa_kernels.hpp"

#include <vector>

namespace nvfp4::gemm {

/// n elements along K of a line, a multiple of the step's link, as element_reader.hpp has them.
struct FdpaLine {
  const float *values;
  const int16_t *exponents;
  const int32_t *scales; ///< exponents of the steps' scales; null without
  int64_t n;
  int max; ///< largest exponent of the whole line, scales included, as in RowRange
};

/// Rows of A or columns of B over some steps, and their memory, which is kept when it is reshaped.
class FdpaPacker {
public:
  /// For `steps` steps of the kernels' mr rows or nr columns. Lines that are not packed give outputs without
  /// meaning.
  void shape_rows(const FdpaKernels &kernels, const FdpaStep &step, int64_t steps);
  void shape_columns(const FdpaKernels &kernels, const FdpaStep &step, int64_t steps);

  /// line.n is that of all steps.
  void pack(int index, const FdpaLine &line);

  [[nodiscard]] FdpaPanel panel() const {
    return {values_.data(), scales_.data(), signs_.data(), exponents_.data()};
  }

private:
  void shape(int lines, int vector, int link, int64_t steps);

  int lines_ = 0, link_ = 0, vector_ = 0; ///< vector: columns of a vector; 0: rows of A
  int64_t steps_ = 0;
  std::vector<double> values_, scales_;
  std::vector<uint32_t> signs_;
  std::vector<uint8_t> exponents_;
};

} // namespace nvfp4::gemm
