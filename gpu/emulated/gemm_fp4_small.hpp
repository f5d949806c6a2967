// SPDX-License-Identifier: Apache-2.0
// Products of small models' layers: what one launch does for several of them.
#pragma once
#include "nvfp4/gpu/emulated/quantize.hpp"

#include <span>

namespace nvfp4::cuda {

/// gemm_fp4()'s arguments, and what the operands were prepared from: then output.device_alpha is not read,
/// but output.alpha times global_alpha() of both taken.
struct SmallProduct {
  const UnitRule *rule;
  const Fp4Operand *a, *b;
  const DeviceBlockScaled *scaled_a = nullptr, *scaled_b = nullptr; ///< both or none
  GemmOutput output;
  Accumulation accumulation;
};
/// Products of prepared operands for which one launch is better than gemm_fp4()'s five: up to 256 x 256 x
/// 1024, and as much work in other shapes.
[[nodiscard]] bool multiplies_small(const Fp4Operand &a, const Fp4Operand &b);
/// Products that do not depend on each other. Throws Error as gemm_fp4().
void gemm_fp4_small(std::span<const SmallProduct> products, cudaStream_t stream);

} // namespace nvfp4::cuda
