// SPDX-License-Identifier: Apache-2.0
// What codes stand for and how alpha comes about, written again from emulator/README.md (Back to numbers, and
// GEMM): formulas, formats and bit order are transcribed here, and the table's rows name every preset once.
#include "nvfp4/emulator/quantize/global_alpha.hpp"
#include "nvfp4/golden/manifest.hpp"
#include "tests/catch.hpp"
#include "tests/emulator/quantize/support.hpp"

#include <fstream>
#include <map>

namespace nvfp4::test {
namespace {

enum class Formula { amax_constant, amax_divide, amax_decode, encode_decode, encode_divide, metis, graphcore, eden, scale_only, reciprocal };

/// The right column of the document's table.
const std::map<std::string, Formula> kFormulas = {
    {"v * ((SF * amax) * f32(1 / 6M)), `row-scaled` with the amax of the row", Formula::amax_constant},
    {"((v * SF) * amax) / 6M", Formula::amax_divide},
    {"v * (SF * p), p = amax / 2688", Formula::amax_decode},
    {"v * (SF * p), p = 1 / S", Formula::encode_decode},
    {"v * (SF / S)", Formula::encode_divide},
    {"v * (SF * p), p = (amax / 6 + 1e-9) / 448", Formula::metis},
    {"(v * SF) * p, p = 1 / S", Formula::graphcore},
    {"(v * SF) * p, p = (amax / 256) / V", Formula::eden},
    {"v * SF", Formula::scale_only},
    {"v * (1 / bf16(1 / SF))", Formula::reciprocal}};

/// Preset by preset, read from the document.
std::map<std::string, Formula> documented_formulas() {
  std::ifstream file(golden::find_golden_folder() + "/../emulator/README.md");
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const std::string head = "| presets | value |\n|---|---|\n";
  size_t at = text.find(head);
  REQUIRE(at != std::string::npos);
  std::map<std::string, Formula> formulas;
  for (at += head.size(); text[at] == '|'; at = text.find('\n', at) + 1) {
    const std::string row = text.substr(at, text.find('\n', at) - at);
    const size_t middle = row.find(" | ");
    const std::string formula = row.substr(middle + 3, row.size() - middle - 5);
    INFO(row);
    REQUIRE(kFormulas.count(formula) == 1);
    for (size_t i = row.find('`'); i < middle; i = row.find('`', i)) {
      const size_t end = row.find('`', i + 1);
      CHECK(formulas.emplace(row.substr(i + 1, end - i - 1), kFormulas.at(formula)).second);
      i = end + 1;
    }
  }
  return formulas;
}

float not_a_number() { return std::nanf(""); }

/// Formats as section 1 of the document has them: exponent bits, mantissa bits, bias.
float small_float(int code, int exponent_bits, int mantissa_bits, int bias) {
  const int mantissa = code & ((1 << mantissa_bits) - 1),
            exponent = code >> mantissa_bits & ((1 << exponent_bits) - 1);
  const float magnitude =
      exponent == 0 ? std::ldexp(float(mantissa), 1 - bias - mantissa_bits)
                    : std::ldexp(float((1 << mantissa_bits) + mantissa), exponent - bias - mantissa_bits);
  return code >> (exponent_bits + mantissa_bits) & 1 ? -magnitude : magnitude;
}
float element(FormatId f, int code, bool flagged) {
  if (f == FormatId::s1p2) return float(code & 7) * (code < 8 ? 0.25f : -0.25f);
  if (f == FormatId::if4 && flagged) return float(code < 8 ? code : code - 16) * bit_cast<float>(0x3F5B6DB7u);
  if (f == FormatId::mixfp4 && flagged) return float(code & 7) * (code < 8 ? 1.0f : -1.0f);
  if (f == FormatId::if4 || f == FormatId::mixfp4) return small_float(code, 2, 1, 1);
  if (f == FormatId::e2m1) return small_float(code, 2, 1, 1);
  if (f == FormatId::e1m2) return small_float(code, 1, 2, 0);
  if (f == FormatId::e2m3) return small_float(code, 2, 3, 1);
  if (f == FormatId::e3m2) return small_float(code, 3, 2, 3);
  if (f == FormatId::int4) return float(code < 8 ? code : code - 16);
  if (f == FormatId::int8) return float(int8_t(code)) / 64.0f;
  if (f == FormatId::int16) return float(int16_t(code));
  if (f == FormatId::e4m3) return (code & 0x7F) == 0x7F ? not_a_number() : small_float(code, 4, 3, 7);
  REQUIRE(f == FormatId::e5m2);
  if ((code & 0x7C) == 0x7C) return code & 3 ? not_a_number() : code & 0x80 ? -INFINITY : INFINITY;
  return small_float(code, 5, 2, 15);
}
/// Of element `place` of a block whose scale starts at `at`.
float scale(FormatId f, const uint8_t *at, int place) {
  const int code = at[0];
  if (f == FormatId::hif4s) {
    if (code == 0xFF) return not_a_number();
    const int shift = (at[1] >> place / 8 & 1) + (at[2 + place / 32] >> place / 4 % 8 & 1);
    return std::ldexp(1.0f + 0.25f * float(code & 3), (code >> 2) - 48 + shift);
  }
  if (f == FormatId::f32)
    return bit_cast<float>(uint32_t(at[0]) | uint32_t(at[1]) << 8 | uint32_t(at[2]) << 16 | uint32_t(at[3]) << 24);
  if (f == FormatId::ue4m3 || f == FormatId::ue4m3f) return (code & 0x7F) == 0x7F ? not_a_number() : small_float(code & 0x7F, 4, 3, 7);
  if (f == FormatId::ue5m3g) return small_float(code, 5, 3, 15);
  if (f == FormatId::ue5m3) return code == 0xFF ? not_a_number() : small_float(code, 5, 3, 15);
  REQUIRE(f == FormatId::ue8m0);
  return code == 0xFF ? not_a_number() : std::ldexp(1.0f, code - 127);
}

/// One multiplication or division is one rounding.
float value(Formula formula, float v, float sf, float amax, float s, float range) {
  const float inverse = bit_cast<float>(range == 1536.0f ? 0x3A2AAAABu : 0x39C30C31u);
  float a = 0, b = 0;
  switch (formula) {
  case Formula::amax_constant: a = sf * amax, b = a * inverse; return v * b;
  case Formula::amax_divide: a = v * sf, b = a * amax; return b / range;
  case Formula::amax_decode: a = amax / range, b = sf * a; return v * b;
  case Formula::encode_decode: a = 1.0f / s, b = sf * a; return v * b;
  case Formula::encode_divide: a = sf / s; return v * a;
  case Formula::metis: a = amax / 6.0f, a = a + 1e-9f, a = a / 448.0f, b = sf * a; return v * b;
  case Formula::graphcore: a = v * sf, b = 1.0f / s; return a * b;
  case Formula::eden: {
    const float top = float(6.0 / (17.0 / 16.0 * 0.93)), p = amax == 0 ? 1.0f : amax / 256.0f / top;
    a = v * sf;
    return a * p;
  }
  case Formula::reciprocal: a = 1.0f / sf, b = bf16(a), a = 1.0f / b; return v * a;
  case Formula::scale_only: break;
  }
  return v * sf;
}

/// M times the largest element.
float range_of(std::string_view name) {
  if (name == "nvint4") return 7.0f * 448.0f;
  if (name == "fouroversix-static") return 2688.0f;
  if (name == "fouroversix-unbiased") return float(6.0 * 16.0 / 17.0) * 448.0f;
  return name.starts_with("fouroversix") || name.starts_with("te-4over6") ? 1536.0f : 2688.0f;
}

/// Rows of very different size, zeros, -0, an outlier; ragged.
Matrix hard_matrix(float size) {
  Matrix m = gaussian(9, 90, 77, FormatId::bf16, size);
  for (int64_t c = 0; c < 90; ++c) {
    m(1, c) = 0;
    m(2, c) *= 1e-6f;
    m(3, c) = c % 2 ? -0.0f : m(3, c);
    m(4, c) *= c == 40 ? 300.0f : 1.0f;
    m(5, c) *= std::ldexp(1.0f, int(c / 8) - 10);
  }
  return m;
}

} // namespace

TEST_CASE("codes stand for what the document says", "[quantize][rules]") {
  const std::map<std::string, Formula> formulas = documented_formulas();
  CHECK(formulas.size() == conventions().size());
  int told_apart = 0;
  for (const Convention &c : conventions()) {
    INFO(c.name);
    REQUIRE(formulas.count(std::string(c.name)) == 1);
    const Formula formula = formulas.at(std::string(c.name));
    for (const float size : {1.0f, 0.013f, 0x1p60f, 0x1p-60f, 0.0f}) {
      INFO(size);
      const BlockScaled q = quantize_as(hard_matrix(size), c.name, {.source = FormatId::bf16});
      const std::vector<float> y = dequantize(q);
      int64_t wrong = 0;
      for (int64_t r = 0; r < q.rows; ++r)
        for (int64_t k = 0; k < q.k; ++k) {
          const bool nibbles = q.element != FormatId::e2m3 && q.element != FormatId::e3m2 && q.element != FormatId::e4m3 &&
                               q.element != FormatId::e5m2 && q.element != FormatId::int8;
          const int byte =
              q.codes[size_t(r * (nibbles ? q.padded_k / 2 : q.padded_k) + (nibbles ? k / 2 : k))];
          const int code = q.element == FormatId::int16 ? q.code_word(r, k) : !nibbles ? byte : k % 2 == 0 ? byte & 15 : byte >> 4;
          const int64_t width = q.scale == FormatId::hif4s || q.scale == FormatId::f32 ? 4 : 1;
          const uint8_t *const at = &q.scales[size_t((r * (q.padded_k / q.block) + k / q.block) * width)];
          const float sf = scale(q.scale, at, int(k % q.block));
          const float amax = c.name == "row-scaled" ? q.row_amax[size_t(r)] : q.global_amax;
          const auto by = [&](Formula f) {
            return value(f, element(q.element, code, at[0] >= 0x80), sf, amax, q.global_encode, range_of(c.name));
          };
          const float want = by(formula), got = y[size_t(r * q.k + k)];
          wrong += want != want ? got == got : bit_cast<uint32_t>(want) != bit_cast<uint32_t>(got);
          if (formula == Formula::amax_constant && by(Formula::amax_divide) != want) ++told_apart;
        }
      CHECK(wrong == 0);
    }
  }
  CHECK(told_apart > 100); // the order of operations shows in these data
}

TEST_CASE("alpha is what the document says", "[quantize][alpha][rules]") {
  const auto like_te = [](std::string_view n) {
    return (n.starts_with("te") && n != "tetrajet-v2") || n == "row-scaled" || n == "mixfp4" || n == "torchao018-kernels";
  };
  const auto decode = [](const BlockScaled &q) {
    const std::string &n = q.convention;
    if (n == "torchao" || n == "torchao015" || n == "modelopt" || n == "alto-nvfp4") return q.global_amax / 2688.0f;
    if (n == "ggml" || n == "amd-fp4" || n.starts_with("mx") || n.starts_with("hif4") || n.starts_with("fp8") ||
        n == "tetrajet-v2" || n == "ufp4" || n == "dfp16") return 1.0f;
    if (n == "metis-nvfp4") return (q.global_amax / 6.0f + 1e-9f) / 448.0f;
    if (n == "quartet2-eden") return q.global_amax / 256.0f / float(6.0 / (17.0 / 16.0 * 0.93));
    return n == "row-scaled" ? bit_cast<float>(0x39C30C31u) : 1.0f / q.global_encode;
  };
  const auto amax = [](const BlockScaled &q) { return q.convention == "row-scaled" ? 1.0f : q.global_amax; };
  const auto range = [](const BlockScaled &q) { return range_of(q.convention); };
  for (const Convention &one : conventions())
    for (const Convention &other : conventions()) {
      if (one.name == "hif4-metis" || other.name == "hif4-metis") continue; // without a product
      INFO(one.name << " and " << other.name);
      const BlockScaled a = quantize_as(hard_matrix(0.7f), one.name, {.source = FormatId::bf16});
      const BlockScaled b = quantize_as(hard_matrix(0.031f), other.name, {.source = FormatId::bf16});
      float want = 0;
      if (like_te(one.name) && like_te(other.name)) {
        const float first = 1.25f * amax(a), second = first * amax(b);
        want = second * (1.0f / (range(a) * range(b)));
      } else {
        const float product = decode(a) * decode(b);
        want = 1.25f * product;
      }
      CHECK(bit_cast<uint32_t>(global_alpha(a, b, 1.25f, AlphaRule::by_convention)) ==
            bit_cast<uint32_t>(want));
    }
}

} // namespace nvfp4::test
