// SPDX-License-Identifier: Apache-2.0
// One block of a tensor by the text that the CPU runs, a thread for all of it: what the fast kernels do not
// cover, or leave.
#pragma once
#include "nvfp4/gpu/device/bf16.cuh"
#include "nvfp4/gpu/emulated/quantize_detail.cuh"

namespace nvfp4::cuda {

constexpr int kStrip = 16, kMaxBlock = 128; ///< rows of a square block; elements of a row of any block

__device__ inline uint32_t random_bits(const QuantizeJob &job, int64_t r, int64_t i) {
  if (job.rounding == ElementRounding::nearest) return 0;
  const uint64_t index = job.random_index(r, i);
  return job.rounding == ElementRounding::sr_exact ? job.key.bits32(index) : job.key.bits8(index);
}

/// Values [first, first + width) of output row r, as the job wants them.
__device__ inline void read_block(const TileJob &t, int64_t r, int64_t first, int width,
                                  float (&x)[kMaxBlock]) {
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

/// The code of x, element i of row r of the block that starts at `first`. As emulator/quantize/strip.hpp.
__device__ inline uint8_t code_of(const TileJob &t, int64_t r, int64_t first, int i, float x,
                                  const BlockScale &scale) {
  const Rule &rule = t.job.rule;
  return encode_element(rule, x, element_scale(rule, scale, i), t.job.rounding,
                        random_bits(t.job, r, first + i));
}

/// The error of a candidate scale.
__device__ inline float error_of(const TileJob &t, const GlobalScale &global, int64_t first_row, int rows,
                                 int64_t first, int width, const BlockScale &scale) {
  float sums[kStrip] = {};
  for (int r = 0; r < rows; ++r) {
    float x[kMaxBlock];
    read_block(t, first_row + r, first, width, x);
    for (int i = 0; i < width; ++i)
      sums[r] = add_error(t.job.rule, sums[r], code_of(t, first_row + r, first, i, x[i], scale), x[i], scale,
                          global.amax);
  }
  if (t.job.block_rows > 1)
    for (int half = kStrip / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) sums[i] = sums[i] + sums[i + half];
  return sums[0];
}

/// The level of the part of row r that the block at `first` lies in.
__device__ inline GlobalScale level_of_part(const TileJob &t, int64_t r, int64_t first) {
  const QuantizeJob &job = t.job;
  const Rule &rule = job.rule;
  const int64_t from = first / rule.outer_block * rule.outer_block, to = min(job.k, from + rule.outer_block);
  Amax amax;
  for (int64_t at = from; at < to; at += rule.block) {
    float x[kMaxBlock];
    const int width = int(min(int64_t(rule.block), to - at));
    read_block(t, r, at, width, x);
    for (int i = 0; i < width; ++i) amax.add(x[i]);
  }
  return global_from_amax(rule, amax.value(rule.amax_nan), job.source);
}

/// Block `index` by the definition.
__device__ inline void define_block(const TileJob &t, int64_t index) {
  const QuantizeJob &job = t.job;
  const Rule &rule = job.rule;
  const int64_t columns = job.blocks();
  const int64_t first_row = index / columns * job.block_rows, b = index % columns, first = b * rule.block;
  const int rows = int(min(int64_t(job.block_rows), job.rows - first_row)),
            width = int(min(int64_t(rule.block), job.k - first));
  float x[kMaxBlock];
  Amax amax;
  for (int r = 0; r < rows; ++r) {
    read_block(t, first_row + r, first, width, x);
    for (int i = 0; i < width; ++i) amax.add(x[i]);
  }
  const GlobalScale global =
      rule.outer_block != 0 ? level_of_part(t, first_row, first) : job.globals[rule.per_row ? first_row : 0];
  const float bmax = amax.value(rule.amax_nan);
  if (job.maxima != nullptr) {
    atomicMax(bmax == bmax ? &job.maxima->number : &job.maxima->nan, 1u);
    if (bmax == bmax) atomicMax(&job.maxima->word, bit_cast<uint32_t>(bmax));
  }
  BlockScale scale = block_scale(rule, bmax, global, job.source);
  if (format(rule.scale).extra == ScaleExtra::exponents)
    scale = with_exponents(rule, scale, x, width); // of one row
  if (rule.four_over_six != FourOverSix::off) {
    const BlockScale second = block_scale(rule, bmax, global, job.source, true);
    if (error_of(t, global, first_row, rows, first, width, second) <
        error_of(t, global, first_row, rows, first, width, scale))
      scale = second;
  }
  const bool nibbles = format(rule.element).storage_bits == 4;
  for (int r = 0; r < rows; ++r) {
    for (int i = 0, bytes = scale_bytes(rule.scale); i < bytes; ++i)
      job.scales[job.scale_at(first_row + r, b * bytes + i)] = scale_byte(scale.code, i);
    if (rows > 1) read_block(t, first_row + r, first, width, x);
    const auto code = [&](int i) {
      return i < width ? code_of(t, first_row + r, first, i, x[i], scale) : uint8_t{0};
    };
    uint8_t *const to = job.codes + ((first_row + r) * job.padded_k + first) / (nibbles ? 2 : 1);
    if (nibbles)
      for (int i = 0; i < rule.block; i += 2) to[i / 2] = uint8_t(code(i) | code(i + 1) << 4);
    else
      for (int i = 0; i < rule.block; ++i) to[i] = code(i);
  }
}

} // namespace nvfp4::cuda
