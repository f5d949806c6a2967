// SPDX-License-Identifier: Apache-2.0
// Rotations of operands that quantize() has not: groups of 16 to 128 under any signs. For groups of 16 the results are
// rotate16()'s where its sums are exact in FP64.
#pragma once
#include "nvfp4/emulator/formats/philox.hpp"
#include "nvfp4/emulator/quantize/block_scaled.hpp"
#include "nvfp4/emulator/quantize/hadamard.hpp"
#include "nvfp4/reference_models/linear/random_key.hpp"
#include "nvfp4/reference_models/recipe/recipe.hpp"

#include <array>
#include <vector>

namespace nvfp4::models {

/// Bit i % 32 of word i / 32 is set where element i of a group changes its sign.
using SignWords = std::array<uint32_t, 4>;
/// TransformerEngine's 16 signs, again and again.
inline constexpr SignWords kFixedSigns = {0xD7E8D7E8u, 0xD7E8D7E8u, 0xD7E8D7E8u, 0xD7E8D7E8u};
static_assert((kFixedSigns[0] & 0xFFFF) == kHadamardSigns);

/// Those of a product at a step, the same in all layers and micro-batches: Philox's words 0 to 3 of the key
/// splitmix64(seed of the run) - 1 - product with the offset 2^24 step, which no other use has.
[[nodiscard]] inline SignWords rotation_signs(RotationSigns signs, uint64_t run_seed, Product product, int64_t step) {
  if (signs == RotationSigns::fixed) return kFixedSigns;
  if (signs == RotationSigns::none) return {};
  const RandomKey key{splitmix64(run_seed) - 1 - uint64_t(product), uint64_t(step) << 24};
  return {key.bits32(0), key.bits32(1), key.bits32(2), key.bits32(3)};
}

/// A matrix, row-major and dense.
struct Rotated {
  int64_t rows = 0, cols = 0;
  std::vector<float> values = {};
};

/// x (rows, cols) with groups of `size` (16, 32, 64 or 128) along `axis` rotated, in the same orientation; the last group is
/// filled up with zeros. In FP64: x rounded to BF16, with its sign, butterflies of distance 1, 2, 4, ..., times the FP64 number
/// next to size^-1/2; then rounded to FP32, then to BF16; zeros are +0.
[[nodiscard]] Rotated rotated(const float *x, int64_t rows, int64_t cols, Axis axis, int size, const SignWords &signs);

} // namespace nvfp4::models
