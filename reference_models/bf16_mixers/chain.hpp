// SPDX-License-Identifier: Apache-2.0
// Products of BF16 matrices as a kernel on tensor cores makes them: every output is one chain of a unit's
// instructions in increasing K from +0. The building block of definitions for kernels that mix such products
// with FP32 arithmetic.
#pragma once
#include "nvfp4/emulator/cpu/isa.hpp"
#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"

#include <cstdint>
#include <optional>
#include <vector>

namespace nvfp4::models {

/// FP32 to BF16, nearest even. For NaN some NaN.
[[nodiscard]] inline uint16_t bf16_of(float x) {
  const uint32_t w = bit_cast<uint32_t>(x);
  if ((w & 0x7FFFFFFF) > 0x7F800000) return uint16_t(w >> 16 | 0x40);
  return uint16_t((w + 0x7FFF + (w >> 16 & 1)) >> 16);
}
[[nodiscard]] inline float float_of_bf16(uint16_t w) { return bit_cast<float>(uint32_t(w) << 16); }

/// A BF16 matrix whose rows run along K; starts as zeros.
struct ChainOperand {
  int64_t rows, k;
  std::vector<uint16_t> words; // (rows, k)

  ChainOperand(int64_t row_count, int64_t k_count)
      : rows(row_count), k(k_count), words(size_t(row_count * k_count)) {}
  uint16_t &operator()(int64_t row, int64_t i) { return words[size_t(row * k + i)]; }
};

/// The unit whose chains are computed, and on which instruction set if not the best that the CPU has.
struct ChainUnit {
  const Unit &unit;
  std::optional<Isa> isa;

  ChainUnit(const Unit &u, std::optional<Isa> i = {}) : unit(u), isa(i) {} // a Unit is one
};

/// The (a.rows, b.rows) accumulators of A B^T. K is padded with zeros to whole instructions, which leave an
/// accumulator as it is. For units with BF16 operands and FP32 accumulators; runs on the calling thread.
[[nodiscard]] std::vector<float> chain(const ChainUnit &on, const ChainOperand &a, const ChainOperand &b);

} // namespace nvfp4::models
