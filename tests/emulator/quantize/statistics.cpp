// SPDX-License-Identifier: Apache-2.0
// Statistics of a quantization, counted by hand.
#include "tests/catch.hpp"
#include "tests/emulator/quantize/support.hpp"

#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/statistics.hpp"

#include <cmath>
#include <limits>

using namespace nvfp4;
using namespace nvfp4::test;

namespace {
constexpr float kInf = std::numeric_limits<float>::infinity(), kNaN = std::numeric_limits<float>::quiet_NaN();

QuantizeStatistics of(const std::vector<float> &x, int64_t rows, const char *convention,
                      const QuantizeOptions &o = {}) {
  const MatrixView<const float> view(x.data(), rows, int64_t(x.size()) / rows);
  const auto all = quantize_statistics(view, quantize(view, find_convention(convention), o));
  return total(all);
}
} // namespace

TEST_CASE("statistics count what is not finite and where formats end", "[quantize][statistics]") {
  // five blocks of 16 under a given amax of 448 * 6: S = 1
  std::vector<float> x(80, 0.0f);
  x[16] = 1e-30f; // block 1: its scale rounds to 0
  for (int i = 32; i < 48; ++i) x[size_t(i)] = 6.0f;
  x[33] = 0.1f; // block 2: flushed, below 0.25
  x[48] = 1e6f; // block 3: scale saturates, element far beyond
  x[64] = kNaN, x[65] = kInf, x[66] = 1.0f;
  QuantizeOptions o;
  o.global_amax = 2688.0f;
  const QuantizeStatistics s = of(x, 1, "te", o);
  CHECK(s.elements == 80);
  CHECK(s.nan == 1);
  CHECK(s.infinity == 1);
  CHECK(s.blocks == 5);
  CHECK(s.zero_blocks == 1);
  CHECK(s.scale_underflow == 1);
  CHECK(s.scale_saturated == 2); // the Inf block too
  CHECK(s.scale_nan == 0);
  CHECK(s.saturated == 1);
  CHECK(s.flushed == 3); // 1e-30, 0.1, and 1 beside Inf
  CHECK(s.left_out == 2);
  CHECK_FALSE(s.made_nan());
  CHECK(std::isfinite(s.snr_db()));
}

TEST_CASE("a preset that makes NaN of zeros is told apart from one that does not", "[quantize][statistics]") {
  const std::vector<float> zeros(64, 0.0f);
  for (const Convention &c : conventions()) {
    INFO(c.name);
    const QuantizeStatistics s = of(zeros, 2, std::string(c.name).c_str());
    const bool nan = c.name == "torchao" || c.name == "torchao015" || c.name == "modelopt";
    CHECK(s.made_nan() == nan);
    CHECK(s.scale_nan == (nan ? s.blocks : 0));
    CHECK(s.zero_blocks == s.blocks);
    CHECK(std::isnan(s.snr_db()));
  }
}

TEST_CASE("signal and noise are those of the dequantized tensor", "[quantize][statistics]") {
  const Matrix m = gaussian(33, 48, 7);
  std::vector<float> x;
  for (int64_t r = 0; r < m.rows; ++r)
    for (int64_t c = 0; c < m.cols; ++c) x.push_back(m(r, c) * (c % 16 == 3 ? 40.0f : 1.0f));
  const MatrixView<const float> view(x.data(), m.rows, m.cols);
  for (const Axis axis : {Axis::row, Axis::col}) {
    QuantizeOptions o;
    o.axis = axis;
    o.block_rows = 16;
    const BlockScaled q = quantize(view, find_convention("te"), o);
    const std::vector<float> y = dequantize(q);
    double signal = 0, noise = 0;
    for (size_t i = 0; i < x.size(); ++i) {
      signal += double(x[i]) * x[i];
      noise += (double(x[i]) - y[i]) * (double(x[i]) - y[i]);
    }
    const auto rows = quantize_statistics(view, q);
    CHECK(int64_t(rows.size()) == (q.rows + 15) / 16);
    const QuantizeStatistics s = total(rows);
    CHECK(s.elements == int64_t(x.size()));
    CHECK(s.blocks == int64_t(rows.size()) * q.scale_cols());
    CHECK(std::fabs(s.signal / signal - 1) < 1e-12);
    CHECK(std::fabs(s.noise / noise - 1) < 1e-12);
    CHECK(quantize_statistics(view, q, 1)[0].noise == rows[0].noise); // of any number of threads
  }
}
