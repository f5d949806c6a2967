// SPDX-License-Identifier: Apache-2.0
// Quantization, dequantization and products of tensors in a GPU's memory, on the caller's stream: no value
// goes through the host, and the host waits for nothing. Memory is Python's, in and out; what a product
// cannot do here is said before it begins, and the caller computes it on the CPU.
#include "nvfp4/golden/quantized_file.hpp"
#include "nvfp4/gpu/emulated/quantize.hpp"
#include "tools/python/src/arguments.hpp"

#include <mutex>

namespace nvfp4::python {
namespace {

using Held = std::shared_ptr<QuantizedTensor>;
using cuda::DeviceBlockScaled;

/// What calls on one stream use one after the other. It stays until the process ends, when the driver takes
/// the memory back.
struct Scratch {
  std::mutex turn;
  DeviceBlockScaled a, b;
  cuda::GemmWorkspace products;
  cuda::DeviceBuffer accumulators, alpha, scales_a, scales_b;
};

Scratch &scratch_of(cudaStream_t stream) {
  static std::mutex mutex;
  static auto &all = *new std::map<std::pair<int, cudaStream_t>, Scratch>;
  int device = 0;
  cuda::check(cudaGetDevice(&device), "cudaGetDevice");
  const std::lock_guard lock(mutex);
  return all[{device, stream}];
}

cudaStream_t stream_of(uint64_t handle) { return reinterpret_cast<cudaStream_t>(uintptr_t(handle)); }
template <class T> T *memory(const Address &a) { return reinterpret_cast<T *>(a.data); }

static_assert(sizeof(GlobalScale) == 12, "amax, encode and decode scale, as Python lays them out");
/// A described tensor, and codes, scales, globals in device memory.
using DeviceTensor = std::tuple<Held, Address, Address, Address>;

int64_t scale_bytes(const BlockScaled &q) {
  return q.layout == ScaleLayout::linear ? q.rows * q.scale_cols() : scale_size_128x4(q.rows, q.scale_cols());
}

/// Makes `out` that tensor.
void take(const DeviceTensor &tensor, DeviceBlockScaled &out) {
  const auto &[described, codes, scales, globals] = tensor;
  const BlockScaled &q = described->scaled;
  out.info = q;
  out.per_row = find_convention(q.convention).rule.per_row;
  out.codes.borrow(codes.data, q.rows * q.row_bytes());
  out.scales.borrow(scales.data, scale_bytes(q));
  out.globals.borrow(globals.data,
                     std::max<int64_t>(out.per_row ? q.rows : 1, 1) * int64_t(sizeof(GlobalScale)));
}

/// x: FP32, (rows, cols) as the tensor's shape has them, `stride` elements from row to row.
void quantize(const std::shared_ptr<QuantizePlan> &plan, Address x, int64_t stride,
              const DeviceTensor &tensor, uint64_t stream) {
  const QuantizedTensor &described = *std::get<0>(tensor);
  QuantizeOptions o = plan->options;
  o.source = described.scaled.source;
  Scratch &s = scratch_of(stream_of(stream));
  const std::lock_guard lock(s.turn);
  take(tensor, s.a);
  cuda::quantize(memory<const float>(x), rows_of(described.shape), described.shape.back(), stride,
                 *plan->convention, o, s.a, stream_of(stream));
}

void dequantize(const DeviceTensor &tensor, bool undo_hadamard, Address out, uint64_t stream) {
  Scratch &s = scratch_of(stream_of(stream));
  const std::lock_guard lock(s.turn);
  take(tensor, s.a);
  cuda::dequantize(s.a, undo_hadamard, memory<float>(out), stream_of(stream));
}

/// One side of a product: a quantized tensor, or words of a dense matrix.
struct OperandOnDevice {
  std::optional<DeviceTensor> quantized;
  ArrayArg dense;
};

/// A product that runs here.
struct Product {
  const Unit *unit;
  OperandOnDevice a, b;
  int64_t m, n;
  cuda::GemmOutput output;
  Accumulation accumulation;
  cuda::OutputVectors vectors;
};

/// C, bias, row and column factors.
using Extras = std::tuple<std::optional<ArrayArg>, std::optional<ArrayArg>, std::optional<ArrayArg>,
                          std::optional<ArrayArg>>;

/// A dense operand as it lies, where its words are the unit's and nothing is converted.
std::optional<cuda::DeviceOperand> dense_operand(const UnitRule &rule, FormatId element,
                                                 const ArrayArg &array) {
  const auto &[dtype, shape, address] = array;
  const std::optional<FormatId> id = golden::format_of(dtype_named(dtype));
  if (rule.scale_block != 0 || id != element || shape.size() != 2) return std::nullopt;
  if (format(element).storage_bits == 4 && shape[1] % 2 != 0) return std::nullopt;
  return cuda::DeviceOperand{element, shape[0], shape[1], shape[1], memory<const uint8_t>(address), nullptr};
}

/// The operand without rows, which the CPU checks; nothing where the device does not multiply it.
std::optional<GemmOperand> without_rows(const Unit &unit, Side side, const OperandOnDevice &o) {
  if (o.quantized) {
    BlockScaled q = std::get<0>(*o.quantized)->scaled;
    q.rows = 0;
    return make_operand(unit, side, q);
  }
  const FormatId element = side == Side::a ? unit.rule.a : unit.rule.b;
  const std::optional<cuda::DeviceOperand> dense = dense_operand(unit.rule, element, o.dense);
  if (!dense) return std::nullopt;
  return make_operand(unit, side, RawCodes{0, dense->k, {}});
}

int64_t rows_of(const OperandOnDevice &o) {
  return o.quantized ? std::get<0>(*o.quantized)->scaled.rows : std::get<1>(o.dense)[0];
}
bool per_row(const OperandOnDevice &o) {
  return o.quantized && has_row_factors(find_convention(std::get<0>(*o.quantized)->scaled.convention).rule);
}

/// The values of an array that is not there, or has that dtype and shape; false for another.
bool values_of(const std::optional<ArrayArg> &array, const char *dtype, const std::vector<int64_t> &shape,
               const void *&out) {
  if (!array) return true;
  out = std::get<2>(*array).data;
  return std::get<0>(*array) == dtype && std::get<1>(*array) == shape;
}

/// The product and the dtype and shape of its result; nothing for what the CPU computes, or refuses.
std::optional<std::tuple<std::shared_ptr<Product>, std::string, std::vector<int64_t>>>
gemm_plan(const std::optional<DeviceTensor> &a_tensor, const std::optional<DeviceTensor> &b_tensor,
          const std::optional<ArrayArg> &a_dense, const std::optional<ArrayArg> &b_dense,
          const std::string &unit_name, const std::string &out, float alpha, float beta,
          const std::string &accumulation, const Extras &extras) {
  try {
    auto p = std::make_shared<Product>();
    p->unit = &find_unit(unit_name);
    p->a = {a_tensor, a_dense.value_or(ArrayArg{})};
    p->b = {b_tensor, b_dense.value_or(ArrayArg{})};
    p->accumulation = parse_enum<Accumulation>(accumulation);
    expect_finite("alpha", alpha);
    expect_finite("beta", beta);
    const bool f64 = p->unit->rule.acc == FormatId::f64;
    const std::optional<FormatId> asked = find_format(out);
    if (!asked) return std::nullopt;
    p->output.out = f64 && *asked == FormatId::f32 ? FormatId::f64 : *asked;
    p->output.alpha = alpha;
    p->output.beta = beta;
    GemmOptions options;
    options.out = p->output.out;
    (void)GemmPlan(*p->unit, options);
    const auto a = without_rows(*p->unit, Side::a, p->a), b = without_rows(*p->unit, Side::b, p->b);
    if (!a || !b) return std::nullopt;
    check_operands(*p->unit, *a, *b);
    p->m = rows_of(p->a);
    p->n = rows_of(p->b);

    const auto &[c, bias, rows, columns] = extras;
    const void *bias_values = nullptr, *row_values = nullptr, *column_values = nullptr;
    if (!values_of(c, f64 ? "F64" : "F32", {p->m, p->n}, p->output.c) ||
        !values_of(bias, "F32", {p->n}, bias_values) || !values_of(rows, "F32", {p->m}, row_values) ||
        !values_of(columns, "F32", {p->n}, column_values))
      return std::nullopt;
    const bool own = per_row(p->a) || per_row(p->b), given = rows || columns;
    if ((own && given) || (beta != 0.0f && (own || given || !c))) return std::nullopt;
    p->vectors = {static_cast<const float *>(bias_values), static_cast<const float *>(row_values),
                  static_cast<const float *>(column_values), 1, 1};
    const auto own_amax = [](const OperandOnDevice &o) {
      return &memory<const GlobalScale>(std::get<3>(*o.quantized))->amax;
    };
    constexpr int64_t step = sizeof(GlobalScale) / sizeof(float);
    if (per_row(p->a)) p->vectors.row_factors = own_amax(p->a), p->vectors.row_stride = step;
    if (per_row(p->b)) p->vectors.column_factors = own_amax(p->b), p->vectors.column_stride = step;
    const FormatId format = p->output.out;
    return std::tuple{p,
                      std::string(format == FormatId::f32    ? "F32"
                                  : format == FormatId::bf16 ? "BF16"
                                  : format == FormatId::f16  ? "F16"
                                                             : "F64"),
                      std::vector<int64_t>{p->m, p->n}};
  } catch (const Error &) { // what does not fit, in the CPU's words
    return std::nullopt;
  }
}

cuda::DeviceOperand operand_of(const UnitRule &rule, FormatId element, const OperandOnDevice &o,
                               DeviceBlockScaled &held, cuda::DeviceBuffer &scales, cudaStream_t stream) {
  if (!o.quantized) return *dense_operand(rule, element, o.dense);
  take(*o.quantized, held);
  cuda::DeviceOperand operand = held.operand();
  if (held.info.layout != ScaleLayout::linear) {
    scales.reserve(held.info.rows * held.info.scale_cols());
    cuda::linear_scales(held, scales.as<uint8_t>(), stream);
    operand.scales = scales.as<uint8_t>();
  }
  return operand;
}

void gemm(const std::shared_ptr<Product> &p, Address d, uint64_t stream_handle) {
  const cudaStream_t stream = stream_of(stream_handle);
  const UnitRule &rule = p->unit->rule;
  Scratch &s = scratch_of(stream);
  const std::lock_guard lock(s.turn);
  const cuda::DeviceOperand a = operand_of(rule, rule.a, p->a, s.a, s.scales_a, stream),
                            b = operand_of(rule, rule.b, p->b, s.b, s.scales_b, stream);
  cuda::GemmOutput output = p->output;
  output.d = d.data;
  if (p->a.quantized) {
    s.alpha.reserve(sizeof(float));
    cuda::global_alpha(s.a, s.b, output.alpha, s.alpha.as<float>(), stream);
    output.device_alpha = s.alpha.as<float>();
  }
  const cuda::OutputVectors &v = p->vectors;
  if (v.bias == nullptr && v.row_factors == nullptr && v.column_factors == nullptr)
    return cuda::gemm(rule, a, b, output, p->accumulation, s.products, stream);
  s.accumulators.reserve(p->m * p->n * (rule.acc == FormatId::f64 ? 8 : 4));
  cuda::GemmOutput sums;
  sums.d = s.accumulators.as<void>();
  sums.accumulators = true;
  cuda::gemm(rule, a, b, sums, p->accumulation, s.products, stream);
  cuda::finish_accumulators(rule.acc, sums.d, p->m, p->n, output, v, stream);
}

void narrow(Address x, int64_t n, Address y, uint64_t stream) {
  cuda::narrow_to_bf16(memory<const float>(x), n, memory<uint16_t>(y), stream_of(stream));
}

} // namespace

void bind_device(Module &m) {
  m.def<quantize>("quantize", "plan x stride tensor stream");
  m.def<dequantize>("dequantize", "tensor undo_hadamard out stream");
  m.def<gemm_plan>("gemm_plan", "a b a b unit out alpha beta accumulation arrays");
  m.def<gemm>("gemm", "product d stream");
  m.def<narrow>("narrow", "x n y stream");
}

} // namespace nvfp4::python
