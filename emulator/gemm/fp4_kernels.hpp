// SPDX-License-Identifier: Apache-2.0
// The contract between the FP4 engine and its kernels for one instruction set: panel layouts and functions.
// Plain data only, so that files compiled for wider instruction sets share no inline code with the others.
// Internal.
#pragma once
#include "nvfp4/emulator/cpu/isa.hpp"

#include <cstddef>
#include <cstdint>

namespace nvfp4::gemm {

/// A block is a scale block, what shares one pair of scales: 16 codes (NVFP4) or 32 (MXFP4). A step of K = 64
/// has 4 or 2 of them.
///
/// An A panel holds mr rows, block after block: codes as signed bytes, twice their value (mr x block bytes);
/// the start of the integer sums (mr x 4 bytes); the scales as FP32, divided by 4 because both operands are
/// doubled (mr x 4). A B tile holds nr columns, block after block: codes as bytes, twice their value and,
/// where the instruction set wants them unsigned, + 12, in the kernel's order (nr x block bytes); scales as
/// FP32 (nr x 4). A NaN scale is packed as 0; the engine overwrites its outputs.
struct Fp4Kernels {
  int mr, nr;

  /// Packs one row (or column): `codes` holds `blocks` blocks of packed nibbles, `scales` one code each.
  using Pack = void (*)(uint8_t *panel, int index, const uint8_t *codes, const uint8_t *scales,
                        int64_t blocks, int block, const float *scale_table);
  Pack pack_a, pack_b;

  /// The chain over `steps` steps from +0 for one tile: acc and peak are (mr, nr). peak is the largest
  /// |accumulator| that entered a step. Exact under the conditions of fp4_engine.cpp. `narrow` sums a step in
  /// FP32 and returns false, with worthless outputs, when some operation was inexact; `wide` sums in FP64.
  bool (*narrow)(const uint8_t *a, const uint8_t *b, int64_t steps, int block, float *acc, float *peak);
  void (*wide)(const uint8_t *a, const uint8_t *b, int64_t steps, int block, float *acc, float *peak);

  /// The whole mmasim step, truncation by alignment included, at a third of the speed. Scale exponents are at
  /// least min_exponent, which is that of subnormal scales.
  void (*aligned)(const uint8_t *a, const uint8_t *b, int64_t steps, int block, int min_exponent, float *acc);

  [[nodiscard]] size_t a_bytes(int block) const { return size_t(mr) * size_t(block + 8); }
  [[nodiscard]] size_t b_bytes(int block) const { return size_t(nr) * size_t(block + 4); }
};

/// Null when not compiled in.
const Fp4Kernels *fp4_avx512();
const Fp4Kernels *fp4_avx2();
const Fp4Kernels *fp4_neon();
const Fp4Kernels *fp4_neon_dot();

/// The kernels of an instruction set; null for the definition alone.
const Fp4Kernels *fp4_kernels(Isa isa);

} // namespace nvfp4::gemm
