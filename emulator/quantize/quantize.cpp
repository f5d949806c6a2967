// SPDX-License-Identifier: Apache-2.0
// The loops around block_rule.hpp: orientation, rotation, maxima, blocks and tiles, threads. The vector path
// of engine.hpp takes over where it covers the convention.
#include "nvfp4/emulator/quantize/quantize.hpp"

#include "nvfp4/emulator/cpu/loop_progress.hpp"
#include "nvfp4/emulator/quantize/engine.hpp"
#include "nvfp4/emulator/quantize/strip.hpp"

#include <algorithm>
#include <omp.h>

namespace nvfp4 {
namespace {

using quant::kTile;

void refuse(const Convention &c, const std::string &what) {
  throw Error("convention '" + std::string(c.name) + "' cannot be quantized with " + what);
}

void check_options(MatrixView<const float> x, const Convention &c, const QuantizeOptions &o) {
  const Rule &r = c.rule;
  if (x.rows < 0 || x.cols < 0 || x.stride < x.cols || (x.data == nullptr && x.rows * x.cols > 0))
    throw Error("quantize: expected a matrix with stride >= columns, got " + std::to_string(x.rows) + " x " +
                std::to_string(x.cols) + ", stride " + std::to_string(x.stride));
  const int tile = r.block == quant::kMaxRows ? r.block : kTile; // rows of one
  if (o.block_rows != 1 && o.block_rows != tile)
    throw Error("quantize: block_rows is 1 or " + std::to_string(tile) + ", got " + std::to_string(o.block_rows));
  if (o.source != FormatId::f32 && o.source != FormatId::bf16 && o.source != FormatId::f16)
    throw Error("quantize: the source type is f32, bf16 or f16");
  if (o.threads < 0) throw Error("quantize: threads must not be negative");
  const bool stochastic = o.rounding != ElementRounding::nearest;
  if (stochastic && r.four_over_six != FourOverSix::off)
    refuse(c, "stochastic rounding: the choice between two candidates would be made on random errors");
  if (stochastic && !c.can.stochastic) refuse(c, "stochastic rounding: the implementation has none");
  if (is_of_e2m1(o.rounding) && r.element != FormatId::e2m1)
    refuse(c, (o.rounding == ElementRounding::sr_te ? "sr_te" : "sr_mid8") +
                  std::string(", which rounds to E2M1 only; use sr_carry8 or sr_exact"));
  if (o.hadamard && !c.can.hadamard) refuse(c, "a Hadamard rotation: the implementation excludes it");
  if (o.block_rows != 1 && !c.can.tiles)
    refuse(c, r.per_row ? "16x16 tiles: a tile has no row scale of its own"
                        : "16x16 tiles: its blocks are 1x" + std::to_string(r.block));
  if (o.block_rows != 1 && o.hadamard)
    refuse(c, "16x16 tiles and a Hadamard rotation: tiles serve both axes, a rotation one");
  const int64_t k = o.axis == Axis::row ? x.cols : x.rows;
  if (o.hadamard && k % kHadamardSize != 0)
    throw Error("quantize: a Hadamard rotation needs a multiple of 16 along k, got " + std::to_string(k));
  if (o.global_amax && o.global_scale) throw Error("quantize: give global_amax or global_scale, not both");
  if (o.global_amax && !has_tensor_level(r))
    refuse(c, "a given global_amax: it has no scale per tensor");
  if (o.global_scale && (r.per_row || !(takes_encode(r) || stores_decode(r))))
    refuse(c, "a given global_scale: it stores none; give global_amax where it has one");
}

/// The matrix with rows along k: x itself, its transpose, or either one rotated.
class Operand {
public:
  Operand(MatrixView<const float> x, const QuantizeOptions &o, int threads) : view_(x) {
    const bool transposed = o.axis == Axis::col;
    if (!transposed && !o.hadamard) return;
    const int64_t rows = transposed ? x.cols : x.rows, k = transposed ? x.rows : x.cols;
    copy_.resize(size_t(rows * k));
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t strip = 0; strip < (rows + kTile - 1) / kTile; ++strip) {
      const int64_t first = strip * kTile, last = std::min(rows, first + kTile);
      for (int64_t i = 0; i < k; ++i)
        for (int64_t r = first; r < last; ++r) copy_[size_t(r * k + i)] = transposed ? x(i, r) : x(r, i);
      if (!o.hadamard) continue;
      for (int64_t r = first; r < last; ++r)
        for (int64_t i = 0; i < k; i += kHadamardSize) {
          float group[kHadamardSize];
          float *const at = copy_.data() + r * k + i;
          std::copy_n(at, kHadamardSize, group);
          rotate16(group, o.sign_mask);
          std::copy_n(group, kHadamardSize, at);
        }
    }
    view_ = {copy_.data(), rows, k};
  }
  [[nodiscard]] const MatrixView<const float> &view() const { return view_; }

private:
  std::vector<float> copy_;
  MatrixView<const float> view_;
};

std::vector<Amax> row_maxima(const MatrixView<const float> &x, int threads) {
  std::vector<Amax> maxima(size_t(x.rows));
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t i = 0; i < x.cols; ++i) maxima[size_t(r)].add(x(r, i));
  return maxima;
}

/// By the definition, element by element.
class Scalar {
public:
  Scalar(MatrixView<const float> x, const Rule &rule, const QuantizeOptions &options, int threads)
      : rule_(rule), options_(options), threads_(threads), operand_(x, options, threads),
        maxima_(rule.per_row || !(options.global_amax || options.global_scale)
                    ? row_maxima(operand_.view(), threads)
                    : std::vector<Amax>{}) {}

  [[nodiscard]] Amax maximum() const {
    Amax all;
    for (const Amax &m : maxima_) all.merge(m);
    return all;
  }

  void run(const GlobalScale &global, BlockScaled &out) const {
    std::vector<GlobalScale> per_row;
    if (rule_.per_row)
      for (const Amax &m : maxima_) {
        out.row_amax.push_back(m.value(rule_.amax_nan));
        per_row.push_back(level_from_amax(rule_, out.row_amax.back(), options_.source));
      }
    const MatrixView<const float> &x = operand_.view();
    const int64_t strips = (out.rows + out.block_rows - 1) / out.block_rows;
    LoopProgress progress(&options_.progress, strips);
#pragma omp parallel for schedule(static) num_threads(threads_)
    for (int64_t s = 0; s < strips; ++s) {
      if (progress.stopped()) continue;
      const int64_t first = s * out.block_rows;
      const int rows = int(std::min<int64_t>(out.block_rows, out.rows - first));
      const quant::Strip strip{rule_, options_, rule_.per_row ? per_row[size_t(first)] : global,
                               out,   first,    rows};
      for (int64_t b = 0; b < out.blocks(); ++b) {
        const float *at[quant::kMaxRows];
        for (int r = 0; r < rows; ++r) at[r] = x.row(first + r) + b * rule_.block;
        strip.quantize_block(b, at);
      }
      progress.finished(omp_get_thread_num());
    }
    progress.finish();
  }

private:
  const Rule &rule_;
  const QuantizeOptions &options_;
  int threads_;
  Operand operand_;
  std::vector<Amax> maxima_;
};

/// The second level and then the blocks, on either path.
template <class Path>
void fill(const Path &path, const Rule &rule, const QuantizeOptions &options, BlockScaled &out) {
  GlobalScale global;
  if (!rule.per_row) {
    global = options.global_scale ? global_from_word(rule, *options.global_scale)
             : options.global_amax
                 ? level_from_amax(rule, *options.global_amax, options.source)
                 : level_from_amax(rule, path.maximum().value(rule.amax_nan), options.source);
    out.global_amax = global.amax;
    out.global_encode = global.encode;
    out.global_decode = global.decode;
  }
  path.run(global, out);
}

} // namespace

void quantize_into(BlockScaled &out, MatrixView<const float> x, const Convention &convention,
                   const QuantizeOptions &options) {
  check_options(x, convention, options);
  const Rule &rule = convention.rule;
  const int threads = options.threads > 0 ? options.threads : omp_get_max_threads();
  const bool transposed = options.axis == Axis::col;
  const int64_t k = transposed ? x.rows : x.cols;
  out = {.convention = std::string(convention.name),
         .element = rule.element,
         .scale = rule.scale,
         .block = rule.block,
         .block_rows = options.block_rows,
         .rows = transposed ? x.cols : x.rows,
         .k = k,
         .padded_k = (k + rule.block - 1) / rule.block * rule.block,
         .axis = options.axis,
         .source = options.source,
         .codes = std::move(out.codes),
         .scales = std::move(out.scales),
         .hadamard = options.hadamard,
         .sign_mask = options.hadamard ? options.sign_mask : uint16_t{0}};
  out.codes.resize(size_t(out.rows * out.row_bytes()));
  out.scales.resize(size_t(out.rows * out.scale_cols()));

  const quant::Engine engine(x, rule, options, threads);
  if (engine.covers())
    fill(engine, rule, options, out);
  else
    fill(Scalar(x, rule, options, threads), rule, options, out);

  if (options.layout == ScaleLayout::tiled_128x4) {
    out.scales = tile_scales(out.scales, out.rows, out.scale_cols());
    out.layout = options.layout;
  }
}

BlockScaled quantize(MatrixView<const float> x, const Convention &convention,
                     const QuantizeOptions &options) {
  BlockScaled out;
  quantize_into(out, x, convention, options);
  return out;
}

} // namespace nvfp4
