// SPDX-License-Identifier: Apache-2.0
// Conversion instructions by their PTX names, one row each, and the packing of the x2 and x4 forms.
// Source: PTX ISA 9.1 section 9.7.9.21 (cvt); CUDA 13.0 cuda_fp4/6/8.hpp, cuda_fp16.hpp, cuda_bf16.hpp host paths.
#pragma once
#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/formats/stochastic.hpp"

#include <array>
#include <span>
#include <string_view>

namespace nvfp4 {

/// What a conversion makes of NaN (and, for the last rule, of Inf). Two forms treat NaN as mere bits on H200.
enum class NanRule : uint8_t {
  canonical,        ///< the target's canonical NaN
  bits,             ///< the word cut (TF32) or widened (BF16): a NaN whose payload is cut away becomes Inf
  bits_minus_one,   ///< from Inf up: the word cut, less one unit in the last place (cvt.rna.satfinite.tf32)
};

/// One element of a cvt form; the packed forms apply it to each element.
struct Conversion {
  std::string_view name; ///< PTX spelling, with the x2 of the instruction: "cvt.rn.satfinite.e4m3x2.f32"
  FormatId to, from;
  Rounding rounding;
  Overflow overflow;
  bool relu; ///< negative results, -0 included, become +0; NaN stays canonical
  NanRule nan = NanRule::canonical;

  [[nodiscard]] NVFP4_HD constexpr uint64_t operator()(uint64_t word) const {
    if (nan != NanRule::canonical) {
      const Class cls = decode(format(from), word).cls;
      const int shift = format(to).storage_bits - format(from).storage_bits;
      const uint64_t cut = (word << shift) >> format(to).padding_bits << format(to).padding_bits;
      if (nan == NanRule::bits && cls == Class::nan) return cut;
      if (nan == NanRule::bits_minus_one && (cls == Class::nan || cls == Class::infinity))
        return cut - (uint64_t{1} << format(to).padding_bits);
    }
    const uint64_t out = convert(format(to), format(from), word, rounding, overflow);
    const Format f = format(to);
    return relu && ((out >> (f.field_bits() + f.padding_bits)) & 1) != 0 ? 0 : out;
  }
};

/// All deterministic conversions, FP32 inputs first.
[[nodiscard]] std::span<const Conversion> conversions();

/// The conversion of a name; throws Error when there is none.
[[nodiscard]] const Conversion &find_conversion(std::string_view name);

/// d of the x2 forms "cvt d, a, b": a in the upper half, b in the lower. bits is 4 or 8.
[[nodiscard]] NVFP4_HD constexpr uint16_t pack_x2(uint64_t a, uint64_t b, int bits) {
  return uint16_t(a << bits | b);
}

/// How the 32 random bits of cvt.rs...x4 reach elements (a, b, e, f).
enum class RandomByteOrder : uint8_t {
  straight,    ///< f, e, b, a take bytes 0, 1, 2, 3: B200 fp8x4 as probed by Dao-AILab/quack; assumed for B200 e2m1x4
  b300_e2m1x4, ///< f byte 2, e reversed byte 0, b byte 3, a reversed byte 1 (quack, B300)
  b300_fp8x4,  ///< f byte 1, e reversed byte 0, b byte 3, a reversed byte 2 (quack, B300)
};

/// The 8 random bits of element i of {a, b, e, f} = {0, 1, 2, 3}.
[[nodiscard]] NVFP4_HD constexpr uint32_t random_bits_x4(RandomByteOrder order, uint32_t rbits, int i) {
  const auto byte = [rbits](int n) { return (rbits >> (8 * n)) & 0xFF; };
  const auto reversed = [&byte](int n) {
    uint32_t r = 0;
    for (int bit = 0; bit < 8; ++bit) r |= ((byte(n) >> bit) & 1) << (7 - bit);
    return r;
  };
  switch (order) {
  case RandomByteOrder::b300_e2m1x4: return i == 0 ? reversed(1) : i == 1 ? byte(3) : i == 2 ? reversed(0) : byte(2);
  case RandomByteOrder::b300_fp8x4: return i == 0 ? reversed(2) : i == 1 ? byte(3) : i == 2 ? reversed(0) : byte(1);
  case RandomByteOrder::straight: break;
  }
  return byte(3 - i);
}

/// cvt.rs.satfinite.{e2m1,e3m2,e2m3,e4m3,e5m2}x4.f32 d, {a, b, e, f}, rbits: d holds a in its top element.
[[nodiscard]] constexpr uint32_t cvt_rs_x4(FormatId to, const std::array<float, 4> &abef, uint32_t rbits,
                                            RandomByteOrder order) {
  const int bits = format(to).storage_bits;
  uint32_t d = 0;
  for (int i = 0; i < 4; ++i)
    d |= uint32_t(encode_carry8(to, abef[size_t(i)], random_bits_x4(order, rbits, i))) << (bits * (3 - i));
  return d;
}

/// Digest of a conversion over chunk `chunk` (0..255) of 2^24 consecutive FP32 words: the sum modulo 2^64 of
/// splitmix64(in | out << 32). Independent of order, so that any device can compute it.
[[nodiscard]] uint64_t conversion_digest(const Conversion &conversion, uint32_t chunk);

/// The mixing step of that digest (Steele, Lea, Flood, OOPSLA'14).
[[nodiscard]] NVFP4_HD constexpr uint64_t splitmix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

} // namespace nvfp4
