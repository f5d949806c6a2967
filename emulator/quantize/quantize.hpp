// SPDX-License-Identifier: Apache-2.0
// Quantizes a matrix as a convention says. The result is a function of input, convention and options: never
// of threads, machine or compiler.
#pragma once
#include "nvfp4/emulator/cpu/isa.hpp"
#include "nvfp4/emulator/formats/philox.hpp"
#include "nvfp4/emulator/quantize/block_rule.hpp"
#include "nvfp4/emulator/quantize/block_scaled.hpp"
#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/emulator/quantize/hadamard.hpp"
#include "nvfp4/emulator/quantize/matrix_view.hpp"

#include <functional>
#include <optional>

namespace nvfp4 {

struct QuantizeOptions {
  Axis axis = Axis::row;
  int block_rows = 1; ///< 1, or 16 for 16x16 tiles (128 where blocks are 1x128); the last tile may be ragged
  ElementRounding rounding = ElementRounding::nearest;
  /// Random bits of element (r, c) of the input are those of index r * cols + c, for either axis.
  RandomKey key = {};
  bool hadamard = false; ///< rotate groups of 16 along k first; amax is then taken after the rotation
  uint16_t sign_mask = kHadamardSigns;
  ScaleLayout layout = ScaleLayout::linear;
  /// Type whose values the matrix holds: f32, bf16 or f16. Read by conventions that compute in it; nothing
  /// checks that the values are of the type.
  FormatId source = FormatId::f32;
  std::optional<float> global_amax = {}; ///< instead of the tensor's own (a gathered or calibrated one)
  /// Instead of an amax, the word that the convention stores: S for flashinfer, flashinfer-exact, vllm and
  /// compressed-tensors, p for torchao, modelopt,
  /// alto-nvfp4, metis-nvfp4 and quartet2-eden. The other conventions take only an amax.
  std::optional<float> global_scale = {};
  int threads = 0;             ///< 0: all that OpenMP offers
  std::optional<Isa> isa = {}; ///< instead of the best that the CPU has
  /// Gets the fraction done, from one thread; what it throws ends the work, and quantize() throws it.
  std::function<void(double)> progress = {};
};

/// Throws Error for options that the convention cannot take or that have no meaning together.
[[nodiscard]] BlockScaled quantize(MatrixView<const float> x, const Convention &convention,
                                   const QuantizeOptions &options = {});

/// The same into a tensor whose memory is used again where it is large enough; what it held is lost.
void quantize_into(BlockScaled &out, MatrixView<const float> x, const Convention &convention,
                   const QuantizeOptions &options = {});

} // namespace nvfp4
