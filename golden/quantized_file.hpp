// SPDX-License-Identifier: Apache-2.0
// A block-scaled tensor as a .safetensors file: codes, block_scales, global_amax and the metadata to read them.
#pragma once
#include "nvfp4/emulator/quantize/block_scaled.hpp"
#include "nvfp4/golden/io/tensor.hpp"

#include <optional>

namespace nvfp4::golden {

/// Tensors `codes` U8 (rows, bytes), `block_scales` U8 (linear: (rows, blocks); 128x4: padded (rows, blocks)),
/// `global_amax`, `global_encode_scale`, `global_decode_scale` F32 [1], `row_amax` F32 (rows) where there is one.
[[nodiscard]] io::TensorFile to_file(const BlockScaled &q);

/// The shape of `block_scales`.
[[nodiscard]] std::vector<int64_t> scale_shape(const BlockScaled &q);

/// True when the file says that it holds a block-scaled tensor.
[[nodiscard]] bool is_block_scaled(const io::TensorFile &file);

/// The way back. Checks shapes, sizes and metadata; throws Error naming file, tensor or key.
[[nodiscard]] BlockScaled from_file(const io::TensorFile &file);

/// The format whose raw codes a dtype holds; nothing for integers, complex numbers, the FNUZ formats and the F6 formats,
/// whose packing is defined nowhere.
[[nodiscard]] std::optional<FormatId> format_of(io::DType dtype);

/// A dense tensor as a matrix of FP32 values: rank 2, or more with leading axes flattened, or 1 as one row. F32, F16,
/// BF16, F64 (rounded to nearest), F8 and F4. `source` tells the input's type for conventions that compute in it: F32
/// where its values are not of type BF16 or F16.
struct DenseMatrix {
  int64_t rows = 0, cols = 0;
  std::vector<float> values;
  FormatId source = FormatId::f32;
};
[[nodiscard]] DenseMatrix to_matrix(const io::Tensor &tensor, const std::string &file);

/// Refuses a tensor without elements whose lengths are absurd: such a header costs no bytes, but loops over rows would
/// never end.
void check_empty(const io::Tensor &tensor, const std::string &file);

/// The tensor of a file that a user means: the named one, or the only one. Error lists the names otherwise.
[[nodiscard]] const io::Tensor &choose_tensor(const io::TensorFile &file, std::string_view name);

} // namespace nvfp4::golden
