// SPDX-License-Identifier: Apache-2.0
// What kernels read of a quantized tensor and make of accumulators, on the CPU, against dequantize() and
// GemmPlan, word by word.
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/gpu/emulated/output_vectors.hpp"
#include "nvfp4/gpu/emulated/scaled_reading.hpp"
#include "nvfp4/tests/catch.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

using namespace nvfp4;

namespace {

/// Outliers, zeros of both signs, rows of zeros, subnormals, NaN and Inf.
std::vector<float> hard(int64_t rows, int64_t cols, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(size_t(rows * cols));
  for (float &v : x) v = std::ldexp(normal(random), int(random() % 40) - 20);
  for (size_t i = 0; i < x.size(); i += 17) x[i] = i % 2 == 0 ? 0.0f : -0.0f;
  for (size_t i = 3; i < x.size(); i += 101) x[i] = 1e-42f;
  for (int64_t i = 0; i < cols; ++i) x[size_t(rows / 2 * cols + i)] = 0;
  x[1] = -std::nanf("");
  x[x.size() - 2] = -INFINITY;
  return x;
}

/// Word by word. A NaN is a NaN: which of two a product passes on is the compiler's choice.
bool same(const std::vector<float> &a, const std::vector<float> &b) {
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    if (bit_cast<uint32_t>(a[i]) != bit_cast<uint32_t>(b[i]) && !(a[i] != a[i] && b[i] != b[i])) return false;
  return a.size() == b.size();
}

} // namespace

TEST_CASE("kernels read a quantized tensor as dequantize() does") {
  int64_t rotated = 0, compared = 0;
  for (const Convention &c : conventions())
    for (const auto &[rows, cols] : {std::pair<int64_t, int64_t>{33, 80}, {5, 35}, {160, 48}, {1, 16}})
      for (const Axis axis : {Axis::row, Axis::col})
        for (const ScaleLayout layout : {ScaleLayout::linear, ScaleLayout::tiled_128x4})
          for (const bool hadamard : {false, true}) {
            const std::vector<float> x = hard(rows, cols, uint32_t(rows * cols));
            QuantizeOptions o;
            o.axis = axis;
            o.layout = layout;
            o.hadamard = hadamard;
            BlockScaled q;
            try {
              q = quantize({x.data(), rows, cols, cols}, c, o);
            } catch (const Error &) {
              continue; // of a convention that does not take it
            }
            std::vector<GlobalScale> globals;
            for (int64_t r = 0; r < (c.rule.per_row ? q.rows : 1); ++r)
              globals.push_back(global_of_row(q, c.rule, r));
            cuda::ScaledReading reading{.rule = c.rule,
                                        .rows = q.rows,
                                        .k = q.k,
                                        .padded_k = q.padded_k,
                                        .tiled_scales = layout == ScaleLayout::tiled_128x4,
                                        .transposed = axis == Axis::col,
                                        .rotated = false,
                                        .per_row = c.rule.per_row,
                                        .signs = q.sign_mask,
                                        .codes = q.codes.data(),
                                        .scales = q.scales.data(),
                                        .globals = globals.data()};
            for (const bool undo : {false, true}) {
              reading.rotated = q.hadamard && undo;
              std::vector<float> out(size_t(rows * cols), 77.0f);
              for (int64_t t = 0; t < reading.groups(); ++t) reading.write_group(t, out.data());
              INFO(c.name << " [" << rows << ", " << cols << "] axis " << int(axis) << " layout "
                          << int(layout));
              REQUIRE(same(out, dequantize(q, {.undo_hadamard = undo, .threads = 1, .progress = {}})));
              rotated += q.hadamard;
              ++compared;
            }
            for (int64_t r = 0; r < q.rows; ++r)
              for (int64_t b = 0; b < q.blocks(); ++b) REQUIRE(reading.scale(r, b) == q.scale_code(r, b));
          }
  CHECK(compared > 400);
  CHECK(rotated > 0);
}

TEST_CASE("kernels finish outputs with bias and factors as the product does") {
  const int64_t m = 21, n = 13, k = 96;
  for (const char *name : {"sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16", "sm_90:wgmma.k16.f16.f16",
                           "sm_90:mma.m8n8k4.f64.f64"}) {
    const Unit &unit = find_unit(name);
    const FormatId acc = unit.rule.acc;
    const bool f64 = acc == FormatId::f64, scaled = unit.rule.scale_block != 0;
    const auto operand = [&](Side side, int64_t rows) {
      const std::vector<float> x = hard(rows, k, uint32_t(rows));
      if (scaled)
        return make_operand(unit, side, quantize({x.data(), rows, k, k}, find_convention("te"), {}));
      const auto *const bytes = reinterpret_cast<const uint8_t *>(x.data());
      return make_operand(unit, side, DenseView{FormatId::f32, rows, k, {bytes, x.size() * 4}});
    };
    const GemmOperand a = operand(Side::a, m), b = operand(Side::b, n);
    std::vector<float> bias = hard(1, n, 4), rows = hard(1, m, 5), columns = hard(1, n, 6);
    rows[2] = -0.0f;
    std::vector<uint8_t> c(size_t(m * n) * (f64 ? 8 : 4));
    for (size_t i = 0; i < size_t(m * n); ++i) {
      const float v = float(i) * 0.37f - 20;
      const double wide = v;
      std::memcpy(c.data() + i * (f64 ? 8 : 4), f64 ? static_cast<const void *>(&wide) : &v, f64 ? 8 : 4);
    }
    std::vector<uint64_t> words(size_t(m * n));
    GemmOptions plain;
    if (f64) plain.out = FormatId::f64;
    (void)GemmPlan(unit, plain).accumulate(a, b, words);
    for (const FormatId out : {FormatId::f32, FormatId::bf16, FormatId::f16, FormatId::f64})
      for (int which = 0; which < 16; ++which) {
        const bool with_c = (which & 8) != 0;
        if ((out == FormatId::f64) != f64 || (with_c && (which & 6) != 0)) continue; // factors without beta
        GemmOptions o;
        o.out = out;
        o.alpha = -0.75f;
        o.beta = with_c ? 1.25f : 0.0f;
        GemmInputs in;
        if ((which & 1) != 0) in.bias = bias;
        if ((which & 2) != 0) in.row_factors = rows;
        if ((which & 4) != 0) in.column_factors = columns;
        if (with_c) in.c = c;
        const GemmResult want = GemmPlan(unit, o).run(a, b, in);
        // factors lie apart, as those of rows with a global scale each
        std::vector<float> apart(size_t(3 * m), 55.0f);
        for (int64_t i = 0; i < m; ++i) apart[size_t(3 * i)] = rows[size_t(i)];
        const cuda::OutputVectors vectors{.bias = in.bias.empty() ? nullptr : bias.data(),
                                          .row_factors = in.row_factors.empty() ? nullptr : apart.data(),
                                          .column_factors =
                                              in.column_factors.empty() ? nullptr : columns.data(),
                                          .row_stride = 3};
        const float alpha =
            scaled ? global_alpha(a.global, b.global, o.alpha, AlphaRule::by_convention) : o.alpha;
        const size_t width = size_t(format(out).storage_bits / 8);
        for (int64_t at = 0; at < m * n; ++at) {
          OutputTerms terms{.out = out, .alpha = alpha, .beta = o.beta};
          if (with_c) std::memcpy(&terms.c, c.data() + size_t(at) * (f64 ? 8 : 4), f64 ? 8 : 4);
          const uint64_t word = vectors.finish(terms, acc, words[size_t(at)], at / n, at % n);
          INFO(name << " to " << format(out).name << ", " << which << ", output " << at);
          REQUIRE(std::memcmp(&word, want.words.data() + size_t(at) * width, width) == 0);
        }
      }
  }
}

TEST_CASE("FP32 is narrowed to BF16 words, NaN to one") {
  for (uint64_t w = 0; w < uint64_t{1} << 32; w += 4099) {
    const float x = bit_cast<float>(uint32_t(w));
    CHECK(cuda::narrow_word(x) ==
          (x != x ? 0x7FC0 : uint16_t(encode(FormatId::bf16, x, Rounding::nearest_even, Overflow::ieee))));
  }
}
