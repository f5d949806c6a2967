// SPDX-License-Identifier: Apache-2.0
// Which random words a quantization of a training step takes.
#pragma once
#include "nvfp4/emulator/formats/conversion.hpp"
#include "nvfp4/emulator/formats/philox.hpp"
#include "nvfp4/emulator/names.hpp"

namespace nvfp4::models {

/// The three products of a linear layer.
enum class Product : uint8_t { fprop, dgrad, wgrad };
[[nodiscard]] constexpr auto names_of(Product) { return enum_names("product", "fprop", "dgrad", "wgrad"); }
static_assert(names_of(Product{}).end_with(Product::wgrad));
/// What is quantized for it.
enum class RandomUse : uint8_t { operand_a, operand_b, channel_choice };

/// The key of one use in one layer at one step:
///   seed = splitmix64(run seed) + 16 layer + 4 product + use,  offset = step 2^24 + micro-batch.
/// A weight, and a choice of channels, take micro-batch 0: they are the same for all of a step.
/// Different for any two uses of a run with fewer than 2^24 micro-batches a step. An operand that several
/// layers share takes the key of the first of them. The same element of both orientations of dy meets
/// different random words, since dgrad and wgrad are different products.
[[nodiscard]] constexpr RandomKey random_key(uint64_t run_seed, uint64_t layer, Product product,
                                             RandomUse use, int64_t step, int64_t micro_batch) {
  return {splitmix64(run_seed) + 16 * layer + 4 * uint64_t(product) + uint64_t(use),
          (uint64_t(step) << 24) + uint64_t(micro_batch)};
}

/// Of the mean that is quantized beside an operand (MeanSplit::quantized): its element i has index i, under the operand's key
/// with the top bit of the offset set, which no step reaches.
[[nodiscard]] constexpr RandomKey key_of_mean(RandomKey key) {
  key.offset |= uint64_t{1} << 63;
  return key;
}

} // namespace nvfp4::models
