// SPDX-License-Identifier: Apache-2.0
// nvfp4 check: is a kernel's output what the hardware arithmetic gives, and if not, which mistake explains
// it.
#include "nvfp4/golden/diagnosis/problem_tensors.hpp"
#include "nvfp4/golden/diagnosis/report_text.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "tools/nvfp4/numbers.hpp"
#include "tools/nvfp4/operand.hpp"
#include "tools/environment.hpp"
#include "tools/nvfp4/verb_check_quantized.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/core.h>
#include <memory>

namespace nvfp4::tool {
namespace {

using namespace diagnosis;

struct Options : GemmFlags {
  std::string d, d_tensor, a_source, b_source, out;
  int64_t sample = 128;
  bool json = false, full = false, pairs = false, trace = false;
  int threads = 0;
};

Problem read_problem(const Options &o) {
  check_epilogue(o);
  Problem p;
  p.unit = &find_unit(o.unit);
  p.accumulation = parse_enum<Accumulation>(o.accumulation);
  const auto side = [&](const std::string &path, const std::string &tensor, const std::string &source, Side which) {
    const io::TensorFile file = io::read_tensors(path);
    if (source.empty()) return read_problem_operand(file, tensor, nullptr, *p.unit, which);
    const io::TensorFile before = io::read_tensors(source);
    return read_problem_operand(file, tensor, &before, *p.unit, which);
  };
  p.a = side(o.a, o.a_tensor, o.a_source, Side::a);
  p.b = side(o.b, o.b_tensor, o.b_source, Side::b);
  p.alpha = o.alpha;
  p.beta = o.beta;
  p.alpha_rule = alpha_rules().at(o.alpha_rule);
  p.threads = o.threads;
  p.isa = asked_isa();
  if (o.beta != 0.0f) p.c = read_c(o.c, o.c_tensor, "C", p.unit->rule.acc, p.m(), p.n());
  return p;
}

int run(const Options &o) {
  Problem p = read_problem(o);
  const std::vector<uint8_t> words = read_output(io::read_tensors(o.d), o.d_tensor, o.out, p);
  DiagnoseOptions options;
  options.sample = o.sample;
  if (o.pairs) options.pair_cost = 1e9;
  if (o.full) options.check_cost = 1e12;
  Progress progress("check");
  options.progress = [&](double f) { progress.show(f); };
  const Report r = diagnose(p, words, options);
  progress.done();
  fmt::print("{}", o.json ? report_json(p, r, o.trace) + "\n"
                          : with_verdict(report_text(p, r, o.trace), r.comparison.equal() ? Verdict::good : Verdict::bad));
  return r.comparison.equal() ? kEqual : kMismatch;
}

} // namespace

void register_check(Command &app, int &exit_code) {
  Command *verb = app.add_subcommand(
      "check", "Is a kernel's output what the hardware arithmetic gives? If not, which mistake explains it");
  auto o = std::make_shared<Options>();
  verb->add_option("--a", o->a, "A (M, K): written by nvfp4 quantize, or dense");
  verb->add_option("--b", o->b, "B (N, K): likewise");
  verb->add_option("--d", o->d, "The kernel's output (M, N), .npy or .safetensors: F32, BF16 or F16");
  verb->add_option("--unit", o->unit, "ARCH:INSTRUCTION that the kernel should use (nvfp4 info --units), or a product and what it multiplies: B200, H100:bf16");
  verb->add_option("--c", o->c, "C (M, N), F32, BF16 or F16");
  add_fp32(*verb, "--alpha", o->alpha,
           "Factor of A * B^T; the global scales of quantized operands come on top");
  add_fp32(*verb, "--beta", o->beta, "Factor of C");
  verb->add_option(
          "--alpha-rule", o->alpha_rule,
          "How global scales meet: by_convention (default), mul_const (TransformerEngine), div, sdec_product")
      ->check(alpha_rule_names());
  verb->add_option("--out", o->out,
                   "Type to which the epilogue rounds (default: D's); bf16 and f16 also where D is F32")
      ->check(OneOf{{"f32", "bf16", "f16"}});
  verb->add_option("--accumulation", o->accumulation,
                   "FP4 accumulation model (default mmasim): " + name_list<Accumulation>());
  verb->add_option("--a-source", o->a_source, "A before quantization: other quantizers are tried too");
  verb->add_option("--b-source", o->b_source, "B before quantization: likewise");
  verb->add_option("--a-tensor", o->a_tensor, "Which tensor of A's file");
  verb->add_option("--b-tensor", o->b_tensor, "Which tensor of B's file");
  verb->add_option("--c-tensor", o->c_tensor, "Which tensor of C's file");
  verb->add_option("--d-tensor", o->d_tensor, "Which tensor of D's file");
  verb->add_option("--sample", o->sample,
                   "Rows and columns on which each mistake is tried (default 128); what explains them is "
                   "verified on all outputs")
      ->check(Range{4, 65536});
  verb->add_flag("--pairs", o->pairs, "Where no single mistake explains D, try all pairs (slow); without it, those that are cheap to try");
  verb->add_flag("--full", o->full,
                 "Compute every output under an explanation of the sample, however long it takes");
  verb->add_flag("--trace", o->trace,
                 "Show the expected accumulator of the first differing output step by step");
  add_threads(*verb, o->threads);
  verb->add_flag("--json", o->json, "One line of JSON");
  verb->footer("Exit code 0: every word is equal; 1: some differ; 2: bad input.\n"
               "Example: nvfp4 check --a x.q.safetensors --b w.q.safetensors --d kernel_output.npy --unit "
               "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16\n"
               "Example: nvfp4 check --quantized mine.safetensors --source x.npy --convention te");
  auto quantized = std::make_shared<QuantizedCheck>();
  add_quantized_options(*verb, *quantized);
  verb->callback([o, quantized, &exit_code] {
    if (!quantized->mine.empty()) {
      exit_code = check_quantized(*quantized, o->threads, o->json);
      return;
    }
    for (const auto &[flag, text] : {std::pair{"--a", &o->a}, {"--b", &o->b}, {"--d", &o->d}, {"--unit", &o->unit}})
      if (text->empty())
        throw Error(std::string("check: ") + flag + " is required; for a quantizer give --quantized and --source");
    exit_code = run(*o);
  });
}

} // namespace nvfp4::tool
