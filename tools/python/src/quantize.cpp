// SPDX-License-Identifier: Apache-2.0
// Quantization and the quantized tensor.
#include "nvfp4/emulator/quantize/dequantize.hpp"
#include "nvfp4/golden/import_quantized.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/quantized_file.hpp"
#include "tools/environment.hpp"
#include "tools/python/src/arguments.hpp"

namespace nvfp4::python {
namespace {

using Held = std::shared_ptr<QuantizedTensor>;

/// An array as a matrix of FP32 values: F32 as it lies, rows `stride` elements apart, others converted.
struct Matrix {
  golden::DenseMatrix converted;
  MatrixView<const float> view;
  FormatId source = FormatId::f32;

  Matrix(const ArrayArg &x, int64_t stride) {
    const auto &[dtype, shape, address] = x;
    if (dtype != "F32" || shape.empty()) {
      converted = golden::to_matrix(to_tensor("data", x), "x");
      source = converted.source;
      view = {converted.values.data(), converted.rows, converted.cols};
      return;
    }
    view = {reinterpret_cast<const float *>(address.data), rows_of(shape), shape.back(), stride};
  }
};

using Plan = std::shared_ptr<QuantizePlan>;

Plan quantize_plan(const std::string &convention, int64_t block_rows, int64_t block, const std::string &axis,
                   const std::string &rounding, uint64_t seed, uint64_t offset, bool hadamard,
                   const std::string &layout, std::optional<float> amax, std::optional<float> scale,
                   int threads) {
  const Convention &c = find_convention(convention);
  if (amax) expect_finite("global_amax", *amax, true);
  if (scale) expect_finite("global_scale", *scale, true);
  QuantizeOptions o;
  o.isa = tool::asked_isa();
  o.axis = parse_enum<Axis>(axis);
  o.block_rows = golden::block_rows_of(c, block_rows, block);
  o.rounding = parse_enum<ElementRounding>(rounding);
  o.key = {seed, offset};
  o.hadamard = hadamard;
  o.layout = parse_enum<ScaleLayout>(layout);
  o.global_amax = amax;
  o.global_scale = scale;
  o.threads = threads;
  return std::make_shared<QuantizePlan>(QuantizePlan{&c, o});
}

Held quantize_array(const ArrayArg &x, int64_t stride, const Plan &plan,
                    const Progress &progress) {
  const Matrix m(x, stride);
  QuantizeOptions o = plan->options;
  o.source = m.source;
  o.progress = progress;
  return std::make_shared<QuantizedTensor>(
      QuantizedTensor{quantize(m.view, *plan->convention, o), "data", std::get<1>(x), o.rounding, o.key});
}

/// A tensor without its bytes, which lie elsewhere: codes' and scales' shapes, and how many rows have a
/// global scale of their own, 0 where one is the tensor's. `x`: dtype and shape.
using Described = std::tuple<Held, std::vector<int64_t>, std::vector<int64_t>, int64_t>;

Described describe(const Plan &plan, const std::string &dtype, const std::vector<int64_t> &shape) {
  if (shape.empty()) throw Error("x: expected at least one axis, got shape []");
  QuantizeOptions o = plan->options;
  o.source = *golden::format_of(dtype_named(dtype));
  const int64_t rows = rows_of(shape), cols = shape.back();
  const bool turned = o.axis == Axis::col;
  // what does not fit is refused as with bytes
  BlockScaled q = quantize({nullptr, turned ? rows : 0, turned ? 0 : cols, cols}, *plan->convention, o);
  q.rows = turned ? cols : rows;
  std::vector<int64_t> codes = {q.rows, q.row_bytes()}, scales = golden::scale_shape(q);
  return {std::make_shared<QuantizedTensor>(QuantizedTensor{std::move(q), "data", shape, o.rounding, o.key}),
          std::move(codes), std::move(scales), plan->convention->rule.per_row};
}

/// A described tensor with its bytes. globals: amax, encode and decode scale, F32, of the tensor or of each
/// row.
Held filled(const Held &described, Address codes, Address scales, Address globals) {
  auto made = std::make_shared<QuantizedTensor>(*described);
  BlockScaled &q = made->scaled;
  const auto bytes = [](const Address &from, int64_t n) {
    const std::span<const uint8_t> s = from.view<uint8_t>(n);
    return std::vector<uint8_t>(s.begin(), s.end());
  };
  q.codes = bytes(codes, q.rows * q.row_bytes());
  q.scales = bytes(scales, q.layout == ScaleLayout::linear ? q.rows * q.scale_cols()
                                                           : scale_size_128x4(q.rows, q.scale_cols()));
  const bool per_row = find_convention(q.convention).rule.per_row;
  const std::span<const float> words = globals.view<float>(3 * (per_row ? q.rows : 1));
  if (!per_row) {
    q.global_amax = words[0];
    q.global_encode = words[1];
    q.global_decode = words[2];
    return made;
  }
  for (int64_t r = 0; r < q.rows; ++r) q.row_amax.push_back(words[size_t(3 * r)]);
  return made;
}

/// What a tensor is: convention, element, scale, block, block_rows, axis, source, scale layout, rounding.
using Names = std::tuple<std::string, std::string, std::string, int, int, std::string, std::string,
                         std::string, std::string>;
/// Its numbers: rows, k, shape, global amax, encode and decode scale, rotated, sign mask, seed, offset.
using Numbers =
    std::tuple<int64_t, int64_t, std::vector<int64_t>, double, double, double, bool, int, uint64_t, uint64_t>;
/// Codes, scales and row amax, in memory that the tensor keeps.
using Parts = std::tuple<ArrayResult, ArrayResult, std::optional<ArrayResult>>;

Names names(const Held &t) {
  const BlockScaled &q = t->scaled;
  return {q.convention,
          format(q.element).name,
          format(q.scale).name,
          q.block,
          q.block_rows,
          std::string(to_string(q.axis)),
          format(q.source).name,
          std::string(to_string(q.layout)),
          std::string(to_string(t->rounding))};
}

Numbers numbers(const Held &t) {
  const BlockScaled &q = t->scaled;
  return {q.rows,          q.k,        t->shape,         q.global_amax, q.global_encode,
          q.global_decode, q.hadamard, int(q.sign_mask), t->key.seed,   t->key.offset};
}

Parts parts(const Held &t) {
  BlockScaled &q = t->scaled;
  std::optional<ArrayResult> row_amax;
  if (!q.row_amax.empty() || has_row_factors(find_convention(q.convention).rule))
    row_amax.emplace("F32", std::vector<int64_t>{q.rows},
                     Memory{t, q.row_amax.data(), q.row_amax.size() * sizeof(float)});
  return {{"U8", {q.rows, q.row_bytes()}, Memory{t, q.codes.data(), q.codes.size()}},
          {"U8", golden::scale_shape(q), Memory{t, q.scales.data(), q.scales.size()}},
          std::move(row_amax)};
}

Memory values(const Held &t, bool undo_hadamard, int threads, const Progress &progress) {
  return give(dequantize(t->scaled, {undo_hadamard, threads, progress}));
}

/// The statistics' JSON, of the whole and of every block row.
std::tuple<std::string, std::vector<std::string>> statistics(const Held &t, const ArrayArg &x, int64_t stride,
                                                             int threads, const Progress &progress) {
  const std::vector<QuantizeStatistics> rows =
      quantize_statistics(Matrix(x, stride).view, t->scaled, threads, progress);
  std::vector<std::string> list;
  for (const QuantizeStatistics &row : rows) list.push_back(golden::statistics_json(row));
  return {golden::statistics_json(total(rows)), std::move(list)};
}

/// An array that is not in a file: `name` is the argument's.
std::optional<io::Tensor> tensor_of(const char *name, const std::optional<ArrayArg> &array) {
  if (!array) return std::nullopt;
  return to_tensor(name, *array);
}

Held from_parts(const ArrayArg &codes, const ArrayArg &scales, const std::optional<ArrayArg> &global,
                const std::string &convention, const std::string &global_is, const std::string &layout,
                const std::string &nibbles, bool unpacked, int64_t k, int block_rows, const std::string &axis,
                const std::string &source, bool hadamard) {
  golden::ImportOptions o;
  o.convention = convention;
  o.layout = parse_enum<ScaleLayout>(layout);
  o.nibbles = parse_enum<golden::NibbleOrder>(nibbles);
  o.unpacked = unpacked;
  o.global_is = parse_enum<golden::GlobalMeaning>(global_is);
  o.k = k;
  o.block_rows = block_rows;
  o.axis = parse_enum<Axis>(axis);
  const std::optional<FormatId> type = find_format(source);
  if (!type) throw Error("source is '" + source + "'; expected f32, bf16 or f16");
  o.source = *type;
  o.hadamard = hadamard;
  const std::optional<io::Tensor> word = tensor_of("global_scale", global);
  auto made = std::make_shared<QuantizedTensor>();
  made->scaled = golden::import_quantized(to_tensor("codes", codes), to_tensor("block_scales", scales),
                                          word ? &*word : nullptr, o);
  made->shape = golden::matrix_shape(made->scaled);
  return made;
}

void save(const Held &t, const std::string &path, const std::string &name) {
  QuantizedTensor named = *t;
  named.name = name;
  io::write_tensors(path, golden::to_file(named));
}

Held load(const std::string &path) {
  return std::make_shared<QuantizedTensor>(golden::quantized_tensor(io::read_tensors(path)));
}

} // namespace

void bind_quantize(Module &m) {
  m.def<quantize_plan>("quantize_plan",
                       "convention block block axis rounding seed offset hadamard scale_layout "
                       "global_amax global_scale threads");
  m.def<quantize_array>("quantize", "x stride plan progress");
  m.def<describe>("describe", "plan dtype shape");
  m.def<filled>("filled", "described codes block_scales globals");
  m.def<names>("names", "tensor");
  m.def<numbers>("numbers", "tensor");
  m.def<parts>("parts", "tensor");
  m.def<values>("values", "tensor keep_rotation threads progress");
  m.def<statistics>("statistics", "tensor x stride threads progress");
  m.def<from_parts>("from_parts",
                    "codes block_scales global_scale convention global_is scale_layout nibbles unpacked k "
                    "block_rows axis source hadamard");
  m.def<save>("save", "tensor path name");
  m.def<load>("load", "path");
}

} // namespace nvfp4::python
