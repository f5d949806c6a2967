// SPDX-License-Identifier: Apache-2.0
// Is an output what the hardware gives, is a quantizer what it says it is, are two tensors or files equal?
#include "nvfp4/golden/comparison/compare_files.hpp"
#include "nvfp4/golden/diagnosis/problem_tensors.hpp"
#include "nvfp4/golden/diagnosis/report_text.hpp"
#include "nvfp4/golden/quantized_file.hpp"
#include "tools/environment.hpp"
#include "tools/python/src/arguments.hpp"

namespace nvfp4::python {
namespace {

/// Whether all is equal, the text and the JSON.
using Verdict = std::tuple<bool, std::string, std::string>;

diagnosis::ProblemOperand side_of(const char *name, const OperandArg &operand,
                                  const std::optional<ArrayArg> &source, const Unit &unit, Side side) {
  const io::TensorFile file = operand.file(name);
  if (!source) return diagnosis::read_problem_operand(file, "", nullptr, unit, side);
  const io::TensorFile before = to_file(std::string(name) + "_source", *source);
  return diagnosis::read_problem_operand(file, "", &before, unit, side);
}

Verdict check(const ArrayArg &d, const OperandArg &a, const OperandArg &b, const std::string &unit,
              const std::optional<ArrayArg> &c, float alpha, float beta, const std::string &alpha_rule,
              const std::optional<std::string> &out, const std::string &accumulation,
              const std::optional<ArrayArg> &a_source, const std::optional<ArrayArg> &b_source,
              int64_t sample, bool pairs, bool full, bool trace, int threads, const Progress &progress) {
  expect_finite("alpha", alpha);
  expect_finite("beta", beta);
  diagnosis::Problem p;
  p.unit = &find_unit(unit);
  p.accumulation = parse_enum<Accumulation>(accumulation);
  p.a = side_of("a", a, a_source, *p.unit, Side::a);
  p.b = side_of("b", b, b_source, *p.unit, Side::b);
  p.alpha = alpha;
  p.beta = beta;
  p.alpha_rule = parse_enum<AlphaRule>(alpha_rule);
  p.threads = threads;
  p.isa = tool::asked_isa();
  if (c) p.c = golden::read_c(to_file("c", *c), "", "C", p.unit->rule.acc, p.m(), p.n());
  const std::vector<uint8_t> words = diagnosis::read_output(to_file("d", d), "", out.value_or(""), p);
  diagnosis::DiagnoseOptions o;
  o.sample = sample;
  if (pairs) o.pair_cost = 1e9; // seconds: all of them
  if (full) o.check_cost = 1e12;
  o.progress = progress;
  const diagnosis::Report r = diagnosis::diagnose(p, words, o);
  return {r.comparison.equal(), report_text(p, r, trace), report_json(p, r, trace)};
}

Verdict check_quantized(const std::shared_ptr<QuantizedTensor> &mine, const ArrayArg &source,
                        const std::optional<std::string> &convention, std::optional<float> amax, int threads,
                        const Progress &progress) {
  if (amax) expect_finite("global_amax", *amax, true);
  diagnosis::QuantizerProblem p;
  p.mine = mine->scaled;
  p.convention = &find_convention(convention.value_or(p.mine.convention));
  p.rounding = mine->rounding;
  p.key = mine->key;
  p.global_amax = amax;
  golden::DenseMatrix m = golden::to_matrix(to_tensor("source", source), "");
  p.source = {m.rows, m.cols, std::move(m.values)};
  p.threads = threads;
  p.isa = tool::asked_isa();
  p.progress = progress;
  const diagnosis::QuantizerReport r = diagnosis::check_quantizer(p);
  return {r.equal(), report_text(p, r), report_json(p, r)};
}

Verdict verdict(const golden::FileComparison &c, bool all) {
  return {c.equal(), golden::to_text(c, all), golden::to_json(c)};
}

Verdict compare_files(const std::string &a, const std::string &b, const std::string &a_tensor,
                      const std::string &b_tensor, bool all, const Progress &progress) {
  return verdict(golden::compare_files(a, b, {a_tensor, b_tensor, progress}), all);
}

Verdict compare_quantized(const std::shared_ptr<QuantizedTensor> &a,
                          const std::shared_ptr<QuantizedTensor> &b, bool all, const Progress &progress) {
  golden::FileComparison c{"a", "b"};
  c.parts = golden::compare_quantized(a->scaled, b->scaled, progress);
  return verdict(c, all);
}

Verdict compare_arrays(const ArrayArg &a, const ArrayArg &b, bool all, const Progress &progress) {
  golden::FileComparison c{"a", "b"};
  c.parts.push_back(golden::compare_tensors(to_tensor("data", a), to_tensor("data", b), progress));
  return verdict(c, all);
}

} // namespace

void bind_check(Module &m) {
  m.def<check>("check",
               "d a b unit c alpha beta alpha_rule out accumulation a_source b_source sample pairs full "
               "trace threads progress");
  m.def<check_quantized>("check_quantized", "mine source convention global_amax threads progress");
  m.def<compare_files>("compare_files", "a b a_tensor b_tensor all progress");
  m.def<compare_quantized>("compare_quantized", "a b all progress");
  m.def<compare_arrays>("compare_arrays", "a b all progress");
}

} // namespace nvfp4::python
