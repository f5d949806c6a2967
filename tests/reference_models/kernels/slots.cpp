// SPDX-License-Identifier: Apache-2.0
// Gated slot attention: its chunkwise passes against the recurrence, their gradients against differences,
// FP32 against FP64 under any decay, and what stands around the passes.
#include "tests/reference_models/kernels/support.hpp"

using namespace nvfp4;
using namespace nvfp4::models;
using namespace nvfp4::test;

namespace {

struct Sizes {
  int64_t batch, length, heads, slots, key, value;
};

const Sizes kSizes[] = {{1, 1, 1, 3, 4, 5},    {2, 15, 2, 8, 7, 8},  {1, 16, 3, 4, 9, 20},
                        {1, 17, 1, 16, 3, 4},  {1, 64, 2, 5, 12, 9}, {2, 65, 1, 16, 8, 32},
                        {1, 130, 2, 10, 6, 17}};
const double kGates[] = {0, -0.2, -7.5, -20}; // gates are drawn from [this, 0]

template <class T> struct Slots {
  SlotShape<T> shape;
  std::vector<T> q, k, v, g, s, p, o, saved, work;

  Slots(const Sizes &z, double low, Random &random)
      : shape{z.batch, z.length, z.heads, z.slots, z.key, z.value},
        q(random.values<T>(z.batch * z.length * z.heads * z.key)), k(random.values<T>(int64_t(q.size()))),
        v(random.values<T>(z.batch * z.length * z.heads * z.value)),
        g(random.values<T>(z.batch * z.length * z.heads * z.slots, low, 0)),
        s(random.values<T>(int64_t(g.size()), 0, 1)), p(g.size(), T(NAN)), o(v.size(), T(NAN)),
        saved(size_t(shape.saved()), T(NAN)), work(size_t(shape.work()), T(NAN)) {}
  template <class U>
  explicit Slots(const Slots<U> &other)
      : shape{other.shape.batch, other.shape.length, other.shape.heads,
              other.shape.slots, other.shape.key,    other.shape.value},
        q(other.q.begin(), other.q.end()), k(other.k.begin(), other.k.end()),
        v(other.v.begin(), other.v.end()), g(other.g.begin(), other.g.end()),
        s(other.s.begin(), other.s.end()), p(g.size(), T(NAN)), o(v.size(), T(NAN)),
        saved(other.saved.size(), T(NAN)), work(other.work.size(), T(NAN)) {}

  void forward(Backend<T> &backend) {
    SlotForward<T>{shape, q.data(), k.data(), v.data(), g.data(), s.data(), p.data(), o.data(), saved.data()}
        .run_on(backend);
  }
};

template <class T> struct SlotGradients { std::vector<T> q, k, v, g, s; };

template <class T> SlotGradients<T> backward(Slots<T> &a, const std::vector<T> &grad_o, Backend<T> &backend) {
  const auto unset = [](const std::vector<T> &x) { return std::vector<T>(x.size(), T(NAN)); };
  SlotGradients<T> d{unset(a.q), unset(a.k), unset(a.v), unset(a.g), unset(a.s)};
  std::vector<T> g2 = d.g, s2 = d.g, dp = d.g, unused = d.g;
  SlotBackward<T>{a.shape,    grad_o.data(), a.q.data(), a.k.data(),     a.v.data(),    a.s.data(),
                  a.p.data(), d.q.data(),    d.k.data(), d.v.data(),     d.g.data(),    g2.data(),
                  d.s.data(), s2.data(),     dp.data(),  a.saved.data(), a.work.data(), unused.data()}
      .run_on(backend);
  for (size_t i = 0; i < g2.size(); ++i) {
    d.g[i] += g2[i];
    d.s[i] += s2[i];
  }
  return d;
}

/// Hk <- exp(g) Hk + s^T k, p = softmax(Hk q), Hv <- exp(g) Hv + s^T v, o = p Hv, token after token.
template <class T> Reals recurrence(const Slots<T> &a) {
  const auto &z = a.shape;
  const auto M = size_t(z.slots), K = size_t(z.key), V = size_t(z.value);
  Reals o(a.o.size());
  for (int64_t b = 0; b < z.batch; ++b)
    for (int64_t h = 0; h < z.heads; ++h) {
      Reals keys(M * K), values(M * V);
      for (int64_t t = 0; t < z.length; ++t) {
        const size_t row = size_t((b * z.length + t) * z.heads + h);
        Reals p(M);
        double top = -INFINITY, sum = 0;
        for (size_t m = 0; m < M; ++m) {
          const double decay = std::exp(double(a.g[row * M + m])), write = double(a.s[row * M + m]);
          for (size_t d = 0; d < K; ++d) {
            keys[m * K + d] = decay * keys[m * K + d] + write * double(a.k[row * K + d]);
            p[m] += double(a.q[row * K + d]) * keys[m * K + d];
          }
          for (size_t e = 0; e < V; ++e)
            values[m * V + e] = decay * values[m * V + e] + write * double(a.v[row * V + e]);
          top = std::fmax(top, p[m]);
        }
        for (double &x : p) sum += x = std::exp(x - top);
        for (size_t m = 0; m < M; ++m)
          for (size_t e = 0; e < V; ++e) o[row * V + e] += p[m] / sum * values[m * V + e];
      }
    }
  return o;
}

} // namespace

TEST_CASE("chunkwise slot attention is the recurrence") {
  const auto backend = make_double_backend(1);
  const auto fast = make_cpu_backend(1);
  for (const Sizes &z : kSizes)
    for (const double low : kGates) {
      CAPTURE(z.length, z.heads, z.slots, z.key, z.value, low);
      Random random(1);
      Slots<double> a(z, low, random);
      a.forward(*backend);
      CHECK(difference(a.o, recurrence(a)) < 1e-12);
      Slots<float> f(z, low, random);
      f.forward(*fast);
      CHECK(difference(f.o, recurrence(f)) < 1e-5);
    }
}

TEST_CASE("slot attention's gradients") {
  const auto backend = make_double_backend(1);
  for (const Sizes &z : kSizes)
    for (const double low : {-0.2, -7.5}) {
      if (z.length == 1) continue; // the gate has no effect
      CAPTURE(z.length, z.heads, z.slots, z.key, z.value, low);
      Random random(2);
      Slots<double> a(z, low, random);
      const Reals grad_o = random.values(int64_t(a.o.size()));
      a.forward(*backend);
      const auto d = backward(a, grad_o, *backend);
      const auto loss = [&] {
        a.forward(*backend);
        return dot(a.o, grad_o);
      };
      check_gradients(
          loss, {{"q", &a.q, d.q}, {"k", &a.k, d.k}, {"v", &a.v, d.v}, {"g", &a.g, d.g}, {"s", &a.s, d.s}},
          random);
    }
}

TEST_CASE("slot attention in FP32 agrees with FP64 under any decay") {
  const auto backend = make_double_backend(1);
  const auto fast = make_cpu_backend(1);
  for (const Sizes &z : kSizes)
    for (const double low : kGates) {
      CAPTURE(z.length, z.heads, z.slots, z.key, z.value, low);
      Random random(3);
      Slots<float> f(z, low, random);
      Slots<double> a(f);
      const auto grad_f = random.values<float>(int64_t(f.o.size()));
      const Reals grad_o(grad_f.begin(), grad_f.end());
      a.forward(*backend);
      f.forward(*fast);
      const auto d = backward(a, grad_o, *backend);
      const auto df = backward(f, grad_f, *fast);
      CHECK(difference(df.q, d.q) < 2e-5);
      CHECK(difference(df.k, d.k) < 2e-5);
      CHECK(difference(df.v, d.v) < 2e-5);
      CHECK(difference(df.s, d.s) < 2e-5);
      if (z.length > 1)
        CHECK(difference(df.g, d.g) < 2e-5); // of one token the gate has no effect
      else
        CHECK(largest(df.g) == 0);
    }
}

TEST_CASE("strong gates of slots keep the digits of their own gradients") {
  const auto backend = make_double_backend(1);
  const auto fast = make_cpu_backend(1);
  for (const double strong : {-2.0, -7.5, -20.0})
    for (const int64_t every : {1, 2, 7}) { // tokens; others are weak, so that what follows them is large
      CAPTURE(strong, every);
      Random random(8);
      Slots<float> f({1, 300, 1, 16, 8, 8}, -0.1, random);
      for (size_t i = 0; i < f.g.size(); ++i)
        if (i / 16 % size_t(every) == 0) f.g[i] = float(random.uniform(1.1, 1) * strong);
      Slots<double> a(f);
      const auto grad_f = random.values<float>(int64_t(f.o.size()));
      const Reals grad_o(grad_f.begin(), grad_f.end());
      a.forward(*backend);
      f.forward(*fast);
      const auto d = backward(a, grad_o, *backend);
      const auto df = backward(f, grad_f, *fast);
      double error = 0, size = 0;
      for (size_t i = 0; i < d.g.size(); ++i)
        if (i / 16 % size_t(every) == 0) {
          error = std::fmax(error, std::fabs(double(df.g[i]) - d.g[i]));
          size = std::fmax(size, std::fabs(d.g[i]));
        }
      CAPTURE(error / size);
      CHECK(error < 1e-4 * size); // decays inside a chunk are differences of sums, as GLA's
    }
}

TEST_CASE("SiLU") {
  const auto backend = make_double_backend(1);
  for (const int64_t n : {1, 15, 4097}) {
    Random random(4);
    Reals x = random.values(n, -6, 6), y(x.size()), dx = random.values(n);
    const Reals dy = dx;
    const auto loss = [&] {
      backend->run(SiluForward<double>{n, x.data(), y.data()});
      return dot(y, dy);
    };
    loss();
    for (size_t i = 0; i < x.size(); ++i) CHECK(y[i] == Approx(x[i] / (1 + std::exp(-x[i]))).margin(1e-15));
    backend->run(SiluBackward<double>{n, dx.data(), x.data(), dx.data()});
    check_gradients(loss, {{"x", &x, dx}}, random);
  }
}

TEST_CASE("a slot's decay and write") {
  const auto backend = make_double_backend(1);
  const auto fast = make_cpu_backend(1);
  const int64_t n = 4100;
  Random random(5);
  Reals x = random.values(n, -80, 40), g(x.size()), s(x.size()), dx(x.size());
  const Reals dg1 = random.values(n), dg2 = random.values(n), ds1 = random.values(n), ds2 = random.values(n);
  const auto loss = [&] {
    backend->run(SlotGateForward<double>{n, x.data(), g.data(), s.data(), 8});
    return dot(g, dg1) + dot(g, dg2) + dot(s, ds1) + dot(s, ds2);
  };
  loss();
  for (size_t i = 0; i < x.size(); ++i) {
    CHECK(g[i] == Approx(-std::log1p(std::exp(-x[i])) / 8).epsilon(1e-13).margin(1e-300));
    CHECK(s[i] == Approx(-std::expm1(g[i])).epsilon(1e-13).margin(1e-300));
  }
  backend->run(SlotGateBackward<double>{n, dg1.data(), dg2.data(), ds1.data(), ds2.data(), g.data(), x.data(),
                                        dx.data(), 8});
  check_gradients(loss, {{"x", &x, dx}}, random);
  const std::vector<float> narrow(x.begin(), x.end());
  std::vector<float> g32(narrow.size()), s32(narrow.size());
  fast->run(SlotGateForward<float>{n, narrow.data(), g32.data(), s32.data(), 8});
  for (size_t i = 0; i < narrow.size(); ++i) // to the last digits of small ones too
    CHECK(std::fabs(double(s32[i]) + std::expm1(double(g32[i]))) <= 3e-7 * double(s32[i]));
}

TEST_CASE("the softmax over slots") {
  const auto backend = make_double_backend(1);
  for (const int64_t rows : {1, 17, 40})
    for (const int64_t cols : {2, 15, 64, 65}) {
      CAPTURE(rows, cols);
      Random random(6);
      Reals x = random.values(rows * cols, -4, 4), p;
      const Reals dy = random.values(rows * cols);
      Reals dx = dy;
      const auto loss = [&] {
        p = x;
        backend->run(SlotSoftmaxForward<double>{rows, cols, p.data()});
        return dot(p, dy);
      };
      loss();
      for (int64_t r = 0; r < rows; ++r) {
        double sum = 0;
        for (int64_t j = 0; j < cols; ++j) sum += std::exp(x[size_t(r * cols + j)]);
        CHECK(p[size_t(r * cols)] == Approx(std::exp(x[size_t(r * cols)]) / sum).epsilon(1e-12));
      }
      backend->run(SlotSoftmaxBackward<double>{rows, cols, p.data(), dx.data()});
      check_gradients(loss, {{"x", &x, dx}}, random);
    }
}
