// SPDX-License-Identifier: Apache-2.0
// Quantization and the quantized tensor.
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/golden/quantized_file.hpp"
#include "tools/environment.hpp"
#include "tools/python/src/bind.hpp"

namespace nvfp4::python {
namespace {

std::shared_ptr<BlockScaled> quantize_f32(Address x, int64_t rows, int64_t cols, int64_t stride,
                                          const std::string &convention, const std::string &axis,
                                          int block_rows, const std::string &rounding, uint64_t seed,
                                          uint64_t offset, bool hadamard, const std::string &layout,
                                          std::optional<float> amax, int threads) {
  QuantizeOptions o;
  o.isa = tool::asked_isa();
  o.axis = parse_enum<Axis>(axis);
  o.block_rows = block_rows;
  o.rounding = parse_enum<ElementRounding>(rounding);
  o.key = {seed, offset};
  o.hadamard = hadamard;
  o.layout = parse_enum<ScaleLayout>(layout);
  o.global_amax = amax;
  o.threads = threads;
  const MatrixView<const float> view(reinterpret_cast<const float *>(x.data), rows, cols, stride);
  return std::make_shared<BlockScaled>(quantize(view, find_convention(convention), o));
}

std::tuple<Memory, Memory> parts(const std::shared_ptr<BlockScaled> &q) {
  return {Memory{q, q->codes.data(), q->codes.size()}, Memory{q, q->scales.data(), q->scales.size()}};
}

Memory values(const std::shared_ptr<BlockScaled> &q, bool undo_hadamard, int threads) {
  return give(dequantize(*q, {undo_hadamard, threads}));
}

} // namespace

void bind_quantize(Module &m) {
  m.def<quantize_f32>("quantize_f32");
  m.def<parts>("parts");
  m.def<values>("values");
}

} // namespace nvfp4::python
