// SPDX-License-Identifier: Apache-2.0
// Translates a catalogue rule into the shape that the input generator reads.
#include "nvfp4/golden/mma_kind.hpp"

namespace nvfp4::golden {

cases::MmaKind kind_of(const Unit &unit, const std::string &name) {
  // by name; E8M13 words are FP32 words to a generator
  const auto element = [](FormatId id) {
    const Format f = format(id == FormatId::e8m13 ? FormatId::f32 : id);
    const std::string_view wanted = f.name;
    for (int e = 0; e < cases::kElements; ++e)
      if (wanted == cases::format_of(cases::Element(e)).name) return cases::Element(e);
    throw Error("no inputs are generated in format '" + std::string(wanted) + "': golden/cases has no such element");
  };
  const UnitRule &r = unit.rule;
  cases::MmaKind k{};
  k.unit = name.c_str();
  k.m = k.n = 1;
  k.k = r.k;
  k.a_bits = format(r.a).storage_bits;
  k.b_bits = format(r.b).storage_bits;
  k.acc_bits = format(r.acc).storage_bits;
  k.scale_block = r.scale_block;
  k.a = element(r.a);
  k.b = element(r.b);
  k.acc = element(r.acc);
  k.scale = element(r.scale);
  return k;
}

} // namespace nvfp4::golden
