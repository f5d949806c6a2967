// SPDX-License-Identifier: Apache-2.0
// The FDPA engine: packs cache blocks along K, runs the kernels over tiles, and sends outputs with NaN, Inf
// or exponents near the ends of FP32 to the definition. The conditions are stated here and proven in
// README.md.
#include "nvfp4/emulator/cpu/float_state.hpp"
#include "nvfp4/emulator/cpu/prefetch.hpp"
#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/gemm/element_reader.hpp"
#include "nvfp4/emulator/gemm/engine.hpp"
#include "nvfp4/emulator/gemm/fdpa_conditions.hpp"
#include "nvfp4/emulator/gemm/fdpa_panel.hpp"
#include "nvfp4/emulator/gemm/fdpa_specials.hpp"

#include <algorithm>
#include <omp.h>

namespace nvfp4::gemm {
namespace {

constexpr int64_t kChunk = 256; ///< K of one packed block
constexpr int64_t kRows = 1024, kCols = 256;
constexpr int64_t kMaxK = int64_t{1} << 28;

struct Block {
  const Job &job;
  const FdpaKernels &kernels;
  Sink sink;
  FdpaStep step;
  bool scaled;
  std::vector<float> values;
  std::vector<int16_t> exponents;
  std::vector<int32_t> scales; // one a step
  FdpaPacker rows_of_a;
  std::vector<FdpaPacker> columns_of_b;
  FdpaSpecials special_a, special_b; // of a task's rows and columns
  Buffer<float> acc;                 // (row panels, tiles, mr, nr)

  Block(const Job &j, const FdpaKernels &k, Sink s)
      : job(j), kernels(k),
        sink(s), step{j.rule->link, j.rule->fraction_bits, j.rule->output == Output::rz_e8m13},
        scaled(j.rule->family == Family::st_fdpa), values(size_t(kChunk)), exponents(size_t(kChunk)),
        scales(scaled ? size_t(kChunk / step.link) : 0) {}

  /// Elements that will be read soon.
  static void ask_for(const GemmOperand &p, int64_t row, int64_t k, int64_t n) {
    if (row >= p.rows) return;
    const CodeView codes = p.row(row);
    nvfp4::ask_for(codes.data + k * codes.bits / 8, n * codes.bits / 8);
  }

  /// Elements [k, k + n) of a row, decoded.
  FdpaLine read(const GemmOperand &p, int64_t row, int64_t k, int64_t n) {
    read_elements(p.format, p.row(row), k, n, values.data(), exponents.data());
    for (int64_t i = 0; scaled && i < n; i += step.link)
      scales[size_t(i / step.link)] = scale_exponent(p, row, k + i);
    return {values.data(), exponents.data(), scaled ? scales.data() : nullptr, n, p.ranges[size_t(row)].max};
  }

  /// The scale exponent of one step, 0 for NaN: such outputs are replaced.
  [[nodiscard]] int32_t scale_exponent(const GemmOperand &p, int64_t row, int64_t k) const {
    const Decoded d = decode(format(job.rule->scale), p.row_scales(row)[k / job.rule->scale_block]);
    return d.cls == Class::nan ? 0 : d.exponent;
  }

  /// Whether the kernels give the bits of output (i, j).
  [[nodiscard]] bool sure(int64_t i, int64_t j) const {
    return vouched(job.a->ranges[size_t(i)], job.b->ranges[size_t(j)]) &&
           start_vouched(uint32_t(job.start_word(i, j)));
  }

  /// Outputs that the kernels cannot vouch for.
  void repair(float *tile, int64_t i, int64_t j, int64_t rows, int64_t cols) const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c)
        if (!sure(i + r, j + c)) {
          const std::optional<uint32_t> special = special_output(job, special_a, i + r, special_b, j + c);
          tile[r * kernels.nr + c] =
              bit_cast<float>(special ? *special : reference_output(job, i + r, j + c));
        }
  }

  void run(const Task &t) {
    const int mr = kernels.mr, nr = kernels.nr;
    const int64_t panels = (t.rows + mr - 1) / mr, tiles = (t.cols + nr - 1) / nr, padded_k = job.a->padded_k;
    const size_t tile_size = size_t(mr * nr);
    acc.reserve(size_t(panels * tiles) * tile_size);
    columns_of_b.resize(std::max(columns_of_b.size(), size_t(tiles)));
    for (int64_t k = 0; k < padded_k; k += kChunk) {
      const int64_t n = std::min(kChunk, padded_k - k), steps = n / step.link;
      for (int64_t tile = 0; tile < tiles; ++tile)
        columns_of_b[size_t(tile)].shape_columns(kernels, step, steps);
      for (int64_t c = 0; c < t.cols; ++c) {
        ask_for(*job.b, t.col + c + 4, k, n);
        columns_of_b[size_t(c / nr)].pack(int(c % nr), read(*job.b, t.col + c, k, n));
      }
      rows_of_a.shape_rows(kernels, step, steps);
      for (int64_t p = 0; p < panels; ++p) {
        const int64_t rows = std::min<int64_t>(mr, t.rows - p * mr);
        for (int64_t r = 0; r < rows; ++r) rows_of_a.pack(int(r), read(*job.a, t.row + p * mr + r, k, n));
        for (int64_t tile = 0; tile < tiles; ++tile) {
          float *const state = acc.data() + size_t(p * tiles + tile) * tile_size;
          if (k == 0) read_start(t, p, tile, state);
          for (int64_t r = tile * mr / tiles; r < (tile + 1) * mr / tiles; ++r)
            ask_for(*job.a, t.row + (p + 1) * mr + r, k, n);
          kernels.tile(rows_of_a.panel(), columns_of_b[size_t(tile)].panel(), steps, step,
                       int(std::min<int64_t>(nr, t.cols - tile * nr)), state, state);
        }
      }
    }
    special_a.find(*job.rule, *job.a, t.row, t.rows);
    special_b.find(*job.rule, *job.b, t.col, t.cols);
    for (int64_t p = 0; p < panels; ++p)
      for (int64_t tile = 0; tile < tiles; ++tile)
        finish(t, p, tile, acc.data() + size_t(p * tiles + tile) * tile_size);
  }

  /// The accumulators that a tile's chains continue.
  void read_start(const Task &t, int64_t panel, int64_t tile, float *to) const {
    std::fill(to, to + kernels.mr * kernels.nr, 0.0f);
    if (job.start.data == nullptr) return;
    const int64_t i = panel * kernels.mr, rows = std::min<int64_t>(kernels.mr, t.rows - i);
    const int64_t j = tile * kernels.nr, cols = std::min<int64_t>(kernels.nr, t.cols - j);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c)
        to[r * kernels.nr + c] = bit_cast<float>(uint32_t(job.start_word(t.row + i + r, t.col + j + c)));
  }

  /// Whether all starts of a tile are such that the kernels may continue from them.
  [[nodiscard]] bool starts_vouched(int64_t i, int64_t j, int64_t rows, int64_t cols) const {
    if (job.start.data == nullptr) return true;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c)
        if (!start_vouched(uint32_t(job.start_word(i + r, j + c)))) return false;
    return true;
  }

  void finish(const Task &t, int64_t panel, int64_t tile, float *state) const {
    const int64_t i = t.row + panel * kernels.mr, rows = std::min<int64_t>(kernels.mr, t.row + t.rows - i);
    const int64_t j = t.col + tile * kernels.nr, cols = std::min<int64_t>(kernels.nr, t.col + t.cols - j);
    RowRange x, y;
    for (int64_t r = 0; r < rows; ++r) merge(x, job.a->ranges[size_t(i + r)]);
    for (int64_t c = 0; c < cols; ++c) merge(y, job.b->ranges[size_t(j + c)]);
    if (!vouched(x, y) || !starts_vouched(i, j, rows, cols)) repair(state, i, j, rows, cols);
    sink.store(sink.context, i, j, rows, cols, reinterpret_cast<const uint32_t *>(state), kernels.nr);
  }
};

/// The units that the kernels compute.
bool covered(const UnitRule &rule) {
  const bool output =
      rule.acc == FormatId::f32 && (rule.output == Output::rz_f32 || rule.output == Output::rz_e8m13);
  const bool link = rule.link == 4 || rule.link == 8 || rule.link == 16 || rule.link == 32;
  const bool scales = rule.family == Family::st_fdpa
                          ? rule.scale_block == 32 && rule.link == 32 && rule.scale == FormatId::ue8m0
                          : rule.family == Family::fdpa && rule.scale_block == 0;
  return output && link && scales && rule.fraction_bits <= 25 && rule.floor <= kAlignmentFloor &&
         kChunk % rule.k == 0;
}

/// Whether the CPU has VPOPCNTDQ.
bool counts_bits() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx512vpopcntdq") != 0;
#else
  return false;
#endif
}

} // namespace

const FdpaKernels *fdpa_kernels(Isa isa) {
  switch (isa) {
  case Isa::avx512:
    if (const FdpaKernels *const k = fdpa_avx512_popcount(); k != nullptr && counts_bits()) return k;
    return fdpa_avx512();
  case Isa::avx2: return fdpa_avx2();
  case Isa::neon:
  case Isa::neon_dot: return fdpa_neon();
  case Isa::scalar: break;
  }
  return nullptr;
}

std::vector<Task> fdpa_tasks(const Job &job, int64_t row_step) {
  std::vector<Task> tasks = cut(job, kRows, kCols, row_step);
  if (int64_t(tasks.size()) < job.threads) tasks = cut(job, kRows, kCols / 2, row_step);
  return tasks;
}

bool run_fdpa(const Job &job, Isa isa, Sink sink) {
  const FdpaKernels *kernels = fdpa_kernels(isa);
  if (kernels == nullptr || !covered(*job.rule) || job.a->padded_k == 0 || job.a->padded_k > kMaxK)
    return false;
  run_tasks<Block>(job, *kernels, sink, fdpa_tasks(job, kernels->mr));
  return true;
}

} // namespace nvfp4::gemm
