// SPDX-License-Identifier: Apache-2.0
// The one factor by which a GEMM of two block-scaled operands undoes their global scales.
#pragma once
#include "nvfp4/emulator/quantize/alpha_rule.hpp"
#include "nvfp4/emulator/quantize/block_scaled.hpp"
#include "nvfp4/emulator/quantize/convention.hpp"

namespace nvfp4 {

/// An operand's second level of scaling, as alpha reads it.
struct GlobalFactor {
  const Convention *convention = nullptr; ///< row of conventions(); null: `decode` is all that is known
  float amax = 1.0f;                      ///< read only with a convention
  float decode = 1.0f;
};

/// The second level of a tensor; of one without the name of a convention, its decode scale. Throws Error for
/// an unknown name, and for a convention whose values are not those of its codes and scales.
[[nodiscard]] GlobalFactor global_factor(const BlockScaled &q);

/// combined_alpha of both operands' shares. Throws Error where the rule reads an amax that the operand was
/// never given.
[[nodiscard]] float global_alpha(const GlobalFactor &a, const GlobalFactor &b, float alpha, AlphaRule rule);
[[nodiscard]] float global_alpha(const BlockScaled &a, const BlockScaled &b, float alpha, AlphaRule rule);

} // namespace nvfp4
