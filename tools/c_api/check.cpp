// SPDX-License-Identifier: Apache-2.0
// Comparison and diagnosis from C.
#include "tools/c_api/guard.hpp"
#include "nvfp4/golden/diagnosis/diagnose.hpp"

#include <cstdio>

using namespace nvfp4;
using namespace nvfp4::c_api;
using nvfp4::diagnosis::Comparison;

namespace {

std::string hex(uint64_t word, FormatId type) {
  char text[24];
  std::snprintf(text, sizeof text, "%0*llx", format(type).storage_bits / 4,
                static_cast<unsigned long long>(word));
  return text;
}

std::string summary(const Comparison &c, int64_t cols, FormatId type) {
  if (c.equal()) return "equal: all " + std::to_string(c.total) + " outputs\n";
  return std::to_string(c.differing) + " of " + std::to_string(c.total) + " outputs differ\nfirst at (" +
         std::to_string(c.first / cols) + ", " + std::to_string(c.first % cols) + "): got " +
         hex(c.first_got, type) + ", want " + hex(c.first_want, type) + "\n";
}

nvfp4_status report(const Comparison &c, int64_t cols, nvfp4_difference *difference) {
  if (difference != nullptr)
    *difference = {c.total,     c.differing, c.equal() ? -1 : c.first / cols, c.equal() ? -1 : c.first % cols,
                   c.first_got, c.first_want};
  return c.equal() ? NVFP4_OK : NVFP4_MISMATCH;
}

void add_findings(std::string &text, const char *title, const std::vector<diagnosis::Finding> &findings) {
  for (const diagnosis::Finding &f : findings)
    text += std::string(title) + f.name + ": " + f.title + ". " + f.advice + "\n";
}

diagnosis::ProblemOperand side_of(const nvfp4_operand &o, const Unit &unit, Side side) {
  const GemmOperand made = operand(o, unit, side); // says what does not fit
  if (!scaled(o)) return {diagnosis::raw_operand(made), {}, {}};
  BlockScaled q = block_scaled(o, side == Side::a ? "a" : "b");
  diagnosis::RawOperand raw = diagnosis::raw_operand(q);
  return {std::move(raw), std::move(q), {}};
}

} // namespace

nvfp4_status nvfp4_compare(const char *type, int64_t rows, int64_t cols, const void *got, int64_t got_stride,
                           const void *want, int64_t want_stride, nvfp4_difference *difference, char *text,
                           int64_t text_bytes, nvfp4_message *message) {
  return guarded(message, [&] {
    const FormatId id = format_named(type, "type");
    if (id != FormatId::f32 && id != FormatId::bf16 && id != FormatId::f16 && id != FormatId::f64)
      throw Error(std::string("type is ") + type + "; expected f32, bf16, f16 or f64");
    const int64_t bytes = row_bytes(rows, cols, format(id).storage_bits, "got");
    const Comparison c = diagnosis::compare(id, rows, cols, gather(got, rows, bytes, got_stride, "got"),
                                            gather(want, rows, bytes, want_stride, "want"));
    put(summary(c, cols, id), text, text_bytes);
    return report(c, cols, difference);
  });
}

nvfp4_status nvfp4_check(const nvfp4_product *product, const nvfp4_operand *a, const nvfp4_operand *b,
                         const void *d, int64_t d_stride, nvfp4_difference *difference, char *text,
                         int64_t text_bytes, nvfp4_message *message) {
  return guarded(message, [&] {
    const nvfp4_product &p = given(product, "product");
    if (p.start != nullptr || p.bias != nullptr || p.row_factors != nullptr || p.column_factors != nullptr)
      throw Error("nvfp4_check() takes no start, bias or factors; compare with nvfp4_gemm()'s output by "
                  "nvfp4_compare()");
    if (p.exact != 0) throw Error("nvfp4_check() does not run the oracle; set product.exact to 0");
    diagnosis::Problem problem;
    problem.unit = &unit_of(p);
    const GemmOptions options = options_of(p, *problem.unit);
    problem.accumulation = options.accumulation;
    problem.a = side_of(given(a, "a"), *problem.unit, Side::a);
    problem.b = side_of(given(b, "b"), *problem.unit, Side::b);
    problem.alpha = p.alpha;
    problem.beta = p.beta;
    problem.alpha_rule = options.alpha_rule;
    problem.round = problem.word = options.out;
    problem.threads = p.threads;
    const int64_t m = problem.m(), n = problem.n();
    const int c_bits = problem.unit->rule.acc == FormatId::f64 ? 64 : 32;
    if (p.c != nullptr)
      problem.c = gather(p.c, m, row_bytes(m, n, c_bits, "product.c"), p.c_stride, "product.c");
    const std::vector<uint8_t> words =
        gather(d, m, row_bytes(m, n, format(options.out).storage_bits, "d"), d_stride, "d");

    const diagnosis::Report r = diagnosis::diagnose(problem, words);
    std::string said = summary(r.comparison, n, options.out);
    add_findings(said, "explains all: ", r.candidates);
    if (r.candidates.empty()) add_findings(said, "explains a part: ", r.partial);
    put(said, text, text_bytes);
    return report(r.comparison, n, difference);
  });
}
