// SPDX-License-Identifier: Apache-2.0
// The definition of attention on tensor cores: against FP64 within derived bounds, and its laws.
#include "nvfp4/reference_models/bf16_mixers/attention_case.hpp"
#include "nvfp4/reference_models/bf16_mixers/dot.hpp"
#include "tests/catch.hpp"

#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#if defined(_OPENMP)
#include <omp.h>
#endif

using namespace nvfp4;
using namespace nvfp4::models::tensorcore;

namespace {

/// Attention and its gradients in FP64, plainly. Weights are divided by their sum at once; no rounding.
struct Exact {
  std::vector<double> o, lse2, grad_q, grad_k, grad_v;
  std::vector<double> o_bound; ///< for each output: sum over keys of weight * |v|
};

Exact exact(const AttentionShape &s, const AttentionOperands &x) {
  Exact e;
  e.o.resize(size_t(s.q_elements()));
  e.o_bound.resize(e.o.size());
  e.grad_q.resize(e.o.size());
  e.lse2.resize(size_t(s.rows()));
  e.grad_k.resize(size_t(s.kv_elements()));
  e.grad_v.resize(e.grad_k.size());
  const double scale = double(s.logit_scale());
  for (int64_t b = 0; b < s.batch; ++b)
    for (int64_t h = 0; h < s.heads; ++h)
      for (int64_t i = 0; i < s.length; ++i) {
        const int64_t keys = s.causal ? i + 1 : s.length;
        const int64_t q0 = ((b * s.length + i) * s.heads + h) * s.dim;
        const auto k0 = [&](int64_t j) { return ((b * s.length + j) * s.kv_heads + h / s.group()) * s.dim; };
        const auto dot = [&](const std::vector<uint16_t> &a, int64_t at, const std::vector<uint16_t> &c,
                             int64_t from) {
          double sum = 0;
          for (int64_t d = 0; d < s.dim; ++d)
            sum += double(bf16_value(a[size_t(at + d)])) * double(bf16_value(c[size_t(from + d)]));
          return sum;
        };
        std::vector<double> p(static_cast<size_t>(keys)), dp(p.size());
        double top = -1e300, sum = 0, mean = 0;
        for (int64_t j = 0; j < keys; ++j)
          top = std::max(top, p[size_t(j)] = scale * dot(x.q, q0, x.k, k0(j)));
        for (double &w : p) sum += w = std::exp(w - top);
        e.lse2[size_t((b * s.heads + h) * s.length + i)] = (top + std::log(sum)) / std::log(2.0);
        for (int64_t j = 0; j < keys; ++j) {
          p[size_t(j)] /= sum;
          dp[size_t(j)] = dot(x.grad_o, q0, x.v, k0(j));
          mean += p[size_t(j)] * dp[size_t(j)];
        }
        for (int64_t j = 0; j < keys; ++j) {
          const double w = p[size_t(j)], ds = w * (dp[size_t(j)] - mean) * scale;
          for (int64_t d = 0; d < s.dim; ++d) {
            const size_t qd = size_t(q0 + d), kd = size_t(k0(j) + d);
            const double v = double(bf16_value(x.v[kd]));
            e.o[qd] += w * v;
            e.o_bound[qd] += w * std::abs(v);
            e.grad_q[qd] += ds * double(bf16_value(x.k[kd]));
            e.grad_k[kd] += ds * double(bf16_value(x.q[qd]));
            e.grad_v[kd] += w * double(bf16_value(x.grad_o[qd]));
          }
        }
      }
  return e;
}

double relative_norm(const std::vector<float> &got, const std::vector<double> &want) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (double(got[i]) - want[i]) * (double(got[i]) - want[i]);
    norm += want[i] * want[i];
  }
  return norm == 0 ? std::sqrt(error) : std::sqrt(error / norm);
}

AttentionOutput forward(const AttentionCase &x, const AttentionOperands &y, std::optional<Isa> isa = {}) {
  return attention_forward(x.shape, y.q, y.k, y.v, isa);
}
AttentionGradients backward(const AttentionCase &x, const AttentionOperands &y, const AttentionOutput &o,
                            std::optional<Isa> isa = {}) {
  return attention_backward(x.shape, y.q, y.k, y.v, o.o, o.lse2, y.grad_o, isa);
}

template <class T> bool same_words(const std::vector<T> &a, const std::vector<T> &b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

} // namespace

TEST_CASE("exp2_negative: one float in seven of its range") {
  double worst = 0;
  for (uint32_t w = 0x80000000u; w <= 0xC2FC0000u; w += 7) { // -0 to -126
    const float x = bit_cast<float>(w);
    const double want = std::exp2(double(x));
    worst = std::max(worst, std::abs(double(exp2_negative(x)) - want) / want);
  }
  INFO("largest relative error " << worst);
  CHECK(worst < 0x1p-18);
  CHECK(worst > 0x1p-19); // the stated bound is not idle
  CHECK(exp2_negative(0.0f) == 1.0f);
  CHECK(exp2_negative(-126.0f) == 0x1p-126f);
  CHECK(exp2_negative(-126.6f) == 0.0f);
  CHECK(exp2_negative(-1e30f) == 0.0f);
  CHECK(exp2_negative(-infinity()) == 0.0f);
  CHECK(exp2_negative(100.0f) == 0x1p100f);
  const float nan = bit_cast<float>(0x7FC00000u);
  CHECK(exp2_negative(nan) != exp2_negative(nan));
}

TEST_CASE("attention on tensor cores against FP64") {
  const AttentionCase cases[] = {
      {{1, 1, 1, 1, 64}},           {{1, 130, 2, 1, 64}},        {{2, 77, 4, 2, 128}},
      {{1, 200, 2, 2, 128, false}}, {{1, 129, 2, 1, 64, false}}, {{1, 300, 2, 1, 64, true, 0.05f}},
  };
  for (const AttentionCase &x : cases) {
    const AttentionOperands y = make_operands(x);
    const AttentionOutput o = forward(x, y);
    const Exact want = exact(x.shape, y);
    CAPTURE(x.shape.length, x.shape.dim, x.shape.causal);
    // A weight's relative error: 2^-8 by its rounding to BF16, 2^-18 by exp2, and that of the exponent, a sum
    // of at most 128 products of which each keeps 25 bits below the largest. Then sums cut to 24 bits.
    for (size_t i = 0; i < want.o.size(); ++i) {
      const double bound = want.o_bound[i] * (0x1p-8 + 0x1p-15) + 1e-30;
      if (std::abs(double(o.o32[i]) - want.o[i]) > bound)
        FAIL("o " << i << ": " << o.o32[i] << " " << want.o[i]);
      REQUIRE(o.o[i] == bf16_word(o.o32[i]));
    }
    for (size_t i = 0; i < want.lse2.size(); ++i)
      if (std::abs(double(o.lse2[i]) - want.lse2[i]) > 1e-5 + 1e-6 * std::abs(want.lse2[i]))
        FAIL("lse " << i << ": " << o.lse2[i] << " " << want.lse2[i]);
    const AttentionGradients g = backward(x, y, o);
    // dS and o are rounded to 8 bits: 2^-8 a term, random signs
    CHECK(relative_norm(g.q, want.grad_q) < 0.006);
    CHECK(relative_norm(g.k, want.grad_k) < 0.006);
    CHECK(relative_norm(g.v, want.grad_v) < 0.003);
  }
}

namespace {

/// Everything that a case produces.
struct Whole {
  AttentionOutput out;
  AttentionGradients grads;
};
Whole whole(const AttentionCase &x, const AttentionOperands &y, std::optional<Isa> isa = {}) {
  AttentionOutput out = forward(x, y, isa);
  AttentionGradients grads = backward(x, y, out, isa);
  return {std::move(out), std::move(grads)};
}
bool same(const Whole &a, const Whole &b) {
  return same_words(a.out.o, b.out.o) && same_words(a.out.o32, b.out.o32) &&
         same_words(a.out.lse2, b.out.lse2) && same_words(a.grads.q, b.grads.q) &&
         same_words(a.grads.k, b.grads.k) && same_words(a.grads.v, b.grads.v) &&
         same_words(a.grads.d, b.grads.d);
}

/// Whether the words of positions [from, to) of a (length, width) tensor are equal.
template <class T>
bool same_positions(const std::vector<T> &a, const std::vector<T> &b, int64_t width, int64_t from,
                    int64_t to) {
  return std::memcmp(&a[size_t(from * width)], &b[size_t(from * width)],
                     size_t((to - from) * width) * sizeof(T)) == 0;
}

} // namespace

TEST_CASE("causal attention: the future shows neither in values nor in gradients") {
  const AttentionCase x{{1, 150, 2, 1, 64}};
  const int64_t now = 70, length = 150, q = 128, kv = 64; // words a position
  const AttentionOperands y = make_operands(x);
  const Whole base = whole(x, y);
  const auto replace = [](std::vector<uint16_t> &words, uint64_t seed, int64_t from, int64_t to) {
    const auto other = case_values(seed, to - from, 1.0f);
    std::copy(other.begin(), other.end(), words.begin() + from);
  };

  AttentionOperands future = y;
  replace(future.q, 11, now * q, length * q);
  replace(future.grad_o, 12, now * q, length * q);
  replace(future.k, 13, now * kv, length * kv);
  replace(future.v, 14, now * kv, length * kv);
  const Whole a = whole(x, future);
  CHECK(same_positions(a.out.o32, base.out.o32, q, 0, now));
  CHECK(same_positions(a.grads.q, base.grads.q, q, 0, now));
  for (int64_t head = 0; head < 2; ++head)
    CHECK(same_positions(a.out.lse2, base.out.lse2, 1, head * length, head * length + now));
  CHECK_FALSE(same_positions(a.out.o32, base.out.o32, q, now, now + 1));
  CHECK_FALSE(same_positions(a.grads.k, base.grads.k, kv, 0, 1)); // the past is seen from the future

  AttentionOperands past = y;
  replace(past.q, 11, 0, now * q);
  replace(past.grad_o, 12, 0, now * q);
  const Whole b = whole(x, past);
  CHECK(same_positions(b.grads.k, base.grads.k, kv, now, length));
  CHECK(same_positions(b.grads.v, base.grads.v, kv, now, length));
  CHECK_FALSE(same_positions(b.grads.v, base.grads.v, kv, now - 1, now));
}

TEST_CASE("query heads that share a key head: as if each had a copy") {
  const AttentionCase grouped{{2, 90, 4, 2, 64}}, single{{2, 90, 4, 4, 64}};
  AttentionOperands y = make_operands(grouped), copied = y;
  const int64_t positions = 2 * 90, dim = 64;
  const auto copy = [&](const std::vector<uint16_t> &from) {
    std::vector<uint16_t> to(2 * from.size());
    for (int64_t p = 0; p < positions; ++p)
      for (int64_t h = 0; h < 4; ++h)
        std::copy_n(&from[size_t((p * 2 + h / 2) * dim)], dim, &to[size_t((p * 4 + h) * dim)]);
    return to;
  };
  copied.k = copy(y.k);
  copied.v = copy(y.v);
  const Whole a = whole(grouped, y), b = whole(single, copied);
  CHECK(same_words(a.out.o32, b.out.o32));
  CHECK(same_words(a.out.lse2, b.out.lse2));
  CHECK(same_words(a.grads.q, b.grads.q));
  // Gradients of a shared key continue one chain over the heads: where one head has none, the other's remain.
  for (int64_t p = 0; p < positions; ++p)
    for (int64_t h : {1, 2}) std::fill_n(&y.grad_o[size_t((p * 4 + h) * dim)], dim, uint16_t{0});
  copied.grad_o = y.grad_o;
  const Whole c = whole(grouped, y), d = whole(single, copied);
  for (int64_t p = 0; p < positions; ++p)
    for (int64_t h = 0; h < 2; ++h) {
      const size_t shared = size_t((p * 2 + h) * dim), own = size_t((p * 4 + 3 * h) * dim);
      REQUIRE(std::memcmp(&c.grads.k[shared], &d.grads.k[own], size_t(dim) * 4) == 0);
      REQUIRE(std::memcmp(&c.grads.v[shared], &d.grads.v[own], size_t(dim) * 4) == 0);
    }
}

TEST_CASE("attention's bits depend neither on threads nor on the instruction set") {
  for (const AttentionCase &x : {AttentionCase{{1, 77, 4, 2, 64}, Values::normal},
                                 AttentionCase{{1, 65, 2, 1, 128, false}, Values::peaked}}) {
    const AttentionOperands y = make_operands(x);
    const Whole base = whole(x, y);
#if defined(_OPENMP)
    const int threads = omp_get_max_threads();
    for (const int n : {1, 3}) {
      omp_set_num_threads(n);
      CHECK(same(whole(x, y), base));
    }
    omp_set_num_threads(threads);
#endif
    for (const Isa isa : kIsas) // scalar: dot() of the unit for every output
      if (supported(isa)) CHECK(same(whole(x, y, isa), base));
  }
}

TEST_CASE("products from any accumulator are the unit's chains") {
  const UnitRule &rule = find_unit("sm_90:wgmma.k16.f32.bf16").rule;
  constexpr int64_t rows = 37, cols = 41, k = 40, padded = 48, stride = 43;
  // exponents: narrow (vector kernels vouch for all), wide (for some), everything that 16 bits can say
  for (const int spread : {3, 90, 0}) {
    std::mt19937_64 random(uint64_t(spread) + 5);
    const auto word = [&]() -> uint16_t {
      if (spread == 0) return uint16_t(random());
      return uint16_t((random() & 0x807F) | (uint64_t(127 - spread / 2) + random() % uint64_t(spread)) << 7);
    };
    std::vector<uint16_t> a(rows * padded), b(cols * padded);
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t i = 0; i < k; ++i) a[size_t(r * padded + i)] = word();
    for (int64_t r = 0; r < cols; ++r)
      for (int64_t i = 0; i < k; ++i) b[size_t(r * padded + i)] = word();
    std::vector<float> d(rows * stride), want;
    for (float &x : d)
      x = random() % 4 == 0 ? 0.0f : bit_cast<float>(uint32_t(word()) << 16 | uint32_t(random() & 0xFFFF));
    want = d;
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < cols; ++c) {
        const DotOperands op{{reinterpret_cast<const uint8_t *>(&a[size_t(r * padded)]), 16},
                             {reinterpret_cast<const uint8_t *>(&b[size_t(c * padded)]), 16}};
        float &x = want[size_t(r * stride + c)];
        x = bit_cast<float>(uint32_t(dot(rule, op, padded, bit_cast<uint32_t>(x))));
      }
    DotOperand left, right;
    left.left({a.data(), padded}, rows, k);
    right.right({b.data(), padded}, cols, k);
    accumulate(left, right, d.data(), stride);
    CAPTURE(spread);
    CHECK(same_words(d, want));
  }
}

TEST_CASE("attention refuses what it does not define, and says what came") {
  const auto message = [](auto &&call) {
    try {
      call();
    } catch (const Error &e) {
      return std::string(e.what());
    }
    return std::string("no error");
  };
  using Catch::Contains;
  for (const AttentionShape &s : {AttentionShape{0, 1, 1, 1, 64},
                                  {1, -1, 1, 1, 64},
                                  {1, 1, 3, 2, 64},
                                  {1, 1, 1, 1, 96},
                                  {1, 1, 1, 1, 64, true, -1.0f},
                                  {1, 1, 1, 1, 64, true, infinity()},
                                  {int64_t{1} << 31, 1, 1, 1, 64}}) {
    const std::string got = message([&] { check_shape("somebody", s); });
    CHECK_THAT(got, Contains("somebody: needs positive sizes") && Contains("dim " + std::to_string(s.dim)) &&
                        Contains("heads " + std::to_string(s.heads)));
  }
  const AttentionCase x{{1, 3, 2, 1, 64}};
  AttentionOperands y = make_operands(x);
  const AttentionOutput out = forward(x, y);
  y.k.pop_back();
  CHECK(message([&] { (void)forward(x, y); }) == "attention: k must have 192 elements, got 191");
  CHECK(message([&] { (void)backward(x, y, out); }) == "attention: k must have 192 elements, got 191");
  y = make_operands(x);
  y.grad_o.resize(5);
  CHECK(message([&] { (void)backward(x, y, out); }) == "attention: grad_o must have 384 elements, got 5");
}
