// SPDX-License-Identifier: Apache-2.0
// A step with a special term gives NaN or Inf whatever its other terms are, and later steps keep it: so a
// chain's result is that of all its special products in one step.
#include "nvfp4/emulator/gemm/fdpa_specials.hpp"

#include "nvfp4/emulator/gemm/fdpa_conditions.hpp"
#include "nvfp4/emulator/tensorcore/fdpa.hpp"

#include <algorithm>

namespace nvfp4::gemm {

void FdpaSpecials::find(const UnitRule &rule, const GemmOperand &operand, int64_t first, int64_t count) {
  first_ = first;
  lines_.assign(size_t(count), {});
  const Format element = format(operand.format);
  for (int64_t r = 0; r < count; ++r) {
    const RowRange &range = operand.ranges[size_t(first + r)];
    Line &line = lines_[size_t(r)];
    line.nan = range.scale_nan;
    line.max = range.max;
    if (!range.special || line.nan) continue;
    const CodeView codes = operand.row(first + r);
    const uint8_t *const scales = operand.row_scales(first + r);
    for (int64_t k = 0; k < operand.padded_k; ++k) {
      const Decoded d = decode(element, codes[k]);
      const int scale =
          scales == nullptr ? 0 : decode(format(rule.scale), scales[k / rule.scale_block]).exponent;
      line.nan = line.nan || d.cls == Class::nan;
      if (d.cls == Class::infinity) line.infinite.push_back(k);
      if (d.cls == Class::finite) line.max = std::max(line.max, d.exponent + scale);
    }
  }
}

std::optional<uint32_t> special_output(const Job &job, const FdpaSpecials &a, int64_t i,
                                       const FdpaSpecials &b, int64_t j) {
  const FdpaSpecials::Line &x = a.line(i), &y = b.line(j);
  SpecialTerms terms;
  terms.nan = x.nan || y.nan;
  if (terms.nan) return uint32_t(terms.result(job.rule->output));
  if (x.infinite.empty() && y.infinite.empty()) return {};
  if (x.max + y.max > kHighest || !start_vouched(uint32_t(job.start_word(i, j)))) return {};
  const Format fx = format(job.a->format), fy = format(job.b->format);
  for (const std::vector<int64_t> *const places : {&x.infinite, &y.infinite})
    for (const int64_t k : *places) {
      const Decoded p = decode(fx, job.a->row(i)[k]), q = decode(fy, job.b->row(j)[k]);
      if (p.cls == Class::zero || q.cls == Class::zero)
        terms.nan = true;
      else
        terms.infinity(p.negative != q.negative);
    }
  return uint32_t(terms.result(job.rule->output));
}

} // namespace nvfp4::gemm
