// SPDX-License-Identifier: Apache-2.0
// Reads what a GEMM takes from files.
#include "tools/nvfp4/operand.hpp"

#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/quantized_file.hpp"
#include "tools/nvfp4/paths.hpp"

#include <charconv>
#include <cmath>
#include <cstring>

namespace nvfp4::tool {
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

Operand read_operand(const std::string &path, const std::string &tensor, const Unit &unit, Side side) {
  const io::TensorFile file = io::read_tensors(input_path(path));
  if (golden::is_block_scaled(file)) {
    if (!tensor.empty())
      throw Error(file.source + ": holds one quantized tensor; leave out the name '" + tensor + "'");
    BlockScaled q = golden::from_file(file);
    GemmOperand packed = make(file.source, unit, side, q);
    return {std::move(packed), std::move(q)};
  }
  const io::Tensor &t = golden::choose_tensor(file, tensor);
  const std::string where = io::message_prefix(file.source, t.name);
  if (t.shape.size() != 2) throw Error(where + "expected a matrix, got shape " + io::shape_text(t.shape));
  golden::check_empty(t, file.source);
  const std::optional<FormatId> from = golden::format_of(t.dtype);
  if (!from)
    throw Error(where + "expected F32, F64, F16, BF16, F8 or F4 values, got " +
                std::string(io::info(t.dtype).safetensors));
  if (t.dtype == io::DType::f4 && t.shape[1] % 2 != 0)
    throw Error(where + "rows of F4 must have an even number of elements, got shape " + io::shape_text(t.shape));
  return {make(file.source, unit, side, DenseView{*from, t.shape[0], t.shape[1], {bytes(t), t.data.size()}}),
          {}};
}

const std::map<std::string, AlphaRule> &alpha_rules() {
  static const std::map<std::string, AlphaRule> rules = {{"by_convention", AlphaRule::by_convention},
                                                         {"mul_const", AlphaRule::mul_const},
                                                         {"div", AlphaRule::div},
                                                         {"sdec_product", AlphaRule::sdec_product}};
  return rules;
}

void check_epilogue(const GemmFlags &f) {
  if (f.beta == 0.0f && !f.c.empty()) throw Error("--c " + f.c + " has no effect without --beta");
  if (f.beta != 0.0f && f.c.empty()) throw Error("--beta " + std::to_string(f.beta) + " needs --c FILE");
}

std::vector<uint8_t> read_c(const std::string &path, const std::string &tensor, const char *what,
                            FormatId acc, int64_t m, int64_t n) {
  const io::TensorFile file = io::read_tensors(input_path(path));
  const io::Tensor &t = golden::choose_tensor(file, tensor);
  expect_shape(file, t, what, {m, n});
  if (acc == FormatId::f64) {
    if (t.dtype != io::DType::f64)
      throw Error(io::message_prefix(file.source, t.name) + what + " of an FP64 unit must be F64");
    return {bytes(t), bytes(t) + t.data.size()};
  }
  const golden::DenseMatrix matrix = golden::to_matrix(t, file.source);
  const auto *values = reinterpret_cast<const uint8_t *>(matrix.values.data());
  return {values, values + matrix.values.size() * sizeof(float)};
}

std::vector<uint8_t> read_accumulators(const std::string &path, FormatId acc, int64_t m, int64_t n) {
  const io::TensorFile file = io::read_tensors(input_path(path));
  const io::Tensor &t = golden::choose_tensor(file, "");
  expect_shape(file, t, "the accumulators", {m, n});
  if (golden::format_of(t.dtype) != acc)
    throw Error(io::message_prefix(file.source, t.name) + "accumulators of this unit are " +
                format(acc).name + ", got " + std::string(io::info(t.dtype).safetensors));
  return {bytes(t), bytes(t) + t.data.size()};
}

std::vector<float> read_vector(const std::string &path, const char *what, int64_t n) {
  const io::TensorFile file = io::read_tensors(input_path(path));
  const io::Tensor &t = golden::choose_tensor(file, "");
  golden::DenseMatrix v = golden::to_matrix(t, file.source);
  if (int64_t(v.values.size()) != n || (v.rows != 1 && v.cols != 1)) expect_shape(file, t, what, {n});
  return std::move(v.values);
}

std::vector<RowsFactor> parse_ranges(const std::string &text, const char *flag) {
  std::vector<RowsFactor> ranges;
  const char *at = text.data(), *const end = at + text.size();
  const auto wrong = [&] {
    return Error(std::string(flag) + " '" + text +
                 "': expected FIRST:LAST=SCALE, for example 0:1024=0.5,1024:1536=0.25");
  };
  const auto number = [&](auto &value, char after) {
    const auto [next, code] = std::from_chars(at, end, value);
    if (code != std::errc() || (after != 0 ? next == end || *next != after : next != end && *next != ','))
      throw wrong();
    at = next == end ? end : next + 1;
  };
  while (at != end) {
    RowsFactor r{0, 0, {}};
    number(r.first, ':');
    number(r.last, '=');
    number(r.factor.decode, 0);
    if (!std::isfinite(r.factor.decode)) throw wrong();
    ranges.push_back(r);
  }
  if (ranges.empty() || text.back() == ',') throw wrong();
  return ranges;
}

} // namespace nvfp4::tool
