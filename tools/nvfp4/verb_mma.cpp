// SPDX-License-Identifier: Apache-2.0
// nvfp4 mma: n independent dot products on one unit, raw bits in and out.
#include "nvfp4/golden/dot_products.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "tools/nvfp4/paths.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <fmt/core.h>
#include <memory>
#include <nlohmann/json.hpp>

namespace nvfp4::tool {
namespace {

struct Options {
  std::string unit, in, out, accumulation = "mmasim";
  bool exact = false, json = false;
};

int run(const Options &o) {
  const Unit &unit = find_unit(o.unit);
  const Accumulation accumulation = parse_enum<Accumulation>(o.accumulation);
  const std::string output = output_path(o.out, o.json);
  const io::TensorFile in = io::read_tensors(input_path(o.in));
  Progress progress("mma");
  const golden::DotProducts products =
      golden::dot_products(unit, in, accumulation, o.exact, [&](double f) { progress.show(f); });
  progress.done();
  io::write_tensors(output, products.file);
  if (o.json)
    fmt::print("{}\n", nlohmann::ordered_json{{"n", products.n}, {"k", products.k}, {"unit", unit.name()}, {"evidence", to_string(unit.evidence)}, {"output", o.out}}.dump());
  return kEqual;
}

} // namespace

void register_mma(Command &app, int &exit_code) {
  Command *verb = app.add_subcommand("mma", "Independent dot products on one tensor-core unit, raw bits in and out");
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
