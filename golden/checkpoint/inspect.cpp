// SPDX-License-Identifier: Apache-2.0
// Statistics of one weight, some rows at a time, and the checks that its own bytes allow.
#include "nvfp4/golden/checkpoint/inspect.hpp"
#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/golden/io/message.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace nvfp4::checkpoint {
namespace {

/// Amax of weights and of inputs that is thought plausible. A scale that implies more than the upper bound,
/// and whose reciprocal implies something in between, is called a reciprocal.
struct Plausible {
  double low, high;
};
constexpr Plausible kWeightAmax{1e-4, 1e3}, kInputAmax{1e-2, 65504};
constexpr double kLargestBlock = 6.0 * 448.0;

std::string short_number(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", v);
  return text;
}

class Values {
public:
  /// Without elements there are no columns, however long rows are said to be.
  Values(int64_t k, int64_t elements) : columns_(elements > 0 ? size_t(k) : 0) { out_.elements = elements; }

  void add(std::span<const float> values) {
    const size_t k = columns_.size();
    for (size_t i = 0; i < values.size(); ++i) {
      const double v = values[i];
      if (!std::isfinite(v)) {
        (std::isnan(v) ? out_.nan : out_.infinity) += 1;
        continue;
      }
      out_.zero += v == 0;
      const double square = v * v;
      sum_ += v;
      sum2_ += square;
      sum3_ += square * v;
      sum4_ += square * square;
      float &column = columns_[i % k];
      column = std::max(column, std::fabs(values[i]));
    }
  }

  ValueStatistics result() {
    const auto n = double(out_.elements - out_.nan - out_.infinity);
    const double m = n > 0 ? sum_ / n : 0, second = n > 0 ? sum2_ / n - m * m : 0;
    out_.mean = m;
    out_.rms = n > 0 ? std::sqrt(sum2_ / n) : 0;
    const double fourth =
        n > 0 ? sum4_ / n - 4 * m * sum3_ / n + 6 * m * m * sum2_ / n - 3 * m * m * m * m : 0;
    out_.kurtosis = second > 0 ? fourth / (second * second) : std::numeric_limits<double>::quiet_NaN();
    for (size_t c = 0; c < columns_.size(); ++c) {
      const auto smaller =
          std::ranges::find_if(out_.largest, [&](const auto &o) { return o.amax < columns_[c]; });
      if (smaller == out_.largest.end() && out_.largest.size() == kLargest) continue;
      out_.largest.insert(smaller, {int64_t(c), columns_[c]});
      if (out_.largest.size() > kLargest) out_.largest.pop_back();
    }
    out_.amax = out_.largest.empty() ? 0 : out_.largest.front().amax;
    return out_;
  }

private:
  static constexpr size_t kLargest = 3;
  ValueStatistics out_;
  std::vector<float> columns_;
  double sum_ = 0, sum2_ = 0, sum3_ = 0, sum4_ = 0;
};

void add_blocks(BlockStatistics &s, const BlockScaled &q) {
  const Format scale = format(q.scale), element = format(q.element);
  const auto top = uint64_t(element.max_finite_magnitude());
  for (int64_t r = 0; r < q.rows; ++r)
    for (int64_t b = 0; b < q.blocks(); ++b) {
      const uint32_t word = q.scale_code(r, b);
      int64_t zeros = 0, largest = 0;
      for (int i = 0; i < q.block; ++i) {
        const uint64_t magnitude = q.code(r, b * q.block + i) & element.magnitude_mask();
        zeros += magnitude == 0;
        largest += magnitude == top;
      }
      const float value = value_f32(q.scale, word);
      const bool zero = zeros == q.block;
      ++s.blocks;
      s.zero_blocks += zero;
      s.zero_codes += zero ? 0 : zeros;
      s.largest_codes += largest;
      s.scale_underflow += value == 0 && !zero;
      s.scale_saturated += (word & scale.magnitude_mask()) == scale.max_finite_magnitude();
      s.scale_nan += std::isnan(value);
      s.scale_negative += scale.code_bits < 8 && word >> scale.code_bits != 0;
      if (value > 0) ++s.scale_exponents[std::ilogb(value)];
    }
}

int64_t padding_not_zero(const Weight &w) {
  const int64_t cols = w.k / w.container->block, size = scale_size_128x4(w.rows, cols);
  const auto *bytes = reinterpret_cast<const uint8_t *>(w.scales->bytes.data());
  int64_t count = 0;
  for (int64_t index = 0; index < w.batch; ++index) {
    std::vector<bool> used(size_t(size), false);
    for (int64_t r = 0; r < w.rows; ++r)
      for (int64_t b = 0; b < cols; ++b) used[size_t(scale_offset_128x4(r, b, cols))] = true;
    for (int64_t i = 0; i < size; ++i) count += !used[size_t(i)] && bytes[index * size + i] != 0;
  }
  return count;
}

/// Whether a scale looks like 1 / x of what it should be. `largest` is the largest magnitude that it was
/// multiplied to.
bool looks_reciprocal(double amax, double word, GlobalUse use, Plausible plausible) {
  if (!(word > 0) || !std::isfinite(word) || !(amax > plausible.high)) return false;
  const double units = use == GlobalUse::divides ? amax * word : amax / word;
  const double other = use == GlobalUse::divides ? units * word : units / word;
  return other >= plausible.low && other <= plausible.high;
}

void check_words(const Weight &w, const ValueStatistics &values, std::vector<Finding> &findings) {
  const auto add = [&](const char *kind, std::string text) {
    findings.push_back({w.name, kind, std::move(text), true});
  };
  const auto words = w.container->global_use == GlobalUse::divides ? "divides" : "multiplies";
  if (!w.global && w.container->needs_global)
    add("missing_global_scale",
        "has no global scale (" + std::string(w.container->global) + "), without which it cannot be read");
  for (int64_t i = 0; i < w.batch; ++i) {
    const float g = global_word(w, i);
    if (w.global && !(std::isfinite(g) && g > 0)) {
      add("global_scale", "its global scale is " + short_number(g) + "; expected a finite positive number");
      break;
    }
    if (w.global && looks_reciprocal(values.amax, g, w.container->global_use, kWeightAmax)) {
      add("reciprocal_global_scale", "its global scale " + short_number(g) + ", which " + words +
                                         " here, makes the largest weight " + short_number(values.amax) +
                                         "; its reciprocal would be plausible");
      break;
    }
  }
  for (int64_t i = 0; i < w.batch; ++i) {
    const std::optional<float> word = input_word(w, i);
    if (!word) break;
    const bool divides = w.container->input_use == GlobalUse::divides;
    const bool block = w.container->scale == FormatId::ue4m3; // inputs of the others are FP8
    const double units = block ? kLargestBlock : 448.0,
                 amax = divides ? units / *word : units * double(*word);
    if (!(std::isfinite(*word) && *word > 0))
      add("input_scale", "its input scale is " + short_number(*word) + "; expected a finite positive number");
    else if (looks_reciprocal(amax, *word, w.container->input_use, kInputAmax))
      add("reciprocal_input_scale",
          "its input scale " + short_number(*word) + ", which " + (divides ? "divides" : "multiplies") +
              " here, stands for inputs up to " + short_number(amax) + "; its reciprocal would be plausible");
    else
      continue;
    break;
  }
}

/// A scale of keys or values that the KV cache is stored with.
void check_kv_scale(const Weight &w, std::vector<Finding> &findings) {
  if (!w.name.ends_with(".k_scale") && !w.name.ends_with(".v_scale")) return;
  for (const float v : values(w, 0, 0, w.rows))
    if (!(v > 0)) {
      findings.push_back(
          {w.name, "kv_scale", "is " + short_number(v) + "; expected a positive number", true});
      return;
    }
}

/// Dense scales that are not finite and positive.
void check_dense_scales(const Weight &w, std::vector<Finding> &findings) {
  Weight plain;
  plain.codes = w.scales;
  plain.rows = 1;
  plain.k = w.scales->elements();
  plain.decodable = true;
  int64_t bad = 0, negative = 0;
  for (const float v : values(plain, 0, 0, 1)) {
    bad += !std::isfinite(v);
    negative += v < 0;
  }
  if (bad) findings.push_back({w.name, "nan_scales", std::to_string(bad) + " scales are NaN or Inf", true});
  if (negative)
    findings.push_back({w.name, "negative_scales", std::to_string(negative) + " scales are negative", true});
}

} // namespace

WeightReport inspect_weight(const Weight &w, std::vector<Finding> &findings, int threads) {
  WeightReport report;
  report.weight = &w;
  for (const std::string &fault : w.faults) findings.push_back({w.name, "shape", fault, true});
  if (!w.decodable) {
    if (w.faults.empty() && w.codes->type != "BOOL" && w.codes->type.find_first_of("IU") != 0)
      findings.push_back(
          {w.name, "not_decoded", "holds " + w.codes->type + ", which is named but not decoded here", false});
    return report;
  }
  Values collected(w.k, w.elements());
  const int64_t step = rows_at_once(w);
  if (w.is_block_scaled()) report.blocks.emplace();
  for (int64_t index = 0; index < w.batch; ++index)
    for (int64_t first = 0; first < w.rows; first += step) {
      const int64_t count = std::min(step, w.rows - first);
      if (report.blocks) add_blocks(*report.blocks, block_scaled(w, index, first, count));
      collected.add(values(w, index, first, count, threads));
    }
  report.values = collected.result();
  const auto add = [&](const char *kind, std::string text, bool wrong = true) {
    findings.push_back({w.name, kind, std::move(text), wrong});
  };
  if (BlockStatistics *b = report.blocks ? &*report.blocks : nullptr) {
    if (w.layout == ScaleLayout::tiled_128x4) b->scale_padding = padding_not_zero(w);
    if (b->scale_nan)
      add("nan_scales",
          std::to_string(b->scale_nan) + " of " + std::to_string(b->blocks) + " block scales are NaN");
    if (b->scale_negative)
      add("negative_scales",
          std::to_string(b->scale_negative) + " of " + std::to_string(b->blocks) +
              " block scales have the sign bit: software negates such a block, tensor cores ignore the bit");
    if (b->scale_padding)
      add("padding", std::to_string(b->scale_padding) + " bytes of padding of the block scales are not 0");
    if (b->scale_underflow)
      add("scale_underflow",
          std::to_string(b->scale_underflow) + " block scales are 0 although codes of their blocks are not",
          false);
  } else if (w.container && w.scales) {
    check_dense_scales(w, findings);
  }
  if (!w.container) check_kv_scale(w, findings);
  if (w.container)
    check_words(w, *report.values, findings);
  else if (report.values->nan + report.values->infinity > 0)
    add("not_finite", std::to_string(report.values->nan) + " NaN and " +
                          std::to_string(report.values->infinity) + " Inf among " +
                          std::to_string(report.values->elements) + " numbers");
  return report;
}

} // namespace nvfp4::checkpoint
