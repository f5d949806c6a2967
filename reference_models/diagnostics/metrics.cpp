// SPDX-License-Identifier: Apache-2.0
// Sums run in eight interleaved lanes that are added up in order: fast without leave to reassociate.
#include "nvfp4/reference_models/diagnostics/metrics.hpp"

#include "nvfp4/emulator/quantize/block_rule.hpp"
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"

#include <algorithm>
#include <cmath>
#include <deque>
#include <limits>
#include <numeric>

namespace nvfp4::models {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr int64_t kTile = 16;
constexpr int64_t kLanes = 8;

/// Sum over i < n of term(i), n >= 0: lane i % 8, then lane 0 to 7.
template <class Term> double lane_sum(int64_t n, const Term &term) {
  double lane[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t l = 0; l < kLanes; ++l) lane[l] += term(i + l);
  for (int64_t l = 0; i + l < n; ++l) lane[l] += term(i + l);
  return std::accumulate(lane, lane + kLanes, 0.0);
}

/// `at` gives row after row, each `width` long: a tile, or a piece of a row.
Moments moments_of(const float *at, int64_t height, int64_t width, int64_t stride) {
  Moments m;
  m.count = height * width;
  if (m.count == 0) return m;
  for (int64_t r = 0; r < height; ++r)
    m.mean += lane_sum(width, [row = at + r * stride](int64_t i) { return double(row[i]); });
  m.mean /= double(m.count);
  double s2[kLanes] = {}, s3[kLanes] = {}, s4[kLanes] = {};
  for (int64_t r = 0; r < height; ++r) {
    const float *const row = at + r * stride;
    const auto add = [&](int64_t l, int64_t i) {
      const double d = double(row[i]) - m.mean, d2 = d * d;
      s2[l] += d2;
      s3[l] += d2 * d;
      s4[l] += d2 * d2;
    };
    int64_t i = 0;
    for (; i + kLanes <= width; i += kLanes)
      for (int64_t l = 0; l < kLanes; ++l) add(l, i + l);
    for (int64_t l = 0; i + l < width; ++l) add(l, i + l);
  }
  m.m2 = std::accumulate(s2, s2 + kLanes, 0.0);
  m.m3 = std::accumulate(s3, s3 + kLanes, 0.0);
  m.m4 = std::accumulate(s4, s4 + kLanes, 0.0);
  return m;
}

/// dequantize() for FP4 codes under one global scale: the 16 values of a scale are computed once, when first
/// met.
std::vector<float> dequantize_by_table(const BlockScaled &q, const Rule &rule) {
  const GlobalScale global{q.global_amax, q.global_encode, q.global_decode};
  std::vector<float> table(256 * 16), out(size_t(q.rows * q.k));
  bool known[256] = {};
  for (int64_t r = 0; r < q.rows; ++r)
    for (int64_t first = 0, b = 0; first < q.k; first += q.block, ++b) {
      const uint8_t scale = q.scales[size_t(r * q.scale_cols() + b)];
      float *const values = table.data() + scale * 16;
      if (!known[scale])
        for (int code = 0; code < 16; ++code)
          values[code] = decode_element(rule, uint8_t(code), scale, 0, global);
      known[scale] = true;
      const uint8_t *const codes = q.codes.data() + r * q.row_bytes() + first / 2;
      float *const to = out.data() + r * q.k + first;
      const int64_t width = std::min<int64_t>(q.block, q.k - first);
      for (int64_t i = 0; i < width; ++i) to[i] = values[codes[i >> 1] >> ((i & 1) * 4) & 0xF];
    }
  return out;
}

void count_scales(QuantizationError &e, MatrixView<const float> x, const BlockScaled &q, const Rule &rule) {
  const GlobalScale global{q.global_amax, q.global_encode, q.global_decode};
  const Format scale_format = format(q.scale), element = format(q.element);
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t first = 0, b = 0; first < x.cols; first += q.block, ++b) {
      const uint32_t scale = q.scale_code(r, b);
      const FormatId own = is_flagged(scale_format, scale) ? element.flagged() : element.id;
      const auto most = uint32_t(format(own).max_finite_magnitude());
      float limit = 0;
      const int64_t end = std::min<int64_t>(first + q.block, x.cols);
      bool nonzero = false;
      for (int64_t i = first; i < end; ++i) {
        if (i == first || scale_format.extra == ScaleExtra::exponents)
          limit = std::fabs(decode_element(rule, most, scale, int(i - first), global));
        const float magnitude = std::fabs(x(r, i));
        nonzero = nonzero || magnitude > 0;
        e.saturated += magnitude > limit ? 1 : 0;
      }
      ++e.blocks;
      e.scale_underflows += nonzero && limit == 0 ? 1 : 0;
      e.largest_scales += (scale & scale_format.magnitude_mask()) == scale_format.max_finite_magnitude() ? 1 : 0;
    }
}

std::vector<int64_t> sorted_set(std::span<const int64_t> values) {
  std::vector<int64_t> set(values.begin(), values.end());
  std::sort(set.begin(), set.end());
  set.erase(std::unique(set.begin(), set.end()), set.end());
  return set;
}

/// Sizes of the two sets and of what they share.
struct SetSizes {
  size_t a, b, both;
};
SetSizes compare_sets(std::span<const int64_t> a, std::span<const int64_t> b) {
  const auto x = sorted_set(a), y = sorted_set(b);
  std::vector<int64_t> both;
  std::set_intersection(x.begin(), x.end(), y.begin(), y.end(), std::back_inserter(both));
  return {x.size(), y.size(), both.size()};
}

} // namespace

void Moments::merge(const Moments &o) {
  if (o.count == 0) return;
  if (count == 0) {
    *this = o;
    return;
  }
  const double a = double(count), b = double(o.count), n = a + b;
  const double d = o.mean - mean, d2 = d * d;
  m4 += o.m4 + d2 * d2 * a * b * (a * a - a * b + b * b) / (n * n * n) +
        6 * d2 * (a * a * o.m2 + b * b * m2) / (n * n) + 4 * d * (a * o.m3 - b * m3) / n;
  m3 += o.m3 + d2 * d * a * b * (a - b) / (n * n) + 3 * d * (a * o.m2 - b * m2) / n;
  m2 += o.m2 + d2 * a * b / n;
  mean += d * b / n;
  count += o.count;
}

double Moments::excess_kurtosis() const {
  const double kurtosis = double(count) * m4 / (m2 * m2) - 3.0;
  return m2 > 0 && std::isfinite(kurtosis) ? kurtosis : kNan;
}

Moments moments(std::span<const float> values) {
  const auto n = int64_t(values.size());
  return moments_of(values.data(), 1, n, n);
}

Kurtosis kurtosis(MatrixView<const float> x, std::vector<double> *map) {
  Moments all;
  std::vector<double> blocks;
  if (map) map->clear();
  for (int64_t r = 0; r < x.rows; r += kTile)
    for (int64_t c = 0; c < x.cols; c += kTile) {
      const int64_t height = std::min(kTile, x.rows - r), width = std::min(kTile, x.cols - c);
      const Moments tile = moments_of(x.row(r) + c, height, width, x.stride);
      all.merge(tile);
      if (height < kTile || width < kTile) continue;
      const double value = tile.excess_kurtosis();
      if (map) map->push_back(value);
      if (!std::isnan(value)) blocks.push_back(value);
    }
  Kurtosis k{all.excess_kurtosis(), kNan, kNan, kNan, int64_t(blocks.size())};
  if (blocks.empty()) return k;
  k.block_max = *std::max_element(blocks.begin(), blocks.end());
  k.block_mean = std::accumulate(blocks.begin(), blocks.end(), 0.0) / double(blocks.size());
  k.block_p99 = percentile(std::move(blocks), 0.99);
  return k;
}

double percentile(std::vector<double> values, double p) {
  if (values.empty()) return kNan;
  const auto rank =
      std::clamp<int64_t>(int64_t(std::ceil(p * double(values.size()))), 1, int64_t(values.size()));
  std::nth_element(values.begin(), values.begin() + (rank - 1), values.end());
  return values[size_t(rank - 1)];
}

ChannelMagnitudes channel_magnitudes(MatrixView<const float> x) {
  ChannelMagnitudes m;
  m.max.assign(size_t(x.cols), 0.0f);
  std::vector<double> sum(size_t(x.cols), 0.0);
  for (int64_t r = 0; r < x.rows; ++r) {
    const float *const row = x.row(r);
    for (int64_t c = 0; c < x.cols; ++c) {
      const float a = std::fabs(row[c]);
      m.max[size_t(c)] = a > m.max[size_t(c)] ? a : m.max[size_t(c)];
      sum[size_t(c)] += double(a);
    }
  }
  m.mean.resize(size_t(x.cols));
  for (size_t c = 0; c < sum.size(); ++c) m.mean[c] = x.rows > 0 ? float(sum[c] / double(x.rows)) : 0.0f;
  return m;
}

std::vector<int64_t> top_channels(std::span<const float> magnitudes, int64_t k) {
  std::vector<int64_t> index(magnitudes.size());
  std::iota(index.begin(), index.end(), 0);
  const auto key = [&](int64_t i) {
    const float v = magnitudes[size_t(i)];
    return std::isnan(v) ? -std::numeric_limits<float>::infinity() : v;
  };
  const auto n = std::clamp<int64_t>(k, 0, int64_t(index.size()));
  std::partial_sort(index.begin(), index.begin() + n, index.end(),
                    [&](int64_t a, int64_t b) { return key(a) != key(b) ? key(a) > key(b) : a < b; });
  index.resize(size_t(n));
  return index;
}

int64_t hot_channel_count(int64_t channels) { return std::max<int64_t>(1, channels / 100); }

QuantizationError quantization_error(MatrixView<const float> x, const Convention &convention,
                                     int block_rows) {
  const BlockScaled q = quantize(x, convention, {.block_rows = block_rows});
  const std::vector<float> back = q.element == FormatId::e2m1 && scale_bytes(q.scale) == 1 && !convention.rule.per_row
                                      ? dequantize_by_table(q, convention.rule)
                                      : dequantize(q);
  QuantizationError e;
  e.elements = x.rows * x.cols;
  for (int64_t r = 0; r < x.rows; ++r) {
    const float *const row = x.row(r), *const approximate = back.data() + r * x.cols;
    e.signal += lane_sum(x.cols, [&](int64_t i) { return double(row[i]) * double(row[i]); });
    e.noise += lane_sum(x.cols, [&](int64_t i) {
      const double d = double(row[i]) - double(approximate[i]);
      return d * d;
    });
    int64_t nonzero = 0, flushed = 0;
    for (int64_t i = 0; i < x.cols; ++i) {
      nonzero += row[i] != 0.0f ? 1 : 0;
      flushed += ((row[i] != 0.0f) & (approximate[i] == 0.0f)) ? 1 : 0;
    }
    e.nonzero += nonzero;
    e.flushed += flushed;
  }
  if (!convention.rule.per_row) count_scales(e, x, q, convention.rule);
  e.ftz = e.nonzero > 0 ? double(e.flushed) / double(e.nonzero) : 0.0;
  e.ftz_all = e.elements > 0 ? double(e.flushed) / double(e.elements) : 0.0;
  e.snr_db = e.signal > 0 ? 10.0 * std::log10(e.signal / e.noise) : kNan; // noise 0: log10(Inf) is Inf
  return e;
}

MassiveActivations massive_activations(MatrixView<const float> x) {
  MassiveActivations m;
  std::vector<double> magnitudes;
  magnitudes.reserve(size_t(x.rows * x.cols));
  for (int64_t r = 0; r < x.rows; ++r)
    for (int64_t c = 0; c < x.cols; ++c) {
      const double magnitude = std::isnan(x(r, c)) ? 0.0 : std::fabs(double(x(r, c)));
      magnitudes.push_back(magnitude);
      if (m.row >= 0 && magnitude <= m.largest) continue;
      m.largest = magnitude;
      m.row = r;
      m.channel = c;
    }
  m.median = percentile(magnitudes, 0.5);
  for (const double magnitude : magnitudes) m.count += magnitude > 100 && magnitude > 1000 * m.median ? 1 : 0;
  return m;
}

Spikes find_spikes(std::span<const double> values) {
  Spikes out;
  std::deque<double> window;
  for (size_t i = 0; i < values.size(); ++i) {
    const double value = values[i];
    double deviation = std::numeric_limits<double>::quiet_NaN();
    if (window.size() >= kSpikeNeeds && std::isfinite(value)) {
      const auto n = double(window.size());
      double sum = 0, squares = 0;
      for (const double x : window) sum += x;
      const double mean = sum / n;
      for (const double x : window) squares += (x - mean) * (x - mean);
      if (squares > 0) {
        deviation = (value - mean) / std::sqrt(squares / n);
        ++out.judged;
        if (std::fabs(deviation) >= kSpikeDeviations) out.at.push_back(i);
      }
    }
    out.deviations.push_back(deviation);
    if (std::isfinite(value)) window.push_back(value);
    if (window.size() > kSpikeWindow) window.pop_front();
  }
  out.score = out.judged > 0 ? 100 * double(out.at.size()) / double(out.judged)
                             : std::numeric_limits<double>::quiet_NaN();
  return out;
}

double jaccard(std::span<const int64_t> a, std::span<const int64_t> b) {
  const SetSizes n = compare_sets(a, b);
  const size_t either = n.a + n.b - n.both;
  return either == 0 ? 1.0 : double(n.both) / double(either);
}

double overlap(std::span<const int64_t> a, std::span<const int64_t> b, int64_t k) {
  return k > 0 ? double(compare_sets(a, b).both) / double(k) : kNan;
}

void SoftmaxAccumulator::add(std::span<const float> logits) {
  if (logits.empty()) return;
  const double top = double(*std::max_element(logits.begin(), logits.end()));
  double sum = 0, weighted = 0; // H = log Z - sum p (z - top), Z relative to top
  for (const float z : logits) {
    const double d = double(z) - top, e = std::exp(d);
    sum += e;
    if (e > 0) weighted += e * d;
  }
  entropy_ += std::log(sum) - weighted / sum;
  max_ = rows_ == 0 ? top : std::max(max_, top);
  logits_.merge(moments(logits));
  ++rows_;
}

SoftmaxStatistics SoftmaxAccumulator::result() const {
  if (rows_ == 0) return {kNan, kNan, kNan, 0};
  return {entropy_ / double(rows_), max_, logits_.excess_kurtosis(), rows_};
}

SwigluAlignment swiglu_alignment(MatrixView<const float> up, MatrixView<const float> gate,
                                 std::span<const float> weights) {
  if (up.rows != gate.rows || up.cols != gate.cols ||
      (!weights.empty() && int64_t(weights.size()) != up.rows))
    throw Error(
        "swiglu_alignment: expected up and gate of one shape and a weight for each of their rows, got " +
        std::to_string(up.rows) + " x " + std::to_string(up.cols) + ", " + std::to_string(gate.rows) + " x " +
        std::to_string(gate.cols) + " and " + std::to_string(weights.size()) + " weights");
  std::vector<double> cosines;
  double sum = 0, weighted = 0, weight = 0;
  for (int64_t r = 0; r < up.rows; ++r) {
    const float *const u = up.row(r), *const g = gate.row(r);
    const double dot = lane_sum(up.cols, [&](int64_t i) { return double(u[i]) * double(g[i]); });
    const double uu = lane_sum(up.cols, [&](int64_t i) { return double(u[i]) * double(u[i]); });
    const double gg = lane_sum(up.cols, [&](int64_t i) { return double(g[i]) * double(g[i]); });
    if (!std::isfinite(uu) || !std::isfinite(gg)) return {kNan, kNan, kNan};
    if (uu == 0 || gg == 0) continue;
    const double cosine = std::fabs(dot) / (std::sqrt(uu) * std::sqrt(gg));
    cosines.push_back(cosine);
    sum += cosine;
    const double w = weights.empty() ? 0.0 : double(weights[size_t(r)]);
    weighted += w * cosine;
    weight += w;
  }
  if (cosines.empty()) return {kNan, kNan, kNan};
  const double mean = sum / double(cosines.size());
  return {mean, percentile(std::move(cosines), 0.99), weight > 0 ? weighted / weight : kNan};
}

double sensitivity_score(double loss, double baseline, double parameters, double reference) {
  return 100.0 * (loss - baseline) / baseline / (parameters / reference);
}

} // namespace nvfp4::models
