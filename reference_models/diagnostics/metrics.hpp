// SPDX-License-Identifier: Apache-2.0
// Measures of tensors that explain what FP4 does to them: tails, channels, flushed elements, noise, overlap
// of sets. Pure functions of FP32 matrices, computed in FP64 in one written order: the same numbers for any
// thread count.
#pragma once
#include "nvfp4/emulator/quantize/convention.hpp"
#include "nvfp4/emulator/quantize/matrix_view.hpp"

#include <cstdint>
#include <span>
#include <vector>

namespace nvfp4::models {

/// Count, mean and sums of powers of deviations from it. Merging is exact up to FP64 rounding (Pebay
/// 2008, 3.1).
struct Moments {
  int64_t count = 0;
  double mean = 0, m2 = 0, m3 = 0, m4 = 0;

  void merge(const Moments &other);
  /// E[(x - mu)^4] / E[(x - mu)^2]^2 - 3; NaN without elements, for a constant, or where an element is not
  /// finite.
  [[nodiscard]] double excess_kurtosis() const;
};

[[nodiscard]] Moments moments(std::span<const float> values);

struct Kurtosis {
  double tensor = 0; ///< excess kurtosis over all elements
  /// Over the values of the 16x16 tiles; NaN where there is none. One spike in a tile of 256 gives 251.004,
  /// the largest.
  double block_max = 0, block_p99 = 0, block_mean = 0;
  int64_t blocks = 0; ///< tiles that counted: whole ones that are not constant
};

/// `map`, if given, receives the tiles' values, (rows / 16, cols / 16), NaN for constant tiles.
[[nodiscard]] Kurtosis kurtosis(MatrixView<const float> x, std::vector<double> *map = nullptr);

/// The smallest element that at least the fraction p of them does not exceed (nearest rank); NaN without
/// elements. Elements must not be NaN.
[[nodiscard]] double percentile(std::vector<double> values, double p);

/// A channel is a column: an input feature of activations and weights, an output feature of gradients.
struct ChannelMagnitudes {
  std::vector<float> max;  // (cols): max over rows of |x|; NaN ignored
  std::vector<float> mean; // (cols): mean over rows of |x|
};
[[nodiscard]] ChannelMagnitudes channel_magnitudes(MatrixView<const float> x);

/// Indices of the min(k, size) largest, largest first, of equals the lower index first; NaN counts as
/// smallest.
[[nodiscard]] std::vector<int64_t> top_channels(std::span<const float> magnitudes, int64_t k);

/// Size of a hot set: 1 % of the channels, at least 1 (the fraction is a choice, not the paper's).
[[nodiscard]] int64_t hot_channel_count(int64_t channels);

struct QuantizationError {
  int64_t elements = 0, nonzero = 0;
  int64_t flushed = 0; ///< x != 0 and Q(x) == 0
  double ftz = 0;      ///< flushed / nonzero; 0 where nothing is nonzero
  double ftz_all = 0;  ///< flushed / elements
  double signal = 0;   ///< sum of x^2
  double noise = 0;    ///< sum of (x - Q(x))^2
  double snr_db = 0;   ///< 10 log10(signal / noise): +Inf where exact, NaN where nothing was there
  // Of blocks of one row (a tile counts once a row); 0 where rows have global scales of their own.
  int64_t blocks = 0;
  int64_t scale_underflows = 0; ///< a scale of 0 over a nonzero element
  int64_t largest_scales = 0;   ///< scales that are the format's largest: nothing above them is left
  int64_t saturated = 0;        ///< elements beyond the largest value of their block
};

/// Round to nearest, blocks along the rows of x; block_rows 1 or 16 as in QuantizeOptions. The tensor is
/// measured as the main operand of a product: what a residual puts back does not count.
[[nodiscard]] QuantizationError quantization_error(MatrixView<const float> x, const Convention &convention,
                                                   int block_rows);

/// Massive activations as Sun et al. 2024 ("Massive Activations in Large Language Models") count them: |x|
/// above 100 and above 1000 times the median |x|. NaN counts as smallest.
struct MassiveActivations {
  double largest = 0, median = 0; ///< of |x|; median by nearest rank
  int64_t count = 0;
  int64_t row = -1, channel = -1; ///< of the first of the largest; -1 without elements
};
[[nodiscard]] MassiveActivations massive_activations(MatrixView<const float> x);

/// Spikes of a series such as the gradient norm over the steps, as the spike score of OLMo 2 (2025, arXiv
/// 2501.00656) counts them: values at least seven standard deviations away from the mean of the last 1000.
/// Ours: the window ends before the value, it needs 50 values, its standard deviation is that of all of them
/// (divided by n), and only finite values are judged or stand in it.
inline constexpr size_t kSpikeWindow = 1000, kSpikeNeeds = 50;
inline constexpr double kSpikeDeviations = 7;
struct Spikes {
  /// By value: its distance from the window's mean in standard deviations, signed; NaN where it is not judged
  /// or the window is constant.
  std::vector<double> deviations;
  std::vector<size_t> at; ///< indices of the spikes
  size_t judged = 0;      ///< values with a deviation
  double score = 0;       ///< 100 spikes / judged; NaN where none was judged
};
[[nodiscard]] Spikes find_spikes(std::span<const double> values);

/// |A n B| / |A u B| of the sets of the elements; 1 for two empty sets.
[[nodiscard]] double jaccard(std::span<const int64_t> a, std::span<const int64_t> b);
/// |A n B| / k.
[[nodiscard]] double overlap(std::span<const int64_t> a, std::span<const int64_t> b, int64_t k);

struct SoftmaxStatistics {
  double entropy = 0;        ///< nats, mean over rows of -sum p log p
  double logit_max = 0;      ///< largest logit of all rows
  double logit_kurtosis = 0; ///< excess, over the logits of all rows together
  int64_t rows = 0;
};

/// Takes the attention logits of one (batch, head, query) at a time, masked entries left out.
class SoftmaxAccumulator {
public:
  void add(std::span<const float> logits);
  [[nodiscard]] SoftmaxStatistics result() const;

private:
  double entropy_ = 0, max_ = 0;
  int64_t rows_ = 0;
  Moments logits_;
};

struct SwigluAlignment {
  double mean_abs = 0; ///< mean over units of |cosine(up_i, gate_i)|; near sqrt(2 / (pi d)) for random rows
  double p99_abs = 0;
  double weighted = 0; ///< mean of |cosine| weighted with `weights`; NaN without weights
};

/// `up` and `gate` are (units, d); `weights` is empty or one number >= 0 a unit, such as its mean
/// |activation|. Units with a zero row are left out; with a NaN or Inf in a row all is NaN. Throws Error
/// where the shapes differ.
[[nodiscard]] SwigluAlignment swiglu_alignment(MatrixView<const float> up, MatrixView<const float> gate,
                                               std::span<const float> weights = {});

/// 100 (loss - baseline) / baseline / (parameters / reference): relative loss in percent caused by quantizing
/// one operator alone, for each `reference` parameters of it.
[[nodiscard]] double sensitivity_score(double loss, double baseline, double parameters, double reference);

} // namespace nvfp4::models
