// SPDX-License-Identifier: Apache-2.0
// The catalogue: unique names, sound numbers, every unit that the capture program can run, and mutations of each
// number that some case must notice.
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"
#include "nvfp4/golden/mma_kind.hpp"
#include "tests/catch.hpp"

#include <set>

using namespace nvfp4;

TEST_CASE("unit names are unique and numbers are sound", "[catalogue]") {
  std::set<std::string> names;
  for (const Unit &u : catalogue()) {
    INFO(u.name());
    const UnitRule &r = u.rule;
    CHECK(names.insert(u.name()).second);
    CHECK(&find_unit(u.name()) == &u);
    CHECK(r.k % r.link == 0);
    CHECK((r.link <= kMaxLink || r.family == Family::gst_fdpa));
    CHECK((r.scale_block == 0 || r.k % r.scale_block == 0));
    CHECK((r.scale_block != 0) == (r.family == Family::st_fdpa || r.family == Family::gst_fdpa));
    CHECK((r.output == Output::rne_f16) == (r.acc == FormatId::f16));
    CHECK(!u.source.empty());
    CHECK(u.name().find(format(r.acc).name) != std::string::npos);
  }
}

TEST_CASE("the names that users write exist", "[catalogue]") {
  for (const char *name :
       {"sm_90:mma.m16n8k16.f32.f16", "sm_90:mma.m16n8k16.f16.f16", "sm_90:mma.m16n8k8.f32.tf32", "sm_90:mma.m16n8k32.f32.e4m3",
        "sm_90:wgmma.k32.f32.e4m3.e5m2", "sm_90:wgmma.k16.f32.bf16", "sm_100:tcgen05.k32.f32.e4m3",
        "sm_100:tcgen05.k64.f32.mxf4nvf4.ue4m3.block16", "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16",
        "sm_120:mma.m16n8k64.f32.mxf4.ue8m0.block32", "sm_120:mma.m16n8k32.f32.mxf8f6f4.e4m3.ue8m0.block32"})
    CHECK(find_unit(name).name() == name);
  CHECK(find_unit("sm_90:wgmma.k32.f32.e4m3.e4m3").name() == "sm_90:wgmma.k32.f32.e4m3");
  CHECK_THROWS_WITH(find_unit("sm_90:mma.m16n8k16.f32.fp16"), Catch::Contains("nearest: sm_90:mma.m16n8k16.f32.f16"));
}

TEST_CASE("every unit that the capture program can run is in the catalogue", "[catalogue]") {
  for (const char *arch : {"sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_103", "sm_110", "sm_120", "sm_121"})
    for (const golden::cases::MmaKind &kind : golden::cases::kinds_for(arch, golden::cases::features_of_arch(arch))) {
      INFO(kind.unit);
      const UnitRule &r = find_unit(kind.unit).rule;
      CHECK(r.k == kind.k);
      CHECK(r.scale_block == kind.scale_block);
      CHECK(format(r.a).storage_bits == kind.a_bits);
    }
}

namespace {

/// How many generated cases give another word under a changed rule.
int noticed(const Unit &unit, const UnitRule &changed) {
  const std::string name = unit.name();
  const golden::cases::MmaKind kind = golden::kind_of(unit, name);
  int differences = 0;
  for (int c = 0; c < golden::cases::kInputClasses; ++c) {
    if (!golden::cases::applies(kind, golden::cases::InputClass(c))) continue;
    for (int i = 0; i < 600; ++i) {
      const golden::cases::Tile t = golden::cases::generate(kind, golden::cases::InputClass(c), golden::cases::ScaleClass(i % golden::cases::kScaleClasses), 5, i);
      const DotOperands op{{t.a.data(), kind.a_bits}, {t.b.data(), kind.b_bits}, t.scale_a.data(), t.scale_b.data()};
      const uint64_t start = CodeView{t.c.data(), kind.acc_bits}[0];
      differences += dot(unit.rule, op, kind.k, start) != dot(changed, op, kind.k, start);
    }
  }
  return differences;
}

} // namespace

TEST_CASE("a change of any number of a unit changes results", "[catalogue][mutation]") {
  for (const char *name : {"sm_80:mma.m16n8k16.f32.bf16", "sm_90:mma.m16n8k16.f32.bf16", "sm_90:wgmma.k32.f32.e5m2",
                           "sm_100:tcgen05.k32.f32.mxf8f6f4.e5m2.ue8m0.block32", "sm_120:mma.m16n8k64.f32.mxf4.ue8m0.block32"}) {
    const Unit &u = find_unit(name);
    INFO(name);
    for (const int step : {-1, 1}) {
      UnitRule r = u.rule;
      r.fraction_bits = int16_t(r.fraction_bits + step);
      CHECK(noticed(u, r) > 0);
    }
    UnitRule rounding = u.rule;
    rounding.output = u.rule.output == Output::rz_f32 ? Output::rz_e8m13 : Output::rz_f32;
    CHECK(noticed(u, rounding) > 0);
    if (u.rule.link > 8 && u.rule.family == Family::fdpa) {
      UnitRule half = u.rule;
      half.link = int16_t(half.link / 2);
      CHECK(noticed(u, half) > 0);
    }
  }
}
