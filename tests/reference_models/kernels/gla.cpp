// SPDX-License-Identifier: Apache-2.0
// Gated linear attention: the chunkwise kernels against the recurrence that defines it, however strong the
// decay, and their gradients against differences.
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

/// Gates per token: every one `low`, or drawn from [low, high].
struct Gates {
  double low, high;
};
const Gates kGates[] = {{-0.1, 0}, {-7.5, 0}, {-7.5, -7.5}, {-20, -20}, {-20, 0}, {0, 0}};

/// FP32 holds the sum of a chunk's gates to half a unit in the last place, and a decay is off by that much.
double tolerance(Gates gates) { return 2e-6 + 64 * -gates.low * 0x1p-25; }

template <class T> struct Gla {
  GlaShape<T> shape;
  std::vector<T> q, k, v, g, o, saved, work;

  Gla(const Sizes &s, Gates gates, Random &random)
      : shape{s.batch, s.length, s.heads, s.key, s.value, T(1) / std::sqrt(T(s.key))},
        q(random.values<T>(s.batch * s.length * s.heads * s.key)), k(random.values<T>(int64_t(q.size()))),
        v(random.values<T>(s.batch * s.length * s.heads * s.value)),
        g(random.values<T>(int64_t(q.size()), gates.low, gates.high)), o(v.size(), T(NAN)),
        saved(size_t(shape.saved()), T(NAN)), work(size_t(shape.states()), T(NAN)) {}

  void forward(Backend<T> &backend) {
    GlaForward<T>{shape, q.data(), k.data(), v.data(), g.data(), o.data(), saved.data()}.run_on(backend);
  }
};

template <class T> struct GlaGradients { std::vector<T> q, k, v, g; };

template <class T> GlaGradients<T> backward(Gla<T> &a, const std::vector<T> &grad_o, Backend<T> &backend) {
  const T nan = T(NAN);
  GlaGradients<T> d{std::vector<T>(a.q.size(), nan), std::vector<T>(a.k.size(), nan),
                    std::vector<T>(a.v.size(), nan), std::vector<T>(a.g.size(), nan)};
  GlaBackward<T>{a.shape,    grad_o.data(), a.q.data(), a.k.data(),     a.v.data(),   d.q.data(),
                 d.k.data(), d.v.data(),    d.g.data(), a.saved.data(), a.work.data()}
      .run_on(backend);
  return d;
}

/// S_t = diag(exp g_t) S_{t-1} + k_t^T v_t, o_t = scale q_t S_t, token after token.
template <class T> Reals recurrence(const Gla<T> &a) {
  const auto &sh = a.shape;
  Reals o;
  o.resize(a.o.size());
  for (int64_t b = 0; b < sh.batch; ++b)
    for (int64_t h = 0; h < sh.heads; ++h) {
      Reals state(size_t(sh.key * sh.value));
      for (int64_t t = 0; t < sh.length; ++t) {
        const size_t row = size_t((b * sh.length + t) * sh.heads + h);
        const size_t ik = row * size_t(sh.key), iv = row * size_t(sh.value);
        for (size_t d = 0; d < size_t(sh.key); ++d)
          for (size_t e = 0; e < size_t(sh.value); ++e) {
            double &s = state[d * size_t(sh.value) + e];
            s = std::exp(double(a.g[ik + d])) * s + double(a.k[ik + d]) * double(a.v[iv + e]);
            o[iv + e] += double(a.q[ik + d]) * s / std::sqrt(double(sh.key));
          }
      }
    }
  return o;
}

} // namespace

TEST_CASE("chunkwise GLA is the recurrence") {
  const auto backend = make_double_backend(1);
  const auto fast = make_cpu_backend(1);
  for (const Sizes &s : kSizes)
    for (const Gates gates : kGates) {
      CAPTURE(s.length, s.heads, s.key, s.value, gates.low, gates.high);
      Random random(1);
      Gla<double> a(s, gates, random);
      a.forward(*backend);
      CHECK(difference(a.o, recurrence(a)) < 1e-12);
      Gla<float> f(s, gates, random);
      f.forward(*fast);
      CHECK(difference(f.o, recurrence(f)) < tolerance(gates));
    }
}

TEST_CASE("GLA's gradients") {
  const auto backend = make_double_backend(1);
  for (const Sizes &s : kSizes)
    for (const Gates gates : {Gates{-0.5, 0}, Gates{-7.5, 0}}) {
      if (s.length == 1) continue; // the gate has no effect
      CAPTURE(s.length, s.heads, s.key, s.value, gates.low);
      Random random(2);
      Gla<double> a(s, gates, random);
      const Reals grad_o = random.values(int64_t(a.o.size()));
      a.forward(*backend);
      const auto d = backward(a, grad_o, *backend);
      const auto loss = [&] {
        a.forward(*backend);
        return dot(a.o, grad_o);
      };
      check_gradients(loss, {{"q", &a.q, d.q}, {"k", &a.k, d.k}, {"v", &a.v, d.v}, {"g", &a.g, d.g}}, random);
    }
}

TEST_CASE("GLA in FP32 agrees with FP64 and stays finite under any decay") {
  const auto backend = make_double_backend(1);
  const auto fast = make_cpu_backend(1);
  for (const Sizes &s : kSizes)
    for (const Gates gates : kGates) {
      CAPTURE(s.length, s.heads, s.key, s.value, gates.low, gates.high);
      Random random(3);
      Gla<float> f(s, gates, random);
      const auto grad_f = random.values<float>(int64_t(f.o.size()));
      Random unused(0);
      Gla<double> a(s, gates, unused);
      a.q = Reals(f.q.begin(), f.q.end());
      a.k = Reals(f.k.begin(), f.k.end());
      a.v = Reals(f.v.begin(), f.v.end());
      a.g = Reals(f.g.begin(), f.g.end());
      const Reals grad_o(grad_f.begin(), grad_f.end());
      a.forward(*backend);
      f.forward(*fast);
      const auto d = backward(a, grad_o, *backend);
      const auto df = backward(f, grad_f, *fast);
      CHECK(all_finite(f.o));
      CHECK(difference(df.q, d.q) < tolerance(gates));
      CHECK(difference(df.k, d.k) < tolerance(gates));
      CHECK(difference(df.v, d.v) < tolerance(gates));
      CHECK(all_finite(df.g));
      // sums of differences of q dq and k dk: the error is relative to those, not to their difference
      double size = 0;
      for (size_t i = 0; i < a.k.size(); ++i) size = std::fmax(size, std::fabs(a.k[i] * d.k[i]));
      double error = 0;
      for (size_t i = 0; i < d.g.size(); ++i) error = std::fmax(error, std::fabs(double(df.g[i]) - d.g[i]));
      CHECK(error < 4 * tolerance(gates) * size);
    }
}

TEST_CASE("a reset in one token forgets everything before it") {
  const auto fast = make_cpu_backend(1);
  Random random(4);
  Gla<float> a({1, 100, 1, 8, 8}, {-0.1, 0}, random);
  const int64_t reset = 70;
  for (int64_t d = 0; d < 8; ++d) a.g[size_t(reset * 8 + d)] = -1000.0f;
  a.forward(*fast);
  const auto before = a.o;
  for (int64_t i = 0; i < reset * 8; ++i) a.v[size_t(i)] = -3.0f * a.v[size_t(i)];
  a.forward(*fast);
  CHECK(all_finite(a.o));
  CHECK(std::vector<float>(a.o.begin() + reset * 8, a.o.end()) ==
        std::vector<float>(before.begin() + reset * 8, before.end()));
  CHECK(a.o[0] != before[0]);
}

TEST_CASE("mild gates after strong ones keep their decays to 1e-4") {
  const auto fast = make_cpu_backend(1);
  Random random(6);
  for (const float strong : {-7.5f, -20.0f}) {
    Gla<float> a({1, 64, 1, 16, 16}, {-0.05, 0}, random);
    for (int64_t i = 0; i < 40 * 16; ++i) a.g[size_t(i)] = strong;
    a.forward(*fast);
    const double error = difference(a.o, recurrence(a));
    INFO("gates of " << strong << ", then mild: " << error);
    CHECK(error < 1e-4);
    CHECK(error > 1e-6); // the loss is there: README.md says so
  }
}
