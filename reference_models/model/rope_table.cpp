// SPDX-License-Identifier: Apache-2.0
// Tables for rotary position embedding.
#include "nvfp4/reference_models/model/rope_table.hpp"
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/emulator/numerics/trigonometry.hpp"

#include <string>

namespace nvfp4::models {
namespace {

constexpr double kLn2 = 0.693147180559945309417;

/// x = m 2^exponent with m in [2/3, 4/3); x >= 1.
double normalize(double x, int &exponent) {
  exponent = 0;
  for (; x >= 4.0 / 3.0; x *= 0.5) ++exponent;
  return x;
}

/// ln m = 2 atanh((m - 1) / (m + 1)) as a series in at most 1/5.
double logarithm(double x) {
  int exponent;
  const double m = normalize(x, exponent);
  const double s = (m - 1.0) / (m + 1.0), z = s * s;
  double sum = 0;
  for (int n = 23; n >= 3; n -= 2) sum = (sum + 1.0 / n) * z;
  return exponent * kLn2 + (2.0 * s + 2.0 * s * sum);
}

float scaled(float frequency, const RopeScaling &s) {
  const auto factor = float(s.factor);
  if (s.kind == RopeScaling::Kind::none) return frequency;
  if (s.kind == RopeScaling::Kind::linear) return frequency / factor;
  constexpr auto kTurn = float(2 * 3.14159265358979323846);
  const auto low = float(s.low_frequency_factor), original = float(s.original_positions);
  const float length = kTurn / frequency; // of a wave, in positions
  if (length < float(double(s.original_positions) / s.high_frequency_factor)) return frequency;
  if (length > float(double(s.original_positions) / s.low_frequency_factor)) return frequency / factor;
  const float share = (original / length - low) / float(s.high_frequency_factor - s.low_frequency_factor);
  return (1.0f - share) * frequency / factor + share * frequency;
}

} // namespace

double power_of(double base, double x) {
  const double y = x * logarithm(base);
  const auto n = int64_t(y / kLn2 + 0.5);
  const double r = y - double(n) * kLn2; // at most 0.35
  double sum = 1.0;
  for (int k = 17; k >= 1; --k) sum = 1.0 + sum * r / k;
  for (int64_t i = 0; i < n; ++i) sum *= 2.0;
  return sum;
}

template <class T>
RopeTable<T> rope_table(int64_t length, int64_t dim, double base, const RopeScaling &scaling) {
  if (length < 1 || length > 1'000'000 || dim < 2 || dim % 2 != 0 || !(base >= 1.0 && base <= 1e15))
    throw Error("rotary embedding: expected a length from 1 to 1000000, an even head dimension and a base "
                "from 1 to 1e15; "
                "got length " +
                std::to_string(length) + ", dimension " + std::to_string(dim) + ", base " +
                std::to_string(base));
  const auto half = size_t(dim / 2);
  RopeTable<T> table;
  table.cosine.resize(size_t(length) * half);
  table.sine.resize(size_t(length) * half);
  for (size_t i = 0; i < half; ++i) {
    const float fraction = float(2 * i) / float(dim);
    const float frequency = scaled(1.0f / float(power_of(base, double(fraction))), scaling);
    for (size_t t = 0; t < size_t(length); ++t) {
      const float angle = float(t) * frequency;
      const numerics::SinCos value = numerics::sin_cos(double(angle));
      table.cosine[t * half + i] = T(value.cos);
      table.sine[t * half + i] = T(value.sin);
    }
  }
  return table;
}

template RopeTable<float> rope_table<float>(int64_t, int64_t, double, const RopeScaling &);
template RopeTable<double> rope_table<double>(int64_t, int64_t, double, const RopeScaling &);

} // namespace nvfp4::models
