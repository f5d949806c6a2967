// SPDX-License-Identifier: Apache-2.0
// Import of raw codes and scales: what any convention quantized comes back as the same tensor from its raw
// words, in every layout, order and meaning of the global scale; what does not fit is refused by name.
#include "tests/catch.hpp"

#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/golden/import_quantized.hpp"
#include "nvfp4/golden/quantized_file.hpp"

#include <algorithm>
#include <cmath>

namespace nvfp4::golden {
namespace {

constexpr int64_t kRows = 35, kCols = 88; // ragged in rows, blocks of 16 and of 32, and 128x4 tiles

std::vector<float> hard_values() {
  std::vector<float> x(size_t(kRows * kCols));
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::ldexp(float(int(i * 53 % 127) - 63), int(i % 11) - 6);
  x[3] = 30000.0f;
  x[90] = -0.0f;
  for (size_t i = 5 * kCols; i < 6 * kCols; ++i) x[i] = 0.0f;
  return x;
}

BlockScaled quantized(const std::string &convention, QuantizeOptions options = {}) {
  const std::vector<float> x = hard_values();
  return quantize(MatrixView<const float>(x.data(), kRows, kCols), find_convention(convention), options);
}

void check_same(const BlockScaled &got, const BlockScaled &want) {
  CHECK(got.codes == want.codes);
  CHECK(got.scales == want.scales);
  CHECK(got.layout == want.layout);
  CHECK(got.k == want.k);
  CHECK(got.padded_k == want.padded_k);
  if (has_row_factors(find_convention(want.convention).rule)) CHECK(got.row_amax == want.row_amax);
  const std::vector<float> x = dequantize(got), y = dequantize(want);
  CHECK(std::memcmp(x.data(), y.data(), x.size() * sizeof(float)) == 0);
}

struct Raw {
  io::Tensor codes, scales;
  explicit Raw(const BlockScaled &q) {
    const io::TensorFile f = to_file(q);
    codes = f.at("codes");
    scales = f.at("block_scales");
  }
};

ImportOptions options_of(const BlockScaled &q) {
  ImportOptions o;
  o.convention = q.convention;
  o.layout = q.layout;
  o.k = q.k;
  o.block_rows = q.block_rows;
  o.source = q.source;
  return o;
}

io::Tensor one(float v) { return io::Tensor::from("g", {1}, std::vector{v}); }

std::string error_of(const io::Tensor &codes, const io::Tensor &scales, const io::Tensor *global,
                     const ImportOptions &o) {
  try {
    (void)import_quantized(codes, scales, global, o);
  } catch (const Error &e) {
    return e.what();
  }
  return "no error";
}

TEST_CASE("every convention comes back from its words, whichever word of the second level it decodes with",
          "[import]") {
  int by_encode = 0, by_decode = 0;
  for (const Convention &c : conventions()) {
    CAPTURE(c.name);
    for (const ScaleLayout layout : enumerators<ScaleLayout>()) {
      const BlockScaled q = quantized(std::string(c.name), {.layout = layout});
      const Raw raw(q);
      ImportOptions o = options_of(q);
      if (!has_level(c.rule)) {
        check_same(import_quantized(raw.codes, raw.scales, nullptr, o), q);
        const io::Tensor g = one(1);
        CHECK(error_of(raw.codes, raw.scales, &g, o).find("has no global scale") != std::string::npos);
        continue;
      }
      CHECK(error_of(raw.codes, raw.scales, nullptr, o).find("needs a global scale") != std::string::npos);
      const io::Tensor amax =
          c.rule.per_row ? io::Tensor::from("g", {kRows}, q.row_amax) : one(q.global_amax);
      const BlockScaled back = import_quantized(raw.codes, raw.scales, &amax, o);
      check_same(back, q);
      if (c.rule.per_row) continue;
      CHECK(back.global_encode == q.global_encode);
      CHECK(back.global_decode == q.global_decode);
      for (const GlobalMeaning meaning : {GlobalMeaning::encode, GlobalMeaning::decode}) {
        o.global_is = meaning;
        const io::Tensor g = one(meaning == GlobalMeaning::encode ? q.global_encode : q.global_decode);
        const std::string error = error_of(raw.codes, raw.scales, &g, o);
        if (error != "no error") {
          CHECK(error.find("decodes with") != std::string::npos);
          continue;
        }
        const BlockScaled given = import_quantized(raw.codes, raw.scales, &g, o);
        check_same(given, q);
        CHECK(std::isnan(given.global_amax));
        (meaning == GlobalMeaning::encode ? by_encode : by_decode) += 1;
      }
    }
  }
  for (const char *name : {"torchao", "metis-nvfp4", "quartet2-eden"}) { // they have p alone
    CAPTURE(name);
    const BlockScaled q = quantized(name);
    const Raw raw(q);
    ImportOptions o = options_of(q);
    const io::Tensor p = one(q.global_decode);
    o.global_is = GlobalMeaning::encode;
    CHECK(error_of(raw.codes, raw.scales, &p, o).find("decodes with") != std::string::npos);
    o.global_is = GlobalMeaning::decode;
    check_same(import_quantized(raw.codes, raw.scales, &p, o), q);
  }
  CHECK(by_encode >= 8); // compressed-tensors, flashinfer, flashinfer-exact, vllm, in two layouts
  CHECK(by_decode >= 8); // torchao, modelopt and those with S whose values need p alone
}

TEST_CASE("layouts of codes: nibble order, one a byte, F4, rows without padding", "[import]") {
  const BlockScaled q = quantized("te");
  const Raw raw(q);
  const io::Tensor amax = one(q.global_amax);
  ImportOptions o = options_of(q);
  io::Tensor swapped = raw.codes;
  for (std::byte &b : swapped.data) b = (b << 4) | (b >> 4);
  o.nibbles = NibbleOrder::high_first;
  check_same(import_quantized(swapped, raw.scales, &amax, o), q);
  CHECK(import_quantized(raw.codes, raw.scales, &amax, o).codes != q.codes);
  o.nibbles = NibbleOrder::low_first;

  std::vector<uint8_t> loose;
  for (int64_t r = 0; r < q.rows; ++r)
    for (int64_t i = 0; i < q.k; ++i) loose.push_back(q.code(r, i));
  o.unpacked = true;
  o.k = 0;
  check_same(import_quantized(io::Tensor::from("c", {kRows, kCols}, loose), raw.scales, &amax, o), q);
  o.unpacked = false;

  std::vector<uint8_t> tight;
  for (int64_t r = 0; r < q.rows; ++r)
    tight.insert(tight.end(), q.codes.begin() + r * q.row_bytes(),
                 q.codes.begin() + r * q.row_bytes() + kCols / 2);
  check_same(import_quantized(io::Tensor::from("c", {kRows, kCols / 2}, tight), raw.scales, &amax, o), q);
  check_same(import_quantized(io::Tensor::from_bits("c", io::DType::f4, {kRows, kCols}, tight), raw.scales,
                              &amax, o),
             q);
  check_same(import_quantized(io::Tensor::from("c", {5, 7, kCols / 2}, tight), raw.scales, &amax, o), q);
}

TEST_CASE("layouts of scales: F8 words, values, square tiles once or for every row", "[import]") {
  const BlockScaled q = quantized("te", {.block_rows = 16});
  const Raw raw(q);
  const io::Tensor amax = one(q.global_amax);
  const ImportOptions o = options_of(q);
  io::Tensor f8 = raw.scales;
  f8.dtype = io::DType::f8_e4m3;
  check_same(import_quantized(raw.codes, f8, &amax, o), q);
  std::vector<float> values;
  for (const uint8_t s : q.scales) values.push_back(value_f32(FormatId::ue4m3, s));
  io::Tensor floats = io::Tensor::from("s", raw.scales.shape, values);
  check_same(import_quantized(raw.codes, floats, &amax, o), q);
  values[7] *= 1.01f;
  floats = io::Tensor::from("s", raw.scales.shape, values);
  CHECK(error_of(raw.codes, floats, &amax, o).find("tensor 's': value 7, ") != std::string::npos);
  std::vector<uint8_t> once;
  for (int64_t r = 0; r < q.rows; r += 16)
    once.insert(once.end(), q.scales.begin() + r * q.scale_cols(),
                q.scales.begin() + (r + 1) * q.scale_cols());
  check_same(import_quantized(raw.codes, io::Tensor::from("s", {3, q.scale_cols()}, once), &amax, o), q);
}

TEST_CASE("linear scales in whole tiles: what is beside them is not read", "[import]") {
  const BlockScaled q = quantized("te");
  const Raw raw(q);
  const io::Tensor amax = one(q.global_amax);
  const int64_t cols = (q.scale_cols() + 3) / 4 * 4;
  std::vector<uint8_t> wide(size_t(128 * cols), 0xA5);
  for (int64_t r = 0; r < q.rows; ++r)
    std::copy_n(q.scales.begin() + r * q.scale_cols(), q.scale_cols(), wide.begin() + r * cols);
  ImportOptions o = options_of(q);
  o.padded_scales = true;
  check_same(import_quantized(raw.codes, io::Tensor::from("s", {128, cols}, wide), &amax, o), q);
  CHECK(error_of(raw.codes, raw.scales, &amax, o).find("expected padded scales of shape [128, 8]") !=
        std::string::npos);
  o.layout = ScaleLayout::tiled_128x4;
  CHECK(error_of(raw.codes, raw.scales, &amax, o).find("padded anyway") != std::string::npos);
}

TEST_CASE("what does not fit is refused with what was expected and what came", "[import]") {
  const BlockScaled q = quantized("te");
  const Raw raw(q);
  const io::Tensor amax = one(q.global_amax), two = io::Tensor::from("g", {2}, std::vector{1.0f, 2.0f}),
                   nan = one(NAN);
  const ImportOptions o = options_of(q);
  const auto refused = [&](const io::Tensor &codes, const io::Tensor &scales, const io::Tensor *g,
                           const ImportOptions &with, const char *part) {
    const std::string error = error_of(codes, scales, g, with);
    INFO(error);
    CHECK(error.find(part) != std::string::npos);
  };
  ImportOptions tiled = o, wide = o, unpacked = o, cut = o;
  tiled.layout = ScaleLayout::tiled_128x4;
  refused(raw.codes, raw.scales, &amax, tiled, "are they linear?");
  refused(raw.codes, Raw(quantized("te", {.layout = ScaleLayout::tiled_128x4})).scales, &amax, o,
          "are they in the 128x4 layout, or padded?");
  wide.k = 97;
  refused(raw.codes, raw.scales, &amax, wide, "does not fit k = 97");
  cut.k = 80;
  refused(raw.codes, raw.scales, &amax, cut, "does not fit k = 80");
  cut.k = 81;
  refused(raw.codes, raw.scales, &amax, cut, "lies beyond k = 81 and is not 0");
  unpacked.unpacked = true;
  unpacked.k = 0;
  refused(raw.codes, raw.scales, &amax, unpacked, "are the codes packed");
  refused(raw.codes, raw.scales, &two, o, "expected one value");
  refused(raw.codes, raw.scales, &nan, o, "must be finite");
  refused(io::Tensor::from("c", {4}, std::vector<float>{1, 2, 3, 4}), raw.scales, &amax, o,
          "expected U8 (two codes a byte) or F4, got F32 [4]");
  ImportOptions mx = o;
  mx.convention = "mxfp8-e4m3";
  mx.nibbles = NibbleOrder::high_first;
  refused(raw.codes, raw.scales, nullptr, mx, "no nibble order");
  mx.convention = "mxpf8";
  refused(raw.codes, raw.scales, nullptr, mx, "did you mean 'mxfp8-e4m3'");
}

} // namespace
} // namespace nvfp4::golden
