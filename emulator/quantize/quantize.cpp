// SPDX-License-Identifier: Apache-2.0
// The loops around block_rule.hpp: orientation, rotation, maxima, blocks and tiles, threads.
#include "emulator/quantize/quantize.hpp"

#include <algorithm>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace nvfp4 {
namespace {

constexpr int kTile = 16;
constexpr int kMaxBlock = 32;

void refuse(const Convention &c, const char *what) {
  throw Error("convention '" + std::string(c.name) + "' cannot be quantized with " + what);
}

void check_options(MatrixView<const float> x, const Convention &c, const QuantizeOptions &o) {
  const Rule &r = c.rule;
  if (x.rows < 0 || x.cols < 0 || x.stride < x.cols || (x.data == nullptr && x.rows * x.cols > 0))
    throw Error("quantize: expected a matrix with stride >= columns, got " + std::to_string(x.rows) + " x " +
                std::to_string(x.cols) + ", stride " + std::to_string(x.stride));
  if (o.block_rows != 1 && o.block_rows != kTile)
    throw Error("quantize: block_rows is 1 or 16, got " + std::to_string(o.block_rows));
  if (o.source != FormatId::f32 && o.source != FormatId::bf16 && o.source != FormatId::f16)
    throw Error("quantize: the source type is f32, bf16 or f16");
  if (o.threads < 0) throw Error("quantize: threads must not be negative");
  const bool stochastic = o.rounding != ElementRounding::nearest;
  if (stochastic && r.four_over_six != FourOverSix::off)
    refuse(c, "stochastic rounding: the choice between 4 and 6 would be made on random errors");
  if (stochastic && !c.can.stochastic) refuse(c, "stochastic rounding: the implementation has none");
  if (o.rounding == ElementRounding::sr_te && r.element != FormatId::e2m1)
    refuse(c, "sr_te, which rounds to E2M1 only; use sr_carry8 or sr_exact");
  if (o.hadamard && !c.can.hadamard) refuse(c, "a Hadamard rotation: the implementation excludes it");
  if (o.block_rows == kTile && !c.can.tiles)
    refuse(c, r.per_row ? "16x16 tiles: a tile has no row scale of its own"
                        : "16x16 tiles: its blocks are 1x32");
  if (o.block_rows == kTile && o.hadamard)
    refuse(c, "16x16 tiles and a Hadamard rotation: tiles serve both axes, a rotation one");
  const int64_t k = o.axis == Axis::row ? x.cols : x.rows;
  if (o.hadamard && k % kHadamardSize != 0)
    throw Error("quantize: a Hadamard rotation needs a multiple of 16 along k, got " + std::to_string(k));
  if (o.global_amax && o.global_scale) throw Error("quantize: give global_amax or global_scale, not both");
  if (o.global_amax && (r.per_row || r.global == GlobalRule::none))
    refuse(c, "a given global_amax: it has no scale per tensor");
  if (o.global_scale && (r.per_row || (r.global != GlobalRule::caller && r.global != GlobalRule::decode &&
                                       r.global != GlobalRule::compressed_tensors)))
    refuse(c, "a given global_scale: it stores none; give global_amax where it has one");
}

/// The matrix with rows along k: x itself, its transpose, or either one rotated.
class Operand {
public:
  Operand(MatrixView<const float> x, const QuantizeOptions &o, [[maybe_unused]] int threads) : view_(x) {
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

std::vector<Amax> row_maxima(const MatrixView<const float> &x, [[maybe_unused]] int threads) {
  std::vector<Amax> maxima(size_t(x.rows));
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t i = 0; i < x.cols; ++i) maxima[size_t(r)].add(x(r, i));
  return maxima;
}

/// One strip of 1 or 16 rows: everything that a block needs to know about its surroundings.
struct Strip {
  const MatrixView<const float> &x;
  const Rule &rule;
  const QuantizeOptions &options;
  const GlobalScale &global;
  BlockScaled &out;
  int64_t first_row;
  int rows;

  [[nodiscard]] uint32_t random(int64_t r, int64_t i) const {
    const int64_t index = options.axis == Axis::row ? r * x.cols + i : i * x.rows + r;
    if (options.rounding == ElementRounding::sr_exact) return options.key.bits32(uint64_t(index));
    return options.key.bits8(uint64_t(index));
  }

  /// Codes of one candidate scale, and their error where four-over-six asks for it.
  float encode(const float (&values)[kTile][kMaxBlock], int64_t first, int width, const BlockScale &scale,
               uint8_t (&codes)[kTile][kMaxBlock]) const {
    float sums[kTile] = {};
    for (int r = 0; r < rows; ++r)
      for (int i = 0; i < width; ++i) {
        const uint32_t bits =
            options.rounding == ElementRounding::nearest ? 0 : random(first_row + r, first + i);
        codes[r][i] = encode_element(rule, values[r][i], scale, options.rounding, bits);
        if (rule.four_over_six != FourOverSix::off)
          sums[r] = add_error(rule, sums[r], codes[r][i], values[r][i], scale, global.amax);
      }
    if (out.block_rows == 1) return sums[0];
    for (int half = kTile / 2; half > 0; half /= 2)
      for (int i = 0; i < half; ++i) sums[i] = sums[i] + sums[i + half];
    return sums[0];
  }

  void quantize_block(int64_t b) const {
    const int64_t first = b * rule.block;
    const int width = int(std::min<int64_t>(rule.block, x.cols - first));
    float values[kTile][kMaxBlock];
    Amax amax;
    for (int r = 0; r < rows; ++r)
      for (int i = 0; i < width; ++i) {
        values[r][i] = x(first_row + r, first + i);
        amax.add(values[r][i]);
      }
    const float bmax = amax.value(rule.amax_nan);
    uint8_t codes[kTile][kMaxBlock] = {};
    BlockScale scale = block_scale(rule, bmax, global, options.source);
    const float error = encode(values, first, width, scale, codes);
    if (rule.four_over_six != FourOverSix::off) {
      uint8_t wider[kTile][kMaxBlock] = {};
      const BlockScale four = block_scale(rule, bmax, global, options.source, true);
      if (encode(values, first, width, four, wider) < error) {
        scale = four;
        std::copy_n(&wider[0][0], kTile * kMaxBlock, &codes[0][0]);
      }
    }
    for (int r = 0; r < rows; ++r) store(first_row + r, b, scale.code, codes[r]);
  }

  void store(int64_t r, int64_t b, uint8_t scale, const uint8_t (&codes)[kMaxBlock]) const {
    out.scales[size_t(r * out.scale_cols() + b)] = scale;
    const bool nibbles = format(rule.element).storage_bits == 4;
    uint8_t *const to = out.codes.data() + r * out.row_bytes() + b * rule.block / (nibbles ? 2 : 1);
    if (nibbles)
      for (int i = 0; i < rule.block; i += 2) to[i / 2] = uint8_t(codes[i] | codes[i + 1] << 4);
    else
      std::copy_n(codes, rule.block, to);
  }
};

} // namespace

BlockScaled quantize(MatrixView<const float> input, const Convention &convention,
                     const QuantizeOptions &options) {
  check_options(input, convention, options);
  const Rule &rule = convention.rule;
  int threads = 1;
#ifdef _OPENMP
  threads = options.threads > 0 ? options.threads : omp_get_max_threads();
#endif
  const Operand operand(input, options, threads);
  const MatrixView<const float> &x = operand.view();

  BlockScaled out{.convention = std::string(convention.name),
                  .element = rule.element,
                  .scale = rule.scale,
                  .block = rule.block,
                  .block_rows = options.block_rows,
                  .rows = x.rows,
                  .k = x.cols,
                  .padded_k = (x.cols + rule.block - 1) / rule.block * rule.block,
                  .axis = options.axis,
                  .source = options.source,
                  .hadamard = options.hadamard,
                  .sign_mask = options.hadamard ? options.sign_mask : uint16_t{0}};
  out.codes.resize(size_t(out.rows * out.row_bytes()));
  out.scales.resize(size_t(out.rows * out.scale_cols()));

  std::vector<GlobalScale> per_row;
  GlobalScale global;
  if (rule.per_row) {
    for (const Amax &m : row_maxima(x, threads)) {
      out.row_amax.push_back(m.value(rule.amax_nan));
      per_row.push_back(global_from_amax(rule, out.row_amax.back(), options.source));
    }
  } else {
    if (options.global_scale) {
      global = global_from_word(rule, *options.global_scale);
    } else if (options.global_amax) {
      global = global_from_amax(rule, *options.global_amax, options.source);
    } else {
      Amax all;
      for (const Amax &m : row_maxima(x, threads)) all.merge(m);
      global = global_from_amax(rule, all.value(rule.amax_nan), options.source);
    }
    out.global_amax = global.amax;
    out.global_encode = global.encode;
    out.global_decode = global.decode;
  }

  const int64_t strips = (out.rows + options.block_rows - 1) / options.block_rows;
#pragma omp parallel for schedule(static) num_threads(threads)
  for (int64_t s = 0; s < strips; ++s) {
    const int64_t first = s * options.block_rows;
    const int rows = int(std::min<int64_t>(options.block_rows, out.rows - first));
    const Strip strip{x, rule, options, rule.per_row ? per_row[size_t(first)] : global, out, first, rows};
    for (int64_t b = 0; b < out.scale_cols(); ++b) strip.quantize_block(b);
  }
  if (options.layout == ScaleLayout::tiled_128x4) {
    out.scales = tile_scales(out.scales, out.rows, out.scale_cols());
    out.layout = options.layout;
  }
  return out;
}

} // namespace nvfp4
