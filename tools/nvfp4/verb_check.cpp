// SPDX-License-Identifier: Apache-2.0
// nvfp4 check: is a kernel's output what the hardware arithmetic gives, and if not, which mistake explains
// it.
#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/tensorcore/unit.hpp"
#include "nvfp4/golden/diagnosis/diagnose.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/quantized_file.hpp"
#include "tools/nvfp4/numbers.hpp"
#include "tools/nvfp4/operand.hpp"
#include "tools/environment.hpp"
#include "tools/nvfp4/verb_check_quantized.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/core.h>
#include <memory>
#include <nlohmann/json.hpp>

namespace nvfp4::tool {
namespace {

using namespace diagnosis;
using Json = nlohmann::ordered_json;

struct Options : GemmFlags {
  std::string d, d_tensor, a_source, b_source, out;
  int64_t sample = 128;
  bool json = false, full = false, pairs = false, trace = false;
  int threads = 0;
};

ProblemOperand read_side(const std::string &path, const std::string &tensor, const std::string &source,
                         const Unit &unit, Side side) {
  Operand o = read_operand(path, tensor, unit, side);
  ProblemOperand p{
      o.scaled ? raw_operand(*o.scaled) : raw_operand(o.packed), std::move(o.scaled), {}};
  if (source.empty()) return p;
  const std::string flag = side == Side::a ? "--a-source " : "--b-source ";
  if (!p.scaled)
    throw Error(flag + source + ": " + path + " is dense; a source goes with a quantized operand");
  const io::TensorFile file = io::read_tensors(source);
  golden::DenseMatrix m = golden::to_matrix(golden::choose_tensor(file, ""), file.source);
  const bool transposed = p.scaled->axis == Axis::col;
  const int64_t rows = transposed ? p.scaled->k : p.scaled->rows,
                cols = transposed ? p.scaled->rows : p.scaled->k;
  if (m.rows != rows || m.cols != cols)
    throw Error(flag + source + ": is " + std::to_string(m.rows) + " x " + std::to_string(m.cols) + ", " +
                path + " was made from " + std::to_string(rows) + " x " + std::to_string(cols));
  p.source = SourceTensor{m.rows, m.cols, std::move(m.values)};
  return p;
}

/// D's words; sets the problem's types.
std::vector<uint8_t> read_d(const Options &o, Problem &p) {
  const io::TensorFile file = io::read_tensors(o.d);
  const io::Tensor &t = golden::choose_tensor(file, o.d_tensor);
  const std::string where = io::message_prefix(file.source, t.name);
  const std::vector<int64_t> shape{p.m(), p.n()}, swapped{p.n(), p.m()};
  if (t.shape != shape)
    throw Error(where + "D must have shape " + io::shape_text(shape) + ", got " + io::shape_text(t.shape) +
                (t.shape == swapped ? ": exchange --a and --b, or transpose D" : ""));
  const bool f64 = p.unit->rule.acc == FormatId::f64;
  if (f64 && t.dtype == io::DType::f64)
    p.word = FormatId::f64;
  else if (!f64 && t.dtype == io::DType::f32)
    p.word = FormatId::f32;
  else if (!f64 && t.dtype == io::DType::bf16)
    p.word = FormatId::bf16;
  else if (!f64 && t.dtype == io::DType::f16)
    p.word = FormatId::f16;
  else
    throw Error(where + "D of unit " + p.unit->name() + " must be " + (f64 ? "F64" : "F32, BF16 or F16") +
                ", got " + std::string(io::info(t.dtype).safetensors));
  p.round = o.out.empty() ? p.word : *find_format(o.out);
  if (p.round != p.word && (p.word != FormatId::f32 || f64))
    throw Error(where + "D is " + format(p.word).name + ", which does not hold results rounded to " + o.out +
                "; leave --out away");
  const uint8_t *data = reinterpret_cast<const uint8_t *>(t.data.data());
  return {data, data + t.data.size()};
}

Problem read_problem(const Options &o) {
  check_epilogue(o);
  Problem p;
  p.unit = &find_unit(o.unit);
  p.accumulation = parse_enum<Accumulation>(o.accumulation);
  p.a = read_side(o.a, o.a_tensor, o.a_source, *p.unit, Side::a);
  p.b = read_side(o.b, o.b_tensor, o.b_source, *p.unit, Side::b);
  p.alpha = o.alpha;
  p.beta = o.beta;
  p.alpha_rule = alpha_rules().at(o.alpha_rule);
  p.threads = o.threads;
  p.isa = asked_isa();
  if (o.beta != 0.0f) p.c = read_c(o.c, o.c_tensor, "C", p.unit->rule.acc, p.m(), p.n());
  return p;
}

std::string hex(uint64_t word, FormatId type) {
  return fmt::format("{:0{}x}", word, format(type).storage_bits / 4);
}

Json to_json(const Finding &f) {
  Json j = {{"name", f.name},
            {"title", f.title},
            {"advice", f.advice},
            {"topic", to_string(f.topic)},
            {"variant", f.variant},
            {"sampled", f.sampled},
            {"sampled_equal", f.sampled_equal},
            {"finite", f.finite},
            {"explains_all", f.explains_all},
            {"distance", f.distance}};
  if (f.equal >= 0) j["equal"] = f.equal;
  if (!f.leaves.empty()) j["leaves"] = f.leaves;
  if (f.parting)
    j["stage"] = {{"name", to_string(f.parting->stage)}, {"k", f.parting->k}, {"text", f.parting->text}};
  return j;
}

Json to_json(const Fact &f) {
  const auto ranges = [](const Indices &set) {
    Json j = Json::array();
    for (const auto &[first, last] : runs_of(set)) j.push_back({first, last});
    return j;
  };
  Json j = {{"kind", f.kind}, {"text", f.text}, {"outputs", f.outputs}};
  if (!f.rows.empty()) j["rows"] = ranges(f.rows);
  if (!f.cols.empty()) j["columns"] = ranges(f.cols);
  if (f.kind == "factor") j["factor"] = f.factor;
  return j;
}

Json to_json(const std::vector<Finding> &list) {
  Json j = Json::array();
  for (const Finding &f : list) j.push_back(to_json(f));
  return j;
}

void print_json(const Problem &p, const Report &r, bool trace) {
  const Comparison &c = r.comparison;
  Json j = {{"verdict", r.verdict},
            {"equal", c.equal()},
            {"m", p.m()},
            {"n", p.n()},
            {"k", p.a.raw.k},
            {"unit", p.unit->name()},
            {"evidence", to_string(p.unit->evidence)},
            {"type", format(p.word).name},
            {"rounded_to", format(p.round).name},
            {"alpha", r.alpha},
            {"outputs", c.total},
            {"differing", c.differing}};
  if (!c.equal()) {
    j["first"] = {{"i", c.first / p.n()},
                  {"j", c.first % p.n()},
                  {"got", hex(c.first_got, p.word)},
                  {"want", hex(c.first_want, p.word)},
                  {"got_value", value(p.word, c.first_got)},
                  {"want_value", value(p.word, c.first_want)}};
    if (trace) j["first"]["trace"] = r.reference_trace;
    j["rows_hit"] = c.rows_hit;
    j["cols_hit"] = c.cols_hit;
    j["max_ulp"] = c.max_ulp;
    j["mean_ulp"] = c.mean_ulp;
    j["max_relative"] = c.max_relative;
    j["distance"] = c.distance; // null: no finite pair
    j["finite_pairs"] = c.finite_pairs;
    j["zero_signs"] = c.zero_signs;
    j["nan"] = {{"got", c.nan_got}, {"missing", c.nan_missing}, {"other_words", c.nan_words}};
    j["infinities"] = c.infinities;
    for (int b = 0; b < Comparison::kBins; ++b)
      if (c.bins[size_t(b)] != 0) j["distribution"][bin_text(b)] = c.bins[size_t(b)];
    j["facts"] = Json::array();
    for (const Fact &f : r.facts) j["facts"].push_back(to_json(f));
    j["covered_by_facts"] = r.covered;
    if (!r.where.empty()) j["where"] = r.where;
    j["sampled"] = r.sampled;
    j["sampled_equal"] = r.sampled_equal;
    j["candidates"] = to_json(r.candidates);
    j["likely"] = to_json(r.likely);
    j["partial"] = to_json(r.partial);
    j["others"] = to_json(r.others);
    j["no_effect"] = r.no_effect;
    j["tried"] = r.tried;
    j["pairs_tried"] = r.pairs_tried;
    j["next"] = r.next;
  }
  fmt::print("{}\n", j.dump(-1, ' ', false, Json::error_handler_t::replace));
}

double percent(int64_t part, int64_t whole) { return whole == 0 ? 0 : 100.0 * double(part) / double(whole); }

/// A distance, or why there is none.
std::string distance_text(double d) { return d == d ? fmt::format("{:.3g}", d) : "none (no finite pair)"; }

void print_statistics(const Problem &p, const Comparison &c) {
  const int64_t i = c.first / p.n(), j = c.first % p.n();
  fmt::print("{} of {} outputs differ ({:.3f} %), in {} of {} rows and {} of {} columns\n", c.differing,
             c.total, percent(c.differing, c.total), c.rows_hit, p.m(), c.cols_hit, p.n());
  fmt::print("first at ({}, {}): got {} ({:.9g}), want {} ({:.9g})\n", i, j, hex(c.first_got, p.word),
             value(p.word, c.first_got), hex(c.first_want, p.word), value(p.word, c.first_want));
  if (c.finite_pairs != c.total)
    fmt::print("not finite on one side or both: {} outputs, left out of the distances below\n", c.total - c.finite_pairs);
  if (c.finite_pairs != 0) {
    fmt::print("ulp: max {}", c.max_ulp);
    if (c.max_ulp_at >= 0) fmt::print(" at ({}, {})", c.max_ulp_at / p.n(), c.max_ulp_at % p.n());
    if (c.mean_ulp == c.mean_ulp) fmt::print(", mean of differing {:.3f}", c.mean_ulp);
    if (c.max_relative == c.max_relative) fmt::print("; max relative error {:.3g}", c.max_relative);
    fmt::print("; distance {}\n", distance_text(c.distance));
  }
  if (c.nan_got + c.nan_missing + c.nan_words + c.infinities + c.zero_signs != 0)
    fmt::print("NaN for a number {}, number for NaN {}, other NaN words {}, Inf differences {}, zeros of "
               "other sign {}\n",
               c.nan_got, c.nan_missing, c.nan_words, c.infinities, c.zero_signs);
  if (c.finite_pairs == 0) return;
  fmt::print("\n{:>16}  {:>10}\n", "ulp", "outputs");
  for (int b = 0; b < Comparison::kBins; ++b)
    if (c.bins[size_t(b)] != 0) fmt::print("{:>16}  {:>10}\n", bin_text(b), c.bins[size_t(b)]);
}

void print_finding(const Finding &f) {
  fmt::print("  {}: {}\n      {}\n", f.name, f.title, f.advice);
  if (!f.leaves.empty()) fmt::print("      leaves {}\n", f.leaves);
  if (f.parting) {
    fmt::print("      parts at: {}", to_string(f.parting->stage));
    if (f.parting->k >= 0) fmt::print(", k = {}", f.parting->k);
    fmt::print(": {}\n", f.parting->text);
  }
}

/// Nearest first; those whose values are not finite last.
void print_ranking(const Report &r) {
  std::vector<Finding> all = r.partial;
  all.insert(all.end(), r.others.begin(), r.others.end());
  std::stable_sort(all.begin(), all.end(), [](const Finding &x, const Finding &y) {
    if (x.finite != y.finite) return x.finite;
    return x.distance < y.distance;
  });
  fmt::print("\nhow far D is from each mistake, on {} sampled outputs (the expected bits: {} equal)\n{:>10} "
             "{:>9}  mistake\n",
             r.sampled, r.sampled_equal, "distance", "equal");
  constexpr size_t most = 25;
  size_t shown = 0, not_finite = 0;
  for (const Finding &f : all) {
    if (!f.finite) {
      ++not_finite;
    } else if (shown < most) {
      fmt::print("{:>10.3g} {:>8.2f}%  {}\n", f.distance, percent(f.sampled_equal, f.sampled), f.name);
      ++shown;
    }
  }
  const size_t further = all.size() - shown - not_finite;
  if (further != 0) fmt::print("{} more are further away", further);
  if (not_finite != 0) fmt::print("{}{} give values that are not finite", further != 0 ? "; " : "", not_finite);
  if (further + not_finite != 0) fmt::print(" (--json names them)\n");
  if (!r.no_effect.empty())
    fmt::print("{} change no bit of these outputs (--json names them)\n", r.no_effect.size());
}

void print_table(const Problem &p, const Report &r, bool trace) {
  const Comparison &c = r.comparison;
  const std::string verdict = verdict_line(r.verdict, c.equal() ? Verdict::good : Verdict::bad);
  fmt::print("{}\n\nunit {} ({}), [{}, {}] {}, K {}, accumulator times {:.9g}\n", verdict, p.unit->name(),
             to_string(p.unit->evidence), p.m(), p.n(), format(p.word).name, p.a.raw.k, r.alpha);
  if (c.equal()) return;
  print_statistics(p, c);
  if (trace) fmt::print("\nthe expected accumulator of the first differing output\n{}", r.reference_trace);
  if (!r.facts.empty()) fmt::print("\nwhat D looks like\n");
  for (const Fact &f : r.facts) fmt::print("  {} ({} differing outputs)\n", f.text, f.outputs);
  if (r.covered == c.differing) return;
  const bool whole = !r.candidates.empty() && r.candidates[0].explains_all;
  const int64_t outputs = c.total - (whole ? 0 : r.covered);
  if (r.covered != 0 && !whole) fmt::print("  these are left out of what follows: {} differ\n", r.where);
  fmt::print("\n");
  if (!r.candidates.empty()) {
    fmt::print("diagnosis: {} all {} outputs{}\n", r.candidates.size() == 1 ? "explains" : "each of these explains",
               outputs, r.covered != 0 && !whole ? " that are left" : "");
    for (const Finding &f : r.candidates) print_finding(f);
    return;
  }
  if (!r.likely.empty()) {
    fmt::print("diagnosis: {} all {} sampled outputs; all {} would take long to compute (--full does)\n",
               r.likely.size() == 1 ? "explains" : "each of these explains", r.sampled, outputs);
    for (const Finding &f : r.likely) print_finding(f);
    return;
  }
  if (r.by_factor) return;
  fmt::print("nothing that was tried explains all outputs: {} forms of single mistakes, {} of two together{}\n", r.tried,
             r.pairs_tried, r.partial.empty() ? "" : "; these explain more than the expected bits do");
  for (size_t i = 0; i < r.partial.size() && i < 3; ++i) {
    const Finding &f = r.partial[i];
    if (f.equal >= 0)
      fmt::print("explains {:.1f} % of outputs (expected bits: {:.1f} %)\n", percent(f.equal, outputs),
                 percent(c.total - c.differing, outputs));
    else
      fmt::print("explains {:.1f} % of {} sampled outputs (expected bits: {:.1f} %)\n",
                 percent(f.sampled_equal, f.sampled), f.sampled, percent(r.sampled_equal, r.sampled));
    print_finding(f);
  }
  print_ranking(r);
  if (!r.next.empty()) fmt::print("\nwhat would tell more\n");
  for (const std::string &n : r.next) fmt::print("  {}\n", n);
}

int run(const Options &o) {
  Problem p = read_problem(o);
  const std::vector<uint8_t> words = read_d(o, p);
  DiagnoseOptions options;
  options.sample = o.sample;
  if (o.pairs) options.pair_cost = 1e9;
  if (o.full) options.check_cost = 1e12;
  Progress progress("check");
  options.progress = [&](double f) { progress.show(f); };
  const Report r = diagnose(p, words, options);
  progress.done();
  o.json ? print_json(p, r, o.trace) : print_table(p, r, o.trace);
  return r.comparison.equal() ? kEqual : kMismatch;
}

} // namespace

void register_check(CLI::App &app, int &exit_code) {
  CLI::App *verb = app.add_subcommand(
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
      ->check(CLI::IsMember(alpha_rules()));
  verb->add_option("--out", o->out,
                   "Type to which the epilogue rounds (default: D's); bf16 and f16 also where D is F32")
      ->check(CLI::IsMember({"f32", "bf16", "f16"}));
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
      ->check(CLI::Range(4, 65536));
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
