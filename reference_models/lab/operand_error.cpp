// SPDX-License-Identifier: Apache-2.0
// One operand at a time, by the library's quantization and its statistics.
#include "nvfp4/reference_models/lab/operand_error.hpp"

#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/reference_models/linear/cpu_operand.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nvfp4::models {

double relative_error(const QuantizeStatistics &s) {
  return s.signal > 0 ? std::sqrt(s.noise / s.signal) : std::numeric_limits<double>::quiet_NaN();
}

void write_error(const QuantizeStatistics &s, Measures &to, const std::string &name) {
  const double relative = relative_error(s), elements = double(s.elements);
  to.add(name + "/error", relative);
  to.add(name + "/sqnr", -20 * std::log10(relative));
  to.add(name + "/flushed", double(s.flushed) / elements);
  to.add(name + "/saturated", double(s.saturated) / elements);
}

QuantizeStatistics operand_error(const OperandRecipe &recipe, FormatId source, MatrixView<const float> x, Axis axis,
                                 RandomKey key, int threads, const SignWords &signs) {
  QuantizeStatistics error;
  const auto add = [&error](float value, float stored) {
    const double v = double(value), d = double(stored) - v;
    error.elements += 1;
    if (!std::isfinite(v) || !std::isfinite(d)) return;
    error.signal += v * v;
    error.noise += d * d;
  };
  if (recipe.convention.empty()) {
    for (int64_t r = 0; r < x.rows; ++r)
      for (int64_t c = 0; c < x.cols; ++c) add(x(r, c), recipe.format == OperandFormat::f32 ? x(r, c) : round_to_bf16(x(r, c)));
    return error;
  }
  // as linear layers do: rounded to the source, padded with rows of zeros to whole groups of a rotation along them
  const bool wide = recipe.hadamard && recipe.hadamard_size != kHadamardSize;
  int64_t rows = x.rows;
  if (recipe.hadamard && axis == Axis::col && !wide) rows = (rows + kHadamardSize - 1) / kHadamardSize * kHadamardSize;
  std::vector<float> values(size_t(rows * x.cols), 0.0f);
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t c = 0; c < x.cols; ++c) values[size_t(r * x.cols + c)] = round_to(source, x(r, c));
  const MatrixView<const float> view(values.data(), rows, x.cols);
  cpu::Workspace workspace;
  QuantizeTask task{nullptr, &recipe, source, nullptr, values.data(), rows, x.cols, axis, key};
  task.signs = signs;
  const bool simulated = recipe.format == OperandFormat::simulated;
  Rotated turned; // what is quantized, where quantize() does not rotate it or its copy is not read
  if (wide || (simulated && recipe.hadamard))
    turned = rotated(values.data(), rows, x.cols, axis, recipe.hadamard_size, task.signs);
  if (simulated) {
    const Rotated stored = cpu::simulated_values(task, workspace, threads);
    const std::vector<float> &meant = turned.values.empty() ? values : turned.values;
    for (size_t i = 0; i < meant.size(); ++i) {
      const float y = round_to_bf16(stored.values[i]);
      add(meant[i], y);
      error.flushed += std::isfinite(meant[i]) && meant[i] != 0.0f && y == 0.0f ? 1 : 0;
    }
    return error;
  }
  BlockScaled q;
  if (recipe.mean == MeanSplit::quantized) { // the sum of its parts
    std::vector<float> parts[2];
    for (const OperandPart part : {OperandPart::residual, OperandPart::mean}) {
      task.part = part;
      cpu::quantize_blocks(q, task, workspace, threads);
      parts[part == OperandPart::mean] = dequantize(q, {.threads = threads});
    }
    for (size_t i = 0; i < values.size(); ++i) {
      const float y = parts[0][i] + parts[1][i];
      add(values[i], y);
      error.flushed += std::isfinite(values[i]) && values[i] != 0.0f && y == 0.0f ? 1 : 0;
    }
    return error;
  }
  cpu::quantize_blocks(q, task, workspace, threads);
  const MatrixView<const float> wide_view(turned.values.data(), turned.rows, turned.cols);
  return total(quantize_statistics(wide ? wide_view : view, q, threads));
}

QuantizeStatistics rule_error(const Rule &rule, MatrixView<const float> x) {
  Amax amax;
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t c = 0; c < x.cols; ++c) amax.add(x(r, c));
  const GlobalScale global = level_from_amax(rule, amax.value(rule.amax_nan), FormatId::f32);
  const uint64_t top = format(rule.element).max_finite_magnitude();
  QuantizeStatistics error;
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t first = 0; first < x.cols; first += rule.block) {
      const int64_t last = std::min<int64_t>(x.cols, first + rule.block);
      Amax block;
      for (int64_t c = first; c < last; ++c) block.add(x(r, c));
      const BlockScale scale = with_exponents(rule, block_scale(rule, block.value(rule.amax_nan), global, FormatId::f32),
                                              x.row(r) + first, int(last - first));
      for (int64_t c = first; c < last; ++c) {
        const float v = x(r, c);
        const uint8_t code = encode_element(rule, v, element_scale(rule, scale, int(c - first)));
        const float y = decode_element(rule, code, scale.code, int(c - first), global);
        error.elements += 1;
        if (!std::isfinite(v) || !std::isfinite(y)) continue;
        error.signal += double(v) * double(v);
        error.noise += (double(y) - double(v)) * (double(y) - double(v));
        error.flushed += v != 0.0f && y == 0.0f ? 1 : 0;
        error.saturated += (code & format(rule.element).magnitude_mask()) == top && std::fabs(v) > std::fabs(y) ? 1 : 0;
      }
    }
  return error;
}

} // namespace nvfp4::models
