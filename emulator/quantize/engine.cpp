// SPDX-License-Identifier: Apache-2.0
// Drives the kernels over a tensor: which conventions they cover, maxima, panels, threads, and what goes back
// to the definition.
#include "nvfp4/emulator/quantize/engine.hpp"

#include "nvfp4/emulator/cpu/choose_isa.hpp"
#include "nvfp4/emulator/cpu/float_state.hpp"
#include "nvfp4/emulator/cpu/loop_progress.hpp"
#include "nvfp4/emulator/quantize/strip.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <memory>
#include <omp.h>

namespace nvfp4::quant {
namespace {

constexpr int64_t kChunk = 16384;          // floats that one step of the maximum reads
constexpr int64_t kPanelsPerItem = 64;     // 64 kB of input for blocks of 16
constexpr int64_t kWorthAThread = 1 << 15; // elements
constexpr double kMaximumShare = 0.25;     // of the time, for progress

const Kernels *choose_kernels(std::optional<Isa> asked) {
  switch (choose_isa(asked)) {
  case Isa::avx512: return kernels_avx512();
  case Isa::avx2: return kernels_avx2();
  case Isa::scalar:
  case Isa::neon:
  case Isa::neon_dot: break;
  }
  return nullptr;
}

/// Whether the kernels compute a block's scale before rounding (ScaleSteps::unrounded()).
bool is_quotient(ScaleOrder o) {
  using enum ScaleOrder;
  switch (o) {
  case amax_by_encode_sixth:
  case sixth_by_encode:
  case encode_by_amax_k6:
  case sixth_by_decode:
  case amax_by_six_decode:
  case decode_by_sixth:
  case source_sixth:
  case sixth:
  case amax_by_inverse_max: return true;
  default: return false;
  }
}

/// Whether they take it from the exponent.
bool is_exponent(ScaleOrder o) {
  using enum ScaleOrder;
  return o == exponent_floor || o == exponent_field || o == exponent_ceil || o == exponent_even;
}

/// Roundings to UE4M3, and how elements are scaled by such a scale.
bool rounds_to_e4m3(ScaleRounding r) {
  using enum ScaleRounding;
  return r == cap_flt_max || r == cap_largest || r == plain || r == clamp_normal || r == clamp_tiny || r == eighth_if_zero;
}
bool scales_by_e4m3(Scaling s) {
  using enum Scaling;
  return s == inverse_capped || s == inverse || s == inverse_decode || s == divide || s == divide_encode;
}

/// Whether the kernels have all steps of a rule. A step that is not listed is left to the definition.
bool steps_cover(const Rule &r, FormatId source) {
  if (r.order == ScaleOrder::source_sixth && source == FormatId::f16) return false;
  if (r.outer_block != 0 || r.ties != Ties::even || r.top != 0.0f || (r.block != 16 && r.block != 32) || format(r.element).storage_bits > 8)
    return false;
  if (r.scale == FormatId::ue4m3) {
    if (r.four_over_six != FourOverSix::off && (r.block != 16 || r.element != FormatId::e2m1 ||
                                                r.second_scale != SecondScale::wider || divides(r.scaling)))
      return false;
    return is_quotient(r.order) && rounds_to_e4m3(r.scale_rounding) && scales_by_e4m3(r.scaling);
  }
  if (format(r.scale).encoding != Encoding::powers_of_two || r.four_over_six != FourOverSix::off) return false;
  if (r.scaling != Scaling::exponent && r.scaling != Scaling::exponent_one && r.scaling != Scaling::exponent_normal) return false;
  return (r.scale_rounding == ScaleRounding::power_exact && is_exponent(r.order)) ||
         (r.scale_rounding == ScaleRounding::power_up && is_quotient(r.order));
}

/// How elements meet their factor, if in a way that kernels have.
std::optional<Meet> meeting(const Rule &r) {
  const bool over = divides(r.scaling);
  if (over != (r.negative_zero == NegativeZero::drop_exact) || (over && r.flush)) return {};
  return over ? Meet::divide : r.flush ? Meet::multiply_flushed : Meet::multiply;
}

ScaleSteps make_steps(const Rule &r, const GlobalScale &g, FormatId source) {
  return {.order = r.order,
          .rounding = r.scale_rounding,
          .scaling = r.scaling,
          .zero_multiplier = r.zero_multiplier,
          .flush = r.flush,
          .bf16_source = source == FormatId::bf16,
          .to_four = false,
          .max_exponent = detail::max_exponent(r.element),
          .exponent_carry = int(detail::exponent_carry(r)),
          .encode = g.encode,
          .decode = g.decode,
          .encode_sixth = detail::multiply(r.flush, g.encode, inverse_largest(r)),
          .six_decode = detail::multiply(r.flush, largest_element(r), g.decode),
          .inverse_decode = detail::divide(r.flush, 1.0f, g.decode),
          .top = largest_element(r),
          .inverse_top = inverse_largest(r)};
}

/// Values of the UE4M3 codes, the scales of four-over-six.
const std::array<float, 256> &scale_values() {
  static const std::array<float, 256> values = [] {
    std::array<float, 256> v{};
    for (size_t code = 0; code < v.size(); ++code) v[code] = value_f32(FormatId::ue4m3, code);
    return v;
  }();
  return values;
}

} // namespace

Engine::Engine(MatrixView<const float> x, const Rule &rule, const QuantizeOptions &options, int threads)
    : x_(x), rule_(rule), options_(options), threads_(x.rows * x.cols < kWorthAThread ? 1 : threads),
      kernels_(choose_kernels(options.isa)) {
  const std::optional<Meet> meet = meeting(rule);
  if (kernels_ == nullptr || !steps_cover(rule, options.source) || !meet) return;
  encode_ = kernels_->encoder(rule.element, *meet, options.rounding);
  encode_columns_ = kernels_->column_encoder(rule.element, *meet, options.rounding);
}

Engine::Level Engine::level(const GlobalScale &g) const {
  const auto positive = [](float v) { return v > 0.0f && v <= kFltMax; };
  const bool weighable = rule_.four_over_six == FourOverSix::off || g.amax <= kFltMax;
  return {g, make_steps(rule_, g, options_.source), positive(g.encode) && positive(g.decode) && weighable};
}

Amax Engine::maximum() const {
  Amax all;
  if (options_.hadamard) {
    const PanelSource source(x_, rule_, options_, *kernels_);
    const PanelWalk walk = source.walk();
    const bool down = source.rotates_down();
    const int64_t items = down ? x_.rows / kHadamardSize : walk.lines() * walk.length();
    LoopProgress progress(&options_.progress, items, 0.0, kMaximumShare);
#pragma omp parallel num_threads(threads_)
    {
      const FloatState state;
      Amax mine;
      Panel panel;
#pragma omp for schedule(static) nowait
      for (int64_t item = 0; item < items; ++item) {
        if (progress.stopped()) continue;
        if (down) {
          mine.merge(source.rotated_maximum_down(item * kHadamardSize));
        } else {
          const int64_t line = item / walk.length(), at = item % walk.length();
          mine.merge(source.rotated_maximum(walk.across ? at : line, walk.across ? line : at, panel));
        }
        progress.finished(omp_get_thread_num());
      }
#pragma omp critical(nvfp4_quantize_amax)
      all.merge(mine);
    }
    progress.finish();
    return all;
  }
  const PanelSource plain(x_, rule_, options_, *kernels_);
  const bool dense = x_.stride == x_.cols;
  const int64_t rows = dense ? 1 : x_.rows, length = dense ? x_.rows * x_.cols : x_.cols;
  const int64_t chunks = (length + kChunk - 1) / kChunk;
  LoopProgress progress(&options_.progress, rows * chunks, 0.0, kMaximumShare);
#pragma omp parallel num_threads(threads_)
  {
    Amax mine;
#pragma omp for schedule(static) nowait
    for (int64_t item = 0; item < rows * chunks; ++item) {
      if (progress.stopped()) continue;
      const int64_t first = item % chunks * kChunk;
      mine.merge(plain.maximum_of(x_.row(item / chunks) + first, std::min(kChunk, length - first)));
      progress.finished(omp_get_thread_num());
    }
#pragma omp critical(nvfp4_quantize_amax)
    all.merge(mine);
  }
  progress.finish();
  return all;
}

void Engine::run(const GlobalScale &global, BlockScaled &out) const {
  if (in_columns()) return run_columns(level(global), out);
  const PanelSource source(x_, rule_, options_, *kernels_);
  PanelWalk walk = source.walk();
  if (rule_.per_row) walk.across = false; // a strip at a time: its maxima first
  const int64_t per_item = rule_.per_row ? std::max<int64_t>(walk.length(), 1) : kPanelsPerItem;
  const int64_t segments = (walk.length() + per_item - 1) / per_item;
  const int64_t items = walk.lines() * segments;
  if (rule_.per_row) out.row_amax.resize(size_t(out.rows));
  const Level shared = level(global);
  const bool searched = !rule_.per_row && !options_.global_amax && !options_.global_scale; // by maximum()
  LoopProgress progress(&options_.progress, items, searched ? kMaximumShare : 0.0);
#pragma omp parallel num_threads(threads_)
  {
    const FloatState state;
    Panel panel;
#pragma omp for schedule(static)
    for (int64_t item = 0; item < items; ++item) {
      if (progress.stopped()) continue;
      // Backwards: the maximum has just left the end of the tensor in the cache.
      const int64_t from_end = items - 1 - item, line = from_end / segments, segment = from_end % segments;
      Level own[kPanelRows];
      if (rule_.per_row) row_levels(source, line, panel, own, out);
      const int64_t last = std::min(walk.length(), (segment + 1) * per_item);
      for (int64_t at = segment * per_item; at < last; ++at) {
        source.load(walk, line, at, panel);
        if (options_.rounding != ElementRounding::nearest) source.load_random(panel);
        if (options_.block_rows == 1)
          quantize_rows(panel, rule_.per_row ? own : nullptr, shared, out);
        else
          quantize_tiles(panel, shared, out);
      }
      progress.finished(omp_get_thread_num());
    }
  }
  progress.finish();
}

void Engine::row_levels(const PanelSource &source, int64_t strip, Panel &panel, Level *levels,
                        BlockScaled &out) const {
  Amax maxima[kPanelRows];
  for (int64_t p = 0; p < source.shape().panels(); ++p) {
    source.load(strip, p, panel);
    for (int r = 0; r < panel.rows; ++r) maxima[r].merge(source.maximum_of(panel.x[r], panel.width));
  }
  const int64_t first = strip * source.shape().strip;
  for (int r = 0; r < std::min<int64_t>(source.shape().strip, out.rows - first); ++r) {
    float &amax = out.row_amax[size_t(first + r)];
    amax = maxima[r].value(rule_.amax_nan);
    levels[r] = level(global_from_amax(rule_, amax, options_.source));
  }
}

template <class ErrorsOf>
uint32_t Engine::choose_scales(const Level &level, const uint32_t *words, float *factors, uint8_t *scales,
                               ErrorsOf errors_of) const {
  uint32_t again = kernels_->scales(level.steps, words, factors, scales);
  if (rule_.four_over_six == FourOverSix::off) return again;
  ScaleSteps to_four = level.steps;
  to_four.to_four = true;
  alignas(64) float four_factors[kGroup], sums[kGroup], four_sums[kGroup];
  uint8_t four_scales[kGroup];
  again |= kernels_->scales(to_four, words, four_factors, four_scales);
  const ErrorRule weigh{level.global.amax, largest_element(rule_) * rule_.e4m3_max,
                        rule_.four_over_six == FourOverSix::mse, rule_.fused_error};
  const auto sum = [&](const float *own, const uint8_t *codes, float *to) {
    alignas(64) float values[kGroup];
    for (int b = 0; b < kGroup; ++b) values[b] = scale_values()[codes[b]];
    errors_of(weigh, own, values, to);
  };
  sum(factors, scales, sums);
  sum(four_factors, four_scales, four_sums);
  for (int b = 0; b < kGroup; ++b)
    if (four_sums[b] < sums[b]) {
      factors[b] = four_factors[b];
      scales[b] = four_scales[b];
    }
  return again;
}

uint32_t Engine::choose_scales(const Panel &panel, int r, int rows, const Level &level, const uint32_t *words,
                               float *factors, uint8_t *scales) const {
  return choose_scales(level, words, factors, scales,
                       [&](const ErrorRule &weigh, const float *own, const float *values, float *sums) {
                         alignas(64) float transposed[16 * kGroup], of_row[kPanelRows][kGroup] = {};
                         for (int i = 0; i < rows; ++i) {
                           kernels_->transpose(panel.x[r + i], 16, transposed, kGroup);
                           kernels_->errors(weigh, transposed, own, values, of_row[i]);
                         }
                         if (options_.block_rows > 1)
                           add_rows_as_tree([&](int i, int j) {
                             for (int b = 0; b < kGroup; ++b) of_row[i][b] = of_row[i][b] + of_row[j][b];
                           });
                         std::copy_n(of_row[0], kGroup, sums);
                       });
}

void Engine::run_columns(const Level &level, BlockScaled &out) const {
  const ColumnSource source(x_, rule_, options_, *kernels_);
  const int64_t across = source.across(), items = source.down() * across;
  const bool searched = !options_.global_amax && !options_.global_scale; // by maximum()
  LoopProgress progress(&options_.progress, items, searched ? kMaximumShare : 0.0);
#pragma omp parallel num_threads(threads_)
  {
    const FloatState state;
    const auto band = std::make_unique<ColumnBand>();
#pragma omp for schedule(static)
    for (int64_t item = 0; item < items; ++item) {
      if (progress.stopped()) continue;
      const int64_t from_end = items - 1 - item; // as in run()
      source.place(from_end / across, from_end % across, *band);
      quantize_band(source, level, *band, out);
      progress.finished(omp_get_thread_num());
    }
  }
  progress.finish();
}

void Engine::quantize_band(const ColumnSource &source, const Level &level, ColumnBand &band, BlockScaled &out) const {
  const int words = rule_.block * format(rule_.element).storage_bits / 32;
  const bool stochastic = options_.rounding != ElementRounding::nearest;
  const int random_bytes = random_unit(options_).bytes;
  bool left = !level.usable;
  for (int b = 0; b < source.blocks(band); ++b) {
    std::fill_n(band.again[b], kBandTiles, level.usable ? 0 : 0xFFFF);
    if (!level.usable) continue;
    source.load(b, band);
    if (stochastic) source.load_random(b, band);
    source.ask_for_output(b, band, out);
    for (int t = 0; t < source.tiles(band); ++t) {
      const float *const x = band.tiles[t];
      alignas(64) float factors[kGroup];
      uint8_t *const scales = band.scales[b] + kGroup * t;
      band.again[b][t] = choose_scales(level, band.amax[t], factors, scales,
                                       [&](const ErrorRule &weigh, const float *own, const float *values, float *sums) {
                                         kernels_->errors(weigh, x, own, values, sums);
                                       });
      left = left || band.again[b][t] != 0;
      encode_columns_(x, rule_.block, factors, band.random + kGroup * t * random_bytes, kBandColumns * random_bytes,
                      band.codes[words * b] + kGroup * t, kBandColumns);
    }
  }
  if (level.usable) source.store(band, out);
  if (left) redo_columns(source, level, band, out);
}

void Engine::redo_columns(const ColumnSource &source, const Level &level, ColumnBand &band, BlockScaled &out) const {
  for (int b = 0; b < source.blocks(band); ++b) {
    if (std::all_of(band.again[b], band.again[b] + source.tiles(band), [](uint32_t bits) { return bits == 0; })) continue;
    source.load(b, band);
    for (int64_t c = 0; c < band.columns; ++c) {
      const int64_t t = c / kGroup, lane = c % kGroup;
      if ((band.again[b][t] >> lane & 1) == 0) continue;
      float column[kColumnRows];
      for (int i = 0; i < rule_.block; ++i) column[i] = band.tiles[t][i * kGroup + lane];
      const float *const x = column;
      Strip{rule_, options_, level.global, out, band.column + c, 1}.quantize_block(band.row / rule_.block + b, &x);
    }
  }
}

void Engine::quantize_rows(const Panel &panel, const Level *own, const Level &shared,
                           BlockScaled &out) const {
  for (int r = 0; r < panel.rows; ++r) {
    const Level &level = own != nullptr ? own[r] : shared;
    alignas(64) uint32_t words[kGroup];
    alignas(64) float factors[kGroup];
    uint8_t scales[kGroup];
    uint32_t again = 0xFFFF;
    if (level.usable) {
      kernels_->block_amax(panel.x[r], rule_.block, words);
      again = choose_scales(panel, r, 1, level, words, factors, scales);
      store_row(panel, r, factors, scales, out);
    }
    redo(panel, r, 1, again, level.global, out);
  }
}

void Engine::quantize_tiles(const Panel &panel, const Level &level, BlockScaled &out) const {
  uint32_t again = 0xFFFF;
  if (level.usable) {
    alignas(64) uint32_t words[kGroup] = {}, row[kGroup];
    alignas(64) float factors[kGroup];
    uint8_t scales[kGroup];
    for (int r = 0; r < panel.rows; ++r) {
      kernels_->block_amax(panel.x[r], rule_.block, row);
      for (int b = 0; b < kGroup; ++b) words[b] = std::max(words[b], row[b]);
    }
    again = choose_scales(panel, 0, panel.rows, level, words, factors, scales);
    for (int r = 0; r < panel.rows; ++r) store_row(panel, r, factors, scales, out);
  }
  redo(panel, 0, panel.rows, again, level.global, out);
}

void Engine::store_row(const Panel &panel, int r, const float *factors, const uint8_t *scales,
                       BlockScaled &out) const {
  const int bits = format(rule_.element).storage_bits;
  const int64_t row = panel.first_row + r;
  const int blocks = (panel.width + rule_.block - 1) / rule_.block;
  uint8_t *const codes = out.codes.data() + row * out.row_bytes() + panel.first * bits / 8;
  std::copy_n(scales, blocks, out.scales.data() + row * out.scale_cols() + panel.first / rule_.block);
  if (blocks == kGroup) return encode_(panel.x[r], rule_.block, factors, panel.random[r], codes);
  uint8_t whole[kMaxGroupWidth];
  encode_(panel.x[r], rule_.block, factors, panel.random[r], whole);
  std::copy_n(whole, blocks * rule_.block * bits / 8, codes);
}

void Engine::redo(const Panel &panel, int r, int rows, uint32_t blocks, const GlobalScale &global,
                  BlockScaled &out) const {
  const int exist = (panel.width + rule_.block - 1) / rule_.block;
  for (blocks &= (1u << exist) - 1; blocks != 0; blocks &= blocks - 1) {
    const int b = std::countr_zero(blocks);
    const float *x[kPanelRows];
    for (int i = 0; i < rows; ++i) x[i] = panel.x[r + i] + b * rule_.block;
    // the one row of a flat panel is all rows of the output
    const int64_t index = panel.first / rule_.block + b;
    const int64_t row = panel.first_row + r + index / out.blocks();
    const Strip strip{rule_, options_, global, out, row, rows};
    strip.quantize_block(index % out.blocks(), x);
  }
}

} // namespace nvfp4::quant
