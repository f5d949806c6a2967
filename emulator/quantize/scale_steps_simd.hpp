// SPDX-License-Identifier: Apache-2.0
// block_scale of block_rule.hpp with one block per vector lane. Included by the files of one instruction set
// each, which pass their vector type V; private to each of them. Internal.
#pragma once
#include "nvfp4/emulator/quantize/kernels.hpp"

namespace nvfp4::quant {
namespace {

template <class V> struct VectorScales {
  typename V::I code;
  typename V::F factor;
  uint32_t redo;
};

template <class V> struct VectorScale {
  using F = typename V::F;
  using I = typename V::I;
  const ScaleSteps &c;

  static F all(float x) { return V::broadcast(x); }
  /// test == +0 ? a : b
  static F where_zero(F test, F a, F b) {
    return V::as_float(V::where_zero(V::as_int(test), V::as_int(a), V::as_int(b)));
  }

  /// Values here are never negative, so a subnormal becomes +0. NaN stays.
  F flush(F x) const { return c.flush ? V::zero_where_below(x, all(0x1p-126f)) : x; }
  F multiply(F a, F b) const { return flush(V::mul(flush(a), flush(b))); }
  F divide(F a, F b) const { return flush(V::div(flush(a), flush(b))); }

  /// Not for the orders that take exponents.
  F unrounded(F bmax) const {
    switch (c.order) {
    case ScaleOrder::amax_by_encode_sixth: return multiply(bmax, all(c.encode_sixth));
    case ScaleOrder::sixth_by_encode: return multiply(divide(bmax, all(c.top)), all(c.encode));
    case ScaleOrder::encode_by_amax_k6: return multiply(all(c.encode), multiply(bmax, all(c.inverse_top)));
    case ScaleOrder::sixth_by_decode: return divide(divide(bmax, all(c.top)), all(c.decode));
    case ScaleOrder::amax_by_six_decode: return divide(bmax, all(c.six_decode));
    case ScaleOrder::decode_by_sixth: return divide(divide(bmax, all(c.decode)), all(c.top));
    case ScaleOrder::source_sixth: {
      const F sixth = divide(bmax, all(c.top));
      return multiply(all(c.encode), c.bf16_source ? V::round_bf16(sixth) : sixth);
    }
    case ScaleOrder::amax_by_inverse_max: return multiply(bmax, all(c.inverse_top));
    case ScaleOrder::sixth:
    case ScaleOrder::exponent_floor:
    case ScaleOrder::exponent_field:
    case ScaleOrder::exponent_ceil:
    case ScaleOrder::exponent_even:
    case ScaleOrder::amax_sixth:
    case ScaleOrder::amax_exponent:
    case ScaleOrder::offset_sixth_by_decode:
    case ScaleOrder::macro_even:
    case ScaleOrder::bf16_inverse_top: break; // not covered
    }
    return divide(bmax, all(c.top));
  }

  /// Nearest even to E4M3, saturating, for s >= 0; gives the value as well. Adding m = 2^(e+20), whose ulp is
  /// the step 2^(e-3) of the binade e >= -6 of s, makes the FPU round; what is above m counts steps.
  static I nearest_e4m3(F s, F &value) {
    const F t = V::min(s, all(448.0f));
    const I binade = V::exponent_field(V::max(t, all(0x1p-6f)));
    const F m = V::as_float(V::add(binade, V::broadcast(20 << 23)));
    const F r = V::add(t, m);
    value = V::sub(r, m);
    const I steps = V::sub(V::as_int(r), V::as_int(m));
    return V::add(steps, V::sub(V::template shift_right<20>(binade), V::broadcast(121 << 3)));
  }

  I round(F s, F &value) const {
    if (c.rounding == ScaleRounding::clamp_normal) s = V::max(s, all(0x1p-6f));
    if (c.rounding == ScaleRounding::clamp_tiny) s = V::max(where_zero(s, all(1.0f), s), all(0x1p-9f));
    I code = nearest_e4m3(s, value); // the caps at FLT_MAX and 448 are part of it
    if (c.rounding == ScaleRounding::eighth_if_zero) {
      code = V::where_zero(code, V::broadcast(0x20), code);
      value = where_zero(value, all(0.125f), value);
    }
    return code;
  }

  /// The power of two not below s >= 0: exponent field, plus one where fraction bits are left. Code 0 is
  /// 2^-127, the middle of the subnormals. A finite maximum over the largest element gives at most 252.
  static I upward_e8m0(F s) {
    const I word = V::as_int(s);
    const I up = V::template shift_right<23>(V::add(word, V::broadcast(0x7FFFFF)));
    return V::zero_where_at_most(up, word, 0x400000);
  }

  /// 2^(127 - code); codes here stay below 254, so this is never subnormal.
  F factor_e8m0(I code) const {
    I f = V::template shift_left<23>(V::sub(V::broadcast(254), code));
    if (c.scaling == Scaling::exponent_one) f = V::where_zero(code, V::broadcast(0x3F800000), f);
    if (c.scaling == Scaling::exponent_normal) f = V::where_zero(code, V::broadcast(253 << 23), f);
    return V::as_float(f);
  }

  F factor_e4m3(F sf) const {
    const F decode = all(c.decode);
    switch (c.scaling) {
    case Scaling::inverse_capped: return V::min(divide(all(1.0f), multiply(sf, decode)), all(kFltMax));
    case Scaling::inverse: {
      const F product = V::zero_where_below(multiply(sf, decode), all(0x1p-126f));
      return V::zero_where_below(V::div(all(1.0f), product), all(0x1p-126f));
    }
    case Scaling::inverse_decode: return divide(all(c.inverse_decode), sf);
    case Scaling::divide: return multiply(sf, decode);
    case Scaling::divide_encode:
    default: break;
    }
    return divide(sf, all(c.encode));
  }

  VectorScales<V> operator()(I words) const {
    const F bmax = V::as_float(words);
    uint32_t redo = V::not_finite(words);
    I code;
    F factor;
    if (c.rounding == ScaleRounding::power_exact) {
      code =
          V::max(V::sub(V::template shift_right<23>(V::add(words, V::broadcast(c.exponent_carry))),
                        V::broadcast(c.max_exponent)),
                 V::broadcast(0));
      factor = factor_e8m0(code);
    } else if (c.rounding == ScaleRounding::power_up) {
      code = upward_e8m0(unrounded(bmax));
      factor = factor_e8m0(code);
    } else {
      F s = unrounded(bmax);
      if (c.to_four) s = multiply(s, all(1.5f));
      redo |= V::unordered(s);
      F value;
      code = round(s, value);
      factor = factor_e4m3(value);
      if (c.zero_multiplier == ZeroMultiplier::zero_scale) factor = where_zero(value, all(0.0f), factor);
    }
    if (c.zero_multiplier == ZeroMultiplier::zero_amax) factor = where_zero(bmax, all(0.0f), factor);
    if (c.flush) factor = flush(factor);
    redo |= V::not_finite(V::as_int(factor));
    if (divides(c.scaling)) redo |= V::zeros(factor);
    return {code, factor, redo};
  }
};

} // namespace
} // namespace nvfp4::quant
