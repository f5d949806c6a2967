// SPDX-License-Identifier: Apache-2.0
// Number formats that are written rather than listed: any split into exponent and fraction with its bias and
// specials, fixed point, posits; and one rounding of an FP64 value into them, in every mode that emulation
// libraries offer. Sources: IEEE 754-2019; the Posit Standard (2022), section 6; Boldo and Melquiond,
// "Emulation of FMA and correctly rounded sums" (2008) for rounding to odd; P3109 and ml_dtypes for `fnuz`.
#pragma once
#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/names.hpp"

#include <string>

namespace nvfp4 {

/// How a value between two numbers of a format is rounded.
enum class NumberRounding : uint8_t {
  nearest_even,
  nearest_away, ///< ties away from zero
  toward_zero,
  upward,     ///< toward +Inf
  downward,   ///< toward -Inf
  odd,        ///< the neighbour whose last bit is 1, so that a second rounding is innocent; never overflows
  stochastic, ///< away from zero with the probability of the discarded part, to 2^-32
};
[[nodiscard]] constexpr auto names_of(NumberRounding) {
  return enum_names("rounding", "rne", "rna", "rz", "rp", "rm", "odd", "sr");
}
static_assert(names_of(NumberRounding{}).end_with(NumberRounding::stochastic));

/// A format of 2 to 32 bits.
struct NumberFormat {
  enum class Kind : uint8_t {
    row,   ///< what `row` says
    fnuz,  ///< as `row`, all codes numbers, but the code of -0 is NaN and there is no -0 and no Inf
    posit, ///< `bits` and `posit_exponent` (es)
  };
  std::string name; ///< as it was written
  Kind kind = Kind::row;
  int bits = 8;
  Format row = format(FormatId::e4m3);
  int posit_exponent = 2;

  /// Bytes of a code in memory: 1, 2 or 4.
  [[nodiscard]] int bytes() const { return bits <= 8 ? 1 : bits <= 16 ? 2 : 4; }
};

/// Reads a format's name: a row of format.hpp ("e4m3", "bf16"); "eXmY" with colons before what it is not by
/// default
/// ("e4m3:bias=8:nan:unsigned"; bias 2^(X-1) - 1, of fnuz 2^(X-1); specials ieee, nan (all ones), finite or
/// fnuz, by default ieee, and finite where X is 0 or 1); "fixedN.F", two's complement of N bits, F behind the
/// point; "positN:es=E" (E = 2). Throws Error with what is wrong.
[[nodiscard]] NumberFormat parse_number_format(std::string_view name);

/// The code of x. `saturate`: what overflows, also Inf, becomes the largest finite number; else Inf, or NaN
/// where there is none, or the largest number where the rounding points inward or the format has neither. NaN
/// becomes the format's NaN, in a format without one the largest number. A posit never becomes zero or NaR by
/// rounding; Inf and NaN are NaR. `random`: 32 bits, read for stochastic alone. Posits take rne, rz and sr;
/// Error for the others.
[[nodiscard]] uint64_t encode_number(const NumberFormat &f, double x, NumberRounding rounding,
                                     bool saturate = false, uint32_t random = 0);

/// The value of a code, exact.
[[nodiscard]] double decode_number(const NumberFormat &f, uint64_t code);

} // namespace nvfp4
