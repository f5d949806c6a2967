// SPDX-License-Identifier: Apache-2.0
// nvfp4 gemm: D = alpha * A * B^T + beta * C in the exact arithmetic of one unit.
#include "nvfp4/emulator/formats/codec.hpp"
#include "nvfp4/emulator/gemm/gemm.hpp"
#include "nvfp4/emulator/tensorcore/accumulation.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/io/sha256.hpp"
#include "tools/nvfp4/operand.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/core.h>
#include <memory>
#include <nlohmann/json.hpp>

namespace nvfp4::tool {
namespace {

struct Options : GemmFlags {
  std::string out, type = "f32";
  bool exact = false, json = false;
  int threads = 0;
};

/// Per-row global scales (the row-scaled convention) multiply the FP32 result after the GEMM.
void apply_row_amax(GemmResult &d, const Operand &a, const Operand &b, FormatId out) {
  const auto rows = [](const Operand &o) -> const std::vector<float> * {
    return o.scaled && !o.scaled->row_amax.empty() ? &o.scaled->row_amax : nullptr;
  };
  const std::vector<float> *left = rows(a), *right = rows(b);
  const size_t width = size_t(format(out).storage_bits / 8);
  std::vector<uint8_t> words(size_t(d.m * d.n) * width);
  for (int64_t i = 0; i < d.m; ++i)
    for (int64_t j = 0; j < d.n; ++j) {
      const float scale = left != nullptr && right != nullptr ? (*left)[size_t(i)] * (*right)[size_t(j)]
                          : left != nullptr                   ? (*left)[size_t(i)]
                                                              : (*right)[size_t(j)];
      const uint64_t word = encode(out, d.f32(i, j) * scale, Rounding::nearest_even, Overflow::ieee);
      std::memcpy(words.data() + size_t(i * d.n + j) * width, &word, width);
    }
  d.words = std::move(words);
  d.format = out;
}

int run(const Options &o) {
  const Unit &unit = find_unit(o.unit);
  const Operand a = read_operand(o.a, o.a_tensor, unit, Side::a),
                b = read_operand(o.b, o.b_tensor, unit, Side::b);
  GemmOptions options;
  options.beta = o.beta;
  options.accumulation = parse_accumulation(o.accumulation);
  options.oracle = o.exact;
  options.threads = o.threads;
  options.out = unit.rule.acc == FormatId::f64 && o.type == "f32" ? FormatId::f64 : *find_format(o.type);
  options.alpha = a.scaled && b.scaled
                      ? global_alpha(*a.scaled, *b.scaled, o.alpha, alpha_rules().at(o.alpha_rule))
                      : o.alpha;
  check_epilogue(o);
  check_operands(o, a.scaled, b.scaled);
  const bool per_row = (a.scaled && !a.scaled->row_amax.empty()) || (b.scaled && !b.scaled->row_amax.empty());

  std::vector<uint8_t> c;
  if (o.beta != 0.0f) c = read_c(o, unit.rule.acc, a.packed.rows, b.packed.rows);
  const FormatId out = options.out;
  (void)GemmPlan(unit, options); // refuses an output type that the unit does not write
  if (per_row) options.out = FormatId::f32;
  GemmResult d =
      GemmPlan(unit, options).run(a.packed, b.packed, c, [](double f) { show_progress("gemm", f); });
  if (per_row) apply_row_amax(d, a, b, out);

  const io::DType dtype = d.format == FormatId::f32    ? io::DType::f32
                          : d.format == FormatId::bf16 ? io::DType::bf16
                          : d.format == FormatId::f16  ? io::DType::f16
                                                       : io::DType::f64;
  io::Tensor t{"d", dtype, {d.m, d.n}, std::vector<std::byte>(d.words.size())};
  if (!d.words.empty()) std::memcpy(t.data.data(), d.words.data(), d.words.size());
  io::TensorFile file;
  file.tensors.push_back(std::move(t));
  file.metadata = {{"unit", unit.name()},
                   {"evidence", std::string(to_string(unit.evidence))},
                   {"alpha", fmt::format("{:a}", options.alpha)}};
  if (unit.rule.family == Family::gst_fdpa) file.metadata["accumulation"] = o.accumulation;
  const std::string digest = io::sha256_hex(file.tensors.front().data);
  io::write_tensors(o.out, file);
  if (o.json)
    fmt::print("{}\n", nlohmann::ordered_json{{"m", d.m},
                                              {"n", d.n},
                                              {"k", a.scaled ? a.scaled->k : a.packed.k},
                                              {"unit", unit.name()},
                                              {"evidence", to_string(unit.evidence)},
                                              {"sha256", digest},
                                              {"output", o.out}}
                           .dump());
  return kEqual;
}

} // namespace

void register_gemm(CLI::App &app, int &exit_code) {
  CLI::App *verb = app.add_subcommand("gemm", "D = alpha * A * B^T + beta * C in a unit's exact arithmetic");
  auto o = std::make_shared<Options>();
  verb->add_option("a", o->a, "A (M, K): written by nvfp4 quantize, or dense")->required();
  verb->add_option("b", o->b, "B (N, K): likewise")->required();
  verb->add_option("-o,--output", o->out, "Output .npy or .safetensors; holds d (M, N)")->required();
  verb->add_option("--unit", o->unit, "ARCH:INSTRUCTION (nvfp4 info --units)")->required();
  verb->add_option("--out", o->type, "f32, bf16 or f16")->check(CLI::IsMember({"f32", "bf16", "f16", "f64"}));
  verb->add_option("--alpha", o->alpha,
                   "Factor of A * B^T; the global scales of quantized operands come on top");
  verb->add_option(
          "--alpha-rule", o->alpha_rule,
          "How global scales meet: by_convention (default), mul_const (TransformerEngine), div, sdec_product")
      ->check(CLI::IsMember(alpha_rules()));
  verb->add_option("--beta", o->beta, "Factor of C");
  verb->add_option("--c", o->c, "C (M, N), F32, BF16 or F16");
  verb->add_option("--a-tensor", o->a_tensor, "Which tensor of A's file");
  verb->add_option("--b-tensor", o->b_tensor, "Which tensor of B's file");
  verb->add_option("--c-tensor", o->c_tensor, "Which tensor of C's file");
  verb->add_option("--accumulation", o->accumulation,
                   "FP4 accumulation model: mmasim (default), nadpe, exact");
  verb->add_flag("--exact", o->exact, "Compute with the multiprecision oracle (slow, same bits)");
  verb->add_option("--threads", o->threads, "Threads (default: all); the bits do not depend on it")
      ->check(CLI::Range(1, 1024));
  verb->add_flag("--json", o->json, "One line of JSON about the result, with the sha256 of its words");
  verb->footer("Example: nvfp4 gemm x.q.safetensors w.q.safetensors -o d.npy --unit "
               "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16 --out f32");
  verb->callback([o, &exit_code] { exit_code = run(*o); });
}

} // namespace nvfp4::tool
