// SPDX-License-Identifier: Apache-2.0
// Table look-up for codes of up to 8 bits, field arithmetic for BF16 and TF32, the codec's decoder for the
// rest.
#include "nvfp4/emulator/gemm/element_reader.hpp"

#include "nvfp4/emulator/cpu/multiversion.hpp"
#include "nvfp4/emulator/formats/codec.hpp"

#include <array>
#include <vector>

namespace nvfp4::gemm {
namespace {

struct Element {
  float value;
  int16_t exponent;
};

Element element(FormatId id, uint64_t word) {
  const Decoded d = decode(format(id), word);
  if (d.cls != Class::finite) return {0.0f, kZeroExponent};
  return {value_f32(id, word), int16_t(d.exponent)};
}

std::vector<Element> make_table(FormatId id, uint32_t codes) {
  std::vector<Element> t(codes);
  for (uint32_t w = 0; w < codes; ++w) t[w] = element(id, w);
  return t;
}

/// All elements of FP16 or a format of at most 8 bits; FP16's half megabyte is built when FP16 is first read.
const std::vector<Element> &table(FormatId id) {
  if (id == FormatId::f16) {
    static const std::vector<Element> t = make_table(FormatId::f16, 1u << 16);
    return t;
  }
  static const std::array<std::vector<Element>, kFormatCount> tables = [] {
    std::array<std::vector<Element>, kFormatCount> t;
    for (const FormatId f : {FormatId::e2m1, FormatId::e3m2, FormatId::e2m3, FormatId::e4m3, FormatId::e5m2})
      t[size_t(f)] = make_table(f, 256);
    return t;
  }();
  return tables[size_t(id)];
}

/// BF16 and TF32 are FP32 words with low bits missing.
inline void from_f32_word(uint32_t word, float &value, int16_t &exponent) {
  const uint32_t field = (word >> 23) & 0xFF, magnitude = word & 0x7FFFFFFF;
  const bool counts = magnitude != 0 && field != 0xFF;
  value = bit_cast<float>(counts ? word : 0u);
  exponent = counts ? int16_t(int(field == 0 ? 1 : field) - 127) : kZeroExponent;
}

/// As from_f32_word, in two loops that compilers turn into vectors: one of 32-bit lanes, one of 16-bit lanes.
NVFP4_MULTIVERSION void read_bf16(const uint8_t *from, int64_t n, float *values, int16_t *exponents) {
  const auto half = [from](int64_t i) {
    uint16_t word;
    std::memcpy(&word, from + 2 * i, 2);
    return word;
  };
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t word = half(i), magnitude = word & 0x7FFF;
    values[i] = bit_cast<float>((magnitude - 1 < 0x7F7F ? word : 0u) << 16);
  }
  for (int64_t i = 0; i < n; ++i) {
    const uint16_t magnitude = half(i) & 0x7FFF, field = uint16_t(magnitude >> 7);
    const int16_t exponent = int16_t((field > 1 ? field : uint16_t(1)) - 127);
    exponents[i] = uint16_t(magnitude - 1) < 0x7F7F ? exponent : kZeroExponent;
  }
}

} // namespace

void read_elements(FormatId id, CodeView codes, int64_t k, int64_t n, float *values, int16_t *exponents) {
  if (id == FormatId::bf16) {
    read_bf16(codes.data + 2 * k, n, values, exponents);
    return;
  }
  if (id == FormatId::tf32) {
    for (int64_t i = 0; i < n; ++i) from_f32_word(uint32_t(codes[k + i]) & ~0x1FFFu, values[i], exponents[i]);
    return;
  }
  const std::vector<Element> &t = table(id);
  for (int64_t i = 0; i < n; ++i) {
    const Element &e = t[codes[k + i]];
    values[i] = e.value;
    exponents[i] = e.exponent;
  }
}

} // namespace nvfp4::gemm
