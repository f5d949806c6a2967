// SPDX-License-Identifier: Apache-2.0
// A unit: one tensor-core instruction of one architecture, as the parameters of the algorithm that gives its bits.
// Plain data, usable on the GPU. The algorithms are in fdpa.hpp, gst_fdpa.hpp and exact_sum.hpp, the rows in catalogue.cpp.
#pragma once
#include "nvfp4/emulator/formats/format.hpp"
#include "nvfp4/emulator/names.hpp"

namespace nvfp4 {

/// Which algorithm computes one instruction.
enum class Family : uint8_t {
  fdpa,         ///< fused dot-product-add: align to the largest exponent, truncate, sum exactly, round once
  st_fdpa,      ///< the same with one UE8M0 scale per operand and block added to the exponents (mxf8f6f4)
  gst_fdpa,     ///< exact groups of 16 times their scales, then aligned like FDPA terms (mxf4, mxf4nvf4)
  expanded_fp8, ///< FP8 mma.sync where the compiler emits two FP16 HMMAs and one add (sm_90, 100, 103, 110)
  fma,          ///< chain of IEEE fused multiply-adds in increasing K (FP64)
  exact_sum,    ///< no hardware: products, scales and accumulator summed exactly, one rounding an instruction
};
[[nodiscard]] constexpr auto names_of(Family) {
  return enum_names("family", "fdpa", "st-fdpa", "gst-fdpa", "expanded-fp8", "fma", "exact-sum");
}
static_assert(names_of(Family{}).end_with(Family::exact_sum));

/// Rounding of a finished sum into the accumulator's container.
enum class Output : uint8_t {
  rz_f32,    ///< truncate to FP32
  rz_e8m13,  ///< truncate to 13 fraction bits, kept in an FP32 word
  rne_f16,   ///< nearest even to FP16
  rne_f64,   ///< nearest even to FP64
  rne_f32,   ///< nearest even to FP32
};
[[nodiscard]] constexpr auto names_of(Output) {
  return enum_names("output rounding", "RZ-FP32", "RZ-E8M13", "RNE-FP16", "RNE-FP64", "RNE-FP32");
}
static_assert(names_of(Output{}).end_with(Output::rne_f32));

/// How the four scaled groups of an FP4 step meet the accumulator. The public models disagree; see emulator/README.md.
enum class Accumulation : uint8_t {
  mmasim, ///< align by the exponents of the scales only, 35 fraction bits (MMA-Sim); the default
  nadpe,  ///< align by the largest product exponent plus scale exponents, 35 fraction bits (mma-emu)
  exact,  ///< exact sum, one truncation to FP32
  tcgen05_model, ///< align by the scales' exponents, groups of 4 under UE4M3 scales, unless C is the largest
                 ///< (sf-tensor/tcgen05)
};
[[nodiscard]] constexpr auto names_of(Accumulation) {
  return enum_names("accumulation model", "mmasim", "nadpe", "exact", "tcgen05-model");
}
static_assert(names_of(Accumulation{}).end_with(Accumulation::tcgen05_model));

/// How well a row is known.
enum class Evidence : uint8_t {
  hardware,  ///< reproduced outputs of the real GPU without a mismatch (see golden/)
  published, ///< stated in public work that its authors checked against hardware; not re-checked on data here
  inferred,  ///< assumed equal to a related unit
  defined,   ///< by this project, for formats that no hardware multiplies; no claim about any
};
[[nodiscard]] constexpr auto names_of(Evidence) {
  return enum_names("evidence", "hardware", "published", "inferred", "defined");
}
static_assert(names_of(Evidence{}).end_with(Evidence::defined));

/// The numbers of one unit. K values are in elements.
struct UnitRule {
  Family family;
  FormatId a, b;       ///< element formats
  FormatId acc;        ///< container of C and D: f32, f16 or f64
  Output output;
  int16_t k;           ///< K of one instruction
  int16_t link;        ///< products per fused step; k / link steps are chained, each rounded
  int16_t fraction_bits; ///< F: fraction bits kept below the largest exponent when terms are aligned
  int16_t floor;       ///< lower clamp of the largest exponent
  FormatId scale;      ///< of block scales; meaningful only when scale_block != 0
  int16_t scale_block; ///< elements per scale, 0 without scales

  /// Bytes of the scales of k elements, whole blocks.
  [[nodiscard]] NVFP4_HD constexpr int64_t scale_row(int64_t elements) const {
    return scale_block == 0 ? 0 : elements / scale_block * scale_bytes(scale);
  }

  bool operator==(const UnitRule &) const = default;
};

/// A unit cut down to what one fused step reads: units with equal steps differ in how many of them an instruction
/// chains, so a chain over the same K has the same bits.
[[nodiscard]] NVFP4_HD constexpr UnitRule step_of(UnitRule u) {
  if (u.family == Family::fdpa || u.family == Family::st_fdpa) u.k = u.link;
  if (u.family == Family::fma) u.k = u.link = 1;
  if (u.scale_block == 0) u.scale = {};
  return u;
}

} // namespace nvfp4
