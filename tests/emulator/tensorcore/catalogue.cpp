// SPDX-License-Identifier: Apache-2.0
// The catalogue: unique names, sound numbers, every unit that the capture program can run, and mutations of each
// number that some case must notice.
#include "nvfp4/emulator/nearest.hpp"
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"
#include "nvfp4/emulator/tensorcore/products.hpp"
#include "nvfp4/golden/mma_kind.hpp"
#include "tests/catch.hpp"

#include <algorithm>
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
    CHECK((r.link <= kMaxLink || r.family == Family::gst_fdpa || r.family == Family::exact_sum));
    CHECK((r.family == Family::exact_sum) == (u.evidence == Evidence::defined));
    CHECK((r.scale_block == 0 || r.k % r.scale_block == 0));
    if (r.family != Family::exact_sum) // with scales and without
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
  CHECK_THROWS_WITH(find_unit("sm_90:mma.m16n8k16.f32.fp16"), Catch::Contains("did you mean 'sm_90:mma.m16n8k16.f32.f16'"));
}

TEST_CASE("products and what they multiply are units", "[catalogue]") {
  const std::pair<const char *, const char *> expected[] = {
      {"B200", "sm_100:tcgen05.k64.f32.mxf4nvf4.ue4m3.block16"},
      {"RTX5090", "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16"},
      {"GeForce RTX 5090:NVFP4", "sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16"},
      {"DGX Spark:mxfp4", "sm_121:mma.m16n8k64.f32.mxf4.ue8m0.block32"},
      {"dgx-spark", "sm_121:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16"},
      {"GB300:mxfp8", "sm_103:tcgen05.k32.f32.mxf8f6f4.e4m3.ue8m0.block32"},
      {"b200:mxfp4", "sm_100:tcgen05.k64.f32.mxf4.ue8m0.block32"},
      {"H100:bf16", "sm_90:wgmma.k16.f32.bf16"},
      {"H200:e4m3", "sm_90:wgmma.k32.f32.e4m3"},
      {"H100:fp8-e5m2", "sm_90:wgmma.k32.f32.e5m2"},
      {"h100:mma.m16n8k16.f32.bf16", "sm_90:mma.m16n8k16.f32.bf16"},
      {"sm_90:F16", "sm_90:wgmma.k16.f32.f16"},
      {"A100:tf32", "sm_80:mma.m16n8k8.f32.tf32"},
      {"V100:fp16", "sm_70:mma.m8n8k4.f32.f16"},
      {"RTX 4090:fp8", "sm_89:mma.m16n8k32.f32.e4m3"},
      {"exact:nvint4", "exact:dot.k64.f32.int4.ue4m3.block16"},
      {"exact:mxint8", "exact:dot.k32.f32.int8.ue8m0.block32"},
      {"exact", "exact:dot.k64.f32.e2m1.ue4m3.block16"},
      {"Jetson Thor:mxfp6-e2m3", "sm_110:tcgen05.k32.f32.mxf8f6f4.e2m3.ue8m0.block32"},
  };
  for (const auto &[name, unit] : expected) {
    INFO(name);
    CHECK(find_unit(name).name() == unit);
  }
  for (const Product &p : products()) {
    INFO(p.name);
    CHECK(find_product(p.name) == &p); // no two rows are one name
    CHECK(!kinds_of(p.arch).empty());  // so is the architecture in the catalogue
  }
  for (const UnitKind &kind : unit_kinds())
    CHECK((unit_of_kind("exact", kind) != nullptr || std::any_of(products().begin(), products().end(), [&](const Product &p) {
             return unit_of_kind(p.arch, kind) != nullptr;
           })));
  CHECK_THROWS_WITH(find_unit("H100"), Catch::Contains("as in H100:bf16; there are fp8, fp8-e5m2, bf16, fp16, tf32, fp64"));
  CHECK_THROWS_WITH(find_unit("H100:nvfp4"), Catch::Contains("unknown unit 'sm_90:nvfp4'"));
  CHECK_THROWS_WITH(find_unit("H10:bf16"), Catch::Contains("'H100:bf16'"));
  CHECK_THROWS_WITH(find_unit("RTX 509O"), Catch::Contains("did you mean 'RTX 5090'"));
  CHECK_THROWS_WITH(find_unit("sm_91:wgmma.k16.f32.bf16"), Catch::Contains("'sm_90:wgmma.k16.f32.bf16'"));
  CHECK_THROWS_WITH(find_unit("xyzzy"), Catch::Equals("unknown unit 'xyzzy'; all: nvfp4 info --units"));
}

TEST_CASE("the nearest names", "[catalogue]") {
  const std::vector<std::string> names = {"quantize", "dequantize", "gemm", "golden", "te", "te213", "sr-te"};
  CHECK(name_distance("gmem", "gemm") == 1);
  CHECK(name_distance("SR_TE", "sr-te") == 0);
  CHECK(name_distance("", "te") == 2);
  CHECK(nearest_names("quantise", names) == std::vector<std::string>{"quantize", "dequantize"});
  CHECK(nearest_names("qauntize", names, 1) == std::vector<std::string>{"quantize"});
  CHECK(nearest_names("tea", names) == std::vector<std::string>{"te"});
  CHECK(nearest_names("gol", names) == std::vector<std::string>{"golden"});
  CHECK(nearest_names("xyzzy", names).empty());
  CHECK(suggestion("gmem", names) == " (did you mean 'gemm'?)");
  CHECK(suggestion("xyzzy", names).empty());
  CHECK(suggestion("te21", names) == " (did you mean 'te213' or 'te'?)");
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
