// SPDX-License-Identifier: Apache-2.0
// Reads a GEMM operand: unpacks scale layouts, rounds dense values to the unit's format.
#include "tools/nvfp4/operand.hpp"

#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/quantized_file.hpp"

#include <cmath>

namespace nvfp4::tool {
namespace {

Operand pack_scaled(const io::TensorFile &file, const Unit &unit, Side side) {
  const UnitRule &rule = unit.rule;
  Operand o;
  o.scaled = golden::from_file(file);
  const BlockScaled &q = *o.scaled;
  const FormatId element = side == Side::a ? rule.a : rule.b;
  if (rule.scale_block == 0)
    throw Error(file.source + ": is quantized, but unit " + unit.name() +
                " takes no scales; use a block-scaled unit or dequantize first");
  if (q.element != element || q.scale != rule.scale || q.block != rule.scale_block)
    throw Error(file.source + ": " + format(q.element).name + " with " + format(q.scale).name + " per " +
                std::to_string(q.block) + " does not fit unit " + unit.name());
  const std::vector<uint8_t> linear =
      q.layout == ScaleLayout::linear ? q.scales : untile_scales(q.scales, q.rows, q.scale_cols());
  o.packed = pack_operand(unit, side, q.rows, q.padded_k, q.codes, linear);
  return o;
}

/// The format whose raw codes a dtype holds.
std::optional<FormatId> format_of(io::DType dtype) {
  switch (dtype) {
  case io::DType::f16: return FormatId::f16;
  case io::DType::bf16: return FormatId::bf16;
  case io::DType::f32: return FormatId::f32;
  case io::DType::f64: return FormatId::f64;
  case io::DType::f8_e4m3: return FormatId::e4m3;
  case io::DType::f8_e5m2: return FormatId::e5m2;
  default: return std::nullopt;
  }
}

Operand pack_dense(const io::TensorFile &file, const io::Tensor &t, const Unit &unit, Side side) {
  if (unit.rule.scale_block != 0)
    throw Error(io::message_prefix(file.source, t.name) + "is dense, but unit " + unit.name() +
                " multiplies block-scaled operands; run nvfp4 quantize on it first");
  if (t.shape.size() != 2)
    throw Error(io::message_prefix(file.source, t.name) + "expected a matrix, got shape " +
                io::shape_text(t.shape));
  golden::check_empty(t, file.source);
  const std::optional<FormatId> from = format_of(t.dtype);
  if (!from)
    throw Error(io::message_prefix(file.source, t.name) +
                "expected F32, F64, F16, BF16, F8_E4M3 or F8_E5M2, got " +
                std::string(io::info(t.dtype).safetensors));
  const Format source = format(*from), target = format(side == Side::a ? unit.rule.a : unit.rule.b);
  const bool narrow = target.storage_bits <= 8;
  const int64_t rows = t.shape[0], k = t.shape[1], row_bytes = (k * target.storage_bits + 7) / 8;
  const CodeView in{reinterpret_cast<const uint8_t *>(t.data.data()), source.storage_bits};
  std::vector<uint8_t> codes(size_t(rows * row_bytes), 0);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t i = 0; i < k; ++i) {
      const uint64_t word = in[r * k + i];
      const uint64_t code = source.id == target.id ? word
                                                   : convert(target, source, word, Rounding::nearest_even,
                                                             narrow ? Overflow::satfinite : Overflow::ieee);
      uint8_t *row = codes.data() + r * row_bytes;
      if (target.storage_bits == 4)
        row[i / 2] = uint8_t(row[i / 2] | code << (i % 2 * 4));
      else
        std::memcpy(row + i * target.storage_bits / 8, &code, size_t(target.storage_bits / 8));
    }
  Operand o;
  o.packed = pack_operand(unit, side, rows, k, codes);
  return o;
}

} // namespace

Operand read_operand(const std::string &path, const std::string &tensor, const Unit &unit, Side side) {
  const io::TensorFile file = io::read_tensors(path);
  if (golden::is_block_scaled(file)) {
    if (!tensor.empty())
      throw Error(file.source + ": holds one quantized tensor; leave out the name '" + tensor + "'");
    return pack_scaled(file, unit, side);
  }
  return pack_dense(file, golden::choose_tensor(file, tensor), unit, side);
}

const std::map<std::string, AlphaRule> &alpha_rules() {
  static const std::map<std::string, AlphaRule> rules = {{"by_convention", AlphaRule::by_convention},
                                                         {"mul_const", AlphaRule::mul_const},
                                                         {"div", AlphaRule::div},
                                                         {"sdec_product", AlphaRule::sdec_product}};
  return rules;
}

void check_epilogue(const GemmFlags &f) {
  if (!std::isfinite(f.alpha) || !std::isfinite(f.beta)) throw Error("--alpha and --beta must be finite");
  if (f.beta == 0.0f && !f.c.empty()) throw Error("--c " + f.c + " has no effect without --beta");
  if (f.beta != 0.0f && f.c.empty()) throw Error("--beta " + std::to_string(f.beta) + " needs --c FILE");
}

void check_operands(const GemmFlags &f, const std::optional<BlockScaled> &a,
                    const std::optional<BlockScaled> &b) {
  if (a && b && a->k != b->k)
    throw Error(f.a + " has K = " + std::to_string(a->k) + ", " + f.b + " has K = " + std::to_string(b->k) +
                "; they must be equal");
  if (a && b && (a->hadamard != b->hadamard || (a->hadamard && a->sign_mask != b->sign_mask)))
    throw Error(f.a + " and " + f.b + ": only one is Hadamard-rotated, or their sign masks differ");
  if (f.beta != 0.0f && ((a && !a->row_amax.empty()) || (b && !b->row_amax.empty())))
    throw Error("--beta has no meaning with row-scaled operands, whose scales are applied after the GEMM");
}

std::vector<uint8_t> read_c(const GemmFlags &f, FormatId acc, int64_t m, int64_t n) {
  const io::TensorFile file = io::read_tensors(f.c);
  const io::Tensor &t = golden::choose_tensor(file, f.c_tensor);
  const std::vector<int64_t> shape{m, n};
  if (t.shape != shape)
    throw Error(io::message_prefix(file.source, t.name) + "C must have shape " + io::shape_text(shape) +
                ", got " + io::shape_text(t.shape));
  const auto raw = [](const void *data, size_t bytes) {
    const uint8_t *p = static_cast<const uint8_t *>(data);
    return std::vector<uint8_t>(p, p + bytes);
  };
  if (acc == FormatId::f64) {
    if (t.dtype != io::DType::f64)
      throw Error(io::message_prefix(file.source, t.name) + "C of an FP64 unit must be F64");
    return raw(t.data.data(), t.data.size());
  }
  const golden::DenseMatrix matrix = golden::to_matrix(t, file.source);
  return raw(matrix.values.data(), matrix.values.size() * sizeof(float));
}

} // namespace nvfp4::tool
