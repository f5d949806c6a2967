// SPDX-License-Identifier: Apache-2.0
// Inputs for conversions. For f32 and 16-bit sources: every boundary of every narrow format (its values, the
// midpoints between neighbours, and the words next to both), specials, subnormals and random words.
#include "nvfp4/gpu/capture/convert.hpp"
#include "nvfp4/gpu/capture/run_tiles.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace nvfp4::gpu {
namespace {

uint32_t word_of(double value) {
  const float f = float(value);
  uint32_t w = 0;
  std::memcpy(&w, &f, sizeof w);
  return w;
}

/// The format whose values are this conversion's targets, by the part of its name that is a format.
bool target_of(std::string_view name, Element &target) {
  const size_t from = name.rfind('.'); // "cvt.rn.satfinite.e4m3x2.f32": the part before the last dot
  const size_t start = name.rfind('.', from - 1) + 1;
  std::string_view part = name.substr(start, from - start);
  if (part.size() > 2 && part[part.size() - 2] == 'x') part.remove_suffix(2);
  for (const Element e : {Element::e2m1, Element::e3m2, Element::e2m3, Element::e4m3, Element::e5m2,
                          Element::ue8m0, Element::bf16, Element::f16, Element::tf32})
    if (part == format_of(e).name) return target = e, true;
  return false;
}

/// Positive target codes worth surrounding: all of a narrow format, a sample of a wide one.
std::vector<uint64_t> target_codes(const ElementFormat &f) {
  const uint64_t last = max_finite(f) >> f.padding;
  std::vector<uint64_t> codes;
  if (last < 300) {
    for (uint64_t c = 0; c <= last; ++c) codes.push_back(c);
    return codes;
  }
  for (uint64_t field = 0; field <= last >> f.mantissa_bits; field += f.exponent_bits == 8 ? 5 : 1)
    for (const uint64_t m : {uint64_t{0}, uint64_t{1}, uint64_t{2}, (uint64_t{1} << f.mantissa_bits) - 1})
      codes.push_back(std::min(last, field << f.mantissa_bits | m));
  for (uint64_t c = 0; c < 12; ++c) codes.push_back(c), codes.push_back(last - c);
  for (uint64_t bit = 4; bit < last; bit *= 2) codes.push_back(bit), codes.push_back(bit - 1);
  return codes;
}

void boundaries(Element target, std::vector<uint32_t> &out) {
  const ElementFormat &f = format_of(target);
  for (const uint64_t code : target_codes(f)) {
    const double value = decode(f, code << f.padding);
    const bool top = code == max_finite(f) >> f.padding;
    const double step =
        top ? value - decode(f, (code - 1) << f.padding) : decode(f, (code + 1) << f.padding) - value;
    for (const double v : {value, value + step / 2, value + step, value + step / 4, value + 3 * step / 4}) {
      const uint32_t w = word_of(v);
      for (const uint32_t near : {w - 1, w, w + 1})
        if (near != w - 1 || w != 0) out.push_back(near), out.push_back(near | 0x80000000u);
    }
  }
}

void specials(std::vector<uint32_t> &out) {
  for (const uint32_t w :
       {0x00000000u, 0x00000001u, 0x00000002u, 0x00000fffu, 0x00001000u, 0x00001001u, 0x00001fffu,
        0x00002000u, 0x003fffffu, 0x00400000u, 0x00400001u, 0x007fffffu, 0x00800000u, 0x00800001u,
        0x00ffffffu, 0x01000000u, 0x33000000u, 0x33000001u, 0x33800000u, 0x387fc000u, 0x387fe000u,
        0x38800000u, 0x477fe000u, 0x477fefffu, 0x477ff000u, 0x477fffffu, 0x47800000u, 0x7f000000u,
        0x7f7fe000u, 0x7f7fefffu, 0x7f7ff000u, 0x7f7f0000u, 0x7f7f7fffu, 0x7f7f8000u, 0x7f7fffffu,
        0x7f800000u, 0x7f800001u, 0x7f801000u, 0x7f802000u, 0x7f80ffffu, 0x7f810000u, 0x7fa00000u,
        0x7fbfffffu, 0x7fc00000u, 0x7fc00001u, 0x7fe00000u, 0x7fffe000u, 0x7fffffffu})
    out.push_back(w), out.push_back(w | 0x80000000u);
}

} // namespace

std::vector<uint32_t> conversion_inputs(Source source, std::string_view name, uint64_t seed) {
  std::vector<uint32_t> out;
  if (source == Source::code8 || source == Source::code6 || source == Source::code4) {
    const uint32_t codes = source == Source::code8 ? 256 : source == Source::code6 ? 64 : 16;
    for (uint32_t c = 0; c < codes; ++c) out.push_back(c);
    return out;
  }
  Element target{};
  std::vector<uint32_t> wide;
  if (target_of(name, target)) boundaries(target, wide);
  specials(wide);
  Random random(key_of(name, seed));
  for (int i = 0; i < 500; ++i) wide.push_back(uint32_t(random.word()));
  for (int i = 0; i < 500; ++i) { // near the target's range, where a uniform word seldom falls
    const int exponent = random.range(-20, 18);
    wide.push_back(uint32_t(random.word() & 0x807FFFFF) | uint32_t(exponent + 127) << 23);
  }
  if (source == Source::f32) {
    out = std::move(wide);
  } else { // the same places, cut to 16 bits, and every exponent with its first and last significands
    const ElementFormat &f = format_of(source == Source::f16 ? Element::f16 : Element::bf16);
    for (const uint32_t w : wide) {
      float v = 0;
      std::memcpy(&v, &w, sizeof v);
      if (!std::isfinite(v) || v == 0) continue;
      const double magnitude = std::fabs(double(v));
      const int e = std::ilogb(magnitude);
      out.push_back(uint32_t(compose(f, v < 0, e, uint64_t(std::ldexp(magnitude, 52 - e)) << 12)));
    }
    const uint32_t sign = uint32_t(sign_bit(f)), m = 1u << f.mantissa_bits;
    for (uint32_t field = 0; field < 1u << f.exponent_bits; ++field)
      for (const uint32_t low : {0u, 1u, 2u, m / 2 - 1, m / 2, m / 2 + 1, m - 1}) {
        out.push_back(field << f.mantissa_bits | low);
        out.push_back(sign | field << f.mantissa_bits | low);
      }
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  // Neighbours would share every instruction: a fixed shuffle puts unrelated values into one packed group.
  for (size_t i = out.size(); i > 1; --i) std::swap(out[i - 1], out[size_t(random.range(0, int(i) - 1))]);
  return out;
}

StochasticInputs stochastic_inputs(const Conversion &x, uint64_t seed) {
  StochasticInputs s;
  Element target{};
  if (!target_of(x.name, target)) return s;
  const ElementFormat &f = format_of(target);
  const int discarded = 23 - f.mantissa_bits;
  const auto group = [&](const std::vector<uint32_t> &in, uint32_t rbits) {
    s.in.insert(s.in.end(), in.begin(), in.end());
    s.rbits.push_back(rbits);
  };
  const auto only = [&](int place, uint32_t value, uint32_t rbits) { // the other places hold an exact 1
    std::vector<uint32_t> in(size_t(x.elements), 0x3F800000u);
    in[size_t(place)] = value;
    group(in, rbits);
  };
  // Which bit of rbits serves which element with which weight: fractions of an ulp 2^-j against single bits
  // set. Base values: a normal in the middle of the range, one below 1, a subnormal of the target.
  const uint32_t bases[] = {0x40000000u, 0x3F000000u, word_of(std::ldexp(1.0, f.min_exponent()))};
  for (int place = 0; place < x.elements; ++place)
    for (const uint32_t base : bases)
      for (int bit = 0; bit < 32; ++bit)
        for (int j = 1; j <= 9;
             ++j) { // discarded part = 1 - 2^-j ulp: rounds up when the bit weighs at least 2^-j
          const uint32_t fraction = ((1u << j) - 1) << (discarded - j);
          only(place, base | fraction, 1u << bit);
        }
  for (int place = 0; place < x.elements; ++place)
    for (int j = 1; j <= std::min(discarded, 20);
         ++j) { // effective bits: all random bits set against 2^-j ulp
      only(place, 0x40000000u | 1u << (discarded - j), 0xFFFFFFFFu);
      only(place, 0x3F000000u | 1u << (discarded - j), 0xFFFFFFFFu);
      only(place, 0xC0000000u | 1u << (discarded - j), 0xFFFFFFFFu);
      only(place, word_of(std::ldexp(1.0, f.bottom() - j)), 0xFFFFFFFFu); // below the smallest number
    }
  Random random(key_of(x.name, seed));
  for (int i = 0; i < 600; ++i) {
    std::vector<uint32_t> in;
    for (int e = 0; e < x.elements; ++e) {
      const int exponent = random.range(f.bottom() - 3, std::min(f.max_exponent(), 20) + 1);
      const uint32_t field = uint32_t(std::max(exponent + 127, 0));
      in.push_back(random.one_in(16) ? uint32_t(random.word())
                                     : uint32_t(random.word() & 0x807FFFFF) | field << 23);
    }
    group(in, random.one_in(8) ? 0 : random.one_in(8) ? 0xFFFFFFFFu : uint32_t(random.word()));
  }
  std::vector<uint32_t> edge;
  specials(edge);
  for (const uint32_t w : edge)
    for (const uint32_t rbits : {0u, 0xFFFFFFFFu}) group(std::vector<uint32_t>(size_t(x.elements), w), rbits);
  return s;
}

} // namespace nvfp4::gpu
