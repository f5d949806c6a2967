// SPDX-License-Identifier: Apache-2.0
// The oracle: tensor-core arithmetic and format conversion defined on exact values, in multiprecision. It is
// slow and shares no code with the integer reference that it judges; nothing here is meant for the GPU.
#pragma once
#include "nvfp4/emulator/tensorcore/unit.hpp"

#include <cstdint>
#include <span>

namespace nvfp4::oracle {

/// The NaN that an invalid FP64 operation makes. A NaN operand instead passes on, made quiet: b before c before a.
inline constexpr uint64_t kF64Nan = 0xFFF8000000000000;

/// One chained dot product under `rule`: d = c + sum a[i] * b[i], instruction after instruction of rule.k
/// elements. a, b: raw codes, one per element, in K order; equal lengths, a multiple of rule.k (zero elements
/// give c unchanged). scale_a, scale_b: one scale per rule.scale_block elements, in K order; empty when the
/// unit has no scales. c and the result are words of rule.acc. `accumulation` matters to the family gst_fdpa
/// only. Throws Error when a length does not fit.
[[nodiscard]] uint64_t dot(const UnitRule &rule, std::span<const uint64_t> a, std::span<const uint64_t> b,
                           std::span<const uint8_t> scale_a, std::span<const uint8_t> scale_b, uint64_t c,
                           Accumulation accumulation = Accumulation::mmasim);

/// How a value between two codes is rounded.
enum class Rounding : uint8_t {
  rn,  ///< nearest, ties to the even code
  rz,  ///< toward zero
  rp,  ///< toward +infinity
  rm,  ///< toward -infinity
  rna, ///< nearest, ties away from zero
};

/// The code in `to` of the value that `code` has in `from`.
/// NaN: all ones without the sign. Overflow and Inf: the largest finite code when `satfinite` or when the
/// format has neither Inf nor NaN; otherwise Inf (formats with NaN only: NaN with the sign), but the largest
/// finite code for a finite value when the rounding points toward zero. Unsigned formats (UE4M3, UE8M0) take
/// the magnitude, and a value below 2^-127 becomes UE8M0's code 0. Posits: NaN and Inf are NaR, and no other number becomes it
/// or zero.
[[nodiscard]] uint64_t convert(FormatId to, FormatId from, uint64_t code, Rounding rounding, bool satfinite);

} // namespace nvfp4::oracle
