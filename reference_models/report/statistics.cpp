// SPDX-License-Identifier: Apache-2.0
// Student's distribution through the incomplete beta function, inverted by bisection.
#include "nvfp4/reference_models/report/statistics.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nvfp4::models {
namespace {

/// The continued fraction of I_x(a, b) (DLMF 8.17.22), by Lentz's method; quick for x < (a + 1) / (a + b +
/// 2).
double beta_fraction(double a, double b, double x) {
  constexpr double tiny = 1e-300;
  const auto guard = [](double v) { return std::fabs(v) < tiny ? tiny : v; };
  double c = 1, d = 1 / guard(1 - (a + b) * x / (a + 1)), h = d;
  for (int m = 1; m <= 1000; ++m) {
    const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
    const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
    for (const double term : {even, odd}) {
      d = 1 / guard(1 + term * d);
      c = guard(1 + term / c);
      h *= c * d;
    }
    if (std::fabs(c * d - 1) < 1e-15) break;
  }
  return h;
}

double incomplete_beta(double a, double b, double x) {
  if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
  const double front =
      std::exp(std::lgamma(a + b) - std::lgamma(a) - std::lgamma(b) + a * std::log(x) + b * std::log1p(-x));
  return x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a
                                   : 1 - front * beta_fraction(b, a, 1 - x) / b;
}

} // namespace

bool Estimate::excludes_zero() const { return half_width && std::fabs(mean) > *half_width; }

Estimate estimate(std::span<const double> values) {
  Estimate e{int64_t(values.size()), std::numeric_limits<double>::quiet_NaN(), {}};
  if (values.empty()) return e;
  double sum = 0, squares = 0;
  for (const double v : values) sum += v;
  e.mean = sum / double(e.n);
  if (e.n < 2) return e;
  for (const double v : values) squares += (v - e.mean) * (v - e.mean);
  const double deviation = std::sqrt(squares / double(e.n - 1));
  e.half_width = student_t_quantile(0.975, double(e.n - 1)) * deviation / std::sqrt(double(e.n));
  return e;
}

std::optional<int64_t> values_to_exclude_zero(const Estimate &e) {
  if (!e.half_width || !(std::fabs(e.mean) > 0) || !std::isfinite(*e.half_width)) return {};
  const double deviation =
      *e.half_width * std::sqrt(double(e.n)) / student_t_quantile(0.975, double(e.n - 1));
  const auto excludes = [&](int64_t n) {
    return std::fabs(e.mean) > student_t_quantile(0.975, double(n - 1)) * deviation / std::sqrt(double(n));
  };
  constexpr int64_t kMost = 1'000'000;
  int64_t low = e.n, high = kMost; // the half width falls with n
  if (excludes(low)) return low;
  if (!excludes(high)) return {};
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (excludes(middle) ? high : low) = middle;
  }
  return high;
}

double student_t_quantile(double p, double degrees) {
  if (p == 0.5) return 0;
  if (p < 0.5) return -student_t_quantile(1 - p, degrees);
  // P(|T| > t) = I_{v / (v + t^2)}(v / 2, 1 / 2) falls in t
  const auto tail = [&](double t) {
    return incomplete_beta(degrees / 2, 0.5, degrees / (degrees + t * t)) / 2;
  };
  double low = 0, high = 1;
  while (tail(high) > 1 - p && high < 1e15) high *= 2;
  for (int i = 0; i < 200 && high - low > 1e-13 * high; ++i) {
    const double middle = (low + high) / 2;
    (tail(middle) > 1 - p ? low : high) = middle;
  }
  return (low + high) / 2;
}

double relative_gap(double loss, double baseline) { return 100.0 * (loss - baseline) / baseline; }

std::vector<double> centred_mean(std::span<const double> values, int64_t reach) {
  const auto n = int64_t(values.size());
  std::vector<double> out(values.size());
  for (int64_t i = 0; i < n; ++i) {
    const int64_t r = std::min(std::max<int64_t>(0, reach), i), last = std::min(n - 1, i + r);
    double sum = 0;
    for (int64_t j = i - r; j <= last; ++j) sum += values[size_t(j)];
    out[size_t(i)] = sum / double(last - i + r + 1);
  }
  return out;
}

} // namespace nvfp4::models
