// SPDX-License-Identifier: Apache-2.0
// The FP4 engine: packs cache blocks and chooses for every tile the cheapest kernel whose conditions hold,
// the definition where none does. The conditions are stated here and proven in README.md.
#include "nvfp4/emulator/gemm/engine.hpp"
#include "nvfp4/emulator/gemm/fp4_kernels.hpp"
#include "nvfp4/emulator/tensorcore/gst_fdpa.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <omp.h>

namespace nvfp4::gemm {
namespace {

/// Nothing is cut by alignment while the exponents of all groups of an output, the accumulators' included,
/// span at most 27: 35 fraction bits less the 8 fraction bits of a scaled group.
constexpr int kSpan = 27;
/// nadpe aligns by up to 2 + 2 more: the exponents of the largest product.
constexpr int kProductExponent = 4;
/// The exact model cuts nothing; FP64 then has to hold 21 bits and the span.
constexpr int kExactSpan = 30;
/// Beyond these, FP32 could meet its ends: 2^(min - 8) is a whole number of 2^-149, and no sum reaches 2^127.
constexpr int kLowest = -118, kHighest = 80;
constexpr int64_t kMaxSteps = int64_t{1} << 24;

/// |sum of a step| < 2^(13 + largest exponent): 4 * 2304 * 15^2 * 2^-8 < 2^13.
constexpr int kStepBits = 13;

/// 2^e as FP32, for normal results.
float power(int e) { return bit_cast<float>(uint32_t(e + 127) << 23); }

using ScaleTable = std::array<float, 256>;

/// Scales by code: value times `factor`, 0 for NaN.
ScaleTable scale_table(FormatId id, float factor) {
  ScaleTable t{};
  for (int c = 0; c < 256; ++c) {
    const float x = value_f32(id, uint64_t(c));
    t[size_t(c)] = x == x ? x * factor : 0.0f;
  }
  return t;
}

/// The tables of A and B for a scale format of 8 bits.
const std::array<ScaleTable, 2> &scale_tables(FormatId id) {
  static const std::vector<std::array<ScaleTable, 2>> tables = [] {
    std::vector<std::array<ScaleTable, 2>> all(kFormatCount);
    for (int i = 0; i < kFormatCount; ++i)
      if (format(FormatId(i)).storage_bits == 8) all[size_t(i)] = {scale_table(FormatId(i), 0.25f), scale_table(FormatId(i), 1.0f)};
    return all;
  }();
  return tables[size_t(id)];
}

/// The conditions of one output, apart from the accumulator's size.
struct Conditions {
  int span;

  explicit Conditions(Accumulation a)
      : span(a == Accumulation::exact   ? kExactSpan
             : a == Accumulation::nadpe ? kSpan - kProductExponent
                                        : kSpan) {}
  /// Whether FP32 and FP64 hold every intermediate value.
  [[nodiscard]] static bool in_range(const RowRange &x, const RowRange &y) {
    return x.empty() || y.empty() ||
           (x.min > kLowest && y.min > kLowest && x.min + y.min >= kLowest && x.max + y.max <= kHighest);
  }
  /// Whether no group meets a largest exponent, other than the accumulator's, that cuts it or the
  /// accumulator.
  [[nodiscard]] bool uncut(const RowRange &x, const RowRange &y) const {
    return x.empty() || y.empty() || x.max + y.max - x.min - y.min <= span;
  }
};

struct Block {
  const Job &job;
  const Fp4Kernels &kernels;
  Sink sink;
  Conditions conditions;
  int block; ///< codes per scale
  int64_t blocks, steps;
  const ScaleTable &scales_a, &scales_b;
  std::vector<uint8_t> a_panel, tame;
  Buffer<uint8_t> b_tiles;
  std::vector<float> acc, peak, cut_acc; // (mr, nr)
  int direct = 0;                        ///< tiles to take in FP64 without trying FP32
  int penalty = 1;

  Block(const Job &j, const Fp4Kernels &k, Sink s)
      : job(j), kernels(k), sink(s), conditions(j.accumulation), block(j.rule->scale_block),
        blocks(j.a->padded_k / block), steps(j.a->padded_k / 64), scales_a(scale_tables(j.rule->scale)[0]),
        scales_b(scale_tables(j.rule->scale)[1]), a_panel(size_t(blocks) * k.a_bytes(block)),
        acc(size_t(k.mr * k.nr)), peak(acc.size()), cut_acc(acc.size()) {}

  void pack(Fp4Kernels::Pack function, uint8_t *panel, int index, const GemmOperand &from, int64_t row,
            const float *table) {
    const uint8_t *scales = from.row_scales(row);
    if (from.ranges[size_t(row)].idle_scales) scales = without_idle(from, row);
    function(panel, index, from.row(row).data, scales, blocks, block, table);
  }

  /// The scales of a row, code 0 in place of those over blocks of zeros: two large ones would multiply to Inf,
  /// and Inf * 0 is NaN.
  const uint8_t *without_idle(const GemmOperand &from, int64_t row) {
    tame.assign(from.row_scales(row), from.row_scales(row) + blocks);
    const uint8_t *codes = from.row(row).data;
    for (int64_t s = 0; s < blocks; ++s, codes += block / 2)
      if (std::all_of(codes, codes + block / 2, [](uint8_t two) { return (two & 0x77) == 0; })) tame[size_t(s)] = 0;
    return tame.data();
  }

  /// FP32 first, FP64 when something was inexact; after failures FP64 at once for a while. Both give the same
  /// bits.
  void compute(const uint8_t *b) {
    if (direct > 0) {
      --direct;
    } else {
      if (kernels.narrow(a_panel.data(), b, steps, block, acc.data(), peak.data())) {
        penalty = 1;
        return;
      }
      direct = penalty;
      penalty = std::min(2 * penalty, 64);
    }
    kernels.wide(a_panel.data(), b, steps, block, acc.data(), peak.data());
  }

  void compute_aligned(const uint8_t *b, float *out) const {
    const int min_exponent = format(job.rule->scale).min_exponent();
    kernels.aligned(a_panel.data(), b, steps, block, min_exponent, out);
  }

  /// Whether the accumulator stays below the size at which it cuts the smallest group.
  [[nodiscard]] bool small(const RowRange &x, const RowRange &y) const {
    if (x.empty() || y.empty() || job.accumulation == Accumulation::exact) return true;
    const int growth = steps <= 1 ? 0 : 64 - std::countl_zero(uint64_t(steps - 1));
    return kStepBits + growth + x.max + y.max <= kSpan + 1 + x.min + y.min;
  }

  /// One tile: the fast kernels where their conditions hold, the aligned one where alignment may cut, the
  /// definition at the ends of FP32 and, for the models that `aligned` does not have, wherever a condition
  /// fails.
  void tile(const uint8_t *b, const RowRange &x, const RowRange &y, int64_t i, int64_t j, int64_t rows,
            int64_t cols) {
    const bool nan = x.scale_nan || y.scale_nan, range = Conditions::in_range(x, y);
    if (range && !conditions.uncut(x, y) && job.accumulation == Accumulation::mmasim) {
      compute_aligned(b, acc.data());
      if (nan) repair(b, i, j, rows, cols, true);
      return;
    }
    compute(b);
    if (nan || !range || !conditions.uncut(x, y) || !small(x, y)) repair(b, i, j, rows, cols, false);
  }

  /// Replaces the outputs of a tile that its kernel cannot vouch for.
  void repair(const uint8_t *b, int64_t i, int64_t j, int64_t rows, int64_t cols, bool only_nan) {
    bool have_aligned = false;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) {
        const RowRange &x = job.a->ranges[size_t(i + r)], &y = job.b->ranges[size_t(j + c)];
        const size_t o = size_t(r * kernels.nr + c);
        if (x.scale_nan || y.scale_nan) {
          acc[o] = bit_cast<float>(uint32_t(accumulator_nan(Output::rz_f32)));
          continue;
        }
        if (only_nan || x.empty() || y.empty()) continue;
        const bool range = Conditions::in_range(x, y);
        // a group is cut when the accumulator's exponent exceeds its own by more than 27
        if (range && conditions.uncut(x, y) &&
            (job.accumulation == Accumulation::exact || peak[o] < power(kSpan + 1 + x.min + y.min)))
          continue;
        if (!range || job.accumulation != Accumulation::mmasim) {
          acc[o] = bit_cast<float>(reference_output(job, i + r, j + c));
          continue;
        }
        if (!have_aligned) compute_aligned(b, cut_acc.data());
        have_aligned = true;
        acc[o] = cut_acc[o];
      }
  }

  void run(const Task &t) {
    const int mr = kernels.mr, nr = kernels.nr;
    const int64_t tiles = (t.cols + nr - 1) / nr;
    const size_t tile_bytes = size_t(blocks) * kernels.b_bytes(block);
    uint8_t *const packed = b_tiles.reserve(size_t(tiles) * tile_bytes);
    if (t.cols % nr != 0) std::fill_n(packed + size_t(tiles - 1) * tile_bytes, tile_bytes, uint8_t{0});
    std::vector<RowRange> y(static_cast<size_t>(tiles));
    for (int64_t c = 0; c < t.cols; ++c) {
      pack(kernels.pack_b, packed + size_t(c / nr) * tile_bytes, int(c % nr), *job.b, t.col + c,
           scales_b.data());
      merge(y[size_t(c / nr)], job.b->ranges[size_t(t.col + c)]);
    }
    for (int64_t i = t.row; i < t.row + t.rows; i += mr) {
      const int64_t rows = std::min<int64_t>(mr, t.row + t.rows - i);
      if (rows < mr) std::fill(a_panel.begin(), a_panel.end(), uint8_t{0});
      RowRange x;
      for (int64_t r = 0; r < rows; ++r) {
        pack(kernels.pack_a, a_panel.data(), int(r), *job.a, i + r, scales_a.data());
        merge(x, job.a->ranges[size_t(i + r)]);
      }
      for (int64_t t_index = 0; t_index < tiles; ++t_index) {
        const int64_t j = t.col + t_index * nr, cols = std::min<int64_t>(nr, t.col + t.cols - j);
        tile(packed + size_t(t_index) * tile_bytes, x, y[size_t(t_index)], i, j, rows, cols);
        sink.store(sink.context, i, j, rows, cols, reinterpret_cast<const uint32_t *>(acc.data()), nr);
      }
    }
  }

  static void merge(RowRange &into, const RowRange &r) {
    into.min = std::min(into.min, r.min);
    into.max = std::max(into.max, r.max);
    into.scale_nan = into.scale_nan || r.scale_nan;
  }
};

} // namespace

const Fp4Kernels *fp4_kernels(Isa isa) {
  switch (isa) {
  case Isa::avx512: return fp4_avx512();
  case Isa::avx2: return fp4_avx2();
  case Isa::neon: return fp4_neon();
  case Isa::neon_dot: return fp4_neon_dot();
  case Isa::scalar: break;
  }
  return nullptr;
}

bool run_fp4(const Job &job, Isa isa, Sink sink) {
  const UnitRule &rule = *job.rule;
  const Fp4Kernels *kernels = fp4_kernels(isa);
  if (kernels == nullptr || job.start.data != nullptr || rule.family != Family::gst_fdpa ||
      rule.output != Output::rz_f32 || rule.k != 64 || rule.fraction_bits != kSpan + 8 ||
      rule.floor > kLowest || (rule.scale_block != 16 && rule.scale_block != 32))
    return false;
  const int64_t steps = job.a->padded_k / rule.k;
  if (steps == 0 || steps > kMaxSteps) return false;

  // A block of packed B per thread: large enough to spread the cost of packing A, small against the operands.
  const int64_t column_bytes = job.a->padded_k / rule.scale_block * (rule.scale_block + 4);
  const int64_t operands = (job.rows + job.cols) * (job.a->padded_k / 2 + job.a->padded_k / rule.scale_block);
  const int64_t budget = std::clamp<int64_t>(operands / (12 * job.threads), 1 << 15, 1 << 18);
  const int64_t cols =
      std::clamp<int64_t>(budget / column_bytes / kernels->nr * kernels->nr, 2 * kernels->nr, 256);
  const std::vector<Task> tasks = cut(job, 2048, cols, kernels->mr);
  run_tasks<Block>(job, *kernels, sink, tasks);
  return true;
}

} // namespace nvfp4::gemm
