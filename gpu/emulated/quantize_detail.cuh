// SPDX-License-Identifier: Apache-2.0
// What the quantization kernels share. Internal to gpu/emulated/quantize*.cu.
#pragma once
#include "emulator/formats/philox.hpp"
#include "emulator/quantize/block_rule.hpp"
#include "emulator/quantize/hadamard.hpp"
#include "gpu/emulated/quantize.hpp"

namespace nvfp4::cuda {

/// Maxima in memory: the word, and whether NaN and numbers were seen. Merged by atomicMax.
struct AmaxWords {
  uint32_t word, nan, number;
  [[nodiscard]] NVFP4_HD Amax amax() const { return {word, nan != 0, number != 0}; }
};

/// One quantization as kernels see it: x is already turned and rotated, rows along k.
struct QuantizeJob {
  Rule rule;
  ElementRounding rounding;
  RandomKey key;
  FormatId source;
  bool random_by_column; ///< Axis::col: element (r, i) has the random index i * rows + r
  bool tiled_scales;
  int block_rows;
  const float *x;
  int64_t rows, k, stride, padded_k;
  const GlobalScale *globals;  ///< one, or one per row
  const uint32_t *tile_maxima; ///< (row tiles, blocks) of 16x16 tiles for the fast path, else null
  uint8_t *codes, *scales;
  AmaxWords *maxima; ///< where the tensor's maximum goes when no scale depends on it, else null

  [[nodiscard]] NVFP4_HD int64_t scale_cols() const { return padded_k / rule.block; }
  [[nodiscard]] NVFP4_HD int64_t scale_at(int64_t r, int64_t b) const {
    return tiled_scales ? scale_offset_128x4(r, b, scale_cols()) : r * scale_cols() + b;
  }
  [[nodiscard]] NVFP4_HD uint64_t random_index(int64_t r, int64_t i) const {
    return uint64_t(random_by_column ? i * rows + r : r * k + i);
  }
};

/// Runs the fast kernels where they cover the job; false where they do not.
[[nodiscard]] bool quantize_fast(const QuantizeJob &job, cudaStream_t stream);

} // namespace nvfp4::cuda
