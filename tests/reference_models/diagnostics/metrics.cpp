// SPDX-License-Identifier: Apache-2.0
// The measures against values worked out by hand, and the laws that they have to obey.
#include "tests/catch.hpp"

#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/reference_models/diagnostics/metrics.hpp"

#include <cmath>
#include <limits>
#include <random>

using namespace nvfp4;
using namespace nvfp4::models;

namespace {

MatrixView<const float> view(const std::vector<float> &v, int64_t rows, int64_t cols) {
  return {v.data(), rows, cols};
}

std::vector<float> gaussian(size_t n, unsigned seed, float scale = 1.0f) {
  std::mt19937 generator(seed);
  std::vector<float> v(n);
  for (float &x : v) { // sum of 12 uniforms, the same on every platform
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += double(generator()) / 4294967296.0;
    x = scale * float(sum);
  }
  return v;
}

} // namespace

TEST_CASE("kurtosis: one spike in a block of 256, uniform, two values, a constant") {
  std::vector<float> x(256, 0.0f);
  x[37] = -3.0f;
  // one of n: kurtosis is n - 2 + 1 / (n - 1), minus 3
  const double spike = 256 - 2 + 1.0 / 255 - 3;
  const Kurtosis k = kurtosis(view(x, 16, 16));
  CHECK(k.tensor == Approx(spike).epsilon(1e-12));
  CHECK(k.block_max == Approx(spike).epsilon(1e-12));
  CHECK(k.block_p99 == Approx(spike).epsilon(1e-12));
  CHECK(k.blocks == 1);
  CHECK(spike == Approx(251.0039).epsilon(1e-6));

  for (size_t i = 0; i < 256; ++i) x[i] = float(i) / 256; // -1.2 (n^2 + 1) / (n^2 - 1)
  CHECK(kurtosis(view(x, 16, 16)).tensor == Approx(-1.2 * (65536.0 + 1) / (65536.0 - 1)).epsilon(1e-10));
  for (size_t i = 0; i < 256; ++i) x[i] = i % 2 ? 5.0f : 1.0f;
  CHECK(kurtosis(view(x, 16, 16)).tensor == Approx(-2).epsilon(1e-12));
  x.assign(256, 4.0f);
  CHECK(std::isnan(kurtosis(view(x, 16, 16)).tensor));
  CHECK(kurtosis(view(x, 16, 16)).blocks == 0);
  x[3] = std::numeric_limits<float>::infinity();
  CHECK(std::isnan(kurtosis(view(x, 16, 16)).tensor));
  CHECK(std::isnan(kurtosis(view({}, 0, 16)).tensor));
}

TEST_CASE("kurtosis: tiles merge to the tensor, ragged edges and strides included") {
  const int64_t rows = 37, cols = 53, stride = 61;
  std::vector<float> storage = gaussian(size_t(rows * stride), 5), dense;
  for (float &v : storage) v = v * v * v + 100.0f; // skewed, far from 0
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) dense.push_back(storage[size_t(r * stride + c)]);
  double mean = 0, m2 = 0, m4 = 0;
  for (const float v : dense) mean += double(v) / double(dense.size());
  for (const float v : dense) {
    const double d = double(v) - mean;
    m2 += d * d;
    m4 += d * d * d * d;
  }
  const double expected = double(dense.size()) * m4 / (m2 * m2) - 3;
  std::vector<double> map;
  const Kurtosis k = kurtosis({storage.data(), rows, cols, stride}, &map);
  CHECK(k.tensor == Approx(expected).epsilon(1e-9));
  CHECK(moments(dense).excess_kurtosis() == Approx(expected).epsilon(1e-9));
  CHECK(k.blocks == 2 * 3); // whole tiles only
  REQUIRE(map.size() == 6);
  CHECK(k.block_max == *std::max_element(map.begin(), map.end()));

  Moments whole = moments(dense), left = moments(std::span(dense).first(700)),
          right = moments(std::span(dense).subspan(700));
  left.merge(right);
  CHECK(left.count == whole.count);
  CHECK(left.m2 == Approx(whole.m2).epsilon(1e-12));
  CHECK(left.m3 == Approx(whole.m3).epsilon(1e-9));
  CHECK(left.m4 == Approx(whole.m4).epsilon(1e-12));
}

TEST_CASE("percentile: nearest rank") {
  std::vector<double> v;
  for (int i = 200; i > 0; --i) v.push_back(i);
  CHECK(percentile(v, 0.99) == 198);
  CHECK(percentile(v, 0.995) == 199);
  CHECK(percentile(v, 1.0) == 200);
  CHECK(percentile(v, 0.0) == 1);
  CHECK(percentile({7.0}, 0.99) == 7);
  CHECK(std::isnan(percentile({}, 0.5)));
}

TEST_CASE("channels: maxima, means, ties to the lower index") {
  const std::vector<float> x = {1, -4, 2, 4, -3, 2, 0, 4}; // (2, 4)
  const ChannelMagnitudes m = channel_magnitudes(view(x, 2, 4));
  CHECK(m.max == std::vector<float>{3, 4, 2, 4});
  CHECK(m.mean == std::vector<float>{2, 3, 1, 4});
  CHECK(top_channels(m.max, 3) == std::vector<int64_t>{1, 3, 0});
  CHECK(top_channels(m.max, 99) == std::vector<int64_t>{1, 3, 0, 2});
  CHECK(top_channels(m.max, 0).empty());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  CHECK(top_channels(std::vector<float>{nan, 1, nan, 2}, 4) == std::vector<int64_t>{3, 1, 0, 2});
  CHECK(hot_channel_count(16) == 1);
  CHECK(hot_channel_count(199) == 1);
  CHECK(hot_channel_count(384) == 3);
}

TEST_CASE("flush to zero: the threshold is amax / 24 of the block") {
  // amax 6 makes scale and global scale exact: the block's step is 1, and 0.25 lies on the tie that goes to 0
  const Convention &te = find_convention("te");
  std::vector<float> x(16, 6.0f);
  const float above = std::nextafter(0.25f, 1.0f);
  x[1] = 0.25f;
  x[2] = -0.25f;
  x[3] = above;
  x[4] = -above;
  x[5] = 0.0f;
  x[6] = -0.0f;
  x[7] = 1e-20f;
  const QuantizationError e = quantization_error(view(x, 1, 16), te, 1);
  CHECK(e.elements == 16);
  CHECK(e.nonzero == 14);
  CHECK(e.flushed == 3);
  CHECK(e.ftz == Approx(3.0 / 14));
  CHECK(e.ftz_all == Approx(3.0 / 16));

  // a hot neighbour flushes the rest of its own block only
  std::vector<float> y(32, 1.0f);
  y[0] = 100.0f;
  CHECK(quantization_error(view(y, 1, 32), te, 1).flushed == 15);
  // in a 16x16 tile it reaches the rows below
  std::vector<float> z(256, 1.0f);
  z[0] = 100.0f;
  CHECK(quantization_error(view(z, 16, 16), te, 1).flushed == 15);
  CHECK(quantization_error(view(z, 16, 16), te, 16).flushed == 255);
}

TEST_CASE("signal to noise: exact tensors, zeros, and the definition") {
  const Convention &te = find_convention("te");
  const float grid[] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
  std::vector<float> x;
  for (int i = 0; i < 64; ++i) x.push_back((i % 3 ? 1.0f : -1.0f) * grid[i % 8]);
  const QuantizationError exact = quantization_error(view(x, 4, 16), te, 1);
  CHECK(exact.noise == 0);
  CHECK(exact.snr_db == std::numeric_limits<double>::infinity());
  CHECK(exact.flushed == 0);
  const QuantizationError zero = quantization_error(view(std::vector<float>(64, 0.0f), 4, 16), te, 1);
  CHECK(std::isnan(zero.snr_db));
  CHECK(zero.ftz == 0);

  // every convention and odd shapes: the table of values is dequantize()
  const std::vector<float> g = gaussian(48 * 40, 11, 0.02f);
  for (const Convention &c : conventions())
    for (const int block_rows : {1, 16}) {
      if (block_rows == 16 && (!c.can.tiles || c.rule.block != 16)) continue;
      const MatrixView<const float> v{g.data(), 48, 37, 40};
      const std::vector<float> back = dequantize(quantize(v, c, {.block_rows = block_rows}));
      double signal = 0, noise = 0;
      int64_t flushed = 0;
      for (int64_t r = 0; r < 48; ++r)
        for (int64_t k = 0; k < 37; ++k) {
          const double a = double(v(r, k)), b = double(back[size_t(r * 37 + k)]);
          signal += a * a;
          noise += (a - b) * (a - b);
          flushed += a != 0 && b == 0 ? 1 : 0;
        }
      INFO(c.name << " " << block_rows);
      const QuantizationError e = quantization_error(v, c, block_rows);
      CHECK(e.flushed == flushed);
      CHECK(e.snr_db == Approx(10 * std::log10(signal / noise)).epsilon(1e-9));
      CHECK(e.snr_db > 10);
    }
}

TEST_CASE("scales that underflow, scales at the largest, elements beyond their block") {
  const Convention &te = find_convention("te"), &mx = find_convention("mxfp4");
  std::vector<float> x(64, 0.0f);
  x[0] = 1000;                                        // of the block that decides the global scale
  for (int i = 16; i < 32; ++i) x[size_t(i)] = 1e-9f; // a scale far below 2^-10 of the largest
  x[40] = 300;
  const QuantizationError e = quantization_error({x.data(), 2, 32}, te, 1);
  CHECK(e.blocks == 4);
  CHECK(e.scale_underflows == 1);
  CHECK(e.largest_scales == 1);
  CHECK(e.flushed == 16);
  // MXFP4 rounds its scale down to a power of two: 7 is beyond 6, 6 is not
  std::vector<float> y(96, 0.5f);
  y[3] = 7;
  y[4] = -7.5f;
  y[40] = 6;
  const QuantizationError m = quantization_error({y.data(), 1, 96}, mx, 1);
  CHECK(m.blocks == 3);
  CHECK(m.saturated == 2);
  CHECK(m.scale_underflows == 0);
  CHECK(m.largest_scales == 0);
  const std::vector<float> ragged(3 * 20, 1.0f); // a block of four at the end of each row
  CHECK(quantization_error({ragged.data(), 3, 20}, te, 1).blocks == 6);
}

TEST_CASE("massive activations: above 100 and above 1000 medians") {
  std::vector<float> x(200, 0.05f);
  x[7] = 101;
  x[150] = -120;
  x[151] = 99;
  const MassiveActivations m = massive_activations({x.data(), 10, 20});
  CHECK(m.largest == 120);
  CHECK(m.median == Approx(0.05f));
  CHECK(m.count == 2);
  CHECK(m.row == 7);
  CHECK(m.channel == 10);
  for (float &v : x) v = v == 0.05f ? 0.2f : v; // now 1000 medians are 200
  CHECK(massive_activations({x.data(), 10, 20}).count == 0);
  x[0] = std::numeric_limits<float>::quiet_NaN();
  CHECK(massive_activations({x.data(), 10, 20}).largest == 120);
  CHECK(massive_activations({x.data(), 0, 20}).row == -1);
}

TEST_CASE("sets: Jaccard and overlap") {
  const std::vector<int64_t> a = {5, 1, 9, 3}, b = {3, 9, 2, 7}, none;
  CHECK(jaccard(a, b) == Approx(2.0 / 6));
  CHECK(jaccard(a, a) == 1);
  CHECK(jaccard(a, none) == 0);
  CHECK(jaccard(none, none) == 1);
  CHECK(jaccard(std::vector<int64_t>{1, 1, 2}, std::vector<int64_t>{2, 1}) == 1);
  CHECK(overlap(a, b, 4) == 0.5);
}

TEST_CASE("softmax: entropy of known distributions, independent of a shift") {
  SoftmaxAccumulator uniform;
  uniform.add(std::vector<float>(8, 2.5f));
  CHECK(uniform.result().entropy == Approx(std::log(8.0)));
  CHECK(uniform.result().logit_max == 2.5);
  CHECK(std::isnan(uniform.result().logit_kurtosis));

  SoftmaxAccumulator certain;
  certain.add(std::vector<float>{500.0f, -500.0f, -800.0f});
  CHECK(certain.result().entropy == Approx(0).margin(1e-300));
  certain.add(std::vector<float>{-7.0f}); // one key: no choice
  CHECK(certain.result().rows == 2);
  CHECK(certain.result().entropy == Approx(0).margin(1e-300));
  CHECK(certain.result().logit_max == 500);

  SoftmaxAccumulator two, shifted; // p = 3/4, 1/4
  const float odds = float(std::log(3.0));
  two.add(std::vector<float>{odds, 0.0f});
  shifted.add(std::vector<float>{odds - 64.0f, -64.0f});
  CHECK(two.result().entropy == Approx(-0.75 * std::log(0.75) - 0.25 * std::log(0.25)).epsilon(1e-6));
  CHECK(shifted.result().entropy == Approx(two.result().entropy).epsilon(1e-5));
  CHECK(std::isnan(SoftmaxAccumulator{}.result().entropy));
}

TEST_CASE("SwiGLU alignment: parallel, orthogonal, random") {
  const std::vector<float> up = {1, 2, 0, 3, 0, 0, 0, 0, 1}, gate = {-2, -4, 0, 0, 5, 0, 1, 1, 1}; // (3, 3)
  const float third = float(1 / std::sqrt(3.0));
  SwigluAlignment a = swiglu_alignment(view(up, 3, 3), view(gate, 3, 3));
  CHECK(a.mean_abs == Approx((1 + 0 + double(third)) / 3));
  CHECK(a.p99_abs == Approx(1));
  CHECK(std::isnan(a.weighted));
  a = swiglu_alignment(view(up, 3, 3), view(gate, 3, 3), std::vector<float>{0, 3, 1});
  CHECK(a.weighted == Approx(double(third) / 4));
  const int64_t d = 128, units = 2000;
  const std::vector<float> u = gaussian(size_t(d * units), 1), g = gaussian(size_t(d * units), 2);
  CHECK(swiglu_alignment(view(u, units, d), view(g, units, d)).mean_abs ==
        Approx(std::sqrt(2 / (3.14159265358979 * double(d)))).epsilon(0.05));
  CHECK_THROWS_AS(swiglu_alignment(view(up, 3, 3), view(gate, 1, 3)), Error);
}

TEST_CASE("sensitivity: percent of the baseline, for each reference of parameters") {
  CHECK(sensitivity_score(2.02, 2.0, 50, 100) == Approx(2.0));
  CHECK(sensitivity_score(1.98, 2.0, 100, 100) == Approx(-1.0));
}

TEST_CASE("spikes are values seven standard deviations away from those before them") {
  std::vector<double> x;
  for (int i = 0; i < 200; ++i)
    x.push_back(1 + 0.01 * (i % 2 ? 1 : -1)); // mean 1, deviation 0.01 over an even window
  Spikes s = find_spikes(x);
  CHECK(s.at.empty());
  CHECK(s.judged == 150);
  CHECK(s.score == 0);
  CHECK(std::isnan(s.deviations[49]));
  CHECK(s.deviations[50] == Approx(-1));
  x[100] = 1 + 0.0699;
  CHECK(find_spikes(x).at.empty());
  x[100] = 1 + 0.0701;
  s = find_spikes(x);
  CHECK(s.at == std::vector<size_t>{100});
  CHECK(s.score == Approx(100.0 / 150));
  x[100] = 1 - 0.0701; // as far below
  CHECK(find_spikes(x).at == std::vector<size_t>{100});
  x[100] = 5; // a spike widens the window of those after it
  x[101] = 1.1;
  CHECK(find_spikes(x).at == std::vector<size_t>{100});
  x[100] = std::numeric_limits<double>::infinity(); // neither judged nor in the window
  x[101] = 1.08;
  s = find_spikes(x);
  CHECK(s.at == std::vector<size_t>{101});
  CHECK(std::isnan(s.deviations[100]));
  CHECK(s.judged == 149);
  // the window holds the last 1000
  std::vector<double> y(60, 100.0);
  for (int i = 0; i < 1100; ++i) y.push_back(i % 2);
  y.push_back(5);
  CHECK(find_spikes(y).at.back() == y.size() - 1); // 9 deviations of 0.5 without the hundreds
  y.erase(y.begin() + 60, y.begin() + 560);
  CHECK((find_spikes(y).at.empty() || find_spikes(y).at.back() != y.size() - 1));
  CHECK(std::isnan(find_spikes(std::vector<double>(50, 1.0)).score));
  CHECK(find_spikes(std::vector<double>(80, 1.0)).judged == 0); // a constant has no deviation
}
