// SPDX-License-Identifier: Apache-2.0
// The element formats that tensor cores read and write, as host-side data with an exact decoder and encoder
// of bits. Deliberately independent of any emulator: captured inputs must not depend on the code they will be
// used to judge. Internal.
#pragma once
#include <cstdint>

namespace nvfp4::golden::cases {

enum class Element : uint8_t { e2m1, e3m2, e2m3, e4m3, e5m2, ue4m3, ue8m0, bf16, f16, tf32, f32, f64, e1m2, int4, int8, ue5m3, ue5m3g,
  s1p2, if4, mixfp4, ue4m3f, hif4s, int16, p4e1, p8e0, p16e1 };
inline constexpr int kElements = 26;

/// value = (-1)^s * 1.m * 2^(E - bias), or 0.m * 2^(1 - bias) when the field E is 0.
struct ElementFormat {
  const char *name;
  int bits; ///< storage of one element in a buffer: 4 (two per byte, low nibble first), 8, 16, 32, 64
  int exponent_bits, mantissa_bits, bias;
  int padding;  ///< low bits of the word below the mantissa (tf32: 13)
  bool has_inf; ///< the largest exponent field means Inf and NaN
  bool has_nan; ///< with has_inf false: the all-ones code alone is NaN
  bool complement = false; ///< negative codes are two's complements (integers, without an exponent field)
  bool normal = false;     ///< the field 0 is as any other: there is neither zero nor subnormal (E6M2)
  /// What a set bit above a scale's code makes of elements: of them this format, its values times a number.
  Element flagged = Element::f64;
  double flagged_unit = 0.0; ///< 0: nothing
  /// es of a posit, whose exponent and mantissa bits are those of the shortest regime; below 0: it is none.
  int posit = -1;

  [[nodiscard]] bool is_posit() const { return posit >= 0; }
  [[nodiscard]] int min_exponent() const { return is_posit() ? -max_exponent() : normal ? -bias : 1 - bias; }
  /// Exponent of the smallest subnormal.
  [[nodiscard]] int bottom() const { return normal || is_posit() ? min_exponent() : min_exponent() - mantissa_bits; }
  /// Largest exponent of a finite number.
  [[nodiscard]] int max_exponent() const {
    if (is_posit()) return (exponent_bits + mantissa_bits - 1) << posit;
    return (1 << exponent_bits) - 1 - bias - (has_inf ? 1 : 0);
  }
  [[nodiscard]] int digits() const { return bits / 4; }
};

[[nodiscard]] const ElementFormat &format_of(Element e);

/// The code of sign * 1.fraction * 2^exponent, where `fraction` supplies mantissa_bits random or chosen bits
/// (its top bits, 64 wide). Exponents below the normal range give subnormals (truncated), above it the
/// largest finite number.
[[nodiscard]] uint64_t compose(const ElementFormat &f, bool negative, int exponent, uint64_t fraction);

/// The code whose value is exactly `value`, in `code`; false when the format has none. Signed zeros keep
/// their sign where the format has one.
[[nodiscard]] bool encode_exact(const ElementFormat &f, double value, uint64_t &code);

/// The value of a code; NaN and Inf as such. Exact for every format here.
[[nodiscard]] double decode(const ElementFormat &f, uint64_t code);

/// Code of +Inf, or of the largest finite number when the format has no Inf.
[[nodiscard]] uint64_t inf_or_max(const ElementFormat &f);
[[nodiscard]] uint64_t max_finite(const ElementFormat &f);
/// A NaN code with the given sign and payload bits, or the largest finite number when the format has no NaN.
[[nodiscard]] uint64_t nan_or_max(const ElementFormat &f, bool negative, uint64_t payload);
[[nodiscard]] uint64_t sign_bit(const ElementFormat &f);
/// A magnitude's code with a sign, and the code of the negative of a number.
[[nodiscard]] uint64_t with_sign(const ElementFormat &f, bool negative, uint64_t magnitude);
[[nodiscard]] uint64_t negated(const ElementFormat &f, uint64_t code);

} // namespace nvfp4::golden::cases
