// SPDX-License-Identifier: Apache-2.0
// Bisection over the amax, as every scale falls while it grows, and all 65536 sign masks.
#include "nvfp4/golden/diagnosis/quantizer_parameters.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::diagnosis {
namespace {

/// Which side of MINE's scales those under an amax lie on, somewhere in the sample.
struct Sides {
  bool above = false, below = false;
};

std::optional<Sides> sides(const QuantizerProblem &p, Making m, const BlockSample &sample, uint32_t word) {
  m.options.global_amax = bit_cast<float>(word);
  const std::optional<BlockScaled> q = make(p, m, sample.x);
  if (!q) return std::nullopt;
  Sides s;
  const auto note = [&](uint32_t want, uint32_t got) {
    s.above = s.above || want > got;
    s.below = s.below || want < got;
  };
  if (sample.whole)
    for (int64_t r = 0; r < p.mine.rows; ++r)
      for (int64_t b = 0; b < p.mine.blocks(); ++b) note(q->scale_code(r, b), p.mine.scale_code(r, b));
  else
    for (size_t j = 0; j < sample.blocks.size(); ++j)
      if (const auto &[r, b] = sample.blocks[j]; r >= 0)
        note(q->scale_code(int64_t(j), 0), p.mine.scale_code(r, b));
  return s;
}

/// The number with the fewest decimals in [low, high].
double plainest(double low, double high) {
  for (int digits = 0; digits < 9; ++digits) {
    const double unit = std::pow(10.0, digits), n = std::ceil(low * unit);
    if (n <= high * unit) return n / unit;
  }
  return low;
}

} // namespace

std::vector<float> find_amax(const QuantizerProblem &p, const Making &base, const BlockSample &sample) {
  if (!has_tensor_level(base.rule) || base.options.global_scale ||
      base.options.rounding != ElementRounding::nearest)
    return {};
  constexpr uint32_t last = 0x7F7FFFFF;
  const auto first_where = [&](auto test) -> std::optional<uint32_t> {
    uint32_t low = 1, high = last;
    while (low < high) {
      const uint32_t middle = low + (high - low) / 2;
      const std::optional<Sides> s = sides(p, base, sample, middle);
      if (!s) return std::nullopt;
      if (test(*s))
        high = middle;
      else
        low = middle + 1;
    }
    return low;
  };
  const std::optional<uint32_t> low = first_where([](const Sides &s) { return !s.above; });
  if (!low) return {};
  const std::optional<uint32_t> end = first_where([](const Sides &s) { return s.below; });
  if (!end || *end <= *low) return {};
  Making own = base;
  const std::optional<BlockScaled> q = make(p, own, sample.x);
  if (!q || !(q->global_amax > 0.0f) || !std::isfinite(q->global_amax)) return {};
  const double amax = q->global_amax, from = bit_cast<float>(*low), to = bit_cast<float>(*end - 1);
  if (from <= amax && amax <= to) return {};
  const double factor = plainest(from / amax, to / amax);
  std::vector<float> found;
  for (const float v : {float(factor * amax), float(factor) * float(amax), bit_cast<float>(*low),
                        bit_cast<float>(*end - 1), bit_cast<float>(*low + (*end - *low) / 2)})
    if (std::find(found.begin(), found.end(), v) == found.end()) found.push_back(v);
  return found;
}

std::optional<uint16_t> find_sign_mask(const QuantizerProblem &p, const Making &base,
                                       const std::vector<std::pair<int64_t, int64_t>> &blocks) {
  Making m = base;
  m.options.hadamard = false;
  const SourceTensor plain = prepare(p, m);
  if (has_tensor_level(base.rule) && !base.options.global_scale)
    m.options.global_amax = p.mine.global_amax;
  std::vector<SourceTensor> sources;
  std::vector<std::pair<int64_t, int64_t>> chosen;
  for (const auto &[r, b] : blocks) {
    const auto at = plain.values.begin() + r * plain.cols + b * p.mine.block;
    SourceTensor x{1, p.mine.block, {at, at + p.mine.block}};
    if (std::any_of(x.values.begin(), x.values.end(), [](float v) { return v == 0.0f || !std::isfinite(v); }))
      continue;
    sources.push_back(std::move(x));
    chosen.emplace_back(r, b);
    if (chosen.size() == 4) break;
  }
  if (chosen.empty()) return std::nullopt;
  for (uint32_t mask = 0; mask < 65536; ++mask) {
    bool fits = true;
    for (size_t j = 0; j < chosen.size() && fits; ++j) {
      SourceTensor x = sources[j];
      for (int64_t g = 0; g < x.cols; g += kHadamardSize) {
        float group[kHadamardSize];
        std::copy_n(x.values.data() + g, kHadamardSize, group);
        rotate16(group, uint16_t(mask));
        std::copy_n(group, kHadamardSize, x.values.data() + g);
      }
      const std::optional<BlockScaled> q = make(p, m, x);
      if (!q) return std::nullopt;
      const auto &[r, b] = chosen[j];
      fits = q->scale_code(0, 0) == p.mine.scale_code(r, b);
      for (int64_t i = 0; i < x.cols && fits; ++i)
        fits = q->code_word(0, i) == p.mine.code_word(r, b * p.mine.block + i);
    }
    if (fits) return uint16_t(mask);
  }
  return std::nullopt;
}

} // namespace nvfp4::diagnosis
