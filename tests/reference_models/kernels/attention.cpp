// SPDX-License-Identifier: Apache-2.0
// Softmax attention against its definition, its gradients against differences, its statistics, and rotary
// embedding.
#include "nvfp4/emulator/config.hpp"
#include "nvfp4/reference_models/model/rope_table.hpp"
#include "tests/reference_models/kernels/support.hpp"

using namespace nvfp4;
using namespace nvfp4::models;
using namespace nvfp4::test;

namespace {

struct Sizes {
  int64_t batch, length, heads, kv_heads, dim;
};

const Sizes kSizes[] = {{1, 1, 1, 1, 4},   {2, 15, 2, 1, 8},   {1, 64, 2, 2, 16},
                        {1, 65, 4, 2, 20}, {2, 130, 3, 1, 12}, {1, 200, 4, 4, 33}};

template <class T> AttentionShape<T> shape_of(const Sizes &s) {
  return {s.batch, s.length, s.heads, s.kv_heads, s.dim, T(1) / std::sqrt(T(s.dim))};
}

template <class T> struct Attention {
  AttentionShape<T> shape;
  std::vector<T> q, k, v, o, saved, work;

  Attention(const Sizes &s, Random &random, double spread)
      : shape(shape_of<T>(s)), q(random.values<T>(s.batch * s.length * s.heads * s.dim, -spread, spread)),
        k(random.values<T>(s.batch * s.length * s.kv_heads * s.dim, -spread, spread)),
        v(random.values<T>(int64_t(k.size()))), o(q.size()), saved(zeros<T>(shape.saved())),
        work(size_t(shape.work()), T(NAN)) {}

  void forward(Backend<T> &backend) {
    AttentionForward<T>{shape, q.data(), k.data(), v.data(), o.data(), saved.data(), work.data()}.run_on(
        backend);
  }
};

struct Naive {
  Reals o;
  std::vector<AttentionMoments> heads;
};

/// The definition, one row at a time.
template <class T> Naive naive(const Attention<T> &a) {
  const auto &sh = a.shape;
  Naive out{Reals(a.o.size()), {}};
  for (int64_t b = 0; b < sh.batch; ++b)
    for (int64_t h = 0; h < sh.heads; ++h) {
      AttentionMoments m{0, -INFINITY, 0, 0, 0, 0, 0};
      const int64_t group = h / (sh.heads / sh.kv_heads);
      const auto q = [&](int64_t t, int64_t d) {
        return double(a.q[size_t(((b * sh.length + t) * sh.heads + h) * sh.dim + d)]);
      };
      const auto kv = [&](const std::vector<T> &x, int64_t t, int64_t d) {
        return double(x[size_t(((b * sh.length + t) * sh.kv_heads + group) * sh.dim + d)]);
      };
      for (int64_t i = 0; i < sh.length; ++i) {
        Reals z(size_t(i + 1));
        double top = -INFINITY, sum = 0;
        for (int64_t j = 0; j <= i; ++j) {
          double s = 0;
          for (int64_t d = 0; d < sh.dim; ++d) s += q(i, d) * kv(a.k, j, d);
          z[size_t(j)] = s / std::sqrt(double(sh.dim));
          top = std::fmax(top, z[size_t(j)]);
        }
        for (double x : z) sum += std::exp(x - top);
        m.largest = std::fmax(m.largest, top);
        for (int64_t j = 0; j <= i; ++j) {
          const double x = z[size_t(j)], p = std::exp(x - top) / sum;
          m.entropy -= p > 0 ? p * std::log(p) : 0;
          if (j == 0 && i > 0) m.first += p;
          m.z1 += x;
          m.z2 += x * x;
          m.z3 += x * x * x;
          m.z4 += x * x * x * x;
          for (int64_t d = 0; d < sh.dim; ++d)
            out.o[size_t(((b * sh.length + i) * sh.heads + h) * sh.dim + d)] += p * kv(a.v, j, d);
        }
      }
      out.heads.push_back(m);
    }
  return out;
}

} // namespace

TEST_CASE("attention is softmax(scale q k) v") {
  const auto backend = make_double_backend(1);
  const auto fast = make_cpu_backend(1);
  for (const Sizes &s : kSizes)
    for (const double spread : {1.0, 8.0}) {
      CAPTURE(s.length, s.heads, s.kv_heads, s.dim, spread);
      Random random(1);
      Attention<double> a(s, random, spread);
      a.forward(*backend);
      CHECK(difference(a.o, naive(a).o) < 1e-13);
      Attention<float> f(s, random, spread);
      f.forward(*fast);
      CHECK(difference(f.o, naive(f).o) < (spread == 1.0 ? 1e-6 : 2e-5)); // logits up to 6 and to 400
    }
}

TEST_CASE("attention statistics are those of the logits") {
  const auto backend = make_cpu_backend(2);
  for (const Sizes &s : kSizes) {
    CAPTURE(s.length, s.heads, s.dim);
    Random random(2);
    Attention<float> a(s, random, 2.0);
    a.forward(*backend);
    std::vector<AttentionMoments> rows(size_t(s.batch * s.heads * s.length)),
        heads(size_t(s.batch * s.heads));
    AttentionStatistics<float>{a.shape,       a.q.data(),  a.k.data(),  a.saved.data(),
                               a.work.data(), rows.data(), heads.data()}
        .run_on(*backend);
    const auto expected = naive(a).heads;
    for (size_t h = 0; h < heads.size(); ++h) {
      const auto n = double(s.length);
      CHECK(heads[h].entropy == Approx(expected[h].entropy).margin(1e-5 * n));
      CHECK(heads[h].largest == Approx(expected[h].largest).margin(1e-5));
      CHECK(heads[h].z1 == Approx(expected[h].z1).margin(1e-5 * n));
      CHECK(heads[h].z2 == Approx(expected[h].z2).epsilon(1e-5));
      CHECK(heads[h].z3 == Approx(expected[h].z3).margin(1e-4 * n));
      CHECK(heads[h].z4 == Approx(expected[h].z4).epsilon(1e-5));
      CHECK(heads[h].first == Approx(expected[h].first).margin(1e-5 * n));
    }
  }
}

TEST_CASE("attention's gradients") {
  const auto backend = make_double_backend(1);
  for (const Sizes &s : kSizes) {
    if (s.length == 1) continue; // p is 1 whatever q and k are
    CAPTURE(s.length, s.heads, s.kv_heads, s.dim);
    Random random(3);
    Attention<double> a(s, random, 2.0);
    const Reals grad_o = random.values(int64_t(a.o.size()));
    a.forward(*backend);
    Reals dq(a.q.size(), NAN), dk(a.k.size(), NAN), dv(a.v.size(), NAN);
    AttentionBackward<double>{a.shape,   grad_o.data(), a.q.data(), a.k.data(),     a.v.data(),
                              dq.data(), dk.data(),     dv.data(),  a.saved.data(), a.work.data()}
        .run_on(*backend);
    const auto loss = [&] {
      a.forward(*backend);
      return dot(a.o, grad_o);
    };
    check_gradients(loss, {{"q", &a.q, dq}, {"k", &a.k, dk}, {"v", &a.v, dv}}, random);
  }
}

TEST_CASE("attention with huge logits stays finite") {
  const auto backend = make_cpu_backend(1);
  Random random(4);
  Attention<float> a({1, 70, 2, 1, 16}, random, 1e4);
  a.forward(*backend);
  CHECK(all_finite(a.o));
  const auto grad_o = random.values<float>(int64_t(a.o.size()));
  auto dq = zeros<float>(int64_t(a.q.size())), dk = zeros<float>(int64_t(a.k.size())), dv = dk;
  AttentionBackward<float>{a.shape,   grad_o.data(), a.q.data(), a.k.data(),     a.v.data(),
                           dq.data(), dk.data(),     dv.data(),  a.saved.data(), a.work.data()}
      .run_on(*backend);
  CHECK(all_finite(dq));
  CHECK(all_finite(dk));
  CHECK(all_finite(dv));
}

TEST_CASE("rotary embedding turns pairs by their angle and back") {
  const auto backend = make_double_backend(1);
  const int64_t length = 37, heads = 3, dim = 10, tokens = 2 * length;
  const auto table = rope_table<double>(length, dim, 10000.0);
  const RopeShape<double> shape{tokens, length, heads, dim, table.cosine.data(), table.sine.data()};
  Random random(5);
  const Reals x = random.values(tokens * heads * dim);
  Reals y = x, back(x.size());
  backend->run(RopeForward<double>{shape, y.data(), y.data()});
  backend->run(RopeBackward<double>{shape, y.data(), back.data()});
  CHECK(difference(back, x) < 1e-15);
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t i = 0; i < dim / 2; ++i) {
        const double angle = double(t % length) * std::pow(10000.0, -2.0 * double(i) / double(dim));
        const size_t at = size_t((t * heads + h) * dim + i), half = size_t(dim / 2);
        const double real = x[at] * std::cos(angle) - x[at + half] * std::sin(angle);
        const double imaginary = x[at + half] * std::cos(angle) + x[at] * std::sin(angle);
        CHECK(std::fabs(y[at] - real) < 1e-5); // the angle is in FP32
        CHECK(std::fabs(y[at + half] - imaginary) < 1e-5);
      }
}

TEST_CASE("rotary tables agree with the C library") {
  for (const double base : {1.0, 10.0, 10000.0, 1e6, 123456.7, 1e15})
    for (double x = 0; x <= 1; x += 1.0 / 128) {
      const double expected = double(std::pow((long double)base, (long double)x));
      CAPTURE(base, x);
      CHECK(std::fabs(power_of(base, x) - expected) <= 1e-14 * expected);
    }
  const int64_t length = 4096, dim = 128;
  const auto table = rope_table<float>(length, dim, 1e6);
  double worst = 0;
  for (int64_t i = 0; i < dim / 2; ++i) {
    const float frequency = 1.0f / float(std::pow(1e6, double(2 * i) / double(dim)));
    for (int64_t t = 0; t < length; t += 7) {
      const double angle = double(float(t) * frequency);
      worst = std::fmax(worst, std::fabs(double(table.cosine[size_t(t * dim / 2 + i)]) - std::cos(angle)));
      worst = std::fmax(worst, std::fabs(double(table.sine[size_t(t * dim / 2 + i)]) - std::sin(angle)));
    }
  }
  CHECK(worst < 0x1.0001p-25); // half a unit in the last place below 1
  CHECK_THROWS_AS(rope_table<float>(16, 7, 1e4), Error);
  CHECK_THROWS_AS(rope_table<float>(0, 8, 1e4), Error);
  CHECK_THROWS_AS(rope_table<float>(16, 8, 0.5), Error);
  CHECK_THROWS_AS(rope_table<float>(16, 8, NAN), Error);
}
