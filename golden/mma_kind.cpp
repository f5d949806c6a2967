// SPDX-License-Identifier: Apache-2.0
// Translates a catalogue rule into the shape that the input generator reads.
#include "nvfp4/golden/mma_kind.hpp"

namespace nvfp4::golden {

cases::MmaKind kind_of(const Unit &unit, const std::string &name) {
  const auto element = [](FormatId id) {
    using enum FormatId;
    switch (id) {
    case e2m1: return cases::Element::e2m1;
    case e3m2: return cases::Element::e3m2;
    case e2m3: return cases::Element::e2m3;
    case e4m3: return cases::Element::e4m3;
    case e5m2: return cases::Element::e5m2;
    case ue4m3: return cases::Element::ue4m3;
    case ue8m0: return cases::Element::ue8m0;
    case bf16: return cases::Element::bf16;
    case f16: return cases::Element::f16;
    case tf32: return cases::Element::tf32;
    case e8m13:
    case f32: return cases::Element::f32;
    case f64: break;
    }
    return cases::Element::f64;
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
