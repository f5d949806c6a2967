// SPDX-License-Identifier: Apache-2.0
// Row by row, group by group.
#include "nvfp4/reference_models/linear/scale_correction.hpp"

#include "nvfp4/emulator/quantize/dequantize.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::models {
namespace {

constexpr int64_t kGroup = 8; ///< blocks

/// Row r of the operand as it was quantized.
void read_row(const BlockScaled &q, MatrixView<const float> x, int64_t r, std::vector<float> &out) {
  out.assign(size_t(q.padded_k), 0.0f);
  for (int64_t i = 0; i < q.k; ++i) out[size_t(i)] = q.axis == Axis::col ? x(i, r) : x(r, i);
  for (int64_t i = 0; q.hadamard && i < q.padded_k; i += kHadamardSize) {
    float group[kHadamardSize];
    std::copy_n(out.data() + i, kHadamardSize, group);
    rotate16(group, q.sign_mask);
    std::copy_n(group, kHadamardSize, out.data() + i);
  }
}

} // namespace

void correct_scales(BlockScaled &q, MatrixView<const float> x, RandomKey key) {
  const Rule &rule = find_convention(q.convention).rule;
  const RandomKey words{key.seed, key.offset ^ uint64_t{1} << 63};
  std::vector<float> row;
  for (int64_t r = 0; r < q.rows; ++r) {
    read_row(q, x, r, row);
    const GlobalScale global = global_of_row(q, rule, r);
    for (int64_t first = 0; first < q.scale_cols(); first += kGroup) {
      const int64_t last = std::min(q.scale_cols(), first + kGroup);
      double squares = 0, along = 0;
      for (int64_t i = first * q.block; i < last * q.block; ++i) {
        const double v = double(row[size_t(i)]);
        squares += v * v;
        along += v * double(decode_element(rule, uint8_t(q.code(r, i)), q.scale_code(r, i / q.block), global));
      }
      const double ratio = squares / along;
      const float factor = ratio > 0 && std::isfinite(ratio) ? float(ratio) : 1.0f;
      for (int64_t b = first; b < last; ++b) {
        const int64_t at = r * q.scale_cols() + b;
        const float scale = value_f32(q.scale, q.scales[size_t(at)]) * factor;
        q.scales[size_t(at)] = uint8_t(encode_exact_sr(q.scale, scale, words.bits32(uint64_t(at))));
      }
    }
  }
}

} // namespace nvfp4::models
