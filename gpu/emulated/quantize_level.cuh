// SPDX-License-Identifier: Apache-2.0
// The second level of a tensor from its maximum, or from what the caller gave.
#pragma once
#include "nvfp4/gpu/device/bf16.cuh"
#include "nvfp4/gpu/emulated/quantize_detail.cuh"

#include <span>

namespace nvfp4::cuda {

/// Where the second level comes from.
enum class GlobalFrom : uint8_t { maxima, amax, device_amax, word };

struct LevelSource {
  GlobalFrom from;
  float given;              ///< amax, or word
  const float *device_amax; ///< of GlobalFrom::device_amax
  bool rounds; ///< the maxima are of a matrix that is rounded to BF16 afterwards, which commutes with a
               ///< maximum
};

/// maxima: of the tensor or the row, read for GlobalFrom::maxima.
[[nodiscard]] __device__ inline GlobalScale level_of(const Rule &rule, FormatId source, const LevelSource &s,
                                                     const AmaxWords &maxima) {
  float amax = s.given;
  if (s.from == GlobalFrom::device_amax) amax = *s.device_amax;
  if (s.from == GlobalFrom::maxima) {
    amax = maxima.amax().value(rule.amax_nan);
    if (s.rounds) amax = bf16_low(bf16_pair(amax, 0.0f));
  }
  return s.from == GlobalFrom::word ? global_from_word(rule, s.given) : level_from_amax(rule, amax, source);
}

/// Words of maxima that a quantization uses besides a row's: an estimate, and the blocks that are done. All
/// are zeros between quantizations.
constexpr int64_t kMaxima = 3;

/// What the last block of a search for one maximum does with it.
struct LevelEnd {
  Rule rule;
  FormatId source;
  LevelSource level;
  AmaxWords *maxima;
  GlobalScale *out; ///< null: nothing
  uint32_t *left;   ///< where tiles list blocks, which they find empty; or null
};

/// All threads of all blocks come here, once they have merged what they found.
__device__ inline void end_level(const LevelEnd &e) {
  if (e.out == nullptr) return;
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(&e.maxima[2].word, 1u) == gridDim.x * gridDim.y - 1;
  __syncthreads();
  if (!last || threadIdx.x != 0) return;
  __threadfence();
  const volatile AmaxWords &m = e.maxima[0];
  *e.out = level_of(e.rule, e.source, e.level, AmaxWords{m.word, m.nan, m.number});
  if (e.left != nullptr) *e.left = 0;
  for (int i = 0; i < kMaxima; ++i) e.maxima[i] = {};
}

/// The maximum of the rotated matrix, and its end.
void rotated_maximum(const TileJob &t, const LevelEnd &end, cudaStream_t stream);
/// Those of its rows, merged into `maxima`, one a row.
void rotated_row_maxima(const TileJob &t, AmaxWords *maxima, cudaStream_t stream);

/// One of several quantizations that share launches.
struct SmallJob {
  TileJob t; ///< with a list of its own for blocks that tiles leave
  LevelSource level;
  GlobalScale *out; ///< where the level goes
};

/// True for tensors small enough for one block of threads to find the maximum.
[[nodiscard]] bool quantizes_small(const TileJob &t);
/// All of the jobs, which change places.
void quantize_small(std::span<SmallJob> jobs, cudaStream_t stream);

} // namespace nvfp4::cuda
