// SPDX-License-Identifier: Apache-2.0
// Each arithmetic shortcut of the vector engines by itself, the epilogue over rows, and the choice of
// instruction set.
#include "nvfp4/emulator/cpu/choose_isa.hpp"
#include "nvfp4/emulator/gemm/epilogue.hpp"
#include "nvfp4/emulator/gemm/fp4_kernels.hpp"
#include "tests/emulator/gemm/support.hpp"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

using namespace nvfp4;
using namespace nvfp4::test;

TEST_CASE("a scaled FP4 group is exact in FP32 for every pair of scales and every integer sum",
          "[gemm][shortcut]") {
  uint64_t wrong = 0;
  for (int x = 1; x < 127; ++x)
    for (int y = 1; y < 127; ++y) {
      const float sx = value_f32(FormatId::ue4m3, uint64_t(x)) * 0.25f,
                  sy = value_f32(FormatId::ue4m3, uint64_t(y));
      const double exact = value(FormatId::ue4m3, uint64_t(x)) * value(FormatId::ue4m3, uint64_t(y)) / 4;
      for (int p = -2304; p <= 2304; p += 1 + (x + y) % 7) wrong += double(float(p) * (sx * sy)) != p * exact;
    }
  CHECK(wrong == 0);
}

TEST_CASE("products of 11-bit significands are exact in FP32, and 16 of them scaled fill less than 31 bits",
          "[gemm][shortcut]") {
  uint64_t wrong = 0;
  for (int x = 1024; x < 2048; ++x)
    for (int y = 1024; y < 2048; ++y) wrong += double(float(x) * float(y)) != double(x) * double(y);
  CHECK(wrong == 0);
  const int64_t largest = (int64_t(2047) * 2047) << (25 - 20); // (2 - 2^-10)^2 in units of 2^-25
  CHECK(16 * largest < (int64_t{1} << 31));
  CHECK(17 * largest >= (int64_t{1} << 31)); // why the accumulator's term is watched
}

TEST_CASE("truncating to 53 bits and then to 24 is one truncation", "[gemm][shortcut]") {
  Random random{21};
  uint64_t wrong = 0;
  for (int i = 0; i < 200000; ++i) {
    const uint64_t sig =
        (random() | uint64_t{1} << 63) & ~(random.below(2) == 0 ? (uint64_t{1} << random.below(63)) - 1 : 0);
    const int lsb = -63 - 149 + random.below(300);
    const uint64_t direct =
        encode(format(FormatId::f32), false, sig, lsb, Rounding::toward_zero, Overflow::ieee);
    const uint64_t wide =
        encode(format(FormatId::f64), false, sig, lsb, Rounding::toward_zero, Overflow::ieee);
    wrong += direct != convert(format(FormatId::f32), format(FormatId::f64), wide, Rounding::toward_zero,
                               Overflow::ieee);
  }
  CHECK(wrong == 0);
}

TEST_CASE("the FP32 kernel knows whether its sums were exact", "[gemm][shortcut]") {
  for (const Isa isa : kVectorIsas) {
    if (!supported(isa)) continue;
    const gemm::Fp4Kernels *k = gemm::fp4_kernels(isa);
    REQUIRE(k != nullptr);
    // row 0, column 0: one product of 1/4 a group; scales 1, 1, 1 and 2^-s. The sum needs 1 + s bits and
    // some.
    float table[256] = {};
    for (int s = 0; s < 60; ++s) table[s] = std::ldexp(1.0f, -s);
    for (int s = 0; s < 40; ++s) {
      uint8_t codes[32] = {}, scales_a[4] = {0, 0, 0, uint8_t(s)}, scales_b[4] = {};
      for (int g = 0; g < 4; ++g) codes[8 * g] = 1;
      std::vector<uint8_t> a(4 * k->a_bytes(16)), b(4 * k->b_bytes(16));
      k->pack_a(a.data(), 0, codes, scales_a, 4, 16, table);
      k->pack_b(b.data(), 0, codes, scales_b, 4, 16, table);
      std::vector<float> narrow(size_t(k->mr * k->nr)), wide = narrow, peak = narrow;
      const bool exact = k->narrow(a.data(), b.data(), 1, 16, narrow.data(), peak.data());
      INFO(to_string(isa) << " s " << s);
      CHECK(exact == (s <= 22)); // 3 + 2^-s has 2 + s bits
      k->wide(a.data(), b.data(), 1, 16, wide.data(), peak.data());
      if (exact) CHECK(narrow == wide);
    }
  }
}

TEST_CASE("with beta the epilogue is fma(alpha, acc, beta * C), as cuBLASLt on an H200", "[gemm][epilogue]") {
  GemmOptions options;
  options.alpha = 1.1f;
  options.beta = -0.7f;
  int other_order = 0, two_roundings = 0;
  for (uint32_t i = 0; i < 1000; ++i) {
    const float acc = float(i * 7919 % 1009) / 64.0f - 7.0f, c = float(i * 104729 % 997) / 32.0f - 15.0f;
    const float want = std::fma(options.alpha, acc, options.beta * c);
    const OutputTerms terms{.alpha = options.alpha, .beta = options.beta, .c = bit_cast<uint32_t>(c)};
    CHECK(finish_output(terms, FormatId::f32, bit_cast<uint32_t>(acc)) == bit_cast<uint32_t>(want));
    other_order += std::fma(options.beta, c, options.alpha * acc) != want;
    two_roundings += options.alpha * acc + options.beta * c != want;
  }
  CHECK(other_order > 100); // the candidates that the measurement excluded
  CHECK(two_roundings > 100);
}

TEST_CASE("the epilogue over tiles equals the epilogue of one output", "[gemm][epilogue]") {
  const Unit &unit = find_unit("sm_120:mma.m16n8k64.f32.mxf4nvf4.ue4m3.block16");
  Random random{22};
  const int64_t m = 13, n = 37, k = 100;
  Matrix a{m, k, std::vector<uint8_t>(size_t(m * 50)), std::vector<uint8_t>(size_t(m * 7))};
  Matrix b{n, k, std::vector<uint8_t>(size_t(n * 50)), std::vector<uint8_t>(size_t(n * 7))};
  for (std::vector<uint8_t> *v : {&a.codes, &b.codes, &a.scales, &b.scales})
    for (uint8_t &x : *v) x = uint8_t(random());
  for (uint8_t &x : a.scales)
    if (x % 128 == 127 && random.below(4) != 0) x = 1;
  for (uint8_t &x : b.scales)
    if (x % 128 == 127 && random.below(8) != 0) x = 1;
  std::vector<float> c(size_t(m * n));
  for (float &x : c) x = random.below(20) == 0 ? INFINITY : float(random.normal() * 1e4);
  std::vector<uint8_t> c_bytes(4 * c.size());
  std::memcpy(c_bytes.data(), c.data(), c_bytes.size());
  const std::vector<uint64_t> acc = accumulate(unit, a, b, Isa::scalar);
  for (const Isa isa : kIsas) {
    if (!supported(isa)) continue;
    for (const FormatId out : {FormatId::f32, FormatId::bf16, FormatId::f16})
      for (const float alpha : {1.0f, -0.37f, 3e-9f, 1e36f})
        for (const float beta : {0.0f, 1.0f, -2.5f}) {
          GemmOptions options;
          options.isa = isa;
          options.alpha = alpha;
          options.beta = beta;
          options.out = out;
          const GemmResult d = GemmPlan(unit, options)
                                   .run(make_operand(unit, Side::a, RawCodes{m, k, a.codes},
                                                     RawScales(a.scales, ScaleLayout::linear)),
                                        make_operand(unit, Side::b, RawCodes{n, k, b.codes},
                                                     RawScales(b.scales, ScaleLayout::linear)),
                                        {.c = c_bytes});
          const CodeView words{d.words.data(), format(out).storage_bits};
          uint64_t wrong = 0;
          for (int64_t o = 0; o < m * n; ++o)
            wrong += words[o] != finish_output({out, alpha, beta, bit_cast<uint32_t>(c[size_t(o)])},
                                               FormatId::f32, acc[size_t(o)]);
          INFO(to_string(isa) << " " << format(out).name << " alpha " << alpha << " beta " << beta);
          CHECK(wrong == 0);
        }
  }
}

TEST_CASE("an instruction set is chosen by argument, and errors name what is wrong", "[gemm][isa]") {
  const Unit &unit = find_unit("sm_90:wgmma.k16.f32.bf16");
  const Matrix x{1, 16, std::vector<uint8_t>(32), {}};
  for (const Isa isa : kIsas) {
    CHECK(parse_isa(to_string(isa)) == isa);
    if (supported(isa)) {
      CHECK(choose_isa(isa) == isa);
    } else {
      CHECK_THROWS_AS(choose_isa(isa), Error);
      CHECK_THROWS_AS(accumulate(unit, x, x, isa), Error);
    }
  }
  CHECK_THROWS_AS(parse_isa("sse9"), Error);
  CHECK_THROWS_AS(parse_isa(""), Error);
  CHECK(supported(choose_isa()));
}

#if defined(__x86_64__) || defined(__aarch64__)
#if defined(__x86_64__)
constexpr unsigned kHostile = 0xDFC0, kModes = 0xFFC0; // upward, FTZ and DAZ
unsigned float_control() { return _mm_getcsr(); }
void set_float_control(unsigned to) { _mm_setcsr(to); }
#else
constexpr unsigned kHostile = 0x1400000, kModes = 0x1C00000; // upward, FZ
unsigned float_control() { return unsigned(__builtin_aarch64_get_fpcr()); }
void set_float_control(unsigned to) { __builtin_aarch64_set_fpcr(to); }
#endif

TEST_CASE("the caller's rounding mode and flushing change nothing and are given back", "[gemm][shortcut]") {
  const Unit &unit = find_unit("sm_90:wgmma.k16.f32.bf16");
  Random random{23};
  Matrix a{20, 64, std::vector<uint8_t>(20 * 128), {}}, b = a;
  for (Matrix *x : {&a, &b})
    for (size_t i = 0; i < x->codes.size(); i += 2) {
      const uint16_t w = uint16_t(encode(FormatId::bf16, float(random.normal())));
      std::memcpy(&x->codes[i], &w, 2);
    }
  const std::vector<uint64_t> want = accumulate(unit, a, b, Isa::scalar);
  const unsigned before = float_control();
  for (const Isa isa : kVectorIsas) {
    if (!supported(isa)) continue;
    set_float_control(kHostile);
    const std::vector<uint64_t> got = accumulate(unit, a, b, isa, Accumulation::mmasim, 1);
    const unsigned after = float_control();
    set_float_control(before);
    CHECK(first_difference(got, want, b.rows) == "");
    CHECK((after & kModes) == kHostile);
  }
}
#endif
