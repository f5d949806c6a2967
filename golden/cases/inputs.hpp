// SPDX-License-Identifier: Apache-2.0
// Generated operands for a matrix instruction, one tile at a time. Pure host code: a tile is a function of
// (unit, input class, seed, index) alone, so a CPU-only program makes the same inputs as the one that ran on
// hardware. Internal.
#pragma once
#include "nvfp4/golden/cases/mma_kinds.hpp"

#include <span>
#include <vector>

namespace nvfp4::golden::cases {

enum class InputClass : uint8_t {
  raw,                ///< uniform bit patterns, NaN and Inf included
  raw_finite,         ///< uniform over the bit patterns of finite numbers
  centre,             ///< exponents within a few binades of 1
  wide,               ///< exponents spread over a span that differs from tile to tile
  subnormal,          ///< subnormal operands, results at the bottom of the accumulator
  cancel,             ///< C or half of the products cancel the rest up to a few units in the last place
  large_c,            ///< C up to 40 binades above the products
  small_c,            ///< C up to 45 binades below the products
  zeros,              ///< mostly signed zeros, C = +0 or -0
  specials,           ///< Inf, NaN, zero and the largest finite numbers at random places
  overflow,           ///< results around the accumulator's largest number
  underflow,          ///< results around the accumulator's smallest number
  negative_underflow, ///< negative sums too small to represent
};
inline constexpr int kInputClasses = 13;

enum class ScaleClass : uint8_t { similar, lognormal, raw };
inline constexpr int kScaleClasses = 3;

[[nodiscard]] const char *name_of(InputClass c);
[[nodiscard]] const char *name_of(ScaleClass c);

/// False when the class cannot be reached with the kind's formats (underflow of f16 products into f32, say).
[[nodiscard]] bool applies(const MmaKind &kind, InputClass c);

/// One tile's operands: a [m][k], b [n][k] (K contiguous for each column), scale_a [m][k/block], scale_b
/// [n][k/block], c [m][n].
struct Tile {
  std::vector<uint8_t> a, b, scale_a, scale_b, c;
};

/// The tile of (kind.unit, class, scale class, seed, index). The scale class is ignored by kinds without
/// scales.
[[nodiscard]] Tile generate(const MmaKind &kind, InputClass c, ScaleClass s, uint64_t seed, int64_t index);

/// Element `i` of a packed buffer of `bits`-bit elements (4, 8, 16, 32, 64); little-endian, low nibble first.
[[nodiscard]] uint64_t get_element(std::span<const uint8_t> buffer, int bits, int64_t i);
void set_element(std::span<uint8_t> buffer, int bits, int64_t i, uint64_t code);

/// An empty (all-zero) tile of a kind.
[[nodiscard]] Tile empty_tile(const MmaKind &kind);

/// A counter-based random stream: word i is a function of (key, i).
class Random {
public:
  explicit Random(uint64_t key) : key_(key) {}
  [[nodiscard]] uint64_t word();
  /// Uniform in [low, high].
  [[nodiscard]] int range(int low, int high);
  /// True with probability 1/n.
  [[nodiscard]] bool one_in(int n) { return range(0, n - 1) == 0; }

private:
  uint64_t key_, counter_ = 0;
};

[[nodiscard]] uint64_t splitmix64(uint64_t x);
[[nodiscard]] uint64_t key_of(std::string_view text, uint64_t seed);

} // namespace nvfp4::golden::cases
