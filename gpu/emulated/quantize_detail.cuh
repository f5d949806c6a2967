// SPDX-License-Identifier: Apache-2.0
// What the quantization kernels share. Internal to gpu/emulated/quantize*.cu.
#pragma once
#include "nvfp4/emulator/formats/philox.hpp"
#include "nvfp4/emulator/quantize/block_rule.hpp"
#include "nvfp4/emulator/quantize/hadamard.hpp"
#include "nvfp4/gpu/emulated/quantize.hpp"

namespace nvfp4::cuda {

/// Maxima in memory: the word, and whether NaN and numbers were seen. Merged by atomicMax.
struct AmaxWords {
  uint32_t word, nan, number;
  [[nodiscard]] NVFP4_HD Amax amax() const { return {word, nan != 0, number != 0}; }
};

/// One quantization as kernels see it: rows along k.
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
  const GlobalScale *globals; ///< one, or one per row
  uint8_t *codes, *scales;
  AmaxWords *maxima; ///< where the tensor's maximum goes when no scale depends on it, else null
  uint32_t *left;    ///< blocks that the tiles leave to the definition: their count, then their numbers

  [[nodiscard]] NVFP4_HD int64_t blocks() const { return padded_k / rule.block; }
  [[nodiscard]] NVFP4_HD int64_t scale_cols() const { return blocks() * scale_bytes(rule.scale); }
  [[nodiscard]] NVFP4_HD int64_t scale_at(int64_t r, int64_t b) const {
    return tiled_scales ? scale_offset_128x4(r, b, scale_cols()) : r * scale_cols() + b;
  }
  [[nodiscard]] NVFP4_HD uint64_t random_index(int64_t r, int64_t i) const {
    return uint64_t(random_by_column ? i * rows + r : r * k + i);
  }
};

/// A job whose matrix is still as it lies in memory. Kernels turn, round and rotate on their way.
struct TileJob {
  QuantizeJob job; ///< x and stride are those of the source
  bool turned;     ///< the source is (k, rows)
  bool rounds;     ///< to BF16 first
  bool rotates;
  bool aligned; ///< rows of the source begin on 16-byte boundaries
  uint16_t signs;
  int64_t present; ///< elements along k that exist, for a turned source; the rest are +0
};

/// True where the tile kernels can run the job: whole blocks.
[[nodiscard]] bool tiles_cover(const TileJob &t);
/// All blocks; those whose scale FP32 arithmetic does not settle are only listed in job.left.
void quantize_tiles(const TileJob &t, cudaStream_t stream);

constexpr uint32_t kAllLanes = 0xFFFFFFFF;

__device__ inline void merge_into(AmaxWords *to, const Amax &a) {
  atomicMax(&to->word, a.word);
  if (a.nan) atomicMax(&to->nan, 1u);
  if (a.number) atomicMax(&to->number, 1u);
}

__device__ inline Amax warp_merged(Amax a) {
  a.word = __reduce_max_sync(kAllLanes, a.word);
  a.nan = __any_sync(kAllLanes, a.nan) != 0;
  a.number = __any_sync(kAllLanes, a.number) != 0;
  return a;
}

/// The tensor's maximum from those of blocks. A NaN block makes it NaN exactly where NaN elements would: see
/// Amax::value.
__device__ inline void report_maximum(AmaxWords *to, float bmax, bool counts) {
  const bool nan = bmax != bmax;
  const uint32_t word = __reduce_max_sync(kAllLanes, nan || !counts ? 0 : bit_cast<uint32_t>(bmax));
  const uint32_t nans = __ballot_sync(kAllLanes, nan && counts),
                 numbers = __ballot_sync(kAllLanes, !nan && counts);
  if (threadIdx.x % 32 != 0) return;
  const volatile AmaxWords *const seen = to; // most warps find a larger one there and spare the atomics
  if (word > seen->word) atomicMax(&to->word, word);
  if (nans != 0 && seen->nan == 0) atomicMax(&to->nan, 1u);
  if (numbers != 0 && seen->number == 0) atomicMax(&to->number, 1u);
}

/// Runs the kernels for flat matrices where they cover the job; false where they do not.
[[nodiscard]] bool quantize_fast(const QuantizeJob &job, cudaStream_t stream);

} // namespace nvfp4::cuda
