// SPDX-License-Identifier: Apache-2.0
// Philox4x32-10 and the default mapping of random words to elements: by absolute element index, so that a tensor's
// bits do not depend on tiling, threads or machine.
// Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC'11); constants as in Random123 and cuRAND.
#pragma once
#include "nvfp4/emulator/config.hpp"

#include <cstdint>

namespace nvfp4 {

struct PhiloxBlock {
  uint32_t word[4];
};

/// One call of Philox4x32-10: 128-bit counter, 64-bit key, four random words.
[[nodiscard]] NVFP4_HD constexpr PhiloxBlock philox4x32_10(PhiloxBlock counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * counter.word[0];
    const uint64_t p1 = uint64_t{0xCD9E8D57} * counter.word[2];
    counter = {{uint32_t(p1 >> 32) ^ counter.word[1] ^ key0, uint32_t(p1), uint32_t(p0 >> 32) ^ counter.word[3] ^ key1,
                uint32_t(p0)}};
    key0 += 0x9E3779B9;
    key1 += 0xBB67AE85;
  }
  return counter;
}

/// The key of a tensor's random words. The counter is {offset, block}, each 64 bits, low word first; the key is the
/// seed. Two quantizations that must be independent take different seeds or offsets.
struct RandomKey {
  uint64_t seed = 0;
  uint64_t offset = 0;

  [[nodiscard]] NVFP4_HD constexpr PhiloxBlock block(uint64_t index) const {
    return philox4x32_10({{uint32_t(offset), uint32_t(offset >> 32), uint32_t(index), uint32_t(index >> 32)}},
                         uint32_t(seed), uint32_t(seed >> 32));
  }
  /// 8 random bits of element i: byte i % 4 of word (i / 4) % 4 of block i / 16, low byte first.
  [[nodiscard]] NVFP4_HD constexpr uint32_t bits8(uint64_t i) const {
    return (block(i / 16).word[(i / 4) % 4] >> (8 * (i % 4))) & 0xFF;
  }
  /// 32 random bits of element i: word i % 4 of block i / 4.
  [[nodiscard]] NVFP4_HD constexpr uint32_t bits32(uint64_t i) const { return block(i / 4).word[i % 4]; }
};

} // namespace nvfp4
