// SPDX-License-Identifier: Apache-2.0
// Gated DeltaNet: its chunkwise delta rule against the recurrence, and the gradients of that, of the short
// convolution, the L2 norm and the gates against differences.
#include "tests/reference_models/kernels/support.hpp"

using namespace nvfp4;
using namespace nvfp4::models;
using namespace nvfp4::test;

namespace {

struct Sizes {
  int64_t batch, length, heads, key, value;
};

const Sizes kSizes[] = {{1, 1, 1, 3, 5},   {2, 15, 2, 8, 8},   {1, 16, 3, 4, 20},  {1, 17, 1, 16, 4},
                        {1, 64, 2, 12, 9}, {2, 65, 1, 16, 32}, {1, 130, 2, 10, 17}};
const double kGates[] = {0, -0.2, -7.5, -20}; // gates are drawn from [this, 0]

template <class T> struct Delta {
  DeltaShape<T> shape;
  std::vector<T> q, k, v, g, beta, o, saved, work;

  Delta(const Sizes &s, double low, Random &random)
      : shape{s.batch, s.length, s.heads, s.key, s.value, T(1) / std::sqrt(T(s.key))},
        q(random.values<T>(s.batch * s.length * s.heads * s.key)), k(random.values<T>(int64_t(q.size()))),
        v(random.values<T>(s.batch * s.length * s.heads * s.value)),
        g(random.values<T>(s.batch * s.length * s.heads, low, 0)),
        beta(random.values<T>(int64_t(g.size()), 0, 1)), o(v.size(), T(NAN)),
        saved(size_t(shape.saved()), T(NAN)), work(size_t(shape.recurrence()), T(NAN)) {
    for (size_t r = 0; r < q.size(); r += size_t(s.key)) // keys of length 1, as the model has them
      for (std::vector<T> *x : {&q, &k}) {
        T squares = 0;
        for (size_t d = 0; d < size_t(s.key); ++d) squares += (*x)[r + d] * (*x)[r + d];
        for (size_t d = 0; d < size_t(s.key); ++d) (*x)[r + d] /= std::sqrt(squares);
      }
  }
  template <class U>
  explicit Delta(const Delta<U> &other)
      : shape{other.shape.batch, other.shape.length, other.shape.heads,
              other.shape.key,   other.shape.value,  T(other.shape.scale)},
        q(other.q.begin(), other.q.end()), k(other.k.begin(), other.k.end()),
        v(other.v.begin(), other.v.end()), g(other.g.begin(), other.g.end()),
        beta(other.beta.begin(), other.beta.end()), o(v.size()), saved(other.saved.size()),
        work(other.work.size()) {}

  void forward(Backend<T> &backend) {
    DeltaForward<T>{shape, q.data(), k.data(), v.data(), g.data(), beta.data(), o.data(), saved.data()}
        .run_on(backend);
  }
};

template <class T> struct DeltaGradients { std::vector<T> q, k, v, g, beta; };

template <class T>
DeltaGradients<T> backward(Delta<T> &a, const std::vector<T> &grad_o, Backend<T> &backend) {
  const auto unset = [](const std::vector<T> &x) { return std::vector<T>(x.size(), T(NAN)); };
  DeltaGradients<T> d{unset(a.q), unset(a.k), unset(a.v), unset(a.g), unset(a.beta)};
  DeltaBackward<T>{a.shape,    grad_o.data(), a.q.data(),     a.k.data(),   a.v.data(),
                   a.g.data(), a.beta.data(), d.q.data(),     d.k.data(),   d.v.data(),
                   d.g.data(), d.beta.data(), a.saved.data(), a.work.data()}
      .run_on(backend);
  return d;
}

/// S <- exp(g) S; S <- S + k^T beta (v - k S); o = scale q S, token after token.
template <class T> Reals recurrence(const Delta<T> &a) {
  const auto &sh = a.shape;
  const auto dk = size_t(sh.key), dv = size_t(sh.value);
  Reals o;
  o.resize(a.o.size());
  for (int64_t b = 0; b < sh.batch; ++b)
    for (int64_t h = 0; h < sh.heads; ++h) {
      Reals state(dk * dv);
      for (int64_t t = 0; t < sh.length; ++t) {
        const size_t row = size_t((b * sh.length + t) * sh.heads + h);
        for (double &s : state) s *= std::exp(double(a.g[row]));
        for (size_t e = 0; e < dv; ++e) {
          double rest = double(a.v[row * dv + e]);
          for (size_t d = 0; d < dk; ++d) rest -= double(a.k[row * dk + d]) * state[d * dv + e];
          for (size_t d = 0; d < dk; ++d) {
            state[d * dv + e] += double(a.k[row * dk + d]) * double(a.beta[row]) * rest;
            o[row * dv + e] += double(a.q[row * dk + d]) * state[d * dv + e] / std::sqrt(double(sh.key));
          }
        }
      }
    }
  return o;
}

} // namespace

TEST_CASE("the chunkwise delta rule is the recurrence") {
  const auto backend = make_double_backend(1);
  const auto fast = make_cpu_backend(1);
  for (const Sizes &s : kSizes)
    for (const double low : kGates) {
      CAPTURE(s.length, s.heads, s.key, s.value, low);
      Random random(1);
      Delta<double> a(s, low, random);
      a.forward(*backend);
      CHECK(difference(a.o, recurrence(a)) < 1e-12);
      Delta<float> f(s, low, random);
      f.forward(*fast);
      CHECK(difference(f.o, recurrence(f)) < 2e-6);
    }
}

TEST_CASE("the delta rule's gradients") {
  const auto backend = make_double_backend(1);
  for (const Sizes &s : kSizes)
    for (const double low : {-0.2, -7.5}) {
      if (s.length == 1) continue; // the gate has no effect
      CAPTURE(s.length, s.heads, s.key, s.value, low);
      Random random(2);
      Delta<double> a(s, low, random);
      const Reals grad_o = random.values(int64_t(a.o.size()));
      a.forward(*backend);
      const auto d = backward(a, grad_o, *backend);
      const auto loss = [&] {
        a.forward(*backend);
        return dot(a.o, grad_o);
      };
      check_gradients(
          loss,
          {{"q", &a.q, d.q}, {"k", &a.k, d.k}, {"v", &a.v, d.v}, {"g", &a.g, d.g}, {"beta", &a.beta, d.beta}},
          random);
    }
}

TEST_CASE("the delta rule in FP32 agrees with FP64 under any decay") {
  const auto backend = make_double_backend(1);
  const auto fast = make_cpu_backend(1);
  for (const Sizes &s : kSizes)
    for (const double low : kGates) {
      CAPTURE(s.length, s.heads, s.key, s.value, low);
      Random random(3);
      Delta<float> f(s, low, random);
      Delta<double> a(f);
      const auto grad_f = random.values<float>(int64_t(f.o.size()));
      const Reals grad_o(grad_f.begin(), grad_f.end());
      a.forward(*backend);
      f.forward(*fast);
      const auto d = backward(a, grad_o, *backend);
      const auto df = backward(f, grad_f, *fast);
      CHECK(difference(df.q, d.q) < 4e-6);
      CHECK(difference(df.k, d.k) < 4e-6);
      CHECK(difference(df.v, d.v) < 4e-6);
      CHECK(difference(df.beta, d.beta) < 4e-6);
      if (s.length > 1)
        CHECK(difference(df.g, d.g) < 4e-6); // of one token the gate has no effect
      else
        CHECK(largest(df.g) == 0);
    }
}

TEST_CASE("strong gates keep the digits of their own gradients") {
  const auto backend = make_double_backend(1);
  const auto fast = make_cpu_backend(1);
  for (const double strong : {-2.0, -7.5, -20.0})
    for (const int64_t every : {1, 2, 7}) { // others are weak, so that what follows them is large
      CAPTURE(strong, every);
      Random random(8);
      Delta<float> f({1, 300, 1, 16, 16}, -0.1, random);
      for (size_t t = 0; t < f.g.size(); t += size_t(every)) f.g[t] = float(random.uniform(1.1, 1) * strong);
      Delta<double> a(f);
      const auto grad_f = random.values<float>(int64_t(f.o.size()));
      const Reals grad_o(grad_f.begin(), grad_f.end());
      a.forward(*backend);
      f.forward(*fast);
      const auto d = backward(a, grad_o, *backend);
      const auto df = backward(f, grad_f, *fast);
      check_gate_gradients(df.g, d.g, f.g, size_t(every));
    }
}

TEST_CASE("short convolution") {
  const auto backend = make_double_backend(1);
  for (const int64_t length : {1, 2, 3, 4, 15, 33})
    for (const int64_t channels : {1, 16, 37}) {
      CAPTURE(length, channels);
      const int64_t tokens = 3 * length;
      Random random(4);
      Reals x = random.values(tokens * channels), weight = random.values(channels * kTaps), y(x.size());
      const Reals dy = random.values(tokens * channels), start = random.values(channels * kTaps);
      Reals dx(x.size(), NAN), dweight = start, dz(x.size(), NAN);
      const auto loss = [&] {
        backend->run(ConvolutionForward<double>{tokens, length, channels, x.data(), weight.data(), y.data()});
        return dot(y, dy);
      };
      loss();
      for (int64_t t = 0; t < tokens; ++t)
        for (int64_t c = 0; c < channels; ++c) {
          double z = 0;
          for (int64_t w = 0; w < 4; ++w)
            if (t % length - 3 + w >= 0)
              z += weight[size_t(c * 4 + w)] * x[size_t((t - 3 + w) * channels + c)];
          CHECK(y[size_t(t * channels + c)] == Approx(z / (1 + std::exp(-z))).margin(1e-15));
        }
      ConvolutionBackward<double>{tokens,        length,    channels,       dy.data(), x.data(),
                                  weight.data(), dx.data(), dweight.data(), dz.data()}
          .run_on(*backend);
      for (size_t i = 0; i < start.size(); ++i) dweight[i] -= start[i];
      check_gradients(loss, {{"x", &x, dx}, {"weight", &weight, dweight}}, random);
    }
}

TEST_CASE("L2 norm") {
  const auto backend = make_double_backend(1);
  for (const int64_t rows : {1, 17, 40})
    for (const int64_t cols : {2, 15, 64, 65}) {
      CAPTURE(rows, cols);
      Random random(5);
      Reals x = random.values(rows * cols), y(x.size()), rstd = zeros<double>(rows),
            dx = random.values(rows * cols);
      const Reals dy = dx;
      const auto loss = [&] {
        backend->run(L2NormForward<double>{rows, cols, 1e-2, x.data(), y.data(), rstd.data()});
        return dot(y, dy);
      };
      loss();
      backend->run(L2NormBackward<double>{rows, cols, dx.data(), y.data(), rstd.data(), dx.data()});
      check_gradients(loss, {{"x", &x, dx}}, random);
      Reals in_place = x;
      loss();
      backend->run(L2NormForward<double>{rows, cols, 1e-2, in_place.data(), in_place.data(), rstd.data()});
      CHECK(in_place == y);
    }
}

TEST_CASE("Gated DeltaNet's decay and step") {
  const auto backend = make_double_backend(1);
  for (const int64_t tokens : {1, 15, 900})
    for (const int64_t heads : {1, 5}) {
      CAPTURE(tokens, heads);
      Random random(6);
      const int64_t n = tokens * heads;
      Reals a = random.values(n, -8, 8), b = random.values(n, -8, 8), a_log = random.values(heads, -2, 2.7),
            dt_bias = random.values(heads, -6, -2), g(a.size()), beta(a.size());
      const Reals dg = random.values(n), dbeta = random.values(n);
      const auto loss = [&] {
        backend->run(DeltaGateForward<double>{tokens, heads, a.data(), b.data(), a_log.data(), dt_bias.data(),
                                              g.data(), beta.data()});
        return dot(g, dg) + dot(beta, dbeta);
      };
      loss();
      for (size_t i = 0; i < a.size(); ++i) {
        const size_t h = i % size_t(heads);
        CHECK(g[i] == Approx(-std::exp(a_log[h]) * std::log1p(std::exp(a[i] + dt_bias[h]))));
        CHECK(beta[i] == Approx(1 / (1 + std::exp(-b[i]))));
      }
      Reals da(a.size()), db(a.size()), terms(a.size()), da_log(a_log.size()), ddt_bias(a_log.size());
      backend->run(DeltaGateBackward<double>{tokens, heads, dg.data(), dbeta.data(), g.data(), beta.data(),
                                             a.data(), a_log.data(), dt_bias.data(), da.data(), db.data(),
                                             terms.data()});
      backend->run(AccumulateColumns<double>{tokens, heads, terms.data(), da_log.data()});
      backend->run(AccumulateColumns<double>{tokens, heads, da.data(), ddt_bias.data()});
      check_gradients(
          loss, {{"a", &a, da}, {"b", &b, db}, {"a_log", &a_log, da_log}, {"dt_bias", &dt_bias, ddt_bias}},
          random);
    }
}
