// SPDX-License-Identifier: Apache-2.0
// The trace ends in dot()'s word for every unit, its parts add up, and two traces part where they must.
#include "nvfp4/golden/diagnosis/trace.hpp"
#include "tests/golden/diagnosis/support.hpp"

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

struct RandomDot {
  GemmOperand a, b;
  DotOperands op;

  RandomDot(const Unit &unit, int64_t k, Random &random, bool raw) {
    const auto make = [&](Side side, FormatId id) {
      RawOperand o = dense(id, 1, k, 3.0, random).raw;
      if (raw)
        for (uint8_t &byte : o.codes) byte = uint8_t(random());
      std::vector<uint8_t> scales;
      if (unit.rule.scale_block != 0)
        for (int64_t s = 0; s < k / unit.rule.scale_block * scale_bytes(unit.rule.scale); ++s)
          scales.push_back(raw ? uint8_t(random())
                               : uint8_t(unit.rule.scale == FormatId::ue8m0 ? 110 + random.below(40)
                                                                            : 8 + random.below(112)));
      return make_operand(unit, side, RawCodes{1, k, o.codes}, RawScales(scales, ScaleLayout::linear));
    };
    a = make(Side::a, unit.rule.a);
    b = make(Side::b, unit.rule.b);
    op = {a.row(0), b.row(0), a.row_scales(0), b.row_scales(0)};
  }
};

const Unit &nvfp4_unit() { return find_unit(kNvfp4Unit); }

} // namespace

TEST_CASE("a trace ends in the word of dot() for every unit") {
  Random random{11};
  int64_t compared = 0, fused = 0;
  for (const Unit &unit : catalogue())
    for (const bool raw : {false, true})
      for (const Accumulation model : enumerators<Accumulation>()) {
        if (model != Accumulation::mmasim && unit.rule.family != Family::gst_fdpa) continue;
        for (int trial = 0; trial < (unit.rule.family == Family::gst_fdpa ? 40 : 4); ++trial) {
          const int64_t k = int64_t{unit.rule.k} * (1 + random.below(4));
          const RandomDot dot_(unit, k, random, raw);
          const uint64_t c = trial % 2 == 0                   ? 0
                             : unit.rule.acc == FormatId::f16 ? random() & 0xFFFF
                             : unit.rule.acc == FormatId::f64 ? random()
                                                              : random() & 0xFFFFFFFF;
          const Trace t = trace_dot(unit.rule, dot_.op, k, c, model);
          INFO(unit.name() << " " << to_string(model) << (raw ? " raw codes" : " values") << " k " << k);
          REQUIRE(t.word == dot(unit.rule, dot_.op, k, c, model));
          REQUIRE(t.steps.back().word == t.word);
          ++compared;
          for (const Step &s : t.steps) {
            if (s.kind != Step::Kind::fused) continue;
            int64_t sum = 0;
            for (int i = 0; i < s.terms; ++i) sum += s.aligned[size_t(i)];
            REQUIRE(sum == s.sum);
            REQUIRE(s.lsb == s.max_exponent - unit.rule.fraction_bits);
            REQUIRE((s.cut_terms > 0) == (s.lost > 0));
            REQUIRE(s.lost < s.terms);
            ++fused;
          }
        }
      }
  CHECK(compared > 5000);
  CHECK(fused > 5000);
}

TEST_CASE("a trace shows the steps by name") {
  // all scales 1: 6*6 sixteen times in group 0, its negative in group 1, C = 2^-33
  std::vector<uint8_t> a(32), b(32), scales(4, 0x38);
  for (size_t i = 0; i < 8; ++i) a[i] = b[i] = b[i + 8] = 0x77, a[i + 8] = 0xFF;
  const DotOperands op{{a.data(), 4}, {b.data(), 4}, scales.data(), scales.data()};
  const Trace mmasim = trace_dot(nvfp4_unit().rule, op, 64, 0x2F000000);
  REQUIRE(mmasim.steps.size() == 1);
  const Step &s = mmasim.steps[0];
  CHECK(s.kind == Step::Kind::fused);
  CHECK(s.max_exponent == 0);
  CHECK(s.lsb == -35);
  CHECK(s.terms == 5);
  CHECK(s.aligned[0] == (int64_t{576} << 35));
  CHECK(s.aligned[1] == -(int64_t{576} << 35));
  CHECK(s.aligned[4] == 4); // 2^-33
  CHECK(s.sum == 4);
  CHECK(s.cut_terms == 0);
  CHECK(s.word == 0x2F000000);
  const Trace nadpe = trace_dot(nvfp4_unit().rule, op, 64, 0x2F000000, Accumulation::nadpe);
  CHECK(nadpe.steps[0].max_exponent == 4); // 6 is 1.5 * 2^2
  CHECK(nadpe.steps[0].word == 0);
  const Parting parting = find_parting(mmasim, nadpe);
  CHECK(parting.stage == Stage::alignment);
  CHECK(parting.k == 0);
  CHECK(to_text(mmasim).find("exponent 0, lsb 2^-35") != std::string::npos);
  CHECK(find_parting(mmasim, mmasim).stage == Stage::epilogue);
  const Trace exact = trace_dot(nvfp4_unit().rule, op, 64, 0x2D000000, Accumulation::exact);
  CHECK(find_parting(trace_dot(nvfp4_unit().rule, op, 64, 0x2D000000), exact).stage == Stage::truncation);
}

TEST_CASE("rounding to nearest differs from truncation at the final rounding only") {
  Random random{12};
  int differ = 0;
  for (int trial = 0; trial < 200; ++trial) {
    const RandomDot d(nvfp4_unit(), 256, random, false);
    const Trace rz = trace_dot(nvfp4_unit().rule, d.op, 256);
    const Trace rn = trace_dot(nvfp4_unit().rule, d.op, 256, 0, Accumulation::mmasim, Finish::nearest_even);
    const Trace wide_rz = trace_dot(nvfp4_unit().rule, d.op, 256, 0, Accumulation::exact);
    const Trace wide_rn =
        trace_dot(nvfp4_unit().rule, d.op, 256, 0, Accumulation::exact, Finish::nearest_even);
    if (rz.word == wide_rz.word) CHECK(find_parting(rz, wide_rz).stage == Stage::epilogue);
    // each wide step lies within half a unit: the truncated one or its neighbour
    CHECK(wide_rn.steps[0].word - wide_rz.steps[0].word <= 1);
    // cut to 35 bits or not, the first step rounds alike where nothing was cut
    if (rn.steps[0].cut_terms == 0) CHECK(rn.steps[0].word == wide_rn.steps[0].word);
    if (rz.word == rn.word) continue;
    ++differ;
    CHECK(find_parting(rz, rn).stage == Stage::rounding);
  }
  CHECK(differ > 20);
}

TEST_CASE("units that align to fewer bits part at the truncation, shorter steps at the reduction") {
  Random random{13};
  const Unit &hopper = find_unit("sm_90:wgmma.k16.f32.bf16"),
             &ampere = find_unit("sm_80:mma.m16n8k8.f32.bf16");
  int reductions = 0, truncations = 0;
  for (int trial = 0; trial < 100; ++trial) {
    const RandomDot d(hopper, 64, random, false);
    const Trace x = trace_dot(hopper.rule, d.op, 64), y = trace_dot(ampere.rule, d.op, 64);
    if (x.word != y.word) reductions += find_parting(x, y).stage == Stage::reduction ? 1 : 0;
    UnitRule narrow = hopper.rule;
    narrow.fraction_bits = 18;
    const Trace z = trace_dot(narrow, d.op, 64);
    if (x.word != z.word) truncations += find_parting(x, z).stage == Stage::truncation ? 1 : 0;
  }
  CHECK(reductions > 30);
  CHECK(truncations > 30);
}
