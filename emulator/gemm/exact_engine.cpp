// SPDX-License-Identifier: Apache-2.0
// The exact units of 4-bit elements under UE4M3 scales in doubles. An element times its scale is a multiple of 2^-11 below
// 2^12 (7 * 448), so a product of two has at most 46 bits and the sum of 64 of them 52: exact in a double in any order.
// Then one addition to the accumulator and one rounding to FP32, which is to odd before it is to nearest (Boldo and
// Melquiond 2008), so that there are not two. Internal.
#include "nvfp4/emulator/cpu/multiversion.hpp"
#include "nvfp4/emulator/gemm/engine.hpp"

#include <algorithm>
#include <array>

namespace nvfp4::gemm {
namespace {

constexpr int kTileRows = 4, kTileCols = 16, kStep = 64;

/// The double nearest to c + s, or of two as near the one with an odd last bit; so is any that is not c + s itself.
NVFP4_INLINE double add_to_odd(double c, double s) {
  const double sum = c + s, part = sum - s;
  const double error = (s - (sum - part)) + (c - part); // exact (Knuth's TwoSum)
  const auto bits = __builtin_bit_cast(int64_t, sum);
  const bool up = (error > 0.0) == (sum > 0.0); // away from zero
  const bool move = error != 0.0 && (bits & 1) == 0;
  return __builtin_bit_cast(double, bits + (move ? (up ? 1 : -1) : 0));
}

/// c (rows, 16) from a, `rows` of steps * 64 doubles, and b (steps * 64, 16), from +0.
NVFP4_MULTIVERSION void multiply_tile(const double *a, int64_t stride, const double *b, int64_t steps, float *c) {
  float acc[kTileRows][kTileCols] = {};
  for (int64_t s = 0; s < steps; ++s) {
    double sum[kTileRows][kTileCols] = {};
    for (int64_t k = s * kStep; k < (s + 1) * kStep; ++k) {
      const double *const from = b + k * kTileCols;
      for (int r = 0; r < kTileRows; ++r) {
        const double x = a[r * stride + k];
#pragma omp simd
        for (int j = 0; j < kTileCols; ++j) sum[r][j] += x * from[j];
      }
    }
    for (int r = 0; r < kTileRows; ++r) {
#pragma omp simd
      for (int j = 0; j < kTileCols; ++j) acc[r][j] = float(add_to_odd(double(acc[r][j]), sum[r][j]));
    }
  }
  for (int r = 0; r < kTileRows; ++r)
    for (int j = 0; j < kTileCols; ++j) c[r * kTileCols + j] = acc[r][j];
}

/// Values of the 16 codes of an element format and of the 256 of the scales.
struct Tables {
  std::array<double, 16> element;
  std::array<double, 256> scale;

  Tables(FormatId of_element, FormatId of_scale) {
    for (size_t i = 0; i < element.size(); ++i) element[i] = double(value_f32(of_element, i));
    for (size_t i = 0; i < scale.size(); ++i) scale[i] = double(value_f32(of_scale, i));
  }
};

struct Kernels {
  Tables a, b;
};

struct ExactWorker {
  const Job &job;
  const Kernels &kernels;
  const Sink &sink;
  Buffer<double> a_rows, b_columns;

  ExactWorker(const Job &j, const Kernels &k, const Sink &s) : job(j), kernels(k), sink(s) {}

  /// to[k * step] = element k of a row times its scale.
  void unpack(const GemmOperand &from, const Tables &tables, int64_t row, double *to, int64_t step) const {
    const uint8_t *const codes = from.codes.data() + row * from.row_bytes(), *const scales = from.row_scales(row);
    for (int64_t k = 0; k < from.padded_k; k += 16) {
      const double scale = tables.scale[scales[k / 16]];
      for (int64_t i = k; i < k + 16; i += 2) {
        const uint8_t pair = codes[i / 2];
        to[i * step] = tables.element[pair & 15] * scale;
        to[(i + 1) * step] = tables.element[pair >> 4] * scale;
      }
    }
  }

  void run(const Task &t) {
    const int64_t k = job.a->padded_k, steps = k / kStep;
    double *const b = b_columns.reserve(size_t(k) * kTileCols), *const a = a_rows.reserve(size_t(kTileRows) * size_t(k));
    for (int64_t j = t.col; j < t.col + t.cols; j += kTileCols) {
      const int64_t cols = std::min<int64_t>(kTileCols, t.col + t.cols - j);
      std::fill_n(b, k * kTileCols, 0.0);
      for (int64_t c = 0; c < cols; ++c) unpack(*job.b, kernels.b, j + c, b + c, kTileCols);
      for (int64_t i = t.row; i < t.row + t.rows; i += kTileRows) {
        const int64_t rows = std::min<int64_t>(kTileRows, t.row + t.rows - i);
        std::fill_n(a, kTileRows * k, 0.0);
        for (int64_t r = 0; r < rows; ++r) unpack(*job.a, kernels.a, i + r, a + r * k, 1);
        alignas(64) float out[kTileRows * kTileCols];
        multiply_tile(a, k, b, steps, out);
        for (int64_t r = 0; r < rows; ++r)
          for (int64_t c = 0; c < cols; ++c) {
            float &word = out[r * kTileCols + c]; // NaN has words of its own
            if (word != word) word = bit_cast<float>(reference_output(job, i + r, j + c));
          }
        sink.store(sink.context, i, j, rows, cols, reinterpret_cast<const uint32_t *>(out), kTileCols);
      }
    }
  }
};

} // namespace

bool run_exact(const Job &job, Sink sink) {
  const UnitRule &rule = *job.rule;
  const auto covered = [](FormatId element) {
    return element == FormatId::e2m1 || element == FormatId::e1m2 || element == FormatId::int4;
  };
  if (rule.family != Family::exact_sum || rule.output != Output::rne_f32 || rule.k != kStep || rule.scale != FormatId::ue4m3 ||
      rule.scale_block != 16 || !covered(rule.a) || !covered(rule.b) || job.start.data != nullptr || job.a->padded_k == 0)
    return false;
  const Kernels kernels{{rule.a, rule.scale}, {rule.b, rule.scale}};
  run_tasks<ExactWorker>(job, kernels, sink, cut(job, 512, kTileCols * 4, kTileRows));
  return true;
}

} // namespace nvfp4::gemm
