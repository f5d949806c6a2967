// SPDX-License-Identifier: Apache-2.0
// One block of a tensor by the text that the CPU runs, a thread for all of it: what the fast kernels do not
// cover, or leave.
#pragma once
#include "nvfp4/gpu/device/bf16.cuh"
#include "nvfp4/gpu/emulated/quantize_detail.cuh"

namespace nvfp4::cuda {

constexpr int kStrip = 16, kMaxBlock = 32; ///< rows of a square block; elements of a row of any block

__device__ inline uint32_t random_bits(const QuantizeJob &job, int64_t r, int64_t i) {
  if (job.rounding == ElementRounding::nearest) return 0;
  const uint64_t index = job.random_index(r, i);
  return job.rounding == ElementRounding::sr_exact ? job.key.bits32(index) : job.key.bits8(index);
}

/// Values [first, first + width) of output row r, as the job wants them.
__device__ inline void read_block(const TileJob &t, int64_t r, int64_t first, int width, float (&x)[kMaxBlock]) {
  for (int i = 0; i < width; ++i) {
    const int64_t k = first + i;
    const float v = !t.turned       ? t.job.x[r * t.job.stride + k]
                    : k < t.present ? t.job.x[k * t.job.stride + r]
                                    : 0.0f;
    x[i] = t.rounds && !t.rotates ? bf16_low(bf16_pair(v, 0.0f)) : v;
  }
  if (!t.rotates) return; // k is a multiple of 16, and so are blocks
  for (int i = 0; i < width; i += kHadamardSize) {
    float group[kHadamardSize];
    for (int j = 0; j < kHadamardSize; ++j) group[j] = x[i + j];
    rotate16(group, t.signs);
    for (int j = 0; j < kHadamardSize; ++j) x[i + j] = group[j];
  }
}

/// Codes of one candidate scale; the error where four-over-six asks for it. As emulator/quantize/strip.hpp.
template <int strip>
__device__ float encode_block(const TileJob &t, const GlobalScale &global, int64_t first_row, int rows,
                              int64_t first, int width, const BlockScale &scale,
                              uint8_t (&codes)[strip][kMaxBlock]) {
  const Rule &rule = t.job.rule;
  float sums[strip] = {};
  for (int r = 0; r < rows; ++r) {
    float x[kMaxBlock];
    read_block(t, first_row + r, first, width, x);
    for (int i = 0; i < width; ++i) {
      codes[r][i] =
          encode_element(rule, x[i], scale, t.job.rounding, random_bits(t.job, first_row + r, first + i));
      if (rule.four_over_six != FourOverSix::off)
        sums[r] = add_error(rule, sums[r], codes[r][i], x[i], scale, global.amax);
    }
  }
  for (int half = strip / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i) sums[i] = sums[i] + sums[i + half];
  return sums[0];
}

/// Block `index` of 1 or 16 rows by the definition, under `global`, the tensor's level or that of its first
/// row.
template <int strip>
__device__ void define_block(const TileJob &t, int64_t index, const GlobalScale &global) {
  const QuantizeJob &job = t.job;
  const Rule &rule = job.rule;
  const int64_t columns = job.scale_cols();
  const int64_t first_row = index / columns * strip, b = index % columns, first = b * rule.block;
  const int rows = int(min(int64_t(strip), job.rows - first_row)),
            width = int(min(int64_t(rule.block), job.k - first));
  Amax amax;
  for (int r = 0; r < rows; ++r) {
    float x[kMaxBlock];
    read_block(t, first_row + r, first, width, x);
    for (int i = 0; i < width; ++i) amax.add(x[i]);
  }
  const float bmax = amax.value(rule.amax_nan);
  if (job.maxima != nullptr) {
    atomicMax(bmax == bmax ? &job.maxima->number : &job.maxima->nan, 1u);
    if (bmax == bmax) atomicMax(&job.maxima->word, bit_cast<uint32_t>(bmax));
  }
  uint8_t codes[strip][kMaxBlock] = {};
  BlockScale scale = block_scale(rule, bmax, global, job.source);
  const float error = encode_block<strip>(t, global, first_row, rows, first, width, scale, codes);
  if (rule.four_over_six != FourOverSix::off) {
    uint8_t wider[strip][kMaxBlock] = {};
    const BlockScale four = block_scale(rule, bmax, global, job.source, true);
    if (encode_block<strip>(t, global, first_row, rows, first, width, four, wider) < error) {
      scale = four;
      for (int r = 0; r < strip; ++r)
        for (int i = 0; i < kMaxBlock; ++i) codes[r][i] = wider[r][i];
    }
  }
  const bool nibbles = format(rule.element).storage_bits == 4;
  for (int r = 0; r < rows; ++r) {
    job.scales[job.scale_at(first_row + r, b)] = scale.code;
    uint8_t *const to = job.codes + ((first_row + r) * job.padded_k + first) / (nibbles ? 2 : 1);
    if (nibbles)
      for (int i = 0; i < rule.block; i += 2) to[i / 2] = uint8_t(codes[r][i] | codes[r][i + 1] << 4);
    else
      for (int i = 0; i < rule.block; ++i) to[i] = codes[r][i];
  }
}

} // namespace nvfp4::cuda
