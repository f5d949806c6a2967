// SPDX-License-Identifier: Apache-2.0
// The steps from block maximum to codes as data: one field per step, one enumerator per form found in a
// public implementation. block_rule.hpp executes it; convention.hpp gives the records their names.
#pragma once
#include "nvfp4/emulator/formats/block_codes.hpp"
#include "nvfp4/emulator/names.hpp"

namespace nvfp4 {

// The names of the enumerators are the formulas, for messages.
// Notation: bmax = max |x| of the block, amax = max |x| of the tensor (of the row where row-scaled), M = 448
// or 256, 6 = the largest element (7 of INT4, 3.5 of E1M2), S = global encode scale, p = global decode scale, SF = decoded block scale. Every operation is one
// FP32 operation, rounded to nearest even.

/// What a maximum does with NaN elements.
enum class AmaxNan : uint8_t {
  ignore,     ///< fmaxf from 0: NaN never wins
  unless_all, ///< fmaxf from the first element: NaN only if there is nothing else
  propagate,  ///< torch.amax: one NaN makes the maximum NaN
  zero,       ///< one NaN makes the maximum 0
};
[[nodiscard]] constexpr auto names_of(AmaxNan) {
  return enum_names("NaN in a maximum", "NaN never wins", "NaN wins only alone", "NaN wins", "NaN makes it 0");
}
static_assert(names_of(AmaxNan{}).end_with(AmaxNan::zero));

/// The second-level scale. Comments give (S, p).
enum class GlobalRule : uint8_t {
  none,     ///< no second level
  te,       ///< S = min(6M / amax, FLT_MAX), 1 where amax or S is 0; p = 1 / S
  quotient, ///< S = 6M / amax unguarded, p = 1 / S; amax = 0: all codes and scales stay 0
  caller,   ///< S comes from the caller; from an amax it is 6M / amax, 1 where that is not finite or is 0
  decode,   ///< p = amax / 6M; S unused
  part_sixth, ///< p = (amax / e4m3_max) / largest element, 1 where that is 0; S unused; of `outer_block`s of a row, 0: of the
              ///< whole
  decode_floored, ///< p = max(min(amax, FLT_MAX) / 6M, 1e-30); S unused
  offset_sixth,   ///< p = (amax / 6 + 1e-9) / M; S unused
  macro, ///< S = the upper 8 of the 23 fraction bits of 6 / max(amax, 1e-12), from 1 to below 2, 1.5 of NaN; p = 1 / S; of
         ///< `outer_block`s
  compressed_tensors ///< S = (1 / max(amax, tiny)) * 6M, each step in the source type; NaN and Inf -> 1; p =
                     ///< 1 / S
};
[[nodiscard]] constexpr auto names_of(GlobalRule) {
  return enum_names("global scale", "none", "S = min(6M / amax, FLT_MAX)", "S = 6M / amax",
                    "S from the caller", "p = amax / 6M", "p = (amax / M) / 6", "p = amax / 6M, at least 1e-30",
                    "p = (amax / 6 + 1e-9) / M", "S = 8 fraction bits of 6 / amax of a part of a row", "S = (1 / amax) * 6M");
}
static_assert(names_of(GlobalRule{}).end_with(GlobalRule::compressed_tensors));

/// The block scale before it is rounded.
enum class ScaleOrder : uint8_t {
  amax_by_encode_sixth, ///< bmax * (S * K6), K6 = f32(1/6)
  sixth_by_encode,      ///< (bmax / 6) * S
  encode_by_amax_k6,    ///< S * (bmax * K6)
  sixth_by_decode,      ///< (bmax / 6) / p
  amax_by_six_decode,   ///< bmax / (6 * p)
  decode_by_sixth,      ///< (bmax / p) / 6
  source_sixth,         ///< S * t, t = bmax / 6 rounded to the source type
  sixth,                ///< bmax / 6
  amax_sixth,           ///< amax / 6, of the tensor or the row: one scale for all of it, repeated by blocks
  amax_by_inverse_max,  ///< bmax * f32(1 / largest element value)
  offset_sixth_by_decode, ///< (bmax / 6 + 1e-9) / p
  macro_even,           ///< exponent_even of bf16(bmax * S), over S
  exponent_floor,       ///< power of two: exponent field of bmax minus that of the largest element value
  exponent_field,       ///< the same, but Inf is 2^128 and has a scale as well
  exponent_ceil,        ///< that of the power of two not below bmax
  exponent_even,        ///< that of bmax rounded half up to the element's significand
  amax_exponent,        ///< exponent_floor of amax, of the tensor or the row: one exponent for all of it, repeated by blocks
  bf16_inverse_top,     ///< bf16(bmax * bf16(1 / T)), T = 4 times the largest element: 7, with both one-bit exponents
};
[[nodiscard]] constexpr auto names_of(ScaleOrder) {
  return enum_names("scale before rounding", "bmax * (S * K6)", "(bmax / 6) * S", "S * (bmax * K6)",
                    "(bmax / 6) / p", "bmax / (6 * p)", "(bmax / p) / 6", "S * source(bmax / 6)", "bmax / 6", "amax / 6",
                    "bmax * (1 / largest element)", "(bmax / 6 + 1e-9) / p", "exponent of bf16(bmax * S) rounded half up, over S",
                    "exponent of bmax minus that of the largest element",
                    "the same with Inf as 2^128", "the same of bmax rounded up to a power of two",
                    "the same of bmax rounded half up to the element's significand",
                    "exponent of amax minus that of the largest element",
                    "bf16(bmax * bf16(1 / (4 * largest element)))");
}
static_assert(names_of(ScaleOrder{}).end_with(ScaleOrder::bf16_inverse_top));

/// What happens to that value before and while it is rounded to the scale format.
enum class ScaleRounding : uint8_t {
  cap_flt_max,    ///< min(s, FLT_MAX), which also turns NaN into FLT_MAX; nearest even, saturating
  cap_largest,    ///< min(s, largest scale), NaN becomes that; nearest even
  plain,          ///< nearest even, saturating; NaN stays NaN
  clamp_normal,   ///< to [smallest normal, largest scale], [2^-6, 448] of UE4M3; NaN stays NaN
  clamp_finite,   ///< NaN becomes the smallest scale; to [smallest, largest scale]
  clamp_tiny,     ///< 0 becomes 1, then to [smallest, largest scale], [2^-9, 448] of UE4M3; NaN stays NaN
  one_if_zero,    ///< nearest even, saturating; a zero code becomes 1; NaN stays NaN
  eighth_if_zero, ///< to at most the largest scale, nearest even; a zero code becomes 0.125; NaN stays NaN
  ggml,     ///< UE4M3 only: round half up on bit 19, [248, Inf] -> 448, subnormals floor(512 s + 0.5) up to 7
  power_up, ///< the power of two not below, Inf -> the largest, NaN stays (cvt.rp.satfinite.ue8m0x2)
  as_it_is, ///< FP32 scales: at least `least_scale`, not rounded
  e4m3_by_decode, ///< FP32 scales: E4M3 of it, 2^-9 for 0, times p, one product
  power_normal, ///< already a power of two; below 2^-126 -> 2^-126, not finite -> NaN
  power_exact, ///< already a power of two; below the smallest -> code 0, not finite -> NaN
};
[[nodiscard]] constexpr auto names_of(ScaleRounding) {
  return enum_names("scale rounding", "capped at FLT_MAX, NaN too", "capped at the largest scale, NaN too",
                    "saturating, NaN stays", "clamped from the smallest normal scale up",
                    "clamped from the smallest scale up, NaN to it",
                    "clamped from the smallest scale up, 0 to 1", "1 where the code is 0", "0.125 where the code is 0",
                    "ggml: half up, 248 to 448", "power of two not below", "as it is, in FP32", "E4M3 times p, in FP32",
                    "power of two from 2^-126 on", "power of two as it is");
}
static_assert(names_of(ScaleRounding{}).end_with(ScaleRounding::power_exact));

/// How an element meets its scale.
enum class Scaling : uint8_t {
  inverse_capped, ///< x * min(1 / (SF * p), FLT_MAX)
  inverse,        ///< x * (1 / (SF * p)), flushing subnormal products and reciprocals
  inverse_ieee,   ///< x * (1 / (SF * p)) with IEEE operations
  inverse_decode, ///< x * ((1 / p) / SF)
  divide,         ///< x / (SF * p)
  divide_encode,  ///< x / (SF / S)
  search,         ///< nearest of the 16 code values k * (SF / 2) in halves, by |k d - x|, the first of equals
  exponent,       ///< x * 2^(127 - code), 2^127 for code 0, NaN for code 0xFF
  exponent_one,   ///< the same, but 1 for code 0
  exponent_normal, ///< x / max(2^(code - 127), 2^-126): 2^126 for code 0, a division by Inf for code 0xFF
  divide_unrounded,       ///< x / (bmax / 6 + 1e-9): what the scale was before it was rounded
  macro_bf16,             ///< bf16(x * (1 / SF)), 1 / SF exact: S over a power of two
  inverse_scale,          ///< x * (1 / SF)
  divide_scale,           ///< x / SF
  bf16_reciprocal,        ///< x * bf16(1 / SF)
  divide_bf16_reciprocal, ///< x / (1 / bf16(1 / SF))
};
[[nodiscard]] constexpr auto names_of(Scaling) {
  return enum_names("element scaling", "x * min(1 / (SF * p), FLT_MAX)", "x * (1 / (SF * p))", "x * (1 / (SF * p)) in IEEE operations",
                    "x * ((1 / p) / SF)", "x / (SF * p)", "x / (SF / S)", "search of the nearest k * SF / 2",
                    "x * 2^(127 - code)", "x * 2^(127 - code), x for code 0",
                    "x / max(2^(code - 127), 2^-126)", "x / (bmax / 6 + 1e-9)", "bf16(x * S * 2^-e)", "x * (1 / SF)", "x / SF", "x * bf16(1 / SF)", "x / (1 / bf16(1 / SF))");
}
static_assert(names_of(Scaling{}).end_with(Scaling::divide_bf16_reciprocal));
/// Whether an element is divided by a block's factor, not multiplied with it.
[[nodiscard]] NVFP4_HD constexpr bool divides(Scaling s) {
  return s == Scaling::divide || s == Scaling::divide_encode || s == Scaling::divide_unrounded ||
         s == Scaling::divide_scale || s == Scaling::divide_bf16_reciprocal;
}

/// When the multiplier is forced to 0.
enum class ZeroMultiplier : uint8_t {
  never,
  zero_amax,  ///< bmax == 0
  zero_scale, ///< SF == 0
};
[[nodiscard]] constexpr auto names_of(ZeroMultiplier) {
  return enum_names("zero multiplier", "never", "where bmax is 0", "where SF is 0");
}
static_assert(names_of(ZeroMultiplier{}).end_with(ZeroMultiplier::zero_scale));

/// What the element conversion does with a negative value that rounds to zero.
enum class NegativeZero : uint8_t {
  keep,       ///< the sign stays: -0 and -0.1 give 0x8
  drop_exact, ///< -0 gives 0x0, -0.1 gives 0x8 (a sign taken from x < 0)
};
[[nodiscard]] constexpr auto names_of(NegativeZero) {
  return enum_names("negative zero", "keeps its sign", "-0 loses its sign");
}
static_assert(names_of(NegativeZero{}).end_with(NegativeZero::drop_exact));

/// The element code of a NaN (for formats without one). Upstream, the last two are accidents of integer
/// conversions and follow sign and payload of a NaN that the CPU made up; here a NaN element keeps its sign
/// and any other NaN is positive.
enum class NanCode : uint8_t {
  plus_max,     ///< cvt.rn.satfinite: +6, sign dropped; the format's NaN where there is one
  zero,         ///< 0x0 or 0x8
  one_and_half, ///< 1.5, of E2M1 0x3 or 0xB: what integer rounding makes of the quiet NaN 0x7FC00000
};
[[nodiscard]] constexpr auto names_of(NanCode) {
  return enum_names("code of a NaN element", "largest", "0 with its sign", "1.5 with its sign");
}
static_assert(names_of(NanCode{}).end_with(NanCode::one_and_half));

/// Where an element lies half way between two codes.
enum class Ties : uint8_t {
  even, ///< to the even code
  away, ///< to the larger magnitude
};
[[nodiscard]] constexpr auto names_of(Ties) { return enum_names("ties", "to the even code", "away from zero"); }
static_assert(names_of(Ties{}).end_with(Ties::away));

/// Two candidates for a block, of which the second is taken where its error is strictly less: scaling to 6 or to 4,
/// or, of elements whose scale may be flagged, unflagged or flagged.
enum class FourOverSix : uint8_t { off, mae, mse };
[[nodiscard]] constexpr auto names_of(FourOverSix) {
  return enum_names("four over six", "off", "least absolute error", "least squared error");
}
static_assert(names_of(FourOverSix{}).end_with(FourOverSix::mse));

/// The scale of the second candidate.
enum class SecondScale : uint8_t {
  wider, ///< 1.5 times the first before rounding: the block's maximum lands on 4
  same,  ///< the first
  own,   ///< as the first, with the largest value of the flagged elements in place of 6
};
[[nodiscard]] constexpr auto names_of(SecondScale) {
  return enum_names("scale of the second candidate", "1.5 times the first", "the first", "of its own largest element");
}
static_assert(names_of(SecondScale{}).end_with(SecondScale::own));

/// How x is reconstructed. v is the element's value.
enum class Decoding : uint8_t {
  amax_constant, ///< v * ((SF * amax) * f32(1 / 6M))
  scale_decode,  ///< v * (SF * p)
  scale_encode,  ///< v * (SF / S)
  amax_divide,   ///< ((v * SF) * amax) / 6M
  value_decode,  ///< (v * SF) * p
  scale_only,    ///< v * SF
  bf16_reciprocal, ///< v * (1 / bf16(1 / SF)): not the format's own value
};
[[nodiscard]] constexpr auto names_of(Decoding) {
  return enum_names("decoding", "v * ((SF * amax) * (1 / 6M))", "v * (SF * p)", "v * (SF / S)",
                    "((v * SF) * amax) / 6M", "(v * SF) * p", "v * SF", "v * (1 / bf16(1 / SF))");
}
static_assert(names_of(Decoding{}).end_with(Decoding::bf16_reciprocal));

struct Rule {
  FormatId element = FormatId::e2m1;
  FormatId scale = FormatId::ue4m3;
  int16_t block = 16;
  float e4m3_max = 448.0f; ///< M of the global scale
  AmaxNan amax_nan = AmaxNan::ignore;
  GlobalRule global = GlobalRule::te;
  bool per_row = false; ///< one amax, S and p per row instead of per tensor
  float top = 0.0f; ///< the 6 of the formulas where it is not the largest element: what a block's maximum is to land on
  int16_t outer_block = 0; ///< elements of a row that have a p of their own, which their scales hold; 0: none have
  ScaleOrder order = ScaleOrder::amax_by_encode_sixth;
  ScaleRounding scale_rounding = ScaleRounding::cap_flt_max;
  float least_scale = 0.0f; ///< of scales that are not rounded
  Scaling scaling = Scaling::inverse_capped;
  ZeroMultiplier zero_multiplier = ZeroMultiplier::never;
  NegativeZero negative_zero = NegativeZero::keep;
  NanCode nan_code = NanCode::plus_max;
  Ties ties = Ties::even;
  FourOverSix four_over_six = FourOverSix::off;
  SecondScale second_scale = SecondScale::wider;
  bool fused_error = false; ///< the squared error is accumulated with one fma
  bool flush = false; ///< FP32 products and quotients flush subnormal inputs and results to zero (-ftz=true)
  Decoding decoding = Decoding::amax_constant;

  bool operator==(const Rule &) const = default;
};

/// Whether a row's second level is a factor of its own: of others the scales hold it.
[[nodiscard]] NVFP4_HD constexpr bool has_row_factors(const Rule &r) {
  return r.per_row && r.global != GlobalRule::none;
}
/// Whether a tensor has a second level beside its scales.
[[nodiscard]] NVFP4_HD constexpr bool has_level(const Rule &r) {
  return r.global != GlobalRule::none && r.outer_block == 0;
}
/// Whether that is one scale of the whole tensor, which an amax decides.
[[nodiscard]] NVFP4_HD constexpr bool has_tensor_level(const Rule &r) { return has_level(r) && !r.per_row; }

/// Whether p is the word of the second level, and S unused.
[[nodiscard]] NVFP4_HD constexpr bool stores_decode(const Rule &r) {
  return has_level(r) && (r.global == GlobalRule::decode || r.global == GlobalRule::decode_floored ||
                          r.global == GlobalRule::offset_sixth || r.global == GlobalRule::part_sixth);
}
/// Whether S is the word, of a convention that takes it from its caller.
[[nodiscard]] NVFP4_HD constexpr bool takes_encode(const Rule &r) {
  return r.global == GlobalRule::caller || r.global == GlobalRule::compressed_tensors;
}

/// Tops of rules: fouroversix's 6 * 16 / 17 for unbiased stochastic rounding, Quartet II's 6 / (17 / 16 * 0.93).
inline constexpr float kUnbiasedTop = float(6.0 * 16.0 / 17.0), kEdenTop = float(6.0 / (17.0 / 16.0 * 0.93));
inline constexpr float kSixth = 1.0f / 6.0f; // 0x3E2AAAAB
/// The 6 of the formulas: the largest element, or the rule's own. E2M1 first, for speed alone.
[[nodiscard]] NVFP4_HD inline float largest_element(const Rule &r) {
  if (r.top != 0.0f) return r.top;
  return r.element == FormatId::e2m1 ? 6.0f : largest(r.element);
}
/// Its reciprocal, rounded: K6.
[[nodiscard]] NVFP4_HD inline float inverse_largest(const Rule &r) {
  if (r.top != 0.0f) return 1.0f / r.top;
  return r.element == FormatId::e2m1 ? kSixth : 1.0f / largest(r.element);
}

/// The largest flagged value; of other elements, the largest.
[[nodiscard]] NVFP4_HD inline float largest_other(const Rule &r) {
  const Format f = format(r.element);
  return f.has_other() ? largest(f.other) * f.other_unit : largest_element(r);
}

/// A rule without what only other steps read: rules whose projections are equal give the same codes and
/// scales.
[[nodiscard]] NVFP4_HD constexpr Rule quantizing_part(Rule r) {
  r.decoding = {};
  if (r.scale_rounding != ScaleRounding::as_it_is) r.least_scale = 0.0f;
  if (r.four_over_six == FourOverSix::off) {
    r.fused_error = false;
    r.second_scale = {};
  }
  return r;
}

/// MX with the floor of the exponent (OCP MX 1.0, 6.3).
[[nodiscard]] NVFP4_HD constexpr Rule mx_floor_rule(FormatId element) {
  return {.element = element,
          .scale = FormatId::ue8m0,
          .block = 32,
          .amax_nan = AmaxNan::propagate,
          .global = GlobalRule::none,
          .order = ScaleOrder::exponent_floor,
          .scale_rounding = ScaleRounding::power_exact,
          .scaling = Scaling::exponent,
          .nan_code = format(element).specials == Specials::finite_only ? NanCode::one_and_half : NanCode::plus_max,
          .decoding = Decoding::scale_only};
}


} // namespace nvfp4
