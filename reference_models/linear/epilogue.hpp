// SPDX-License-Identifier: Apache-2.0
// From accumulator to output of a linear layer, as one function for CPU and GPU.
#pragma once
#include "nvfp4/emulator/formats/codec.hpp"

#include <cmath>

namespace nvfp4::models {

/// How a result meets what stands in memory. Everything is FP32; memory holds FP32 words, also of BF16
/// values.
struct Epilogue {
  enum class Into : uint8_t {
    overwrite,   ///< y = round(alpha acc + bias)
    accumulate,  ///< y = round(fma(alpha, acc, y) + bias): beta = 1
    add_rounded, ///< y = y + round(alpha acc + bias)
  };
  Into into = Into::overwrite;
  bool bf16 = false; ///< round: to BF16, nearest even; else nothing
};

/// To BF16 and back; a NaN becomes the canonical one.
[[nodiscard]] NVFP4_HD inline float to_bf16(float y) {
  const uint32_t w = bit_cast<uint32_t>(y);
  const uint32_t rounded = (w + 0x7FFF + ((w >> 16) & 1)) & 0xFFFF0000u;
  return bit_cast<float>((w & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FFF0000u : rounded);
}

/// One output. bias is 0 where the layer has none: adding it is then left out, so that -0 stays.
[[nodiscard]] NVFP4_HD inline float finish(const Epilogue &e, float alpha, float acc, float y,
                                           const float *bias) {
  float v = e.into == Epilogue::Into::accumulate ? std::fma(alpha, acc, y) : alpha * acc;
  if (bias != nullptr) v = v + *bias;
  if (e.bf16)
    v = to_bf16(v);
  else if (v != v)
    v = bit_cast<float>(0x7FFFFFFFu);
  return e.into == Epilogue::Into::add_rounded ? y + v : v;
}

} // namespace nvfp4::models
