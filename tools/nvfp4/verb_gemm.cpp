// SPDX-License-Identifier: Apache-2.0
// nvfp4 gemm: D = alpha * A * B^T + beta * C in the exact arithmetic of one unit.
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/sha256.hpp"
#include "tools/nvfp4/numbers.hpp"
#include "tools/nvfp4/operand.hpp"
#include "tools/nvfp4/paths.hpp"
#include "tools/environment.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <algorithm>
#include <cstring>
#include <fmt/core.h>
#include <memory>
#include <nlohmann/json.hpp>

namespace nvfp4::tool {
namespace {

struct Options : GemmFlags {
  std::string out, type = "f32", start, bias, row_factors, column_factors, row_scales, column_scales;
  std::vector<int64_t> groups;
  bool exact = false, json = false;
  int threads = 0;
};

/// The inputs of the epilogue and where chains start, as read from files.
struct Inputs {
  std::vector<uint8_t> start, c;
  std::vector<float> bias, row_factors, column_factors;

  Inputs(const Options &o, FormatId acc, int64_t m, int64_t n) {
    if (!o.start.empty()) start = read_accumulators(o.start, acc, m, n);
    if (o.beta != 0.0f) c = read_c(o.c, o.c_tensor, "C", acc, m, n);
    if (!o.bias.empty()) bias = read_vector(o.bias, "bias", n);
    if (!o.row_factors.empty()) row_factors = read_vector(o.row_factors, "row factors", m);
    if (!o.column_factors.empty()) column_factors = read_vector(o.column_factors, "column factors", n);
  }
  [[nodiscard]] GemmInputs view() const { return {start, c, bias, row_factors, column_factors}; }
};

int run(const Options &o) {
  const std::string output = output_path(o.out, o.json);
  const Unit &unit = find_unit(o.unit);
  GemmOperand a = read_operand(o.a, o.a_tensor, unit, Side::a).packed,
              b = read_operand(o.b, o.b_tensor, unit, Side::b).packed;
  if (!o.row_scales.empty()) a.set_parts(parse_ranges(o.row_scales, "--row-scales"));
  if (!o.column_scales.empty()) b.set_parts(parse_ranges(o.column_scales, "--column-scales"));
  GemmOptions options;
  options.alpha = o.alpha;
  options.beta = o.beta;
  options.accumulation = parse_enum<Accumulation>(o.accumulation);
  options.alpha_rule = alpha_rules().at(o.alpha_rule);
  options.oracle = o.exact;
  options.threads = o.threads;
  options.isa = asked_isa();
  options.out = unit.rule.acc == FormatId::f64 && o.type == "f32" ? FormatId::f64 : *find_format(o.type);
  options.groups = o.groups;
  Progress progress("gemm");
  options.progress = [&](double f) { progress.show(f); };
  check_epilogue(o);
  const GemmPlan plan(unit, options);
  const int64_t groups = std::max<int64_t>(1, int64_t(o.groups.size()));
  const Inputs inputs(o, unit.rule.acc, a.rows, b.rows / groups);
  const GemmResult d = plan.run(a, b, inputs.view());
  progress.done();

  const io::DType dtype = d.format == FormatId::f32    ? io::DType::f32
                          : d.format == FormatId::bf16 ? io::DType::bf16
                          : d.format == FormatId::f16  ? io::DType::f16
                                                       : io::DType::f64;
  io::Tensor t{"d", dtype, {d.m, d.n}, std::vector<std::byte>(d.words.size())};
  if (!d.words.empty()) std::memcpy(t.data.data(), d.words.data(), d.words.size());
  io::TensorFile file;
  file.tensors.push_back(std::move(t));
  file.metadata = {{"unit", unit.name()}, {"evidence", std::string(to_string(unit.evidence))}};
  if (a.parts.empty() && b.parts.empty())
    file.metadata["alpha"] =
        fmt::format("{:a}", global_alpha(a.global, b.global, o.alpha, options.alpha_rule));
  if (unit.rule.family == Family::gst_fdpa) file.metadata["accumulation"] = o.accumulation;
  const std::string digest = io::sha256_hex(file.tensors.front().data);
  io::write_tensors(output, file);
  if (o.json)
    fmt::print("{}\n", nlohmann::ordered_json{{"m", d.m},
                                              {"n", d.n},
                                              {"k", a.k},
                                              {"unit", unit.name()},
                                              {"evidence", to_string(unit.evidence)},
                                              {"sha256", digest},
                                              {"output", o.out},
                                              {"engine", to_string(d.report.engine)},
                                              {"isa", to_string(d.report.isa)},
                                              {"by_definition", d.report.by_definition}}
                           .dump());
  else if (!is_standard_output(o.out))
    fmt::print("{} engine on {}; {} of {} outputs by the definition\n", to_string(d.report.engine),
               to_string(d.report.isa), d.report.by_definition, d.m * d.n);
  return kEqual;
}

} // namespace

void register_gemm(Command &app, int &exit_code) {
  Command *verb = app.add_subcommand("gemm", "D = alpha * A * B^T + beta * C in a unit's exact arithmetic");
  auto o = std::make_shared<Options>();
  verb->add_option("a", o->a, "A (M, K): written by nvfp4 quantize, or dense; - is standard input")->required();
  verb->add_option("b", o->b, "B (N, K): likewise")->required();
  verb->add_option("-o,--output", o->out, "Output .npy or .safetensors; holds d (M, N); - is standard output")->required();
  verb->add_option("--unit", o->unit, "ARCH:INSTRUCTION (nvfp4 info --units), or a product and what it multiplies: B200, RTX5090:mxfp4, H100:bf16")->required();
  verb->add_option("--out", o->type, "f32, bf16 or f16")->check(OneOf{{"f32", "bf16", "f16", "f64"}});
  add_fp32(*verb, "--alpha", o->alpha,
           "Factor of A * B^T; the global scales of quantized operands come on top");
  verb->add_option(
          "--alpha-rule", o->alpha_rule,
          "How global scales meet: by_convention (default), mul_const (TransformerEngine), div, sdec_product")
      ->check(alpha_rule_names());
  add_fp32(*verb, "--beta", o->beta, "Factor of C");
  verb->add_option("--c", o->c, "C (M, N), F32, BF16 or F16");
  verb->add_option(
      "--accumulate", o->start,
      "Accumulators (M, N) that the chains continue, of the unit's accumulator type; without: from zero");
  verb->add_option("--bias", o->bias, "Bias (N), added before the output is rounded");
  verb->add_option("--row-factors", o->row_factors, "Factors (M) of the rows of D, applied before the bias");
  verb->add_option("--column-factors", o->column_factors, "Factors (N) of the columns of D, likewise");
  verb->add_option(
      "--row-scales", o->row_scales,
      "Global decode scales of ranges of A's rows, FIRST:LAST=SCALE,...: in place of the file's");
  verb->add_option("--column-scales", o->column_scales,
                   "The same for B's rows, D's columns: shards that were quantized one by one, or experts");
  verb->add_option("--groups", o->groups,
                   "Rows of A per group, 3,0,5: B stacks a block of N rows per group; D is (M, N)")
      ->delimiter(',');
  verb->add_option("--a-tensor", o->a_tensor, "Which tensor of A's file");
  verb->add_option("--b-tensor", o->b_tensor, "Which tensor of B's file");
  verb->add_option("--c-tensor", o->c_tensor, "Which tensor of C's file");
  verb->add_option("--accumulation", o->accumulation,
                   "FP4 accumulation model (default mmasim): " + name_list<Accumulation>());
  verb->add_flag("--exact", o->exact, "Compute with the multiprecision oracle (slow, same bits)");
  add_threads(*verb, o->threads);
  verb->add_flag("--json", o->json, "One line of JSON about the result, with the sha256 of its words");
  verb->footer("Example: nvfp4 gemm x.q.safetensors w.q.safetensors -o d.npy --unit "
               "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16 --out f32");
  verb->callback([o, &exit_code] { exit_code = run(*o); });
}

} // namespace nvfp4::tool
