// SPDX-License-Identifier: Apache-2.0
// Dot products whose result decides an open question about FP4 accumulation, made for whole GEMMs: no
// accumulator is given, K is one or two instructions. Pure host code. Predictions are the emulator's; no
// Blackwell has answered yet.
#pragma once
#include "nvfp4/emulator/tensorcore/execute.hpp"

#include <functional>
#include <string>
#include <vector>

namespace nvfp4::cuda::blackwell {

/// NVFP4 operands of one dot product from +0, one code a byte, a UE4M3 scale per 16. The alternatives say
/// which hardware would give which word.
struct Directed {
  std::string name;
  std::vector<uint8_t> a, b;             // (64 or 128)
  std::vector<uint8_t> scale_a, scale_b; // (4 or 8)
  std::string asks;
};

/// All vectors, those that separate mmasim from nadpe first.
[[nodiscard]] std::vector<Directed> directed_vectors();

/// What the emulator computes for it.
[[nodiscard]] uint32_t predict(const UnitRule &rule, const Directed &x, Accumulation accumulation);

/// Vectors of one K as operands of a GEMM: row i of A and of B is vector i, padded with zero rows to a
/// multiple of 128. D (i, i) answers vector i.
struct DirectedOperands {
  int64_t rows = 0, k = 0;
  std::vector<uint8_t> codes_a, codes_b;   // (rows, k / 2)
  std::vector<uint8_t> scales_a, scales_b; // (rows, k / 16), linear
};
[[nodiscard]] DirectedOperands directed_operands(const std::vector<Directed> &vectors);

/// Asks a GEMM all vectors: `multiply` gives its FP32 words of D (rows, rows). Prints each answer beside what every
/// accumulation model predicts, and how many answers contradict each; returns how many contradict the first, mmasim.
[[nodiscard]] int64_t ask_directed(const UnitRule &rule,
                                   const std::function<std::vector<uint8_t>(const DirectedOperands &)> &multiply);

} // namespace nvfp4::cuda::blackwell
