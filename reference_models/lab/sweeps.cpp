// SPDX-License-Identifier: Apache-2.0
// Made-up data: tables of distributions and of pairs of formats, and every convention on them.
#include "nvfp4/reference_models/lab/operand_error.hpp"

#include "nvfp4/emulator/nearest.hpp"
#include "nvfp4/emulator/numerics/elementary.hpp"
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/reference_models/model/parameters.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <fmt/core.h>
#include <limits>

namespace nvfp4::models {
namespace {

void round_all(std::vector<float> &values) {
  for (float &v : values) v = round_to_bf16(v);
}

std::vector<float> gaussian(int64_t rows, int64_t cols, uint64_t seed) {
  std::vector<float> x = gaussian_values(rows * cols, seed, 0);
  round_all(x);
  return x;
}

/// Columns have scales of their own, e^(1.5 g), as channels of activations have.
std::vector<float> channels(int64_t rows, int64_t cols, uint64_t seed) {
  std::vector<float> x = gaussian_values(rows * cols, seed, 0), scales = gaussian_values(cols, seed, 1);
  for (size_t i = 0; i < x.size(); ++i) x[i] *= numerics::exp(1.5f * scales[i % size_t(cols)]);
  round_all(x);
  return x;
}

/// One element in 256 is 30 times as large, at places drawn by themselves.
std::vector<float> outliers(int64_t rows, int64_t cols, uint64_t seed) {
  std::vector<float> x = gaussian_values(rows * cols, seed, 0);
  const RandomKey key{seed, 2};
  for (size_t i = 0; i < x.size(); ++i)
    if (key.bits8(i) == 0) x[i] *= 30.0f;
  round_all(x);
  return x;
}

/// Every element has a scale of its own, e^g.
std::vector<float> heavy(int64_t rows, int64_t cols, uint64_t seed) {
  std::vector<float> x = gaussian_values(rows * cols, seed, 0),
                     scales = gaussian_values(rows * cols, seed, 1);
  for (size_t i = 0; i < x.size(); ++i) x[i] *= numerics::exp(scales[i]);
  round_all(x);
  return x;
}

constexpr std::array kDistributions{
    Distribution{"gaussian", "N(0, 1)", gaussian},
    Distribution{"channels", "N(0, 1) in columns with log-normal scales, sigma 1.5", channels},
    Distribution{"outliers", "N(0, 1), one element in 256 times 30", outliers},
    Distribution{"heavy", "N(0, 1) times a log-normal scale of each element, sigma 1", heavy}};

constexpr std::array kCrestPairs{CrestPair{"mx", "mxint4", "mxfp4-ceil"},
                                 CrestPair{"mx-floor", "mxint4", "mxfp4"}, CrestPair{"nv", "nvint4", "te"}};

/// A rule that no convention has: a convention's with something changed.
struct RuleRow {
  std::string_view name, base;
  void (*change)(Rule &);
};
constexpr std::array kRules{RuleRow{"ue5m3-16", "amd-fp4", [](Rule &) {}},
                            RuleRow{"ue5m3-32", "amd-fp4", [](Rule &r) { r.block = 32; }},
                            RuleRow{"te-32", "te", [](Rule &r) { r.block = 32; }},
                            RuleRow{"te-e1m2", "te", [](Rule &r) { r.element = FormatId::e1m2; }}};

constexpr int64_t kRows = 128, kCols = 1024;  ///< of a sweep's tensor
constexpr int64_t kBlocks = int64_t{1} << 14; ///< of a crest sweep, a draw
constexpr int64_t kLeast = 50;                ///< blocks that a bin needs
constexpr int kBins = 60;

/// Blocks of one convention by crest factor.
struct Bins {
  std::array<double, kBins> signal{}, noise{}, blocks{};

  [[nodiscard]] double ratio(int bin) const { return noise[size_t(bin)] / signal[size_t(bin)]; }
};

Bins crest_bins(const Convention &convention, uint64_t seed, int threads) {
  const int64_t block = convention.rule.block;
  // blocks have scales of their own, 2^u with u in [0, 1): without, a block's crest factor and where its
  // maximum stands between powers of two would be one thing
  std::vector<float> x = gaussian_values(kBlocks * block, seed, 0);
  const RandomKey key{seed, 3};
  for (int64_t r = 0; r < kBlocks; ++r) {
    const float scale = numerics::exp(0.693147181f * (float(key.bits32(uint64_t(r)) >> 8) * 0x1p-24f));
    for (int64_t i = r * block; i < (r + 1) * block; ++i) x[size_t(i)] *= scale;
  }
  round_all(x);
  const MatrixView<const float> view(x.data(), kBlocks, block);
  const std::vector<float> y =
      dequantize(quantize(view, convention, {.threads = threads}), {.threads = threads});
  Bins bins;
  for (int64_t r = 0; r < kBlocks; ++r) {
    double signal = 0, noise = 0, largest = 0;
    for (int64_t i = r * block; i < (r + 1) * block; ++i) {
      const double v = double(x[size_t(i)]), d = double(y[size_t(i)]) - v;
      signal += v * v;
      noise += d * d;
      largest = std::max(largest, std::fabs(v));
    }
    const int bin = int(largest / std::sqrt(signal / double(block)) / kCrestBin);
    if (bin >= kBins || signal == 0) continue;
    bins.signal[size_t(bin)] += signal;
    bins.noise[size_t(bin)] += noise;
    bins.blocks[size_t(bin)] += 1;
  }
  return bins;
}

} // namespace

std::vector<float> gaussian_values(int64_t count, uint64_t seed, uint64_t number) {
  return initial_values({.name = {}, .shape = {count}, .init = Init::normal}, 1.0, seed, number);
}

std::span<const Distribution> distributions() { return kDistributions; }

const Distribution &find_distribution(std::string_view name) {
  for (const Distribution &d : kDistributions)
    if (d.name == name) return d;
  throw Error("unknown distribution '" + std::string(name) + "'" +
              suggestion_among(name, kDistributions, [](const Distribution &d) { return d.name; }));
}

std::span<const CrestPair> crest_pairs() { return kCrestPairs; }

Measures sweep(int draws, int threads, const std::function<void(double)> &progress) {
  Measures out;
  double done = 0;
  const double all = double(draws) * double(kDistributions.size()) * double(conventions().size() + 1);
  for (int draw = 0; draw < draws; ++draw)
    for (const Distribution &d : kDistributions) {
      const std::vector<float> x = d.make(kRows, kCols, uint64_t(draw) + 1);
      const MatrixView<const float> view(x.data(), kRows, kCols);
      const std::string prefix = "sweep/" + std::string(d.name) + "/";
      for (const Convention &c : conventions()) {
        for (const bool hadamard : {false, true}) {
          if (hadamard && !c.can.hadamard) continue;
          OperandRecipe operand{.convention = std::string(c.name), .hadamard = hadamard};
          write_error(operand_error(operand, FormatId::bf16, view, Axis::row, {}, threads), out,
                      prefix + std::string(c.name) + (hadamard ? "+hadamard" : ""));
        }
        if (progress) progress(++done / all);
      }
      for (const RuleRow &row : kRules) {
        Rule rule = find_convention(row.base).rule;
        row.change(rule);
        write_error(rule_error(rule, view), out, prefix + std::string(row.name));
      }
      if (progress) progress(++done / all);
    }
  return out;
}

std::optional<double> first_crossing(std::span<const double> x, std::span<const double> difference) {
  for (size_t i = 1; i < x.size(); ++i)
    if (difference[i - 1] < 0 && difference[i] >= 0)
      return x[i - 1] + (x[i] - x[i - 1]) * difference[i - 1] / (difference[i - 1] - difference[i]);
  return {};
}

Measures crest_sweep(int draws, int threads, const std::function<void(double)> &progress) {
  Measures out;
  const double all = double(draws) * double(kCrestPairs.size());
  double done = 0;
  std::vector<std::string_view> shown; // conventions that stand in several pairs, once
  for (const CrestPair &pair : kCrestPairs) {
    const bool show_low = std::ranges::find(shown, pair.low) == shown.end(),
               show_high = std::ranges::find(shown, pair.high) == shown.end();
    shown.push_back(pair.low);
    shown.push_back(pair.high);
    for (int draw = 0; draw < draws; ++draw) {
      const uint64_t seed = uint64_t(draw) + 1;
      const Bins low = crest_bins(find_convention(pair.low), seed, threads),
                 high = crest_bins(find_convention(pair.high), seed, threads);
      std::vector<double> x, difference;
      for (int b = 0; b < kBins; ++b) {
        if (low.blocks[size_t(b)] < kLeast) continue;
        x.push_back((b + 0.5) * kCrestBin);
        difference.push_back(std::log(low.ratio(b) / high.ratio(b)));
        const auto note = [&](std::string_view convention, const Bins &bins) {
          out.add(fmt::format("crest/{}/{:.2f}", convention, x.back()), -10 * std::log10(bins.ratio(b)));
        };
        if (show_low) note(pair.low, low);
        if (show_high) note(pair.high, high);
      }
      out.add("crossing/" + std::string(pair.name),
              first_crossing(x, difference).value_or(std::numeric_limits<double>::quiet_NaN()));
      if (progress) progress(++done / all);
    }
  }
  return out;
}

} // namespace nvfp4::models
