// SPDX-License-Identifier: Apache-2.0
// What the tests of kernels share: random values, comparison of arrays, and gradients checked against
// differences.
#pragma once
#include "nvfp4/reference_models/backend/backend.hpp"
#include "tests/catch.hpp"

#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace nvfp4::test {

using Reals = std::vector<double>;

/// Uniform numbers that are the same with every standard library.
struct Random {
  std::mt19937_64 engine;

  explicit Random(uint64_t seed) : engine(seed) {}
  double uniform(double low, double high) { return low + (high - low) * (double(engine() >> 11) * 0x1p-53); }
  int64_t below(int64_t n) { return int64_t(engine() % uint64_t(n)); }
  template <class T = double> std::vector<T> values(int64_t n, double low = -1, double high = 1) {
    std::vector<T> out(static_cast<size_t>(n));
    for (T &x : out) x = T(uniform(low, high));
    return out;
  }
};

template <class T> std::vector<T> zeros(int64_t n) { return std::vector<T>(static_cast<size_t>(n)); }

template <class T> double dot(const std::vector<T> &a, const std::vector<T> &b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += double(a[i]) * double(b[i]);
  return sum;
}

template <class T> double largest(const std::vector<T> &a) {
  double m = 0;
  for (T x : a) m = std::fmax(m, std::fabs(double(x)));
  return m;
}

template <class T> bool all_finite(const std::vector<T> &a) {
  for (T x : a)
    if (!std::isfinite(x)) return false;
  return true;
}

/// Largest |a - b| over the largest |b|; NaN when an element is.
template <class A, class B> double difference(const std::vector<A> &a, const std::vector<B> &b) {
  REQUIRE(a.size() == b.size());
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double d = std::fabs(double(a[i]) - double(b[i]));
    if (!(d <= worst)) worst = d;
    if (std::isnan(d)) return d;
  }
  return worst == 0 ? 0 : worst / largest(b);
}

/// The derivative of f at 0 by five points, with an error of h^4 / 30 of its fifth derivative.
inline double derivative(const std::function<double(double)> &f, double h) {
  return (8 * (f(h) - f(-h)) - (f(2 * h) - f(-2 * h))) / (12 * h);
}

struct Input {
  std::string name;
  Reals *value;
  Reals gradient; ///< what a backward kernel says
};

/// Checks gradients against differences of `loss`, over some coordinates and directions
/// of each input, relative to the length of the gradient.
inline void check_gradients(const std::function<double()> &loss, const std::vector<Input> &inputs,
                            Random &random, double h = 1e-3) {
  for (const Input &input : inputs) {
    const Reals start = *input.value;
    REQUIRE(start.size() == input.gradient.size());
    const double length = std::sqrt(dot(input.gradient, input.gradient));
    INFO(input.name << ": gradient of length " << length);
    REQUIRE(length > 0);
    for (int trial = 0; trial < 8; ++trial) {
      Reals direction = zeros<double>(int64_t(start.size()));
      if (trial < 5)
        direction[size_t(random.below(int64_t(start.size())))] = 1;
      else
        direction = random.values(int64_t(start.size()));
      const double norm = std::sqrt(dot(direction, direction));
      for (double &d : direction) d /= norm;
      const double measured = derivative(
          [&](double t) {
            for (size_t i = 0; i < start.size(); ++i) (*input.value)[i] = start[i] + t * direction[i];
            return loss();
          },
          h);
      *input.value = start;
      const double error = std::fabs(measured - dot(direction, input.gradient)) / length;
      CAPTURE(trial, measured, dot(direction, input.gradient), error);
      CHECK(error < 1e-7);
    }
  }
}

/// Gradients of gates in FP32 against FP64, of every `every`-th gate: each, and their sum with the gates, which is what a
/// gradient of A_log is made of, to 1e-5 of the largest and of the sum.
inline void check_gate_gradients(const std::vector<float> &got, const Reals &want, const std::vector<float> &gates,
                                 size_t every) {
  double error = 0, size = 0, sum = 0, sum_got = 0;
  for (size_t t = 0; t < want.size(); t += every) {
    error = std::fmax(error, std::fabs(double(got[t]) - want[t]));
    size = std::fmax(size, std::fabs(want[t]));
    sum += want[t] * double(gates[t]);
    sum_got += double(got[t]) * double(gates[t]);
  }
  CAPTURE(error / size, sum, sum_got / sum - 1);
  CHECK(error < 1e-5 * size);
  CHECK(std::fabs(sum_got - sum) < 1e-5 * std::fabs(sum));
}

} // namespace nvfp4::test
