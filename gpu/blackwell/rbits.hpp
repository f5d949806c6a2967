// SPDX-License-Identifier: Apache-2.0
// Which bit of rbits serves which element of cvt.rs.satfinite.e2m1x4.f32, found by directed inputs. Host code
// and data; the instruction itself is not yet run here. Published probing: on sm_103 a takes rbits[15:8] and
// e rbits[7:0], both bit-reversed, b rbits[31:24] and f rbits[23:16] straight (Dao-AILab/quack); nobody has
// published sm_100's order.
#pragma once
#include "nvfp4/emulator/config.hpp"

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace nvfp4::cuda::blackwell {

/// bit[place][w]: the bit of rbits with weight 2^w among the 8 random bits of a place. Places in operand
/// order: a, b, e, f = 0 .. 3; a is the highest nibble of the result.
struct RbitsMap {
  uint8_t bit[4][8];
  [[nodiscard]] bool operator==(const RbitsMap &) const = default;
};

/// The published order of sm_103.
[[nodiscard]] NVFP4_HD constexpr RbitsMap rbits_sm103() {
  RbitsMap map{};
  for (int w = 0; w < 8; ++w) {
    map.bit[0][w] = uint8_t(15 - w);
    map.bit[1][w] = uint8_t(24 + w);
    map.bit[2][w] = uint8_t(7 - w);
    map.bit[3][w] = uint8_t(16 + w);
  }
  return map;
}

/// rbits that hand random[place] (8 bits each) to the places.
[[nodiscard]] NVFP4_HD constexpr uint32_t pack_rbits(const RbitsMap &map, const uint32_t (&random)[4]) {
  uint32_t rbits = 0;
  for (int place = 0; place < 4; ++place)
    for (int w = 0; w < 8; ++w) rbits |= (random[place] >> w & 1u) << map.bit[place][w];
  return rbits;
}

/// Inputs of one instruction each: four FP32 words and rbits.
struct RbitsProbes {
  std::vector<uint32_t> in;    // (probes, 4)
  std::vector<uint32_t> rbits; // (probes)
};

/// For each place, bit of rbits and w: the place holds 1 + (256 - 2^w) / 256 of the step 0.5, the others 1,
/// and that bit alone is set. The place rounds up to 1.5 iff the bit's weight is at least 2^w.
[[nodiscard]] inline RbitsProbes rbits_probes() {
  RbitsProbes probes;
  for (uint32_t place = 0; place < 4; ++place)
    for (uint32_t bit = 0; bit < 32; ++bit)
      for (uint32_t w = 0; w < 8; ++w) {
        for (uint32_t p = 0; p < 4; ++p)
          probes.in.push_back(0x3F800000u | (p == place ? (256u - (1u << w)) << 14 : 0u));
        probes.rbits.push_back(1u << bit);
      }
  return probes;
}

/// The order that explains the results of rbits_probes() (E2M1 codes, as the inputs lie); nothing when none
/// does: when a bit serves two weights or places, a weight has no bit, or an exact value moved.
[[nodiscard]] inline std::optional<RbitsMap> rbits_map(std::span<const uint32_t> codes) {
  constexpr uint32_t one = 2, one_and_half = 3;
  if (codes.size() != 4 * 32 * 8 * 4) return {};
  RbitsMap map{};
  bool known[4][8] = {}, used[32] = {};
  size_t at = 0;
  for (size_t place = 0; place < 4; ++place)
    for (size_t bit = 0; bit < 32; ++bit) {
      int ups = 0;
      for (int w = 0; w < 8; ++w, at += 4)
        for (size_t p = 0; p < 4; ++p) {
          const uint32_t code = codes[at + p];
          if (code == one) continue;
          if (code != one_and_half || p != place || ups != w) return {}; // ups are a prefix: w = 0, 1, ...
          ++ups;
        }
      if (ups == 0) continue;
      const size_t weight = size_t(ups - 1);
      if (known[place][weight] || used[bit]) return {};
      known[place][weight] = used[bit] = true;
      map.bit[place][weight] = uint8_t(bit);
    }
  for (const auto &place : known)
    for (const bool found : place)
      if (!found) return {};
  return map;
}

} // namespace nvfp4::cuda::blackwell
