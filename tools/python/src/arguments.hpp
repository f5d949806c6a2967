// SPDX-License-Identifier: Apache-2.0
// Arrays as the library reads them: a caller's memory as tensors, quantized tensors that Python holds, and
// results that Python takes over.
#pragma once
#include "nvfp4/golden/operand_tensor.hpp"
#include "nvfp4/golden/quantized_tensor.hpp"
#include "tools/python/src/bind.hpp"

namespace nvfp4::python {

using golden::QuantizedTensor;

/// An array in C order: dtype as in safetensors, shape, address. Its memory is the caller's.
using ArrayArg = std::tuple<std::string, std::vector<int64_t>, Address>;

/// The DType of a safetensors name; Error for others.
[[nodiscard]] io::DType dtype_named(const std::string &name);
/// A copy.
[[nodiscard]] io::Tensor to_tensor(const std::string &name, const ArrayArg &array);
/// A copy as the one tensor of a file; `name` is the argument's, for messages.
[[nodiscard]] io::TensorFile to_file(const std::string &name, const ArrayArg &array);

/// Throws Error, which names the argument, unless the number is finite and, where asked, not negative.
void expect_finite(const char *name, float value, bool not_negative = false);

/// A quantized tensor that Python holds, or a dense array.
struct OperandArg {
  std::shared_ptr<QuantizedTensor> quantized; ///< or nothing
  ArrayArg dense;

  [[nodiscard]] io::TensorFile file(const std::string &name) const;
  /// Made the unit's, without a copy of dense values in between.
  [[nodiscard]] GemmOperand make(const std::string &name, const Unit &unit, Side side) const;
};
template <> struct From<OperandArg> {
  static OperandArg get(PyObject *o) {
    if (PyTuple_Size(o) >= 0) return {nullptr, From<ArrayArg>::get(o)};
    PyErr_Clear();
    return {From<std::shared_ptr<QuantizedTensor>>::get(o), {}};
  }
};

/// Rows of a matrix whose leading axes were flattened; 1 of a vector.
[[nodiscard]] int64_t rows_of(const std::vector<int64_t> &shape);

/// How to quantize, read and checked.
struct QuantizePlan {
  const Convention *convention;
  QuantizeOptions options;
};

/// A tensor that Python takes over: dtype, shape, memory.
using ArrayResult = std::tuple<std::string, std::vector<int64_t>, Memory>;
[[nodiscard]] ArrayResult give(io::Tensor tensor);
/// A file's tensors by name, and its metadata.
using FileResult = std::tuple<std::map<std::string, ArrayResult>, std::map<std::string, std::string>>;
[[nodiscard]] FileResult give(io::TensorFile file);

} // namespace nvfp4::python
