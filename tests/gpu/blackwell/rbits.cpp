// SPDX-License-Identifier: Apache-2.0
// The directed inputs that find the order of cvt.rs's random bits, tried on a simulated instruction with
// every published order, with shuffled ones, and with instructions that no order explains.
#include "nvfp4/emulator/formats/stochastic.hpp"
#include "nvfp4/gpu/blackwell/rbits.hpp"
#include "tests/catch.hpp"

#include <algorithm>
#include <array>
#include <iterator>
#include <numeric>
#include <random>

using namespace nvfp4;
using namespace nvfp4::cuda::blackwell;

namespace {

/// cvt.rs.satfinite.e2m1x4.f32 with that order of bits, element by element.
std::vector<uint32_t> convert(const RbitsMap &map, const RbitsProbes &probes) {
  std::vector<uint32_t> codes;
  for (size_t i = 0; i < probes.rbits.size(); ++i)
    for (size_t place = 0; place < 4; ++place) {
      uint32_t random = 0;
      for (int w = 0; w < 8; ++w) random |= (probes.rbits[i] >> map.bit[place][w] & 1u) << w;
      codes.push_back(
          uint32_t(encode_carry8(FormatId::e2m1, bit_cast<float>(probes.in[4 * i + place]), random)));
    }
  return codes;
}

/// Byte `byte[place]` of rbits for each place, straight.
RbitsMap straight(const std::array<int, 4> &byte) {
  RbitsMap map{};
  for (size_t place = 0; place < 4; ++place)
    for (int w = 0; w < 8; ++w) map.bit[place][w] = uint8_t(8 * byte[place] + w);
  return map;
}

} // namespace

TEST_CASE("the order of cvt.rs's random bits is recovered", "[blackwell]") {
  const RbitsProbes probes = rbits_probes();
  const auto recovers = [&](const RbitsMap &map) { return rbits_map(convert(map, probes)) == map; };
  CHECK(recovers(rbits_sm103()));
  CHECK(recovers(straight({3, 2, 1, 0})));
  CHECK(recovers(straight({1, 3, 0, 2})));
  std::mt19937 random(1);
  for (int trial = 0; trial < 20; ++trial) {
    std::array<uint8_t, 32> bits{};
    std::iota(bits.begin(), bits.end(), uint8_t{0});
    std::shuffle(bits.begin(), bits.end(), random);
    RbitsMap map{};
    for (size_t i = 0; i < 32; ++i) map.bit[i / 8][i % 8] = bits[i];
    CHECK(recovers(map));
  }
}

TEST_CASE("packing hands every place its own random bits", "[blackwell]") {
  std::mt19937 random(2);
  for (const RbitsMap &map : {rbits_sm103(), straight({3, 2, 1, 0})})
    for (int trial = 0; trial < 1000; ++trial) {
      uint32_t r[4];
      for (uint32_t &x : r) x = uint32_t(random() & 255u);
      const uint32_t rbits = pack_rbits(map, r);
      for (int place = 0; place < 4; ++place) {
        uint32_t got = 0;
        for (int w = 0; w < 8; ++w) got |= (rbits >> map.bit[place][w] & 1u) << w;
        REQUIRE(got == r[place]);
      }
    }
}

TEST_CASE("results that no order explains are refused", "[blackwell]") {
  const RbitsProbes probes = rbits_probes();
  RbitsMap shared = rbits_sm103();
  std::copy(std::begin(shared.bit[0]), std::end(shared.bit[0]), std::begin(shared.bit[1]));
  CHECK_FALSE(rbits_map(convert(shared, probes))); // two places on one byte
  std::vector<uint32_t> codes = convert(rbits_sm103(), probes);
  codes[0] = 4;
  CHECK_FALSE(rbits_map(codes));                                  // an impossible code
  CHECK_FALSE(rbits_map(std::vector<uint32_t>(codes.size(), 2))); // the bits do nothing
  CHECK_FALSE(rbits_map(std::vector<uint32_t>(3, 2)));            // too few
}
