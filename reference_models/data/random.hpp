// SPDX-License-Identifier: Apache-2.0
// Random words and permutations for data, all from Philox: a word is a function of (seed, purpose, number),
// and a permutation of any size is evaluated at one place without being stored.
#pragma once
#include "nvfp4/emulator/formats/philox.hpp"

#include <cstdint>
#include <utility>

namespace nvfp4::models {

/// The `offset` of RandomKey for each use of the run's seed here: "data" in the high word keeps these apart
/// from the streams of other parts under the same seed.
enum class DataStream : uint64_t {
  text_epoch = 0x64617461'00000000,
  task_training = 0x64617461'00000001,
  task_validation = 0x64617461'00000002,
  image_epoch = 0x64617461'00000003,
  image_augmentation = 0x64617461'00000004,
  image_training = 0x64617461'00000005,
  image_validation = 0x64617461'00000006,
};

/// An independent key for item `number` (an epoch, an example) of a stream.
[[nodiscard]] constexpr RandomKey item_key(uint64_t seed, DataStream stream, uint64_t number) {
  const PhiloxBlock b = RandomKey{seed, uint64_t(stream)}.block(number);
  return {b.word[0] | uint64_t{b.word[1]} << 32, b.word[2] | uint64_t{b.word[3]} << 32};
}

/// Random numbers one after the other.
struct RandomSequence {
  RandomKey key;
  uint64_t next = 0;

  /// Uniform in [0, bound) up to a bias below bound / 2^64; bound is at least 1.
  constexpr uint64_t below(uint64_t bound) {
    const PhiloxBlock b = key.block(next++);
    return (b.word[0] | uint64_t{b.word[1]} << 32) % bound;
  }
};

/// A keyed permutation of [0, size) in constant memory: a balanced Feistel network over the smallest 4^n >=
/// size, applied again while the result lies outside (cycle walking, fewer than 4 times on average). Source:
/// Black and Rogaway, "Ciphers with arbitrary finite domains" (CT-RSA 2002).
class IndexPermutation {
public:
  constexpr IndexPermutation(uint64_t size, uint64_t key) : size_(size), key_(key) {
    while (half_bits_ < 32 && ((size - 1) >> (2 * half_bits_)) != 0) ++half_bits_;
  }

  /// Where index i < size goes.
  [[nodiscard]] constexpr uint64_t operator()(uint64_t i) const {
    do i = network(i);
    while (i >= size_);
    return i;
  }

private:
  static constexpr uint32_t rounds = 8;

  [[nodiscard]] constexpr uint64_t network(uint64_t i) const {
    const uint64_t mask = (uint64_t{1} << half_bits_) - 1;
    auto left = uint32_t(i >> half_bits_), right = uint32_t(i & mask);
    for (uint32_t round = 0; round < rounds; ++round) {
      const PhiloxBlock f = philox4x32_10({{right, round, 0, 0}}, uint32_t(key_), uint32_t(key_ >> 32));
      left = std::exchange(right, left ^ uint32_t(f.word[0] & mask));
    }
    return uint64_t{left} << half_bits_ | right;
  }

  uint64_t size_, key_;
  uint32_t half_bits_ = 1;
};

} // namespace nvfp4::models
