// SPDX-License-Identifier: Apache-2.0
// The contract between the FDPA engine and its kernels for one instruction set: panel layout and one
// function. Plain data only, so that files compiled for wider instruction sets share no inline code with the
// others. Internal.
#pragma once
#include "nvfp4/emulator/cpu/isa.hpp"

#include <cstddef>
#include <cstdint>

namespace nvfp4::gemm {

/// One fused step of a unit, as the kernels need it.
struct FdpaStep {
  int link;          ///< products per step: 4, 8, 16 or 32
  int fraction_bits; ///< F
  bool e8m13;        ///< the result is cut to 13 fraction bits
};

/// `lines` rows of A or columns of B over some steps, scaled by a power of two that brings each line's
/// largest exponent to 2^kScaledMax. fdpa_panel.hpp packs it. A line without elements is 0 everywhere.
struct FdpaPanel {
  /// FP64. A: (steps, lines, link), each times kPast. B: (lines / vector, steps, link, vector), the columns
  /// of a vector as FP64 halves have them (emulator/simd/README.md). A zero is kTiny.
  const double *values;
  const double *scales;     ///< (2, lines): what an element was multiplied by, and its inverse; B: as values
  const uint32_t *signs;    ///< (steps, lines): bit k is the sign of element k
  const uint8_t *exponents; ///< signed bytes up to kTopA and kTopB; A: (steps, lines, link, 4 times); B:
                            ///< (steps, link, vector, lines / vector): a byte of each vector of columns to a lane
};

/// Exponent of the largest element of a line after scaling.
inline constexpr int kScaledMax = -384;
/// The exponent bytes of a line's largest element, and of a zero. Sums of two, saturated to a byte, of which
/// one is a zero's stay below those of elements whose product the kernels may compute.
inline constexpr int kTopA = 63, kTopB = 64, kZeroByte = -128;
/// What stands for a zero: its products are neither zero nor as large as the last place of any sum.
inline constexpr double kTiny = 0x1p-700;
/// Puts products past their last place, so that none is a whole number of units.
inline constexpr double kPast = 1 + 0x1p-30;

/// Smallest exponent of a product that the kernels align right.
inline constexpr int kAlignmentFloor = -100;

struct FdpaKernels {
  int mr, nr;
  int vector; ///< columns of a vector; nr is four of them

  /// Continues the chain over `steps` steps for one tile, from `in` to `out`, both (mr, nr), in the first
  /// `cols` columns, rounded up to a vector. in may be out.
  void (*tile)(const FdpaPanel &a, const FdpaPanel &b, int64_t steps, const FdpaStep &step, int cols,
               const float *in, float *out);
};

/// Null when not compiled in.
const FdpaKernels *fdpa_avx512();
const FdpaKernels *fdpa_avx512_popcount(); ///< needs VPOPCNTDQ, too
const FdpaKernels *fdpa_avx2();
const FdpaKernels *fdpa_neon();

/// The kernels of an instruction set; null for the definition alone.
const FdpaKernels *fdpa_kernels(Isa isa);

} // namespace nvfp4::gemm
