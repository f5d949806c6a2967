// SPDX-License-Identifier: Apache-2.0
// The contract between the FDPA engine and its kernels for one instruction set: panel layout and one
// function. Plain data only, so that files compiled for wider instruction sets share no inline code with the
// others. Internal.
#pragma once
#include "nvfp4/emulator/cpu/isa.hpp"

#include <cstddef>
#include <cstdint>

namespace nvfp4::gemm {

/// Exponent of a zero in a panel: two of them, or one and any exponent, stay below every exponent that
/// matters.
inline constexpr int16_t kZeroExponent = -0x2000;

/// One fused step of a unit, as the kernels need it.
struct FdpaStep {
  int link;          ///< products per step: 4, 8, 16 or 32
  int fraction_bits; ///< F
  bool scaled;       ///< every step adds one scale exponent per row and column; link is 32 then
  bool e8m13;        ///< the result is cut to 13 fraction bits
};

/// Smallest exponent that terms are aligned to. The engine keeps every product's exponent at or above it.
inline constexpr int kAlignmentFloor = -100;

/// An A panel holds mr rows, step after step: values as FP32 (mr, link); exponent fields as int16 (mr, link);
/// with scales their exponents as int32 (mr). A B tile holds nr columns: values (link, nr); exponents (link /
/// 2, nr, 2); scale exponents (nr).
struct FdpaKernels {
  int mr, nr;

  /// Continues the chain over `steps` steps for one tile, from `in` to `out`, both (mr, nr). Returns false,
  /// with worthless outputs, when a sum left 32 bits; never with wide = true.
  bool (*tile)(const uint8_t *a, const uint8_t *b, int64_t steps, const FdpaStep &step, bool wide,
               const float *in, float *out);

  [[nodiscard]] static size_t step_bytes(int lines, const FdpaStep &s) {
    return size_t(lines) * size_t(6 * s.link + (s.scaled ? 4 : 0));
  }
};

/// Null when not compiled in.
const FdpaKernels *fdpa_avx512();
const FdpaKernels *fdpa_avx2();
const FdpaKernels *fdpa_neon();

/// The kernels of an instruction set; null for the definition alone.
const FdpaKernels *fdpa_kernels(Isa isa);

} // namespace nvfp4::gemm
