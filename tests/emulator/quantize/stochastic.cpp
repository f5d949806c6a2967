// SPDX-License-Identifier: Apache-2.0
// Stochastic rounding of elements: which random bits, no bias, agreement of the models, scales untouched.
#include "tests/catch.hpp"
#include "tests/emulator/quantize/support.hpp"

using namespace nvfp4;
using namespace nvfp4::test;

TEST_CASE("random bits follow the element, not the axis, the tile or the thread", "[quantize]") {
  const Matrix m = gaussian(48, 64, 41);
  for (const ElementRounding rounding :
       {ElementRounding::sr_carry8, ElementRounding::sr_te, ElementRounding::sr_exact, ElementRounding::sr_mid8}) {
    const BlockScaled tile =
        quantize_as(m, "te", {.block_rows = 16, .rounding = rounding, .key = {7, 9}, .threads = 1});
    const BlockScaled col = quantize_as(
        m, "te", {.axis = Axis::col, .block_rows = 16, .rounding = rounding, .key = {7, 9}, .threads = 3});
    CHECK((dequantize(tile) == dequantize(col)));
    const BlockScaled other = quantize_as(m, "te", {.block_rows = 16, .rounding = rounding, .key = {8, 9}});
    CHECK((other.codes != tile.codes));
    CHECK((other.scales == tile.scales));
    CHECK((tile.scales == quantize_as(m, "te", {.block_rows = 16}).scales));
    // Element by element from its definition.
    const Rule &rule = find_convention("te").rule;
    const GlobalScale g{tile.global_amax, tile.global_encode, tile.global_decode};
    for (int64_t r = 0; r < m.rows; ++r)
      for (int64_t c = 0; c < m.cols; ++c) {
        const uint64_t index = uint64_t(r * m.cols + c);
        const RandomKey key{7, 9};
        const uint8_t code = uint8_t(tile.scale_code(r, c / 16));
        const float sf = value_f32(FormatId::ue4m3, code);
        const BlockScale scale{code, sf, detail::scale_factor(rule, code, sf, g), false};
        const uint32_t bits = rounding == ElementRounding::sr_exact ? key.bits32(index) : key.bits8(index);
        CHECK(tile.code(r, c) == encode_element(rule, m(r, c), scale, rounding, bits));
      }
  }
}

TEST_CASE("stochastic rounding has no bias", "[quantize]") {
  // One block of 16 equal values between two codes, under many keys; the first element fixes amax and is
  // exact.
  Matrix m(1, 32);
  for (int i = 0; i < 16; ++i) m.x[size_t(i)] = i == 0 ? 6.0f : 2.3f;
  m.x[16] = 2688.0f;
  for (const ElementRounding rounding :
       {ElementRounding::sr_carry8, ElementRounding::sr_te, ElementRounding::sr_exact}) {
    double sum = 0;
    constexpr int kKeys = 4000;
    for (uint64_t seed = 0; seed < kKeys; ++seed) {
      const BlockScaled q = quantize_as(m, "te", {.rounding = rounding, .key = {seed, 0}, .threads = 1});
      for (int i = 1; i < 16; ++i) {
        const uint8_t code = q.code(0, i);
        CHECK((code == 4 || code == 5));
        sum += value(FormatId::e2m1, code);
      }
    }
    // Standard error 0.46 / sqrt(60000) = 0.0019; the 8-bit models see 2.3 as 2 + 76/256.
    const double expected = rounding == ElementRounding::sr_exact ? double(2.3f) : 2.0 + 76.0 / 256.0;
    CHECK(sum / (15.0 * kKeys) == Approx(expected).margin(0.008));
  }
}

TEST_CASE("the two 8-bit models agree but for values just below a step", "[quantize]") {
  const Matrix m = gaussian(256, 256, 42, FormatId::f32);
  const BlockScaled carry = quantize_as(m, "te", {.rounding = ElementRounding::sr_carry8});
  const BlockScaled te = quantize_as(m, "te", {.rounding = ElementRounding::sr_te});
  CHECK((carry.codes == te.codes));
  CHECK(encode_te_sr(bit_cast<float>(0x3AFFFFFFu), 255) == 1);
  CHECK(encode_carry8(FormatId::e2m1, bit_cast<float>(0x3AFFFFFFu), 255) == 0);
}

TEST_CASE("stochastic rounding after a rotation uses the indices of the input", "[quantize]") {
  const Matrix m = gaussian(32, 16, 43);
  const BlockScaled q = quantize_as(
      m, "te", {.axis = Axis::col, .rounding = ElementRounding::sr_carry8, .key = {3, 4}, .hadamard = true});
  Matrix rotated = m.transposed();
  for (int64_t r = 0; r < rotated.rows; ++r)
    for (int64_t i = 0; i < rotated.cols; i += 16) {
      float g[16];
      std::copy_n(&rotated(r, i), 16, g);
      rotate16(g);
      std::copy_n(g, 16, &rotated(r, i));
    }
  const Rule &rule = find_convention("te").rule;
  const GlobalScale global = global_from_amax(rule, q.global_amax, FormatId::bf16);
  for (int64_t r = 0; r < q.rows; ++r)
    for (int64_t i = 0; i < q.k; ++i) {
      const float sf = value_f32(FormatId::ue4m3, q.scale_code(r, i / 16));
      const BlockScale scale{q.scale_code(r, i / 16), sf, detail::scale_factor(rule, 0, sf, global), false};
      CHECK(q.code(r, i) == encode_element(rule, rotated(r, i), scale, ElementRounding::sr_carry8,
                                           RandomKey{3, 4}.bits8(uint64_t(i * m.cols + r))));
    }
}
