// SPDX-License-Identifier: Apache-2.0
// Probes about values that are not ordinary numbers: signed zeros, sums that cancel or underflow to zero,
// infinities, NaN words, and bits that an instruction is expected to ignore.
#include "nvfp4/gpu/capture/probes.hpp"

#include <cmath>

namespace nvfp4::gpu {
namespace {

struct Adder {
  const MmaKind &x;
  std::vector<Probe> &out;
  const ElementFormat &a = format_of(x.a), &b = format_of(x.b), &c = format_of(x.acc);

  void operator()(const ProbeBuilder &p) const {
    if (p.ok()) out.push_back(p.probe());
  }
  /// A probe whose every product is a_code * b_code.
  [[nodiscard]] ProbeBuilder filled(std::string name, uint64_t a_code, uint64_t b_code) const {
    ProbeBuilder p(x, std::move(name));
    for (int k = 0; k < x.k; ++k) p.codes(k, a_code, b_code);
    return p;
  }
};

void zero_probes(const Adder &add) {
  const MmaKind &x = add.x;
  const uint64_t minus_a = sign_bit(add.a), minus_b = sign_bit(add.b), minus_c = sign_bit(add.c);
  for (const bool negative : {false, true}) {
    const uint64_t c = negative ? minus_c : 0;
    const std::string tail = negative ? ".c-0" : ".c+0";
    add(add.filled("P6.all_minus_zero" + tail, minus_a, 0).c_code(c));
    add(add.filled("P6.all_plus_zero" + tail, 0, 0).c_code(c));
    add(add.filled("P6.minus_times_minus" + tail, minus_a, minus_b).c_code(c));
    add(add.filled("P6.one_plus_zero" + tail, minus_a, 0).codes(x.k - 1, 0, 0).c_code(c));
    add(ProbeBuilder(x, "P6.cancel" + tail).product(0, 1, 1).product(1, -1, 1).c_code(c));
    add(ProbeBuilder(x, "P6.cancel_reversed" + tail).product(0, -1, 1).product(1, 1, 1).c_code(c));
    add(ProbeBuilder(x, "P6.cancel_late" + tail).product(2, 1, 1).product(x.k - 1, -1, 1).c_code(c));
    // The cancelling pair among minus zeros; and minus zeros times a finite number.
    ProbeBuilder among = add.filled("P6.cancel_among_minus_zero" + tail, minus_a, 0);
    add(among.product(0, 1, 1).product(1, -1, 1).c_code(c));
    uint64_t one = 0;
    if (encode_exact(add.b, 1, one))
      add(add.filled("P6.minus_zero_times_one" + tail, minus_a, one).c_code(c));
  }
  // One product cancelled by C, at the first and at the last k of a possible chain.
  add(ProbeBuilder(x, "P6.c_cancels").product(0, 1, 1).c(-1));
  add(ProbeBuilder(x, "P6.c_cancels_negative").product(0, -1, 1).c(1));
  add(ProbeBuilder(x, "P6.c_cancels_last").product(x.k - 1, 1, 1).c(-1));
}

/// Sums too small for the accumulator, both signs, alone and with a zero C of both signs.
void underflow_probes(const Adder &add) {
  const int bottom = format_of(add.x.acc).bottom();
  for (const bool negative : {false, true})
    for (const bool minus_zero : {false, true})
      for (int j = 0; j <= 24; ++j) {
        const std::string name = std::string("underflow.") + (negative ? "minus" : "plus") +
                                 (minus_zero ? ".c-0" : ".c+0") + ".e" + std::to_string(j - bottom);
        const uint64_t c = minus_zero ? sign_bit(add.c) : 0;
        add(ProbeBuilder(add.x, name).power(0, bottom - j, negative).c_code(c));
        if (j < 4)
          add(ProbeBuilder(add.x, name + ".last").power(add.x.k - 1, bottom - j, negative).c_code(c));
      }
}

void special_value_probes(const Adder &add) {
  const MmaKind &x = add.x;
  uint64_t one_a = 0, one_b = 0;
  if (!encode_exact(add.a, 1, one_a) || !encode_exact(add.b, 1, one_b)) return;
  for (const bool negative : {false, true}) {
    const std::string sign = negative ? "-" : "+";
    const uint64_t sa = negative ? sign_bit(add.a) : 0, sc = negative ? sign_bit(add.c) : 0;
    const uint64_t quiet = uint64_t{1} << (add.c.mantissa_bits - 1);
    add(ProbeBuilder(x, "P10.c_qnan" + sign).c_code(nan_or_max(add.c, negative, quiet)));
    add(ProbeBuilder(x, "P10.c_qnan_payload" + sign).c_code(nan_or_max(add.c, negative, quiet | 0x15)));
    add(ProbeBuilder(x, "P10.c_snan" + sign).c_code(nan_or_max(add.c, negative, 1)));
    add(ProbeBuilder(x, "P10.c_inf" + sign).c_code(sc | inf_or_max(add.c)).product(0, 1, 1));
    add(ProbeBuilder(x, "P10.c_max_plus_one" + sign)
            .c_code(sc | max_finite(add.c))
            .codes(0, sa | one_a, one_b));
    if (add.a.has_nan) {
      add(ProbeBuilder(x, "P10.a_nan" + sign).codes(0, nan_or_max(add.a, negative, 1), one_b));
      add(ProbeBuilder(x, "P10.a_nan_payload" + sign)
              .codes(x.k - 1, nan_or_max(add.a, negative, ~uint64_t{0}), one_b));
      add(ProbeBuilder(x, "P10.a_nan_times_zero" + sign).codes(0, nan_or_max(add.a, negative, 1), 0));
      add(ProbeBuilder(x, "P10.a_nan_c_nan" + sign)
              .codes(0, nan_or_max(add.a, negative, 3), one_b)
              .c_code(nan_or_max(add.c, !negative, quiet | 5)));
    }
    if (add.b.has_nan) {
      add(ProbeBuilder(x, "P10.b_nan" + sign).codes(0, one_a, nan_or_max(add.b, negative, 1)));
      if (add.a.has_nan)
        add(ProbeBuilder(x, "P10.both_nan" + sign)
                .codes(0, nan_or_max(add.a, negative, 2), nan_or_max(add.b, !negative, 6)));
    }
    if (add.a.has_inf) {
      const uint64_t inf = sa | inf_or_max(add.a);
      add(ProbeBuilder(x, "P10.a_inf" + sign).codes(1, inf, one_b));
      add(ProbeBuilder(x, "P10.a_inf_times_zero" + sign).codes(1, inf, 0));
      add(ProbeBuilder(x, "P10.a_inf_times_minus_zero" + sign).codes(1, inf, sign_bit(add.b)));
      add(ProbeBuilder(x, "P10.inf_minus_inf" + sign)
              .codes(0, inf, one_b)
              .codes(1, inf ^ sign_bit(add.a), one_b));
      add(ProbeBuilder(x, "P10.inf_minus_inf_far" + sign)
              .codes(0, inf, one_b)
              .codes(x.k - 1, inf ^ sign_bit(add.a), one_b));
      add(ProbeBuilder(x, "P10.inf_c_opposite" + sign)
              .codes(0, inf, one_b)
              .c_code((sc ^ sign_bit(add.c)) | inf_or_max(add.c)));
      add(ProbeBuilder(x, "P10.inf_c_same" + sign).codes(0, inf, one_b).c_code(sc | inf_or_max(add.c)));
    }
    if (add.b.has_inf)
      add(ProbeBuilder(x, "P10.b_inf_times_zero" + sign).codes(0, 0, sign_bit(add.b) | inf_or_max(add.b)));
    add(add.filled("P11.all_max" + sign, sa | max_finite(add.a), max_finite(add.b)));
    add(add.filled("P11.all_max_c_max" + sign, sa | max_finite(add.a), max_finite(add.b))
            .c_code(sc | max_finite(add.c)));
    add(add.filled("P11.all_max_c_inf" + sign, sa | max_finite(add.a), max_finite(add.b))
            .c_code((sc ^ sign_bit(add.c)) | inf_or_max(add.c)));
  }
}

/// The 13 low bits of a tf32 word: on a number, on zero, and as the only payload of a NaN.
void ignored_bit_probes(const Adder &add) {
  const MmaKind &x = add.x;
  if (x.a != Element::tf32) return;
  for (const uint64_t low : {uint64_t{0x1FFF}, uint64_t{0x1000}, uint64_t{1}}) {
    const std::string tail = "." + std::to_string(low);
    const uint64_t one = 0x3F800000;
    add(ProbeBuilder(x, "tf32.low.a" + tail).codes(0, one | low, one));
    add(ProbeBuilder(x, "tf32.low.b" + tail).codes(0, one, one | low));
    add(ProbeBuilder(x, "tf32.low.zero" + tail).codes(0, low, 0x7F000000));
    add(ProbeBuilder(x, "tf32.low.zero_times_inf" + tail).codes(0, low, 0x7F800000));
    add(ProbeBuilder(x, "tf32.low.nan" + tail).codes(0, 0x7F800000 | low, one));
    add(ProbeBuilder(x, "tf32.low.nan_minus" + tail).codes(0, 0xFF800000 | low, one));
    add(ProbeBuilder(x, "tf32.low.max" + tail).codes(0, 0x7F7FE000 | low, one));
  }
}

} // namespace

void add_special_probes(const MmaKind &x, std::vector<Probe> &out) {
  const Adder add{x, out};
  zero_probes(add);
  underflow_probes(add);
  special_value_probes(add);
  ignored_bit_probes(add);
}

} // namespace nvfp4::gpu
