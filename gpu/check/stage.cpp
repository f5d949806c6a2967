// SPDX-License-Identifier: Apache-2.0
// The changes that are tried, the likeliest first.
#include "nvfp4/gpu/check/stage.hpp"
#include "nvfp4/emulator/tensorcore/unit.hpp"

#include <optional>
#include <vector>

namespace nvfp4::crosscheck {
namespace {

struct Change {
  std::string name;
  UnitRule rule;
  Accumulation accumulation;
  Finish finish = Finish::as_unit;
};

std::vector<Change> changes(const UnitRule &rule, Accumulation accumulation) {
  std::vector<Change> all = {{"nearest-even final rounding", rule, accumulation, Finish::nearest_even}};
  if (rule.family == Family::gst_fdpa)
    for (const Accumulation a : enumerators<Accumulation>())
      if (a != accumulation) all.push_back({"accumulation model " + std::string(to_string(a)), rule, a});
  for (const int d : {-1, 1, -2, 2}) {
    UnitRule r = rule;
    r.fraction_bits = int16_t(r.fraction_bits + d);
    if (rule.fraction_bits > 2)
      all.push_back({std::to_string(r.fraction_bits) + " alignment bits", r, accumulation});
  }
  for (const int d : {-1, 1}) {
    UnitRule r = rule;
    r.floor = int16_t(r.floor + d);
    all.push_back({"a floor of 2^" + std::to_string(r.floor), r, accumulation});
  }
  if (rule.link > 1 && rule.link % 2 == 0) {
    UnitRule r = rule;
    r.link /= 2;
    all.push_back({"steps of " + std::to_string(r.link) + " products", r, accumulation});
  }
  return all;
}

} // namespace

std::string explain_word(const UnitRule &rule, const DotOperands &op, int64_t k, uint64_t c,
                         Accumulation accumulation, uint64_t got) {
  const Trace definition = trace_dot(rule, op, k, c, accumulation);
  if (definition.word == got) return "equal";
  for (const Change &change : changes(rule, accumulation)) {
    const Trace other = trace_dot(change.rule, op, k, c, change.accumulation, change.finish);
    if (other.word != got) continue;
    const Parting parting = find_parting(definition, other);
    return "as with " + change.name + "; parts in " + std::string(to_string(parting.stage)) +
           " at k = " + std::to_string(parting.k) + ": " + parting.text;
  }
  return "no single change of rounding, model, alignment bits, floor or step explains it";
}

} // namespace nvfp4::crosscheck
