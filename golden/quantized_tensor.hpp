// SPDX-License-Identifier: Apache-2.0
// A block-scaled tensor with what only its file says: the tensor's name and shape before it became a matrix,
// and how it was rounded, so that the same quantization can be asked for again.
#pragma once
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/emulator/quantize/statistics.hpp"
#include "nvfp4/golden/io/tensor.hpp"

namespace nvfp4::golden {

struct QuantizedTensor {
  BlockScaled scaled;
  std::string name = "data";
  std::vector<int64_t> shape =
      {}; ///< of what was quantized; its last axis is the matrix's, the others are its rows
  ElementRounding rounding = ElementRounding::nearest;
  RandomKey key = {}; ///< meaningful with stochastic rounding
};

/// The matrix that was quantized: (rows, k), or (k, rows) for the columnwise copy.
[[nodiscard]] std::vector<int64_t> matrix_shape(const BlockScaled &q);

/// The file of quantized_file.hpp, with metadata `tensor`, `shape`, `rounding`, and `seed` and `offset` where
/// random words were used.
[[nodiscard]] io::TensorFile to_file(const QuantizedTensor &tensor);

/// The way back. Metadata that is not there has its default; a shape that does not fit is the matrix's.
/// Throws Error as from_file() does, and for a rounding, seed or offset that is none.
[[nodiscard]] QuantizedTensor quantized_tensor(const io::TensorFile &file);

/// Rows that share a scale, for a block of `rows` x `length`: 1 or the convention's block. Throws Error for a
/// block that the convention does not have; 1x16 stands for 1x32 with conventions of 32.
[[nodiscard]] int block_rows_of(const Convention &convention, int64_t rows, int64_t length);

/// The counts of a quantization as one JSON object, as `nvfp4 quantize --json` writes them.
[[nodiscard]] std::string statistics_json(const QuantizeStatistics &s);

} // namespace nvfp4::golden
