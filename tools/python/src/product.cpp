// SPDX-License-Identifier: Apache-2.0
// Conversions, dot products and matrix products.
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/golden/convert_tensor.hpp"
#include "nvfp4/golden/dot_products.hpp"
#include "tools/environment.hpp"
#include "tools/python/src/arguments.hpp"

namespace nvfp4::python {
namespace {

/// The result, and how many NaN and Inf went in and came out.
std::tuple<ArrayResult, std::vector<int64_t>> convert(const ArrayArg &x, const std::string &cvt,
                                                      bool as_values, const Progress &progress) {
  auto [tensor, n] = golden::convert_tensor(find_conversion(cvt), to_tensor("x", x), "", as_values, progress);
  return {give(std::move(tensor)), {n.nan_in, n.infinity_in, n.nan_out, n.infinity_out}};
}

/// The same into a format of one's own.
std::tuple<ArrayResult, std::vector<int64_t>> convert_to(const ArrayArg &x, const std::string &to, const std::string &rounding,
                                                         bool saturate, uint64_t seed, uint64_t offset, bool as_values,
                                                         const Progress &progress) {
  const golden::NumberConversion conversion{parse_number_format(to), parse_enum<NumberRounding>(rounding), saturate,
                                            {seed, offset}};
  auto [tensor, n] = golden::convert_tensor(conversion, to_tensor("x", x), "", as_values, progress);
  return {give(std::move(tensor)), {n.nan_in, n.infinity_in, n.nan_out, n.infinity_out}};
}

ArrayResult mma(const std::string &unit, const std::map<std::string, ArrayArg> &operands,
                const std::string &accumulation, bool exact, const Progress &progress) {
  io::TensorFile in;
  in.source = "mma";
  for (const auto &[name, array] : operands) in.tensors.push_back(to_tensor(name, array));
  golden::DotProducts d =
      golden::dot_products(find_unit(unit), in, parse_enum<Accumulation>(accumulation), exact, progress);
  return give(std::move(d.file.tensors.front()));
}

/// first, last, decode scale
using Ranges = std::vector<std::tuple<int64_t, int64_t, float>>;

void set_parts(GemmOperand &operand, const Ranges &ranges) {
  if (ranges.empty()) return;
  std::vector<RowsFactor> parts;
  for (const auto &[first, last, decode] : ranges) {
    RowsFactor &part = parts.emplace_back(RowsFactor{first, last, {}});
    part.factor.decode = decode;
  }
  operand.set_parts(std::move(parts));
}

/// Arrays that a product may meet: start, C, bias, row and column factors.
using Extras = std::tuple<std::optional<ArrayArg>, std::optional<ArrayArg>, std::optional<ArrayArg>,
                          std::optional<ArrayArg>, std::optional<ArrayArg>>;
/// D, engine, instruction set, outputs by the definition.
using Product = std::tuple<ArrayResult, std::string, std::string, int64_t>;

Product gemm(const OperandArg &a_arg, const OperandArg &b_arg, const std::string &unit_name,
             const std::string &out, float alpha, float beta, const std::string &accumulation, bool exact,
             const std::string &alpha_rule, int threads, const std::vector<int64_t> &groups,
             const Ranges &row_scales, const Ranges &column_scales, const Extras &extras,
             const Progress &progress) {
  expect_finite("alpha", alpha);
  expect_finite("beta", beta);
  const Unit &unit = find_unit(unit_name);
  GemmOperand a = a_arg.make("a", unit, Side::a), b = b_arg.make("b", unit, Side::b);
  set_parts(a, row_scales);
  set_parts(b, column_scales);
  GemmOptions o;
  o.alpha = alpha;
  o.beta = beta;
  o.accumulation = parse_enum<Accumulation>(accumulation);
  o.alpha_rule = parse_enum<AlphaRule>(alpha_rule);
  o.oracle = exact;
  o.threads = threads;
  o.isa = tool::asked_isa();
  const std::optional<FormatId> asked = find_format(out);
  if (!asked) throw Error("out is '" + out + "'; expected f32, bf16, f16 or f64");
  const FormatId acc = unit.rule.acc;
  o.out = acc == FormatId::f64 && *asked == FormatId::f32 ? FormatId::f64 : *asked;
  o.groups = groups;
  o.progress = progress;
  const GemmPlan plan(unit, o);
  const int64_t m = a.rows, n = b.rows / std::max<int64_t>(1, int64_t(groups.size()));
  const auto &[start_arg, c_arg, bias_arg, rows_arg, columns_arg] = extras;
  std::vector<uint8_t> start, c;
  std::vector<float> bias, row_factors, column_factors;
  if (start_arg) start = golden::read_accumulators(to_file("accumulate", *start_arg), acc, m, n);
  if (c_arg) c = golden::read_c(to_file("c", *c_arg), "", "C", acc, m, n);
  if (bias_arg) bias = golden::read_vector(to_file("bias", *bias_arg), "bias", n);
  if (rows_arg) row_factors = golden::read_vector(to_file("row_factors", *rows_arg), "row factors", m);
  if (columns_arg)
    column_factors = golden::read_vector(to_file("column_factors", *columns_arg), "column factors", n);
  GemmResult d = plan.run(a, b, {start, c, bias, row_factors, column_factors});
  const char *const dtype = d.format == FormatId::f32    ? "F32"
                            : d.format == FormatId::bf16 ? "BF16"
                            : d.format == FormatId::f16  ? "F16"
                                                         : "F64";
  return {{dtype, {d.m, d.n}, give(std::move(d.words))},
          to_string(d.report.engine),
          std::string(to_string(d.report.isa)),
          d.report.by_definition};
}

} // namespace

void bind_product(Module &m) {
  m.def<convert>("convert", "x cvt values progress");
  m.def<convert_to>("convert_to", "x to rounding saturate seed offset values progress");
  m.def<mma>("mma", "unit operands accumulation exact progress");
  m.def<gemm>("gemm",
              "a b unit out alpha beta accumulation exact alpha_rule threads groups row_scales column_scales "
              "arrays progress");
}

} // namespace nvfp4::python
