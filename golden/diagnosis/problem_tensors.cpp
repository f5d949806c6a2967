// SPDX-License-Identifier: Apache-2.0
// Takes operands and output of a problem from tensors.
#include "nvfp4/golden/diagnosis/problem_tensors.hpp"

#include "nvfp4/golden/operand_tensor.hpp"
#include "nvfp4/golden/quantized_file.hpp"

namespace nvfp4::diagnosis {

ProblemOperand read_problem_operand(const io::TensorFile &file, const std::string &tensor,
                                    const io::TensorFile *source, const Unit &unit, Side side) {
  golden::FileOperand o = golden::read_operand(file, tensor, unit, side);
  ProblemOperand p{o.scaled ? raw_operand(*o.scaled) : raw_operand(o.packed), std::move(o.scaled), {}};
  if (source == nullptr) return p;
  if (!p.scaled)
    throw Error(source->source + ": " + file.source + " is dense; a source goes with a quantized operand");
  golden::DenseMatrix m = golden::to_matrix(golden::choose_tensor(*source, ""), source->source);
  const bool transposed = p.scaled->axis == Axis::col;
  const int64_t rows = transposed ? p.scaled->k : p.scaled->rows,
                cols = transposed ? p.scaled->rows : p.scaled->k;
  if (m.rows != rows || m.cols != cols)
    throw Error(source->source + ": is " + std::to_string(m.rows) + " x " + std::to_string(m.cols) + ", " +
                file.source + " was made from " + std::to_string(rows) + " x " + std::to_string(cols));
  p.source = SourceTensor{m.rows, m.cols, std::move(m.values)};
  return p;
}

std::vector<uint8_t> read_output(const io::TensorFile &file, const std::string &tensor,
                                 const std::string &rounded_to, Problem &p) {
  const io::Tensor &t = golden::choose_tensor(file, tensor);
  const std::string where = io::message_prefix(file.source, t.name);
  const std::vector<int64_t> shape{p.m(), p.n()}, swapped{p.n(), p.m()};
  if (t.shape != shape)
    throw Error(where + "D must have shape " + io::shape_text(shape) + ", got " + io::shape_text(t.shape) +
                (t.shape == swapped ? ": exchange --a and --b, or transpose D" : ""));
  const bool f64 = p.unit->rule.acc == FormatId::f64;
  if (f64 && t.dtype == io::DType::f64)
    p.word = FormatId::f64;
  else if (!f64 && t.dtype == io::DType::f32)
    p.word = FormatId::f32;
  else if (!f64 && t.dtype == io::DType::bf16)
    p.word = FormatId::bf16;
  else if (!f64 && t.dtype == io::DType::f16)
    p.word = FormatId::f16;
  else
    throw Error(where + "D of unit " + p.unit->name() + " must be " + (f64 ? "F64" : "F32, BF16 or F16") +
                ", got " + std::string(io::info(t.dtype).safetensors));
  p.round = rounded_to.empty() ? p.word : *find_format(rounded_to);
  if (p.round != p.word && (p.word != FormatId::f32 || f64))
    throw Error(where + "D is " + format(p.word).name + ", which does not hold results rounded to " +
                rounded_to + "; leave --out away");
  const uint8_t *data = reinterpret_cast<const uint8_t *>(t.data.data());
  return {data, data + t.data.size()};
}

} // namespace nvfp4::diagnosis
