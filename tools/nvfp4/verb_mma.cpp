// SPDX-License-Identifier: Apache-2.0
// nvfp4 mma: n independent dot products on one unit, raw bits in and out.
#include "nvfp4/emulator/gemm/gemm_oracle.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/quantized_file.hpp"
#include "tools/nvfp4/paths.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <atomic>
#include <fmt/core.h>
#include <memory>
#include <nlohmann/json.hpp>

namespace nvfp4::tool {
namespace {

struct Options {
  std::string unit, in, out, accumulation = "mmasim";
  bool exact = false, json = false;
};

const char *word_dtype(int bits) { return bits <= 8 ? "U8" : bits == 16 ? "U16" : bits == 32 ? "U32" : "U64"; }

/// The float dtype of a format, where files have one; raw words are unsigned integers otherwise.
std::string_view float_dtype(FormatId id) {
  switch (id) {
  case FormatId::f16: return "F16";
  case FormatId::bf16: return "BF16";
  case FormatId::f32:
  case FormatId::tf32: return "F32";
  case FormatId::f64: return "F64";
  case FormatId::e4m3:
  case FormatId::ue4m3: return "F8_E4M3";
  case FormatId::e5m2: return "F8_E5M2";
  case FormatId::ue8m0: return "F8_E8M0";
  default: return "";
  }
}

/// A tensor of raw words of a format; checks dtype and rank.
const io::Tensor &words(const io::TensorFile &f, const char *name, FormatId id, size_t rank) {
  const io::Tensor &t = f.at(name);
  const int bits = format(id).storage_bits;
  const std::string_view dtype = io::info(t.dtype).safetensors;
  if (dtype != word_dtype(bits) && dtype != float_dtype(id))
    throw Error(io::message_prefix(f.source, name) + "expected raw words of " + word_dtype(bits) + ", got " +
                std::string(io::info(t.dtype).safetensors));
  if (t.shape.size() != rank)
    throw Error(io::message_prefix(f.source, name) + "expected rank " + std::to_string(rank) + ", got shape " +
                io::shape_text(t.shape));
  return t;
}

void expect_shape(const io::TensorFile &f, const io::Tensor &t, const std::vector<int64_t> &shape) {
  if (t.shape != shape)
    throw Error(io::message_prefix(f.source, t.name) + "expected shape " + io::shape_text(shape) + ", got " +
                io::shape_text(t.shape));
}

const uint8_t *bytes(const io::Tensor &t) { return reinterpret_cast<const uint8_t *>(t.data.data()); }

int run(const Options &o) {
  const Unit &unit = find_unit(o.unit);
  const UnitRule &rule = unit.rule;
  const Accumulation accumulation = parse_enum<Accumulation>(o.accumulation);
  const std::string output = output_path(o.out, o.json);
  const io::TensorFile in = io::read_tensors(input_path(o.in));
  const int bits_a = format(rule.a).storage_bits, bits_b = format(rule.b).storage_bits;
  const int bits_c = format(rule.acc).storage_bits;

  for (const io::Tensor &t : in.tensors)
    if (t.name != "a" && t.name != "b" && t.name != "c" && t.name != "scale_a" && t.name != "scale_b")
      throw Error(io::message_prefix(in.source, t.name) + "unknown tensor; mma reads a, b, c, scale_a and scale_b");
  const io::Tensor &a = words(in, "a", rule.a, 2), &b = words(in, "b", rule.b, 2);
  golden::check_empty(a, in.source);
  const int64_t n = a.shape[0], k = a.shape[1] * (bits_a == 4 ? 2 : 1);
  if (k == 0 || k % rule.k != 0)
    throw Error(io::message_prefix(in.source, "a") + "K = " + std::to_string(k) + " is not a positive multiple of the unit's K = " +
                std::to_string(rule.k));
  expect_shape(in, b, {n, bits_b == 4 ? k / 2 : k});
  const io::Tensor *scale_a = nullptr, *scale_b = nullptr;
  if (rule.scale_block != 0) {
    scale_a = &words(in, "scale_a", rule.scale, 2);
    scale_b = &words(in, "scale_b", rule.scale, 2);
    expect_shape(in, *scale_a, {n, k / rule.scale_block});
    expect_shape(in, *scale_b, {n, k / rule.scale_block});
  } else if (in.find("scale_a") != nullptr || in.find("scale_b") != nullptr) {
    throw Error(io::message_prefix(in.source, "scale_a") + "unit " + unit.name() + " takes no scales");
  }
  std::vector<uint8_t> zero(size_t(n * bits_c / 8), 0);
  const uint8_t *c = zero.data();
  if (in.find("c") != nullptr) {
    const io::Tensor &t = words(in, "c", rule.acc, 1);
    expect_shape(in, t, {n});
    c = bytes(t);
  }

  std::vector<uint8_t> d(size_t(n * bits_c / 8));
  const int64_t scales = rule.scale_block == 0 ? 0 : k / rule.scale_block;
  Progress progress("mma");
  std::atomic<int64_t> done = 0;
#pragma omp parallel for schedule(dynamic, 64)
  for (int64_t i = 0; i < n; ++i) {
    const DotOperands op{{bytes(a) + i * k * bits_a / 8, bits_a},
                         {bytes(b) + i * k * bits_b / 8, bits_b},
                         scale_a == nullptr ? nullptr : bytes(*scale_a) + i * scales,
                         scale_b == nullptr ? nullptr : bytes(*scale_b) + i * scales};
    const uint64_t start = CodeView{c, bits_c}[i];
    const uint64_t word = o.exact ? oracle_dot(rule, op, k, accumulation, start) : dot(rule, op, k, start, accumulation);
    std::memcpy(d.data() + i * bits_c / 8, &word, size_t(bits_c / 8));
    if (const int64_t so_far = ++done; so_far % 1024 == 0) progress.show(double(so_far) / double(n));
  }
  progress.done();

  io::TensorFile out;
  const io::DType dtype = bits_c == 16 ? io::DType::u16 : bits_c == 32 ? io::DType::u32 : io::DType::u64;
  io::Tensor result{"d", dtype, {n}, std::vector<std::byte>(d.size())};
  std::memcpy(result.data.data(), d.data(), d.size());
  out.tensors.push_back(std::move(result));
  out.metadata = {{"unit", unit.name()}, {"evidence", std::string(to_string(unit.evidence))}};
  if (rule.family == Family::gst_fdpa) out.metadata["accumulation"] = o.accumulation;
  if (o.exact) out.metadata["computed_by"] = "multiprecision oracle";
  io::write_tensors(output, out);
  if (o.json)
    fmt::print("{}\n", nlohmann::ordered_json{{"n", n}, {"k", k}, {"unit", unit.name()}, {"evidence", to_string(unit.evidence)}, {"output", o.out}}.dump());
  return kEqual;
}

} // namespace

void register_mma(CLI::App &app, int &exit_code) {
  CLI::App *verb = app.add_subcommand("mma", "Independent dot products on one tensor-core unit, raw bits in and out");
  auto o = std::make_shared<Options>();
  verb->add_option("--unit", o->unit, "ARCH:INSTRUCTION (nvfp4 info --units), or a product and what it multiplies: B200, RTX5090:mxfp4, H100:bf16")->required();
  verb->add_option("in", o->in, ".safetensors with a, b [n, K], scale_a, scale_b [n, K/block], c [n]")->required();
  verb->add_option("-o,--output", o->out, "Output file; holds d [n]")->required();
  verb->add_option("--accumulation", o->accumulation, "FP4 accumulation model (default mmasim): " + name_list<Accumulation>());
  verb->add_flag("--exact", o->exact, "Compute with the multiprecision oracle (slow, same bits)");
  verb->add_flag("--json", o->json, "One line of JSON about the result");
  verb->footer("a and b: U8 [n, K/2] packed low nibble first for e2m1, U8 for 8-bit and 6-bit codes, U16, U32 (TF32), "
               "U64 (FP64), or the dtype of the\nformat itself; bits above a 6-bit code are ignored. Without c the sum starts at +0.\nExample: nvfp4 mma --unit sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16 in.safetensors "
               "-o out.safetensors");
  verb->callback([o, &exit_code] { exit_code = run(*o); });
}

} // namespace nvfp4::tool
