// SPDX-License-Identifier: Apache-2.0
// The FP4 engine against the definition: random shapes, scale classes, accumulation models, thread counts.
// Directed cases at the edges of each shortcut are in gemm_fp4_edges_test.cpp.
#include "tests/emulator/gemm/support.hpp"

using namespace nvfp4;
using namespace nvfp4::test;

namespace {

const Unit &nvfp4_unit() { return find_unit("sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16"); }
const Unit &mxfp4_unit() { return find_unit("sm_100:tcgen05.k64.f32.mxf4.ue8m0.block32"); }
const Unit &mx16_unit() { return find_unit("sm_100:tcgen05.k64.f32.mxf4nvf4.ue8m0.block16"); }

enum class Scales { equal, gaussian, lognormal1, lognormal3, lognormal6, raw_finite, raw, zeros };
constexpr Scales kScaleClasses[] = {Scales::equal,      Scales::gaussian,   Scales::lognormal1,
                                    Scales::lognormal3, Scales::lognormal6, Scales::raw_finite,
                                    Scales::raw,        Scales::zeros};
const char *name(Scales s) {
  const char *names[] = {"equal",      "gaussian",   "lognormal1", "lognormal3",
                         "lognormal6", "raw_finite", "raw",        "zeros"};
  return names[int(s)];
}

uint8_t scale_code(const UnitRule &rule, Scales s, Random &random) {
  const auto rounded = [&](double x) {
    const uint64_t code = rule.scale == FormatId::ue8m0
                              ? convert(format(rule.scale), format(FormatId::f64), bit_cast<uint64_t>(x),
                                        Rounding::upward, Overflow::satfinite)
                              : encode(rule.scale, float(x));
    return uint8_t(code);
  };
  switch (s) {
  case Scales::equal: return rounded(1.5);
  case Scales::gaussian: { // amax of 16 normals over 6
    double amax = 0;
    for (int i = 0; i < 16; ++i) amax = std::max(amax, std::fabs(random.normal()));
    return rounded(amax / 6 * 64);
  }
  case Scales::lognormal1: return rounded(std::exp(random.normal()));
  case Scales::lognormal3: return rounded(std::exp(3 * random.normal()));
  case Scales::lognormal6: return rounded(std::exp(6 * random.normal()));
  case Scales::raw_finite: return uint8_t(random.below(rule.scale == FormatId::ue8m0 ? 255 : 127));
  case Scales::raw: return uint8_t(random());
  case Scales::zeros: return random.below(4) == 0 ? rounded(2.0) : 0;
  }
  return 0;
}

Matrix random_matrix(const UnitRule &rule, int64_t rows, int64_t k, Scales s, Random &random) {
  Matrix m{rows, k, {}, {}};
  m.codes.resize(size_t(rows * ((k + 1) / 2)));
  const int zero_bytes = random.below(3) == 0 ? 2 : 16; // sometimes mostly zero
  for (uint8_t &c : m.codes) c = random.below(zero_bytes) == 0 ? uint8_t(random()) & 0x88 : uint8_t(random());
  m.scales.resize(size_t(rows * ((k + rule.scale_block - 1) / rule.scale_block)));
  for (uint8_t &c : m.scales) c = scale_code(rule, s, random);
  if (s == Scales::raw && random.below(2) == 0) // NaN in few rows only
    for (uint8_t &c : m.scales)
      if ((c & 0x7F) == 0x7F && random.below(16) != 0) c = 0x7E;
  return m;
}

} // namespace

TEST_CASE("FP4 products equal the definition", "[gemm][fp4]") {
  Random random{20240601};
  for (const Unit *unit : {&nvfp4_unit(), &mxfp4_unit(), &mx16_unit()})
    for (const Scales sa : kScaleClasses)
      for (int round = 0; round < 8; ++round) {
        const Scales sb = round < 3 ? sa : kScaleClasses[random.below(8)];
        const int64_t m = 1 + random.below(40), n = 1 + random.below(70),
                      k = 1 + random.below(round == 0 ? 1500 : 400);
        const Matrix a = random_matrix(unit->rule, m, k, sa, random),
                     b = random_matrix(unit->rule, n, k, sb, random);
        check_product(*unit, a, b, std::string(name(sa)) + " x " + name(sb), 
                      enumerators<Accumulation>()[size_t(round % 4)],
                      1 + round % 3);
      }
}

TEST_CASE("FP4 products do not depend on threads or tiling", "[gemm][fp4]") {
  Random random{7};
  const Matrix a = random_matrix(nvfp4_unit().rule, 301, 333, Scales::gaussian, random);
  const Matrix b = random_matrix(nvfp4_unit().rule, 157, 333, Scales::gaussian, random);
  const std::vector<uint64_t> want = accumulate(nvfp4_unit(), a, b, Isa::scalar);
  for (const int threads : {1, 2, 3})
    for (const Isa isa : kVectorIsas)
      if (supported(isa))
        CHECK(first_difference(accumulate(nvfp4_unit(), a, b, isa, Accumulation::mmasim, threads), want,
                               b.rows) == "");
}

TEST_CASE("an empty K gives zeros, empty outputs give nothing", "[gemm][fp4]") {
  for (const Isa isa : kIsas) {
    if (!supported(isa)) continue;
    CHECK(accumulate(nvfp4_unit(), {3, 0, {}, {}}, {2, 0, {}, {}}, isa) == std::vector<uint64_t>(6, 0));
    CHECK(accumulate(nvfp4_unit(), {0, 0, {}, {}}, {2, 0, {}, {}}, isa).empty());
  }
}
