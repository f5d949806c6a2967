// SPDX-License-Identifier: Apache-2.0
// Directed vectors: those that tell the FP4 models apart, stored outputs of real GPUs from public work, and the
// probes whose answers an H200 gave.
#include "nvfp4/emulator/tensorcore/catalogue.hpp"
#include "nvfp4/emulator/tensorcore/execute.hpp"
#include "tests/catch.hpp"

#include <array>
#include <cmath>
#include <string>

using namespace nvfp4;

namespace {

struct Fp4Vector {
  const char *name;
  std::array<std::string, 4> a, b; ///< nibbles of each group in K order, filled up with 0
  std::array<uint8_t, 4> scale_a, scale_b;
  uint32_t c;
  uint32_t mmasim, nadpe, exact, tcgen05;
};

uint64_t run(const Fp4Vector &v, Accumulation model) {
  uint8_t a[32] = {}, b[32] = {};
  for (size_t g = 0; g < 4; ++g)
    for (size_t i = 0; i < 16; ++i) {
      const auto put = [&](uint8_t *to, const std::string &text) {
        const uint64_t code = i < text.size() ? uint64_t(std::stoi(text.substr(i, 1), nullptr, 16)) : 0;
        to[(16 * g + i) / 2] = uint8_t(to[(16 * g + i) / 2] | code << (i % 2 * 4));
      };
      put(a, v.a[g]);
      put(b, v.b[g]);
    }
  const UnitRule &rule = find_unit("sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16").rule;
  return dot(rule, {{a, 4}, {b, 4}, v.scale_a.data(), v.scale_b.data()}, 64, v.c, model);
}

const std::string six(16, '6'), minus_six(16, 'e'), seven(16, '7');
constexpr std::array<uint8_t, 4> kOnes = {0x38, 0x38, 0x38, 0x38};

const Fp4Vector kVectors[] = {
    {"35 alignment bits: 36 would keep the small group", {six, "1"}, {six, "1"}, {0x78, 0x08, 0x38, 0x38}, {0x78, 0x18, 0x38, 0x38}, 0xCB800000, 0, 0, 0x39800000, 0},
    {"35 alignment bits: 34 would lose the small group", {six, "1"}, {six, "2"}, {0x78, 0x08, 0x38, 0x38}, {0x78, 0x18, 0x38, 0x38}, 0xCB800000, 0x3A000000, 0x3A000000, 0x3A000000, 0x3A000000},
    {"alignment by exponents, not by values", {six, "1", minus_six}, {six, "1", six}, {0x78, 0x08, 0x78, 0x38}, {0x78, 0x18, 0x78, 0x38}, 0, 0x39800000, 0x39800000, 0x39800000, 0x39800000},
    {"an all-zero group is left out", {"0", "1"}, {"0", "1"}, {0x7E, 0x01, 0x38, 0x38}, {0x7E, 0x01, 0x38, 0x38}, 0, 0x35800000, 0x35800000, 0x35800000, 0x35800000},
    {"a group that cancels keeps its exponent in mmasim only", {"2a", "1"}, {"22", "1"}, {0x7E, 0x01, 0x38, 0x38}, {0x7E, 0x01, 0x38, 0x38}, 0, 0, 0x35800000, 0x35800000, 0},
    {"a zero scale", {six, "1"}, {six, "1"}, {0x00, 0x01, 0x38, 0x38}, {0x7E, 0x01, 0x38, 0x38}, 0, 0x35800000, 0x35800000, 0x35800000, 0x35800000},
    {"a zero scale is left out of the alignment", {six, ""}, {six, ""}, {0x00, 0x00, 0x00, 0x00}, {0x7E, 0x01, 0x38, 0x38}, 0x2E800000, 0x2E800000, 0x2E800000, 0x2E800000, 0x2E800000},
    {"the sign bit of UE4M3 is ignored", {"2"}, {"2"}, {0xB8, 0x38, 0x38, 0x38}, kOnes, 0, 0x3F800000, 0x3F800000, 0x3F800000, 0x3F800000},
    {"a NaN scale wins over zero data", {}, {}, {0x7F, 0x38, 0x38, 0x38}, kOnes, 0x3F800000, 0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF},
    {"so does one with the sign bit", {}, {}, {0x38, 0x38, 0x38, 0xFF}, kOnes, 0x3F800000, 0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF},
    {"truncation", {"1"}, {"1"}, kOnes, kOnes, 0xCB800000, 0xCB7FFFFF, 0xCB7FFFFF, 0xCB7FFFFF, 0xCB7FFFFF},
    {"full scale is exact", {seven, seven, seven, seven}, {seven, seven, seven, seven}, {0x7E, 0x7E, 0x7E, 0x7E}, {0x7E, 0x7E, 0x7E, 0x7E}, 0, 0x4DDC8000, 0x4DDC8000, 0x4DDC8000, 0x4DDC8000},
    {"minus zero in, plus zero out", {}, {}, kOnes, kOnes, 0x80000000, 0, 0, 0, 0},
    {"nadpe aligns by the largest product", {"7", "7"}, {"7", "f"}, kOnes, kOnes, 0x2F000000, 0x2F000000, 0, 0x2F000000, 0x2F000000},
    {"the models agree above", {"7", "7"}, {"7", "f"}, kOnes, kOnes, 0x30000000, 0x30000000, 0x30000000, 0x30000000, 0x30000000},
    {"Inf passes, whatever the products", {six}, {six}, kOnes, kOnes, 0xFF800000, 0xFF800000, 0xFF800000, 0xFF800000, 0xFF800000},
    {"C between the largest scales and the largest product", {"6e", "2"}, {"64", "2"}, {0x78, 0x01, 0x38, 0x38}, {0x78, 0x01, 0x38, 0x38}, 0xC9000000, 0, 0, 0x36800000, 0x36800000},
    {"two products of a group lie in different quarters", {"2a", "10001"}, {"22", "10001"}, {0x78, 0x01, 0x38, 0x38}, {0x78, 0x01, 0x38, 0x38}, 0, 0x36000000, 0x36000000, 0x36000000, 0},
    {"the same in one quarter", {"2a", "11"}, {"22", "11"}, {0x78, 0x01, 0x38, 0x38}, {0x78, 0x01, 0x38, 0x38}, 0, 0x36000000, 0x36000000, 0x36000000, 0x36000000},
    {"nadpe against the rest, one product over a small C", {"7", ""}, {"7", ""}, {0x38, 0x38, 0x38, 0x38}, {0x38, 0x38, 0x38, 0x38}, 0xAF000000, 0x420FFFFF, 0x42100000, 0x420FFFFF, 0x420FFFFF},
};

/// One product sum: pairs (a, b) at K = 0, 1, ... in the unit's format, the rest zero.
uint64_t products(const char *unit, std::initializer_list<std::pair<double, double>> pairs, uint64_t c) {
  const UnitRule &rule = find_unit(unit).rule;
  const int bits = format(rule.a).storage_bits;
  std::array<uint8_t, 256> a{}, b{};
  size_t i = 0;
  for (const auto &[x, y] : pairs) {
    const uint64_t wa = convert(format(rule.a), format(FormatId::f64), bit_cast<uint64_t>(x), Rounding::nearest_even, Overflow::ieee);
    const uint64_t wb = convert(format(rule.b), format(FormatId::f64), bit_cast<uint64_t>(y), Rounding::nearest_even, Overflow::ieee);
    memcpy(a.data() + i * size_t(bits / 8), &wa, size_t(bits / 8));
    memcpy(b.data() + i * size_t(bits / 8), &wb, size_t(bits / 8));
    ++i;
  }
  return dot(rule, {{a.data(), bits}, {b.data(), bits}}, rule.k, c);
}

double two(int e) { return std::ldexp(1.0, e); }

} // namespace

TEST_CASE("FP4: vectors that tell the accumulation models apart", "[tensorcore]") {
  for (const Fp4Vector &v : kVectors) {
    INFO(v.name);
    CHECK(run(v, Accumulation::mmasim) == v.mmasim);
    CHECK(run(v, Accumulation::nadpe) == v.nadpe);
    CHECK(run(v, Accumulation::exact) == v.exact);
    CHECK(run(v, Accumulation::tcgen05_model) == v.tcgen05);
  }
}

TEST_CASE("FP4: mmasim and nadpe differ exactly from 2^-35 to 2^-32", "[tensorcore]") {
  Fp4Vector v{"", {"7", "7"}, {"7", "f"}, kOnes, kOnes, 0, 0, 0, 0, 0};
  for (int e = -40; e <= -20; ++e) {
    v.c = uint32_t(127 + e) << 23;
    INFO("C = 2^" << e);
    CHECK((run(v, Accumulation::mmasim) != run(v, Accumulation::nadpe)) == (e >= -35 && e <= -32));
  }
}

TEST_CASE("stored outputs of real GPUs, from public repositories", "[tensorcore][hardware]") {
  // qqq-tao/Blackwell-TensorCore-Numerical-Model, RTX 5090, m16n8k8 tf32
  const uint32_t a[8] = {0x40800000, 0x7EFFC000, 0x80800000, 0x00002000, 0x80800000, 0x3F7FE000, 0x4EFF8000, 0x3F7FE000};
  const uint32_t b[8] = {0x40800000, 0x807F8000, 0xBF802000, 0x80000000, 0xBF000000, 0x80800000, 0xBF000000, 0xBF7FE000};
  const UnitRule &tf32 = find_unit("sm_120:mma.m16n8k8.f32.tf32").rule;
  const DotOperands op{{reinterpret_cast<const uint8_t *>(a), 32}, {reinterpret_cast<const uint8_t *>(b), 32}};
  CHECK(dot(tf32, op, 8, 0x807F8000) == 0xCE7F7FFF);
  UnitRule ampere = tf32;
  ampere.fraction_bits = 24;
  CHECK(dot(ampere, op, 8, 0x807F8000) == 0xCE7F8000);
}

TEST_CASE("probes P1 to P11 as the H200 answered them", "[tensorcore][hardware]") {
  for (const char *bf16 : {"sm_90:mma.m16n8k16.f32.bf16", "sm_90:wgmma.k16.f32.bf16"}) {
    CHECK(products(bf16, {{two(-75), two(-74)}, {-two(-79), two(-79)}}, 0) == 0x00000000);       // P1: floor -133
    CHECK(products(bf16, {{two(-75), two(-74)}, {-two(-80), two(-79)}}, 0) == 0x00000001);       // P2
    CHECK(products(bf16, {{-0.0, 1}, {-0.0, 1}}, 0x80000000) == 0);                              // P6
    CHECK(products(bf16, {{1, 1}, {-1, 1}}, 0x80000000) == 0);                                   // P6
    CHECK(products(bf16, {{two(127), 1}, {two(127), 1}}, 0) == 0x7F800000);                      // P11
    CHECK(products(bf16, {{-two(-80), two(-80)}}, 0) == 0);                                      // underflow is +0
  }
  for (const char *f16 : {"sm_90:mma.m16n8k16.f16.f16", "sm_90:wgmma.k16.f16.f16"}) {
    CHECK(products(f16, {{two(-12), two(-13)}, {two(-24), two(-23)}}, 0) == 0x0000);             // P3: floor -21, not -22
    CHECK(products(f16, {{two(-12), two(-13)}, {two(-24), two(-22)}}, 0) == 0x0001);             // one binade up it counts
    CHECK(products(f16, {{two(-12), two(-13)}, {two(-24), two(-24)}}, 0) == 0x0000);             // P4, wgmma too
    CHECK(products(f16, {{two(-12), two(-13)}, {two(-20), two(-20)}}, 0x0002) == 0x0002);        // P5
    CHECK(products(f16, {{-two(-14), two(-14)}}, 0) == 0x0000);                                  // underflow is +0
  }
  CHECK(products("sm_90:wgmma.k32.f32.e4m3", {}, 0x3F800008) == 0x3F800000);                     // P7
  CHECK(products("sm_90:wgmma.k32.f32.e4m3", {{1, 1}, {two(-6), two(-7)}}, 0) == 0x3F800400);    // P8
  CHECK(products("sm_90:wgmma.k32.f32.e4m3", {{1, 1}, {two(-7), two(-7)}}, 0) == 0x3F800000);    // P8
  CHECK(products("sm_90:mma.m16n8k32.f32.e4m3", {}, 0x3F800001) == 0x3F800001);                  // P9
  const double inf = INFINITY, nan = NAN;
  CHECK(products("sm_90:mma.m16n8k16.f32.bf16", {{nan, 0}}, 0) == 0x7FFFFFFF);                   // P10
  CHECK(products("sm_90:mma.m16n8k16.f32.bf16", {{inf, 0}}, 0) == 0x7FFFFFFF);
  CHECK(products("sm_90:mma.m16n8k16.f32.bf16", {{inf, 1}, {-inf, 1}}, 0) == 0x7FFFFFFF);
  CHECK(products("sm_90:mma.m16n8k16.f32.bf16", {}, 0x7F800001) == 0x7FFFFFFF);
  CHECK(products("sm_90:mma.m16n8k16.f16.f16", {{inf, 0}}, 0) == 0x7FFF);
}

TEST_CASE("TF32 ignores the low 13 bits, also of a NaN", "[tensorcore][hardware]") {
  const UnitRule &rule = find_unit("sm_90:mma.m16n8k8.f32.tf32").rule;
  uint32_t a[8] = {0x3F801FFF}, b[8] = {0x3F800000};
  const DotOperands op{{reinterpret_cast<const uint8_t *>(a), 32}, {reinterpret_cast<const uint8_t *>(b), 32}};
  CHECK(dot(rule, op, 8, 0) == 0x3F800000);
  a[0] = 0x7F800001; // read as Inf
  CHECK(dot(rule, op, 8, 0) == 0x7F800000);
}

TEST_CASE("FP64 passes the first NaN of b, c, a on, made quiet", "[tensorcore][hardware]") {
  constexpr uint64_t na = 0x7FF0000000000001, nb = 0xFFF0000000000002, nc = 0x7FF8000000000003, one = 0x3FF0000000000000;
  CHECK(fma_f64(na, nb, nc) == 0xFFF8000000000002);
  CHECK(fma_f64(na, one, nc) == 0x7FF8000000000003);
  CHECK(fma_f64(na, one, one) == 0x7FF8000000000001);
  CHECK(fma_f64(0x7FF0000000000000, 0, one) == 0xFFF8000000000000);
}

TEST_CASE("an exact sum sees what lies far below a tie", "[tensorcore]") {
  const UnitRule &rule = find_unit("exact:mxfp4").rule;
  // 1 * 1 under scales of 2^-24, half an ulp of C = 1; 1 * 1 or 1 * -1 of the next block under 2^-200
  const auto sum = [&](uint32_t c, uint8_t far) {
    uint8_t a[32] = {0x2}, b[32] = {0x2};
    a[16] = 0x2, b[16] = far;
    const uint8_t scale_a[2] = {103, 27}, scale_b[2] = {127, 27};
    return dot(rule, {{a, 4}, {b, 4}, scale_a, scale_b}, 64, c);
  };
  CHECK(sum(0x3F800000, 0x0) == 0x3F800000); // to even
  CHECK(sum(0x3F800001, 0x0) == 0x3F800002);
  CHECK(sum(0x3F800000, 0x2) == 0x3F800001);
  CHECK(sum(0x3F800001, 0xA) == 0x3F800001);
  CHECK(sum(0xBF800000, 0x0) == 0xBF7FFFFF); // -1 + 2^-24 is a number
}

TEST_CASE("an exact sum of Inf and zero is NaN, of Inf and a number Inf", "[tensorcore]") {
  const UnitRule &rule = find_unit("exact:fp8-e5m2").rule;
  const auto sum = [&](uint8_t x, uint8_t y, uint32_t c) {
    uint8_t a[32] = {x}, b[32] = {y};
    return dot(rule, {{a, 8}, {b, 8}}, 32, c);
  };
  CHECK(sum(0x7C, 0x00, 0) == 0x7FFFFFFF);
  CHECK(sum(0x00, 0xFC, 0) == 0x7FFFFFFF);
  CHECK(sum(0x7C, 0xBC, 0) == 0xFF800000); // Inf * -1
  CHECK(sum(0x7C, 0x3C, 0xFF800000) == 0x7FFFFFFF);
  CHECK(sum(0x7E, 0x3C, 0) == 0x7FFFFFFF);
}
