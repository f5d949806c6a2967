// SPDX-License-Identifier: Apache-2.0
// A law over every convention: the GEMM of two quantized operands is the product of what dequantize gives, up
// to FP32 rounding. It holds only if alpha means the same global scale as the codes do.
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/emulator/quantize/global_alpha.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "tests/catch.hpp"

#include <cmath>

using namespace nvfp4;

namespace {

std::string unit_for(const Convention &c) {
  if (c.name == "ufp4") return "exact:dot.k64.f32.e1m2.f32.block16";
  if (c.name == "mxfp4-macro") return "exact:dot.k64.f32.e2m1.f32.block32";
  if (c.rule.scale == FormatId::f32) return c.rule.element == FormatId::e2m1 ? "exact:tetrajet-v2" : "exact:fp8-1x128";
  if (c.rule.element == FormatId::int4 || c.rule.element == FormatId::int8 || c.rule.element == FormatId::int16 ||
      c.rule.scale == FormatId::ue5m3 || c.rule.scale == FormatId::ue5m3g ||
      format(c.rule.scale).extra != ScaleExtra::none) {
    const bool eight = format(c.rule.element).storage_bits >= 8;
    return std::string("exact:dot.k") + (eight ? "32" : "64") + ".f32." + format(c.rule.element).name + "." +
           format(c.rule.scale).name + ".block" + std::to_string(c.rule.block);
  }
  if (c.rule.element == FormatId::e2m3) return "sm_120:mma.m16n8k32.f32.mxf8f6f4.e2m3.ue8m0.block32";
  if (c.rule.element == FormatId::e3m2) return "sm_120:mma.m16n8k32.f32.mxf8f6f4.e3m2.ue8m0.block32";
  if (c.rule.element == FormatId::e4m3) return "sm_120:mma.m16n8k32.f32.mxf8f6f4.e4m3.ue8m0.block32";
  if (c.rule.element == FormatId::e5m2) return "sm_120:mma.m16n8k32.f32.mxf8f6f4.e5m2.ue8m0.block32";
  return c.rule.scale == FormatId::ue8m0 ? "sm_120:mma.m16n8k64.f32.mxf4.ue8m0.block32"
                                         : "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16";
}

} // namespace

TEST_CASE("gemm of quantized operands equals the product of the dequantized ones", "[quantize][alpha]") {
  constexpr int64_t rows = 4, k = 128;
  for (const Convention &c : conventions()) {
    if (c.rule.decoding == Decoding::bf16_reciprocal) continue; // no product, by an error
    for (const FormatId source : {FormatId::f32, FormatId::bf16, FormatId::f16})
      for (const float size : {1.0f, 0.01f, 300.0f}) { // 0.01: 2688 / amax overflows FP16
        INFO(c.name << " " << format(source).name << " size " << size);
        std::vector<float> x(rows * k);
        for (size_t i = 0; i < x.size(); ++i)
          x[i] = value_f32(source, encode(source, size * (float(i * 7919 % 1009) / 504.0f - 0.7f)));
        QuantizeOptions options;
        options.source = source;
        const BlockScaled q = quantize(MatrixView<const float>(x.data(), rows, k), c, options);
        const std::vector<float> y = dequantize(q);
        const Unit &unit = find_unit(unit_for(c));
        const GemmResult d = multiply(unit, make_operand(unit, Side::a, q), make_operand(unit, Side::b, q));
        for (int64_t i = 0; i < rows; ++i)
          for (int64_t j = 0; j < rows; ++j) {
            double want = 0, magnitude = 0;
            for (int64_t n = 0; n < k; ++n) {
              const double p = double(y[size_t(i * k + n)]) * double(y[size_t(j * k + n)]);
              want += p;
              magnitude += std::abs(p);
            }
            REQUIRE(std::abs(double(d.f32(i, j)) - want) <= 1e-5 * magnitude);
          }
      }
  }
}

TEST_CASE("alpha rules refuse operands whose scale is not their amax", "[quantize][alpha]") {
  const std::vector<float> x(32, 0.01f);
  const MatrixView<const float> view(x.data(), 1, 32);
  const BlockScaled te = quantize(view, find_convention("te")),
                    ct = quantize(view, find_convention("compressed-tensors"));
  CHECK(global_alpha(te, te, 1.0f, AlphaRule::by_convention) ==
        global_alpha(te, te, 1.0f, AlphaRule::mul_const));
  CHECK_THROWS_WITH(global_alpha(te, ct, 1.0f, AlphaRule::mul_const), Catch::Contains("compressed-tensors"));
  CHECK_NOTHROW(global_alpha(te, ct, 1.0f, AlphaRule::sdec_product));
}
