// SPDX-License-Identifier: Apache-2.0
// The scale and element steps once more, written out as straight-line float code from their source, against
// the table-driven one: on a tensor whose maximum makes the orders of operations disagree, and at the edges
// of the number range.
#include "tests/catch.hpp"
#include "tests/emulator/quantize/support.hpp"

#include <functional>
#include <limits>

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float k6 = 1.0f / 6.0f;

/// BF16 values with maximum 4.375 in every row, so that per-row scales see it too.
Matrix discriminating(float largest = 4.375f) {
  Matrix m = gaussian(256, 1024, 77);
  for (float &v : m.x) v = std::min(std::max(v, -4.0f), 4.0f);
  for (int64_t r = 0; r < m.rows; ++r) m(r, 0) = largest;
  return m;
}

float e4(float s) { return value_f32(FormatId::ue4m3, encode(FormatId::ue4m3, s)); }

/// What the steps make of a block: the scale's value and a function from element to the value to be rounded.
struct Block {
  float sf;
  std::function<float(float)> scaled;
};
using Steps = std::function<Block(float bmax, float amax)>;

void check_steps(const char *name, const Matrix &m, float amax, const Steps &steps) {
  CAPTURE(name);
  const BlockScaled q = quantize_as(m, name);
  int64_t scales = 0, codes = 0;
  for (int64_t r = 0; r < m.rows; ++r)
    for (int64_t b = 0; b < m.cols / 16; ++b) {
      float bmax = 0;
      for (int i = 0; i < 16; ++i) bmax = std::max(bmax, std::fabs(m(r, 16 * b + i)));
      const Block block = steps(bmax, amax);
      scales += value_f32(FormatId::ue4m3, q.scale_code(r, b)) != block.sf;
      for (int i = 0; i < 16; ++i) {
        const float y = block.scaled(m(r, 16 * b + i));
        codes +=
            value(FormatId::e2m1, q.code(r, 16 * b + i)) != value(FormatId::e2m1, encode(FormatId::e2m1, y));
      }
    }
  CHECK(scales == 0);
  CHECK(codes == 0);
}

/// TransformerEngine's and the fouroversix kernel's adaptive choice for one block; true for 4.
bool takes_four(const float *x, float amax, bool squared, bool fused, uint8_t (&codes)[16]) {
  float bmax = 0;
  for (int i = 0; i < 16; ++i) bmax = std::max(bmax, std::fabs(x[i]));
  const float s_enc = 1536.0f / amax, s_dec = 1.0f / s_enc, base = bmax / 6.0f * s_enc;
  float error[2] = {0, 0};
  uint8_t candidate[2][16];
  for (int four = 0; four < 2; ++four) {
    const float sf = e4(std::min(four == 1 ? base * 1.5f : base, 448.0f));
    const float multiplier = std::min(1.0f / (sf * s_dec), kFltMax);
    for (int i = 0; i < 16; ++i) {
      candidate[four][i] = uint8_t(encode(FormatId::e2m1, x[i] * multiplier));
      const float y = value_f32(FormatId::e2m1, candidate[four][i]) * sf * amax / 1536.0f;
      const float d = y - x[i];
      error[four] = !squared ? error[four] + std::fabs(d)
                    : fused  ? std::fma(d, d, error[four])
                             : error[four] + d * d;
    }
  }
  const bool four = error[1] < error[0];
  std::copy_n(candidate[four ? 1 : 0], 16, codes);
  return four;
}

} // namespace

TEST_CASE("scale and element steps, operation by operation", "[quantize]") {
  const Matrix m = discriminating();
  const float amax = 4.375f, S = 2688.0f / amax, p = amax / 2688.0f;
  const auto te_elements = [=](float sf) { return [=](float x) { return x * (1.0f / (sf * (1.0f / S))); }; };
  check_steps("te", m, amax, [=](float b, float) {
    const float sf = e4(b * (S * k6));
    return Block{sf, te_elements(sf)};
  });
  check_steps("te213", m, amax, [=](float b, float) {
    const float sf = e4(b / 6.0f * S);
    return Block{sf, te_elements(sf)};
  });
  check_steps("row-scaled", m, amax, [=](float b, float) {
    const float sf = e4(b * (S * k6));
    return Block{sf, te_elements(sf)};
  });
  check_steps("flashinfer-exact", m, amax, [=](float b, float) {
    const float sf = e4(b * (S * k6));
    return Block{sf, te_elements(sf)};
  });
  for (const char *name : {"flashinfer", "vllm"})
    check_steps(name, m, amax, [=](float b, float) {
      const float sf = e4(S * (b * k6));
      return Block{sf, te_elements(sf)};
    });
  check_steps("torchao", m, amax, [=](float b, float) {
    const float sf = e4(std::max(b / 6.0f / p, 0.015625f));
    return Block{sf, [=](float x) { return x * (1.0f / p / sf); }};
  });
  check_steps("torchao015", m, amax, [=](float b, float) {
    const float sf = e4(std::max(b / 6.0f / p, 0.015625f));
    return Block{sf, [=](float x) { return x / (p * sf); }};
  });
  check_steps("torchao018-kernels", m, amax, [=](float b, float) {
    const float sf = e4(std::max(b / 6.0f * S, 0.015625f));
    return Block{sf, te_elements(sf)};
  });
  check_steps("modelopt", m, amax, [=](float b, float) {
    const float sf = e4(std::max(b / (6.0f * p), 0.001953125f));
    return Block{sf, [=](float x) { return x / (sf * p); }};
  });
  for (const float largest : {4.375f, 4.5f, 5.25f, 4.3712345f}) {
    const float G = (1.0f / largest) * 2688.0f;
    check_steps("compressed-tensors", discriminating(largest), largest, [=](float b, float) {
      const float sf = e4(G * (b / 6.0f));
      return Block{sf, [=](float x) { return x / (sf / G); }};
    });
  }
}

TEST_CASE("four over six, candidate by candidate", "[quantize]") {
  struct Variant {
    const char *name;
    bool squared, fused;
  };
  const Matrix m = discriminating();
  for (const Variant v : {Variant{"te-4over6", false, false}, Variant{"te-4over6-mse", true, false},
                          Variant{"fouroversix", true, true}, Variant{"fouroversix-mae", false, false}}) {
    CAPTURE(v.name);
    const BlockScaled q = quantize_as(m, v.name);
    int64_t different = 0, fours = 0;
    for (int64_t r = 0; r < m.rows; ++r)
      for (int64_t b = 0; b < m.cols / 16; ++b) {
        uint8_t codes[16];
        fours += takes_four(&m.x[size_t(r * m.cols + b * 16)], 4.375f, v.squared, v.fused, codes);
        for (int i = 0; i < 16; ++i) different += q.code(r, 16 * b + i) != codes[i];
      }
    CHECK(different == 0);
    CHECK(fours > 1000);
    CHECK(fours < 16000);
  }
}

TEST_CASE("the fused sum of squares decides differently now and then", "[quantize]") {
  // Blocks on a coarse grid come near ties; somewhere among them the two sums order the candidates
  // differently.
  const Rule &fused = find_convention("fouroversix").rule, &plain = find_convention("te-4over6-mse").rule;
  CHECK(fused.fused_error);
  CHECK(!plain.fused_error);
  std::mt19937 words(5);
  int different = 0;
  for (int round = 0; round < 60000; ++round) {
    Matrix m(1, 16);
    for (float &v : m.x) v = float(int(words() % 25) - 12) / 12.0f;
    m.x[size_t(round % 16)] = 1.0f;
    uint8_t a[16], b[16];
    const bool four = takes_four(m.x.data(), 1.0f, true, true, a);
    if (four == takes_four(m.x.data(), 1.0f, true, false, b)) continue;
    ++different;
    CHECK(quantize_as(m, "fouroversix", {.threads = 1}).scales[0] == (four ? 0x7C : 0x78));
    CHECK(quantize_as(m, "te-4over6-mse", {.threads = 1}).scales[0] == (four ? 0x78 : 0x7C));
  }
  CHECK(different > 0);
}

TEST_CASE("the definition's fused sum rounds once", "[quantize]") {
  // code 0 gives the error d = -x; d^2 = 1 + 2^-11 + 2^-24 and the sum so far is 2^-24
  const float x = 1.0f + 0x1p-12f, sum = 0x1p-24f;
  const BlockScale scale{.code = 0x38, .value = 1.0f, .factor = 1.0f};
  CHECK(add_error(find_convention("fouroversix").rule, sum, 0, x, scale, 1.0f) == 1.0f + 0x1p-11f + 0x1p-23f);
  CHECK(add_error(find_convention("te-4over6-mse").rule, sum, 0, x, scale, 1.0f) == 1.0f + 0x1p-11f);
}

TEST_CASE("a tile sums its rows in order and then as a tree", "[quantize]") {
  Matrix m = gaussian(64, 64, 78);
  for (int64_t r = 0; r < 64; ++r) // every other tile lies near 6 and 4.5, which suit a block scaled to 4
    for (int64_t c = 0; c < 64; ++c)
      if ((r / 16 + c / 16) % 2 == 0) m(r, c) = bf16((m(r, c) > 0 ? 6.0f : 4.5f) + 0.05f * m(r, c));
  const BlockScaled q = quantize_as(m, "te-4over6", {.block_rows = 16});
  const float s_enc = 1536.0f / q.global_amax, s_dec = 1.0f / s_enc;
  int fours = 0;
  for (int64_t tr = 0; tr < 4; ++tr)
    for (int64_t tc = 0; tc < 4; ++tc) {
      float bmax = 0;
      for (int r = 0; r < 16; ++r)
        for (int c = 0; c < 16; ++c) bmax = std::max(bmax, std::fabs(m(16 * tr + r, 16 * tc + c)));
      const float base = bmax / 6.0f * s_enc;
      float error[2];
      float sf[2];
      for (int four = 0; four < 2; ++four) {
        sf[four] = e4(std::min(four == 1 ? base * 1.5f : base, 448.0f));
        float rows[16] = {};
        for (int r = 0; r < 16; ++r)
          for (int c = 0; c < 16; ++c) {
            const float x = m(16 * tr + r, 16 * tc + c);
            const float v =
                value_f32(FormatId::e2m1, encode(FormatId::e2m1, x * (1.0f / (sf[four] * s_dec))));
            rows[r] += std::fabs(v * sf[four] * q.global_amax / 1536.0f - x);
          }
        for (int step = 8; step > 0; step /= 2)
          for (int i = 0; i < step; ++i) rows[i] += rows[i + step];
        error[four] = rows[0];
      }
      const bool four = error[1] < error[0];
      fours += four;
      CHECK(value_f32(FormatId::ue4m3, q.scale_code(16 * tr + 5, tc)) == sf[four ? 1 : 0]);
    }
  CHECK(fours > 0);
  CHECK(fours < 16);
}

TEST_CASE("subnormal steps are flushed where the kernel is compiled so", "[quantize]") {
  Matrix m(1, 16);
  for (float &v : m.x) v = 1e-39f;
  const QuantizeOptions o{.global_scale = 5e37f};
  for (const char *name : {"flashinfer", "flashinfer-exact"}) {
    CAPTURE(name);
    CHECK(hex(quantize_as(m, name, o).scales) == "00");
  }
  CHECK(hex(quantize_as(m, "vllm", o).scales) == "04");
  for (float &v : m.x) v = 2e-38f;
  m.x[0] = 1e-37f;
  for (const char *name :
       {"flashinfer", "flashinfer-exact", "vllm"}) { // 1 / S is subnormal, so its inverse infinite
    CAPTURE(name);
    CHECK(nibbles(quantize_as(m, name, {.global_scale = 1e38f})) == "7777777777777777");
  }
  CHECK(nibbles(quantize_as(m, "compressed-tensors", {.global_scale = 1e38f})) == "7222222222222222");
  for (float &v : m.x) v = 0x1p-125f; // its sixth is subnormal
  CHECK(nibbles(quantize_as(m, "mxfp4-ceil")).substr(0, 16) == "0000000000000000");
  CHECK(hex(quantize_as(m, "mxfp4-ceil").scales) == "00");
}

TEST_CASE("NaN in a block, convention by convention", "[quantize]") {
  Matrix m(1, 32);
  for (float &v : m.x) v = 3.0f;
  m.x[1] = kNan;
  m.x[2] = -kNan;
  CHECK(nibbles(quantize_as(m, "compressed-tensors")).substr(0, 4) == "0080");
  CHECK(nibbles(quantize_as(m, "torchao")).substr(0, 4) == "33B3");
  CHECK(nibbles(quantize_as(m, "modelopt")).substr(0, 4) == "7777");
  CHECK(nibbles(quantize_as(m, "mxfp4")).substr(0, 4) == "33B3");
  CHECK(hex(quantize_as(m, "mxfp8-e4m3").scales) == "FF");
  CHECK(hex(quantize_as(m, "mxfp8-e4m3").codes).substr(0, 8) == "7F7F7F7F");
  CHECK(hex(quantize_as(m, "mxfp8-e5m2").codes).substr(0, 8) == "7F7F7F7F");
  CHECK(hex(quantize_as(m, "mxfp8-e4m3-ceil").codes).substr(0, 8) ==
        "7C7F7F7C"); // only the elements themselves
  CHECK(nibbles(quantize_as(m, "fouroversix")).substr(0, 4) == "7777");
  const QuantizeOptions one{.global_scale = 1.0f};
  CHECK(hex(quantize_as(m, "flashinfer", one).scales) == "3030");
  for (int i = 0; i < 16; ++i) m.x[size_t(i)] = kNan;
  CHECK(hex(quantize_as(m, "flashinfer", one).scales) == "7F30"); // nothing but NaN
  CHECK(hex(quantize_as(m, "te", {.global_amax = 2688.0f}).scales) == "0030");
}
