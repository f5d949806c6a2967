// SPDX-License-Identifier: Apache-2.0
// The rows of the conversion table.
#include "nvfp4/emulator/formats/conversion.hpp"

#include "nvfp4/emulator/nearest.hpp"

#include <string>
#include <utility>

namespace nvfp4 {
namespace {

using enum FormatId;
using enum Rounding;

// name | to, from | rounding, overflow | relu
constexpr Conversion kConversions[] = {
    {"cvt.rn.satfinite.e2m1x2.f32", e2m1, f32, nearest_even, Overflow::satfinite, false},
    {"cvt.rn.satfinite.relu.e2m1x2.f32", e2m1, f32, nearest_even, Overflow::satfinite, true},
    {"cvt.rn.satfinite.e3m2x2.f32", e3m2, f32, nearest_even, Overflow::satfinite, false},
    {"cvt.rn.satfinite.relu.e3m2x2.f32", e3m2, f32, nearest_even, Overflow::satfinite, true},
    {"cvt.rn.satfinite.e2m3x2.f32", e2m3, f32, nearest_even, Overflow::satfinite, false},
    {"cvt.rn.satfinite.relu.e2m3x2.f32", e2m3, f32, nearest_even, Overflow::satfinite, true},
    {"cvt.rn.satfinite.e4m3x2.f32", e4m3, f32, nearest_even, Overflow::satfinite, false},
    {"cvt.rn.satfinite.relu.e4m3x2.f32", e4m3, f32, nearest_even, Overflow::satfinite, true},
    {"cvt.rn.satfinite.e5m2x2.f32", e5m2, f32, nearest_even, Overflow::satfinite, false},
    {"cvt.rn.satfinite.relu.e5m2x2.f32", e5m2, f32, nearest_even, Overflow::satfinite, true},
    // the NOSAT forms exist in the headers only, not in PTX
    {"nosat.e4m3.f32", e4m3, f32, nearest_even, Overflow::ieee, false},
    {"nosat.e5m2.f32", e5m2, f32, nearest_even, Overflow::ieee, false},
    {"cvt.rz.satfinite.ue8m0x2.f32", ue8m0, f32, toward_zero, Overflow::satfinite, false},
    {"cvt.rz.ue8m0x2.f32", ue8m0, f32, toward_zero, Overflow::ieee, false},
    {"cvt.rp.satfinite.ue8m0x2.f32", ue8m0, f32, upward, Overflow::satfinite, false},
    {"cvt.rp.ue8m0x2.f32", ue8m0, f32, upward, Overflow::ieee, false},
    {"cvt.rn.f16.f32", f16, f32, nearest_even, Overflow::ieee, false},
    {"cvt.rz.f16.f32", f16, f32, toward_zero, Overflow::ieee, false},
    {"cvt.rm.f16.f32", f16, f32, downward, Overflow::ieee, false},
    {"cvt.rp.f16.f32", f16, f32, upward, Overflow::ieee, false},
    {"cvt.rn.bf16.f32", bf16, f32, nearest_even, Overflow::ieee, false},
    {"cvt.rz.bf16.f32", bf16, f32, toward_zero, Overflow::ieee, false},
    {"cvt.rm.bf16.f32", bf16, f32, downward, Overflow::ieee, false},
    {"cvt.rp.bf16.f32", bf16, f32, upward, Overflow::ieee, false},
    {"cvt.rn.relu.f16.f32", f16, f32, nearest_even, Overflow::ieee, true},
    {"cvt.rn.relu.bf16.f32", bf16, f32, nearest_even, Overflow::ieee, true},
    {"cvt.rna.tf32.f32", tf32, f32, nearest_away, Overflow::ieee, false, NanRule::bits},
    {"cvt.rna.satfinite.tf32.f32", tf32, f32, nearest_away, Overflow::satfinite, false, NanRule::bits_minus_one},
    {"cvt.rn.tf32.f32", tf32, f32, nearest_even, Overflow::ieee, false},
    {"cvt.rn.relu.tf32.f32", tf32, f32, nearest_even, Overflow::ieee, true},
    {"cvt.rz.tf32.f32", tf32, f32, toward_zero, Overflow::ieee, false},
    {"cvt.rz.relu.tf32.f32", tf32, f32, toward_zero, Overflow::ieee, true},
    // packed forms and satfinite of the 16-bit targets
    {"cvt.rn.f16x2.f32", f16, f32, nearest_even, Overflow::ieee, false},
    {"cvt.rz.f16x2.f32", f16, f32, toward_zero, Overflow::ieee, false},
    {"cvt.rn.satfinite.f16.f32", f16, f32, nearest_even, Overflow::satfinite, false},
    {"cvt.rn.satfinite.f16x2.f32", f16, f32, nearest_even, Overflow::satfinite, false},
    {"cvt.rn.bf16x2.f32", bf16, f32, nearest_even, Overflow::ieee, false},
    {"cvt.rz.bf16x2.f32", bf16, f32, toward_zero, Overflow::ieee, false},
    {"cvt.rn.satfinite.bf16.f32", bf16, f32, nearest_even, Overflow::satfinite, false},
    {"cvt.rn.satfinite.bf16x2.f32", bf16, f32, nearest_even, Overflow::satfinite, false},
    // from 16 bits
    {"cvt.f32.f16", f32, f16, nearest_even, Overflow::ieee, false},
    {"cvt.f32.bf16", f32, bf16, nearest_even, Overflow::ieee, false, NanRule::bits},
    {"cvt.rn.satfinite.e4m3x2.f16x2", e4m3, f16, nearest_even, Overflow::satfinite, false},
    {"cvt.rn.satfinite.e5m2x2.f16x2", e5m2, f16, nearest_even, Overflow::satfinite, false},
    {"cvt.rz.ue8m0x2.bf16x2", ue8m0, bf16, toward_zero, Overflow::ieee, false},
    {"cvt.rz.satfinite.ue8m0x2.bf16x2", ue8m0, bf16, toward_zero, Overflow::satfinite, false},
    {"cvt.rp.ue8m0x2.bf16x2", ue8m0, bf16, upward, Overflow::ieee, false},
    {"cvt.rp.satfinite.ue8m0x2.bf16x2", ue8m0, bf16, upward, Overflow::satfinite, false},
    // exact widening
    {"cvt.rn.f16x2.e2m1x2", f16, e2m1, nearest_even, Overflow::ieee, false},
    {"cvt.rn.f16x2.e3m2x2", f16, e3m2, nearest_even, Overflow::ieee, false},
    {"cvt.rn.f16x2.e2m3x2", f16, e2m3, nearest_even, Overflow::ieee, false},
    {"cvt.rn.f16x2.e4m3x2", f16, e4m3, nearest_even, Overflow::ieee, false},
    {"cvt.rn.f16x2.e5m2x2", f16, e5m2, nearest_even, Overflow::ieee, false},
    {"cvt.rn.bf16x2.ue8m0x2", bf16, ue8m0, nearest_even, Overflow::ieee, false},
};

} // namespace

std::span<const Conversion> conversions() { return kConversions; }

const Conversion &find_conversion(std::string_view name) {
  for (const Conversion &c : kConversions)
    if (c.name == name) return c;
  throw Error("unknown conversion '" + std::string(name) + "'" +
              suggestion_among(name, kConversions, [](const Conversion &c) { return c.name; }) +
              "; all: nvfp4 info --conversions");
}

namespace {

/// With the row a constant the compiler folds the formats: several times faster than through the table.
template <size_t Row> [[gnu::flatten]] uint64_t digest_of(uint32_t chunk) {
  constexpr Conversion c = kConversions[Row];
  uint64_t sum = 0;
  for (uint32_t i = 0; i < (1u << 24); ++i) {
    const uint32_t in = chunk << 24 | i;
    sum += splitmix64(in | c(in) << 32);
  }
  return sum;
}

template <size_t... Rows> uint64_t digest_of_row(size_t row, uint32_t chunk, std::index_sequence<Rows...>) {
  uint64_t sum = 0;
  ((row == Rows ? void(sum = digest_of<Rows>(chunk)) : void()), ...);
  return sum;
}

} // namespace

uint64_t conversion_digest(const Conversion &conversion, uint32_t chunk) {
  for (size_t row = 0; row < std::size(kConversions); ++row)
    if (kConversions[row].name == conversion.name)
      return digest_of_row(row, chunk, std::make_index_sequence<std::size(kConversions)>());
  throw Error("conversion '" + std::string(conversion.name) + "' is not in the table");
}

} // namespace nvfp4
