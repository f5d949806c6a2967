// SPDX-License-Identifier: Apache-2.0
// From accumulator to output: the text of one output for host and device. In order: alpha and beta, a factor,
// a bias, one rounding to the output type. What is absent is left out, not multiplied by 1 or added as 0, so
// that -0 stays.
#pragma once
#include "nvfp4/emulator/formats/bf16.hpp"
#include "nvfp4/emulator/tensorcore/fdpa.hpp"

#include <cmath>

namespace nvfp4 {

/// alpha * acc, or fma(alpha, acc, beta * c), where beta * c is rounded first: cuBLASLt's order on an H200
/// (gpu/probes/cublaslt_epilogue.cpp). T is float or double; c is read only with beta.
template <class T> [[nodiscard]] NVFP4_HD inline T blend(T alpha, T acc, T beta, T c) {
  return beta != T(0) ? std::fma(alpha, acc, beta * c) : alpha * acc;
}

/// y times a factor, plus a bias; null: without. Each is one rounded operation.
template <class T> [[nodiscard]] NVFP4_HD inline T adjust(T y, const float *factor, const float *bias) {
  if (factor != nullptr) y = y * T(*factor);
  if (bias != nullptr) y = y + T(*bias);
  return y;
}

/// The factor of an output that has one per row, one per column or both; null: without.
[[nodiscard]] NVFP4_HD inline float joint_factor(const float *row, const float *column) {
  return row == nullptr ? *column : column == nullptr ? *row : *row * *column;
}

/// FP32 to the word of an output type (f32, bf16 or f16): nearest even, overflow to Inf, canonical NaN.
[[nodiscard]] NVFP4_HD inline uint32_t round_output(FormatId out, float y) {
  if (out == FormatId::f32) return y != y ? 0x7FFFFFFFu : bit_cast<uint32_t>(y);
  if (out == FormatId::bf16) return bf16_word(y);
  return uint32_t(encode(FormatId::f16, y, Rounding::nearest_even, Overflow::ieee));
}

/// The same for FP64 outputs, which only FP64 units have.
[[nodiscard]] NVFP4_HD inline uint64_t round_output(double y) {
  return y != y ? accumulator_nan(Output::rne_f64) : bit_cast<uint64_t>(y);
}

/// The value of an accumulator word of at most 32 bits.
[[nodiscard]] NVFP4_HD inline float accumulator_value(FormatId acc_format, uint64_t acc) {
  return acc_format == FormatId::f32 ? bit_cast<float>(uint32_t(acc)) : value_f32(acc_format, acc);
}

/// What one output meets. c is a word of FP32, of FP64 for FP64 accumulators.
struct OutputTerms {
  FormatId out = FormatId::f32; ///< f32, bf16 or f16; FP64 accumulators are always written as FP64
  float alpha = 1.0f, beta = 0.0f;
  uint64_t c = 0;
  const float *factor = nullptr, *bias = nullptr;
};

/// One output: accumulator word -> output word.
[[nodiscard]] NVFP4_HD inline uint64_t finish_output(const OutputTerms &t, FormatId acc_format,
                                                     uint64_t acc) {
  if (acc_format == FormatId::f64)
    return round_output(adjust(blend<double>(t.alpha, bit_cast<double>(acc), t.beta, bit_cast<double>(t.c)),
                               t.factor, t.bias));
  const float x = accumulator_value(acc_format, acc), c = bit_cast<float>(uint32_t(t.c));
  return round_output(t.out, adjust(blend(t.alpha, x, t.beta, c), t.factor, t.bias));
}

/// How a result meets FP32 words that stand in memory, also words of BF16 values.
struct Epilogue {
  enum class Into : uint8_t {
    overwrite,   ///< y = round(alpha acc + bias)
    accumulate,  ///< y = round(fma(alpha, acc, y) + bias): beta = 1
    add_rounded, ///< y = y + round(alpha acc + bias)
  };
  Into into = Into::overwrite;
  bool bf16 = false; ///< round: to BF16, nearest even; else nothing
};

/// One output into memory that holds y. bias is null where the layer has none.
[[nodiscard]] NVFP4_HD inline float finish(const Epilogue &e, float alpha, float acc, float y,
                                           const float *bias) {
  const float beta = e.into == Epilogue::Into::accumulate ? 1.0f : 0.0f;
  const float v = adjust(blend(alpha, acc, beta, y), nullptr, bias);
  const float rounded = e.bf16 ? round_to_bf16(v) : bit_cast<float>(round_output(FormatId::f32, v));
  return e.into == Epilogue::Into::add_rounded ? y + rounded : rounded;
}

} // namespace nvfp4
