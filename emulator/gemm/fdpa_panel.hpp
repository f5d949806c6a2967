// SPDX-License-Identifier: Apache-2.0
// Lays one row or column of an operand into the panels that the FDPA kernels read (fdpa_kernels.hpp).
// Internal; inline, so not for files of one instruction set.
#pragma once
#include "nvfp4/emulator/gemm/fdpa_kernels.hpp"

#include <cstring>

namespace nvfp4::gemm {

/// n elements along K of a line, a multiple of the step's link, and the exponents of their scales, one a
/// step.
struct FdpaLine {
  const float *values;
  const int16_t *exponents;
  const int32_t *scales; ///< null without
  size_t n;
};

/// Row `index` of an A panel of `lines` rows at `at`.
[[gnu::always_inline]] inline void pack_row(uint8_t *at, const FdpaStep &step, int lines, int index,
                                            const FdpaLine &from) {
  const size_t link = size_t(step.link), mr = size_t(lines), r = size_t(index);
  for (size_t i = 0; i < from.n; i += link, at += FdpaKernels::step_bytes(lines, step)) {
    std::memcpy(at + 4 * link * r, from.values + i, 4 * link);
    std::memcpy(at + 4 * link * mr + 2 * link * r, from.exponents + i, 2 * link);
    if (step.scaled) std::memcpy(at + 6 * link * mr + 4 * r, from.scales + i / link, 4);
  }
}

/// Column `index` of a B tile of `lines` columns at `at`.
[[gnu::always_inline]] inline void pack_column(uint8_t *at, const FdpaStep &step, int lines, int index,
                                               const FdpaLine &from) {
  const size_t link = size_t(step.link), nr = size_t(lines), c = size_t(index);
  for (size_t i = 0; i < from.n; i += link, at += FdpaKernels::step_bytes(lines, step)) {
    for (size_t l = 0; l < link; ++l) std::memcpy(at + 4 * (l * nr + c), from.values + i + l, 4);
    for (size_t l = 0; l < link; l += 2)
      std::memcpy(at + 4 * link * nr + 2 * l * nr + 4 * c, from.exponents + i + l, 4);
    if (step.scaled) std::memcpy(at + 6 * link * nr + 4 * c, from.scales + i / link, 4);
  }
}

} // namespace nvfp4::gemm
