// SPDX-License-Identifier: Apache-2.0
// One pass over input and codes.
#include "nvfp4/emulator/quantize/statistics.hpp"
#include "nvfp4/emulator/cpu/loop_progress.hpp"
#include "nvfp4/emulator/quantize/dequantize.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <omp.h>

namespace nvfp4 {
namespace {

/// Row r of the operand as it was quantized: along its axis, rotated where the tensor is.
void read_row(MatrixView<const float> x, const BlockScaled &q, int64_t r, std::vector<float> &out,
              QuantizeStatistics &s) {
  out.resize(size_t(q.k));
  for (int64_t i = 0; i < q.k; ++i) {
    const float v = q.axis == Axis::col ? x(i, r) : x(r, i);
    s.nan += std::isnan(v);
    s.infinity += std::isinf(v);
    out[size_t(i)] = v;
  }
  for (int64_t i = 0; q.hadamard && i < q.k; i += kHadamardSize) {
    float group[kHadamardSize];
    std::copy_n(out.data() + i, kHadamardSize, group);
    rotate16(group, q.sign_mask);
    std::copy_n(group, kHadamardSize, out.data() + i);
  }
}

/// The values of all codes of an element, plain and flagged.
struct ElementValues {
  std::vector<float> of[2];

  explicit ElementValues(const Format &element) {
    for (int flagged = 0; flagged <= (element.has_other() ? 1 : 0); ++flagged)
      for (uint64_t code = 0; code < uint64_t{1} << element.storage_bits; ++code)
        of[flagged].push_back(element_value(element.id, code, flagged != 0));
  }
};

/// The rows that share scales, from `first` on.
QuantizeStatistics block_row(MatrixView<const float> x, const BlockScaled &q, const Rule &rule, const ElementValues &values,
                             int64_t first) {
  const int64_t last = std::min(q.rows, first + q.block_rows);
  const Format element = format(q.element), scale = format(q.scale), other = format(element.flagged());
  QuantizeStatistics s;
  std::vector<float> row;
  std::vector<uint8_t> some(size_t(q.blocks())); // blocks with a number that is not 0, or not a number
  for (int64_t r = first; r < last; ++r) {
    read_row(x, q, r, row, s);
    const GlobalScale global = global_of_row(q, rule, r);
    const CodeView codes = q.row(r);
    int64_t block = -1;
    int place = q.block;
    uint32_t word = 0;
    bool flagged = false;
    float block_scale = 0.0f;
    for (int64_t i = 0; i < q.k; ++i, ++place) {
      if (place == q.block) {
        ++block;
        place = 0;
        word = q.scale_code(r, block);
        flagged = is_flagged(scale, word);
        block_scale = scale_value(q.scale, word, 0);
      } else if (scale.extra == ScaleExtra::exponents) {
        block_scale = scale_value(q.scale, word, place);
      }
      const float v = row[size_t(i)];
      const uint64_t code = codes[i];
      const float y = decode_values(rule, values.of[flagged && element.has_other() ? 1 : 0][size_t(code)], block_scale, global);
      const Format &own = flagged ? other : element;
      ++s.elements;
      if (v != 0.0f) some[size_t(block)] = 1;
      s.flushed += v != 0.0f && std::isfinite(v) && y == 0.0f;
      s.saturated += std::isfinite(v) && uint64_t(code) == with_sign(own, std::signbit(y), own.max_finite_magnitude()) && y != 0.0f &&
                     std::fabs(v) > std::fabs(y);
      if (!std::isfinite(v) || !std::isfinite(y)) {
        ++s.left_out;
        continue;
      }
      const double error = double(v) - double(y);
      s.signal += double(v) * double(v);
      s.noise += error * error;
    }
  }
  for (int64_t b = 0; b < q.blocks(); ++b) {
    const uint32_t code = q.scale_code(first, b);
    const Decoded d = decode(scale, code);
    ++s.blocks;
    s.zero_blocks += some[size_t(b)] == 0;
    s.scale_nan += d.cls == Class::nan;
    s.scale_underflow += d.cls == Class::zero && some[size_t(b)] != 0;
    s.scale_saturated +=
        d.cls == Class::finite && (code & scale.magnitude_mask()) == scale.max_finite_magnitude();
  }
  return s;
}

} // namespace

void QuantizeStatistics::merge(const QuantizeStatistics &o) {
  elements += o.elements;
  nan += o.nan;
  infinity += o.infinity;
  blocks += o.blocks;
  zero_blocks += o.zero_blocks;
  scale_underflow += o.scale_underflow;
  scale_saturated += o.scale_saturated;
  scale_nan += o.scale_nan;
  saturated += o.saturated;
  flushed += o.flushed;
  signal += o.signal;
  noise += o.noise;
  left_out += o.left_out;
}

double QuantizeStatistics::snr_db() const {
  if (noise == 0.0)
    return signal == 0.0 ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
  return 10.0 * std::log10(signal / noise);
}

std::vector<QuantizeStatistics> quantize_statistics(MatrixView<const float> x, const BlockScaled &q,
                                                    int threads,
                                                    const std::function<void(double)> &progress) {
  const bool transposed = q.axis == Axis::col;
  if ((transposed ? x.cols : x.rows) != q.rows || (transposed ? x.rows : x.cols) != q.k)
    throw Error("quantize_statistics: the tensor is [" + std::to_string(x.rows) + ", " +
                std::to_string(x.cols) + "], its quantized copy has " + std::to_string(q.rows) + " rows of " +
                std::to_string(q.k));
  const Rule &rule = find_convention(q.convention).rule;
  if (has_row_factors(rule) && int64_t(q.row_amax.size()) != q.rows)
    throw Error("quantize_statistics: the quantized copy lacks the amax of its rows");
  threads = threads > 0 ? threads : omp_get_max_threads();
  const ElementValues values(format(q.element));
  LoopProgress loop(&progress, (q.rows + q.block_rows - 1) / q.block_rows);
  std::vector<QuantizeStatistics> rows(size_t((q.rows + q.block_rows - 1) / q.block_rows));
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t r = 0; r < int64_t(rows.size()); ++r) {
    if (loop.stopped()) continue;
    rows[size_t(r)] = block_row(x, q, rule, values, r * q.block_rows);
    loop.finished(omp_get_thread_num());
  }
  loop.finish();
  return rows;
}

QuantizeStatistics total(std::span<const QuantizeStatistics> rows) {
  QuantizeStatistics all;
  for (const QuantizeStatistics &row : rows) all.merge(row);
  return all;
}

} // namespace nvfp4
