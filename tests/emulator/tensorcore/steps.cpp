// SPDX-License-Identifier: Apache-2.0
// What step_of promises: units with equal steps chain to the same words, whatever K an instruction has.
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"
#include "tests/catch.hpp"

#include <random>
#include <vector>

using namespace nvfp4;

TEST_CASE("Units with equal steps chain to the same words", "[tensorcore][step_of]") {
  std::mt19937_64 random(5);
  const auto bytes = [&](int64_t count) {
    std::vector<uint8_t> v(static_cast<size_t>(count));
    for (uint8_t &x : v) x = uint8_t(random() >> 11);
    return v;
  };
  int pairs = 0;
  for (const Unit &x : catalogue())
    for (const Unit &y : catalogue()) {
      if (x.rule.k >= y.rule.k || step_of(x.rule) != step_of(y.rule)) continue;
      ++pairs;
      const int64_t k = 2 * y.rule.k;
      const int bits_a = format(x.rule.a).storage_bits, bits_b = format(x.rule.b).storage_bits;
      for (int repeat = 0; repeat < 4; ++repeat) {
        std::vector<uint8_t> a = bytes(k * bits_a / 8), b = bytes(k * bits_b / 8);
        for (int64_t i = 1; i < int64_t(a.size()) && bits_a == 16;
             i += 2) // exponents near each other: few specials
          a[size_t(i)] = uint8_t((a[size_t(i)] & 0x83) | 0x38);
        const std::vector<uint8_t> scales = bytes(x.rule.scale_block == 0 ? 0 : k / x.rule.scale_block);
        const DotOperands op{{a.data(), bits_a}, {b.data(), bits_b}, scales.data(), scales.data()};
        const uint64_t c = encode(x.rule.acc, float(int(random() % 2001) - 1000) * 0x1p-5f);
        INFO(x.name() << " and " << y.name());
        REQUIRE(dot(x.rule, op, k, c) == dot(y.rule, op, k, c));
      }
    }
  CHECK(pairs > 100);
}

TEST_CASE("A step does not read the scale's format of a unit without scales", "[tensorcore][step_of]") {
  UnitRule x = find_unit("sm_90:wgmma.k16.f32.bf16").rule, y = x;
  y.scale = FormatId::ue8m0;
  x.scale = FormatId::ue4m3;
  CHECK(x != y);
  CHECK(step_of(x) == step_of(y));
  y.fraction_bits = int16_t(y.fraction_bits + 1);
  CHECK(step_of(x) != step_of(y));
}
