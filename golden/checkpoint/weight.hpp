// SPDX-License-Identifier: Apache-2.0
// The weights of a checkpoint: stored tensors put together by the rows of container.hpp, and their values.
#pragma once
#include "nvfp4/emulator/quantize/block_scaled.hpp"
#include "nvfp4/golden/checkpoint/checkpoint.hpp"
#include "nvfp4/golden/checkpoint/container.hpp"

namespace nvfp4::checkpoint {

/// `batch` matrices of (rows, k): one, or the experts of a stacked tensor.
struct Weight {
  std::string name;                     ///< "model.layers.0.mlp.up_proj.weight"
  const Container *container = nullptr; ///< nullptr: plain numbers
  const StoredTensor *codes = nullptr, *scales = nullptr, *global = nullptr, *input = nullptr;
  int64_t batch = 1, rows = 0, k = 0;
  ScaleLayout layout = ScaleLayout::linear;
  int64_t tile_rows = 1, tile_cols = 0; ///< of dense scales: elements that one covers
  std::vector<std::string> faults;      ///< why it cannot be decoded, one line each
  bool decodable = false;

  [[nodiscard]] int64_t elements() const { return batch * rows * k; }
  /// Whether the codes are those of a block format that quantize() knows.
  [[nodiscard]] bool is_block_scaled() const {
    return container && container->scale_shape == ScaleShape::blocks;
  }
  /// "compressed-tensors-nvfp4", or the type of plain numbers.
  [[nodiscard]] std::string kind() const { return container ? std::string(container->name) : codes->type; }
};

struct Weights {
  std::vector<Weight> all;                   ///< in the order of their codes in the checkpoint
  std::vector<const StoredTensor *> orphans; ///< scales of no weight
};

/// Never throws for what the tensors hold: faults stand with the weight. The checkpoint must outlive the
/// result.
[[nodiscard]] Weights find_weights(const Checkpoint &checkpoint);

/// Rows [first, first + count) of matrix `index` in the form of quantize(): codes in order of k, low nibble
/// first, scales row by row. For block-scaled weights that are decodable.
[[nodiscard]] BlockScaled block_scaled(const Weight &w, int64_t index, int64_t first, int64_t count);

/// The same rows as FP32 values: what the container's own software reconstructs before it rounds to the
/// model's type. For decodable weights.
[[nodiscard]] std::vector<float> values(const Weight &w, int64_t index, int64_t first, int64_t count,
                                        int threads = 0);

/// The second-level scale of matrix `index` as stored; 1 where the container has none or it is not there.
[[nodiscard]] float global_word(const Weight &w, int64_t index);
/// The stored scale of the inputs; nothing where there is none.
[[nodiscard]] std::optional<float> input_word(const Weight &w, int64_t index);

/// The dense scale of an element, for weights that have such.
[[nodiscard]] float dense_scale(const Weight &w, int64_t index, int64_t row, int64_t col);

/// Rows that decoding `bytes` of FP32 values holds at once: at least 1.
[[nodiscard]] int64_t rows_at_once(const Weight &w, int64_t bytes = int64_t{64} << 20);

} // namespace nvfp4::checkpoint
