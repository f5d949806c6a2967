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
/// What Metis divides by: of a maximum.
[[nodiscard]] NVFP4_HD inline float offset_sixth(const Rule &r, float amax) {
  return divide(r.flush, amax, largest_element(r)) + 1e-9f;
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
    if (nan && rule == AmaxNan::zero) return 0.0f;
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
  case GlobalRule::part_sixth: {
    const float p = (amax / r.e4m3_max) / largest_element(r);
    return {amax, 1.0f, p == 0.0f ? 1.0f : p};
  }
  case GlobalRule::decode_floored: {
    const float p = min_number(amax, kFltMax) / range;
    return {amax, 1.0f, p < 1e-30f ? 1e-30f : p};
  }
  case GlobalRule::offset_sixth: return {amax, 1.0f, detail::offset_sixth(r, amax) / r.e4m3_max};
  case GlobalRule::macro: {
    if (amax != amax) return {amax, 1.5f, 1.0f / 1.5f}; // whatever its bits, which machines make differently
    const uint32_t word = bit_cast<uint32_t>(largest_element(r) / (amax < 1e-12f ? 1e-12f : amax));
    const float s = bit_cast<float>((word & 0x007F8000u) | 0x3F800000u);
    return {amax, s, 1.0f / s};
  }
  case GlobalRule::compressed_tensors: break;
  }
  const float tiny = power_of_two(-126); // FP16's is larger, but there S is Inf, so 1, long before
  const float clamped = amax < tiny ? tiny : amax;
  const float s = round_to(source, round_to(source, 1.0f / clamped) * range);
  const float usable = s == s && s <= kFltMax ? s : 1.0f;
  return {amax, usable, 1.0f / usable};
}

/// The second level of a tensor, or of a row that has one; 1 where its scales hold it.
[[nodiscard]] NVFP4_HD inline GlobalScale level_from_amax(const Rule &r, float amax, FormatId source) {
  return r.outer_block != 0 ? GlobalScale{amax, 1.0f, 1.0f} : global_from_amax(r, amax, source);
}

/// The second level from the word that the convention stores: p where stores_decode() says so, else S, whose
/// reciprocal is p.
[[nodiscard]] NVFP4_HD inline GlobalScale global_from_word(const Rule &r, float word) {
  const float unknown = bit_cast<float>(0x7FC00000u);
  if (stores_decode(r)) return {unknown, 1.0f, word};
  return {unknown, word, detail::reciprocal(r, word)};
}

/// A block's scale: its word, its value, and what the elements are multiplied with (divided by for the
/// dividing rules; the step of the grid in half units for the search).
struct BlockScale {
  uint32_t code = 0;
  float value = 0.0f;
  float factor = 0.0f;
  bool skipped = false; ///< the kernel leaves its zeroed output alone: every code is 0
  bool flagged = false; ///< elements mean those of their format's `other`
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
  case ScaleOrder::decode_by_sixth: return divide(f, divide(f, bmax, g.decode), largest_element(r));
  case ScaleOrder::source_sixth: return multiply(f, g.encode, round_to(source, divide(f, bmax, largest_element(r))));
  case ScaleOrder::sixth: return divide(f, bmax, largest_element(r));
  case ScaleOrder::amax_sixth: return divide(f, g.amax, largest_element(r));
  case ScaleOrder::amax_by_inverse_max: return multiply(f, bmax, inverse_largest(r));
  case ScaleOrder::offset_sixth_by_decode: return divide(f, offset_sixth(r, bmax), g.decode);
  case ScaleOrder::macro_even: { // the code of ScaleRounding::power_normal, below
    const float m = round_to_bf16(bmax * g.encode);
    const int even = int((bit_cast<uint32_t>(m) + (uint32_t{1} << (22 - format(r.element).mantissa_bits))) >> 23);
    const int exponent = even - max_exponent(r.element);
    if (m != m || even == 0xFF) return m;
    return power_of_two((exponent < 1 ? 1 : exponent) - 127) / g.encode;
  }
  case ScaleOrder::bf16_inverse_top: {
    const float top = 4.0f * largest_element(r);
    return round_to_bf16(bmax * round_to_bf16(1.0f / top));
  }
  case ScaleOrder::exponent_floor:
  case ScaleOrder::exponent_field:
  case ScaleOrder::exponent_ceil:
  case ScaleOrder::exponent_even: break;
  case ScaleOrder::amax_exponent:
    if (!(g.amax <= kFltMax)) return g.amax;
    return power_of_two(int(bit_cast<uint32_t>(g.amax) >> 23) - 127 - max_exponent(r.element));
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

/// The word of a scale, without what its format has above the code.
[[nodiscard]] NVFP4_HD inline uint32_t round_scale(const Rule &r, float s, const GlobalScale &g) {
  using enum ScaleRounding;
  const auto nearest = [&](float x) { return uint32_t(encode(r.scale, x)); };
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
  case one_if_zero: {
    const uint32_t code = nearest(s);
    return code == 0 ? nearest(1.0f) : code;
  }
  case eighth_if_zero: {
    const uint32_t code = nearest(s);
    return code == 0 ? nearest(0.125f) : code;
  }
  case ggml: return encode_ggml_scale(s);
  case as_it_is: return bit_cast<uint32_t>(s < r.least_scale ? r.least_scale : s);
  case e4m3_by_decode: {
    const uint8_t code = uint8_t(encode(FormatId::ue4m3, s == 0.0f ? smallest(FormatId::ue4m3) : s));
    return bit_cast<uint32_t>(g.decode * value_f32(FormatId::ue4m3, code));
  }
  case power_up: return uint32_t(encode(r.scale, s, Rounding::upward));
  case power_normal: s = s < power_of_two(-126) ? power_of_two(-126) : s; break;
  case power_exact: break;
  }
  return uint32_t(encode(r.scale, s, Rounding::toward_zero, Overflow::ieee));
}

/// x times a factor, or over it.
[[nodiscard]] NVFP4_HD inline float meet(const Rule &r, float x, float factor) {
  if (r.scaling == Scaling::macro_bf16) return round_to_bf16(x * factor);
  return divides(r.scaling) ? divide(r.flush, x, factor) : multiply(r.flush, x, factor);
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
  case Scaling::divide_unrounded: return sf; // of what the code does not say: see scale_of_code()
  case Scaling::macro_bf16: { // sf is a power of two over S, rounded: times S, next to that power
    const float power = sf * g.encode; // NaN and more than FP32 holds: field 256, whatever the NaN's bits
    const uint32_t field = power != power ? 256u : (bit_cast<uint32_t>(power) + 0x400000u) >> 23;
    return g.encode * power_of_two(127 - int(field));
  }
  case Scaling::inverse_scale: return reciprocal(r, sf);
  case Scaling::divide_scale: return sf;
  case Scaling::bf16_reciprocal: return round_to_bf16(1.0f / sf);
  case Scaling::divide_bf16_reciprocal: return 1.0f / round_to_bf16(1.0f / sf);
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

/// What a scale stands for in a block of that maximum. The exponents of parts are left to element_scale().
[[nodiscard]] NVFP4_HD inline BlockScale scale_of_code(const Rule &r, uint32_t word, float bmax,
                                                       const GlobalScale &g) {
  const float value = value_f32(r.scale, word);
  const bool zero = (r.zero_multiplier == ZeroMultiplier::zero_amax && bmax == 0.0f) ||
                    (r.zero_multiplier == ZeroMultiplier::zero_scale && value == 0.0f);
  const float factor = r.scaling == Scaling::divide_unrounded ? detail::offset_sixth(r, bmax)
                                                              : detail::scale_factor(r, uint8_t(word), value, g);
  return {word, value, zero ? 0.0f : factor, false, is_flagged(format(r.scale), word)};
}

/// The scale of a block, without the exponents of its parts. `second` asks for the second candidate.
[[nodiscard]] NVFP4_HD inline BlockScale block_scale(const Rule &r, float bmax, const GlobalScale &g,
                                                     FormatId source, bool second = false) {
  if (r.global == GlobalRule::quotient && g.amax == 0.0f) return {0, 0.0f, 0.0f, true};
  float s = detail::unrounded_scale(r, bmax, g, source);
  if (second && r.second_scale == SecondScale::wider) s = detail::multiply(r.flush, s, 1.5f);
  if (second && r.second_scale == SecondScale::own) {
    Rule other = r;
    other.element = format(r.element).flagged();
    s = detail::divide(r.flush, detail::unrounded_scale(other, bmax, g, source), format(r.element).other_unit);
  }
  const Format f = format(r.scale);
  const uint32_t flag = second && f.extra == ScaleExtra::flag ? uint32_t{1} << f.field_bits() : 0;
  return scale_of_code(r, flag | detail::round_scale(r, s, g), bmax, g);
}

/// A block's scale as its element i meets it.
[[nodiscard]] NVFP4_HD inline BlockScale element_scale(const Rule &r, const BlockScale &scale, int i) {
  const Format f = format(r.scale);
  if (f.extra != ScaleExtra::exponents) return scale;
  BlockScale own = scale;
  const int shift = scale_shift(f, scale.code, i);
  own.value = scale.value * float(1 << shift);
  // what multiplies is halved where what divides is doubled: powers of two, both exact
  own.factor = scale.factor * (divides(r.scaling) ? float(1 << shift) : power_of_two(-shift));
  return own;
}

/// Sets the one-bit exponents of a block's parts from the maxima of its elements, the coarse parts first: 1
/// where the maximum times bf16(1 / SF), and over the exponents already set, is at least 4, then 2.
[[nodiscard]] NVFP4_HD inline BlockScale with_exponents(const Rule &r, BlockScale scale, const float *x, int width) {
  const Format f = format(r.scale);
  if (f.extra != ScaleExtra::exponents) return scale;
  const float reciprocal = round_to_bf16(1.0f / scale.value);
  for (int p = 0; p < kScaleParts; ++p) {
    const ScalePart part = scale_part(p);
    uint32_t bits = 0;
    for (int first = 0; first < width; first += part.elements) {
      Amax amax;
      for (int i = first; i < width && i < first + part.elements; ++i) amax.add(x[i]);
      const float y = amax.value(r.amax_nan) * reciprocal * power_of_two(-scale_shift(f, scale.code, first));
      if (y >= float(2 << (kScaleParts - 1 - p))) bits |= uint32_t{1} << (first / part.elements);
    }
    scale.code |= bits << part.bit;
  }
  return scale;
}

/// How an element is rounded. `nearest` is the convention's own nearest; the others are the models of
/// Stochastic.
enum class ElementRounding : uint8_t { nearest, sr_carry8, sr_te, sr_exact, sr_mid8 };
[[nodiscard]] constexpr auto names_of(ElementRounding) {
  return enum_names("rounding", "rne", "sr-carry8", "sr-te", "sr-exact", "sr-mid8");
}
static_assert(names_of(ElementRounding{}).end_with(ElementRounding::sr_mid8));
/// Whether a rounding is to E2M1 only.
[[nodiscard]] NVFP4_HD constexpr bool is_of_e2m1(ElementRounding r) {
  return r == ElementRounding::sr_te || r == ElementRounding::sr_mid8;
}

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

[[nodiscard]] NVFP4_HD inline uint16_t nan_code(const Rule &r, FormatId element, float x) {
  const bool negative = x != x && (bit_cast<uint32_t>(x) >> 31) != 0;
  switch (r.nan_code) {
  case NanCode::zero: return uint16_t(with_sign(format(element), negative, 0));
  case NanCode::one_and_half: return uint16_t(encode(element, negative ? -1.5f : 1.5f));
  case NanCode::plus_max: break;
  }
  return uint16_t(canonical_nan(format(element)));
}
} // namespace detail

/// What is rounded to an element's code: x times the factor, or over it, in units of the flagged format's steps
/// where that is meant. `scale` is the element's (element_scale). Not for Scaling::search.
[[nodiscard]] NVFP4_HD inline float scaled_element(const Rule &r, float x, const BlockScale &scale) {
  const float y = detail::meet(r, x, scale.factor);
  return scale.flagged ? y * (1.0f / format(r.element).other_unit) : y;
}

/// The code of one element under its own scale (element_scale). `random` has 8 bits for sr_carry8, sr_te and sr_mid8
/// (these two of E2M1 only), 32 for sr_exact, and is not read for nearest. Stochastic rounding does not go with
/// Scaling::search.
[[nodiscard]] NVFP4_HD inline uint16_t encode_element_word(const Rule &r, float x, const BlockScale &scale,
                                                           ElementRounding rounding = ElementRounding::nearest,
                                                           uint32_t random = 0) {
  if (scale.skipped) return 0;
  if (r.scaling == Scaling::search) return detail::nearest_by_search(x, scale.factor);
  const FormatId element = scale.flagged ? format(r.element).flagged() : r.element;
  const float y = scaled_element(r, x, scale);
  if (y != y) return detail::nan_code(r, element, x);
  if (y == 0.0f && r.negative_zero == NegativeZero::drop_exact) return 0;
  switch (rounding) {
  case ElementRounding::sr_carry8: return uint16_t(encode_carry8(element, y, random));
  case ElementRounding::sr_te: return uint16_t(encode_te_sr(y, random));
  case ElementRounding::sr_exact: return uint16_t(encode_exact_sr(element, y, random));
  case ElementRounding::sr_mid8: return uint16_t(encode_mid8_sr(y, random));
  case ElementRounding::nearest: break;
  }
  if (r.ties == Ties::away) return uint16_t(encode(element, y, Rounding::nearest_away));
  return uint16_t(element == FormatId::e2m1 ? encode(FormatId::e2m1, y) : encode(element, y));
}

/// The same of elements of at most 8 bits.
[[nodiscard]] NVFP4_HD inline uint8_t encode_element(const Rule &r, float x, const BlockScale &scale,
                                                     ElementRounding rounding = ElementRounding::nearest,
                                                     uint32_t random = 0) {
  return uint8_t(encode_element_word(r, x, scale, rounding, random));
}

/// Adds one element's error to a candidate's sum. The sum of a block runs over its elements in order; the
/// 16 sums of a tile's rows are then added as a tree (i and i + 8, i and i + 4, ...).
[[nodiscard]] NVFP4_HD inline float add_error(const Rule &r, float sum, uint8_t code, float x,
                                              const BlockScale &scale, float amax) {
  const Format f = format(r.element);
  float y = (value_f32(scale.flagged ? f.flagged() : r.element, code) * scale.value) * amax;
  if (scale.flagged) y = y * f.other_unit;
  y = y / (largest_element(r) * r.e4m3_max);
  const float d = y - x;
  if (r.four_over_six == FourOverSix::mae) return sum + fabsf(d);
  return r.fused_error ? fmaf(d, d, sum) : sum + d * d;
}

/// The value of an element from those of its code and of its block's scale.
[[nodiscard]] NVFP4_HD inline float decode_values(const Rule &r, float v, float sf, const GlobalScale &g) {
  switch (r.decoding) {
  case Decoding::amax_constant: return v * ((sf * g.amax) * (1.0f / (largest_element(r) * r.e4m3_max)));
  case Decoding::scale_decode: return v * (sf * g.decode);
  case Decoding::value_decode: return (v * sf) * g.decode;
  case Decoding::scale_encode: return v * (sf / g.encode);
  case Decoding::amax_divide: return ((v * sf) * g.amax) / (largest_element(r) * r.e4m3_max);
  case Decoding::bf16_reciprocal: return v * (1.0f / round_to_bf16(1.0f / sf));
  case Decoding::scale_only: break;
  }
  return v * sf;
}

/// The same from the codes of element i of its block.
[[nodiscard]] NVFP4_HD inline float decode_element(const Rule &r, uint32_t code, uint32_t scale_word, int i,
                                                   const GlobalScale &g) {
  const bool flagged = is_flagged(format(r.scale), scale_word);
  return decode_values(r, element_value(r.element, code, flagged), scale_value(r.scale, scale_word, i), g);
}

} // namespace nvfp4
