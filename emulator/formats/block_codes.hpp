// SPDX-License-Identifier: Apache-2.0
// What codes mean in their block: scales of more than a byte, one-bit exponents of parts of a block, elements whose
// meaning their scale's flag chooses. For formats without any of these it is codec.hpp's meaning.
#pragma once
#include "nvfp4/emulator/formats/codec.hpp"

namespace nvfp4 {

/// The word of scale `block` of a row of scales.
[[nodiscard]] NVFP4_HD constexpr uint32_t read_scale(FormatId scale, const uint8_t *row, int64_t block) {
  if (scale_bytes(scale) == 1) return row[block];
  const uint8_t *const at = row + 4 * block;
  return uint32_t(at[0]) | uint32_t(at[1]) << 8 | uint32_t(at[2]) << 16 | uint32_t(at[3]) << 24;
}
/// Byte `i` of a scale's word.
[[nodiscard]] NVFP4_HD constexpr uint8_t scale_byte(uint32_t word, int i) { return uint8_t(word >> (8 * i)); }

/// HiFloat4's parts: the lowest bit of their exponents in the word, and the elements that share one.
struct ScalePart {
  int bit, elements;
};
inline constexpr int kScaleParts = 2;
[[nodiscard]] NVFP4_HD constexpr ScalePart scale_part(int i) { return i == 0 ? ScalePart{8, 8} : ScalePart{16, 4}; }

/// The power of two by which the scale of element i of a block is more than its code says.
[[nodiscard]] NVFP4_HD constexpr int scale_shift(const Format &scale, uint32_t word, int i) {
  if (scale.extra != ScaleExtra::exponents) return 0;
  int shift = 0;
  for (int p = 0; p < kScaleParts; ++p) shift += int(word >> (scale_part(p).bit + i / scale_part(p).elements)) & 1;
  return shift;
}

/// Whether a scale makes its elements mean those of their format's `other`.
[[nodiscard]] NVFP4_HD constexpr bool is_flagged(const Format &scale, uint32_t word) {
  return scale.extra == ScaleExtra::flag && (word >> scale.field_bits()) != 0;
}

/// The scale of element i of a block. Exact.
[[nodiscard]] NVFP4_HD constexpr float scale_value(FormatId scale, uint32_t word, int i) {
  const float value = value_f32(scale, word);
  return format(scale).extra == ScaleExtra::exponents ? value * float(1 << scale_shift(format(scale), word, i)) : value;
}

/// The value of an element's code, one FP32 product where it is flagged.
[[nodiscard]] NVFP4_HD constexpr float element_value(FormatId element, uint64_t code, bool flagged) {
  const Format f = format(element);
  return flagged && f.has_other() ? value_f32(f.other, code) * f.other_unit : value_f32(element, code);
}

/// A number as a factor of a product: significand * 2^lsb.
struct Factor {
  Class cls;
  bool negative;
  uint64_t significand;
  int lsb;
};

[[nodiscard]] NVFP4_HD constexpr Factor factor_of(const Format &f, uint64_t code) {
  const Decoded d = decode(f, code);
  return {d.cls, d.negative, d.significand, d.exponent - f.mantissa_bits};
}
/// Of an element; exactly element_value().
[[nodiscard]] NVFP4_HD constexpr Factor element_factor(const Format &element, uint64_t code, bool flagged) {
  if (!flagged || !element.has_other()) return factor_of(element, code);
  return factor_of(format(FormatId::f32), bit_cast<uint32_t>(element_value(element.id, code, true)));
}
/// Of the scale of element i of its block; exactly scale_value().
[[nodiscard]] NVFP4_HD constexpr Factor scale_factor(const Format &scale, uint32_t word, int i) {
  Factor f = factor_of(scale, word);
  f.lsb += scale_shift(scale, word, i);
  return f;
}

} // namespace nvfp4
