// SPDX-License-Identifier: Apache-2.0
// Raw codes, block scales and a global scale, as kernels and checkpoints have them, made a block-scaled
// tensor. Words are taken as they are: nothing is rounded, and what the convention needs and the caller does
// not have is an Error.
#pragma once
#include "nvfp4/emulator/quantize/block_scaled.hpp"
#include "nvfp4/golden/io/tensor.hpp"

#include <optional>

namespace nvfp4::golden {

/// Which of two FP4 codes of a byte comes first along k.
enum class NibbleOrder : uint8_t { low_first, high_first };
[[nodiscard]] constexpr auto names_of(NibbleOrder) {
  return enum_names("nibble order", "low-first", "high-first");
}
static_assert(names_of(NibbleOrder{}).end_with(NibbleOrder::high_first));

/// What the number beside codes and block scales is.
enum class GlobalMeaning : uint8_t {
  amax,   ///< max |x| of the tensor: TransformerEngine
  encode, ///< S, by which x was multiplied, a divisor of values: compressed-tensors' weight_global_scale,
          ///< FlashInfer, vLLM
  decode, ///< p, by which values are multiplied: ModelOpt's weight_scale_2, torchao's per_tensor_scale
};
[[nodiscard]] constexpr auto names_of(GlobalMeaning) {
  return enum_names("meaning of a global scale", "amax", "encode", "decode");
}
static_assert(names_of(GlobalMeaning{}).end_with(GlobalMeaning::decode));

struct ImportOptions {
  std::string convention = {};
  ScaleLayout layout = ScaleLayout::linear; ///< of the scales given; the result keeps it
  /// Linear scales stand in a matrix of whole 128x4 tiles, whose other bytes mean nothing: TransformerEngine.
  bool padded_scales = false;
  NibbleOrder nibbles = NibbleOrder::low_first;
  bool unpacked = false; ///< FP4 codes stand one a byte, in its low half
  GlobalMeaning global_is = GlobalMeaning::amax;
  int64_t k = 0;      ///< length of a row without padding; 0: as many as there are codes
  int block_rows = 1; ///< rows that share a scale: 1, or the block's length for square tiles
  Axis axis = Axis::row;
  FormatId source = FormatId::f32; ///< type of the tensor that was quantized
  bool hadamard = false;           ///< the values are rotated, with TransformerEngine's signs
};

/// codes: (rows, bytes) U8 or I8, or (rows, k) F4, or F8 of the convention's element format; leading axes
/// count as rows. scales: U8, I8 or F8 words, or F32, BF16 or F16 values that the scale format holds exactly;
/// linear (rows, blocks), of square tiles also (rows / 16, blocks); 128x4: all bytes of the tiles, whatever
/// their shape. global: one value, or an amax for each row where the convention has one scale a row; null for
/// conventions without. Throws Error that names the tensor, what was expected and what came.
[[nodiscard]] BlockScaled import_quantized(const io::Tensor &codes, const io::Tensor &scales,
                                           const io::Tensor *global, const ImportOptions &options);

} // namespace nvfp4::golden
