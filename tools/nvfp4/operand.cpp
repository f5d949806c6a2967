// SPDX-License-Identifier: Apache-2.0
// Reads a GEMM operand: unpacks scale layouts, rounds dense values to the unit's format.
#include "tools/nvfp4/operand.hpp"

#include "emulator/formats/codec.hpp"
#include "golden/io/file.hpp"
#include "golden/quantized_file.hpp"

namespace nvfp4::tool {
namespace {

Operand pack_scaled(const io::TensorFile &file, const Unit &unit, Side side) {
  const UnitRule &rule = unit.rule;
  Operand o;
  o.scaled = golden::from_file(file);
  const BlockScaled &q = *o.scaled;
  const FormatId element = side == Side::a ? rule.a : rule.b;
  if (rule.scale_block == 0)
    throw Error(file.source + ": is quantized, but unit " + unit.name() + " takes no scales; use a block-scaled unit or dequantize first");
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
    throw Error(io::message_prefix(file.source, t.name) + "expected a matrix, got shape " + io::shape_text(t.shape));
  golden::check_empty(t, file.source);
  const std::optional<FormatId> from = format_of(t.dtype);
  if (!from)
    throw Error(io::message_prefix(file.source, t.name) + "expected F32, F64, F16, BF16, F8_E4M3 or F8_E5M2, got " +
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
      if (target.storage_bits == 4) row[i / 2] = uint8_t(row[i / 2] | code << (i % 2 * 4));
      else std::memcpy(row + i * target.storage_bits / 8, &code, size_t(target.storage_bits / 8));
    }
  Operand o;
  o.packed = pack_operand(unit, side, rows, k, codes);
  return o;
}

} // namespace

Operand read_operand(const std::string &path, const std::string &tensor, const Unit &unit, Side side) {
  const io::TensorFile file = io::read_tensors(path);
  if (golden::is_block_scaled(file)) {
    if (!tensor.empty()) throw Error(file.source + ": holds one quantized tensor; leave out the name '" + tensor + "'");
    return pack_scaled(file, unit, side);
  }
  return pack_dense(file, golden::choose_tensor(file, tensor), unit, side);
}

} // namespace nvfp4::tool
