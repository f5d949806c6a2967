// SPDX-License-Identifier: Apache-2.0
// Takes what a GEMM reads from tensors.
#include "nvfp4/golden/operand_tensor.hpp"

#include "nvfp4/golden/quantized_file.hpp"

namespace nvfp4::golden {
namespace {

/// What the library makes of it; its errors with the file's name in front.
template <class... Args> GemmOperand make(const std::string &source, const Args &...args) {
  try {
    return make_operand(args...);
  } catch (const Error &e) {
    throw Error(source + ": " + e.what());
  }
}

const uint8_t *bytes(const io::Tensor &t) { return reinterpret_cast<const uint8_t *>(t.data.data()); }

void expect_shape(const io::TensorFile &file, const io::Tensor &t, const char *what,
                  const std::vector<int64_t> &shape) {
  if (t.shape != shape)
    throw Error(io::message_prefix(file.source, t.name) + what + " must have shape " + io::shape_text(shape) +
                ", got " + io::shape_text(t.shape));
}

} // namespace

FileOperand read_operand(const io::TensorFile &file, const std::string &tensor, const Unit &unit, Side side) {
  if (is_block_scaled(file)) {
    if (!tensor.empty())
      throw Error(file.source + ": holds one quantized tensor; leave out the name '" + tensor + "'");
    BlockScaled q = from_file(file);
    GemmOperand packed = make(file.source, unit, side, q);
    return {std::move(packed), std::move(q)};
  }
  const io::Tensor &t = choose_tensor(file, tensor);
  const std::string where = io::message_prefix(file.source, t.name);
  if (t.shape.size() != 2) throw Error(where + "expected a matrix, got shape " + io::shape_text(t.shape));
  check_empty(t, file.source);
  const std::optional<FormatId> from = format_of(t.dtype);
  if (!from)
    throw Error(where + "expected F32, F64, F16, BF16, F8 or F4 values, got " +
                std::string(io::info(t.dtype).safetensors));
  if (t.dtype == io::DType::f4 && t.shape[1] % 2 != 0)
    throw Error(where + "rows of F4 must have an even number of elements, got shape " +
                io::shape_text(t.shape));
  return {make(file.source, unit, side, DenseView{*from, t.shape[0], t.shape[1], {bytes(t), t.data.size()}}),
          {}};
}

std::vector<uint8_t> read_c(const io::TensorFile &file, const std::string &tensor, const char *what,
                            FormatId acc, int64_t m, int64_t n) {
  const io::Tensor &t = choose_tensor(file, tensor);
  expect_shape(file, t, what, {m, n});
  if (acc == FormatId::f64) {
    if (t.dtype != io::DType::f64)
      throw Error(io::message_prefix(file.source, t.name) + what + " of an FP64 unit must be F64");
    return {bytes(t), bytes(t) + t.data.size()};
  }
  const DenseMatrix matrix = to_matrix(t, file.source);
  const auto *values = reinterpret_cast<const uint8_t *>(matrix.values.data());
  return {values, values + matrix.values.size() * sizeof(float)};
}

std::vector<uint8_t> read_accumulators(const io::TensorFile &file, FormatId acc, int64_t m, int64_t n) {
  const io::Tensor &t = choose_tensor(file, "");
  expect_shape(file, t, "the accumulators", {m, n});
  if (format_of(t.dtype) != acc)
    throw Error(io::message_prefix(file.source, t.name) + "accumulators of this unit are " +
                format(acc).name + ", got " + std::string(io::info(t.dtype).safetensors));
  return {bytes(t), bytes(t) + t.data.size()};
}

std::vector<float> read_vector(const io::TensorFile &file, const char *what, int64_t n) {
  const io::Tensor &t = choose_tensor(file, "");
  DenseMatrix v = to_matrix(t, file.source);
  if (int64_t(v.values.size()) != n || (v.rows != 1 && v.cols != 1)) expect_shape(file, t, what, {n});
  return std::move(v.values);
}

} // namespace nvfp4::golden
