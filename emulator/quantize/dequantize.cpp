// SPDX-License-Identifier: Apache-2.0
// The loops around decode_element and the inverse rotation.
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/cpu/loop_progress.hpp"
#include "nvfp4/emulator/quantize/block_rule.hpp"
#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/emulator/quantize/hadamard.hpp"

#include <algorithm>
#include <omp.h>

namespace nvfp4 {
namespace {

void check_tensor(const BlockScaled &q, const Rule &rule) {
  const auto wrong = [&](const std::string &what) {
    throw Error("dequantize '" + q.convention + "': " + what);
  };
  if (q.element != rule.element || q.scale != rule.scale || q.block != rule.block)
    wrong("expected element, scale format and block of the convention, got others");
  if (q.rows < 0 || q.k < 0 || q.padded_k < q.k || q.padded_k % q.block != 0)
    wrong("expected padded_k to be a multiple of the block and at least k = " + std::to_string(q.k) +
          ", got " + std::to_string(q.padded_k));
  const int64_t scale_bytes =
      q.layout == ScaleLayout::linear ? q.rows * q.scale_cols() : scale_size_128x4(q.rows, q.scale_cols());
  if (q.codes.size() != size_t(q.rows * q.row_bytes()) || q.scales.size() != size_t(scale_bytes))
    wrong("expected " + std::to_string(q.rows * q.row_bytes()) + " bytes of codes and " +
          std::to_string(scale_bytes) + " of scales, got " + std::to_string(q.codes.size()) + " and " +
          std::to_string(q.scales.size()));
  if (has_row_factors(rule) && q.row_amax.size() != size_t(q.rows)) wrong("expected one amax per row");
  if (q.hadamard && q.k % kHadamardSize != 0) wrong("a rotated tensor needs k to be a multiple of 16");
}

} // namespace

GlobalScale global_of_row(const BlockScaled &q, const Rule &rule, int64_t row) {
  if (has_row_factors(rule)) return global_from_amax(rule, q.row_amax[size_t(row)], q.source);
  return {q.global_amax, q.global_encode, q.global_decode};
}

std::vector<float> dequantize(const BlockScaled &q, const DequantizeOptions &options) {
  const Rule &rule = find_convention(q.convention).rule;
  check_tensor(q, rule);
  const int threads = options.threads > 0 ? options.threads : omp_get_max_threads();
  const bool transposed = q.axis == Axis::col;
  std::vector<float> out(size_t(q.rows * q.k));
  LoopProgress progress(&options.progress, q.rows);
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t r = 0; r < q.rows; ++r) {
    if (progress.stopped()) continue;
    const GlobalScale global = global_of_row(q, rule, r);
    const CodeView codes = q.row(r);
    for (int64_t first = 0; first < q.k; first += kHadamardSize) {
      float values[kHadamardSize] = {};
      const int width = int(std::min<int64_t>(kHadamardSize, q.k - first));
      for (int i = 0; i < width; ++i)
        values[i] =
            decode_element(rule, uint32_t(codes[first + i]), q.scale_code(r, (first + i) / q.block),
                           int((first + i) % q.block), global);
      if (q.hadamard && options.undo_hadamard) rotate16_back(values, q.sign_mask);
      for (int i = 0; i < width; ++i)
        out[size_t(transposed ? (first + i) * q.rows + r : r * q.k + first + i)] = values[i];
    }
    progress.finished(omp_get_thread_num());
  }
  progress.finish();
  return out;
}

} // namespace nvfp4
