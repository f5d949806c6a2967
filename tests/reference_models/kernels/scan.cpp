// SPDX-License-Identifier: Apache-2.0
// Mamba-2: its chunkwise scan against the recurrence, and the gradients of that, of its convolution's bias
// and of its gates against differences; FP32 against FP64 under any decay.
#include "tests/reference_models/kernels/support.hpp"

using namespace nvfp4;
using namespace nvfp4::models;
using namespace nvfp4::test;

namespace {

struct Sizes {
  int64_t batch, length, heads, state, value;
};

const Sizes kSizes[] = {{1, 1, 1, 3, 5},   {2, 15, 2, 8, 8},   {1, 16, 3, 4, 20},  {1, 17, 1, 16, 4},
                        {1, 64, 2, 12, 9}, {2, 65, 1, 16, 70}, {1, 130, 2, 10, 17}};
const double kGates[] = {0, -0.2, -7.5, -20}; // gates are drawn from [this, 0]

template <class T> struct Scan {
  ScanShape<T> shape;
  std::vector<T> rows, dt, g, skip, y, saved, work; // rows: x, B, C, and three elements that are nobody's

  Scan(const Sizes &z, double low, Random &random)
      : shape{z.batch, z.length, z.heads, z.state, z.value, z.heads * z.value + 2 * z.state + 3},
        rows(random.values<T>(z.batch * z.length * shape.row)),
        dt(random.values<T>(z.batch * z.length * z.heads, 0, 1)),
        g(random.values<T>(int64_t(dt.size()), low, 0)), skip(random.values<T>(z.heads)),
        y(size_t(z.batch * z.length * z.heads * z.value), T(NAN)), saved(size_t(shape.saved()), T(NAN)),
        work(size_t(shape.states()), T(NAN)) {}
  template <class U>
  explicit Scan(const Scan<U> &o)
      : shape{o.shape.batch, o.shape.length, o.shape.heads, o.shape.state, o.shape.value, o.shape.row},
        rows(o.rows.begin(), o.rows.end()), dt(o.dt.begin(), o.dt.end()), g(o.g.begin(), o.g.end()),
        skip(o.skip.begin(), o.skip.end()), y(o.y.size(), T(NAN)), saved(o.saved.size(), T(NAN)),
        work(o.work.size(), T(NAN)) {}

  [[nodiscard]] int64_t b() const { return shape.heads * shape.value; }
  [[nodiscard]] int64_t c() const { return b() + shape.state; }
  void forward(Backend<T> &backend) {
    ScanForward<T>{shape,    rows.data() + c(), rows.data() + b(), rows.data(), dt.data(),
                   g.data(), skip.data(),       y.data(),          saved.data()}
        .run_on(backend);
  }
};

template <class T> struct ScanGrads { std::vector<T> rows, dt, g, skip; };

template <class T> ScanGrads<T> backward(Scan<T> &a, const std::vector<T> &dy, Backend<T> &backend) {
  ScanGrads<T> d{std::vector<T>(a.rows.size()), std::vector<T>(a.dt.size(), T(NAN)),
                 std::vector<T>(a.dt.size(), T(NAN)), std::vector<T>(a.skip.size())};
  std::vector<T> terms(a.dt.size(), T(NAN));
  ScanBackward<T>{a.shape,     dy.data(),     a.rows.data() + a.c(), a.rows.data() + a.b(), a.rows.data(),
                  a.dt.data(), a.skip.data(), d.rows.data() + a.c(), d.rows.data() + a.b(), d.rows.data(),
                  d.dt.data(), d.g.data(),    terms.data(),          a.saved.data(),        a.work.data()}
      .run_on(backend);
  backend.run(
      AccumulateColumns<T>{a.shape.batch * a.shape.length, a.shape.heads, terms.data(), d.skip.data()});
  return d;
}

/// S <- exp(g) S + B^T (dt x), y = C S + D x, token after token.
template <class T> Reals recurrence(const Scan<T> &a) {
  const auto &z = a.shape;
  const auto N = size_t(z.state), V = size_t(z.value);
  Reals y(a.y.size());
  for (int64_t s = 0; s < z.batch; ++s)
    for (int64_t h = 0; h < z.heads; ++h) {
      Reals state(N * V);
      for (int64_t t = 0; t < z.length; ++t) {
        const size_t token = size_t(s * z.length + t), head = token * size_t(z.heads) + size_t(h);
        const T *const row = a.rows.data() + token * size_t(z.row), *const x = row + size_t(h) * V;
        for (size_t e = 0; e < V; ++e) {
          double out = double(a.skip[size_t(h)]) * double(x[e]);
          for (size_t d = 0; d < N; ++d) {
            double &value = state[d * V + e];
            value = std::exp(double(a.g[head])) * value +
                    double(row[size_t(a.b()) + d]) * double(a.dt[head]) * double(x[e]);
            out += double(row[size_t(a.c()) + d]) * value;
          }
          y[head * V + e] = out;
        }
      }
    }
  return y;
}

} // namespace

TEST_CASE("the chunkwise scan is the recurrence") {
  const auto backend = make_double_backend(1);
  const auto fast = make_cpu_backend(1);
  for (const Sizes &z : kSizes)
    for (const double low : kGates) {
      CAPTURE(z.length, z.heads, z.state, z.value, low);
      Random random(1);
      Scan<double> a(z, low, random);
      a.forward(*backend);
      CHECK(difference(a.y, recurrence(a)) < 1e-12);
      Scan<float> f(z, low, random);
      f.forward(*fast);
      CHECK(difference(f.y, recurrence(f)) < 2e-6);
    }
}

TEST_CASE("the scan's gradients") {
  const auto backend = make_double_backend(1);
  for (const Sizes &z : kSizes)
    for (const double low : {-0.2, -7.5}) {
      if (z.length == 1) continue; // the gate has no effect
      CAPTURE(z.length, z.heads, z.state, z.value, low);
      Random random(2);
      Scan<double> a(z, low, random);
      const Reals dy = random.values(int64_t(a.y.size()));
      a.forward(*backend);
      const auto d = backward(a, dy, *backend);
      for (size_t i = 0; i < d.rows.size(); ++i)
        if (int64_t(i) % a.shape.row >= a.c() + z.state) CHECK(d.rows[i] == 0);
      const auto loss = [&] {
        a.forward(*backend);
        return dot(a.y, dy);
      };
      check_gradients(
          loss, {{"x, B, C", &a.rows, d.rows}, {"dt", &a.dt, d.dt}, {"g", &a.g, d.g}, {"D", &a.skip, d.skip}},
          random);
    }
}

TEST_CASE("the scan in FP32 agrees with FP64 under any decay") {
  const auto backend = make_double_backend(1);
  const auto fast = make_cpu_backend(1);
  for (const Sizes &z : kSizes)
    for (const double low : kGates) {
      CAPTURE(z.length, z.heads, z.state, z.value, low);
      Random random(3);
      Scan<float> f(z, low, random);
      Scan<double> a(f);
      const auto dy_f = random.values<float>(int64_t(f.y.size()));
      const Reals dy(dy_f.begin(), dy_f.end());
      a.forward(*backend);
      f.forward(*fast);
      const auto d = backward(a, dy, *backend);
      const auto df = backward(f, dy_f, *fast);
      CHECK(difference(df.rows, d.rows) < 4e-6);
      CHECK(difference(df.dt, d.dt) < 4e-6);
      CHECK(difference(df.skip, d.skip) < 4e-6);
      if (z.length > 1)
        CHECK(difference(df.g, d.g) < 4e-6); // of one token the gate has no effect
      else
        CHECK(largest(df.g) == 0);
    }
}

TEST_CASE("strong gates of the scan keep the digits of their own gradients") {
  const auto backend = make_double_backend(1);
  const auto fast = make_cpu_backend(1);
  for (const double strong : {-2.0, -7.5, -20.0})
    for (const int64_t every : {1, 2, 7}) { // others are weak, so that what follows them is large
      CAPTURE(strong, every);
      Random random(8);
      Scan<float> f({1, 300, 1, 16, 16}, -0.1, random);
      for (size_t t = 0; t < f.g.size(); t += size_t(every)) f.g[t] = float(random.uniform(1.1, 1) * strong);
      Scan<double> a(f);
      const auto dy_f = random.values<float>(int64_t(f.y.size()));
      const Reals dy(dy_f.begin(), dy_f.end());
      a.forward(*backend);
      f.forward(*fast);
      const auto d = backward(a, dy, *backend);
      const auto df = backward(f, dy_f, *fast);
      check_gate_gradients(df.g, d.g, f.g, size_t(every));
    }
}

TEST_CASE("the scan's step and decay") {
  const auto backend = make_double_backend(1);
  for (const int64_t tokens : {1, 15, 900})
    for (const int64_t heads : {1, 5}) {
      CAPTURE(tokens, heads);
      Random random(6);
      const int64_t n = tokens * heads;
      Reals raw = random.values(n, -8, 8), a_log = random.values(heads, 0, 2.7),
            dt_bias = random.values(heads, -6, -2), dt(raw.size()), g(raw.size());
      const Reals d_dt = random.values(n), dg = random.values(n);
      const auto loss = [&] {
        backend->run(ScanGateForward<double>{tokens, heads, raw.data(), a_log.data(), dt_bias.data(),
                                             dt.data(), g.data()});
        return dot(dt, d_dt) + dot(g, dg);
      };
      loss();
      for (size_t i = 0; i < raw.size(); ++i) {
        const size_t h = i % size_t(heads);
        CHECK(dt[i] == Approx(std::log1p(std::exp(raw[i] + dt_bias[h]))));
        CHECK(g[i] == Approx(-std::exp(a_log[h]) * std::log1p(std::exp(raw[i] + dt_bias[h]))));
      }
      Reals d_raw(raw.size()), terms(raw.size()), da_log(a_log.size()), ddt_bias(a_log.size());
      backend->run(ScanGateBackward<double>{tokens, heads, d_dt.data(), dg.data(), g.data(), raw.data(),
                                            a_log.data(), dt_bias.data(), d_raw.data(), terms.data()});
      backend->run(AccumulateColumns<double>{tokens, heads, terms.data(), da_log.data()});
      backend->run(AccumulateColumns<double>{tokens, heads, d_raw.data(), ddt_bias.data()});
      check_gradients(
          loss, {{"raw", &raw, d_raw}, {"a_log", &a_log, da_log}, {"dt_bias", &dt_bias, ddt_bias}}, random);
    }
}

TEST_CASE("short convolution with a bias") {
  const auto backend = make_double_backend(1);
  const int64_t length = 5, tokens = 3 * length, channels = 37;
  Random random(4);
  Reals x = random.values(tokens * channels), weight = random.values(channels * kTaps),
        bias = random.values(channels), y(x.size());
  const Reals dy = random.values(tokens * channels);
  Reals dx(x.size()), dweight(weight.size()), dbias(bias.size()), dz(x.size());
  const auto loss = [&] {
    backend->run(
        ConvolutionForward<double>{tokens, length, channels, x.data(), weight.data(), y.data(), bias.data()});
    return dot(y, dy);
  };
  loss();
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t c = 0; c < channels; ++c) {
      double z = bias[size_t(c)];
      for (int64_t w = 0; w < 4; ++w)
        if (t % length - 3 + w >= 0) z += weight[size_t(c * 4 + w)] * x[size_t((t - 3 + w) * channels + c)];
      CHECK(y[size_t(t * channels + c)] == Approx(z / (1 + std::exp(-z))).margin(1e-15));
    }
  ConvolutionBackward<double>{tokens,        length,    channels,       dy.data(), x.data(),
                              weight.data(), dx.data(), dweight.data(), dz.data(), bias.data()}
      .run_on(*backend);
  backend->run(AccumulateColumns<double>{tokens, channels, dz.data(), dbias.data()});
  check_gradients(loss, {{"x", &x, dx}, {"weight", &weight, dweight}, {"bias", &bias, dbias}}, random);
}
