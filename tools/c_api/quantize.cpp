// SPDX-License-Identifier: Apache-2.0
// Quantization from C.
#include "nvfp4/emulator/quantize/quantize.hpp"
#include "tools/c_api/guard.hpp"
#include "nvfp4/emulator/formats/codec.hpp"

using namespace nvfp4;
using namespace nvfp4::c_api;

namespace {

QuantizeOptions options_of(const nvfp4_quantizer &q) {
  QuantizeOptions o;
  o.axis = q.columnwise != 0 ? Axis::col : Axis::row;
  o.block_rows = q.block_rows;
  o.key = {q.seed, q.offset};
  o.hadamard = q.rotate != 0;
  o.sign_mask = q.sign_mask;
  o.threads = q.threads;
  if (q.global_amax != nullptr) o.global_amax = *q.global_amax;
  switch (q.rounding) {
  case NVFP4_NEAREST_EVEN: o.rounding = ElementRounding::nearest; break;
  case NVFP4_STOCHASTIC_CARRY8: o.rounding = ElementRounding::sr_carry8; break;
  case NVFP4_STOCHASTIC_TE: o.rounding = ElementRounding::sr_te; break;
  case NVFP4_STOCHASTIC_EXACT: o.rounding = ElementRounding::sr_exact; break;
  case NVFP4_STOCHASTIC_MID8: o.rounding = ElementRounding::sr_mid8; break;
  default:
    throw Error("quantizer.rounding is " + std::to_string(int(q.rounding)) +
                "; expected one of nvfp4_rounding");
  }
  switch (q.scale_layout) {
  case NVFP4_SCALES_LINEAR: o.layout = ScaleLayout::linear; break;
  case NVFP4_SCALES_TILED_128X4: o.layout = ScaleLayout::tiled_128x4; break;
  default:
    throw Error("quantizer.scale_layout is " + std::to_string(int(q.scale_layout)) +
                "; expected one of nvfp4_scale_layout");
  }
  return o;
}

struct Sizes {
  int64_t codes, scales;
};
Sizes sizes_of(const nvfp4_quantizer &q, const Rule &rule, int64_t rows, int64_t cols) {
  (void)row_bytes(rows, cols, 64, "x");
  if (q.columnwise != 0) std::swap(rows, cols);
  const int64_t blocks = (cols + rule.block - 1) / rule.block, scales = blocks * scale_bytes(rule.scale);
  return {row_bytes(rows, blocks * rule.block, format(rule.element).storage_bits, "codes") * rows,
          q.scale_layout == NVFP4_SCALES_TILED_128X4 ? scale_size_128x4(rows, scales) : rows * scales};
}

void expect_room(int64_t got, int64_t want, const char *name) {
  if (got < want)
    throw Error(std::string(name) + " has " + std::to_string(got) +
                " bytes; nvfp4_quantized_size() asks for " + std::to_string(want));
}

void copy_out(const std::vector<uint8_t> &from, void *to, const char *name) {
  if (!from.empty()) std::memcpy(&given(static_cast<uint8_t *>(to), name), from.data(), from.size());
}

} // namespace

nvfp4_quantizer nvfp4_default_quantizer(const char *convention) {
  nvfp4_quantizer q = {};
  q.convention = convention;
  q.block_rows = 1;
  q.sign_mask = kHadamardSigns;
  return q;
}

nvfp4_status nvfp4_quantized_size(const nvfp4_quantizer *quantizer, int64_t rows, int64_t cols,
                                  int64_t *codes_bytes, int64_t *scales_bytes, nvfp4_message *message) {
  return guarded(message, [&] {
    const nvfp4_quantizer &q = given(quantizer, "quantizer");
    const Rule &rule = find_convention(given_text(q.convention, "quantizer.convention")).rule;
    (void)options_of(q);
    const Sizes sizes = sizes_of(q, rule, rows, cols);
    given(codes_bytes, "codes_bytes") = sizes.codes;
    given(scales_bytes, "scales_bytes") = sizes.scales;
    return NVFP4_OK;
  });
}

nvfp4_status nvfp4_quantize(const nvfp4_quantizer *quantizer, const char *type, int64_t rows, int64_t cols,
                            const void *x, int64_t stride, void *codes, int64_t codes_bytes, uint8_t *scales,
                            int64_t scales_bytes, float *row_amax, nvfp4_operand *result,
                            nvfp4_message *message) {
  return guarded(message, [&] {
    const nvfp4_quantizer &q = given(quantizer, "quantizer");
    const Convention &convention = find_convention(given_text(q.convention, "quantizer.convention"));
    QuantizeOptions options = options_of(q);
    const Sizes sizes = sizes_of(q, convention.rule, rows, cols);
    expect_room(codes_bytes, sizes.codes, "codes");
    expect_room(scales_bytes, sizes.scales, "scales");
    const FormatId id = format_named(type, "type");
    if (id != FormatId::f32 && id != FormatId::bf16 && id != FormatId::f16)
      throw Error(std::string("type is ") + type + "; expected f32, bf16 or f16");
    options.source = id;

    const int bits = format(id).storage_bits;
    const std::vector<uint8_t> words = gather(x, rows, row_bytes(rows, cols, bits, "x"), stride, "x");
    std::vector<float> values(size_t(rows * cols));
    for (int64_t i = 0; i < rows * cols; ++i) {
      const uint64_t word = CodeView{words.data(), bits}[i];
      const uint32_t wide = id == FormatId::f32    ? uint32_t(word)
                            : id == FormatId::bf16 ? uint32_t(word << 16)
                                                   : std::bit_cast<uint32_t>(value_f32(id, word));
      std::memcpy(&values[size_t(i)], &wide, sizeof wide);
    }
    const BlockScaled out = quantize(MatrixView<const float>(values.data(), rows, cols), convention, options);

    copy_out(out.codes, codes, "codes");
    copy_out(out.scales, scales, "scales");
    if (!out.row_amax.empty())
      std::copy(out.row_amax.begin(), out.row_amax.end(), &given(row_amax, "row_amax"));
    nvfp4_operand described = nvfp4_default_operand();
    described.rows = out.rows;
    described.k = out.k;
    described.element = name_of(out.element);
    described.codes = codes;
    described.codes_stride = out.row_bytes();
    described.scale = name_of(out.scale);
    described.block = out.block;
    described.scales = scales;
    described.scale_layout = q.scale_layout;
    described.rotated = out.hadamard ? 1 : 0;
    described.sign_mask = out.sign_mask;
    described.convention = convention.name.data();
    described.global_amax = out.global_amax;
    described.global_decode = out.global_decode;
    described.row_amax = out.row_amax.empty() ? nullptr : row_amax;
    given(result, "result") = described;
    return NVFP4_OK;
  });
}
