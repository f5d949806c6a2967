// SPDX-License-Identifier: Apache-2.0
// From accumulator to output word: one multiplication, with beta one fused multiply-add, one rounding.
#include "emulator/gemm/epilogue.hpp"

#include "emulator/tensorcore/fdpa.hpp"

#include <cmath>
#include <cstring>

namespace nvfp4 {

uint64_t epilogue(FormatId acc_format, uint64_t acc, const GemmOptions &options, double c) {
  const Format out = format(options.out);
  if (acc_format == FormatId::f64) {
    const double x = options.alpha * value(acc_format, acc);
    const double y = options.beta != 0.0f ? std::fma(double(options.beta), c, x) : x;
    return y != y ? accumulator_nan(Output::rne_f64) : bit_cast<uint64_t>(y);
  }
  const float product = options.alpha * value_f32(acc_format, acc);
  const float y = options.beta != 0.0f ? std::fma(options.beta, float(c), product) : product;
  if (y != y) return canonical_nan(out);
  return convert(out, format(FormatId::f32), bit_cast<uint32_t>(y), Rounding::nearest_even, Overflow::ieee);
}

namespace gemm {
namespace {

/// FP32 to BF16, nearest even. A carry out of the significand moves the exponent, up to Inf: as IEEE has it.
uint16_t to_bf16(float y) {
  const uint32_t w = bit_cast<uint32_t>(y);
  return y != y ? 0x7FFF : uint16_t((w + 0x7FFF + ((w >> 16) & 1)) >> 16);
}

template <class Word, class Convert>
void convert_row(const uint32_t *acc, int64_t n, const GemmOptions &options, const uint8_t *c, uint8_t *out,
                 Convert convert_one) {
  for (int64_t o = 0; o < n; ++o) {
    float y = options.alpha * bit_cast<float>(acc[o]);
    if (options.beta != 0.0f) {
      float source;
      std::memcpy(&source, c + 4 * o, 4);
      y = std::fma(options.beta, source, y);
    }
    const Word word = convert_one(y);
    std::memcpy(out + o * int64_t(sizeof word), &word, sizeof word);
  }
}

} // namespace

void epilogue_row(const uint32_t *acc, int64_t n, const GemmOptions &options, const uint8_t *c,
                  uint8_t *out) {
  switch (options.out) {
  case FormatId::f32:
    // multiplying by 1 changes nothing, and an accumulator's NaN is already FP32's canonical one
    if (options.alpha == 1.0f && options.beta == 0.0f)
      std::memcpy(out, acc, size_t(n) * 4);
    else
      convert_row<uint32_t>(acc, n, options, c, out,
                            [](float y) { return y != y ? 0x7FFFFFFFu : bit_cast<uint32_t>(y); });
    return;
  case FormatId::bf16: convert_row<uint16_t>(acc, n, options, c, out, to_bf16); return;
  default:
    convert_row<uint16_t>(acc, n, options, c, out, [](float y) {
      return uint16_t(encode(FormatId::f16, y, Rounding::nearest_even, Overflow::ieee));
    });
  }
}

} // namespace gemm
} // namespace nvfp4
