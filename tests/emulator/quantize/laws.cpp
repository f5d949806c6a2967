// SPDX-License-Identifier: Apache-2.0
// What must hold for any input: orientation, tiles, threads, padding, layouts, round trips, rates of
// disagreement.
#include "nvfp4/emulator/quantize/global_alpha.hpp"
#include "nvfp4/emulator/quantize/statistics.hpp"
#include "tests/catch.hpp"
#include "tests/emulator/quantize/support.hpp"

#include <algorithm>
#include <limits>

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

void check_same(const BlockScaled &a, const BlockScaled &b) {
  CHECK((a.codes == b.codes));
  CHECK((a.scales == b.scales));
  CHECK((a.row_amax == b.row_amax));
  CHECK(bit_cast<uint32_t>(a.global_amax) == bit_cast<uint32_t>(b.global_amax));
}

} // namespace

TEST_CASE("the column axis is the row axis of the transpose, and threads change nothing", "[quantize]") {
  const Matrix m = gaussian(96, 80, 21), t = m.transposed();
  for (const Convention &c : conventions()) {
    CAPTURE(c.name);
    const BlockScaled col = quantize(m.view(), c, {.axis = Axis::col, .threads = 1});
    check_same(col, quantize(t.view(), c, {.threads = 3}));
    CHECK(col.rows == 80);
    CHECK(col.k == 96);
    const std::vector<float> back = dequantize(col, {.threads = 2});
    CHECK(back == [&] {
      const std::vector<float> r = dequantize(quantize(t.view(), c), {.threads = 1});
      Matrix x(80, 96);
      x.x = r;
      return x.transposed().x;
    }());
  }
}

TEST_CASE("a strided view is read like a dense one", "[quantize]") {
  const Matrix wide = gaussian(20, 64, 22);
  Matrix dense(20, 48);
  for (int64_t r = 0; r < 20; ++r) std::copy_n(wide.x.begin() + r * 64 + 7, 48, dense.x.begin() + r * 48);
  const MatrixView<const float> view(wide.x.data() + 7, 20, 48, 64);
  for (const Axis axis : {Axis::row, Axis::col})
    check_same(quantize(view, find_convention("te"), {.axis = axis}),
               quantize_as(dense, "te", {.axis = axis}));
}

TEST_CASE("tiles give a weight and its transpose the same numbers", "[quantize]") {
  const Matrix m = gaussian(64, 48, 23);
  for (const char *name : {"te", "te213", "torchao", "modelopt"}) {
    CAPTURE(name);
    const BlockScaled w = quantize_as(m, name, {.block_rows = 16});
    const BlockScaled wt = quantize_as(m, name, {.axis = Axis::col, .block_rows = 16});
    for (int64_t r = 0; r < 64; ++r)
      for (int64_t c = 0; c < 48; ++c) {
        CHECK(w.code(r, c) == wt.code(c, r));
        CHECK(w.scale_code(r, c / 16) == wt.scale_code(c, r / 16));
        CHECK(w.scale_code(r, c / 16) == w.scale_code(r / 16 * 16, c / 16));
      }
    CHECK((dequantize(w) == dequantize(wt)));
  }
}

TEST_CASE("ragged edges are padded with zeros", "[quantize]") {
  const Matrix m = gaussian(21, 37, 24);
  Matrix padded(32, 48);
  for (int64_t r = 0; r < 21; ++r)
    for (int64_t c = 0; c < 37; ++c) padded(r, c) = m(r, c);
  for (const int rows : {1, 16}) {
    const BlockScaled q = quantize_as(m, "te", {.block_rows = rows});
    const BlockScaled p = quantize_as(padded, "te", {.block_rows = rows});
    CHECK(q.padded_k == 48);
    for (int64_t r = 0; r < 21; ++r) {
      for (int64_t c = 0; c < 48; ++c) CHECK(q.code(r, c) == p.code(r, c));
      for (int64_t b = 0; b < 3; ++b) CHECK(q.scale_code(r, b) == p.scale_code(r, b));
    }
    CHECK((dequantize(q).size() == 21 * 37));
  }
  CHECK(quantize_as(Matrix(0, 16), "te").codes.empty());
  CHECK(quantize_as(Matrix(4, 0), "te").scales.empty());
}

TEST_CASE("the 128x4 layout", "[quantize]") {
  CHECK(scale_offset_128x4(0, 3, 4) == 3);
  CHECK(scale_offset_128x4(1, 0, 4) == 16);
  CHECK(scale_offset_128x4(32, 0, 4) == 4);
  CHECK(scale_offset_128x4(127, 3, 4) == 511);
  CHECK(scale_offset_128x4(0, 4, 5) == 512);
  CHECK(scale_offset_128x4(128, 0, 5) == 1024);
  for (const auto &[rows, cols] : {std::pair<int64_t, int64_t>(1, 1), {128, 4}, {130, 9}, {257, 3}}) {
    std::vector<uint8_t> linear(size_t(rows * cols));
    for (size_t i = 0; i < linear.size(); ++i) linear[i] = uint8_t(1 + i % 255);
    const std::vector<uint8_t> tiled = tile_scales(linear, rows, cols);
    CHECK(int64_t(tiled.size()) == (rows + 127) / 128 * 128 * ((cols + 3) / 4 * 4));
    CHECK(std::count(tiled.begin(), tiled.end(), uint8_t{0}) == int64_t(tiled.size() - linear.size()));
    CHECK(untile_scales(tiled, rows, cols) == linear);
  }
  CHECK_THROWS_AS(tile_scales(std::vector<uint8_t>(7), 2, 4), Error);
  const Matrix m = gaussian(40, 96, 25);
  const BlockScaled linear = quantize_as(m, "te"),
                    tiled = quantize_as(m, "te", {.layout = ScaleLayout::tiled_128x4});
  CHECK((tiled.scales == tile_scales(linear.scales, 40, 6)));
  CHECK((dequantize(tiled) == dequantize(linear)));
}

TEST_CASE("quantizing the dequantized tensor gives it back", "[quantize]") {
  const Matrix m = gaussian(64, 256, 26, FormatId::bf16);
  for (const Convention &c : conventions()) {
    if (c.rule.four_over_six != FourOverSix::off) continue; // a block scaled to 4 has no 6 to show its scale
    if (c.rule.scale_rounding == ScaleRounding::power_up || c.rule.order == ScaleOrder::exponent_ceil)
      continue; // a maximum that rounds down to the largest code
    if (c.rule.top != 0.0f) continue; // a maximum that lands between two codes
    if (c.rule.scale_rounding == ScaleRounding::ggml || c.rule.per_row) continue; // amax itself may move
    if (c.rule.order == ScaleOrder::bf16_inverse_top) continue; // E6M2's steps: the maximum need not reach 7 again
    if (c.rule.scale == FormatId::f32) continue; // a quotient that is rounded in FP32 need not come back
    CAPTURE(c.name);
    const BlockScaled q = quantize(m.view(), c);
    Matrix again(64, 256);
    again.x = dequantize(q);
    QuantizeOptions o;
    if (c.rule.global == GlobalRule::compressed_tensors)
      o.global_scale = q.global_encode;
    else if (c.rule.global != GlobalRule::none)
      o.global_amax = q.global_amax;
    const BlockScaled p = quantize(again.view(), c, o);
    CHECK((p.scales == q.scales));
    int64_t different = 0;
    for (int64_t r = 0; r < q.rows; ++r)
      for (int64_t i = 0; i < q.k; ++i) {
        const bool dropped =
            c.rule.negative_zero == NegativeZero::drop_exact && q.code(r, i) == 8; // now an exact -0
        different += p.code(r, i) != (dropped ? 0 : q.code(r, i));
      }
    CHECK(different == 0);
  }
}

TEST_CASE("each row of a row-scaled tensor is a tensor", "[quantize]") {
  const Matrix m = gaussian(12, 64, 27);
  const BlockScaled all = quantize_as(m, "row-scaled");
  const std::vector<float> values = dequantize(all);
  for (int64_t r = 0; r < 12; ++r) {
    const BlockScaled one =
        quantize(MatrixView<const float>(m.x.data() + r * 64, 1, 64), find_convention("te"));
    CHECK((all.row_amax[size_t(r)] == one.global_amax));
    CHECK(nibbles(all, r) == nibbles(one));
    const std::vector<float> v = dequantize(one);
    CHECK(std::equal(v.begin(), v.end(), values.begin() + r * 64));
  }
}

TEST_CASE("dequantization follows each convention's own order of products", "[quantize]") {
  const Matrix m = gaussian(4, 64, 28, FormatId::f32);
  const auto check = [&](const char *name, auto &&rule) {
    const BlockScaled q = quantize_as(m, name);
    const std::vector<float> y = dequantize(q);
    for (int64_t r = 0; r < 4; ++r)
      for (int64_t i = 0; i < 64; ++i)
        CHECK(y[size_t(r * 64 + i)] == rule(value_f32(FormatId::e2m1, q.code(r, i)),
                                            value_f32(FormatId::ue4m3, q.scale_code(r, i / 16)), q));
  };
  check("te",
        [](float v, float s, const BlockScaled &q) { return v * ((s * q.global_amax) * (1.0f / 2688.0f)); });
  check("te-4over6",
        [](float v, float s, const BlockScaled &q) { return v * ((s * q.global_amax) * (1.0f / 1536.0f)); });
  check("torchao",
        [](float v, float s, const BlockScaled &q) { return v * (s * (q.global_amax / 2688.0f)); });
  check("compressed-tensors",
        [](float v, float s, const BlockScaled &q) { return v * (s / q.global_encode); });
  check("flashinfer",
        [](float v, float s, const BlockScaled &q) { return v * (s * (1.0f / q.global_encode)); });
  check("fouroversix",
        [](float v, float s, const BlockScaled &q) { return ((v * s) * q.global_amax) / 1536.0f; });
  check("ggml", [](float v, float s, const BlockScaled &) { return v * s; });
}

TEST_CASE("conventions disagree about as often as published", "[quantize]") {
  // Rates depend on the mantissa of amax, so they are averaged over many tensors.
  struct Count {
    int64_t scales = 0, codes = 0;
  };
  const auto differences = [](const char *name) {
    Count n;
    for (uint32_t seed = 0; seed < 24; ++seed) {
      const Matrix m = gaussian(64, 256, 100 + seed, FormatId::bf16, 1.0f + float(seed) / 24.0f);
      const BlockScaled a = quantize_as(m, "te"), b = quantize_as(m, name);
      for (size_t i = 0; i < a.scales.size(); ++i) n.scales += a.scales[i] != b.scales[i];
      for (int64_t r = 0; r < a.rows; ++r)
        for (int64_t i = 0; i < a.k; ++i) n.codes += a.code(r, i) != b.code(r, i);
    }
    return n;
  };
  const double blocks = 24.0 * 64 * 16, elements = blocks * 16;
  for (const char *name : {"te213", "torchao", "modelopt"}) {
    const Count n = differences(name);
    CAPTURE(name, n.scales, n.codes);
    CHECK(double(n.scales) / blocks > 1e-4);
    CHECK(double(n.scales) / blocks < 1e-2);
    CHECK(double(n.codes) / elements > 2e-5);
    CHECK(double(n.codes) / elements < 5e-3);
  }
}

TEST_CASE("the GEMM's alpha", "[quantize]") {
  const Matrix x = gaussian(2, 32, 31), w = gaussian(2, 32, 32);
  const BlockScaled a = quantize_as(x, "te"), b = quantize_as(w, "te-4over6");
  const float aa = a.global_amax, ab = b.global_amax;
  CHECK(global_alpha(a, a, 1.5f, AlphaRule::mul_const) == ((1.5f * aa) * aa) * (1.0f / 7225344.0f));
  CHECK(global_alpha(a, b, 1.0f, AlphaRule::mul_const) == (aa * ab) * (1.0f / (2688.0f * 1536.0f)));
  CHECK(global_alpha(a, b, 1.0f, AlphaRule::div) == (aa * ab) / (2688.0f * 1536.0f));
  CHECK(global_alpha(a, b, 0.5f, AlphaRule::sdec_product) ==
        0.5f * ((1.0f / a.global_encode) * (1.0f / b.global_encode)));
  const BlockScaled rows = quantize_as(x, "row-scaled"), mx = quantize_as(x, "mxfp4");
  CHECK(global_alpha(rows, rows, 3.0f, AlphaRule::mul_const) == 3.0f * (1.0f / 7225344.0f));
  CHECK(global_alpha(mx, mx, 3.0f, AlphaRule::mul_const) == 3.0f);
  const BlockScaled given = quantize_as(x, "flashinfer", {.global_scale = 512.0f});
  CHECK(global_alpha(given, mx, 1.0f, AlphaRule::sdec_product) == 1.0f / 512.0f);
  CHECK_THROWS_AS(global_alpha(given, a, 1.0f, AlphaRule::mul_const), Error);
}

TEST_CASE("combinations without a meaning are refused", "[quantize]") {
  const Matrix m = gaussian(32, 32, 33);
  const auto refused = [&](const char *name, const QuantizeOptions &o) {
    CAPTURE(name);
    CHECK_THROWS_AS(quantize_as(m, name, o), Error);
  };
  refused("te-4over6", {.rounding = ElementRounding::sr_carry8});
  refused("te-4over6", {.hadamard = true});
  refused("fouroversix", {.rounding = ElementRounding::sr_exact});
  refused("ggml", {.rounding = ElementRounding::sr_carry8});
  refused("row-scaled", {.block_rows = 16});
  refused("row-scaled", {.hadamard = true});
  refused("row-scaled", {.global_amax = 1.0f});
  refused("mxfp4", {.block_rows = 16});
  refused("mxfp4", {.global_amax = 1.0f});
  refused("mxfp8-e4m3", {.rounding = ElementRounding::sr_te});
  refused("te", {.block_rows = 16, .hadamard = true});
  refused("te", {.block_rows = 4});
  refused("te", {.global_scale = 1.0f});
  refused("te", {.source = FormatId::e4m3});
  refused("flashinfer", {.global_amax = 1.0f, .global_scale = 1.0f});
  CHECK_THROWS_AS(quantize_as(gaussian(4, 24, 1), "te", {.hadamard = true}), Error);
  BlockScaled q = quantize_as(m, "te");
  q.codes.pop_back();
  CHECK_THROWS_AS(dequantize(q), Error);
}

TEST_CASE("progress rises to 1, changes nothing, and ends the work by throwing", "[quantize]") {
  struct Stop {};
  const Matrix m = gaussian(320, 512, 35);
  // a panel walk with and without rotation, row scales, and a preset without vector kernels
  const QuantizeOptions plain = {.threads = 1}, rotated = {.axis = Axis::col, .hadamard = true, .threads = 1};
  for (const auto &[name, options] : {std::pair{"te", plain}, {"te", rotated}, {"row-scaled", plain}, {"ggml", plain}}) {
    CAPTURE(name, options.hadamard);
    const Convention &c = find_convention(name);
    std::vector<double> told;
    QuantizeOptions watched = options;
    watched.progress = [&](double f) { told.push_back(f); };
    const BlockScaled q = quantize(m.view(), c, watched);
    check_same(q, quantize(m.view(), c, options));
    const auto complete = [&] {
      REQUIRE(told.size() > 1);
      CHECK(std::is_sorted(told.begin(), told.end()));
      CHECK(told.front() > 0.0);
      CHECK(told.back() == 1.0);
      told.clear();
    };
    complete();
    CHECK((dequantize(q, {.threads = 1, .progress = watched.progress}) == dequantize(q)));
    complete();
    (void)quantize_statistics(m.view(), q, 1, watched.progress);
    complete();
    const std::function<void(double)> stop = [&](double) {
      told.push_back(0.0);
      throw Stop{};
    };
    watched.progress = stop;
    CHECK_THROWS_AS(quantize(m.view(), c, watched), Stop);
    CHECK_THROWS_AS(dequantize(q, {.threads = 1, .progress = stop}), Stop);
    CHECK_THROWS_AS(quantize_statistics(m.view(), q, 1, stop), Stop);
    CHECK(told.size() == 3);
  }
}
