// SPDX-License-Identifier: Apache-2.0
// nvfp4 check --quantized: are a quantizer's codes and scales those of a convention, and if not, which step
// of the rule explains them.
#include "tools/nvfp4/verb_check_quantized.hpp"

#include "nvfp4/golden/diagnosis/report_text.hpp"
#include "nvfp4/golden/io/file.hpp"
#include "nvfp4/golden/quantized_file.hpp"
#include "nvfp4/golden/quantized_tensor.hpp"
#include "tools/environment.hpp"
#include "tools/nvfp4/numbers.hpp"
#include "tools/nvfp4/terminal.hpp"
#include "tools/nvfp4/verbs.hpp"

#include <cmath>
#include <fmt/core.h>

namespace nvfp4::tool {
namespace {

using namespace diagnosis;

QuantizerProblem read_problem(const QuantizedCheck &o, int threads) {
  if (o.source.empty()) throw Error("check --quantized: needs --source, the tensor that was quantized");
  const io::TensorFile file = io::read_tensors(o.mine);
  QuantizerProblem p;
  golden::QuantizedTensor mine = golden::quantized_tensor(file);
  p.mine = std::move(mine.scaled);
  p.convention = &find_convention(o.convention.empty() ? p.mine.convention : o.convention);
  p.rounding = mine.rounding;
  p.key = mine.key;
  p.global_amax = o.amax;
  const io::TensorFile source = io::read_tensors(o.source);
  golden::DenseMatrix m = golden::to_matrix(golden::choose_tensor(source, o.tensor), source.source);
  p.source = {m.rows, m.cols, std::move(m.values)};
  p.threads = threads;
  p.isa = asked_isa();
  return p;
}

} // namespace

void add_quantized_options(Command &verb, QuantizedCheck &o) {
  verb.add_option("--quantized", o.mine,
                  "Instead of a product: a quantizer's output, a file as nvfp4 quantize writes it");
  verb.add_option("--source", o.source, "With --quantized: the tensor that was quantized, F32, BF16 or F16");
  verb.add_option("--source-tensor", o.tensor, "Which tensor of the source's file");
  verb.add_option("--convention", o.convention,
                  "With --quantized: what it should be (default: what the file names)");
  add_fp32(verb, "--global-amax", o.amax, "With --quantized: a calibrated amax instead of the source's own",
           0.0f);
}

int check_quantized(const QuantizedCheck &o, int threads, bool json) {
  QuantizerProblem p = read_problem(o, threads);
  Progress progress("check");
  p.progress = [&](double f) { progress.show(f); };
  const QuantizerReport r = check_quantizer(p);
  progress.done();
  fmt::print("{}", json ? report_json(p, r) + "\n"
                          : with_verdict(report_text(p, r), r.equal() ? Verdict::good : Verdict::bad));
  return r.equal() ? kEqual : kMismatch;
}

} // namespace nvfp4::tool
