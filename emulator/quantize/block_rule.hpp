// SPDX-License-Identifier: Apache-2.0
// Scalar semantics of block-scaled quantization: block maximum -> scale code -> multiplier -> element codes,
// as a Rule says. The same text on CPU and GPU; needs contraction and fast math switched off.
#pragma once
#include "nvfp4/emulator/formats/bf16.hpp"
#include "nvfp4/emulator/formats/stochastic.hpp"
#include "nvfp4/emulator/names.hpp"
#include "nvfp4/emulator/quantize/rule.hpp"

namespace nvfp4 {

inline constexpr float kFltMax = 3.402823466e+38f;
/// fminf: a NaN loses.
[[nodiscard]] NVFP4_HD inline float min_number(float a, float b) { return a < b || b != b ? a : b; }
/// A subnormal becomes a zero of its sign.
[[nodiscard]] NVFP4_HD inline float flush_subnormal(float x) {
  const uint32_t word = bit_cast<uint32_t>(x);
  return (word & 0x7F800000u) == 0 ? bit_cast<float>(word & 0x80000000u) : x;
}
/// Rounds to the values of a 16-bit type (nearest even, overflow to Inf); f32 is returned as it is.
[[nodiscard]] NVFP4_HD inline float round_to(FormatId type, float x) {
  if (type == FormatId::f32) return x;
  if (type == FormatId::bf16) return round_to_bf16(x);
  return value_f32(type, encode(type, x, Rounding::nearest_even, Overflow::ieee));
}
/// 2^e as float for -149 <= e <= 127.
[[nodiscard]] NVFP4_HD inline float power_of_two(int e) {
  return bit_cast<float>(e >= -126 ? uint32_t(e + 127) << 23 : uint32_t{1} << (e + 149));
}

namespace detail {
[[nodiscard]] NVFP4_HD inline float multiply(bool flush, float a, float b) {
  return flush ? flush_subnormal(flush_subnormal(a) * flush_subnormal(b)) : a * b;
}
[[nodiscard]] NVFP4_HD inline float divide(bool flush, float a, float b) {
  return flush ? flush_subnormal(flush_subnormal(a) / flush_subnormal(b)) : a / b;
}
/// Scaling::inverse is the form written with rcp.approx.ftz: it flushes on every machine. Taken as correctly
/// rounded.
[[nodiscard]] NVFP4_HD inline float reciprocal(const Rule &r, float a) {
  return divide(r.flush || r.scaling == Scaling::inverse, 1.0f, a);
}
/// Exponent of the largest element: of the power of two not above it.
[[nodiscard]] NVFP4_HD inline int max_exponent(FormatId element) {
  const Format f = format(element);
  const Decoded d = decode(f, f.max_finite_magnitude());
  return d.exponent - f.mantissa_bits + msb(d.significand);
}
/// What is added to a maximum's word before its exponent field is taken.
[[nodiscard]] NVFP4_HD inline uint32_t exponent_carry(const Rule &r) {
  if (r.order == ScaleOrder::exponent_ceil) return 0x7FFFFFu;
  return r.order == ScaleOrder::exponent_even ? uint32_t{1} << (22 - format(r.element).mantissa_bits) : 0u;
}
} // namespace detail

/// A running maximum of magnitudes. Independent of the order of add and merge.
struct Amax {
  uint32_t word = 0;
  bool nan = false;
  bool number = false;

  NVFP4_HD void add(float x) {
    const uint32_t magnitude = bit_cast<uint32_t>(x) & 0x7FFFFFFFu;
    if (magnitude > 0x7F800000u) {
      nan = true;
    } else {
      number = true;
      word = magnitude > word ? magnitude : word;
    }
  }
  NVFP4_HD void merge(const Amax &o) {
    word = o.word > word ? o.word : word;
    nan = nan || o.nan;
    number = number || o.number;
  }
  [[nodiscard]] NVFP4_HD float value(AmaxNan rule) const {
    const bool lost = nan && (rule == AmaxNan::propagate || (rule == AmaxNan::unless_all && !number));
    return bit_cast<float>(lost ? 0x7FC00000u : word);
  }
};

/// The second level. `amax` is NaN where the caller gave the scale itself.
struct GlobalScale {
  float amax = 0.0f;
  float encode = 1.0f; ///< S
  float decode = 1.0f; ///< p
};

/// The second level of a tensor (or row) with that amax. `source` is the type of the tensor: f32, bf16 or
/// f16.
[[nodiscard]] NVFP4_HD inline GlobalScale global_from_amax(const Rule &r, float amax, FormatId source) {
  const float range = largest_element(r) * r.e4m3_max; // exact
  switch (r.global) {
  case GlobalRule::none: return {amax, 1.0f, 1.0f};
  case GlobalRule::te: {
    float s = min_number(range / amax, kFltMax);
    if (amax == 0.0f || s == 0.0f) s = 1.0f;
    return {amax, s, 1.0f / s};
  }
  case GlobalRule::quotient: return {amax, range / amax, 1.0f / (range / amax)};
  case GlobalRule::caller: {
    const float s = range / amax;
    const float usable = s > 0.0f && s <= kFltMax ? s : 1.0f;
    return {amax, usable, detail::reciprocal(r, usable)};
  }
  case GlobalRule::decode: return {amax, 1.0f, amax / range};
  case GlobalRule::compressed_tensors: break;
  }
  const float tiny = power_of_two(-126); // FP16's is larger, but there S is Inf, so 1, long before
  const float clamped = amax < tiny ? tiny : amax;
  const float s = round_to(source, round_to(source, 1.0f / clamped) * range);
  const float usable = s == s && s <= kFltMax ? s : 1.0f;
  return {amax, usable, 1.0f / usable};
}

/// The second level from the word that the convention stores: p where the rule is `decode`, else S. The other
/// one is its reciprocal.
[[nodiscard]] NVFP4_HD inline GlobalScale global_from_word(const Rule &r, float word) {
  const float unknown = bit_cast<float>(0x7FC00000u);
  if (r.global == GlobalRule::decode) return {unknown, 1.0f, word};
  return {unknown, word, detail::reciprocal(r, word)};
}

/// A block's scale: its code, its value, and what the elements are multiplied with (divided by for the
/// dividing rules; the step of the grid in half units for the search).
struct BlockScale {
  uint8_t code = 0;
  float value = 0.0f;
  float factor = 0.0f;
  bool skipped = false; ///< the kernel leaves its zeroed output alone: every code is 0
};

namespace detail {
[[nodiscard]] NVFP4_HD inline float unrounded_scale(const Rule &r, float bmax, const GlobalScale &g,
                                                    FormatId source) {
  const bool f = r.flush;
  switch (r.order) {
  case ScaleOrder::amax_by_encode_sixth: return multiply(f, bmax, multiply(f, g.encode, inverse_largest(r)));
  case ScaleOrder::sixth_by_encode: return multiply(f, divide(f, bmax, largest_element(r)), g.encode);
  case ScaleOrder::encode_by_amax_k6: return multiply(f, g.encode, multiply(f, bmax, inverse_largest(r)));
  case ScaleOrder::sixth_by_decode: return divide(f, divide(f, bmax, largest_element(r)), g.decode);
  case ScaleOrder::amax_by_six_decode: return divide(f, bmax, multiply(f, largest_element(r), g.decode));
  case ScaleOrder::source_sixth: return multiply(f, g.encode, round_to(source, divide(f, bmax, largest_element(r))));
  case ScaleOrder::sixth: return divide(f, bmax, largest_element(r));
  case ScaleOrder::amax_by_inverse_max: return multiply(f, bmax, inverse_largest(r));
  case ScaleOrder::exponent_floor:
  case ScaleOrder::exponent_field:
  case ScaleOrder::exponent_ceil:
  case ScaleOrder::exponent_even: break;
  }
  const int field = int((bit_cast<uint32_t>(bmax) + exponent_carry(r)) >> 23);
  const bool kept = r.order == ScaleOrder::exponent_floor ? field == 0xFF : bmax != bmax;
  return kept ? bmax : power_of_two(field - 127 - max_exponent(r.element));
}

/// ggml_fp32_to_ue4m3: adds the highest discarded bit whatever follows it, and takes exponent field 15 for
/// overflow.
[[nodiscard]] NVFP4_HD inline uint8_t encode_ggml_scale(float s) {
  if (!(s > 0.0f)) return 0;
  if (s >= 248.0f) return 0x7E;
  if (s < 0.015625f) { // 2^-6
    const int steps = int(s * 512.0f + 0.5f);
    return uint8_t(steps > 7 ? 7 : steps);
  }
  const uint32_t word = bit_cast<uint32_t>(s);
  return uint8_t((word >> 20) - ((127u - 7u) << 3) + ((word >> 19) & 1));
}

[[nodiscard]] NVFP4_HD inline uint8_t round_scale(const Rule &r, float s) {
  using enum ScaleRounding;
  const auto nearest = [&](float x) { return uint8_t(encode(r.scale, x)); };
  const auto clamp = [&](float x, float low) {
    const float high = largest(r.scale);
    return x < low ? low : x > high ? high : x;
  };
  switch (r.scale_rounding) {
  case cap_flt_max: return nearest(min_number(s, kFltMax));
  case cap_largest: return nearest(min_number(s, largest(r.scale)));
  case plain: return nearest(s);
  case clamp_normal: return nearest(clamp(s, smallest_normal(r.scale)));
  case clamp_finite: return nearest(s != s ? smallest(r.scale) : clamp(s, smallest(r.scale)));
  case clamp_tiny: return nearest(clamp(s == 0.0f ? 1.0f : s, smallest(r.scale)));
  case eighth_if_zero: {
    const uint8_t code = nearest(s);
    return code == 0 ? nearest(0.125f) : code;
  }
  case ggml: return encode_ggml_scale(s);
  case power_up: return uint8_t(encode(r.scale, s, Rounding::upward));
  case power_exact: break;
  }
  return uint8_t(encode(r.scale, s, Rounding::toward_zero, Overflow::ieee));
}

[[nodiscard]] NVFP4_HD inline float scale_factor(const Rule &r, uint8_t code, float sf,
                                                 const GlobalScale &g) {
  switch (r.scaling) {
  case Scaling::inverse_capped:
    return min_number(divide(r.flush, 1.0f, multiply(r.flush, sf, g.decode)), kFltMax);
  case Scaling::inverse:
  case Scaling::inverse_ieee: return reciprocal(r, multiply(r.flush, sf, g.decode));
  case Scaling::inverse_decode: return divide(r.flush, divide(r.flush, 1.0f, g.decode), sf);
  case Scaling::divide: return multiply(r.flush, sf, g.decode);
  case Scaling::divide_encode: return divide(r.flush, sf, g.encode);
  case Scaling::search: return sf * 0.5f;
  case Scaling::exponent_one:
    if (code == 0) return 1.0f;
    break;
  case Scaling::exponent_normal:
    if (code == 0) return power_of_two(126);
    if (code == 0xFF) return 0.0f; // 1 / Inf; Inf * 0 and Inf / Inf are NaN alike
    break;
  case Scaling::exponent: break;
  }
  return code == 0xFF ? sf : power_of_two(127 - int(code));
}
} // namespace detail

/// A block's scale before it is rounded to a code, as the rule's `order` gives it.
[[nodiscard]] NVFP4_HD inline float scale_before_rounding(const Rule &r, float bmax, const GlobalScale &g,
                                                          FormatId source) {
  return detail::unrounded_scale(r, bmax, g, source);
}

/// The scale that a code stands for in a block of that maximum.
[[nodiscard]] NVFP4_HD inline BlockScale scale_of_code(const Rule &r, uint8_t code, float bmax,
                                                       const GlobalScale &g) {
  const float value = value_f32(r.scale, code);
  const bool zero = (r.zero_multiplier == ZeroMultiplier::zero_amax && bmax == 0.0f) ||
                    (r.zero_multiplier == ZeroMultiplier::zero_scale && value == 0.0f);
  return {code, value, zero ? 0.0f : detail::scale_factor(r, code, value, g), false};
}

/// The scale of a block. `to_four` asks for the wider candidate of four-over-six: 1.5 times the value, so
/// that the block's maximum lands on 4 instead of 6.
[[nodiscard]] NVFP4_HD inline BlockScale block_scale(const Rule &r, float bmax, const GlobalScale &g,
                                                     FormatId source, bool to_four = false) {
  if (r.global == GlobalRule::quotient && g.amax == 0.0f) return {0, 0.0f, 0.0f, true};
  float s = detail::unrounded_scale(r, bmax, g, source);
  if (to_four) s = detail::multiply(r.flush, s, 1.5f);
  return scale_of_code(r, detail::round_scale(r, s), bmax, g);
}

/// How an element is rounded. `nearest` is the convention's own nearest; the others are the models of
/// Stochastic.
enum class ElementRounding : uint8_t { nearest, sr_carry8, sr_te, sr_exact };
[[nodiscard]] constexpr auto names_of(ElementRounding) {
  return enum_names("rounding", "rne", "sr-carry8", "sr-te", "sr-exact");
}
static_assert(names_of(ElementRounding{}).end_with(ElementRounding::sr_exact));

namespace detail {
[[nodiscard]] NVFP4_HD inline uint8_t nearest_by_search(float x, float d) {
  int best = 0;
  float best_error = 0.0f;
  for (int code = 0; code < 16; ++code) {
    const float k = 2.0f * value_f32(FormatId::e2m1, uint64_t(code)); // 8 is -0: never better than 0
    const float error = fabsf(k * d - x);
    if (code == 0 || error < best_error) {
      best = code;
      best_error = error;
    }
  }
  return uint8_t(best);
}

[[nodiscard]] NVFP4_HD inline uint8_t nan_code(const Rule &r, float x) {
  const bool negative = x != x && (bit_cast<uint32_t>(x) >> 31) != 0;
  switch (r.nan_code) {
  case NanCode::zero: return uint8_t(with_sign(format(r.element), negative, 0));
  case NanCode::one_and_half: return uint8_t(encode(r.element, negative ? -1.5f : 1.5f));
  case NanCode::plus_max: break;
  }
  return uint8_t(canonical_nan(format(r.element)));
}
} // namespace detail

/// What is rounded to an element's code: x times the factor, or over it. Not for Scaling::search.
[[nodiscard]] NVFP4_HD inline float scaled_element(const Rule &r, float x, const BlockScale &scale) {
  const bool divides = r.scaling == Scaling::divide || r.scaling == Scaling::divide_encode;
  return divides ? detail::divide(r.flush, x, scale.factor) : detail::multiply(r.flush, x, scale.factor);
}

/// The code of one element. `random` has 8 bits for sr_carry8 and sr_te (E2M1 only), 32 for sr_exact, and is
/// not read for nearest. Stochastic rounding does not go with Scaling::search.
[[nodiscard]] NVFP4_HD inline uint8_t encode_element(const Rule &r, float x, const BlockScale &scale,
                                                     ElementRounding rounding = ElementRounding::nearest,
                                                     uint32_t random = 0) {
  if (scale.skipped) return 0;
  if (r.scaling == Scaling::search) return detail::nearest_by_search(x, scale.factor);
  const float y = scaled_element(r, x, scale);
  if (y != y) return detail::nan_code(r, x);
  if (y == 0.0f && r.negative_zero == NegativeZero::drop_exact) return 0;
  switch (rounding) {
  case ElementRounding::sr_carry8: return uint8_t(encode_carry8(r.element, y, random));
  case ElementRounding::sr_te: return uint8_t(encode_te_sr(y, random));
  case ElementRounding::sr_exact: return uint8_t(encode_exact_sr(r.element, y, random));
  case ElementRounding::nearest: break;
  }
  return uint8_t(r.element == FormatId::e2m1 ? encode(FormatId::e2m1, y) : encode(r.element, y));
}

/// Adds one element's error to a four-over-six sum. The sum of a block runs over its elements in order; the
/// 16 sums of a tile's rows are then added as a tree (i and i + 8, i and i + 4, ...).
[[nodiscard]] NVFP4_HD inline float add_error(const Rule &r, float sum, uint8_t code, float x,
                                              const BlockScale &scale, float amax) {
  const float y = ((value_f32(r.element, code) * scale.value) * amax) / (largest_element(r) * r.e4m3_max);
  const float d = y - x;
  if (r.four_over_six == FourOverSix::mae) return sum + fabsf(d);
  return r.fused_error ? fmaf(d, d, sum) : sum + d * d;
}

/// The value of an element from those of its code and of its block's scale.
[[nodiscard]] NVFP4_HD inline float decode_values(const Rule &r, float v, float sf, const GlobalScale &g) {
  switch (r.decoding) {
  case Decoding::amax_constant: return v * ((sf * g.amax) * (1.0f / (largest_element(r) * r.e4m3_max)));
  case Decoding::scale_decode: return v * (sf * g.decode);
  case Decoding::scale_encode: return v * (sf / g.encode);
  case Decoding::amax_divide: return ((v * sf) * g.amax) / (largest_element(r) * r.e4m3_max);
  case Decoding::scale_only: break;
  }
  return v * sf;
}

/// The same from the codes.
[[nodiscard]] NVFP4_HD inline float decode_element(const Rule &r, uint8_t code, uint8_t scale_code,
                                                   const GlobalScale &g) {
  return decode_values(r, value_f32(r.element, code), value_f32(r.scale, scale_code), g);
}

} // namespace nvfp4
