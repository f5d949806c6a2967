// SPDX-License-Identifier: Apache-2.0
// Attention on tensor cores, case by case: operands built by hand so that one changed step shows, special
// values, and the digests of what an H200 gave.
#include "nvfp4/reference_models/bf16_mixers/attention_case.hpp"
#include "tests/catch.hpp"

#include <algorithm>

using namespace nvfp4;
using namespace nvfp4::models::tensorcore;

namespace {

/// One head of dim 64 whose operands start as zeros.
struct Bench {
  AttentionShape shape;
  std::vector<uint16_t> q, k, v, grad_o;

  Bench(int64_t length, bool causal, float scale)
      : shape{1, length, 1, 1, 64, causal, scale}, q(size_t(64 * length)), k(q), v(q), grad_o(q) {}
  static uint16_t &at(std::vector<uint16_t> &x, int64_t position, int64_t d) {
    return x[size_t(64 * position + d)];
  }
  [[nodiscard]] AttentionOutput forward() const { return attention_forward(shape, q, k, v); }
  [[nodiscard]] AttentionGradients backward(const AttentionOutput &out) const {
    return attention_backward(shape, q, k, v, out.o, out.lse2, grad_o);
  }
};

/// With it a product q k is a logit in base 2 as it stands: scale log2 e rounds to 1.
constexpr float kUnitScale = 0.69314718f;

uint32_t word(float x) { return bit_cast<uint32_t>(x); }

} // namespace

TEST_CASE("both products are the tensor core's, not fused multiply-adds and not exact") {
  REQUIRE(kUnitScale * kLog2E == 1.0f);
  // 1 + 15 * 2^-24: the unit cuts what is below an ulp of the sum of 16 products (7 ulps stay), a chain of
  // fused multiply-adds loses every term (0 ulps), the exact sum rounds to 8 ulps.
  Bench scores(1, true, kUnitScale);
  for (int64_t d = 0; d < 16; ++d) {
    Bench::at(scores.q, 0, d) = bf16_word(1.0f);
    Bench::at(scores.k, 0, d) = bf16_word(d == 0 ? 1.0f : 0x1p-24f);
  }
  CHECK(word(scores.forward().lse2[0]) == word(1.0f + 7 * 0x1p-23f));
  Bench values(16, false, kUnitScale); // 16 equal weights
  for (int64_t j = 0; j < 16; ++j) Bench::at(values.v, j, 5) = bf16_word(j == 0 ? 1.0f : 0x1p-24f);
  CHECK(word(values.forward().o32[5]) == word((1.0f + 7 * 0x1p-23f) / 16.0f));
}

TEST_CASE("weights: unrounded in the sum, BF16 in the product, divided at the end by one factor") {
  Bench x(2, false, kUnitScale); // logits 0 and -3/4
  for (int64_t i = 0; i < 2; ++i) Bench::at(x.q, i, 0) = bf16_word(1.0f);
  Bench::at(x.k, 1, 0) = bf16_word(-0.75f);
  for (int64_t d = 0; d < 16; ++d) {
    Bench::at(x.v, 0, d) = bf16_word(1.0f);
    Bench::at(x.v, 1, d) = bf16_word(float(d));
  }
  const float weight = exp2_negative(-0.75f), rounded = bf16_value(bf16_word(weight)), sum = 1.0f + weight;
  REQUIRE(weight != rounded);
  const AttentionOutput out = x.forward();
  int divided = 0;
  for (size_t d = 0; d < 16; ++d) {
    const float product = 1.0f + float(d) * rounded,
                want = product * (1.0f / sum); // product: few bits, exact
    CHECK(word(out.o32[d]) == word(want));
    CHECK(out.o[d] == bf16_word(want));
    divided += want == product / sum;
  }
  CHECK(divided < 16); // else a division at the end would not show
  CHECK(word(out.lse2[0]) == word(numerics::fma(numerics::log(sum), kLog2E, 0.0f)));
}

TEST_CASE("the sum of weights has eight parts, by key modulo 8") {
  Bench x(128, false, kUnitScale); // key 0 weighs 1, the others 2^-24
  for (int64_t j = 0; j < 128; ++j) {
    Bench::at(x.q, j, 0) = bf16_word(1.0f);
    Bench::at(x.k, j, 0) = bf16_word(j == 0 ? 0.0f : -24.0f);
  }
  Bench::at(x.v, 0, 3) = bf16_word(1.0f);
  // part 0 loses 15 keys to ties, the other seven parts keep 16 each; one sum would lose all 127
  CHECK(word(x.forward().o32[3]) == word(1.0f / (1.0f + 7 * 0x1p-20f)));
}

TEST_CASE("a larger maximum in a later block of 128 keys rescales what came before") {
  Bench x(130, true, kUnitScale); // logits 0, but key 128 has 3 and key 129 has 5
  for (int64_t j = 0; j < 130; ++j) {
    Bench::at(x.q, j, 0) = bf16_word(1.0f);
    Bench::at(x.v, j, 1) = bf16_word(float(j % 4));
  }
  Bench::at(x.k, 128, 0) = bf16_word(3.0f), Bench::at(x.k, 129, 0) = bf16_word(5.0f);
  const AttentionOutput out = x.forward();
  const auto o = [&](int64_t i) { return out.o32[size_t(64 * i + 1)]; };
  CHECK(word(o(127)) == word(192.0f * (1.0f / 128.0f)));
  CHECK(word(o(128)) == word((192.0f / 8.0f) * (1.0f / 17.0f)));
  CHECK(word(o(129)) == word((6.0f + 1.0f) * (1.0f / 5.25f))); // 192 / 32 + 0 / 4 + 1
  CHECK(word(out.lse2[129]) == word(numerics::fma(numerics::log(5.25f), kLog2E, 5.0f)));
}

TEST_CASE("backward of one position: the unit's dp less the fused row sum") {
  Bench x(1, true, kUnitScale);
  Bench::at(x.q, 0, 0) = bf16_word(1.0f), Bench::at(x.k, 0, 0) = bf16_word(3.0f);
  Bench::at(x.v, 0, 0) = bf16_word(1.0f);
  Bench::at(x.grad_o, 0, 0) = bf16_word(1.0f);
  for (int64_t d = 32; d < 47; ++d) {
    Bench::at(x.v, 0, d) = bf16_word(0x1p-24f);
    Bench::at(x.grad_o, 0, d) = bf16_word(1.0f);
  }
  const AttentionOutput out = x.forward();
  REQUIRE(out.lse2[0] == 3.0f); // the weight is 1
  const AttentionGradients g = x.backward(out);
  CHECK(word(g.d[0]) == word(1.0f + 6 * 0x1p-23f)); // lanes and butterfly; dp is 1 + 7 * 2^-23
  CHECK(word(g.q[0]) == word(0x1p-23f * 3.0f * kUnitScale));
  CHECK(word(g.k[0]) == word(0x1p-23f * kUnitScale));
  CHECK(word(g.v[0]) == word(1.0f));
  CHECK(word(g.q[1]) == 0);
}

TEST_CASE("gradients round weights and logit gradients to BF16, and scale at the end") {
  Bench x(2, false, kUnitScale);
  for (int64_t i = 0; i < 2; ++i) Bench::at(x.q, i, 0) = bf16_word(1.0f);
  Bench::at(x.k, 1, 0) = bf16_word(-0.5f);
  Bench::at(x.v, 0, 0) = bf16_word(1.0f), Bench::at(x.v, 1, 0) = bf16_word(3.0f);
  Bench::at(x.grad_o, 0, 0) = bf16_word(1.0f); // of row 0 only
  const AttentionOutput out = x.forward();
  const AttentionGradients g = x.backward(out);
  const auto bf16 = [](float y) { return bf16_value(bf16_word(y)); };
  const float p[2] = {exp2_negative(-out.lse2[0]), exp2_negative(-0.5f - out.lse2[0])};
  const float d = bf16_value(out.o[0]), ds[2] = {p[0] * (1.0f - d), p[1] * (3.0f - d)};
  REQUIRE((bf16(p[0]) != p[0] && bf16(ds[0]) != ds[0] && bf16(ds[1]) != ds[1]));
  CHECK(word(g.d[0]) == word(d));
  for (size_t j = 0; j < 2; ++j) {
    CHECK(word(g.v[64 * j]) == word(bf16(p[j])));
    CHECK(word(g.k[64 * j]) == word(bf16(ds[j]) * kUnitScale));
  }
  CHECK(word(g.q[0]) == word(bf16(ds[1]) * -0.5f * kUnitScale));
  CHECK(word(g.q[64]) == 0);
}

TEST_CASE("NaN and Inf go where the definition sends them") {
  const AttentionCase x{{1, 200, 1, 1, 64}};
  const AttentionOperands y = make_operands(x);
  const AttentionOutput base = attention_forward(x.shape, y.q, y.k, y.v);
  const auto row_is = [](const AttentionOutput &a, int64_t row, const AttentionOutput &b) {
    return std::equal(&a.o[size_t(64 * row)], &a.o[size_t(64 * row)] + 64, &b.o[size_t(64 * row)]) &&
           word(a.lse2[size_t(row)]) == word(b.lse2[size_t(row)]);
  };
  {
    auto q = y.q;
    q[64 * 20 + 7] = 0xFFC1; // a NaN of another word
    const AttentionOutput out = attention_forward(x.shape, q, y.k, y.v);
    for (int64_t i = 0; i < 200; ++i)
      if (i != 20) REQUIRE(row_is(out, i, base));
    CHECK(word(out.lse2[20]) == 0x7FFFFFFF);
    for (size_t d = 0; d < 64; ++d) {
      REQUIRE(out.o[64 * 20 + d] == 0x7FFF);
      REQUIRE(word(out.o32[64 * 20 + d]) == 0x7FFFFFFF);
    }
  }
  {
    auto k = y.k;
    k[64 * 130 + 7] = 0x7F80; // +Inf: a logit of +Inf for some queries, of -Inf for others
    const AttentionOutput out = attention_forward(x.shape, y.q, k, y.v);
    int64_t lost = 0, kept = 0;
    for (int64_t i = 0; i < 200; ++i) {
      if (i < 130) { // masked: does not count
        REQUIRE(row_is(out, i, base));
        continue;
      }
      const bool plus = bf16_value(y.q[size_t(64 * i + 7)]) > 0;
      (plus ? lost : kept) += 1;
      REQUIRE((word(out.lse2[size_t(i)]) == 0x7FFFFFFF) == plus);
      REQUIRE((out.o[size_t(64 * i)] == 0x7FFF) == plus);
    }
    CHECK((lost > 10 && kept > 10));
  }
  {
    auto v = y.v;
    v[64 * 130 + 7] = 0x7F80; // a weight of 0 times Inf: rows before it, in its block of 128, see NaN
    const AttentionOutput out = attention_forward(x.shape, y.q, y.k, v);
    for (int64_t i = 0; i < 200; ++i) {
      const uint16_t got = out.o[size_t(64 * i + 7)];
      REQUIRE(got == (i < 128 ? base.o[size_t(64 * i + 7)] : i < 130 ? 0x7FFF : 0x7F80));
      REQUIRE(out.o[size_t(64 * i + 8)] == base.o[size_t(64 * i + 8)]);
    }
  }
}

TEST_CASE("an H200 gave the same words") {
  // Digests of o, lse2, dq, dk and dv (special: o, lse2), XORed, as nvfp4-gpu attention printed them
  // for the device's words: NVIDIA H200, driver 580.159.04, CUDA 13.0, 2026-11-22; all 22 cases are in
  // golden/evidence/h200-attention.txt.
  const struct {
    AttentionCase input;
    uint64_t digest;
  } cases[] = {
      {{{1, 1, 1, 1, 64, true}}, 0xfa7f9d84705f658b},
      {{{1, 64, 1, 1, 64, false}}, 0xe5eed141d1926788},
      {{{1, 128, 1, 1, 64, true}}, 0x0837b171f0655c19},
      {{{2, 129, 2, 1, 64, true}}, 0x8155b64b982675f8},
      {{{3, 77, 4, 2, 64, true}, Values::peaked}, 0x7f3dbbbaa0918ea6},
      {{{1, 513, 8, 2, 64, true, 0.3f}}, 0xdd5115c4674c8833},
      {{{2, 1000, 4, 4, 64, true}, Values::special}, 0x6e58fd853a5dfcd2},
      {{{1, 1, 1, 1, 128, true}}, 0x47fcecdbd84651ca},
      {{{1, 64, 1, 1, 128, false}}, 0x3475c482ff58c473},
      {{{1, 128, 1, 1, 128, true}}, 0x2ed4060a848bc12e},
      {{{2, 129, 2, 1, 128, true}}, 0x7af2095b8ffa391a},
      {{{3, 77, 4, 2, 128, true}, Values::peaked}, 0x16a51c19b5e57432},
  };
  for (const auto &[x, digest] : cases) {
    const AttentionOperands y = make_operands(x);
    const AttentionOutput out = attention_forward(x.shape, y.q, y.k, y.v);
    uint64_t got = digest_of(out.o) ^ digest_of(out.lse2);
    if (x.values != Values::special) {
      const AttentionGradients g = attention_backward(x.shape, y.q, y.k, y.v, out.o, out.lse2, y.grad_o);
      got ^= digest_of(g.q) ^ digest_of(g.k) ^ digest_of(g.v);
    }
    CAPTURE(x.shape.batch, x.shape.length, x.shape.heads, x.shape.dim);
    CHECK(got == digest);
  }
}
