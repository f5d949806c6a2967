// SPDX-License-Identifier: Apache-2.0
// From accumulator to output word: alpha * acc, or fma(alpha, acc, beta * C), then one rounding. The order is cuBLASLt's
// on an H200 (gpu/probes/cublaslt_epilogue.cu).
#include "nvfp4/emulator/gemm/epilogue.hpp"

#include "nvfp4/emulator/tensorcore/fdpa.hpp"

#include <cmath>
#include <cstring>

namespace nvfp4 {

namespace {

/// The epilogue before its rounding to the output type, in float or double. c is read only with beta.
template <class T> T blend(T alpha, T acc, T beta, T c) {
  return beta != T(0) ? std::fma(alpha, acc, beta * c) : alpha * acc;
}

} // namespace

uint64_t epilogue(FormatId acc_format, uint64_t acc, const GemmOptions &options, double c) {
  const Format out = format(options.out);
  if (acc_format == FormatId::f64) {
    const double y = blend<double>(options.alpha, value(acc_format, acc), options.beta, c);
    return y != y ? accumulator_nan(Output::rne_f64) : bit_cast<uint64_t>(y);
  }
  const float y = blend(options.alpha, value_f32(acc_format, acc), options.beta, float(c));
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
    float source = 0.0f;
    if (options.beta != 0.0f) std::memcpy(&source, c + 4 * o, 4);
    const float y = blend(options.alpha, bit_cast<float>(acc[o]), options.beta, source);
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
