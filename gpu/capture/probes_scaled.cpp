// SPDX-License-Identifier: Apache-2.0
// Probes about block scales: NaN and zero scales, ignored sign bits, alignment of scaled groups, the floor of
// the largest exponent, and the FP4 vectors on which published models of the tensor core disagree.
#include "nvfp4/gpu/capture/probes.hpp"

#include <array>
#include <cmath>

namespace nvfp4::gpu {
namespace {

void keep(std::vector<Probe> &out, const ProbeBuilder &p) {
  if (p.ok()) out.push_back(p.probe());
}

constexpr uint64_t kSix = 0x7; // e2m1 code of 6

/// One 16-element group of a directed vector: the first element's codes, or all sixteen, or two.
struct Group {
  std::array<uint64_t, 2> first_a{}, first_b{};
  bool fill = false;
};

struct Nvfp4Case {
  const char *name;
  std::array<Group, 4> groups;
  std::array<uint8_t, 4> scale_a, scale_b;
  uint32_t c;
};

constexpr Group all(uint64_t a, uint64_t b) { return {{a, a}, {b, b}, true}; }
constexpr Group one(uint64_t a, uint64_t b) { return {{a, 0}, {b, 0}, false}; }
constexpr Group two(uint64_t a0, uint64_t a1, uint64_t b0, uint64_t b1) {
  return {{a0, a1}, {b0, b1}, false};
}
constexpr Group none{};
constexpr std::array<uint8_t, 4> kOnes{0x38, 0x38, 0x38, 0x38};

/// Element codes here are nibbles: 1 is 0.5, 2 is 1, 7 is 6, e is -4.
const Nvfp4Case kNvfp4[] = {
    {"nvfp4.1",
     {all(6, 6), one(1, 1), none, none},
     {0x78, 0x08, 0x38, 0x38},
     {0x78, 0x18, 0x38, 0x38},
     0xcb800000},
    {"nvfp4.2",
     {all(6, 6), one(1, 2), none, none},
     {0x78, 0x08, 0x38, 0x38},
     {0x78, 0x18, 0x38, 0x38},
     0xcb800000},
    {"nvfp4.3",
     {all(6, 6), one(1, 1), all(0xe, 6), none},
     {0x78, 0x08, 0x78, 0x38},
     {0x78, 0x18, 0x78, 0x38},
     0},
    {"nvfp4.4", {none, one(1, 1), none, none}, {0x7e, 0x01, 0x38, 0x38}, {0x7e, 0x01, 0x38, 0x38}, 0},
    {"nvfp4.5",
     {two(2, 0xa, 2, 2), one(1, 1), none, none},
     {0x7e, 0x01, 0x38, 0x38},
     {0x7e, 0x01, 0x38, 0x38},
     0},
    {"nvfp4.6", {all(6, 6), one(1, 1), none, none}, {0x00, 0x01, 0x38, 0x38}, {0x7e, 0x01, 0x38, 0x38}, 0},
    {"nvfp4.7", {one(2, 2), none, none, none}, {0xb8, 0x38, 0x38, 0x38}, kOnes, 0},
    {"nvfp4.8", {none, none, none, none}, {0x7f, 0x38, 0x38, 0x38}, kOnes, 0x3f800000},
    {"nvfp4.8.ff", {none, none, none, none}, {0xff, 0x38, 0x38, 0x38}, kOnes, 0x3f800000},
    {"nvfp4.8.last_b", {none, none, none, none}, kOnes, {0x38, 0x38, 0x38, 0x7f}, 0x3f800000},
    {"nvfp4.9", {one(1, 1), none, none, none}, kOnes, kOnes, 0xcb800000},
    {"nvfp4.10",
     {all(7, 7), all(7, 7), all(7, 7), all(7, 7)},
     {0x7e, 0x7e, 0x7e, 0x7e},
     {0x7e, 0x7e, 0x7e, 0x7e},
     0},
    {"nvfp4.11", {none, none, none, none}, kOnes, kOnes, 0x80000000},
};

ProbeBuilder from_case(const MmaKind &x, const Nvfp4Case &v) {
  ProbeBuilder p(x, v.name);
  for (int g = 0; g < 4; ++g) {
    const Group &group = v.groups[size_t(g)];
    for (int i = 0; i < (group.fill ? 16 : 2); ++i)
      p.codes(16 * g + i, group.first_a[size_t(i & 1)], group.first_b[size_t(i & 1)]);
    p.scales(g, v.scale_a[size_t(g)], v.scale_b[size_t(g)]);
  }
  return p.c_code(v.c);
}

void nvfp4_probes(const MmaKind &x, std::vector<Probe> &out) {
  for (const Nvfp4Case &v : kNvfp4) keep(out, from_case(x, v));
  // A C of -2^19 whose exponent lies between the scales' (16) and the product's that cancels it (20), over 2^-18:
  // lost when C takes part in the alignment, kept when only the scales do.
  keep(out, ProbeBuilder(x, "nvfp4.c_between")
                .codes(0, 6, 6)
                .codes(1, 0xe, 4)
                .scales(0, 0x78, 0x78)
                .codes(16, 2, 2)
                .scales(1, 0x01, 0x01)
                .c_code(0xc9000000));
  // Two products of 2^-20 under a quantum of 2^-19, in one quarter of a group and in two: are quarters cut apart?
  for (const int second : {17, 20})
    keep(out, ProbeBuilder(x, second == 17 ? "nvfp4.quarter" : "nvfp4.quarters")
                  .codes(0, 2, 2)
                  .codes(1, 0xa, 2)
                  .scales(0, 0x78, 0x78)
                  .codes(16, 1, 1)
                  .codes(second, 1, 1)
                  .scales(1, 0x01, 0x01));
  // 36 - 2^-33: 420fffff when the product is aligned by its scales, 42100000 when by its own exponent too.
  keep(out, ProbeBuilder(x, "nvfp4.over_small_c").codes(0, kSix, kSix).c_code(0xaf000000));
  // Two groups cancel (36 - 36) over a tiny C: kept when groups align by their scales, lost when by their
  // products.
  for (int e = 26; e <= 46; ++e)
    keep(out, ProbeBuilder(x, "nvfp4.cancel_over_c.e" + std::to_string(e))
                  .codes(0, kSix, kSix)
                  .codes(16, kSix, kSix | 8)
                  .c(std::ldexp(1.0, -e)));
  // The same cancellation inside one group, which is exact, so that C must survive.
  for (int e = 30; e <= 40; ++e)
    keep(out, ProbeBuilder(x, "nvfp4.cancel_in_group.e" + std::to_string(e))
                  .codes(0, kSix, kSix)
                  .codes(1, kSix, kSix | 8)
                  .c(std::ldexp(1.0, -e)));
  // Scale significands (1.875 * 1.875) do not move a group's exponent.
  for (int e = 26; e <= 46; ++e)
    keep(out, ProbeBuilder(x, "nvfp4.scale_carry.e" + std::to_string(e))
                  .codes(0, kSix, kSix)
                  .codes(16, kSix, kSix | 8)
                  .scales(0, 0x3f, 0x3f)
                  .scales(1, 0x3f, 0x3f)
                  .c(std::ldexp(1.0, -e)));
  for (int s = 0; s < 256; ++s) // every scale code as A's, then as B's
    keep(
        out,
        ProbeBuilder(x, "nvfp4.scale_a.code" + std::to_string(s)).codes(0, 2, 2).scales(0, uint8_t(s), 0x38));
  for (int s = 0; s < 256; ++s)
    keep(out, ProbeBuilder(x, "nvfp4.scale_b.code" + std::to_string(s))
                  .codes(63, 2, 2)
                  .scales(3, 0x38, uint8_t(s)));
}

void ue8m0_probes(const MmaKind &x, std::vector<Probe> &out) {
  for (int s = 0; s < 256; ++s) {
    const std::string tail = std::to_string(s);
    keep(out, ProbeBuilder(x, "ue8m0.scale_a.code" + tail).product(0, 1, 1).scales(0, uint8_t(s), 0x7f));
    keep(out,
         ProbeBuilder(x, "ue8m0.scale_both.code" + tail).product(0, 1, 1).scales(0, uint8_t(s), uint8_t(s)));
  }
  keep(out, ProbeBuilder(x, "ue8m0.nan_over_zero").scales(0, 0xff, 0x7f).c(1));
  keep(out, ProbeBuilder(x, "ue8m0.nan_b_over_zero").scales(scales_per_row(x) - 1, 0x7f, 0xff).c(1));
  keep(out, ProbeBuilder(x, "ue8m0.overflow_over_zero").scales(0, 0xfe, 0xfe).c(1));
  // Products inside one block at the bottom of f32: the scales stand for 2^-149, the second product lies j
  // below.
  for (int j = 1; j <= 18; ++j)
    keep(out, ProbeBuilder(x, "ue8m0.floor.j" + std::to_string(j))
                  .product(0, 1, 1)
                  .power(1, -j, true)
                  .scales(0, 127 - 74, 127 - 75));
  // Two blocks, where there are two: the second block's scales lie j below.
  for (int j = 1; j <= 44; ++j) {
    keep(out, ProbeBuilder(x, "ue8m0.floor_blocks.j" + std::to_string(j))
                  .product(0, 1, 1)
                  .product(32, -1, 1)
                  .scales(0, 127 - 74, 127 - 75)
                  .scales(1, uint8_t(127 - 74), uint8_t(127 - 75 - j)));
    keep(out, ProbeBuilder(x, "ue8m0.align_blocks.j" + std::to_string(j))
                  .product(0, 1, 1)
                  .product(1, 0.5, 1)
                  .product(32, 1, 1)
                  .scales(1, 127, uint8_t(127 - j))
                  .c(-1.5));
    keep(out, ProbeBuilder(x, "ue8m0.cancel_over_c.j" + std::to_string(j))
                  .product(0, 1, 1)
                  .product(32, -1, 1)
                  .c(std::ldexp(1.0, -j)));
  }
  // A zero block with a huge scale, and a cancelling one, over a small product elsewhere.
  keep(out,
       ProbeBuilder(x, "ue8m0.zero_block").product(32, 1, 1).scales(0, 0xf0, 0x7f).scales(1, 0x40, 0x7f));
  keep(out, ProbeBuilder(x, "ue8m0.cancelled_block")
                .product(0, 1, 1)
                .product(1, -1, 1)
                .product(32, 1, 1)
                .scales(0, 0xa0, 0x7f)
                .scales(1, 0x40, 0x7f));
}

} // namespace

void add_scale_probes(const MmaKind &x, std::vector<Probe> &out) {
  if (x.scale == Element::ue4m3)
    nvfp4_probes(x, out);
  else
    ue8m0_probes(x, out);
}

} // namespace nvfp4::gpu
