// SPDX-License-Identifier: Apache-2.0
// Compares products; see operands.hpp.
#include "nvfp4/gpu/check/operands.hpp"

#include <algorithm>
#include <cstring>

namespace nvfp4::crosscheck {

void print_paths(const char *what, const cuda::Fp4Paths &p) {
  std::printf("  paths of %s: tiles fast %llu mostly %llu carried %llu (pieces outgrown %llu) framed %llu mixed %llu; "
              "steps summed %llu halved %llu carried %llu apart %llu framed %llu guarded %llu (repaired %llu) split %llu "
              "fp64 %llu aligned %llu defined %llu; outputs defined %llu\n",
              what, p.tiles_fast, p.tiles_mostly, p.tiles_carried, p.outgrown, p.tiles_framed, p.tiles_mixed,
              p.summed, p.halved, p.carried, p.apart, p.framed, p.guarded, p.repaired, p.split, p.wide,
              p.aligned, p.defined, p.outputs);
}

Tally compare_product(const Unit &unit, const HostOperand &a, const HostOperand &b, Accumulation accumulation,
                      const std::string &what, cuda::GemmWorkspace &workspace, cuda::Fp4Paths *paths,
                      const std::vector<uint64_t> &start) {
  const Resident x(a), y(b);
  const int64_t outputs = a.rows * b.rows;
  const bool f64 = unit.rule.acc == FormatId::f64;
  cuda::DeviceBuffer d(outputs * (f64 ? 8 : 4));
  cuda::check(cudaMemset(d.as<void>(), 0x55, size_t(d.size())), "cudaMemset");
  cuda::GemmOutput out;
  out.d = d.as<void>();
  out.accumulators = true;
  cuda::DeviceBuffer from;
  if (!start.empty()) {
    f64 ? from.upload(start) : from.upload(std::vector<uint32_t>(start.begin(), start.end()));
    out.start = from.as<void>();
  }
  cuda::gemm(unit.rule, x.operand, y.operand, out, accumulation, workspace, nullptr, paths);
  const std::vector<uint8_t> got = d.download<uint8_t>(outputs * (f64 ? 8 : 4));

  GemmOptions options;
  options.accumulation = accumulation;
  if (f64) options.out = FormatId::f64;
  std::vector<uint64_t> want(static_cast<size_t>(outputs));
  GemmPlan(unit, options)
      .accumulate(make_operand(unit, Side::a, RawCodes{a.rows, a.k, a.codes},
                               RawScales(a.scales, ScaleLayout::linear)),
                  make_operand(unit, Side::b, RawCodes{b.rows, b.k, b.codes},
                               RawScales(b.scales, ScaleLayout::linear)),
                  want, start);
  Tally t;
  t.values = uint64_t(outputs);
  for (int64_t o = 0; o < outputs; ++o) {
    const uint64_t word = CodeView{got.data(), f64 ? 64 : 32}[o];
    if (word == want[size_t(o)]) continue;
    char text[240];
    std::snprintf(text, sizeof text,
                  "%s %s model %d [%lld, %lld, %lld] output (%lld, %lld): got %llx, want %llx",
                  unit.name().c_str(), what.c_str(), int(accumulation), static_cast<long long>(a.rows),
                  static_cast<long long>(b.rows), static_cast<long long>(a.k),
                  static_cast<long long>(o / b.rows), static_cast<long long>(o % b.rows),
                  static_cast<unsigned long long>(word), static_cast<unsigned long long>(want[size_t(o)]));
    t.mismatch(text);
  }
  return t;
}

} // namespace nvfp4::crosscheck
