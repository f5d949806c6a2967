// SPDX-License-Identifier: Apache-2.0
// Arrays in and out.
#include "tools/python/src/arguments.hpp"

#include "nvfp4/golden/quantized_file.hpp"

#include <cmath>

namespace nvfp4::python {

io::DType dtype_named(const std::string &name) {
  for (const io::DTypeInfo &info : io::dtype_table)
    if (info.safetensors == name) return info.dtype;
  throw TypeError("unknown dtype '" + name + "'");
}

void expect_finite(const char *name, float value, bool not_negative) {
  if (!std::isfinite(value) || (not_negative && value < 0))
    throw Error(std::string(name) + " is " + std::to_string(value) + "; expected a finite FP32 number" +
                (not_negative ? ", not negative" : ""));
}

io::Tensor to_tensor(const std::string &name, const ArrayArg &array) {
  const auto &[dtype, shape, address] = array;
  io::Tensor t{name, dtype_named(dtype), shape, {}};
  const size_t bytes = io::TensorHeader{t.name, t.dtype, t.shape}.bytes();
  t.data.assign(address.data, address.data + bytes);
  return t;
}

io::TensorFile to_file(const std::string &name, const ArrayArg &array) {
  io::TensorFile file;
  file.tensors.push_back(to_tensor("data", array));
  file.source = name;
  return file;
}

io::TensorFile OperandArg::file(const std::string &name) const {
  if (quantized == nullptr) return to_file(name, dense);
  io::TensorFile file = golden::to_file(*quantized);
  file.source = name;
  return file;
}

GemmOperand OperandArg::make(const std::string &name, const Unit &unit, Side side) const {
  const auto &[dtype, shape, address] = dense;
  try {
    if (quantized != nullptr) return make_operand(unit, side, quantized->scaled);
    const std::optional<FormatId> id = golden::format_of(dtype_named(dtype));
    if (!id || shape.size() != 2 || (*id == FormatId::e2m1 && shape[1] % 2 != 0)) // says what is wrong
      return golden::read_operand(file(name), "", unit, side).packed;
    const size_t bytes = io::TensorHeader{name, dtype_named(dtype), shape}.bytes();
    return make_operand(unit, side,
                        DenseView{*id, shape[0], shape[1], address.view<uint8_t>(int64_t(bytes))});
  } catch (const Error &e) {
    throw Error(name + ": " + e.what());
  }
}

int64_t rows_of(const std::vector<int64_t> &shape) {
  if (shape.empty() || shape.back() == 0) return 0;
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows *= shape[i];
  return rows;
}

ArrayResult give(io::Tensor tensor) {
  return {std::string(io::info(tensor.dtype).safetensors), tensor.shape, give(std::move(tensor.data))};
}

FileResult give(io::TensorFile file) {
  std::map<std::string, ArrayResult> tensors;
  for (io::Tensor &t : file.tensors) {
    const std::string name = t.name;
    tensors.emplace(name, give(std::move(t)));
  }
  return {std::move(tensors), std::move(file.metadata)};
}

} // namespace nvfp4::python
