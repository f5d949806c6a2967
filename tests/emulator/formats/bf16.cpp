// SPDX-License-Identifier: Apache-2.0
// The BF16 shortcut against the codec: every upper half of an FP32 word under lower halves around each
// decision.
#include "nvfp4/emulator/formats/bf16.hpp"
#include "tests/catch.hpp"

using namespace nvfp4;

TEST_CASE("FP32 to BF16 is the codec's nearest even, with one NaN", "[formats][bf16]") {
  constexpr uint32_t lower[] = {0, 1, 0x1234, 0x7FFE, 0x7FFF, 0x8000, 0x8001, 0xABCD, 0xFFFE, 0xFFFF};
  for (uint32_t upper = 0; upper < 0x10000; ++upper)
    for (const uint32_t low : lower) {
      const uint32_t word = upper << 16 | low;
      const float x = bit_cast<float>(word);
      const uint64_t expected = encode(FormatId::bf16, x, Rounding::nearest_even, Overflow::ieee);
      INFO(word);
      REQUIRE(bf16_word(x) == expected);
      REQUIRE(bit_cast<uint32_t>(round_to_bf16(x)) == uint32_t(expected) << 16);
    }
}

TEST_CASE("A BF16 word keeps its bits on the way to FP32, NaN payloads too", "[formats][bf16]") {
  for (uint32_t word = 0; word < 0x10000; ++word)
    REQUIRE(bit_cast<uint32_t>(bf16_value(uint16_t(word))) == word << 16);
  static_assert(bf16_word(1.00390625f) == 0x3F80 && bf16_word(1.01171875f) == 0x3F82); // ties, to even
  static_assert(bf16_word(3.402823466e+38f) == 0x7F80);                                // a carry into Inf
}
