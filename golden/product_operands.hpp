// SPDX-License-Identifier: Apache-2.0
// Operands of whole products, made or recorded: what the GPU checks, its timings and the CPU benchmarks
// multiply, so that every engine meets the same hard data.
#pragma once
#include "nvfp4/emulator/tensorcore/unit.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace nvfp4::golden {

/// SplitMix64.
struct Random {
  uint64_t state;

  uint64_t operator()() {
    uint64_t z = (state += 0x9E3779B97F4A7C15);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB;
    return z ^ (z >> 31);
  }
  int below(int n) { return int((*this)() % uint64_t(n)); }
  /// A sum of 12 uniform numbers: mean 0, variance 1.
  float normal() {
    double sum = -6.0;
    for (int i = 0; i < 6; ++i) {
      const uint64_t w = (*this)();
      sum += double(w & 0xFFFFFFFF) * 0x1p-32 + double(w >> 32) * 0x1p-32;
    }
    return float(sum);
  }
};

/// Rows of codes along K, in the layout of DeviceOperand and of make_operand at once.
struct HostOperand {
  FormatId format;
  int64_t rows, k;
  std::vector<uint8_t> codes, scales;
};

/// What an FP4 operand looks like.
enum class Fp4Kind : uint8_t {
  quantized,  ///< codes of normal data, scales within a factor of three
  lognormal1, ///< block scales spread log-normally, sigma 1
  lognormal3, ///< sigma 3
  outliers,   ///< some blocks 2^8 above the rest, and some zero
  raw,        ///< any code under any scale that is not NaN
  nan_scales, ///< the same, NaN in some rows
  sparse,     ///< mostly zeros, rows and blocks of zeros among them
  tokens,     ///< some steps have an outlying block in every row, mild ones first, then strong ones
  spread,     ///< block scales spread evenly over nine binades
};
inline constexpr int kFp4Kinds = 9;
/// Codes and scales of a unit with FP4 elements and block scales.
[[nodiscard]] HostOperand fp4_operand(const UnitRule &rule, Fp4Kind kind, int64_t rows, int64_t k,
                                      uint64_t seed);

/// Two operands of a product that a model made, NVFP4, as golden/operands holds them.
struct RecordedProduct {
  std::string name; ///< fprop, dgrad, wgrad
  HostOperand a, b;
};
/// Those of a file: tensors NAME.a.codes, NAME.a.scales, NAME.b.codes, NAME.b.scales. Throws Error where one
/// is missing or shapes do not fit.
[[nodiscard]] std::vector<RecordedProduct> read_products(const std::string &path);
/// The operand's rows, and steps along K, again and again up to this size.
[[nodiscard]] HostOperand repeated(const HostOperand &operand, int64_t rows, int64_t k);

/// Elements of any other unit, scales within a factor of 16 where it has them: normal numbers; kind 1 spreads
/// exponents over 24 binades (scales over 20), kind 2 adds NaN, Inf and zeros, kind 3 fills the format's range, as
/// quantizing to it does.
inline constexpr int kDenseKinds = 4;
[[nodiscard]] HostOperand dense_operand(const UnitRule &rule, bool second, int kind, int64_t rows, int64_t k,
                                        uint64_t seed);

} // namespace nvfp4::golden
