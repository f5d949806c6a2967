// SPDX-License-Identifier: Apache-2.0
// Operands of products with 32 products a step and 25 fraction bits, as gemm_parts_prepare.cu writes and
// gemm_parts.cu reads them. Internal.
#pragma once
#include "nvfp4/gpu/emulated/gemm_detail.cuh"
#include "nvfp4/gpu/emulated/gemm_parts_step.hpp"

namespace nvfp4::cuda {

inline constexpr int kPartsTile = 128;             ///< rows and columns of a tile; operands have whole ones
inline constexpr int kPartBytes = 2 * kPartsLink;  ///< a part of a row's step: BF16 words
inline constexpr int kPartsBytes = 3 * kPartBytes; ///< high part, low part, 1 / lowest bits
/// What tiles expect of field exponents, sums of both sides and each side's: products and what they are
/// multiples of stay well inside FP32, elements and the inverses of their lowest bits inside BF16.
inline constexpr int kPartsLowest = -90, kPartsHighest = 80, kPartsFurthest = 100;
inline constexpr int kNotFinite =
    0x2000; ///< as a row's largest exponent: an element or a scale is NaN or infinite

/// An operand as the kernels see it; rows padded to whole tiles with zeros.
struct PartsView {
  const uint8_t *parts;   ///< (padded_rows, steps, kPartsBytes)
  const float *largest;   ///< (steps, padded_rows)
  const float *least;     ///< (steps, padded_rows): 2^(least exponent field)
  const PartNorms *norms; ///< (steps, padded_rows / 8): maxima over eight rows
  const int2 *exponents;  ///< (padded_rows): -smallest and largest field exponent of all K
  int64_t padded_rows, steps;
};

void prepare_parts(const UnitRule &rule, const DeviceOperand &operand, PartsOperand &out,
                   cudaStream_t stream);

[[nodiscard]] inline PartsView view_of(const PartsOperand &o) {
  const int64_t vectors = o.steps * o.padded_rows;
  return {o.parts.as<uint8_t>(),
          o.powers.as<float>(),
          o.powers.as<float>() + vectors,
          o.norms.as<PartNorms>(),
          o.exponents.as<int2>(),
          o.padded_rows,
          o.steps};
}

} // namespace nvfp4::cuda
