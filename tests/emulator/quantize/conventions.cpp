// SPDX-License-Identifier: Apache-2.0
// Single blocks with known codes, convention by convention: the worked block, underflow, zeros, NaN and Inf.
#include "tests/catch.hpp"
#include "tests/emulator/quantize/support.hpp"

#include <limits>

using namespace nvfp4;
using namespace nvfp4::test;

namespace {
constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

Matrix filled(float v) {
  Matrix m(1, 16);
  for (float &x : m.x) x = v;
  return m;
}
QuantizeOptions with_amax(float amax) { return {.global_amax = amax}; }
} // namespace

TEST_CASE("the table finds rows by name and alias, and names them when it cannot", "[quantize]") {
  CHECK(conventions().size() == 61);
  for (const Convention &c : conventions()) {
    CHECK(&find_convention(c.name) == &c);
    CHECK(!c.source.empty());
    CHECK(!to_string(c.evidence).empty());
    CHECK(!c.versions.empty());
  }
  CHECK(find_convention("paper").name == "te213");
  CHECK(find_convention("fouroversix-mse").name == "fouroversix");
  CHECK_THROWS_WITH(find_convention("nvfp5"),
                    Catch::Contains("'nvfp5'") && Catch::Contains("te213, torchao, torchao015"));
}

TEST_CASE("the worked block has the same codes in the non-adaptive NVFP4 conventions", "[quantize]") {
  Matrix m(1, 16);
  for (int i = 0; i < 16; ++i) m.x[size_t(i)] = bf16((float(i) - 7.5f) * 0.37f);
  for (const char *name : {"te", "te213", "torchao", "modelopt", "flashinfer-exact", "flashinfer", "vllm"}) {
    CAPTURE(name);
    const BlockScaled q = quantize_as(m, name, with_amax(5.0f));
    CHECK(q.scales == std::vector<uint8_t>{0x78});
    CHECK(nibbles(q) == "FFEDDCA912455677");
  }
}

TEST_CASE("a block that underflows its scale tells the conventions apart", "[quantize]") {
  Matrix m(1, 16);
  for (int i = 0; i < 16; ++i) m.x[size_t(i)] = (i % 2 == 0 ? 1.0f : -1.0f) * 1e-7f * float(i + 1);
  m.x[3] = 0.0f;
  const auto check = [&](const char *name, const char *scale, const char *codes) {
    CAPTURE(name);
    const QuantizeOptions o =
        std::string_view(name) == "ggml" || find_convention(name).rule.global == GlobalRule::none
            ? QuantizeOptions{}
            : with_amax(1.0f);
    const BlockScaled q = quantize_as(m, name, o);
    CHECK(hex(q.scales) == scale);
    CHECK(nibbles(q) == codes);
  };
  check("te", "00", "7F707F7F7F7F7F7F");
  check("te213", "00", "7F707F7F7F7F7F7F");
  check("flashinfer-exact", "00", "7F707F7F7F7F7F7F");
  check("te-4over6", "00", "7F707F7F7F7F7F7F");
  check("fouroversix", "00", "7F707F7F7F7F7F7F");
  check("flashinfer", "00", "7F777F7F7F7F7F7F"); // 0 * Inf is NaN, which converts to +6
  check("vllm", "00", "0800080808080808");
  check("torchao", "08", "0800080808080819"); // the clamp to 2^-6 leaves codes that are almost all zero
  check("modelopt", "01", "09101A2A2B3B4C4C");
  check("compressed-tensors", "20", "0800080808080808");
  check("ggml", "00", "0000000000000000");
  check("mxfp4", "69", "1A304D5D6E6F7F7F0000000000000000"); // half of its block is padding
}

TEST_CASE("TransformerEngine's special values", "[quantize]") {
  SECTION("a zero tensor keeps the signs of its zeros") {
    const BlockScaled q =
        quantize_as(row_of({0.0f, -0.0f, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, -0.0f}), "te");
    CHECK(q.global_encode == 1.0f);
    CHECK(hex(q.scales) == "00");
    CHECK(nibbles(q) == "0800000000000008");
  }
  SECTION("the scale saturates at 448") {
    const BlockScaled q = quantize_as(filled(1.0f), "te", with_amax(0.5f));
    CHECK(hex(q.scales) == "7E");
    CHECK(nibbles(q) == "7777777777777777");
  }
  SECTION("an infinite amax turns the global scale off") {
    Matrix m = filled(448.0f);
    m.x[1] = kInf;
    m.x[2] = -kInf;
    m.x[3] = 672.0f;
    m.x[4] = 1e-3f;
    const BlockScaled q = quantize_as(m, "te");
    CHECK(q.global_encode == 1.0f);
    CHECK(std::isinf(q.global_amax));
    CHECK(hex(q.scales) == "7E");
    CHECK(nibbles(q).substr(0, 5) == "27F30"); // x / 448
  }
  SECTION("NaN does not count in a maximum and becomes +6") {
    Matrix m = filled(6.0f);
    m.x[0] = kNan;
    m.x[1] = -kNan;
    const BlockScaled q = quantize_as(m, "te");
    CHECK(q.global_amax == 6.0f);
    CHECK(hex(q.scales) == "7E");
    CHECK(nibbles(q).substr(0, 3) == "777");
  }
  SECTION("a NaN amax from outside saturates the global scale") {
    const BlockScaled q = quantize_as(filled(1.0f), "te", with_amax(kNan));
    CHECK(q.global_encode == kFltMax);
    CHECK(hex(q.scales) == "7E");
  }
  SECTION("a tiny amax saturates the global scale") {
    const BlockScaled q = quantize_as(filled(1e-38f), "te");
    CHECK(q.global_encode == kFltMax);
    CHECK(hex(q.scales) ==
          hex(std::vector<uint8_t>{uint8_t(encode(FormatId::ue4m3, 1e-38f * (kFltMax * kSixth)))}));
  }
  SECTION("block scales around zero") { // 2^-10 is the last that rounds to 0; s = bmax * 448 here
    const float s = 0x1p-10f / 448.0f;
    for (const auto &[bmax, code] :
         {std::pair(s * 0.99f, 0x00), std::pair(s * 1.01f, 0x01), std::pair(s * 3.0f, 0x02)}) {
      Matrix m(1, 32);
      m.x[0] = 1.0f;
      m.x[16] = bmax;
      CHECK(quantize_as(m, "te").scales[1] == code);
    }
  }
}

TEST_CASE("element ties and neighbours at a scale of one", "[quantize]") {
  // amax 2688 makes S = 1; a block with maximum 6 has SF = 1, so elements meet the E2M1 grid as they are.
  const Matrix ties = row_of({0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f, 6.0f, -0.25f, -0.75f, -1.25f,
                              -1.75f, -2.5f, -3.5f, std::nextafter(-5.0f, -9.0f), -0.0f});
  for (const char *name : {"te", "te213", "torchao", "flashinfer", "row-scaled"}) {
    CAPTURE(name);
    Matrix m(1, 32);
    std::copy(ties.x.begin(), ties.x.end(), m.x.begin());
    m.x[16] = 2688.0f;
    const BlockScaled q = quantize_as(m, name);
    CHECK(q.scales[0] == 0x38);
    CHECK(nibbles(q).substr(0, 16) == "02244667"
                                      "8AACCEF8");
  }
  Matrix m(1, 32);
  std::copy(ties.x.begin(), ties.x.end(), m.x.begin());
  m.x[16] = 2688.0f;
  // The sign of an exact zero goes, that of an underflow stays.
  CHECK(nibbles(quantize_as(m, "modelopt")).substr(0, 16) == "02244667"
                                                             "8AACCEF0");
  CHECK(nibbles(quantize_as(m, "compressed-tensors")).substr(0, 16) == "02244667"
                                                                       "8AACCEF0");
  // ggml takes the smaller of equally near values, and never writes -0.
  CHECK(nibbles(quantize_as(ties, "ggml")) == "01234567"
                                              "09ABCDF0");
}

TEST_CASE("division and multiplication by the reciprocal differ on the published witness", "[quantize]") {
  // arch-com issues 905 and 926: SF 0x07, v = 0.02392577938735485.
  const float v = 0.02392577938735485f;
  const float sf = value_f32(FormatId::ue4m3, 0x07);
  const Rule &te = find_convention("te").rule, &modelopt = find_convention("modelopt").rule;
  const GlobalScale one{2688.0f, 1.0f, 1.0f};
  CHECK(encode_element(modelopt, v, {0x07, sf, detail::scale_factor(modelopt, 0x07, sf, one)}) == 0x3);
  CHECK(encode_element(te, v, {0x07, sf, detail::scale_factor(te, 0x07, sf, one)}) == 0x4);
}

TEST_CASE("the other implementations' degenerate inputs", "[quantize]") {
  CHECK(hex(quantize_as(filled(0.0f), "torchao").scales) == "7F"); // p = 0: 0 / 0
  CHECK(nibbles(quantize_as(filled(0.0f), "torchao")) == "3333333333333333");
  CHECK(hex(quantize_as(filled(0.0f), "modelopt").scales) == "7F");
  CHECK(nibbles(quantize_as(filled(0.0f), "modelopt")) == "7777777777777777");
  CHECK(hex(quantize_as(filled(0.0f), "modelopt", with_amax(1.0f)).scales) == "38"); // a zero block: scale 1
  CHECK(hex(quantize_as(filled(0.0f), "torchao", with_amax(1.0f)).scales) == "08");
  CHECK(hex(quantize_as(filled(0.0f), "compressed-tensors").scales) == "20");
  CHECK(hex(quantize_as(filled(-0.0f), "fouroversix").scales) == "00");
  CHECK(nibbles(quantize_as(filled(-0.0f), "fouroversix")) == "0000000000000000");
  CHECK(nibbles(quantize_as(filled(-0.0f), "flashinfer")) == "8888888888888888");
  Matrix m = filled(1.0f);
  m.x[5] = kNan;
  CHECK(hex(quantize_as(m, "torchao").scales) == "7F");
  CHECK(quantize_as(m, "compressed-tensors").global_encode == 1.0f);
  CHECK(nibbles(quantize_as(m, "ggml")).substr(4, 3) == "707"); // no value is nearest to NaN
  m.x[5] = kInf;
  CHECK(nibbles(quantize_as(m, "ggml")).substr(4, 3) == "000");
  CHECK(hex(quantize_as(m, "ggml").scales) == "7E");
}

TEST_CASE("ggml's block scale", "[quantize]") {
  const auto code = [](float s) { return int(quantize_as(filled(6.0f * s), "ggml").scales[0]); };
  CHECK(code(1.0f) == 0x38);
  CHECK(code(1.0625f) == 0x39); // half up, not to even
  CHECK(code(240.0f) == 0x77);
  CHECK(code(248.0f) == 0x7E); // 256 ... 416 are never written
  CHECK(code(300.0f) == 0x7E);
  CHECK(code(1e9f) == 0x7E);
  CHECK(code(0x1p-9f) == 0x01);
  CHECK(code(0x1p-10f) == 0x01); // floor(512 s + 0.5)
  CHECK(code(0x1p-11f) == 0x00);
  CHECK(code(7.75f * 0x1p-9f) == 0x07);
  CHECK(code(8.0f * 0x1p-9f) == 0x08);
}

TEST_CASE("compressed-tensors computes its scales in the type of the tensor", "[quantize]") {
  const Matrix m = gaussian(8, 64, 3);
  const BlockScaled f32 = quantize_as(m, "compressed-tensors");
  const BlockScaled half = quantize_as(m, "compressed-tensors", {.source = FormatId::bf16});
  CHECK(f32.global_encode == (1.0f / f32.global_amax) * 2688.0f);
  CHECK(half.global_encode == bf16(bf16(1.0f / half.global_amax) * 2688.0f));
  CHECK(f32.global_encode != half.global_encode);
  Matrix small(1, 16); // 2688 / amax is beyond FP16
  small.x[3] = 0x1p-5f;
  CHECK(quantize_as(small, "compressed-tensors", {.source = FormatId::f16}).global_encode == 1.0f);
  CHECK(quantize_as(small, "compressed-tensors", {.source = FormatId::bf16}).global_encode ==
        2688.0f * 32.0f);
}

TEST_CASE("torchao 0.15 divides where 0.17 multiplies with a reciprocal", "[quantize]") {
  // p is 1 / 512 and every block has a maximum of 6 SF p and ties: quotients meet them, products with a
  // rounded reciprocal miss some
  constexpr float ties[] = {6.0f, 0.25f, 0.75f, 1.25f, 1.75f, 2.5f, 3.5f, 5.0f};
  Matrix m(40, 16);
  for (int r = 0; r < 40; ++r)
    for (int i = 0; i < 16; ++i) m.x[size_t(16 * r + i)] = ties[i % 8] * float((8 + r % 8) << r / 8) / 512.0f;
  m.x[0] = 5.25f; // 6 * 448 / 512
  const BlockScaled divides = quantize_as(m, "torchao015"), multiplies = quantize_as(m, "torchao");
  CHECK(divides.scales == multiplies.scales);
  CHECK((divides.codes != multiplies.codes));
  CHECK(&find_convention("torchao016") == &find_convention("torchao015"));
  const Matrix zeros = filled(-0.0f);
  CHECK(quantize_as(zeros, "torchao015", with_amax(1.0f)).codes == std::vector<uint8_t>(8, 0x88));
  // zeros of a tensor of zeros are 0 / 0
  CHECK(quantize_as(filled(0.0f), "torchao015").scales.front() == 0x7F);
  CHECK(quantize_as(filled(0.0f), "torchao018-kernels").scales.front() == 0x08); // clamped to 2^-6
}

TEST_CASE("MX of torchao's releases: Inf has a scale, code 0 divides by 2^-126", "[quantize]") {
  const auto block = [](const char *name, std::initializer_list<float> values) {
    Matrix m(1, 32);
    std::copy(values.begin(), values.end(), m.x.begin());
    return quantize_as(m, name);
  };
  {
    // Inf counts as 2^128: exponent 128 less that of the largest element
    CHECK(block("mxfp4-torchao018", {kInf, 1.0f}).scales.front() == 253);
    CHECK(block("mxfp4-torchao018", {kInf, 1.0f}).code(0, 0) == 7);
    CHECK(block("mxfp8-e4m3-torchao018", {-kInf}).scales.front() == 247);
    CHECK(block("mxfp8-e4m3-torchao018", {-kInf}).code(0, 0) == 0xFE);
    CHECK(block("mxfp8-e5m2-torchao018", {kInf}).scales.front() == 240);
    CHECK(block("mxfp8-e5m2-torchao018", {kInf}).code(0, 0) == 0x7B);
    // NaN: scale NaN, the others over Inf
    const BlockScaled nan = block("mxfp4-torchao018", {kNan, 3.0f, -3.0f});
    CHECK(nan.scales.front() == 0xFF);
    CHECK(nan.code(0, 0) == 3);
    CHECK(nan.code(0, 1) == 0);
    CHECK(nan.code(0, 2) == 8);
    // code 0: 2^-126, where the main branch has 2^-127
    CHECK(block("mxfp4-torchao018", {0x1p-126f}).scales.front() == 0);
    CHECK(block("mxfp4-torchao018", {0x1p-126f}).code(0, 0) == 2);
    CHECK(block("mxfp4", {0x1p-126f}).code(0, 0) == 4);
    CHECK(block("mxfp4-torchao018", {3.0f}).codes == block("mxfp4", {3.0f}).codes);
  }
}

TEST_CASE("MX scales: floor of the exponent, or the power of two above", "[quantize]") {
  const auto scale = [](const char *name, float amax) {
    Matrix m(1, 32);
    m.x[7] = -amax;
    return int(quantize_as(m, name).scales[0]);
  };
  CHECK(scale("mxfp4", 1.0f) == 125);
  CHECK(scale("mxfp4", 7.9f) == 127);
  CHECK(scale("mxfp4", 0.0f) == 0);
  CHECK(scale("mxfp4", 0x1p-126f) == 0);
  CHECK(scale("mxfp4", kInf) == 0xFF);
  CHECK(scale("mxfp4", kNan) == 0xFF);
  CHECK(scale("mxfp4-ceil", 6.0f) == 127);
  CHECK(scale("mxfp4-ceil", 6.1f) == 128);
  CHECK(scale("mxfp4-ceil", 3.0f) == 126);
  CHECK(scale("mxfp4-ceil", 0.0f) == 0);
  CHECK(scale("mxfp4-ceil", kInf) == 0xFE);
  CHECK(scale("mxfp8-e4m3", 448.0f) == 127);
  CHECK(scale("mxfp8-e4m3", 511.0f) == 127); // saturates elements, not the scale
  CHECK(scale("mxfp8-e4m3-ceil", 448.0f) == 127);
  CHECK(scale("mxfp8-e4m3-ceil", 449.0f) == 128);
  CHECK(scale("mxfp8-e5m2", 57344.0f) == 127);
  CHECK(scale("mxfp8-e5m2-ceil", 57344.0f) == 127);
  CHECK(scale("mxfp8-e5m2-ceil", 57400.0f) == 128);
  CHECK(scale("mxfp8-e5m2-ceil", kNan) == 0); // the maximum ignores NaN

  Matrix m(1, 32);
  for (int i = 0; i < 32; ++i) m.x[size_t(i)] = float(i) - 16.0f;
  const BlockScaled q = quantize_as(m, "mxfp8-e4m3-ceil");
  CHECK(q.codes.size() == 32);
  CHECK(q.code(0, 0) == encode(FormatId::e4m3, -16.0f * 0x1p4f));
  CHECK(dequantize(q) == m.x);
}

TEST_CASE("four over six takes the wider scale only where its error is less", "[quantize]") {
  Matrix exact(1, 16), four(1, 16);
  for (int i = 0; i < 16; ++i) {
    exact.x[size_t(i)] = i < 8 ? 6.0f : 0.5f; // 6 is exact
    four.x[size_t(i)] = i < 8 ? 6.0f : 4.5f;  // 4 -> 6, 3 -> 4.5: exact when scaled to 4
  }
  for (const char *name : {"te-4over6", "te-4over6-mse", "fouroversix", "fouroversix-mae"}) {
    CAPTURE(name);
    const BlockScaled six = quantize_as(exact, name);
    CHECK(six.global_encode == 256.0f);
    CHECK(hex(six.scales) == "78"); // 256
    CHECK(nibbles(six) == "7777777711111111");
    const BlockScaled wide = quantize_as(four, name);
    CHECK(hex(wide.scales) == "7C"); // 384
    CHECK(nibbles(wide) == "6666666655555555");
    CHECK(dequantize(wide) == four.x);
  }
}

TEST_CASE("amd-fp4: UE5M3 scales reach where UE4M3 saturates, and no scale is zero or NaN", "[quantize]") {
  const Rule &r = find_convention("amd-fp4").rule;
  const GlobalScale none;
  const auto scale = [&](float bmax) { return block_scale(r, bmax, none, FormatId::f32); };
  CHECK(scale(6.0f).code == 0x78);                        // 1
  CHECK(scale(6.0f * 448.0f * 100.0f).value == 45056.0f); // 44800 between 40960 and 45056
  CHECK(scale(6.0f * 114688.0f).code == 0xFE);
  CHECK(scale(kFltMax).code == 0xFE);
  CHECK(scale(bit_cast<float>(0x7F800000u)).code == 0xFE);
  CHECK(scale(bit_cast<float>(0x7FC00000u)).code == 0x01); // NaN: the smallest
  CHECK(scale(0.0f).code == 0x01);
  CHECK(scale(1e-4f).value ==
        0x1p-16f); // 1e-4 / 6 is 1.09 * 2^-16; UE4M3 under a clamp to 2^-6 loses the block
  CHECK(encode_element(r, 1e-4f, scale(1e-4f)) == 0x7);
  // the vector engine does not take this format: the definition's bits, all the same
  const Matrix m = gaussian(32, 64, 5);
  const BlockScaled q = quantize_as(m, "amd-fp4", {});
  CHECK(format(q.scale).name == std::string("ue5m3"));
  for (int64_t row = 0; row < 32; ++row)
    for (int64_t b = 0; b < 4; ++b) {
      float bmax = 0;
      for (int i = 0; i < 16; ++i) bmax = std::fmax(bmax, std::fabs(m.x[size_t(row * 64 + b * 16 + i)]));
      CHECK(q.scale_code(row, b) == encode(FormatId::ue5m3, bmax / 6.0f));
    }
}

TEST_CASE("MX blocks of E1M2: a row of the format table is all that quantization needs", "[quantize]") {
  Convention c = find_convention("mxfp4");
  c.rule.element = FormatId::e1m2;
  Matrix m = gaussian(40, 96, 6);
  for (int i = 0; i < 32; ++i) m(3, i) = 0.0f;
  m(5, 40) = 1000.0f;
  m(6, 7) = -0.0f;
  m(7, 0) = bit_cast<float>(0x7F800000u);
  const BlockScaled q = quantize(m.view(), c, {});
  CHECK(format(q.element).name == std::string("e1m2"));
  for (int64_t row = 0; row < 40; ++row)
    for (int64_t b = 0; b < 3; ++b) {
      if (row == 7 && b == 0) continue; // the rule for Inf is not the format's
      float bmax = 0;
      for (int i = 0; i < 32; ++i) bmax = std::fmax(bmax, std::fabs(m(row, 32 * b + i)));
      // the largest is 1.75 * 2^1
      const int exponent = bmax == 0.0f ? -127 : std::ilogb(bmax) - 1;
      CHECK(q.scale_code(row, b) == uint32_t(exponent + 127));
      for (int i = 0; i < 32; ++i) {
        const float x = m(row, 32 * b + i);
        const float steps = std::min(std::nearbyint(std::ldexp(std::fabs(x), 1 - exponent)), 7.0f);
        const int code = int(q.code(row, 32 * b + i));
        CHECK(code == int(steps) + (std::signbit(x) ? 8 : 0));
        const float value = decode_element(c.rule, uint8_t(code), q.scale_code(row, b), 0, GlobalScale{});
        CHECK(value == std::copysign(std::ldexp(steps, exponent - 1), x));
      }
    }
}

TEST_CASE("integers fill their range symmetrically under the scale of each preset", "[quantize]") {
  Matrix m = gaussian(24, 96, 9);
  for (int i = 0; i < 32; ++i) m(3, i) = i % 2 ? -0.0f : 0.0f;
  m(4, 33) = -700.0f;
  for (int i = 0; i < 96; ++i) m(5, i) *= std::ldexp(1.0f, i / 8 - 6);
  m(6, 0) = 7.0f, m(6, 1) = -7.0f, m(6, 2) = 3.5f, m(6, 3) = -2.5f; // halves to even where the scale is 1
  for (const char *name : {"mxint8", "mxint8-ceil", "mxint4", "nvint4"}) {
    CAPTURE(name);
    const bool eight = std::string(name).starts_with("mxint8");
    const BlockScaled q = quantize_as(m, name, {});
    const std::vector<float> y = dequantize(q);
    const double top = eight ? 127 : 7, step = eight ? 64 : 1; // of codes, in a unit
    const double level = double(q.global_encode);
    int64_t wrong = 0;
    for (int64_t r = 0; r < q.rows; ++r)
      for (int64_t b = 0; b < q.k / q.block; ++b) {
        double bmax = 0;
        for (int i = 0; i < q.block; ++i) bmax = std::max(bmax, std::fabs(double(m(r, b * q.block + i))));
        const double scale = double(value_f32(q.scale, q.scale_code(r, b)));
        if (std::string(name) == "mxint8") // floor: up to 2 exclusive, clipped to 127 / 64
          wrong += bmax > 0 && !(bmax / scale >= 1 && bmax / scale < 2);
        else if (eight || std::string(name) == "mxint4") // the least power of two that clips nothing
          wrong += bmax > 0 && !(bmax / scale * step <= top * (1 + 1e-7) && bmax / scale * step * 2 > top);
        for (int i = 0; i < q.block; ++i) {
          const int64_t k = b * q.block + i;
          const int raw = int(q.code(r, k)), code = eight ? int(int8_t(raw)) : raw < 8 ? raw : raw - 16;
          const double units = double(m(r, k)) * level / scale * step;
          wrong += std::fabs(double(code)) > top; // the lowest code is never written
          wrong += std::fabs(double(code) - std::clamp(units, -top, top)) > 0.5 + 1e-4;
          wrong += std::fabs(double(y[size_t(r * q.k + k)]) - code * scale / step / level) > 1e-5 * bmax;
        }
      }
    CHECK(wrong == 0);
  }
  const BlockScaled q = quantize_as(m, "mxint4", {}); // the block of row 6 has bmax 7, so scale 1
  CHECK(q.scale_code(6, 0) == 127);
  const int codes[] = {7, 9, 4, 14}; // 7, -7, 3.5 to 4, -2.5 to -2
  for (int64_t i = 0; i < 4; ++i) CHECK(q.code(6, i) == codes[i]);
}
