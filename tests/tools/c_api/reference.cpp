// SPDX-License-Identifier: Apache-2.0
// What the C++ library says, for the C test to compare with; and a C++ translation unit that includes the C
// header.
#include "tests/tools/c_api/reference.h"
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/nvfp4.h"

#include <cstring>

using namespace nvfp4;

namespace {

BlockScaled quantized(const float *x, int64_t rows, int64_t cols, const char *convention, int tiled) {
  QuantizeOptions o;
  o.layout = tiled != 0 ? ScaleLayout::tiled_128x4 : ScaleLayout::linear;
  return quantize(MatrixView<const float>(x, rows, cols), find_convention(convention), o);
}

} // namespace

void reference_quantize(const float *x, int64_t rows, int64_t cols, const char *convention, int tiled,
                        void *codes, uint8_t *scales) {
  const BlockScaled q = quantized(x, rows, cols, convention, tiled);
  std::memcpy(codes, q.codes.data(), q.codes.size());
  std::memcpy(scales, q.scales.data(), q.scales.size());
}

void reference_product(const char *unit_name, const char *convention, const float *a, int64_t m,
                       const float *b, int64_t n, int64_t k, float alpha, float beta, const float *c,
                       uint32_t *d) {
  const Unit &unit = find_unit(unit_name);
  GemmOptions o;
  o.alpha = alpha;
  o.beta = beta;
  GemmInputs in;
  if (c != nullptr) in.c = {reinterpret_cast<const uint8_t *>(c), size_t(m * n) * 4};
  const GemmResult r = multiply(unit, make_operand(unit, Side::a, quantized(a, m, k, convention, 0)),
                                make_operand(unit, Side::b, quantized(b, n, k, convention, 0)), o, in);
  std::memcpy(d, r.words.data(), r.words.size());
}
