// SPDX-License-Identifier: Apache-2.0
// The formats of elements and scales as data: field widths, bias, what the top codes mean. Nothing here rounds. A new
// format is an enumerator and a row below, and a row in the oracle.
// Sources: OCP MX 1.0 section 5.3 (E2M1, E3M2, E2M3, E4M3, E5M2, E8M0); PTX ISA 9.1 section 5.2.3 (alternate
// floating-point formats, TF32, UE4M3); IEEE 754-2019 (binary16, 32, 64).
#pragma once
#include "nvfp4/emulator/config.hpp"

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

namespace nvfp4 {

enum class FormatId : uint8_t { e2m1, e3m2, e2m3, e4m3, e5m2, ue4m3, ue8m0, bf16, f16, tf32, e8m13, f32, f64, ue5m3, e1m2, int4, int8, ue5m3g, s1p2, if4, mixfp4,
  ue4m3f, hif4s, int16, p4e1, p8e0, p16e1 };
inline constexpr int kFormatCount = 27;

/// What the codes with the largest exponent field mean.
enum class Specials : uint8_t {
  finite_only, ///< every code is a number (E2M1, E3M2, E2M3)
  nan_only,    ///< only the all-ones code is NaN, there is no Inf (E4M3, UE4M3, UE5M3, UE8M0)
  ieee,        ///< Inf and NaN as in IEEE 754
};

/// How the bits below a code's sign make its value.
enum class Encoding : uint8_t {
  floating,       ///< field 0 is subnormal: its exponent is 1 - bias and its significand has no hidden bit
  powers_of_two,  ///< field E is 2^(E - bias) throughout, there is no zero (UE8M0)
  normal,         ///< field E is 2^(E - bias) times a significand with its hidden bit throughout, there is no zero (E6M2)
  twos_complement, ///< no exponent field; negative numbers are complements. Of integers the lowest code is no result
  /// Posits (Posit Standard 2022): behind the sign a run of equal bits and the one that ends it, then exponent and fraction as far
  /// as there is room; negative numbers are complements, the lowest code is NaR, which here is NaN. `exponent_bits` and
  /// `mantissa_bits` are those of the shortest run, which has two bits.
  posit
};

/// What the bits above a scale's code say of its block.
enum class ScaleExtra : uint8_t {
  none,
  flag,      ///< one bit: whether the codes of elements mean those of their format's `other`
  exponents, ///< HiFloat4's 24 bits: an exponent of 0 or 1 for each 8 elements, then one for each 4
};

/// A binary format. value = (-1)^s * significand * 2^(exponent - mantissa_bits). With no exponent bits all codes are
/// subnormal, evenly spaced by 2^(1 - bias - mantissa_bits): integers have bias 1 - mantissa_bits.
struct Format {
  FormatId id;
  char name[8];
  int8_t storage_bits; ///< bits of one element in memory, before packing: 4, 8 (6-bit formats too), 16, 32, 64
  int8_t code_bits;    ///< bits of the code itself, sign included
  int8_t exponent_bits;
  int8_t mantissa_bits;
  int8_t padding_bits; ///< low bits of the word that are ignored on reading and zero on writing (TF32: 13)
  int16_t bias;
  Specials specials;
  bool has_sign; ///< UE4M3 is read with its top bit ignored; UE5M3 and UE8M0 have none
  Encoding encoding = Encoding::floating;
  ScaleExtra extra = ScaleExtra::none;
  /// Of elements whose scale may be flagged: the format that a flag makes of them (f64: none does), and what its values
  /// are times.
  FormatId other = FormatId::f64;
  float other_unit = 1.0f;

  [[nodiscard]] NVFP4_HD constexpr bool has_other() const { return other != FormatId::f64; }
  [[nodiscard]] NVFP4_HD constexpr FormatId flagged() const { return has_other() ? other : id; }
  /// Formats without a sign hold block scales; of the others, those of up to 8 bits hold elements of blocks.
  [[nodiscard]] NVFP4_HD constexpr bool of_scales() const { return !has_sign; }
  [[nodiscard]] NVFP4_HD constexpr bool of_elements() const {
    return has_sign && code_bits <= 8 && encoding != Encoding::posit; // nobody scales blocks of posits
  }
  /// Whether negative codes are complements of positive ones.
  [[nodiscard]] NVFP4_HD constexpr bool complements() const {
    return encoding == Encoding::twos_complement || encoding == Encoding::posit;
  }
  /// es of a posit.
  [[nodiscard]] NVFP4_HD constexpr int posit_exponent() const { return exponent_bits - 2; }

  [[nodiscard]] NVFP4_HD constexpr int min_exponent() const {
    if (encoding == Encoding::posit) return -((code_bits - 2) << posit_exponent());
    return encoding == Encoding::normal ? -bias : 1 - bias;
  }
  [[nodiscard]] NVFP4_HD constexpr int field_bits() const { return exponent_bits + mantissa_bits; }
  [[nodiscard]] NVFP4_HD constexpr uint64_t magnitude_mask() const { return (uint64_t{1} << field_bits()) - 1; }
  /// All ones without the sign: the NaN that every NVIDIA conversion and tensor core writes, where there is a NaN.
  [[nodiscard]] NVFP4_HD constexpr uint64_t top_magnitude() const { return magnitude_mask(); }
  [[nodiscard]] NVFP4_HD constexpr uint64_t infinity_magnitude() const {
    return ((uint64_t{1} << exponent_bits) - 1) << mantissa_bits;
  }
  [[nodiscard]] NVFP4_HD constexpr uint64_t max_finite_magnitude() const {
    return specials == Specials::ieee       ? infinity_magnitude() - 1
           : specials == Specials::nan_only ? top_magnitude() - 1
                                            : top_magnitude();
  }
  /// The code of 1. Every format here has one.
  [[nodiscard]] NVFP4_HD constexpr uint64_t one() const {
    return (bias < 1 ? uint64_t{1} << (mantissa_bits - min_exponent()) : uint64_t(bias) << mantissa_bits) << padding_bits;
  }
};

/// The format of an id. E8M13 is the 22-bit register of Ada's and Hopper's FP8 path, kept in an f32 word.
[[nodiscard]] NVFP4_HD constexpr Format format(FormatId id) {
  using enum FormatId;
  switch (id) {
  case e2m1: return {e2m1, "e2m1", 4, 4, 2, 1, 0, 1, Specials::finite_only, true};
  case e3m2: return {e3m2, "e3m2", 8, 6, 3, 2, 0, 3, Specials::finite_only, true};
  case e2m3: return {e2m3, "e2m3", 8, 6, 2, 3, 0, 1, Specials::finite_only, true};
  case e4m3: return {e4m3, "e4m3", 8, 8, 4, 3, 0, 7, Specials::nan_only, true};
  case e5m2: return {e5m2, "e5m2", 8, 8, 5, 2, 0, 15, Specials::ieee, true};
  case ue4m3: return {ue4m3, "ue4m3", 8, 7, 4, 3, 0, 7, Specials::nan_only, false};
  case ue8m0: return {ue8m0, "ue8m0", 8, 8, 8, 0, 0, 127, Specials::nan_only, false, Encoding::powers_of_two};
  case bf16: return {bf16, "bf16", 16, 16, 8, 7, 0, 127, Specials::ieee, true};
  case f16: return {f16, "f16", 16, 16, 5, 10, 0, 15, Specials::ieee, true};
  case tf32: return {tf32, "tf32", 32, 19, 8, 10, 13, 127, Specials::ieee, true};
  case e8m13: return {e8m13, "e8m13", 32, 22, 8, 13, 10, 127, Specials::ieee, true};
  case f32: return {f32, "f32", 32, 32, 8, 23, 0, 127, Specials::ieee, true};
  // the definition of AMD ALTO and OCP's E5M3 discussion: all ones is NaN, 114688 the largest
  case ue5m3: return {ue5m3, "ue5m3", 8, 8, 5, 3, 0, 15, Specials::nan_only, false};
  // the evenly spaced grid of UFP4 (arXiv 2606.20381) and MixFP4 (2605.31035): 0, 0.5, ... 3.5
  case e1m2: return {e1m2, "e1m2", 4, 4, 1, 2, 0, 0, Specials::finite_only, true};
  // whole numbers, as of NVINT4 and MXINT4
  case int4: return {int4, "int4", 4, 4, 0, 3, 0, -2, Specials::finite_only, true, Encoding::twos_complement};
  // MXINT8's element (OCP MX 1.0, 5.3.4): steps of 2^-6
  case int8: return {int8, "int8", 8, 8, 0, 7, 0, 0, Specials::finite_only, true, Encoding::twos_complement};
  // whole numbers of dynamic fixed point (Das et al., arXiv 1802.00930), whose tensor has one exponent outside
  case int16: return {int16, "int16", 16, 16, 0, 15, 0, -14, Specials::finite_only, true, Encoding::twos_complement};
  // posits of N bits and es bits of exponent, (N, es) as Lu et al. write them (arXiv 1909.03831): (4, 1), (8, 0), (16, 1)
  case p4e1: return {p4e1, "p4e1", 4, 4, 3, 0, 0, 4, Specials::finite_only, true, Encoding::posit};
  case p8e0: return {p8e0, "p8e0", 8, 8, 2, 5, 0, 2, Specials::finite_only, true, Encoding::posit};
  case p16e1: return {p16e1, "p16e1", 16, 16, 3, 12, 0, 4, Specials::finite_only, true, Encoding::posit};
  // Graphcore's definition (arXiv 2609.02846): the top exponent is unused, 61440 the largest. What its codes would mean
  // is not said; here they are Inf and NaN, and none is written
  case ue5m3g: return {ue5m3g, "ue5m3g", 8, 8, 5, 3, 0, 15, Specials::ieee, false};
  // HiFloat4 (arXiv 2602.11287): elements 0, 0.25, ... 1.75 with a sign, and the 32 bits of a block of 64: E6M2 from 2^-48
  // to 49152 in the low byte, all ones NaN, then the exponents of its eighths and of its sixteenths, the first lowest
  case s1p2: return {s1p2, "s1p2", 4, 4, 0, 3, 0, 0, Specials::finite_only, true};
  case hif4s: return {hif4s, "hif4s", 32, 8, 6, 2, 0, 48, Specials::nan_only, false, Encoding::normal, ScaleExtra::exponents};
  // mit-han-lab/fouroversix: E2M1, or INT4 times f32(6 / 7), by the sign bit of the block's E4M3
  case if4: return {if4, "if4", 4, 4, 2, 1, 0, 1, Specials::finite_only, true, Encoding::floating, ScaleExtra::none, int4, 6.0f / 7.0f};
  // MixFP4 (arXiv 2605.31035): E2M1, or E1M2 counting 0, 1, ... 7, by the same bit
  case mixfp4: return {mixfp4, "mixfp4", 4, 4, 2, 1, 0, 1, Specials::finite_only, true, Encoding::floating, ScaleExtra::none, e1m2, 2.0f};
  case ue4m3f: return {ue4m3f, "ue4m3f", 8, 7, 4, 3, 0, 7, Specials::nan_only, false, Encoding::floating, ScaleExtra::flag};
  case f64: break;
  }
  return {f64, "f64", 64, 64, 11, 52, 0, 1023, Specials::ieee, true};
}

/// Bytes of one scale in memory, the lowest first.
[[nodiscard]] NVFP4_HD constexpr int scale_bytes(FormatId scale) { return format(scale).storage_bits / 8; }

/// The format of a name as written in units and files ("e2m1", "bf16", ...), or nothing.
[[nodiscard]] constexpr std::optional<FormatId> find_format(std::string_view name) {
  for (int i = 0; i < kFormatCount; ++i)
    if (name == format(FormatId(i)).name) return FormatId(i);
  return std::nullopt;
}

/// The formats with a property, in order.
[[nodiscard]] inline std::vector<FormatId> formats_where(bool (Format::*holds)() const) {
  std::vector<FormatId> all;
  for (int i = 0; i < kFormatCount; ++i)
    if (const Format f = format(FormatId(i)); (f.*holds)()) all.push_back(f.id);
  return all;
}

} // namespace nvfp4
