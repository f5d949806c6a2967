// SPDX-License-Identifier: Apache-2.0
// A product of two quantized rows through the installed package.
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/golden/io/tensor.hpp"
#include "nvfp4/nvfp4.h"

#include <cstdio>

int main() {
  using namespace nvfp4;
  const std::vector<float> x(64, 1.5f);
  const MatrixView<const float> row(x.data(), 1, 64);
  const BlockScaled q = quantize(row, find_convention("te"));
  const Unit &unit = find_unit("sm_100:tcgen05.k64.f32.mxf4nvf4.ue4m3.block16");
  const GemmOperand a = make_operand(unit, Side::a, q), b = make_operand(unit, Side::b, q);
  const float d = multiply(unit, a, b).f32(0, 0);
  std::printf("nvfp4 %s, %s: 64 * 1.5 * 1.5 = %g\n", nvfp4_version(), unit.name().c_str(), double(d));
  return d == 144.0f ? 0 : 1;
}
