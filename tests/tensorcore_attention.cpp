// SPDX-License-Identifier: Apache-2.0
// The definition of attention on tensor cores: against FP64 within derived bounds, its laws, and cases where
// one changed step shows.
#include "reference_models/tensorcore/attention_case.hpp"
#include "reference_models/tensorcore/dot.hpp"
#include "tests/catch.hpp"

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <random>

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

AttentionOutput forward(const AttentionCase &x, const AttentionOperands &y) {
  return attention_forward(x.shape, y.q, y.k, y.v);
}
AttentionGradients backward(const AttentionCase &x, const AttentionOperands &y, const AttentionOutput &o) {
  return attention_backward(x.shape, y.q, y.k, y.v, o.o, o.lse2, y.grad_o);
}

template <class T> bool same_words(const std::vector<T> &a, const std::vector<T> &b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

} // namespace

TEST_CASE("exp2_negative: every float of its range") {
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
